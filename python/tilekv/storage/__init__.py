"""Where stores are kept. Nothing above this package touches the operating system's files."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.storage.local import LocalStorage
from tilekv.storage.memory import MemoryStorage
from tilekv.storage.protocol import Build, Draft, FileWriter, Listing, Storage

__all__ = ["Build", "Draft", "FileWriter", "Listing", "Storage", "open_storage"]


def open_storage(uri: str | os.PathLike[str], sync: bool = True) -> Storage:
    """Return the storage of a URI; nothing is read or made.

    Parameters
    ----------
    uri : str or os.PathLike
        A path, ``file:///absolute/path`` (percent-encoded) or ``memory://name``.
    sync : bool
        False: nothing is ever synced. A crash of the machine may then lose or damage data.

    Raises
    ------
    WrongTypeError
        For a URI that is neither str nor a path of str.
    InvalidValueError
        For an empty one, one with a NUL, and schemes that tilekv does not know.
    """
    text: object = os.fspath(uri) if isinstance(uri, os.PathLike) else uri
    if not isinstance(text, str):
        raise WrongTypeError(f"a store's URI is a str or a path, not {uri!r}")
    if not text or "\0" in text:
        raise InvalidValueError(f"a store's URI cannot be empty or contain NUL, as {text!r} does")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None or isinstance(uri, os.PathLike):
        return LocalStorage(text, sync)
    rest = text[scheme.end() :]
    if scheme[1].lower() == "memory" and rest:
        return MemoryStorage(rest)
    if scheme[1].lower() == "file":
        return LocalStorage(_file_path(text), sync)
    raise InvalidValueError(
        f"tilekv cannot open {text!r}: use a path, file:///absolute/path or memory://name"
    )


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    path = unquote(parts.path)
    known = parts.netloc in ("", "localhost") and not parts.query and not parts.fragment
    if not known or not path.startswith("/") or "\0" in path:
        raise InvalidValueError(
            f"{uri!r}: a file URI is file:///absolute/path, with '?' and '#' percent-encoded"
        )
    return path

"""Where stores are kept. Nothing above this package touches the operating system's files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tilekv.errors import InvalidValueError, ReadOnlyError, WrongTypeError, shown
from tilekv.storage.local import LocalBuild, LocalStorage
from tilekv.storage.memory import MemoryBuild, MemoryStorage
from tilekv.storage.protocol import (
    Build,
    Draft,
    FileWriter,
    Listing,
    Offer,
    OfferedDraft,
    RecordFile,
    Storage,
)

if TYPE_CHECKING:
    from tilekv.storage.objectstore import ObjectStorage

__all__ = [
    "Build",
    "Draft",
    "FileWriter",
    "Listing",
    "Offer",
    "OfferedDraft",
    "RecordFile",
    "Storage",
    "check_writable",
    "in_bucket",
    "move_storage",
    "open_storage",
    "outline",
    "remove_storage",
]

_OBJECT_STORES: Final = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl")
_WEB: Final = ("http", "https")


def open_storage(
    uri: str | os.PathLike[str],
    sync: bool = True,
    options: Mapping[str, object] | None = None,
    cached: bool = False,
) -> Storage:
    """Return the storage of a URI; nothing is read or made.

    Parameters
    ----------
    uri : str or os.PathLike
        A path, ``file:///absolute/path`` (percent-encoded), ``memory://name``, ``s3://bucket/prefix`` and its like, or
        ``https://host/path``, which is only read.
    options : mapping, optional
        Of an object store; see docs/cloud.md. Other places have none, and pass them over.
    cached : bool
        Whether it may be read through the cache on a disk that `options` ask for: by who looks things up, not by who checks or
        copies all that is there.
    sync : bool
        False: nothing is ever synced. A crash of the machine may then lose or damage data.

    Raises
    ------
    WrongTypeError
        For a URI that is neither str nor a path of str.
    MissingPackageError
        For an object store, when the package for it is not installed.
    InvalidValueError
        For an empty one, one with a NUL or lone surrogates that os.fsdecode does not make, and schemes that tilekv does not know.
    """
    text: object = os.fspath(uri) if isinstance(uri, os.PathLike) else uri
    if not isinstance(text, str):
        raise WrongTypeError(f"a store's URI is a str or a path, not {shown(uri)}")
    if not text or "\0" in text:
        raise InvalidValueError(f"a store's URI cannot be empty or contain NUL, as {text!r} does")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidValueError(f"no store's URI has the lone surrogates of {text!a}") from None
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None or isinstance(uri, os.PathLike):
        return LocalStorage(text, sync)
    rest = text[scheme.end() :]
    if scheme[1].lower() == "memory" and rest:
        return MemoryStorage(rest)
    if scheme[1].lower() == "file":
        return LocalStorage(_file_path(text, rest), sync)
    if scheme[1].lower() in (*_OBJECT_STORES, *_WEB):
        from tilekv.storage.objectstore import open_object_storage

        return open_object_storage(text, options, cached)
    raise InvalidValueError(
        f"tilekv cannot open {text!r}: use a path, file:///absolute/path, memory://name, s3://bucket/prefix, "
        "gs://bucket/prefix, az://container/prefix or https://host/path"
    )


def move_storage(old: Storage, new: Storage) -> bool:
    """Give all that is in one place, which nobody is making, another place; False when something is there."""
    check_writable(old)
    check_writable(new)
    if isinstance(old, LocalStorage) and isinstance(new, LocalStorage):
        return LocalBuild(old.uri, new.uri, True).commit(replace=False)
    if isinstance(old, MemoryStorage) and isinstance(new, MemoryStorage):
        return MemoryBuild(old.name, new.name).commit(replace=False)
    if (there := _in_bucket(old)) and (place := _in_bucket(new)):
        from tilekv.storage.objectmove import move

        return move(there, place)
    raise InvalidValueError(
        f"nothing moves between a folder, memory and object storage: tilekv.backup({old.uri!r}, {new.uri!r}) copies a store"
    )


def remove_storage(storage: Storage) -> None:
    """Take all that is in a place out of sight at once, and give back its room."""
    check_writable(storage)
    if isinstance(storage, MemoryStorage):
        MemoryBuild(storage.name, storage.name).abandon()
        return
    if there := _in_bucket(storage):
        from tilekv.storage.objectmove import remove

        remove(there)
        return
    parent = LocalStorage(os.path.dirname(storage.uri), True)
    parent.reclaim(parent.retire([os.path.basename(storage.uri)]))


def outline(storage: Storage) -> Listing:
    """`Storage.list`, but for the fragments of a store in a bucket, each of which is a request."""
    there = _in_bucket(storage)
    return there.outline() if there else storage.list()


def in_bucket(storage: Storage) -> bool:
    """Whether a place is on object storage, or on a web server."""
    return storage.uri.partition("://")[0] in (*_OBJECT_STORES, *_WEB)


def check_writable(storage: Storage) -> None:
    """ReadOnlyError for a place that can only be read, whatever is there."""
    if storage.uri.partition("://")[0] in _WEB:
        raise ReadOnlyError(f"{storage.uri} is on a web server: stores there are only read")


def _in_bucket(storage: Storage) -> ObjectStorage | None:
    """It, if it is there."""
    if not in_bucket(storage):
        return None
    from tilekv.storage.objectstore import ObjectStorage

    return storage if isinstance(storage, ObjectStorage) else None


def _file_path(uri: str, rest: str) -> str:
    """The path that a URI means, byte for byte; `rest` is what follows its ``//``.

    urllib would drop tabs, newlines and the spaces at its ends, and read names that are not UTF-8 as others.
    """
    from urllib.parse import unquote_to_bytes

    host, slash, path = rest.partition("/")
    name = os.fsdecode(unquote_to_bytes(os.fsencode(slash + path)))
    known = host in ("", "localhost") and not re.search("[?#]|%(?![0-9A-Fa-f]{2})", path)
    if not known or not name or "\0" in name:
        raise InvalidValueError(
            f"{shown(uri)}: a file URI is file:///absolute/path, with '?', '#' and '%' percent-encoded"
        )
    return name

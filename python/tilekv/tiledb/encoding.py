"""Values of bytes attributes as text, for `KV`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilekv.datatypes import CHAR
from tilekv.errors import InvalidValueError, TileKVError, WrongTypeError
from tilekv.schema import Attr


class NotTextError(TileKVError, UnicodeDecodeError):
    """A value that is not text in the encoding of the KV."""


class TextValues:
    """The values of a store with its bytes attributes as text, there and back."""

    def __init__(self, attrs: tuple[Attr, ...], encoding: str | None) -> None:
        """`encoding`: None leaves all values as they are. InvalidValueError for one that Python does not know."""
        self._names = tuple(attr.name for attr in attrs)
        self._encoding = _checked(encoding)
        # By name: without an encoding nothing is text.
        self._text = frozenset(attr.name for attr in attrs if encoding and attr.datatype == CHAR)

    def load(self, value: Any) -> Any:
        """The value of a key, as the user sees it."""
        if not self._text:
            return value
        if len(self._names) == 1:
            return self._decoded(self._names[0], value)
        return {name: self._decoded(name, each) for name, each in value.items()}

    def save(self, value: Any) -> Any:
        """The value that the store takes. What has a wrong form is left to the store, which says so."""
        if not self._text:
            return value
        if len(self._names) == 1:
            return self._encoded(self._names[0], value)
        if isinstance(value, tuple) and len(value) == len(self._names):
            return tuple(map(self._encoded, self._names, value))
        if isinstance(value, Mapping):
            return {name: self._encoded(name, each) for name, each in value.items()}
        return value

    def _decoded(self, name: str, value: Any) -> Any:
        if name not in self._text:
            return value
        try:
            return value.decode(self._encoding)
        except UnicodeDecodeError as error:
            reason = f"{error.reason}; attribute {name!r} is not text: KV(..., encoding=None) gives bytes"
            raise NotTextError(
                error.encoding, error.object, error.start, error.end, reason
            ) from None

    def _encoded(self, name: str, value: Any) -> Any:
        if name not in self._text:
            return value
        if not isinstance(value, str):
            raise WrongTypeError(
                f"attribute {name!r} takes str, as encoding={self._encoding!r}, not "
                f"{type(value).__name__}: KV(..., encoding=None) takes bytes"
            )
        try:
            return value.encode(self._encoding)
        except UnicodeEncodeError as error:
            raise InvalidValueError(f"attribute {name!r}: {error}") from None


def _checked(encoding: object) -> str:
    if encoding is None:
        return ""
    if not isinstance(encoding, str):
        raise WrongTypeError(f"encoding is a str or None, not {type(encoding).__name__}")
    try:
        "".encode(encoding)
    except (LookupError, ValueError) as error:
        raise InvalidValueError(f"encoding={encoding!r}: {error}") from None
    return encoding

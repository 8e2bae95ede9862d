"""What `Store.put_stream` reads from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.kvcore.format.tile import LONG_CELL

PART_BYTES: Final = LONG_CELL  # what is read, encoded and written at a time


class Readable(Protocol):
    """What a value is read from."""

    def read(self, n: int, /) -> bytes:
        """Up to n of the next bytes, at least one; none at the end."""


def opened_source(source: Readable | str | os.PathLike[str]) -> AbstractContextManager[Readable]:
    """A file that is read from: opened, when it is a path, and closed then."""
    if isinstance(source, (str, bytes, os.PathLike)):
        try:
            return open(source, "rb", buffering=0)
        except ValueError as error:  # a NUL
            raise InvalidValueError(f"no path of a file: {error}") from error
    if isinstance(source, type):
        raise WrongTypeError(f"a stream is a path or has read(n), and {source.__name__} is a class")
    if not callable(getattr(source, "read", None)):
        raise WrongTypeError(
            f"a stream is a path or has read(n), which {type(source).__name__} has not"
        )
    return nullcontext(source)


def checked_parts(file: Any, size: int | None) -> Iterator[bytes]:
    """What comes, in parts of PART_BYTES but for the last. InvalidValueError unless it is `size` bytes, if that is given."""
    total = 0
    while part := _part(file):
        total += len(part)
        if size is not None and total > size:
            raise InvalidValueError(f"the stream has more than the {size:,} bytes it was to have")
        if size is not None and total < size and len(part) < PART_BYTES:
            break
        yield part
    if size is not None and total != size:
        raise InvalidValueError(f"the stream ended after {total:,} of {size:,} bytes")


def _part(file: Any) -> bytes:
    """The next bytes: PART_BYTES of them, however few a read gives, or what is left."""
    parts: list[bytes] = []
    left = PART_BYTES
    while left and (data := file.read(left)) != b"":
        if data is None:
            raise InvalidValueError("the stream does not block: nothing has come, and more may")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise WrongTypeError(f"a stream is of bytes, and read gave {type(data).__name__}")
        data = bytes(data)
        if len(data) > left:
            raise InvalidValueError(f"read({left}) gave {len(data)} bytes")
        parts.append(data)
        left -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)

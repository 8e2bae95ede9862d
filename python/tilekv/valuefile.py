"""A value as a file: `Store.open_value` (docs/design.md 5.6)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from tilekv.kvcore.read.stored_value import StoredValue

if TYPE_CHECKING:
    from typing_extensions import Buffer

# A piece of a large value: a chunk that is wanted whole is decoded where it is wanted.
BUFFER_BYTES: Final = 1 << 17


def open_stored(value: StoredValue) -> io.BufferedReader:
    """A buffered, seekable file of the bytes of a value."""
    return io.BufferedReader(_ValueFile(value), BUFFER_BYTES)


class _ValueFile(io.RawIOBase):
    def __init__(self, value: StoredValue) -> None:
        self._value = value
        self._at = 0

    def readable(self) -> bool:
        self._check()
        return True

    def seekable(self) -> bool:
        self._check()
        return True

    def tell(self) -> int:
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        at = offset + (0, self._at, self._value.size)[whence]
        if at < 0:
            raise ValueError(f"a position of {at}")
        self._at = at
        return at

    def readinto(self, buffer: Buffer, /) -> int:
        self._check()
        n = self._value.part_into(min(self._at, self._value.size), buffer)
        self._at += n
        return n

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

"""Reading stored bytes: a cursor that cannot leave them."""

from __future__ import annotations

from typing import Final, NoReturn

from tilekv.errors import CorruptionError


class Cursor:
    """A place in `data`, the bytes of `file` from byte `base` on. Every read is checked: one past the end raises."""

    __slots__ = ("at", "base", "data", "file")

    def __init__(self, data: bytes, file: str, base: int = 0) -> None:
        self.data: Final = data
        self.file: Final = file
        self.base: Final = base
        self.at = 0

    @property
    def left(self) -> int:
        """The number of bytes from here to the end."""
        return len(self.data) - self.at

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        """Raise CorruptionError at byte `at` of `data`, or at the byte that would be read next."""
        raise CorruptionError(self.file, self.base + (self.at if at is None else at), reason)

    def take(self, n: int) -> bytes:
        """Return the next `n` bytes."""
        if n > self.left:
            self.fail(f"{n} bytes should follow, but only {self.left} do")
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Return the next 4 bytes as a little-endian number."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Return the next 8 bytes as a little-endian number."""
        return int.from_bytes(self.take(8), "little")

"""Generic tiles: what schema files and fragment metadata are wrapped in (docs/format.md 3).

v0      u64 body size | u64 raw size | u8 datatype | u64 cell size | u8 compressor, i32 level | body
v1+     u32 version | u64 body size | u64 raw size | u8 datatype | u64 cell size | u8 encryption
        u32 pipeline size | pipeline | body
"""

from __future__ import annotations

from typing import Final, NoReturn

from tilekv.cursor import Cursor
from tilekv.errors import CorruptionError
from tilekv.legacy.cipher import Cipher
from tilekv.legacy.tiles import BYTES, Coding, decode_tile

VERSIONS: Final = range(5)  # 0 to 4: TileDB 1.3 to 1.7
_PLAIN: Final = 0
_AES_256_GCM: Final = 1


def is_encrypted(data: bytes, file: str) -> bool:
    """Whether the generic tile that `data`, the bytes of `file`, begin with, of version 1 or later, is encrypted."""
    cursor = Cursor(data, file)
    cursor.take(29)
    kind = cursor.u8()
    if kind not in (_PLAIN, _AES_256_GCM):
        cursor.fail(f"there is no encryption {kind}", 29)
    return kind == _AES_256_GCM


class Payload(Cursor):
    """Raw bytes of a generic tile: they have no places of their own in the file."""

    __slots__ = ("_start",)

    def __init__(self, data: bytes, cursor: Cursor, start: int) -> None:
        super().__init__(data, cursor.file)
        self._start = cursor.base + start

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        """Raise CorruptionError at the tile's first byte."""
        raise CorruptionError(self.file, self._start, reason)


def read_generic(cursor: Cursor, version: int, cipher: Cipher | None) -> Cursor:
    """The raw bytes of the tile of that version at the cursor, which moves behind it.

    What is wrong with them is reported at the tile's first byte: their own places are not the file's.
    """
    start = cursor.at
    if version and cursor.u32() != version:
        cursor.fail(f"a tile of format {version} should begin here", start)
    body_size, raw_size = cursor.u64(), cursor.u64()
    cursor.take(9)  # datatype and cell size: bytes, whatever they say
    if version == 0:
        coding = Coding.read(cursor, 0)
    else:
        encrypted = cursor.u8() == _AES_256_GCM
        if encrypted != (cipher is not None):
            cursor.fail("one part of the store is encrypted, and another is not", cursor.at - 1)
        size = cursor.u32()
        end = cursor.at + size
        coding = Coding.read(cursor, version).plain
        if cursor.at != end:
            cursor.fail("the pipeline has another size than its header says", end - size)
    at = cursor.at
    body = Cursor(cursor.take(body_size), cursor.file, cursor.base + at)
    return Payload(decode_tile(body, coding, BYTES, raw_size, cipher), cursor, start)

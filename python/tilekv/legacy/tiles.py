"""Stored tiles to raw bytes (docs/format.md 4).

v0      without a compressor the raw bytes; else u64 blocks | per block u64 raw size, u64 stored size, stored bytes
v1+     u64 chunks | per chunk u32 raw size, u32 filtered size, u32 meta size, meta, filtered bytes
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tilekv.cursor import Cursor
from tilekv.datatypes import UINT64, datatype
from tilekv.errors import FormatError, MissingPackageError
from tilekv.filters import FILTER_NAMES
from tilekv.kvcore.codec import pipeline as codec
from tilekv.kvcore.codec.chunk import decode
from tilekv.legacy.cipher import Cipher

# TileDB's filter numbers that old stores use, and version 0's own numbers of compressors.
_ENCRYPTION: Final = 11
_KNOWN: Final = (*range(11), 12, 13)
_COMPRESSORS: Final = (1, 2, 3, 4, 5, 6)
_V0_BLOSC: Final = range(4, 10)
_V0_SNAPPY: Final = 7
_V0_RLE: Final = 10
_V0_COMPRESSORS: Final = range(13)

_MAX_BLOSC: Final = (1 << 31) - 1  # its sizes are i32
_BLOSC_RATIO: Final = 1 << 15  # as zstd, which of all in it makes most of a byte


class Element(NamedTuple):
    """What a tile holds."""

    size: int  # of one element of its datatype, in bytes
    signed: bool
    integer: bool
    cell_size: int  # of a cell, in bytes; of an element where cells have variable length

    @classmethod
    def of(cls, code: int, count: int = 1) -> Element:
        """Cells of `count` elements of a datatype."""
        row = datatype(code)
        return cls(row.size, row.signed, row.integer, row.size * count)

    def block_width(self, compressor: int) -> int:
        """What a compressor of version 0 works on, in bytes."""
        return self.cell_size if compressor == _V0_RLE else self.size


BYTES: Final = Element(1, False, False, 1)
WORDS: Final = Element.of(UINT64)


class Coding(NamedTuple):
    """How the tiles of a file are stored.

    Attributes
    ----------
    compressor : int or None
        Of version 0; None in later ones, which have filters.
    filters : tuple of (int, bytes)
        Numbers and options, in the order of a writer.
    max_chunk : int
        Bytes; steers writers only.
    """

    compressor: int | None
    filters: tuple[tuple[int, bytes], ...] = ()
    max_chunk: int = 0

    @classmethod
    def read(cls, cursor: Cursor, version: int) -> Coding:
        """What a schema or a tile's header says. FormatError for filters of later TileDBs."""
        if version == 0:
            compressor = cursor.u8()
            cursor.take(4)  # the level
            if compressor not in _V0_COMPRESSORS:
                cursor.fail(f"there is no compressor {compressor}", cursor.at - 5)
            if compressor == _V0_SNAPPY:
                raise FormatError(
                    f"{cursor.file} uses Snappy within Blosc, which no package that tilekv knows still reads"
                )
            return cls(compressor)
        max_chunk, n = cursor.u32(), cursor.u32()
        filters = []
        for _ in range(n):
            code = cursor.u8()
            filters.append((code, cursor.take(cursor.u32())))
            if code not in _KNOWN and code != _ENCRYPTION:
                name = FILTER_NAMES.get(code, "unknown")
                raise FormatError(
                    f"{cursor.file} uses {name} (filter {code}), which no TileDB 1.x has"
                )
        return cls(None, tuple(filters), max_chunk)

    @property
    def compresses(self) -> bool:
        """Whether there is a compressor."""
        if self.compressor is not None:
            return self.compressor != 0
        return any(code in _COMPRESSORS for code, _ in self.filters)

    @property
    def plain(self) -> Coding:
        """The same without encryption."""
        kept = tuple(one for one in self.filters if one[0] != _ENCRYPTION)
        return self._replace(filters=kept)

    def ratio(self, element: Element) -> int:
        """Raw bytes that one stored byte can mean at most."""
        if self.compressor in _V0_BLOSC:
            return _BLOSC_RATIO
        if self.compressor is not None:
            return codec.block_ratio(self.compressor, element.block_width(self.compressor))
        return codec.ratio(
            self.plain.descriptor(),
            element.size,
            element.signed,
            element.integer,
            element.cell_size,
        )

    def descriptor(self) -> bytes:
        """The pipeline descriptor of the filters."""
        parts = [self.max_chunk.to_bytes(4, "little"), len(self.filters).to_bytes(4, "little")]
        for code, options in self.filters:
            parts += [bytes((code,)), len(options).to_bytes(4, "little"), options]
        return b"".join(parts)


def decode_tile(
    cursor: Cursor, coding: Coding, element: Element, raw_size: int, cipher: Cipher | None = None
) -> bytes:
    """The `raw_size` bytes of the tile that begins at the cursor, which moves behind it.

    Raises
    ------
    CorruptionError
        When it is no such tile.
    MissingPackageError
        When it was compressed by Blosc, and the package `blosc2` is not installed.
    """
    try:
        ratio = coding.ratio(element)
    except ValueError as error:
        cursor.fail(str(error))
    if raw_size // ratio > cursor.left:
        cursor.fail(f"{cursor.left} bytes cannot hold the {raw_size} that they should")
    if coding.compressor is None:
        return _chunks(cursor, coding, element, raw_size, cipher)
    if coding.compressor == 0:
        return cursor.take(raw_size)
    return _blocks(cursor, coding.compressor, element, raw_size)


def _chunks(
    cursor: Cursor, coding: Coding, element: Element, raw_size: int, cipher: Cipher | None
) -> bytes:
    descriptor = coding.descriptor()
    parts = []
    left = raw_size
    for _ in range(cursor.u64()):
        at = cursor.at
        raw, filtered, meta = cursor.u32(), cursor.u32(), cursor.u32()
        if raw > left:
            cursor.fail(f"a chunk of {raw} bytes where {left} are left of the tile", at)
        left -= raw
        cursor.take(meta + filtered)
        stored = cursor.data[at : cursor.at]
        if cipher is not None:
            stored = cipher.chunk(stored, cursor.file, cursor.base + at)
        try:
            parts.append(
                decode(
                    descriptor,
                    element.size,
                    element.signed,
                    element.integer,
                    stored,
                    raw,
                    checked=False,
                    cell_size=element.cell_size,
                )
            )
        except ValueError as error:
            cursor.fail(str(error), at)
    if left:
        cursor.fail(f"the chunks of a tile of {raw_size} bytes hold {left} less")
    return b"".join(parts)


def _blocks(cursor: Cursor, compressor: int, element: Element, raw_size: int) -> bytes:
    width = element.block_width(compressor)
    parts = []
    left = raw_size
    for _ in range(cursor.u64()):
        at = cursor.at
        raw, stored = cursor.u64(), cursor.u64()
        if raw > left:
            cursor.fail(f"a block of {raw} bytes where {left} are left of the tile", at)
        left -= raw
        data = cursor.take(stored)
        if compressor in _V0_BLOSC:
            parts.append(_blosc(data, raw, cursor, at))
            continue
        try:
            parts.append(codec.decode_block(compressor, data, raw, width))
        except ValueError as error:
            cursor.fail(str(error), at)
    if left:
        cursor.fail(f"the blocks of a tile of {raw_size} bytes hold {left} less")
    return b"".join(parts)


def _blosc(data: bytes, raw_size: int, cursor: Cursor, at: int) -> bytes:
    """A Blosc 1 buffer: u8 version, u8 its codec's, u8 flags, u8 type size, u32 raw size, u32 block size, u32 stored size."""
    try:
        import blosc2
    except ImportError:
        raise MissingPackageError(
            f"{cursor.file} was compressed by Blosc: that needs the package `blosc2`: pip install 'tilekv[legacy]'"
        ) from None
    header = Cursor(data, cursor.file, cursor.base + at + 16)
    header.take(4)
    sizes = header.u32(), header.u32(), header.u32()
    if sizes[0] != raw_size or sizes[2] != len(data) or raw_size > _MAX_BLOSC:
        header.fail(f"a Blosc buffer of {raw_size} bytes in {len(data)} says otherwise", 0)
    try:
        raw: bytes = blosc2.decompress(data)
    except (RuntimeError, ValueError) as error:
        header.fail(f"Blosc cannot decompress it: {error}", 0)
    if len(raw) != raw_size:
        header.fail(f"a Blosc buffer of {raw_size} bytes holds {len(raw)}", 0)
    return raw

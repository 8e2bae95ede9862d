"""Labelled reading of bytes, filter pipelines and chunks: the lower half of `oracle`, which see."""

from __future__ import annotations

import struct
from typing import NamedTuple

import lz4.block
import zstandard

NONE, ZSTD, LZ4, BIT_WIDTH = 0, 2, 3, 7  # filters
# By datatype code: INT32 INT64 FLOAT32 FLOAT64 CHAR INT8 UINT8 INT16 UINT16 UINT32 UINT64 ASCII UTF8 UTF16 UTF32 UCS2 UCS4 ANY,
# 13 datetimes, 9 times, BLOB, BOOL.
WIDTHS = (4, 8, 4, 8, 1, 1, 1, 2, 2, 4, 8, 1, 1, 2, 4, 2, 4, 1, *[8] * 22, 1, 1)
# What bit-width reduction narrows, to whether it is signed. TileDB copies all else in this format, datetimes too.
INTEGERS = {0: True, 1: True, 7: True, 8: False, 9: False, 10: False}


class Violation(AssertionError):
    """Bytes that are not as the format says."""


def expect(good: object, what: str) -> None:
    if not good:
        raise Violation(what)


def crc32c(data: bytes, crc: int = 0) -> int:
    """RFC 3720 appendix B.4, bit by bit in a table."""
    crc ^= 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


class Walk:
    """Reads a file from front to back and notes what it read."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0
        self.lines: list[tuple[int, str]] = []

    def take(self, n: int, label: str) -> bytes:
        start = self.at
        expect(
            start + n <= len(self.data), f"{self.name} ends before {n} bytes of {label} at {start}"
        )
        self.at += n
        found = self.data[start : self.at]
        if n:
            self.note(start, f"{n} bytes {label} = {found.hex()}")
        return found

    def number(self, width: int, label: str, must: int | None = None) -> int:
        start = self.at
        expect(start + width <= len(self.data), f"{self.name} ends before {label} at {start}")
        self.at += width
        value = int.from_bytes(self.data[start : self.at], "little")
        self.note(start, f"u{8 * width} {label} = {value}")
        expect(
            must is None or value == must,
            f"{self.name}, byte {start}: {label} is {value}, not {must}",
        )
        return value

    def u8(self, label: str, must: int | None = None) -> int:
        return self.number(1, label, must)

    def u32(self, label: str, must: int | None = None) -> int:
        return self.number(4, label, must)

    def u64(self, label: str, must: int | None = None) -> int:
        return self.number(8, label, must)

    def u64s(self, n: int, label: str) -> list[int]:
        return [self.u64(f"{label}[{i}]") for i in range(n)]

    def zeros(self, to: int, label: str = "padding", most: int = 8) -> None:
        """Zero bytes up to the position `to`, which is near."""
        expect(0 <= to - self.at < most, f"{self.name}: {label} from {self.at} to {to}")
        expect(
            not any(self.take(to - self.at, label)), f"{self.name}: {label} before {to} is not zero"
        )

    def note(self, at: int, text: str) -> None:
        self.lines.append((at, text))

    def end(self) -> None:
        expect(self.at == len(self.data), f"{self.name}: {len(self.data) - self.at} bytes too many")

    def dump(self) -> str:
        return "".join(f"0x{at:04x} {text}\n" for at, text in self.lines)


class Filter(NamedTuple):
    type: int
    options: bytes


class Pipeline(NamedTuple):
    max_chunk: int
    filters: tuple[Filter, ...]

    @property
    def ends_in_zstd(self) -> bool:
        return bool(self.filters) and self.filters[-1].type == ZSTD


class Chunk(NamedTuple):
    start: int  # of its raw bytes in the tile's
    position: int  # in the file, from the tile's start
    raw: bytes
    windows: int  # of bit-width reduction as the only filter, else 0


class Tile(NamedTuple):
    chunks: list[Chunk]
    raw: bytes


def read_pipeline(walk: Walk, label: str) -> Pipeline:
    max_chunk = walk.u32(f"{label}: max chunk")
    filters = []
    for _ in range(walk.u32(f"{label}: filters")):
        kind = walk.u8(f"{label}: filter")
        options = walk.take(walk.u32(f"{label}: options size"), f"{label}: options")
        size = {NONE: 0, ZSTD: 5, LZ4: 5, BIT_WIDTH: 4}
        expect(len(options) == size.get(kind), f"{label}: options of filter {kind}")
        expect(kind not in (ZSTD, LZ4) or options[0] == kind, f"{label}: the code of a compressor")
        filters.append(Filter(kind, options))
    return Pipeline(max_chunk, tuple(filters))


# --- chunks ----------------------------------------------------------------------------------------


def compressed_part(kind: int, data: bytes, size: int) -> bytes:
    if kind == LZ4:
        return bytes(lz4.block.decompress(data, uncompressed_size=size))
    frame = zstandard.get_frame_parameters(data)
    expect(frame.has_checksum, "a zstd frame without a checksum")
    expect(frame.content_size == size, "a zstd frame of another size")
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    found = unpacker.decompress(data)
    expect(unpacker.eof and not unpacker.unused_data, "bytes behind a zstd frame")
    return found


def uncompress(kind: int, meta: bytes, data: bytes) -> tuple[bytes, bytes]:
    n_meta, n_data = struct.unpack_from("<II", meta)
    expect(n_data == 1 and n_meta <= 1, "parts of a compressor")
    sizes = [struct.unpack_from("<II", meta, 8 + 8 * i) for i in range(n_meta + n_data)]
    at, parts = 0, []
    for raw, stored in sizes:
        parts.append(compressed_part(kind, data[at : at + stored], raw))
        expect(len(parts[-1]) == raw, "a part's raw size")
        at += stored
    expect(at == len(data), "bytes behind a compressor's parts")
    before = b"".join(parts[:n_meta]) + meta[8 + 8 * len(sizes) :]
    return before, b"".join(parts[n_meta:])


def widen(meta: bytes, data: bytes, datatype: int) -> tuple[bytes, bytes, int]:
    """Undo bit-width reduction: what is left of the metadata, the integers, the number of windows."""
    if datatype not in INTEGERS:
        return meta, data, 0
    width = WIDTHS[datatype]
    total, windows = struct.unpack_from("<II", meta)
    at, pos, found = 8, 0, bytearray()
    for _ in range(windows):
        least = int.from_bytes(meta[at : at + width], "little", signed=INTEGERS[datatype])
        bits, size = struct.unpack_from("<BI", meta, at + width)
        expect(bits in (8, 16, 32, 64), "the bits of a window")
        at += width + 5
        if bits >= 8 * width:
            found += data[pos : pos + size]
            pos += size
            continue
        expect(size % width == 0, "a narrow window that ends within an element")
        for _ in range(size // width):
            value = least + int.from_bytes(data[pos : pos + bits // 8], "little")
            found += (value % (1 << 8 * width)).to_bytes(width, "little")
            pos += bits // 8
    expect(len(found) == total and pos == len(data), "the windows' sizes")
    return meta[at:], bytes(found), windows


def read_chunk(walk: Walk, pipeline: Pipeline, datatype: int, tile: int) -> Chunk:
    start = walk.at
    raw_size = walk.u32("chunk: raw size")
    filtered = walk.u32("chunk: filtered size")
    size = walk.u32("chunk: meta size")
    if pipeline.ends_in_zstd:
        meta = walk.take(size, "chunk: meta")
        data = walk.take(filtered, "chunk: data")
    else:
        expect(size >= 4, f"{walk.name}, byte {start}: no room for a CRC-32C")
        meta = walk.take(size - 4, "chunk: meta")
        before = walk.data[start : walk.at]
        crc = walk.u32("chunk: CRC-32C")
        data = walk.take(filtered, "chunk: data")
        expect(crc == crc32c(before + data), f"{walk.name}, byte {start}: the chunk's CRC-32C")
    windows = 0
    for one in reversed(pipeline.filters):
        if one.type in (ZSTD, LZ4):
            meta, data = uncompress(one.type, meta, data)
        elif one.type == BIT_WIDTH:
            meta, data, windows = widen(meta, data, datatype)
    expect(meta == b"", f"{walk.name}, byte {start}: metadata that no filter took")
    expect(len(data) == raw_size, f"{walk.name}, byte {start}: the chunk's raw size")
    return Chunk(0, start - tile, data, windows if len(pipeline.filters) == 1 else 0)


def read_tile(walk: Walk, pipeline: Pipeline, datatype: int) -> Tile:
    """u64 chunks, chunks."""
    tile, start, chunks = walk.at, 0, []
    for _ in range(walk.u64("tile: chunks")):
        chunk = read_chunk(walk, pipeline, datatype, tile)
        chunks.append(chunk._replace(start=start))
        start += len(chunk.raw)
    return Tile(chunks, b"".join(chunk.raw for chunk in chunks))


def generic_header(walk: Walk) -> int:
    """A generic tile without filters in one chunk, up to the size of its private metadata; the size of its payload."""
    walk.u32("tile format", 3)
    body = walk.u64("body size")
    raw = walk.u64("raw size")
    walk.u8("datatype: CHAR", 4)
    walk.u64("cell size", 1)
    walk.u8("encryption: none", 0)
    walk.u32("pipeline size", 8)
    walk.u32("max chunk")
    walk.u32("filters", 0)
    start = walk.at
    walk.u64("chunks", 1)
    walk.u32("raw size", raw)
    walk.u32("filtered size", raw)
    meta = int.from_bytes(walk.data[walk.at : walk.at + 4], "little")
    expect(body == walk.at + 4 + meta + raw - start, f"{walk.name}, byte {start}: the body's size")
    return raw

"""Fragments that lie: changed at will, every checksum made right again, so that only the decoder's own checks can refuse them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tilekv.kvcore.base.crc32c import crc32c

PAYLOAD = 72  # of a vector's tile
IDENTITY, SOURCES, CHUNKS, BLOOM, UNIFORM, FIRST = 1, 2, 3, 4, 7, 8


class Metadata:
    """A metadata file to be changed in place; `seal` gives it with right checksums.

    `footer` and `block` say where those begin; what they hold is in docs/format.md.
    """

    def __init__(self, data: bytes, fields: int) -> None:
        self.data = bytearray(data)
        self.na = fields
        self.footer = len(data) - (54 + 8 * (2 * fields + 1) + 8 + 8 * (3 * fields + 1))
        self.tail = self.footer - 12
        self.block = self.tail - self.u32(self.tail)
        positions = self.footer + 54 + 8 * (2 * fields + 1)
        self.rtree = self.u64(positions)
        self.vectors = [self.u64(positions + 8 + 8 * i) for i in range(3 * fields + 1)]

    def u32(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4], "little")

    def u64(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 8], "little")

    def put(self, at: int, value: int, size: int = 8) -> None:
        self.data[at : at + size] = value.to_bytes(size, "little")

    def entry(self, vector: int, tile: int) -> int:
        """Where a vector has its number of a tile."""
        return self.vectors[vector] + PAYLOAD + 8 + 8 * tile

    def raw_sizes(self, field: int) -> int:
        return 2 * self.na + 1 + field

    def records(self, tag: int) -> Iterator[int]:
        """Where the payloads of the records of a tag begin."""
        at = self.block
        while at < self.tail:
            if self.u32(at) == tag:
                yield at + 8
            at += 8 + -(-self.u32(at + 4) // 8) * 8

    def seal(self) -> bytes:
        for position in (self.rtree, *self.vectors):
            size = self.u64(position + 12)
            payload = self.data[position + PAYLOAD : position + PAYLOAD + size]
            self.put(position + 62, crc32c(bytes(payload)), 4)
        block = self.data[self.block : self.tail + 4] + self.data[self.footer :]
        self.put(self.tail + 4, crc32c(bytes(block)), 4)
        return bytes(self.data)


def plain_chunk(data: bytes) -> bytes:
    """A chunk that no filter has touched."""
    header = struct.pack("<III", len(data), len(data), 4)
    return header + struct.pack("<I", crc32c(header + data)) + data

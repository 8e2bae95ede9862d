"""Reads one fragment, for `oracle`, which see."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from oracle_chunks import WIDTHS, Pipeline, Tile, Walk, crc32c, expect, generic_header, read_tile

VAR = 0xFFFFFFFF
UINT64 = 10
TOMBSTONE = 0x80
MAX_CHUNK = 1 << 20  # only a longer cell may be cut
PLAIN = 1 << 16  # the most bytes of a chunk of several cells that no filter touches
FANOUT = 10
IDENTITY, SOURCES, CHUNKS, BLOOM, BOUND, UNIFORM, FIRST = 1, 2, 3, 4, 5, 7, 8  # tags of records
NOT_UNIFORM = 0xFFFFFFFF
BLOCK, BLOCKS = 32, 127  # bytes of a block of the Bloom filter, blocks of a page
SALTS = (
    0x47B6137B,
    0x44974D91,
    0x8824AD5B,
    0xA2B7289D,
    0x705495C7,
    0x2DF1424B,
    0x9EFC4947,
    0x5C6BFB31,
)
TRAILER = 20  # bytes at the end of a data file that the footer does not count


class Field(NamedTuple):
    name: str
    datatype: int
    values: int
    pipeline: Pipeline

    @property
    def var(self) -> bool:
        return self.values == VAR

    @property
    def width(self) -> int:
        """Bytes of a cell of a fixed field."""
        return self.values * WIDTHS[self.datatype]


class Schema(NamedTuple):
    """What a fragment needs to know of its store; fields are `__key`, the attributes, `__key_type`."""

    capacity: int
    fields: tuple[Field, ...]
    coords: Pipeline
    offsets: Pipeline
    digest: str


class Cell(NamedTuple):
    c0: int
    c1: int
    key_type: int  # without the tombstone's bit
    key: bytes
    deleted: bool
    values: dict[str, bytes]  # by attribute, little-endian


@dataclass
class Fragment:
    """One fragment: cells in their order, tiles and dumps by file."""

    name: str
    t1: int
    t2: int
    cells: list[Cell] = field(default_factory=list)
    sources: tuple[str, ...] = ()
    first_output: str = ""
    tiles: dict[str, list[Tile]] = field(default_factory=dict)
    dumps: dict[str, str] = field(default_factory=dict)


class FragmentReader:
    """Reads one fragment: metadata from its footer, then every data file, then all of it against each other."""

    def __init__(self, schema: Schema, folder: Path, t1: int, t2: int) -> None:
        self.schema = schema
        self.folder = folder
        self.fragment = Fragment(folder.name, t1, t2)
        self.fields = schema.fields
        self.na = len(schema.fields)

    def read(self) -> Fragment:
        self.metadata()
        coords = self.file("__coords.tdb", self.na, self.schema.coords, UINT64)
        columns: list[list[bytes]] = []
        for i, one in enumerate(self.fields):
            if one.var:
                columns.append(self.var_column(i, one))
            else:
                columns.append(self.fixed_column(i, one))
        names = {"__fragment_metadata.tdb", "__coords.tdb"}
        names |= {f"{one.name}.tdb" for one in self.fields}
        names |= {f"{one.name}_var.tdb" for one in self.fields if one.var}
        found = {path.name for path in self.folder.iterdir()}
        expect(found == names, f"{self.folder.name} has the files {sorted(found ^ names)}")
        self.make_cells(coords, columns)
        self.check_cells()
        self.check_bloom()
        for i, one in enumerate(self.fields):
            if one.var:
                self.check_uniform(self.na + 1 + i, columns[i], len)
        self.check_uniform(self.na - 1, columns[-1], lambda cell: cell[0])
        expect(not self.uniform, f"uniform cells of slots {list(self.uniform)}")
        self.check_bounds()
        self.check_directory()
        return self.fragment

    def cells_of(self, tile: int) -> int:
        return self.last if tile == self.ntiles - 1 else self.schema.capacity

    # The metadata file: R-tree and vectors from front to back, then the private block, then the footer.

    def metadata(self) -> None:
        file = "__fragment_metadata.tdb"
        walk = Walk(self.folder.joinpath(file).read_bytes(), f"{self.folder.name}/{file}")
        na = self.na
        footer = len(walk.data) - (54 + 8 * (2 * na + 1) + 8 + 8 * (3 * na + 1))
        # The footer first: it says where everything is.
        walk.at = footer
        walk.u32("footer: format version", 3)
        walk.u8("footer: dense", 0)
        walk.u8("footer: null domain", 0)
        self.domain = walk.u64s(4, "footer: non-empty domain")
        self.ntiles = walk.u64("footer: tiles")
        self.last = walk.u64("footer: cells of the last tile")
        self.sizes = walk.u64s(na + 1, "footer: file size")
        self.var_sizes = walk.u64s(na, "footer: var file size")
        rtree = walk.u64("footer: R-tree position")
        positions = walk.u64s(3 * na + 1, "footer: vector position")
        walk.end()
        expect(self.ntiles > 0 and 0 < self.last <= self.schema.capacity, "the number of cells")
        notes, walk.lines = walk.lines, []
        walk.at = 0
        walk.zeros(rtree)
        self.rtree(walk)
        vectors = [self.vector(walk, position) for position in positions]
        self.offsets = vectors[: na + 1]
        self.var_offsets = vectors[na + 1 : 2 * na + 1]
        self.var_raw_sizes = vectors[2 * na + 1 :]
        self.bloom_pages(walk, footer)
        walk.zeros(-walk.at % 8 + walk.at)
        self.private_block(walk, footer)
        walk.lines += notes
        self.fragment.dumps[file] = walk.dump()

    def private_meta(self, walk: Walk, size: int, payload: int) -> None:
        walk.u32("private meta size", 10)
        crc = walk.u32("CRC-32C of the payload")
        expect(not any(walk.take(6, "zero")), f"{walk.name}: private bytes before {walk.at}")
        expect(walk.at == payload, f"{walk.name}: the payload stands at {walk.at}, not {payload}")
        expect(
            crc == crc32c(walk.data[walk.at : walk.at + size]),
            f"{walk.name}: CRC-32C at {payload - 10}",
        )

    def rtree(self, walk: Walk) -> None:
        at = walk.at
        size = generic_header(walk)
        self.private_meta(walk, size, at + 72)
        end = walk.at + size
        walk.u32("R-tree: dimensions", 2)
        walk.u32("R-tree: fanout", FANOUT)
        walk.u8("R-tree: type", UINT64)
        levels = []
        for level in range(walk.u32("R-tree: levels")):
            n = walk.u64(f"R-tree: boxes of level {level}")
            expect(walk.at % 8 == 0, f"{walk.name}: boxes at {walk.at}")
            words = walk.u64s(4 * n, f"R-tree: level {level}")
            levels.append([words[4 * i : 4 * i + 4] for i in range(n)])
        expect(walk.at == end, "the R-tree's size")
        expect(
            len(levels[0]) == 1 and len(levels[-1]) == self.ntiles, "the R-tree's root and leaves"
        )
        for above, below in pairwise(levels):
            groups = [below[i : i + FANOUT] for i in range(0, len(below), FANOUT)]
            expect(above == [union(group) for group in groups], "a box of the R-tree")
        self.boxes = levels[-1]
        expect(union(self.boxes) == self.domain, "the non-empty domain")

    def vector(self, walk: Walk, position: int) -> list[int]:
        expect(position % 8 == 0, f"{walk.name}: a vector at {position}")
        walk.zeros(position)
        size = generic_header(walk)
        self.private_meta(walk, size, position + 72)
        n = walk.u64("n")
        expect(size == 8 + 8 * n, f"{walk.name}: the vector at {position} has another size")
        expect(n in (0, self.ntiles), f"{walk.name}: a vector of {n} for {self.ntiles} tiles")
        return walk.u64s(n, "vector")

    def bloom_pages(self, walk: Walk, footer: int) -> None:
        """The pages of the Bloom filter, if there are any before the private block: blocks and their CRC-32C."""
        self.blocks: list[int] = []
        end = footer - 12 - int.from_bytes(walk.data[footer - 12 : footer - 8], "little")
        self.bloom_at = -walk.at % 64 + walk.at
        if end < self.bloom_at + BLOCK:
            return
        walk.zeros(self.bloom_at, most=64)
        left = (end - walk.at) // BLOCK  # blocks, and another for each page
        while left:
            n = min(BLOCKS, left - 1)
            page = walk.take(BLOCK * n, "Bloom filter: page")
            expect(
                walk.u32("Bloom filter: CRC-32C") == crc32c(page), f"{walk.name}: a filter's CRC"
            )
            walk.zeros(walk.at + BLOCK - 4, most=BLOCK)
            self.blocks += (
                int.from_bytes(page[at : at + BLOCK], "little") for at in range(0, BLOCK * n, BLOCK)
            )
            left -= n + 1

    def check_bloom(self) -> None:
        """It has the bits of these cells, and no others."""
        if not self.blocks:
            return
        made = [0] * len(self.blocks)
        for cell in self.fragment.cells:
            block = min((cell.c0 - self.low) * self.factor >> 64, len(made) - 1)
            for i, salt in enumerate(SALTS):
                made[block] |= 1 << (32 * i + (cell.c1 * salt % 2**32 >> 27))
        expect(made == self.blocks, "the Bloom filter is not that of the cells")

    def uniform_cells(self, walk: Walk) -> None:
        slot, n = walk.u32("uniform cells: slot"), walk.u32("uniform cells: tiles, or 1")
        expect(n in (1, self.ntiles), f"{walk.name}: uniform cells of {n} tiles")
        said = [walk.u32(f"what cells have in common [{i}]") for i in range(n)]
        expect(slot not in self.uniform, f"{walk.name}: two records of uniform cells of a slot")
        self.uniform[slot] = said * self.ntiles if n == 1 else said

    def check_uniform(self, slot: int, cells: list[bytes], common: Callable[[bytes], int]) -> None:
        """Of each tile is said what all its cells have in common, and of others that they have nothing."""
        found = []
        for number in range(self.ntiles):
            first = number * self.schema.capacity
            values = {common(cell) for cell in cells[first : first + self.cells_of(number)]}
            found.append(values.pop() if len(values) == 1 else NOT_UNIFORM)
        said = self.uniform.pop(slot, None)
        if self.blocks:  # written since there are such records
            expect(said == (found if set(found) != {NOT_UNIFORM} else None), f"slot {slot}: {said}")
        else:
            expect(said in (None, found), f"slot {slot}: {said}")

    def private_block(self, walk: Walk, footer: int) -> None:
        """Tagged records, u32 length, u32 CRC-32C over block and footer, TKVB."""
        start, end = walk.at, footer - 12
        expect(start % 8 == 0 and start <= end, f"{walk.name}: the private block at {start}")
        self.directory: dict[int, list[tuple[int, int, int]]] = {}
        self.uniform: dict[int, list[int]] = {}
        seen: list[int] = []
        while walk.at < end:
            tag, size = walk.u32("record: tag"), walk.u32("record: size")
            after = walk.at + size
            if tag == IDENTITY:
                self.identity(walk)
            elif tag == SOURCES:
                names = []
                while walk.at < after:
                    names.append(walk.take(walk.u32("source: size"), "source").decode())
                self.fragment.sources = tuple(names)
            elif tag == FIRST:
                self.fragment.first_output = walk.take(size, "the first output").decode()
            elif tag == CHUNKS:
                self.chunk_directory(walk)
            elif tag == BLOOM:
                walk.u64("Bloom filter: position", self.bloom_at)
                walk.u64("Bloom filter: blocks", len(self.blocks))
                self.low = walk.u64("Bloom filter: low")
                self.factor = walk.u64("Bloom filter: factor")
            elif tag == UNIFORM:
                self.uniform_cells(walk)
            elif tag == BOUND:
                expect(size == 0, f"{walk.name}: a record of tag {BOUND} with a payload")
            else:
                walk.take(size, "an unknown record")
            expect(walk.at == after, f"{walk.name}: the size of a record of tag {tag}")
            walk.zeros(-walk.at % 8 + walk.at)
            seen.append(tag)
        expect(walk.at == end and seen.count(IDENTITY) == 1, f"{walk.name}: records {seen}")
        expect(seen.count(SOURCES) + seen.count(FIRST) <= 1, f"{walk.name}: records {seen}")
        expect(
            seen.count(BLOOM) == (len(self.blocks) > 0), f"{walk.name}: a filter without a record"
        )
        expect(seen.count(BOUND) == 1, f"{walk.name}: its data files need not end in a trailer")
        walk.u32("private block: length", end - start)
        block = walk.data[start : walk.at]
        crc = walk.u32("private block: CRC-32C")
        expect(
            crc == crc32c(block + walk.data[footer:]), f"{walk.name}: the private block's CRC-32C"
        )
        expect(walk.take(4, "magic") == b"TKVB", f"{walk.name}: no TKVB before the footer")

    def identity(self, walk: Walk) -> None:
        expect(walk.take(16, "uuid").hex() == self.folder.name[-32:], "the uuid")
        walk.u64("t1", self.fragment.t1)
        walk.u64("t2", self.fragment.t2)
        walk.u64("cells", (self.ntiles - 1) * self.schema.capacity + self.last)
        self.tombstones = walk.u64("tombstones")

    def chunk_directory(self, walk: Walk) -> None:
        """For every chunk: number of its tile, first cell or byte in it, position from the tile's start."""
        slot, width = walk.u32("slot"), walk.u32("width")
        expect(width in (4, 8) and slot not in self.directory, f"{walk.name}: a chunk directory")
        n = walk.u64("chunks")
        first = [walk.u32(f"first chunk of tile [{i}]") for i in range(self.ntiles + 1)]
        expect(first[0] == 0 and first == sorted(first) and first[-1] == n, "first chunks")
        walk.zeros(-walk.at % 8 + walk.at)
        tiles = [tile for tile in range(self.ntiles) for _ in range(first[tile], first[tile + 1])]
        self.directory[slot] = [
            (tile, walk.number(width, "start"), walk.number(width, "position")) for tile in tiles
        ]

    # The data files.

    def file(self, name: str, slot: int, pipeline: Pipeline, datatype: int) -> list[Tile]:
        walk = Walk(self.folder.joinpath(name).read_bytes(), f"{self.folder.name}/{name}")
        is_bytes = slot > self.na
        starts = self.var_offsets[slot - self.na - 1] if is_bytes else self.offsets[slot]
        size = self.var_sizes[slot - self.na - 1] if is_bytes else self.sizes[slot]
        expect(size + TRAILER == len(walk.data), f"{name} has {len(walk.data)} bytes, not {size}")
        expect(len(starts) == self.ntiles, f"{name} has {len(starts)} tiles")
        tiles = []
        for start in starts:
            expect(
                walk.at == start,
                f"{name}: a tile at {start}, while the one before ends at {walk.at}",
            )
            tiles.append(read_tile(walk, pipeline, datatype))
        expect(walk.at == size, f"{name}: the tiles end at {walk.at}, not {size}")
        expect(walk.take(16, "trailer: uuid").hex() == self.folder.name[-32:], f"{name}: the uuid")
        walk.u32("trailer: slot", slot)
        walk.end()
        self.fragment.tiles[name] = tiles
        self.fragment.dumps[name] = walk.dump()
        self.compare_directory(name, slot, tiles)
        return tiles

    def compare_directory(self, name: str, slot: int, tiles: list[Tile]) -> None:
        unit = self.fields[slot].width if slot < self.na and not self.fields[slot].var else 1
        walked = [
            (number, chunk.start // unit, chunk.position)
            for number, tile in enumerate(tiles)
            for chunk in tile.chunks
        ]
        if slot in self.directory:
            expect(self.directory.pop(slot) == walked, f"{name}: the chunk directory")
        elif slot != self.na:
            expect(all(len(tile.chunks) == 1 for tile in tiles), f"{name} needs a chunk directory")

    def check_directory(self) -> None:
        expect(not self.directory, f"chunk directories of slots {list(self.directory)}")

    def fixed_column(self, slot: int, one: Field) -> list[bytes]:
        name, width = f"{one.name}.tdb", one.width
        cells: list[bytes] = []
        for tile in self.file(name, slot, one.pipeline, one.datatype):
            for chunk in tile.chunks:
                expect(len(chunk.raw) % width == 0, f"{name}: a chunk cuts a cell")
            cells += (tile.raw[at : at + width] for at in range(0, len(tile.raw), width))
            expect(len(cells) % self.schema.capacity in (0, self.last), f"{name}: cells of a tile")
        return cells

    def var_column(self, slot: int, one: Field) -> list[bytes]:
        offsets = self.file(f"{one.name}.tdb", slot, self.schema.offsets, UINT64)
        name = f"{one.name}_var.tdb"
        data = self.file(name, self.na + 1 + slot, one.pipeline, one.datatype)
        sizes = self.var_raw_sizes[slot]
        expect([len(tile.raw) for tile in data] == sizes, f"{name}: the raw sizes of its tiles")
        cells = []
        for number, (starts, tile) in enumerate(zip(offsets, data, strict=True)):
            expect(len(starts.chunks) == 1, f"{one.name}.tdb: offsets are one chunk a tile")
            n = self.cells_of(number)
            expect(len(starts.raw) == 8 * n, f"{one.name}.tdb: tile {number} has another length")
            ends = [*struct.unpack(f"<{n}Q", starts.raw), len(tile.raw)]
            expect(ends[0] == 0 and ends == sorted(ends), f"{one.name}.tdb: the order of offsets")
            self.check_cuts(name, tile, ends, one.pipeline)
            cells += (tile.raw[a:b] for a, b in pairwise(ends))
        return cells

    def check_cuts(self, name: str, tile: Tile, ends: list[int], pipeline: Pipeline) -> None:
        """Chunks are whole cells, but for pieces of a cell that is longer than MAX_CHUNK and has its chunks alone."""
        most = pipeline.max_chunk if pipeline.filters else PLAIN
        borders = set(ends)
        longer = [(a, b) for a, b in pairwise(ends) if b - a > MAX_CHUNK]
        for chunk in tile.chunks:
            first, last = chunk.start, chunk.start + len(chunk.raw)
            expect(last > first, f"{name}: a chunk without bytes")
            if any(a < last and first < b for a, b in longer):
                expect(
                    any(a <= first and last <= b for a, b in longer), f"{name}: a piece and more"
                )
                expect(last - first <= MAX_CHUNK, f"{name}: a piece of {last - first} bytes")
                continue
            expect(first in borders and last in borders, f"{name}: a chunk cuts a cell")
            cells = sum(first < border <= last for border in borders)
            expect(cells == 1 or last - first <= most, f"{name}: a chunk of {last - first} bytes")

    # All of it together.

    def make_cells(self, coords: list[Tile], columns: list[list[bytes]]) -> None:
        pairs: list[tuple[int, int]] = []
        for number, tile in enumerate(coords):
            n = self.cells_of(number)
            place = number * (40 + 16 * self.schema.capacity)
            expect(
                self.offsets[self.na][number] == place,
                f"__coords.tdb: tile {number} is not at {place}",
            )
            expect(
                [(chunk.position, len(chunk.raw)) for chunk in tile.chunks]
                == [(8, 8 * n), (24 + 8 * n, 8 * n)],
                f"__coords.tdb: the chunks of tile {number}",
            )
            words = struct.unpack(f"<{2 * n}Q", tile.raw)
            pairs += zip(words[:n], words[n:], strict=True)
        names = [one.name for one in self.fields[1:-1]]
        expect(all(len(column) == len(pairs) for column in columns), "columns of different lengths")
        for i, (c0, c1) in enumerate(pairs):
            kind = columns[-1][i][0]
            values = {name: columns[1 + j][i] for j, name in enumerate(names)}
            cell = Cell(c0, c1, kind & ~TOMBSTONE, columns[0][i], kind & TOMBSTONE != 0, values)
            self.fragment.cells.append(cell)

    def check_cells(self) -> None:
        hashed = {"blake2b": lambda data: hashlib.blake2b(data, digest_size=16), "md5": hashlib.md5}
        function = hashed[self.schema.digest]
        cells = self.fragment.cells
        order = [cell[:4] for cell in cells]
        expect(all(a < b for a, b in pairwise(order)), "the order of the cells")
        expect(sum(cell.deleted for cell in cells) == self.tombstones, "the number of tombstones")
        for cell in cells:
            digest = function(struct.pack("<BQ", cell.key_type, len(cell.key)) + cell.key).digest()
            coords = tuple(min(word, 2**64 - 2) for word in struct.unpack("<QQ", digest))
            expect(cell[:2] == coords, f"the coordinates of {cell.key!r} of type {cell.key_type}")
            expect(cell.key_type < len(WIDTHS), f"key type {cell.key_type}")
            for one in self.fields[1:-1]:
                value = cell.values[one.name]
                if cell.deleted:
                    expect(value == b"" if one.var else not any(value), "a tombstone with a value")
                expect(len(value) % WIDTHS[one.datatype] == 0, f"{one.name}: half a value")

    def check_bounds(self) -> None:
        for number, box in enumerate(self.boxes):
            first = number * self.schema.capacity
            cells = self.fragment.cells[first : first + self.cells_of(number)]
            expect(
                box == union([[c.c0, c.c0, c.c1, c.c1] for c in cells]), f"the box of tile {number}"
            )


def union(boxes: list[list[int]]) -> list[int]:
    """The smallest box {low 0, high 0, low 1, high 1} around boxes."""
    sides = list(zip(*boxes, strict=True))
    return [min(sides[0]), max(sides[1]), min(sides[2]), max(sides[3])]

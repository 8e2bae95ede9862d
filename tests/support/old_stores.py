"""A writer of the key-value stores of TileDB 1.3 to 1.7, from docs/format.md: for versions and damage that no fixture has.

One attribute of int32, one of bytes; nothing is compressed but, if asked, the coordinates.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tilekv.kvcore.hashing.digest import DIGESTS, coordinates
from tilekv.kvcore.testing import encode

INT32, CHAR, UINT64, UTF8, ANY = 0, 4, 10, 12, 17
VAR = 0xFFFFFFFF
PLAIN = struct.pack("<II", 65536, 0)
ZSTD = struct.pack("<IIBIBi", 65536, 1, 2, 5, 2, -1)
UUID = "0123456789abcdef0123456789abcdef"

# What TileDB calls an item: the key's type and bytes, and the two values.
Item = tuple[tuple[int, bytes], int, bytes]


class Cell(NamedTuple):
    """An item at its coordinates."""

    at: tuple[int, int]
    key: tuple[int, bytes]
    number: int
    text: bytes


class OldStoreWriter:
    """Writes one store.

    Parameters
    ----------
    version : int
        0 to 4.
    capacity : int
        Cells of a tile.
    digest : str
        "md5" is what TileDB did on Windows.
    zstd_coords : bool
        Whether the coordinates are compressed; versions 1 and later.
    text : int
        The datatype of the attribute `text`.
    """

    def __init__(
        self,
        root: Path,
        version: int,
        capacity: int = 2,
        digest: str = "md5-lp64",
        zstd_coords: bool = False,
        text: int = CHAR,
    ) -> None:
        self.root = root
        self.version = version
        self.capacity = capacity
        self.digest = DIGESTS[digest]
        self.zstd_coords = zstd_coords
        self.text = text
        root.mkdir()
        root.joinpath("__kv_schema.tdb").write_bytes(self.generic(self.schema()))
        root.joinpath("__lock.tdb").touch()

    def flush(self, items: Sequence[Item], t: int, name: str | None = None) -> Path:
        """Write a fragment; the folder that it is in."""
        keys = [item[0] for item in items]
        places = coordinates(self.digest, keys)
        cells = sorted(Cell(at, *item) for at, item in zip(places, items, strict=True))
        later = f"__{t}_{t}_{UUID}" if self.version >= 3 else f"__{UUID}_{t}"
        folder = self.root / (name or later)
        folder.mkdir()
        tiles = [cells[i : i + self.capacity] for i in range(0, len(cells), self.capacity)]
        stored = {
            "__key": [self.offsets(self.keys(tile)) for tile in tiles],
            "number": [
                self.tile(b"".join(struct.pack("<i", cell.number) for cell in tile))
                for tile in tiles
            ],
            "text": [self.offsets([cell.text for cell in tile]) for tile in tiles],
            "__coords": [self.coords(tile) for tile in tiles],
            "__key_var": [self.tile(b"".join(self.keys(tile))) for tile in tiles],
            "text_var": [self.tile(b"".join(cell.text for cell in tile)) for tile in tiles],
        }
        if self.version == 0:
            types = [bytes(cell.key[0] for cell in tile) for tile in tiles]
            stored["__key_type"] = [self.tile(one) for one in types]
        for stem, parts in stored.items():
            folder.joinpath(f"{stem}.tdb").write_bytes(b"".join(parts))
        raw_sizes = {
            "__key": [len(b"".join(self.keys(tile))) for tile in tiles],
            "text": [sum(len(cell.text) for cell in tile) for tile in tiles],
        }
        metadata = self.metadata(tiles, stored, raw_sizes)
        folder.joinpath("__fragment_metadata.tdb").write_bytes(metadata)
        return folder

    @property
    def fields(self) -> list[str]:
        """The fields in the order of the schema."""
        return (
            ["__key", "__key_type", "number", "text"]
            if self.version == 0
            else [
                "__key",
                "number",
                "text",
            ]
        )

    def schema(self) -> bytes:
        """The schema, raw."""
        one = b"\0" + struct.pack("<i", -1) if self.version == 0 else PLAIN
        numbers = (1, 3, 0) if self.version == 0 else (self.version,)
        parts = [struct.pack(f"<{len(numbers)}i", *numbers), bytes((1, 0, 0))]
        coords = ZSTD if self.zstd_coords else one
        parts += [struct.pack("<Q", self.capacity), coords, one]
        parts.append(struct.pack("<BI", UINT64, 2))
        for name in (b"__key_dim_1", b"__key_dim_2"):
            parts.append(struct.pack("<I", len(name)) + name)
            top = 2**64 - 1 if self.version == 0 else 2**64 - 2
            parts.append(struct.pack("<QQB", 0, top, self.version < 3))
            if self.version >= 3:
                parts.append(struct.pack("<Q", 2**64 - 1))
        key = CHAR if self.version == 0 else ANY
        kinds = {"__key": (key, VAR), "__key_type": (CHAR, 1), "number": (INT32, 1)}
        kinds["text"] = (self.text, VAR)
        parts.append(struct.pack("<I", len(self.fields)))
        for name in self.fields:
            code, count = kinds[name]
            parts.append(struct.pack("<I", len(name)) + name.encode() + bytes((code,)))
            number = struct.pack("<I", count)
            parts += [one, number] if self.version == 0 else [number, one]
        return b"".join(parts)

    def metadata(
        self,
        tiles: list[list[Cell]],
        stored: dict[str, list[bytes]],
        raw_sizes: dict[str, list[int]],
    ) -> bytes:
        """The metadata file."""
        files = [*self.fields, "__coords"]
        empty = [b""] * len(tiles)
        starts = [_starts(stored[name]) for name in files]
        var = [stored.get(f"{name}_var", empty) for name in self.fields]
        var_starts = [_starts(parts) for parts in var]
        sizes = [raw_sizes.get(name, [0] * len(tiles)) for name in self.fields]
        arrays = [_vector(one) for one in (*starts, *var_starts, *sizes)]
        file_sizes = [sum(map(len, stored[name])) for name in files]
        file_sizes += [sum(map(len, parts)) for parts in var]
        ends = struct.pack(f"<{len(file_sizes)}Q", *file_sizes)
        boxes = [_box(tile) for tile in tiles]
        last = struct.pack("<Q", len(tiles[-1]))
        domain = _box([cell for tile in tiles for cell in tile])
        if self.version < 3:
            numbers = (1, 3, 0) if self.version == 0 else (self.version,)
            parts = [struct.pack(f"<{len(numbers)}i", *numbers), struct.pack("<Q", 32), domain]
            parts += 2 * [struct.pack("<Q", len(tiles)), *boxes]
            return self.generic(b"".join([*parts, *arrays, last, ends]))
        tree = struct.pack("<IIBI", 2, 10, UINT64, 1) + struct.pack("<Q", len(tiles))
        pieces = [self.generic(one) for one in (tree + b"".join(boxes), *arrays)]
        footer = struct.pack("<IBB", self.version, 0, 0) + domain
        footer += struct.pack("<Q", len(tiles)) + last + ends
        footer += struct.pack(f"<{len(pieces)}Q", *_starts(pieces))
        return b"".join(pieces) + footer

    def generic(self, raw: bytes) -> bytes:
        """A generic tile."""
        if self.version == 0:
            return struct.pack("<QQBQBi", len(raw), len(raw), CHAR, 1, 0, -1) + raw
        body = self.tile(raw)
        header = (self.version, len(body), len(raw), CHAR, 1, 0, len(PLAIN))
        return struct.pack("<IQQBQBI", *header) + PLAIN + body

    def tile(self, raw: bytes, pipeline: bytes = PLAIN) -> bytes:
        """A tile of one chunk."""
        if self.version == 0:
            return raw
        return struct.pack("<Q", 1) + encode(pipeline, 8, False, True, raw)

    def keys(self, tile: list[Cell]) -> list[bytes]:
        """The keys as they stand in `__key`."""
        typed = self.version > 0
        return [bytes((cell.key[0],)) * typed + cell.key[1] for cell in tile]

    def offsets(self, cells: list[bytes]) -> bytes:
        """A tile of the starts of cells."""
        starts = _starts(cells)
        return self.tile(struct.pack(f"<{len(starts)}Q", *starts))

    def coords(self, tile: list[Cell]) -> bytes:
        """A tile of coordinates: pairs, or one dimension after the other."""
        pairs = [cell.at for cell in tile]
        split = self.version >= 2 or self.zstd_coords
        words = [c for half in zip(*pairs, strict=True) for c in half]
        if not split:
            words = [c for pair in pairs for c in pair]
        raw = struct.pack(f"<{len(words)}Q", *words)
        return self.tile(raw, ZSTD if self.zstd_coords else PLAIN)


def _starts(parts: Sequence[bytes]) -> list[int]:
    at = 0
    found = []
    for part in parts:
        found.append(at)
        at += len(part)
    return found


def _vector(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words) + 1}Q", len(words), *words)


def _box(cells: list[Cell]) -> bytes:
    first, second = zip(*(cell.at for cell in cells), strict=True)
    return struct.pack("<4Q", min(first), max(first), min(second), max(second))

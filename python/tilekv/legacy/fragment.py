"""The cells of an old fragment, tile by tile, as tilekv's fields (docs/format.md 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from tilekv.cursor import Cursor
from tilekv.datatypes import DATATYPES
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.file import File
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.write.arrays import ArrayCells
from tilekv.legacy.cipher import Cipher
from tilekv.legacy.metadata import Words, read_metadata
from tilekv.legacy.names import OldName
from tilekv.legacy.schema import OldField, OldSchema
from tilekv.legacy.tiles import WORDS, Coding, Element, decode_tile
from tilekv.names import FRAGMENT_METADATA, data_file

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Cells = tuple[Words, Octets]  # where each cell begins and the last one ends; the bytes

_COORDS: Final = "__coords"
_TOMBSTONE: Final = np.uint8(0x80)
_ALWAYS_SPLIT: Final = 2  # from this version on coordinates are one dimension after the other
# The largest half of a digest is clamped in a look-up, as TileDB's later domain wants it (docs/format.md 1.2).
_LARGEST: Final = np.uint64(2**64 - 2)


class OldFragment:
    """A fragment of an old store.

    Parameters
    ----------
    files : mapping of str to File
        The files of its folder.

    Raises
    ------
    CorruptionError, FormatError
        When its metadata is damaged, or of a later format.
    """

    def __init__(
        self,
        name: OldName,
        schema: OldSchema,
        files: Mapping[str, File],
        cipher: Cipher | None,
    ) -> None:
        self.name: Final = name
        self._schema: Final = schema
        self._files: Final = files
        self._cipher: Final = cipher
        self.metadata: Final = read_metadata(
            files[FRAGMENT_METADATA],
            name,
            [field.is_var for field in schema.fields],
            schema.version,
            cipher,
        )
        if self.metadata.last_tile_cells > schema.capacity:
            raise CorruptionError(
                f"{name.folder}/{FRAGMENT_METADATA}",
                None,
                f"{self.metadata.last_tile_cells} cells in a tile of {schema.capacity}",
            )

    def portions(self, layout: Layout, lost: Mask | None = None) -> Iterator[ArrayCells]:
        """The cells, a tile at a time; those that are `lost` as deletes of their keys.

        Raises CorruptionError when a tile is damaged, or the cells are not in the order of their coordinates.
        """
        last: tuple[int, int] | None = None
        for tile in range(self.metadata.tiles):
            c0, c1 = self.coordinates(tile)
            rising = (c0[1:] > c0[:-1]) | ((c0[1:] == c0[:-1]) & (c1[1:] > c1[:-1]))
            first = int(c0[0]), int(c1[0])
            if not rising.all() or (last is not None and first <= last):
                self._fail(_COORDS, False, tile, "the coordinates do not ascend")
            last = int(c0[-1]), int(c1[-1])
            types, keys = self.keys(tile)
            if lost is not None:
                begin = tile * self._schema.capacity
                types = types | (lost[begin : begin + len(types)] * _TOMBSTONE)
            columns: list[Octets | Cells] = [keys]
            columns += [self._column(field, tile) for field in self._schema.attributes]
            columns.append(types)
            yield ArrayCells(layout, c0, c1, columns)

    def coordinates(self, tile: int) -> tuple[Words, Words]:
        """Both coordinates of the cells of a tile."""
        n = self._cells(tile)
        coding, version = self._schema.coords, self.metadata.version
        cursor = self._tile(_COORDS, False, self.metadata.bounds[-1], tile)
        if version == 0 and coding.compresses:  # a row of blocks for each dimension
            raw = b"".join(decode_tile(cursor, coding, WORDS, 8 * n) for _ in range(2))
        else:
            raw = decode_tile(cursor, coding, WORDS, 16 * n, self._cipher)
        words: Words = np.frombuffer(raw, "<u8")
        if version >= _ALWAYS_SPLIT or coding.compresses:
            c0, c1 = words[:n], words[n:]
        else:
            c0, c1 = words[::2], words[1::2]
        return np.minimum(c0, _LARGEST), np.minimum(c1, _LARGEST)

    def keys(self, tile: int) -> tuple[Octets, Cells]:
        """The types of a tile's keys, and the keys."""
        starts, data = self._var(self._schema.key, tile)
        field = self._schema.key_type
        if field is not None:
            types = self._fixed(field, tile)
        else:  # the type is the first byte of the key
            if np.any(starts[1:] == starts[:-1]):
                self._fail("__key", True, tile, "a key has no type")
            first = starts[:-1].astype(np.int64)
            types = data[first]
            data = np.delete(data, first)
            starts -= np.arange(len(starts), dtype=np.uint64)
        if np.any(types >= len(DATATYPES)):
            self._fail("__key", field is None, tile, "a key has a type that TileDB does not know")
        return types, (starts, data)

    def _cells(self, tile: int) -> int:
        last = tile + 1 == self.metadata.tiles
        return self.metadata.last_tile_cells if last else self._schema.capacity

    def _column(self, field: OldField, tile: int) -> Octets | Cells:
        """A column as the shown attribute wants it: text of fixed length has variable length there."""
        if field.is_var:
            return self._var(field, tile)
        data = self._fixed(field, tile)
        if DATATYPES[field.datatype].dtype is not None:
            return data
        n = self._cells(tile)
        starts: Words = np.arange(n + 1, dtype=np.uint64) * np.uint64(len(data) // n)
        return starts, data

    def _fixed(self, field: OldField, tile: int) -> Octets:
        element = Element.of(field.datatype, field.values)
        size = self._cells(tile) * element.cell_size
        at = self._schema.fields.index(field)
        return self._decode(
            field.name, False, self.metadata.bounds[at], tile, field.coding, element, size
        )

    def _var(self, field: OldField, tile: int) -> Cells:
        n = self._cells(tile)
        at = self._schema.fields.index(field)
        raw = self._decode(
            field.name, False, self.metadata.bounds[at], tile, self._schema.offsets, WORDS, 8 * n
        )
        size = int(self.metadata.bytes_sizes[at][tile])
        starts: npt.NDArray[Any] = np.append(raw.view("<u8"), np.uint64(size))
        if starts[0] != 0 or np.any(starts[1:] < starts[:-1]):
            self._fail(field.name, False, tile, "the offsets of its cells do not ascend from 0")
        element = Element.of(field.datatype)
        return starts, self._decode(
            field.name, True, self.metadata.bytes_bounds[at], tile, field.coding, element, size
        )

    def _decode(
        self,
        stem: str,
        is_bytes: bool,
        bounds: Words,
        tile: int,
        coding: Coding,
        element: Element,
        size: int,
    ) -> Octets:
        cursor = self._tile(stem, is_bytes, bounds, tile)
        raw = decode_tile(cursor, coding, element, size, self._cipher)
        return np.frombuffer(raw, np.uint8)

    def _tile(self, stem: str, is_bytes: bool, bounds: Words, tile: int) -> Cursor:
        """The stored bytes of a tile."""
        place = self._place(stem, is_bytes)
        file = self._files.get(data_file(stem, is_bytes))
        if file is None:
            raise CorruptionError(place, None, "it is missing")
        start, end = int(bounds[tile]), int(bounds[tile + 1])
        if end > file.size:
            raise CorruptionError(place, start, f"a tile ends at {end}, the file at {file.size}")
        return Cursor(file.read(start, end - start), place, start)

    def _place(self, stem: str, is_bytes: bool) -> str:
        return f"{self.name.folder}/{data_file(stem, is_bytes)}"

    def _fail(self, stem: str, is_bytes: bool, tile: int, reason: str) -> NoReturn:
        raise CorruptionError(self._place(stem, is_bytes), None, f"tile {tile}: {reason}")

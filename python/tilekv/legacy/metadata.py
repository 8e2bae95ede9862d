"""Where the tiles of an old fragment are (docs/format.md 6).

Per-file arrays run over the schema's fields in order, the coordinates last.

    v0-v2   one generic tile: version (v0: i32 x 3; else u32) | u64 32, non-empty domain
            u64 tiles, MBRs | u64 tiles, bounding coordinates | per file u64 n, tile offsets
            per field u64 n, offsets of its bytes | per field u64 n, raw sizes of its bytes
            u64 cells of the last tile | per file u64 size | per field u64 size of its bytes
    v3, v4  generic tiles anywhere {u64 n, n x u64}, then, to the end of the file, the footer:
            u32 version | u8 dense, u8 no domain | non-empty domain | u64 tiles | u64 cells of the last tile
            per file u64 size | per field u64 size of its bytes
            u64 position of the R-tree | positions of the arrays: offsets per file, offsets and raw sizes per field
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tilekv.cursor import Cursor
from tilekv.errors import FormatError
from tilekv.kvcore.base.file import File
from tilekv.legacy.cipher import Cipher
from tilekv.legacy.generic import VERSIONS, read_generic
from tilekv.legacy.names import OldName
from tilekv.names import FRAGMENT_METADATA
from tilekv.schemafile import wrote

Words = npt.NDArray[np.uint64]

_BOX: Final = 32  # bytes of an MBR, of bounding coordinates and of the non-empty domain
_FOOTER_VERSIONS: Final = (3, 4)
_MAX_METADATA: Final = 1 << 30  # bytes; 80 a tile and file at most, so a fragment of terabytes


class OldMetadata(NamedTuple):
    """What the metadata of a fragment says.

    Attributes
    ----------
    version : int
        The format of the data tiles.
    tiles, last_tile_cells : int
    bounds : tuple of arrays of uint64
        By field, where each tile begins in its file, and the end: tiles + 1. Last, the same for the coordinates.
    bytes_bounds, bytes_sizes : tuple of arrays of uint64
        By field, the same for the file of its bytes, and how many raw bytes each tile has; without meaning for a fixed field.
    """

    version: int
    tiles: int
    last_tile_cells: int
    bounds: tuple[Words, ...]
    bytes_bounds: tuple[Words, ...]
    bytes_sizes: tuple[Words, ...]


def read_metadata(
    metadata: File, name: OldName, var: list[bool], schema_version: int, cipher: Cipher | None
) -> OldMetadata:
    """Parse a fragment's metadata.

    Parameters
    ----------
    var : list of bool
        By field, whether its cells have variable length.
    schema_version : int
        The store's: it tells version 0, which has no number of its own, from the others.

    Raises
    ------
    CorruptionError, FormatError
        When it is damaged, or of a format that TileDB 1.x did not write.
    """
    file = f"{name.folder}/{FRAGMENT_METADATA}"
    if metadata.size > _MAX_METADATA:
        Cursor(b"", file).fail(f"metadata of {metadata.size} bytes")
    data = metadata.read(0, metadata.size)
    if name.is_range and schema_version > 0:
        return _read_footer(data, file, var, cipher)
    version = Cursor(data, file).u32() if schema_version > 0 else 0
    return _read_whole(data, file, version, var, cipher)


def _read_whole(
    data: bytes, file: str, version: int, var: list[bool], cipher: Cipher | None
) -> OldMetadata:
    if version not in VERSIONS:
        Cursor(data, file).fail(f"a fragment of this name has format 0 to 4, not {version}", 0)
    cursor = read_generic(Cursor(data, file), version, cipher)
    cursor.take(12 if version == 0 else 4)
    cursor.take(cursor.u64())  # the non-empty domain
    tiles = cursor.u64()
    cursor.take(_BOX * tiles)
    cursor.take(_BOX * cursor.u64())
    arrays = [_vector(cursor, count) for count in _counts(tiles, var)]
    last = cursor.u64()
    sizes = [cursor.u64() for _ in range(2 * len(var) + 1)]
    return _assemble(cursor, version, tiles, last, arrays, sizes)


def _read_footer(data: bytes, file: str, var: list[bool], cipher: Cipher | None) -> OldMetadata:
    n = len(var)
    size = 54 + 8 * (2 * n + 1) + 8 + 8 * (3 * n + 1)
    start = len(data) - size
    if start < 0:
        Cursor(data, file).fail(f"a footer of {size} bytes does not fit into {len(data)}", 0)
    cursor = Cursor(data[start:], file, start)
    version = cursor.u32()
    if version not in _FOOTER_VERSIONS:
        if 5 <= version <= 255:
            raise FormatError(f"{file} has format {version}: {wrote(version)} wrote it")
        cursor.fail(f"a fragment of this name has format 3 or 4, not {version}", 0)
    cursor.take(2 + _BOX)
    tiles, last = cursor.u64(), cursor.u64()
    sizes = [cursor.u64() for _ in range(2 * n + 1)]
    cursor.u64()  # the R-tree: tilekv makes its own
    positions = [cursor.u64() for _ in range(3 * n + 1)]
    arrays = []
    place = Cursor(data[:start], file)
    for position, count in zip(positions, _counts(tiles, var), strict=True):
        if position > start:
            cursor.fail(f"an array at byte {position} is not before the footer", 0)
        place.at = position
        arrays.append(_vector(read_generic(place, version, cipher), count))
    return _assemble(cursor, version, tiles, last, arrays, sizes)


def _counts(tiles: int, var: list[bool]) -> list[int | None]:
    """The sizes of the arrays: as many as there are tiles. None is any: of the bytes of a fixed field, which it does not have."""
    return [tiles] * (len(var) + 1) + [tiles if is_var else None for is_var in (*var, *var)]


def _vector(cursor: Cursor, count: int | None) -> Words:
    """u64 n, then n of them."""
    n = cursor.u64()
    if count is not None and n != count:
        cursor.fail(f"an array has {n} entries, not {count}")
    words: Words = np.frombuffer(cursor.take(8 * n), "<u8")
    return words


def _assemble(
    cursor: Cursor,
    version: int,
    tiles: int,
    last_tile_cells: int,
    arrays: list[Words],
    sizes: list[int],
) -> OldMetadata:
    """`arrays` and `sizes` are in the order of the file."""
    if not tiles or not last_tile_cells:
        cursor.fail("a fragment without cells")
    bounds = tuple(_bounds(*one, cursor) for one in zip(arrays, sizes, strict=False))
    n = len(sizes) // 2  # fields
    raw_sizes = tuple(arrays[len(sizes) :])
    return OldMetadata(version, tiles, last_tile_cells, bounds[: n + 1], bounds[n + 1 :], raw_sizes)


def _bounds(starts: Words, size: int, cursor: Cursor) -> Words:
    """Where tiles begin and the last one ends, in order."""
    bounds: npt.NDArray[Any] = np.append(starts, np.uint64(size))
    if np.any(bounds[1:] < bounds[:-1]):
        cursor.fail("a tile ends before it begins")
    return bounds

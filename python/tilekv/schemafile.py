"""The schema file of format 3 (docs/format.md 3, 5 and 8.2), in `__kv_schema.tdb` and `__array_schema.tdb`.

generic tile  u32 3 | u64 body size | u64 raw size | u8 CHAR | u64 1 | u8 0 (no encryption)
              u32 pipeline size | pipeline (without filters)
body          u64 chunks | per chunk u32 raw, u32 the same, u32 meta size, meta, raw bytes
raw bytes     u32 3 | u8 sparse | u8 tile order, u8 cell order (row-major) | u64 capacity
              coords pipeline | offsets pipeline
              u8 UINT64 | u32 2 | per dimension u32 size, name, u64 low, u64 high, u8 0, u64 extent
              u32 n | per field u32 size, name, u8 datatype, u32 cell_val_num, pipeline
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from tilekv.cursor import Cursor
from tilekv.datatypes import CHAR, UINT64, datatype
from tilekv.errors import FormatError
from tilekv.filters import FilterList

SCHEMA_FILE: Final = "__kv_schema.tdb"
FORMAT_VERSION: Final = 3

# By format version, 0 to 22 and later.
_WRITERS: Final = (
    *("1.3 or older", "1.4.0", "1.4.1 to 1.5.1", "1.6 or tilekv", "1.7"),
    *("2.0", "2.1", "2.2", "2.2.3", "2.3", "2.4 to 2.6", "2.7", "2.8", "2.9", "2.10", "2.11"),
    *("2.12 or 2.13", "2.14", "2.15", "2.16", "2.17 or 2.18", "2.19 to 2.24", "2.25 or newer"),
)

_TILE_CHUNK: Final = 65536  # TileDB's own max_chunk for generic tiles; it steers nobody here
_SPARSE: Final = 1
_ROW_MAJOR: Final = 0
# 2^64-1 is outside the domain, as in TileDB 1.6: TileDB 2.2 to 2.17 cannot open the full one.
_DOMAIN: Final = (0, 2**64 - 2)
_EXTENT: Final = 2**64 - 1
_DIMENSIONS: Final = (b"__key_dim_1", b"__key_dim_2")


class Field(NamedTuple):
    """A column of the fragments, as the compiled core wants it: `Layout` takes the first four.

    Attributes
    ----------
    name : str
        Its name in the schema file; the stem of its file names.
    datatype : int
        TileDB's datatype code.
    cell_val_num : int
        Values of a cell; 0xFFFFFFFF for variable length.
    pipeline : bytes
        The pipeline descriptor of the values (docs/format.md 4.2).
    max_chunk : int
        The raw chunk size in that descriptor, in bytes.
    """

    name: str
    datatype: int
    cell_val_num: int
    pipeline: bytes
    max_chunk: int


class StoredField(NamedTuple):
    """A field as a schema file has it."""

    name: str
    datatype: int
    cell_val_num: int
    filters: FilterList


class StoredSchema(NamedTuple):
    """What a schema file says."""

    capacity: int
    coords_filters: FilterList
    offsets_filters: FilterList
    fields: tuple[StoredField, ...]


def write_schema(fields: Sequence[Field], capacity: int, offsets: bytes, coords: bytes) -> bytes:
    """Return the schema file; `offsets` and `coords` are pipeline descriptors."""
    raw = [struct.pack("<IBBBQ", FORMAT_VERSION, _SPARSE, _ROW_MAJOR, _ROW_MAJOR, capacity)]
    raw += [coords, offsets, _domain(), struct.pack("<I", len(fields))]
    for field in fields:
        name = field.name.encode()
        raw += [struct.pack("<I", len(name)), name]
        raw += [struct.pack("<BI", field.datatype, field.cell_val_num), field.pipeline]
    payload = b"".join(raw)
    n = len(payload)
    pipeline = FilterList()._to_bytes(_TILE_CHUNK)
    body = struct.pack("<QIII", 1, n, n, 0) + payload
    header = struct.pack("<IQQBQBI", FORMAT_VERSION, len(body), n, CHAR, 1, 0, len(pipeline))
    return header + pipeline + body


def read_schema(data: bytes, file: str) -> StoredSchema:
    """Parse a schema file of format 3.

    Raises
    ------
    CorruptionError
        When `data`, the bytes of `file`, are no schema file.
    FormatError
        When it has another format, or a filter or datatype that tilekv does not know.
    """
    version = schema_version(data, file)
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{file} has format {version}: {wrote(version)} wrote this; "
            f"this tilekv reads format {FORMAT_VERSION}"
        )
    cursor = Cursor(_payload(data, file), file)
    if cursor.u32() != FORMAT_VERSION:
        cursor.fail("the schema has another format version than its file", 0)
    if cursor.take(3) != bytes((_SPARSE, _ROW_MAJOR, _ROW_MAJOR)):
        cursor.fail("the array is not sparse and row-major", 4)
    capacity = cursor.u64()
    coords = _filters(cursor, "the coordinates")
    offsets = _filters(cursor, "the offsets")
    start = cursor.at
    if cursor.take(len(_domain())) != _domain():
        cursor.fail("the domain is not a key-value store's", start)
    fields = tuple(_field(cursor) for _ in range(cursor.u32()))
    if cursor.left:
        cursor.fail(f"{cursor.left} bytes too many")
    return StoredSchema(capacity, coords, offsets, fields)


def schema_version(data: bytes, file: str) -> int:
    """Return the format version of a schema file of any TileDB, 0 for TileDB 1.3 and before.

    Raises CorruptionError when `data`, the bytes of `file`, begin like none of them.
    """
    cursor = Cursor(data, file)
    body_size = cursor.u64()  # what v0 begins with; others begin with their version
    if len(data) == 30 + body_size:
        return 0
    version = body_size & 0xFFFFFFFF
    if not 1 <= version <= 255:
        cursor.fail("this is no schema file", 0)
    return version


def wrote(version: int) -> str:
    """Return the name of the programs that write schema files of this format version."""
    return f"TileDB {_WRITERS[min(version, len(_WRITERS) - 1)]}"


def _domain() -> bytes:
    parts = [struct.pack("<BI", UINT64, len(_DIMENSIONS))]
    for name in _DIMENSIONS:
        parts += [struct.pack("<I", len(name)), name, struct.pack("<QQBQ", *_DOMAIN, 0, _EXTENT)]
    return b"".join(parts)


def _payload(data: bytes, file: str) -> bytes:
    """The raw bytes of a generic tile, which is the whole file, without filters."""
    cursor = Cursor(data, file)
    cursor.u32()
    body_size, raw_size = cursor.u64(), cursor.u64()
    cursor.take(9)  # datatype and cell size of the payload: bytes, whatever they say
    if cursor.u8() != 0:
        raise FormatError(f"{file} is encrypted; tilekv does not read encrypted stores")
    end = cursor.u32() + cursor.at
    filters = FilterList._read(cursor)
    if cursor.at != end:
        cursor.fail("the pipeline has another size than its header says", end)
    if filters:
        raise FormatError(f"{file} is filtered: TileDB wrote this, and tilekv writes it plain")
    if cursor.left != body_size:
        cursor.fail(f"{body_size} bytes should follow, but {cursor.left} do")
    chunks = []
    for _ in range(cursor.u64()):
        size, stored, meta = cursor.u32(), cursor.u32(), cursor.u32()
        if size != stored:
            cursor.fail("a chunk without filters has two sizes", cursor.at - 12)
        cursor.take(meta)
        chunks.append(cursor.take(size))
    payload = b"".join(chunks)
    if cursor.left or len(payload) != raw_size:
        cursor.fail(f"{raw_size} bytes should be in chunks, but {len(payload)} are")
    return payload


def _filters(cursor: Cursor, what: str) -> FilterList:
    filters = FilterList._read(cursor)
    unknown = filters.unknown
    if unknown is not None:
        raise FormatError(f"{what} in {cursor.file} use {unknown.name}, which tilekv cannot run")
    return filters


def _field(cursor: Cursor) -> StoredField:
    start = cursor.at
    try:
        name = cursor.take(cursor.u32()).decode("utf-8")
    except UnicodeDecodeError:
        cursor.fail("a field's name is not UTF-8", start)
    code, count = cursor.u8(), cursor.u32()
    datatype(code)
    return StoredField(name, code, count, _filters(cursor, f"values of {name!r}"))

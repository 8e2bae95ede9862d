"""The schema file of an old store, and the tilekv schema that shows the same attributes (docs/format.md 5).

v0      i32 x 3 version | u8 array type, tile order, cell order | u64 capacity
        coords compressor | offsets compressor | domain | u32 n | attributes
v1+     u32 version, then the same with pipelines for compressors
domain  u8 type | u32 dimensions | per dimension u32 size, name, u64 low, u64 high, u8 no extent, [u64 extent]
attribute   v0: u32 size, name, u8 datatype, u8 compressor, i32 level, u32 cell_val_num
            v1+: u32 size, name, u8 datatype, u32 cell_val_num, pipeline
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tilekv.cursor import Cursor
from tilekv.datatypes import ANY, ASCII, CHAR, DATATYPES, UINT64, UTF8, datatype
from tilekv.descriptor import DESCRIPTOR_FILE
from tilekv.errors import CorruptionError, FormatError, InvalidValueError, WrongTypeError
from tilekv.legacy.cipher import Cipher
from tilekv.legacy.generic import VERSIONS, is_encrypted, read_generic
from tilekv.legacy.tiles import Coding
from tilekv.schema import MAX_CAPACITY, VAR, Attr, Schema, shown_name
from tilekv.schemafile import schema_version, wrote

_SPARSE: Final = 1
_ROW_MAJOR: Final = 0
_KEY: Final = "__key"
_KEY_TYPE: Final = "__key_type"
_MAX_TILE_CELLS: Final = 1 << 16  # of the fragments that tilekv makes in memory


class OldField(NamedTuple):
    """A column of an old store's fragments."""

    name: str
    datatype: int
    values: int  # of a cell; VAR for variable length
    coding: Coding

    @property
    def is_var(self) -> bool:
        """Whether its cells have variable length."""
        return self.values == VAR


class OldSchema(NamedTuple):
    """What the schema file of an old store says.

    Attributes
    ----------
    version : int
        0 to 4.
    capacity : int
        Cells of a tile.
    fields : tuple of OldField
        In the order of the file.
    """

    version: int
    capacity: int
    coords: Coding
    offsets: Coding
    fields: tuple[OldField, ...]

    @property
    def attributes(self) -> list[OldField]:
        """The fields but `__key` and `__key_type`."""
        return [field for field in self.fields if field.name not in (_KEY, _KEY_TYPE)]

    @property
    def key(self) -> OldField:
        """The field of the keys' bytes."""
        return next(field for field in self.fields if field.name == _KEY)

    @property
    def key_type(self) -> OldField | None:
        """The field of the keys' types; None when they stand before the keys' bytes."""
        return next((field for field in self.fields if field.name == _KEY_TYPE), None)

    def shown(self, digest: str) -> Schema:
        """The schema of the store as tilekv shows it, with the digest that its keys have.

        CHAR is bytes, of fixed length too; UTF-8 and ASCII are str; other text, in units that Python has no type for, and ANY are
        bytes; several numbers in a cell are an array.

        FormatError for attributes that tilekv cannot have.
        """
        try:
            attrs = [_attr(field) for field in self.attributes]
            capacity = _divisor(self.capacity)
            return Schema._of_old(attrs, digest, capacity)
        except (InvalidValueError, WrongTypeError) as error:
            raise FormatError(f"this store of TileDB 1.x has what tilekv cannot: {error}") from None


def read_old_schema(data: bytes, file: str, cipher: Cipher | None) -> OldSchema:
    """Parse the schema file of a key-value store.

    Raises
    ------
    FormatError
        When TileDB 2 wrote it, or it is no key-value store's.
    CorruptionError
        When `data`, the bytes of `file`, are damaged.
    InvalidValueError
        When a key is needed and there is none, or the other way round.
    """
    version = old_version(data, file)
    encrypted = is_encrypted_schema(data, file)
    if encrypted and cipher is None:
        raise InvalidValueError("this store is encrypted with AES-256-GCM").advised(
            "open it with key=", "convert --key-file FILE makes a tilekv store of it"
        )
    if cipher is not None and not encrypted:
        raise InvalidValueError("this store is not encrypted").advised(
            "open it without key=", "leave --key-file out"
        )
    cursor = read_generic(Cursor(data, file), version, cipher)
    if version == 0:
        cursor.take(12)
    elif cursor.u32() != version:
        cursor.fail("the schema has another format version than its file")
    if cursor.u8() != _SPARSE:
        raise FormatError(f"{file} describes a dense array of TileDB, not a key-value store")
    cursor.take(1)  # tile order: there is one space tile
    if cursor.u8() != _ROW_MAJOR:
        raise FormatError(f"{file} describes an array of TileDB, not a key-value store")
    capacity = cursor.u64()
    coords, offsets = Coding.read(cursor, version), Coding.read(cursor, version)
    _check_domain(cursor)
    fields = tuple(_field(cursor, version) for _ in range(cursor.u32()))
    if cursor.left:
        cursor.fail(f"{cursor.left} bytes too many")
    if not capacity:
        cursor.fail("tiles have no cells")
    _check_fields(fields, version, cursor)
    return OldSchema(version, capacity, coords, offsets, fields)


def is_encrypted_schema(data: bytes, file: str) -> bool:
    """Whether the schema file of a key-value store is encrypted, and the store with it."""
    return old_version(data, file) > 0 and is_encrypted(data, file)


def old_version(data: bytes, file: str) -> int:
    """The format version of a schema file; FormatError when TileDB 2 wrote it."""
    version = schema_version(data, file)
    if version not in VERSIONS:
        raise FormatError(
            f"{file} has format {version}: {wrote(version)} wrote it. tilekv reads what TileDB 1.3 to 1.7 wrote; "
            "TileDB 2 itself opens this one"
        )
    return version


def _check_domain(cursor: Cursor) -> None:
    """Two dimensions of u64. Their domain differs among TileDBs and bounds nothing that is read."""
    kind, dimensions = cursor.u8(), cursor.u32()
    if kind != UINT64 or dimensions != 2:
        raise FormatError(f"{cursor.file} describes an array of TileDB, not a key-value store")
    for _ in range(dimensions):
        cursor.take(cursor.u32())
        cursor.take(16)
        if cursor.u8() == 0:
            cursor.take(8)


def _field(cursor: Cursor, version: int) -> OldField:
    try:
        name = cursor.take(cursor.u32()).decode("utf-8")
    except UnicodeDecodeError:
        cursor.fail("a field's name is not UTF-8")
    code = cursor.u8()
    datatype(code)
    if version == 0:
        coding = Coding.read(cursor, 0)
        return OldField(name, code, cursor.u32(), coding)
    count = cursor.u32()
    return OldField(name, code, count, Coding.read(cursor, version))


def _check_fields(fields: tuple[OldField, ...], version: int, cursor: Cursor) -> None:
    """Keys with their types, and attributes of different names."""
    kinds = {field.name: (field.datatype, field.values) for field in fields}
    if _KEY not in kinds:
        raise FormatError(f"{cursor.file} describes an array of TileDB, not a key-value store")
    if len(kinds) != len(fields):
        cursor.fail("two fields have one name")
    apart = kinds[_KEY] == (CHAR, VAR) and kinds.get(_KEY_TYPE) == (CHAR, 1)
    if apart and version > 0:
        raise CorruptionError(
            DESCRIPTOR_FILE, None, f"it is missing: {cursor.file} is tilekv's own"
        )
    if not apart and (kinds[_KEY] != (ANY, VAR) or _KEY_TYPE in kinds):
        cursor.fail("the fields of the keys are not those of any TileDB")
    if any(field.values == 0 for field in fields):
        cursor.fail("the cells of a field have no width")


def _attr(field: OldField) -> Attr:
    """The attribute that shows a field."""
    kind, name = DATATYPES[field.datatype], shown_name(field.name)
    if field.datatype in (ASCII, UTF8):
        return Attr(name, str)
    if kind.dtype is None:
        return Attr(name, bytes)
    shape = None if field.is_var or field.values == 1 else (field.values,)
    return Attr(name, kind.dtype, shape=shape, var=field.is_var)


def _divisor(capacity: int) -> int:
    """Cells of a tile in memory: an old tile is a whole number of them."""
    most = min(_MAX_TILE_CELLS, MAX_CAPACITY)
    return next(n for n in range(min(capacity, most), 0, -1) if capacity % n == 0)

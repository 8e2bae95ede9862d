"""What a store holds: attributes, digest, capacity, filters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self, TextIO

import numpy as np
import numpy.typing as npt

from tilekv.arguments import is_one_of, print_to, truth, whole
from tilekv.datatypes import CHAR, DATATYPES, INT64, UINT8, UINT64, UTF8, datatype_of
from tilekv.descriptor import DESCRIPTOR_FILE, AttrEntry, Descriptor
from tilekv.errors import CorruptionError, FormatError, InvalidValueError, WrongTypeError, shown
from tilekv.filters import (
    BitWidthReductionFilter,
    ByteShuffleFilter,
    Bzip2Filter,
    DoubleDeltaFilter,
    Filter,
    FilterList,
    GzipFilter,
    LZ4Filter,
    RleFilter,
    ZstdFilter,
)
from tilekv.frametypes import FrameTypes
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.schemafile import SCHEMA_FILE, Field, StoredSchema, read_schema, write_schema
from tilekv.tiledb.context import Ctx, chosen_ctx, takes_ctx

# The layout, by `python -m bench.layout` (100,000 keys of 20 bytes; values of 100 bytes, half of them random, and JSON of
# 78; ratios to the default in the same run, where "cold" gets decode all they need):
#
#                           half random              JSON
#                        bytes/cell  cold  load   bytes/cell  cold  load
#   default                 82.2     1.00  1.00      56.6     1.00  1.00
#   capacity 256            83.5     1.00  0.94      57.6     0.95  0.83
#   capacity 10,000         81.9     0.95  1.00      56.3     0.83  0.87
#   chunk 2 KiB             85.8     0.75  1.11      59.9     0.59  1.06
#   chunk 8 KiB             79.9     1.57  0.94      54.7     1.18  0.84
#   chunk 64 KiB            78.1     4.29  0.91      51.0     4.31  0.74
#   keys plain              95.7     0.78  0.92      70.0     0.72  0.94
#   keys zstd 1             79.2     2.31  1.09      53.5     1.14  1.03
#   values lz4              85.1     0.76  0.90      70.3     0.31  0.78
#   values zstd 3           82.7     1.06  1.08      55.6     1.02  1.06
#   offsets plain           94.2     1.01  1.03      68.5     0.89  0.85
#   offsets zstd 1          80.9    12.94  1.06      55.2     5.38  1.11
#
# Capacity hardly matters to either; 1,024 keeps TileDB's reads of single cells small. Chunks of 4 KiB cost 3% more disk
# than 8 KiB and read a third faster. zstd 1 is as small as 3. Keys in lz4 stay cheap to compare, and bit-width offsets need
# no decoding at all: one load and one add a cell.
VALUE_FILTERS: Final = FilterList._in_schema(ZstdFilter(level=1))
KEY_FILTERS: Final = FilterList._in_schema(LZ4Filter())
OFFSETS_FILTERS: Final = FilterList._in_schema(BitWidthReductionFilter(window=8192))
# Key types: a byte a cell, mapped as they are: one decode less a lookup.
KEY_TYPE_FILTERS: Final = FilterList._in_schema([])
# Moments of expiry: eight bytes a cell, mapped as they are, since every look-up reads one.
EXPIRES_FILTERS: Final = FilterList._in_schema([])
# Which values are null: a byte a cell, mapped as it is.
VALID_FILTERS: Final = FilterList._in_schema([])
# Coordinates: digests are random, so that no filter makes them smaller, and searches map them.
COORDS_FILTERS: Final = FilterList._in_schema([])

COORDS_CHUNK_BYTES: Final = 0x7FFFFFF8  # one chunk a dimension and tile

VAR: Final = 0xFFFFFFFF  # cell_val_num of a field of variable length
MAX_CELL_BYTES: Final = 0x7FFFFFF8  # chunks hold whole cells of fixed width
MAX_CAPACITY: Final = COORDS_CHUNK_BYTES // 8
MAX_NAME_BYTES: Final = (
    240  # a file name has 255 bytes, and `_var.tdb`, or `__valid_` and `.tdb`, is added
)

MAX_SIDES: Final = 32  # of a cell's shape: what every NumPy can have
DIGESTS: Final = ("blake2b", "md5")
# What TileDB calls an attribute without a name, in the schema file and in names of files.
ANONYMOUS: Final = "__attr"
EXPIRES: Final = "__expires"  # the field of the moments of expiry
VALID: Final = "__valid_"  # how the field begins that says which values of an attribute are null
# TileDB 1.x on 64-bit Unix: makes keys collide. Its stores are shown with it, and none is created.
OLD_DIGEST: Final = "md5-lp64"
Shape = int | tuple[int, ...] | None
Compressor = tuple[str | None, int]
Filters = FilterList | Filter | Iterable[Filter] | None


@dataclass(frozen=True, init=False, repr=False)
class Attr:
    """An attribute: one column of every value. Compared by value, hashable.

    Parameters
    ----------
    name : str
        Not '.' or '..', no '/', '\\\\' or NUL, no leading '__', at most 240 UTF-8 bytes. One attribute of a schema may
        have none: an anonymous attribute, with the name ''.
    dtype : type, str or numpy.dtype
        ``bytes``, ``str``, ``int`` (int64), ``float`` (float64), ``bool``, any NumPy integer,
        float32, float64, bool, datetime64 with a unit, timedelta64 of hours or finer. Byte order
        does not matter.
    shape : int or tuple of int, optional
        Of a value that is an array of fixed shape; for numbers only. TileDB-Py has another third argument, which is taken too:
        the bool `var`, before `filters`, or first the `compressor`.
    var : bool
        A value is a one-dimensional array of any length. bytes and str always are.
    filters : FilterList, Filter or iterable of Filter, optional
        How values are stored; a `ZstdFilter` of level 1 unless given.
    compressor : tuple of str and int, optional
        The name of a compressor and its level, as before there were filters: see `set_compressor`.
    ctx : Ctx, optional
        Of TileDB's faces.
    nullable : bool
        A value may be null: None. One byte an entry more.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
        In native byte order; ``dtype("S")`` for bytes, ``dtype("U")`` for str.
    shape : tuple of int or None
    var : bool
    filters : FilterList
    nullable : bool
    datatype : int
        TileDB's code of the dtype.

    Raises
    ------
    WrongTypeError
        For a dtype that the format cannot hold, and for arguments of wrong types.
    InvalidValueError
        For a name or shape that is refused.
    """

    name: str
    datatype: int
    shape: tuple[int, ...] | None
    var: bool
    filters: FilterList
    nullable: bool
    _fixed: bool = field(compare=False)

    @takes_ctx
    def __init__(
        self,
        name: str = "",
        dtype: npt.DTypeLike = "float64",
        shape: Shape | Compressor | bool = None,
        var: bool = False,
        filters: Filters = None,
        compressor: Compressor | None = None,
        ctx: Ctx | None = None,
        nullable: bool = False,
    ) -> None:
        chosen_ctx(ctx)
        sides: Shape
        sides, var, filters, compressor = _third(shape, var, filters, compressor)
        name = _name(name)
        code = _datatype(name, dtype)
        text = code in (CHAR, UTF8)
        var = truth(f"attribute {name!r}: var", var)
        sides = _sides(name, sides)
        if sides is not None and (var or text):
            raise InvalidValueError(
                f"attribute {name!r}: values have a fixed shape or any length, not both"
            )
        if sides is not None and math.prod(sides) > MAX_CELL_BYTES // DATATYPES[code].size:
            raise InvalidValueError(
                f"attribute {name!r}: a value of shape {shown(sides)} is over {MAX_CELL_BYTES} bytes"
            )
        if filters is not None and compressor is not None:
            raise InvalidValueError(f"attribute {name!r}: filters and a compressor are given")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "datatype", code)
        object.__setattr__(self, "shape", sides)
        object.__setattr__(self, "var", var or text)
        object.__setattr__(self, "nullable", truth(f"attribute {name!r}: nullable", nullable))
        object.__setattr__(self, "_fixed", False)
        self.set_filter_list(filters)
        if compressor is not None:
            self.set_compressor(compressor)

    def set_filter_list(self, filters: Filters) -> Self:
        """Set how values are stored, as TileDB's C++ does, and return the attribute.

        InvalidValueError for an attribute of a schema: make a new one.
        """
        if self._fixed:
            raise InvalidValueError(f"attribute {self.name!r} belongs to a schema: make a new one")
        found = _filters(filters, VALUE_FILTERS)
        values = 1 if self.var else math.prod(self.shape or ())
        found._check(
            f"attribute {self.name!r}", self.datatype, values * DATATYPES[self.datatype].size
        )
        object.__setattr__(self, "filters", found)
        return self

    def set_compressor(self, compressor: Compressor) -> Self:
        """Set the only filter by the name and level of a compressor, as before TileDB 1.4, and return the attribute.

        Parameters
        ----------
        compressor : tuple of str and int
            "gzip", "zstd", "lz4", "rle", "bzip2", "double-delta", or None for none, and a level, -1 for the default. Blosc's
            are gone, as from TileDB 1.4: "blosc-zstd" is the zstd in it after shuffled bytes, "blosc-zlib" gzip, and every
            other "blosc-..." lz4.
        """
        return self.set_filter_list(_compressor(self.name, compressor))

    def _in_schema(self) -> Attr:
        """The attribute as a schema has it: nothing of it can be set."""
        if self._fixed:
            return self
        found = copy.copy(self)
        object.__setattr__(found, "_fixed", True)
        return found

    @property
    def stored_name(self) -> str:
        """The name in the schema file and in names of files."""
        return self.name or ANONYMOUS

    @property
    def isanon(self) -> bool:
        """Whether it has no name."""
        return not self.name

    @property
    def isvar(self) -> bool:
        """Whether values have any length: `var`, by TileDB-Py's name."""
        return self.var

    @property
    def ncells(self) -> int:
        """The number of elements of a value; 4,294,967,295, TileDB's word for it, where they have any length."""
        return VAR if self.var else math.prod(self.shape or ())

    def dump(self, file: TextIO | None = None) -> None:
        """Print the attribute to `file`, stdout unless given."""
        print_to(file, "\n".join(self.described()))

    def described(self) -> list[str]:
        """The lines of `dump`."""
        return [
            "### Attribute ###",
            f"- Name: {self.name or '<anonymous>'}",
            f"- Type: {DATATYPES[self.datatype].name}",
            f"- Cell val num: {'var' if self.var else self.shape or 1}",
            f"- Filters: {', '.join(map(repr, self.filters)) or 'none'}",
            *(["- Nullable: true"] if self.nullable else []),
        ]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the values, ``S`` for bytes and ``U`` for str."""
        return np.dtype(self.type_name)

    @property
    def type_name(self) -> str:
        """``"bytes"``, ``"str"`` or the name of the dtype; Attr takes it as a dtype."""
        return type_name_of(self.datatype)

    def __repr__(self) -> str:
        """Return the expression that makes it, without what is default."""
        parts = [repr(self.name), repr(self.type_name)]
        if self.shape is not None:
            parts.append(f"shape={self.shape}")
        if self.var and self.datatype not in (CHAR, UTF8):
            parts.append("var=True")
        if self.filters != VALUE_FILTERS:
            parts.append(f"filters={self.filters}")
        if self.nullable:
            parts.append("nullable=True")
        return f"Attr({', '.join(parts)})"


@dataclass(frozen=True, init=False, repr=False)
class Schema:
    """What a store holds. Frozen, compared by value, hashable.

    Parameters
    ----------
    attrs : iterable of Attr
        At least one. No two names may be equal when case is ignored, and none may be another's
        with ``_var`` appended if that other has variable length: they would share a file.
    digest : {"blake2b", "md5"}
        How keys become coordinates: BLAKE2b with a 16-byte digest, or RFC 1321 MD5.
    capacity : int
        Cells of a tile, 1 to 268,435,455.
    offsets_filters, key_filters : FilterList, Filter or iterable of Filter, optional
        How the offsets of cells of variable length, and keys, are stored.
    expires : bool
        Whether entries may have a moment after which they are as if deleted: `Store.set`. Eight bytes an entry.

    Raises
    ------
    WrongTypeError, InvalidValueError
        For arguments that are refused; the message names the attribute.
    """

    attrs: tuple[Attr, ...]
    digest: str
    capacity: int
    offsets_filters: FilterList
    key_filters: FilterList
    expires: bool
    _frame: FrameTypes | None = field(compare=False)

    def __init__(
        self,
        attrs: Iterable[Attr],
        digest: str = "blake2b",
        capacity: int = 1024,
        offsets_filters: Filters = None,
        key_filters: Filters = None,
        expires: bool = False,
    ) -> None:
        if not isinstance(attrs, (Attr, Iterable)):
            raise WrongTypeError(f"attrs is a list of Attr objects, not {type(attrs).__name__}")
        found = (attrs,) if isinstance(attrs, Attr) else tuple(attrs)
        for one in found:
            if not isinstance(one, Attr):
                raise WrongTypeError(f"a schema is made of Attr objects, not {shown(one)}")
        found = tuple(one._in_schema() for one in found)
        _check_files(found)
        if not is_one_of(digest, DIGESTS):
            raise InvalidValueError(f"digest is one of {', '.join(DIGESTS)}, not {shown(digest)}")
        cells = whole("capacity", capacity)
        if not 1 <= cells <= MAX_CAPACITY:
            raise InvalidValueError(f"capacity is 1 to {MAX_CAPACITY:,} cells, not {shown(cells)}")
        offsets = _filters(offsets_filters, OFFSETS_FILTERS)
        offsets._check("offsets_filters", UINT64, 8)
        keys = _filters(key_filters, KEY_FILTERS)
        keys._check("key_filters", CHAR, 1)
        object.__setattr__(self, "attrs", found)
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "capacity", cells)
        object.__setattr__(self, "offsets_filters", offsets)
        object.__setattr__(self, "key_filters", keys)
        object.__setattr__(self, "expires", truth("expires", expires))
        object.__setattr__(self, "_frame", None)
        if self.expires and any(one.name == "expire" for one in found):
            raise InvalidValueError(
                "attribute 'expire': where entries expire, put_many(expire=) is their moment; name it otherwise"
            )

    @classmethod
    def _of_old(cls, attrs: Iterable[Attr], digest: str, capacity: int) -> Schema:
        """Return the schema that shows a store of TileDB 1.x: with `OLD_DIGEST`, or "md5" if it comes from Windows."""
        schema = cls(attrs, capacity=capacity)
        object.__setattr__(schema, "digest", digest)
        return schema

    def _of_frame(self, frame: FrameTypes | None) -> Schema:
        """The schema of a store that gives its rows back as those of a frame."""
        found = copy.copy(self)
        object.__setattr__(found, "_frame", frame)
        return found

    @property
    def key_name(self) -> str | None:
        """What the column of the keys is called in the frame that the schema was made of (`schema_of`); None in others."""
        return None if self._frame is None else self._frame.key

    def replace(
        self,
        *attrs: Attr,
        digest: str | None = None,
        capacity: int | None = None,
        offsets_filters: Filters = None,
        key_filters: Filters = None,
        expires: bool | None = None,
    ) -> Schema:
        """Return the schema with other attributes in the place of those of their names, and other options; of the same frame.

        Parameters
        ----------
        *attrs : Attr
        digest, capacity, offsets_filters, key_filters, expires : optional
            As of `Schema`; what is left out stays.

        Raises
        ------
        WrongTypeError, InvalidValueError
            For arguments that are refused, and for an attribute of a name that the schema does not have.
        """
        for one in attrs:
            if not isinstance(one, Attr):
                raise WrongTypeError(f"a schema is made of Attr objects, not {shown(one)}")
        given = {one.name: one for one in attrs}
        unknown = given.keys() - {one.name for one in self.attrs}
        if unknown:
            raise InvalidValueError(
                f"the schema has no attribute {', '.join(map(repr, sorted(unknown)))} to replace"
            )
        found = Schema(
            [given.get(one.name, one) for one in self.attrs],
            self.digest if digest is None else digest,
            self.capacity if capacity is None else capacity,
            self.offsets_filters if offsets_filters is None else offsets_filters,
            self.key_filters if key_filters is None else key_filters,
            self.expires if expires is None else expires,
        )
        return found._of_frame(self._frame)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns in the order of the schema file: `__key`, attributes, `__valid_...` of those that may be null, `__expires`
        if there is one, `__key_type`.

        The key type comes last because TileDB 1.6's Python KV shows "attribute 1": the first one
        of the user's.
        """
        columns = [("__key", CHAR, VAR, self.key_filters)]
        for one in self.attrs:
            count = VAR if one.var else math.prod(one.shape or (1,))
            columns.append((one.stored_name, one.datatype, count, one.filters))
        columns += [
            (VALID + one.stored_name, UINT8, 1, VALID_FILTERS) for one in self.attrs if one.nullable
        ]
        if self.expires:
            columns.append((EXPIRES, INT64, 1, EXPIRES_FILTERS))
        columns.append(("__key_type", CHAR, 1, KEY_TYPE_FILTERS))
        return tuple(
            Field(name, code, count, filters._to_bytes(), filters.chunksize)
            for name, code, count, filters in columns
        )

    @property
    def offsets_pipeline(self) -> bytes:
        """The pipeline descriptor of every field's offsets."""
        return self.offsets_filters._to_bytes()

    @property
    def coords_pipeline(self) -> bytes:
        """The pipeline descriptor of the coordinates."""
        return COORDS_FILTERS._to_bytes(COORDS_CHUNK_BYTES)

    def to_file(self) -> bytes:
        """Return the schema file: `__kv_schema.tdb` and `__array_schema.tdb` hold the same."""
        return write_schema(self.fields, self.capacity, self.offsets_pipeline, self.coords_pipeline)

    def describe(self, store_id: str, version: str, numbers: bool = True) -> Descriptor:
        """Return the descriptor of a new store with this schema.

        Parameters
        ----------
        store_id : str
            32 hex digits that no other store has.
        version : str
            The tilekv that creates the store.
        numbers : bool
            Whether equal numbers are one key of it, whatever their type.
        """
        entries = tuple(
            AttrEntry(one.name, one.type_name, one.shape, one.nullable) for one in self.attrs
        )
        crc = crc32c(self.to_file())
        return Descriptor(
            store_id,
            self.digest,
            version,
            entries,
            crc,
            numbers=numbers,
            expires=self.expires,
            frame=self._frame,
        )

    @classmethod
    def _from_file(cls, data: bytes, descriptor: Descriptor, file: str = SCHEMA_FILE) -> Schema:
        """Read a schema back.

        Parameters
        ----------
        data : bytes
            The schema file.
        descriptor : Descriptor
            The store's; it holds the digest and the shapes.
        file : str
            The name of the schema file, for errors.

        Raises
        ------
        CorruptionError
            When the file is damaged, or does not agree with the descriptor.
        FormatError
            When something else than tilekv wrote it, or a tilekv with more filters or digests.
        """
        descriptor.check_schema(data, file)
        stored = read_schema(data, file)
        if descriptor.digest not in DIGESTS:
            raise FormatError(
                f"the store's digest is {descriptor.digest!r}, written by tilekv "
                f"{descriptor.version}; this tilekv knows {', '.join(DIGESTS)}"
            )
        try:
            schema = cls._of(stored, descriptor)
        except (InvalidValueError, WrongTypeError) as error:
            raise CorruptionError(file, 0, str(error)) from None
        if [field[:3] for field in schema.fields] != [field[:3] for field in stored.fields]:
            raise CorruptionError(file, 0, f"its fields are not those in {DESCRIPTOR_FILE}")
        hidden = stored.fields[len(schema.attrs) + 1 :]
        if any(field.filters for field in hidden) or stored.coords_filters:
            raise CorruptionError(
                file,
                0,
                "key types, moments of expiry, coordinates or what says of nulls have filters",
            )
        return schema

    @classmethod
    def _of(cls, stored: StoredSchema, descriptor: Descriptor) -> Schema:
        """The schema that the two files describe, if they agree."""
        own = 2 + descriptor.expires + sum(entry.nullable for entry in descriptor.attrs)
        if len(stored.fields) != len(descriptor.attrs) + own:
            raise InvalidValueError(
                f"it has {len(stored.fields)} fields, not {own} more than the "
                f"{len(descriptor.attrs)} attributes in {DESCRIPTOR_FILE}"
            )
        fields = stored.fields[1 : len(descriptor.attrs) + 1]
        attrs = []
        for column, entry in zip(fields, descriptor.attrs, strict=True):
            name = type_name_of(column.datatype)
            if entry.dtype != name:
                raise InvalidValueError(
                    f"{entry.name!r} is {entry.dtype!r} in {DESCRIPTOR_FILE} and {name!r} here"
                )
            var = column.cell_val_num == VAR
            attrs.append(
                Attr(entry.name, name, entry.shape, var, column.filters, nullable=entry.nullable)
            )
        return cls(
            attrs,
            descriptor.digest,
            stored.capacity,
            stored.offsets_filters,
            stored.fields[0].filters,
            descriptor.expires,
        )._of_frame(descriptor.frame)

    def __repr__(self) -> str:
        """Return the expression that makes it, without the filters that are default."""
        parts = [
            f"[{', '.join(map(repr, self.attrs))}]",
            f"digest={self.digest!r}",
            f"capacity={self.capacity}",
        ]
        if self.offsets_filters != OFFSETS_FILTERS:
            parts.append(f"offsets_filters={self.offsets_filters}")
        if self.key_filters != KEY_FILTERS:
            parts.append(f"key_filters={self.key_filters}")
        if self.expires:
            parts.append("expires=True")
        return f"Schema({', '.join(parts)})"


def _third(shape: Any, var: Any, filters: Any, compressor: Any) -> tuple[Any, Any, Any, Any]:
    """The arguments of Attr by their names, whatever TileDB-Py had in the place of `shape`."""
    if isinstance(shape, tuple) and shape and isinstance(shape[0], str):
        return None, var, filters, shape
    if not isinstance(shape, bool):
        return shape, var, filters, compressor
    if isinstance(var, bool):
        return None, shape or var, filters, compressor
    return None, shape, var, compressor


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise WrongTypeError(f"an attribute's name is a str, not {shown(name)}")
    if name in (".", "..") or name.startswith("__") or any(c in name for c in "/\\\0"):
        raise InvalidValueError(
            f"attribute name {name!r}: it names a file, so it cannot be '.' or '..', "
            "contain '/', '\\' or NUL, or begin with '__'"
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidValueError(f"attribute name {name!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise InvalidValueError(
            f"attribute name {name[:20]!r}... has {size} UTF-8 bytes; at most {MAX_NAME_BYTES}"
        )
    return name


def _check_files(attrs: tuple[Attr, ...]) -> None:
    """No two attributes share a file, on file systems that ignore case either."""
    if not attrs:
        raise InvalidValueError("a schema needs at least one attribute")
    names: dict[str, str] = {}
    for one in attrs:
        folded = one.name.casefold()
        if folded in names:
            raise InvalidValueError(
                f"attribute names {names[folded]!r} and {one.name!r} are the same but for case"
            )
        names[folded] = one.name
    for one in attrs:
        other = names.get(f"{one.stored_name}_var".casefold(), "")
        if one.var and other:
            raise InvalidValueError(
                f"attributes {one.name!r} and {other!r} would share the file {one.name}_var.tdb"
            )


def shown_name(stored: str) -> str:
    """The name of an attribute by the one in a schema file; see `Attr.stored_name`."""
    return "" if stored == ANONYMOUS else stored


def type_name_of(code: int) -> str:
    """The name by which Attr takes a datatype; for those it refuses, TileDB's."""
    if code in (CHAR, UTF8):
        return "bytes" if code == CHAR else "str"
    return DATATYPES[code].dtype or DATATYPES[code].name


def _datatype(name: str, dtype: npt.DTypeLike | None) -> int:
    if dtype is None:  # NumPy takes it for float64
        raise WrongTypeError(f"attribute {name!r}: a dtype is needed, such as bytes or 'int32'")
    if dtype is int:  # NumPy's choice depends on the platform
        dtype = "int64"
    try:
        found = np.dtype(dtype)
    except (
        TypeError,
        ValueError,
        SyntaxError,
        DeprecationWarning,
    ):  # the last where a filter raises it
        raise WrongTypeError(
            f"attribute {name!r}: {shown(dtype)} is no dtype; use bytes, str or a NumPy number"
        ) from None
    if found.kind in "SU" and found.itemsize == 0:
        return CHAR if found.kind == "S" else UTF8
    try:
        return datatype_of(found).code
    except WrongTypeError as error:
        raise WrongTypeError(f"attribute {name!r}: {error}") from None


# TileDB's compressors before there were filters, but for those of Blosc.
_COMPRESSORS: Final[dict[object, Callable[[int], Filter]]] = {
    "gzip": GzipFilter,
    "zstd": ZstdFilter,
    "lz4": LZ4Filter,
    "rle": RleFilter,
    "bzip2": Bzip2Filter,
    "double-delta": DoubleDeltaFilter,
}
_BLOSC: Final = {"blosc-zstd": "zstd", "blosc-zlib": "gzip"}


def _compressor(attribute: str, given: object) -> FilterList:
    if not isinstance(given, tuple) or len(given) != 2:
        raise WrongTypeError(
            f"attribute {attribute!r}: a compressor is a tuple of a name and a level, not {shown(given)}"
        )
    name, level = given
    if name is None:
        return FilterList()
    if isinstance(name, str) and name.startswith("blosc-"):
        inner = _COMPRESSORS[_BLOSC.get(name, "lz4")]
        return FilterList([ByteShuffleFilter(), inner(level)])
    if not is_one_of(name, _COMPRESSORS):
        known = ", ".join(map(repr, _COMPRESSORS))
        raise InvalidValueError(
            f"attribute {attribute!r}: there is no compressor {shown(name)}: {known}"
        )
    return FilterList(_COMPRESSORS[name](level))


def _sides(name: str, shape: Shape) -> tuple[int, ...] | None:
    """The shape as a tuple; None for a scalar, whose shape is ()."""
    if shape is None:
        return None
    given = shape if isinstance(shape, tuple) else (shape,)
    sides = tuple(whole(f"attribute {name!r}: a side of the shape", n) for n in given)
    if len(sides) > MAX_SIDES:
        raise InvalidValueError(
            f"attribute {name!r}: a shape has up to {MAX_SIDES} sides, not {len(sides)}"
        )
    if any(n < 1 for n in sides):
        raise InvalidValueError(f"attribute {name!r}: shape {shown(shape)} has no values")
    return sides or None


def _filters(given: Filters, default: FilterList) -> FilterList:
    if given is None:
        return default
    found = FilterList._in_schema(given)
    if found.unknown is not None:
        raise InvalidValueError(f"tilekv cannot run {found.unknown.name}")
    return found

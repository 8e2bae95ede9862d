"""Filters, and the pipeline descriptor that names them on disk (docs/format.md 4.2).

    u32 max_chunk | u32 n | n times: u8 type, u32 size of meta, meta

The filters themselves run in the compiled core; here they are only named.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import FrozenInstanceError, dataclass, field
from typing import ClassVar, Final, NoReturn, Self, overload

from tilekv.arguments import whole
from tilekv.cursor import Cursor
from tilekv.datatypes import DATATYPES
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.tiledb.context import Ctx, chosen_ctx, takes_ctx

MAX_FILTERS: Final = 8  # as in kvcore/codec/pipeline.pxd
CHUNK_BYTES: Final = 4096  # see the table in schema.py
MAX_CHUNK_BYTES: Final = 1 << 20  # that one asks for: a look-up decodes a whole chunk

# TileDB's filter numbers: on disk, never changed.
FILTER_NAMES: Final = {
    0: "none",
    1: "gzip",
    2: "zstd",
    3: "lz4",
    4: "rle",
    5: "bzip2",
    6: "double-delta",
    7: "bit-width reduction",
    8: "bitshuffle",
    9: "byteshuffle",
    10: "positive delta",
    11: "AES-256-GCM encryption",
    12: "MD5",
    13: "SHA-256",
    14: "dictionary",
    15: "float scale",
    16: "xor",
    18: "webp",
    19: "delta",
}


class Filter(ABC):
    """One step of a pipeline: frozen, compared by value."""

    type: int

    @abstractmethod
    def meta(self) -> bytes:
        """Return the filter's options as they stand in a pipeline descriptor."""


class _Frozen(Filter):
    """A filter whose attributes stay as they are, also in a subclass that is no dataclass of its own.

    Those are the filters below: each has the fields of the dataclass that it comes from, and gives `type` its value. To make
    a dataclass of each would take half a millisecond of every import.
    """

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


def _between(what: str, value: object, least: int, most: int) -> int:
    number = whole(what, value)
    if not least <= number <= most:
        raise InvalidValueError(f"{what} is {least} to {most}, not {shown(number)}")
    return number


@dataclass(frozen=True, init=False)
class _Plain(_Frozen):
    """A filter without options."""

    type: int = field(init=False, repr=False)

    @takes_ctx
    def __init__(self, ctx: Ctx | None = None) -> None:
        chosen_ctx(ctx)

    def meta(self) -> bytes:
        """Return no bytes."""
        return b""


@dataclass(frozen=True, init=False)
class _Levelled(_Frozen):
    """A compressor with levels; None is the default."""

    DEFAULT: ClassVar[int]
    LEAST: ClassVar[int]
    MOST: ClassVar[int]
    level: int
    type: int = field(init=False, repr=False)

    @takes_ctx
    def __init__(self, level: int | None = None, ctx: Ctx | None = None) -> None:
        chosen_ctx(ctx)
        given = self.DEFAULT if level is None else level
        checked = _between(f"{type(self).__name__}: level", given, self.LEAST, self.MOST)
        object.__setattr__(self, "level", checked)

    def meta(self) -> bytes:
        """Return u8 number, i32 level."""
        return struct.pack("<Bi", self.type, self.level)


@dataclass(frozen=True, init=False)
class _Levelless(_Frozen):
    """A compressor without levels: it takes the one that TileDB-Py gives all of them, and forgets it."""

    level: ClassVar[int] = -1  # TileDB's word for a default level
    type: int = field(init=False, repr=False)

    @takes_ctx
    def __init__(self, level: int | None = None, ctx: Ctx | None = None) -> None:
        chosen_ctx(ctx)
        if level is not None:
            _between(f"{type(self).__name__}: level", level, -(1 << 31), (1 << 31) - 1)

    def meta(self) -> bytes:
        """Return u8 number, i32 -1."""
        return struct.pack("<Bi", self.type, self.level)


@dataclass(frozen=True, init=False)
class _Windowed(_Frozen):
    """A filter that treats integers window by window."""

    DEFAULT: ClassVar[int]
    window: int
    type: int = field(init=False, repr=False)

    @takes_ctx
    def __init__(self, window: int | None = None, ctx: Ctx | None = None) -> None:
        chosen_ctx(ctx)
        what = f"{type(self).__name__}: window"
        given = -1 if window is None else whole(what, window)
        # -1 is TileDB-Py's word for the default.
        checked = _between(what, self.DEFAULT if given == -1 else given, 8, (1 << 32) - 1)
        object.__setattr__(self, "window", checked)

    def meta(self) -> bytes:
        """Return u32 window."""
        return struct.pack("<I", self.window)


class NoOpFilter(_Plain):
    """Leaves data as it is."""

    type = 0


class GzipFilter(_Levelled):
    """zlib streams (RFC 1950).

    Parameters
    ----------
    level : int, optional
        0 to 9; more is smaller and slower to write. -1 is zlib's default (6).
    """

    DEFAULT = -1
    LEAST = -1
    MOST = 9
    type = 1


class ZstdFilter(_Levelled):
    """Zstandard.

    Parameters
    ----------
    level : int, optional
        -131072 to 22; more is smaller and slower to write. Negative levels are zstd's fast ones,
        0 and -1 are its default (3).
    """

    DEFAULT = 1
    LEAST = -131072
    MOST = 22
    type = 2


class LZ4Filter(_Levelless):
    """LZ4 blocks: fast to read, larger than zstd. It has no levels."""

    type = 3


class RleFilter(_Levelless):
    """Run lengths: each run of up to 65,535 equal cells is one cell and a count.

    It works on whole cells, so it comes first: only shuffles and checksums may come before it, when cells have 1, 2, 4 or 8
    bytes.
    """

    type = 4


class Bzip2Filter(_Levelled):
    """bzip2 streams: small, and slow both ways.

    Parameters
    ----------
    level : int, optional
        1 to 9, the block size in 100 kB. -1 and 0 are TileDB's default (1).
    """

    DEFAULT = -1
    LEAST = -1
    MOST = 9
    type = 5


class DoubleDeltaFilter(_Levelless):
    """Integers, datetimes and characters as changes of their deltas, in as few bits as the largest needs.

    For what grows evenly, such as timestamps. Floats are refused. It works on whole elements, so it
    comes first: only shuffles and checksums may come before it, when elements have 1, 2, 4 or 8 bytes.
    """

    type = 6


class BitWidthReductionFilter(_Windowed):
    """Integers as their distance from the least of their window, in as few whole bytes as fit.

    Bytes and what is no integer pass unchanged.

    Parameters
    ----------
    window : int, optional
        Most bytes of a window, 8 to 2^32-1; the writer may choose smaller windows.
    """

    DEFAULT = 8192
    type = 7


class BitShuffleFilter(_Plain):
    """First all lowest bits of the elements, then all second ones, and so on: for a compressor after it."""

    type = 8


class ByteShuffleFilter(_Plain):
    """First all lowest bytes of the elements, then all second ones, and so on: for a compressor after it."""

    type = 9


class PositiveDeltaFilter(_Windowed):
    """Integers as their distance from the one before: for growing ones, with a compressor after it.

    What is no integer passes unchanged.

    Parameters
    ----------
    window : int, optional
        Most bytes of a window, 8 to 2^32-1. A new one begins wherever a number is smaller than the
        one before, at the price of 4 bytes and an element.
    """

    DEFAULT = 1024
    type = 10


class ChecksumMD5Filter(_Plain):
    """MD5 of what the filters before it made, checked at every read, by TileDB 1.7.6 and later too.

    tilekv's own checksum is there without it.
    """

    type = 12


class ChecksumSHA256Filter(_Plain):
    """SHA-256 of what the filters before it made, checked at every read, by TileDB 1.7.6 and later too.

    tilekv's own checksum is there without it.
    """

    type = 13


@dataclass(frozen=True)
class UnknownFilter(Filter):
    """A filter read from disk that tilekv cannot run, kept so that an error can name it."""

    type: int
    options: bytes = b""

    def meta(self) -> bytes:
        """Return the options as they were read."""
        return self.options

    @property
    def name(self) -> str:
        """What TileDB calls the filter, with its number."""
        return f"{FILTER_NAMES.get(self.type, 'unknown')} (filter {self.type})"


def _read_level(cursor: Cursor, code: int) -> int:
    """The meta of every compressor: u8 its own number again, i32 level."""
    if cursor.u8() != code:
        cursor.fail(f"the options of filter {code} belong to another compressor", cursor.at - 1)
    return int.from_bytes(cursor.take(4), "little", signed=True)


def _levelled(kind: Callable[[int], Filter], code: int) -> Callable[[Cursor], Filter]:
    return lambda cursor: kind(_read_level(cursor, code))


# Every filter that can be read, by its number: a new one joins here.
_READERS: Final[dict[int, Callable[[Cursor], Filter]]] = {
    NoOpFilter.type: lambda _: NoOpFilter(),
    GzipFilter.type: _levelled(GzipFilter, GzipFilter.type),
    ZstdFilter.type: _levelled(ZstdFilter, ZstdFilter.type),
    LZ4Filter.type: _levelled(LZ4Filter, LZ4Filter.type),
    RleFilter.type: _levelled(RleFilter, RleFilter.type),
    Bzip2Filter.type: _levelled(Bzip2Filter, Bzip2Filter.type),
    DoubleDeltaFilter.type: _levelled(DoubleDeltaFilter, DoubleDeltaFilter.type),
    BitWidthReductionFilter.type: lambda cursor: BitWidthReductionFilter(cursor.u32()),
    BitShuffleFilter.type: lambda _: BitShuffleFilter(),
    ByteShuffleFilter.type: lambda _: ByteShuffleFilter(),
    PositiveDeltaFilter.type: lambda cursor: PositiveDeltaFilter(cursor.u32()),
    ChecksumMD5Filter.type: lambda _: ChecksumMD5Filter(),
    ChecksumSHA256Filter.type: lambda _: ChecksumSHA256Filter(),
}

# What may come before a filter of whole cells: metadata of 8 bytes and more eights (bit shuffle: of whole fours, for cells of
# no more), and as many bytes of data as there were.
_SAME_SIZE: Final = (BitShuffleFilter, ByteShuffleFilter, ChecksumMD5Filter, ChecksumSHA256Filter)


def _read_filter(cursor: Cursor) -> Filter:
    start = cursor.at
    code = cursor.u8()
    size = cursor.u32()
    if code not in _READERS:
        return UnknownFilter(code, cursor.take(size))
    end = cursor.at + size
    try:
        one = _READERS[code](cursor)
    except InvalidValueError as error:
        cursor.fail(str(error), start)
    if cursor.at != end:
        cursor.fail(f"the options of filter {code} are {size} bytes long", start)
    return one


@dataclass(frozen=True, init=False, repr=False)
class FilterList(Sequence[Filter]):
    """A pipeline: filters in the order in which a writer applies them. Compared by value.

    Parameters
    ----------
    filters : Filter or iterable of Filter
        At most 8; none stores data as it is.
    chunksize : int, optional
        Bytes of values that are filtered, and read, at once; 64 to 1,048,576, 4,096 unless given. Larger ones compress
        better, and make each look-up slower. Without filters it means nothing.

    Raises
    ------
    WrongTypeError
        For anything that is not a Filter.
    InvalidValueError
        For more than 8.
    """

    filters: tuple[Filter, ...]
    chunksize: int
    _fixed: bool = field(compare=False)

    @takes_ctx
    def __init__(
        self,
        filters: Filter | Iterable[Filter] = (),
        chunksize: int | None = None,
        ctx: Ctx | None = None,
    ) -> None:
        chosen_ctx(ctx)
        if isinstance(filters, Filter):
            filters = (filters,)
        if not isinstance(filters, Iterable):
            raise WrongTypeError(f"filters are Filter objects, not {type(filters).__name__}")
        given = CHUNK_BYTES if chunksize is None else chunksize
        size = _between("FilterList: chunksize", given, 64, MAX_CHUNK_BYTES)
        self._set(tuple(filters), size, False)

    def _set(self, filters: tuple[Filter, ...], chunksize: int, fixed: bool) -> None:
        for one in filters:
            if not isinstance(one, Filter):
                raise WrongTypeError(f"a filter is a Filter object, not {shown(one)}")
        if len(filters) > MAX_FILTERS:
            raise InvalidValueError(f"at most {MAX_FILTERS} filters, not {len(filters)}")
        object.__setattr__(self, "filters", filters)
        object.__setattr__(self, "chunksize", chunksize)
        object.__setattr__(self, "_fixed", fixed)

    @classmethod
    def _in_schema(cls, filters: FilterList | Filter | Iterable[Filter]) -> FilterList:
        """Return a list with these filters that cannot be appended to: what an attribute has."""
        given = filters if isinstance(filters, FilterList) else cls(filters)
        made = cls.__new__(cls)
        made._set(given.filters, given.chunksize, True)
        return made

    def append(self, filter: Filter) -> None:
        """Add a filter behind the others; InvalidValueError for the list of an attribute or schema."""
        if self._fixed:
            raise InvalidValueError("an attribute or a schema has these filters: make a new list")
        self._set((*self.filters, filter), self.chunksize, False)

    def add_filter(self, filter: Filter) -> Self:
        """Add a filter behind the others, as `append`, and return the list."""
        self.append(filter)
        return self

    @overload
    def __getitem__(self, index: int) -> Filter: ...
    @overload
    def __getitem__(self, index: slice) -> FilterList: ...
    def __getitem__(self, index: int | slice) -> Filter | FilterList:
        """Return one filter, or a FilterList of several."""
        if isinstance(index, slice):
            found = FilterList(self.filters[index])
            object.__setattr__(found, "chunksize", self.chunksize)
            return found
        return self.filters[whole("the index of a filter", index)]

    def __len__(self) -> int:
        """Return the number of filters."""
        return len(self.filters)

    def __iter__(self) -> Iterator[Filter]:
        """Iterate in the order of writing."""
        return iter(self.filters)

    def __repr__(self) -> str:
        """Return the expression that makes it."""
        size = "" if self.chunksize == CHUNK_BYTES else f", chunksize={self.chunksize}"
        return f"FilterList({list(self.filters)!r}{size})"

    @property
    def unknown(self) -> UnknownFilter | None:
        """The first filter that tilekv cannot run, if there is one."""
        return next((one for one in self.filters if isinstance(one, UnknownFilter)), None)

    def _check(self, what: str, datatype: int, cell_bytes: int) -> None:
        """Raise unless TileDB could write and read cells with this pipeline.

        Run lengths and double deltas work on whole cells and elements. Before them only NoOpFilter
        may stand and, when those have 1, 2, 4 or 8 bytes, shuffles and checksums.

        Parameters
        ----------
        what : str
            Whose cells, for the message.
        datatype : int
            TileDB's code of an element.
        cell_bytes : int
            Bytes of a cell of fixed size; of an element of any other.

        Raises
        ------
        InvalidValueError
            When it could not; the message says why.
        """
        element = DATATYPES[datatype]
        before: list[Filter] = []
        for one in self.filters:
            if isinstance(one, DoubleDeltaFilter) and element.kind == "f":
                raise InvalidValueError(
                    f"{what}: DoubleDeltaFilter stores integers, datetimes and characters, "
                    f"not {element.dtype}; ByteShuffleFilter before a compressor suits floats"
                )
            if isinstance(one, (RleFilter, DoubleDeltaFilter)):
                unit = cell_bytes if isinstance(one, RleFilter) else element.size
                if before and (
                    unit not in (1, 2, 4, 8)
                    or not all(isinstance(each, _SAME_SIZE) for each in before)
                ):
                    raise InvalidValueError(
                        f"{what}: {type(one).__name__} works on whole cells, here of {unit} bytes, and "
                        f"cannot come after {type(before[-1]).__name__}; put it first (shuffles and "
                        "checksums may come before it when cells have 1, 2, 4 or 8 bytes)"
                    )
            if not isinstance(one, NoOpFilter):
                before.append(one)

    def _to_bytes(self, max_chunk: int | None = None) -> bytes:
        """Return the pipeline descriptor, with another chunk size where one is given."""
        size = self.chunksize if max_chunk is None else max_chunk
        parts = [struct.pack("<II", size, len(self.filters))]
        for one in self.filters:
            meta = one.meta()
            parts.append(struct.pack("<BI", one.type, len(meta)) + meta)
        return b"".join(parts)

    @classmethod
    def _read(cls, cursor: Cursor) -> FilterList:
        """Read a pipeline descriptor at `cursor` and move behind it.

        Returns
        -------
        FilterList
            With an UnknownFilter for each that is not known here, and whatever chunk size.

        Raises
        ------
        CorruptionError
            When the bytes are no descriptor.
        """
        max_chunk = cursor.u32()
        n = cursor.u32()
        if n > MAX_FILTERS:
            cursor.fail(
                f"a pipeline of {n} filters; at most {MAX_FILTERS} make sense", cursor.at - 4
            )
        found = cls.__new__(cls)
        found._set(tuple(_read_filter(cursor) for _ in range(n)), max_chunk, True)
        return found

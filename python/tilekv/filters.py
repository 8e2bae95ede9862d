"""Filters, and the pipeline descriptor that names them on disk (FORMAT.md 4.2).

    u32 max_chunk | u32 n | n times: u8 type, u32 size of meta, meta

The filters themselves run in the compiled core; here they are only named.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

from tilekv.cursor import Cursor
from tilekv.errors import InvalidValueError, WrongTypeError

MAX_FILTERS: Final = 8  # as in kvcore/codec.pxd

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


def _check_whole(what: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongTypeError(f"{what} is an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidValueError(f"{what} is {least} to {most}, not {value}")


@dataclass(frozen=True)
class NoOpFilter(Filter):
    """Leaves data as it is."""

    type: int = field(default=0, init=False, repr=False)

    def meta(self) -> bytes:
        """Return no bytes."""
        return b""


@dataclass(frozen=True)
class ZstdFilter(Filter):
    """Zstandard.

    Parameters
    ----------
    level : int
        -131072 to 22; more is smaller and slower to write. Negative levels are zstd's fast ones,
        0 is its default (3).
    """

    level: int = 1
    type: int = field(default=2, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_whole("ZstdFilter: level", self.level, -131072, 22)

    def meta(self) -> bytes:
        """Return u8 2, i32 level."""
        return struct.pack("<Bi", self.type, self.level)


@dataclass(frozen=True)
class LZ4Filter(Filter):
    """LZ4 blocks: fast to read, larger than zstd. It has no levels."""

    type: int = field(default=3, init=False, repr=False)

    def meta(self) -> bytes:
        """Return u8 3, i32 -1 (TileDB's word for a default level)."""
        return struct.pack("<Bi", self.type, -1)


@dataclass(frozen=True)
class BitWidthReductionFilter(Filter):
    """Integers as their distance from the least of their window, in as few whole bytes as fit.

    Parameters
    ----------
    window : int
        Most bytes of a window, 8 to 2^32-1; the writer may choose smaller windows.
    """

    window: int = 8192
    type: int = field(default=7, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_whole("BitWidthReductionFilter: window", self.window, 8, (1 << 32) - 1)

    def meta(self) -> bytes:
        """Return u32 window."""
        return struct.pack("<I", self.window)


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


def _read_lz4(cursor: Cursor) -> LZ4Filter:
    _read_level(cursor, LZ4Filter.type)  # LZ4 blocks have no levels: the number means nothing
    return LZ4Filter()


# Every filter that can be read, by its number: a new one joins here.
_READERS: Final[dict[int, Callable[[Cursor], Filter]]] = {
    NoOpFilter.type: lambda _: NoOpFilter(),
    ZstdFilter.type: lambda cursor: ZstdFilter(_read_level(cursor, ZstdFilter.type)),
    LZ4Filter.type: _read_lz4,
    BitWidthReductionFilter.type: lambda cursor: BitWidthReductionFilter(cursor.u32()),
}


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
    """A pipeline: filters in the order in which a writer applies them. Frozen, compared by value.

    Parameters
    ----------
    filters : Filter or iterable of Filter
        At most 8; none stores data as it is.

    Raises
    ------
    WrongTypeError
        For anything that is not a Filter.
    InvalidValueError
        For more than 8.
    """

    filters: tuple[Filter, ...]

    def __init__(self, filters: Filter | Iterable[Filter] = ()) -> None:
        if isinstance(filters, Filter):
            filters = (filters,)
        if not isinstance(filters, Iterable):
            raise WrongTypeError(f"filters are Filter objects, not {type(filters).__name__}")
        found = tuple(filters)
        for one in found:
            if not isinstance(one, Filter):
                raise WrongTypeError(f"a filter is a Filter object, not {one!r}")
        if len(found) > MAX_FILTERS:
            raise InvalidValueError(f"at most {MAX_FILTERS} filters, not {len(found)}")
        object.__setattr__(self, "filters", found)

    @overload
    def __getitem__(self, index: int) -> Filter: ...
    @overload
    def __getitem__(self, index: slice) -> FilterList: ...
    def __getitem__(self, index: int | slice) -> Filter | FilterList:
        """Return one filter, or a FilterList of several."""
        if isinstance(index, slice):
            return FilterList(self.filters[index])
        return self.filters[index]

    def __len__(self) -> int:
        """Return the number of filters."""
        return len(self.filters)

    def __iter__(self) -> Iterator[Filter]:
        """Iterate in the order of writing."""
        return iter(self.filters)

    def __repr__(self) -> str:
        """Return the expression that makes it."""
        return f"FilterList({list(self.filters)!r})"

    @property
    def unknown(self) -> UnknownFilter | None:
        """The first filter that tilekv cannot run, if there is one."""
        return next((one for one in self.filters if isinstance(one, UnknownFilter)), None)

    def to_bytes(self, max_chunk: int) -> bytes:
        """Return the pipeline descriptor; `max_chunk` is the raw size at which writers cut."""
        parts = [struct.pack("<II", max_chunk, len(self.filters))]
        for one in self.filters:
            meta = one.meta()
            parts.append(struct.pack("<BI", one.type, len(meta)) + meta)
        return b"".join(parts)

    @classmethod
    def read(cls, cursor: Cursor) -> tuple[FilterList, int]:
        """Read a pipeline descriptor at `cursor` and move behind it.

        Returns
        -------
        FilterList, int
            The filters, an UnknownFilter for each that is not known here, and max_chunk.

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
        return cls([_read_filter(cursor) for _ in range(n)]), max_chunk

"""Filters by value, and the pipeline descriptor byte for byte."""

import pickle
from typing import Any

import pytest

from tilekv.cursor import Cursor
from tilekv.errors import CorruptionError, InvalidValueError, WrongTypeError
from tilekv.filters import (
    BitWidthReductionFilter,
    Filter,
    FilterList,
    LZ4Filter,
    NoOpFilter,
    UnknownFilter,
    ZstdFilter,
)


def read(data: bytes) -> tuple[FilterList, int]:
    cursor = Cursor(data, "f")
    found = FilterList.read(cursor)
    assert cursor.left == 0
    return found


@pytest.mark.parametrize(
    ("one", "stored"),
    [
        (NoOpFilter(), "00 00000000"),
        (ZstdFilter(3), "02 05000000 02 03000000"),
        (ZstdFilter(level=-7), "02 05000000 02 f9ffffff"),
        (LZ4Filter(), "03 05000000 03 ffffffff"),
        (BitWidthReductionFilter(window=8192), "07 04000000 00200000"),
        (UnknownFilter(14, b"ab"), "0e 02000000 6162"),
    ],
)
def test_descriptor_of_one(one: Filter, stored: str) -> None:
    data = bytes.fromhex("00100000 01000000" + stored)
    assert FilterList(one).to_bytes(4096) == data
    assert read(data) == (FilterList([one]), 4096)


def test_descriptor_of_several() -> None:
    filters = FilterList([BitWidthReductionFilter(), UnknownFilter(9), ZstdFilter(22)])
    assert read(filters.to_bytes(0x7FFFFFF8)) == (filters, 0x7FFFFFF8)
    assert FilterList().to_bytes(7) == bytes.fromhex("07000000 00000000")
    assert read(FilterList().to_bytes(7)) == (FilterList(), 7)


def test_sequence_and_value() -> None:
    filters = FilterList([ZstdFilter(), LZ4Filter()])
    assert filters == FilterList((ZstdFilter(1), LZ4Filter()))
    assert filters != FilterList([LZ4Filter(), ZstdFilter()])
    assert hash(filters) == hash(FilterList(list(filters)))
    assert len(filters) == 2
    assert filters[1] == LZ4Filter()
    assert filters[:1] == FilterList(ZstdFilter())
    assert list(filters) == [ZstdFilter(), LZ4Filter()]
    assert repr(filters) == "FilterList([ZstdFilter(level=1), LZ4Filter()])"
    assert eval(repr(filters)) == filters
    assert pickle.loads(pickle.dumps(filters)) == filters
    assert ZstdFilter(1) != ZstdFilter(2)
    assert FilterList(NoOpFilter()) != FilterList(LZ4Filter())


def test_unknown_filters_are_found_and_named() -> None:
    assert FilterList([ZstdFilter()]).unknown is None
    unknown = FilterList([ZstdFilter(), UnknownFilter(14), UnknownFilter(200)]).unknown
    assert unknown is not None
    assert unknown.name == "dictionary (filter 14)"
    assert UnknownFilter(200).name == "unknown (filter 200)"


@pytest.mark.parametrize("filters", [5, "zstd", [LZ4Filter(), "zstd"], [None], LZ4Filter])
def test_what_is_no_filter(filters: Any) -> None:
    with pytest.raises(WrongTypeError):
        FilterList(filters)


@pytest.mark.parametrize("level", [23, -131073, 2**40])
def test_levels_out_of_range(level: int) -> None:
    with pytest.raises(InvalidValueError, match="level"):
        ZstdFilter(level)


@pytest.mark.parametrize("window", [0, 7, 1 << 32])
def test_windows_out_of_range(window: int) -> None:
    with pytest.raises(InvalidValueError, match="window"):
        BitWidthReductionFilter(window)


@pytest.mark.parametrize("value", ["3", True, 1.0, None])
def test_options_of_wrong_types(value: Any) -> None:
    for kind in (ZstdFilter, BitWidthReductionFilter):
        with pytest.raises(WrongTypeError):
            kind(value)


def test_too_many() -> None:
    assert len(FilterList([LZ4Filter()] * 8)) == 8
    with pytest.raises(InvalidValueError):
        FilterList([LZ4Filter()] * 9)


@pytest.mark.parametrize(
    "stored",
    [
        "01000000 ffffffff",  # billions of filters
        "01000000 09000000" + "00 00000000" * 9,
        "01000000 01000000 02 05000000 03 01000000",  # zstd with lz4's options
        "01000000 01000000 02 05000000 02 17000000",  # level 23
        "01000000 01000000 02 04000000 02 01000000",
        "01000000 01000000 02 06000000 02 01000000 00",
        "01000000 01000000 07 04000000 00000000",
        "01000000 01000000 0e ffffffff 00",
    ],
)
def test_damaged_descriptors(stored: str) -> None:
    with pytest.raises(CorruptionError):
        FilterList.read(Cursor(bytes.fromhex(stored), "f"))


def test_every_truncation() -> None:
    data = FilterList([ZstdFilter(), BitWidthReductionFilter(), UnknownFilter(9, b"x")]).to_bytes(9)
    for n in range(len(data)):
        with pytest.raises(CorruptionError):
            FilterList.read(Cursor(data[:n], "f"))

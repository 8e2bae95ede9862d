"""Filters by value, and the pipeline descriptor byte for byte."""

import inspect
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.cursor import Cursor
from tilekv.errors import CorruptionError, InvalidValueError, WrongTypeError
from tilekv.filters import (
    BitShuffleFilter,
    BitWidthReductionFilter,
    ByteShuffleFilter,
    Bzip2Filter,
    ChecksumMD5Filter,
    ChecksumSHA256Filter,
    DoubleDeltaFilter,
    Filter,
    FilterList,
    GzipFilter,
    LZ4Filter,
    NoOpFilter,
    PositiveDeltaFilter,
    RleFilter,
    UnknownFilter,
    ZstdFilter,
)
from tilekv.schema import Attr, Schema
from tilekv.tiledb.context import Ctx

ctx = Ctx()


def read(data: bytes) -> FilterList:
    cursor = Cursor(data, "f")
    found = FilterList._read(cursor)
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
        (GzipFilter(9), "01 05000000 01 09000000"),
        (GzipFilter(), "01 05000000 01 ffffffff"),
        (RleFilter(), "04 05000000 04 ffffffff"),
        (Bzip2Filter(level=1), "05 05000000 05 01000000"),
        (DoubleDeltaFilter(), "06 05000000 06 ffffffff"),
        (BitShuffleFilter(), "08 00000000"),
        (ByteShuffleFilter(), "09 00000000"),
        (PositiveDeltaFilter(window=512), "0a 04000000 00020000"),
        (ChecksumMD5Filter(), "0c 00000000"),
        (ChecksumSHA256Filter(), "0d 00000000"),
        (UnknownFilter(14, b"ab"), "0e 02000000 6162"),
    ],
)
def test_descriptor_of_one(one: Filter, stored: str) -> None:
    data = bytes.fromhex("00100000 01000000" + stored)
    assert FilterList(one)._to_bytes() == data
    assert read(data) == FilterList([one])


def test_descriptor_of_several() -> None:
    filters = FilterList([BitWidthReductionFilter(), UnknownFilter(15), ZstdFilter(22)])
    found = read(filters._to_bytes(0x7FFFFFF8))
    assert (list(found), found.chunksize) == (list(filters), 0x7FFFFFF8)
    assert FilterList()._to_bytes(7) == bytes.fromhex("07000000 00000000")
    assert read(FilterList()._to_bytes(7)).chunksize == 7
    assert read(FilterList([LZ4Filter()], 8192)._to_bytes()) == FilterList([LZ4Filter()], 8192)


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


@pytest.mark.parametrize("kind", [GzipFilter, Bzip2Filter])
def test_levels_of_one_digit(kind: type[GzipFilter | Bzip2Filter]) -> None:
    assert kind().level == -1
    for level in (-2, 10):
        with pytest.raises(InvalidValueError, match=f"{kind.__name__}: level"):
            kind(level)


@pytest.mark.parametrize("kind", [BitWidthReductionFilter, PositiveDeltaFilter])
@pytest.mark.parametrize("window", [0, 7, -2, 1 << 32])
def test_windows_out_of_range(
    kind: type[BitWidthReductionFilter | PositiveDeltaFilter], window: int
) -> None:
    with pytest.raises(InvalidValueError, match=f"{kind.__name__}: window"):
        kind(window)


def test_spellings_of_tiledb_py() -> None:
    """It gives a level to compressors without levels, and has -1 for every default."""
    assert LZ4Filter(level=5) == LZ4Filter()
    assert repr(RleFilter(-1)) == "RleFilter()"
    assert hash(DoubleDeltaFilter(level=3)) == hash(DoubleDeltaFilter())
    assert BitWidthReductionFilter(window=-1) == BitWidthReductionFilter()
    assert PositiveDeltaFilter(-1) == PositiveDeltaFilter(1024)
    with pytest.raises(WrongTypeError):
        LZ4Filter(level="fast")  # type: ignore[arg-type]


FILTERS = [
    (GzipFilter, (3,)),
    (ZstdFilter, (3,)),
    (Bzip2Filter, (3,)),
    (LZ4Filter, (3,)),
    (RleFilter, ()),
    (DoubleDeltaFilter, ()),
    (BitWidthReductionFilter, (512,)),
    (PositiveDeltaFilter, (512,)),
    (BitShuffleFilter, ()),
    (ByteShuffleFilter, ()),
    (ChecksumMD5Filter, ()),
    (ChecksumSHA256Filter, ()),
    (NoOpFilter, ()),
]


@pytest.mark.parametrize(("kind", "options"), FILTERS)
def test_a_context_anywhere(kind: type[Filter], options: tuple[int, ...]) -> None:
    plain = kind(*options)
    for call in (
        lambda: kind(ctx, *options),
        lambda: kind(*options, ctx),
        lambda: kind(*options, ctx=ctx),
        lambda: kind(*options, ctx=None),
    ):
        assert call() == plain
    assert str(inspect.signature(kind)).count("ctx") == 1
    assert kind() == kind(ctx=ctx)
    if options:
        assert kind(None) == kind()
    with pytest.raises(WrongTypeError, match="context"):
        kind(ctx={})
    lists = [FilterList(ctx, [plain]), FilterList([plain], ctx=ctx), FilterList([plain], None, ctx)]
    assert lists == [FilterList(plain)] * 3


def test_lists_grow_until_an_attribute_has_them() -> None:
    filters = FilterList(ctx=ctx)
    filters.append(GzipFilter(ctx=ctx))
    assert filters.add_filter(ByteShuffleFilter()) is filters
    assert filters == FilterList([GzipFilter(), ByteShuffleFilter()])
    attr = Attr("a", "int32", filters=filters)
    filters.append(LZ4Filter())
    assert list(attr.filters) == [GzipFilter(), ByteShuffleFilter()]
    for fixed in (attr.filters, Attr("a").filters, Schema([attr]).key_filters):
        with pytest.raises(InvalidValueError, match="make a new list"):
            fixed.append(LZ4Filter())
    with pytest.raises(WrongTypeError, match="a Filter object"):
        filters.append("lz4")  # type: ignore[arg-type]
    for _ in range(5):
        filters.append(LZ4Filter())
    with pytest.raises(InvalidValueError, match="at most 8"):
        filters.append(LZ4Filter())
    assert len(filters) == 8


def test_chunk_sizes() -> None:
    assert FilterList().chunksize == 4096
    filters = FilterList([ZstdFilter()], chunksize=1024)
    assert (filters.chunksize, filters[:1].chunksize) == (1024, 1024)
    assert filters != FilterList([ZstdFilter()])
    assert eval(repr(filters)) == filters
    assert Attr("a", filters=filters).filters == filters
    for size in (0, 63, (1 << 20) + 1):
        with pytest.raises(InvalidValueError, match="chunksize is 64 to 1048576"):
            FilterList(chunksize=size)
    with pytest.raises(WrongTypeError, match="chunksize"):
        FilterList(chunksize="1024")  # type: ignore[arg-type]


def raw_sizes(file: Path) -> Iterator[int]:
    """The raw size of every chunk of a data file (docs/format.md), which ends in 20 bytes of name."""
    data, at = file.read_bytes()[:-20], 0
    while at < len(data):
        (n,) = struct.unpack_from("<Q", data, at)
        at += 8
        for _ in range(n):
            raw, stored, meta = struct.unpack_from("<III", data, at)
            yield raw
            at += 12 + meta + stored


@pytest.mark.parametrize("size", [64, 1000, 1 << 20])
def test_chunks_have_the_size_that_was_asked_for(tmp_path: Path, size: int) -> None:
    """A store keeps it, for those who write later too."""
    attr = Attr("a", bytes, filters=FilterList([LZ4Filter()], size))
    rows = {f"key {n}": bytes([n % 256]) * (n % 91) for n in range(3000)}
    for place, schema in (("x", Schema([attr], capacity=2048)), ("y", None)):
        tmp = tmp_path / "store"
        with tilekv.open(tmp, "x" if schema else "a", schema=schema) as db:
            assert db.schema.attrs[0].filters.chunksize == size
            db.update({place + key: value for key, value in rows.items()})
    with tilekv.open(tmp) as db:
        assert {place + key: rows[key] for place in "xy" for key in rows} == dict(db.items())
    sizes = [size for file in tmp.glob("*/a_var.tdb") for size in raw_sizes(file)]
    assert min(size / 2, 90_000) < max(sizes) <= max(size, 90)
    assert (len(sizes) == 4) == (size == 1 << 20)  # two fragments of two tiles
    assert tilekv.verify(tmp) == []


def test_filters_of_whole_cells_come_first() -> None:
    rle, deltas = RleFilter(), DoubleDeltaFilter()
    shuffle, md5, noop = ByteShuffleFilter(), ChecksumMD5Filter(), NoOpFilter()
    for filters in [
        [rle, ZstdFilter()],
        [noop, deltas],
        [shuffle, rle],
        [BitShuffleFilter(), md5, deltas],
    ]:
        assert Attr("a", "int64", filters=filters).filters == FilterList(filters)
        assert Schema([Attr("a", bytes, filters=filters)], key_filters=filters).key_filters
        assert Schema([Attr("a", bytes)], offsets_filters=filters).offsets_filters
    for bad in [
        [ZstdFilter(), rle],
        [BitWidthReductionFilter(), deltas],
        [shuffle, PositiveDeltaFilter(), rle],
        [rle, deltas],
        [rle, rle],
    ]:
        with pytest.raises(InvalidValueError, match=r"attribute 'a': \w+ works on whole cells"):
            Attr("a", "int64", filters=bad)
        with pytest.raises(InvalidValueError, match="offsets_filters"):
            Schema([Attr("a", bytes)], offsets_filters=bad)
        with pytest.raises(InvalidValueError, match="key_filters"):
            Schema([Attr("a", bytes)], key_filters=bad)
    assert Attr("a", "int32", shape=3, filters=[rle])
    assert Attr("a", "int32", var=True, filters=[shuffle, rle])
    with pytest.raises(InvalidValueError, match="of 12 bytes, and cannot come after ByteShuffle"):
        Attr("a", "int32", shape=3, filters=[shuffle, rle])
    assert Attr("a", "int32", shape=3, filters=[shuffle, deltas])  # elements, not cells


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_double_delta_refuses_floats(dtype: str) -> None:
    with pytest.raises(InvalidValueError, match=f"attribute 'a': DoubleDelta.* not {dtype}"):
        Attr("a", dtype, filters=DoubleDeltaFilter())
    for other in ("datetime64[s]", "bool", bytes, "uint8"):
        assert Attr("a", other, filters=DoubleDeltaFilter())


@pytest.mark.parametrize("value", ["3", True, 1.0])
def test_options_of_wrong_types(value: Any) -> None:
    for kind in (
        GzipFilter,
        ZstdFilter,
        Bzip2Filter,
        LZ4Filter,
        BitWidthReductionFilter,
        PositiveDeltaFilter,
    ):
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
        "01000000 01000000 0a 04000000 07000000",
        "01000000 01000000 01 05000000 01 0a000000",
        "01000000 01000000 04 05000000 03 ffffffff",  # run lengths with lz4's options
        "01000000 01000000 08 01000000 00",
        "01000000 01000000 0e ffffffff 00",
    ],
)
def test_damaged_descriptors(stored: str) -> None:
    with pytest.raises(CorruptionError):
        FilterList._read(Cursor(bytes.fromhex(stored), "f"))


def test_every_truncation() -> None:
    data = FilterList([ZstdFilter(), BitWidthReductionFilter(), UnknownFilter(19, b"x")])._to_bytes(
        9
    )
    for n in range(len(data)):
        with pytest.raises(CorruptionError):
            FilterList._read(Cursor(data[:n], "f"))

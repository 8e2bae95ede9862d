"""Whatever the writer acknowledges, the reader reads: any filters, shapes, capacities and sizes, over cells that compress to
nothing, cells that do not compress, and empty ones."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from samples import NIGHTLY, SEED
from tilekv import Attr, FilterList, Schema
from tilekv.errors import InvalidValueError

MIB = 1 << 20
SIZES = [1 * MIB - 1, MIB + 8, 4 * MIB, 8 * MIB, 12 * MIB, 16 * MIB] + [64 * MIB] * NIGHTLY
NUMBERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]
DTYPES = [*NUMBERS, "float32", "float64", "datetime64[ms]", "timedelta64[ns]"]
WINDOWS = (8, 64, 8192, (1 << 32) - 1)
FILTERS: list[Callable[[random.Random], tilekv.Filter]] = [
    lambda _: tilekv.NoOpFilter(),
    lambda pick: tilekv.GzipFilter(pick.choice([-1, 0, 1, 9])),
    lambda pick: tilekv.ZstdFilter(pick.choice([-1000, -1, 1, 3, 9])),
    lambda _: tilekv.LZ4Filter(),
    lambda _: tilekv.RleFilter(),
    lambda pick: tilekv.Bzip2Filter(pick.choice([-1, 1, 9])),
    lambda _: tilekv.DoubleDeltaFilter(),
    lambda pick: tilekv.BitWidthReductionFilter(pick.choice(WINDOWS)),
    lambda _: tilekv.BitShuffleFilter(),
    lambda _: tilekv.ByteShuffleFilter(),
    lambda pick: tilekv.PositiveDeltaFilter(pick.choice(WINDOWS)),
    lambda _: tilekv.ChecksumMD5Filter(),
    lambda _: tilekv.ChecksumSHA256Filter(),
]


def pipeline(pick: random.Random, most: int) -> FilterList:
    return FilterList([pick.choice(FILTERS)(pick) for _ in range(pick.randint(0, most))])


def legal(pick: random.Random, make: Callable[[FilterList], Any], most: int) -> Any:
    """What `make` makes of filters that it takes."""
    while True:
        try:
            return make(pipeline(pick, most))
        except InvalidValueError:
            pass


def attribute(pick: random.Random, size: int) -> Attr:
    """One of which a cell has about `size` bytes; 0 for a few."""
    most = 3 if size else 8
    dtype = pick.choice([*DTYPES, bytes, str])
    if dtype in (bytes, str):
        return legal(pick, lambda filters: Attr("a", dtype, filters=filters), most)
    if pick.random() < 0.3:
        return legal(pick, lambda filters: Attr("a", dtype, var=True, filters=filters), most)
    shape = size // np.dtype(dtype).itemsize or pick.choice([None, 1, (3, 2), 100])
    return legal(pick, lambda filters: Attr("a", dtype, shape=shape, filters=filters), most)


def cell(pick: random.Random, attr: Attr, size: int, noise: bool) -> Any:
    """A value, of `size` bytes where that is up to us."""
    if attr.type_name == "str":
        return "".join(pick.choices("aé\0𝄞", k=size // 2)) if noise else "é" * (size // 2)
    if attr.type_name == "bytes":
        return pick.randbytes(size) if noise else bytes((pick.randrange(256),)) * size
    n = size // attr.dtype.itemsize if attr.var else int(np.prod(attr.shape or ()))
    if not noise:
        value = np.full(n, pick.choice([0, 1]), np.uint8).astype(attr.dtype)
    elif attr.type_name == "bool":
        value = np.frombuffer(pick.randbytes(n), np.uint8) % 2 == 1
    else:
        value = np.frombuffer(pick.randbytes(n * attr.dtype.itemsize), attr.dtype)
    return value if attr.var else value.reshape(attr.shape or ())[()]


def bits(value: Any, attr: Attr) -> bytes:
    if isinstance(value, (bytes, str)):
        return value if isinstance(value, bytes) else value.encode()
    return np.asarray(value, attr.dtype).tobytes()


def check(pick: random.Random, size: int, folder: Path) -> None:
    """Two flushes of a store of its own, read in every way before and after they are merged."""
    attr = attribute(pick, size)
    slow = sum(isinstance(one, (tilekv.Bzip2Filter, tilekv.GzipFilter)) for one in attr.filters)
    # Deltas of noise, and deltas of what was made of those, come to 36 times its size.
    most = 4 * MIB if not NIGHTLY else 16 * MIB if len(attr.filters) > 1 else 64 * MIB
    noise = size <= most and (NIGHTLY or not slow)
    kinds = [False, True] if noise else [False]
    schema = legal(
        pick,
        lambda filters: Schema(
            [attr],
            capacity=pick.choice([1 if size else 3, 7, 50, 1024, 100_000]),
            offsets_filters=filters,
            key_filters=legal(pick, lambda keys: Schema([attr], key_filters=keys), 4).key_filters,
        ),
        4,
    )
    n = 2 if size else pick.choice([2, 5, 20, 40, 100, 2000])
    few = [0, 1, 8, 40] if n > 40 else [0, 1, 8, 40, 5000]
    rows = {}
    for i in range(n):
        length = size or pick.choice(few)
        rows[pick.choice([i, f"key {i}", b"%d" % i * 9])] = cell(
            pick, attr, length, pick.choice(kinds)
        )
    keys = list(rows)
    expected = {key: bits(value, attr) for key, value in rows.items()}
    with tilekv.open(folder, "x", schema=schema, config={"kv.sync": False}) as db:
        for part in (keys[: n // 2], keys[n // 2 :]):
            db.put_many(part, [rows[key] for key in part])
            db.flush()
    config = {"kv.sync": False, "kv.mmap": pick.random() < 0.8}
    for merged in (False, True):
        with tilekv.open(folder, "a", config=config) as db:
            column = db.read(keys)["a"]
            values = column if isinstance(column, np.ndarray) else column.to_list()
            assert {k: bits(v, attr) for k, v in zip(keys, values, strict=True)} == expected
            assert [bits(db[key], attr) for key in keys[:50]] == [
                expected[key] for key in keys[:50]
            ]
            assert {key: bits(value, attr) for key, value in db.items()} == expected
            assert db.verify() == []
            if not merged:
                db.consolidate(vacuum=True)


@pytest.mark.parametrize(
    "filters",
    [
        tilekv.Bzip2Filter(9),
        [tilekv.LZ4Filter(), tilekv.ZstdFilter()],
        [tilekv.RleFilter(), tilekv.Bzip2Filter()],
    ],
    ids=str,
)
@pytest.mark.parametrize("size", SIZES[-3:])
def test_black_frames(filters: Any, size: int, tmp_path: Path) -> None:
    """They come to less than a hundred bytes: a reader took that for a bomb, and the writer had flushed them."""
    schema = Schema([Attr("frame", "uint8", shape=(2, size // 2), filters=filters)])
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db["black"] = np.zeros((2, size // 2), "uint8")
        db.flush()
        assert not db["black"].any()
        db.consolidate()
    assert tilekv.verify(tmp_path / "s") == []
    assert tilekv.salvage(tmp_path / "s", tmp_path / "t").copied == 1


def test_a_million_empty_cells_in_one_tile(tmp_path: Path) -> None:
    n = (1 << 20) + 1000
    schema = Schema([Attr("v", bytes)], capacity=2 * n, offsets_filters=tilekv.Bzip2Filter(9))
    with tilekv.open(tmp_path / "s", "x", schema=schema, config={"kv.sync": False}) as db:
        db.put_many(np.arange(n), [b""] * n)
    with tilekv.open(tmp_path / "s") as db:
        assert db[7] == b""
        assert sum(len(batch.keys) for batch in db.scan()) == n


def test_what_is_written_is_read(tmp_path: Path, tally: Callable[..., None]) -> None:
    examples = [(i, 0) for i in range(4000 if NIGHTLY else 80)]
    examples += [(-i, size) for i in range(1, 60 if NIGHTLY else 2) for size in SIZES]
    for i, size in examples:
        try:
            check(random.Random(f"{SEED} {i} {size}"), size, tmp_path / "s")
        except BaseException as error:
            error.add_note(f"TILEKV_SEED={SEED}, example {i} of cells of {size or 'few'} bytes")
            raise
        shutil.rmtree(tmp_path / "s")
    tally("pipelines of filters", len(examples))

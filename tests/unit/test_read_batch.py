"""kvcore.batch.read_batch: columns that are filled from memory, or read whole."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import Attr, KeyNotFoundError

Make = Callable[..., tilekv.Store]


@pytest.mark.parametrize("first", [0, 100_000])
def test_columns_grow_with_their_cells(store: Make, first: int) -> None:
    """What is expected of the cells to come is by those that came: these are all smaller, or all larger."""
    db = store(Attr("text", str), Attr("data", bytes), Attr("n", "int16"))
    sizes = [abs(first - i * 20) for i in range(300)] + [0] * 300
    rows = [(f"{i}" * (i % 9), bytes([i % 256]) * size, i) for i, size in enumerate(sizes)]
    db.put_many(range(600), rows)
    keys = [*range(600), *range(0, 600, 2)]
    for _ in range(2):
        batch = db.read(keys)
        assert batch["text"].to_list() == [rows[key][0] for key in keys]
        assert batch["data"].to_list() == [rows[key][1] for key in keys]
        assert batch["n"].tolist() == keys
        db.flush()


def test_one_column_in_memory_and_one_that_is_not(store: Make) -> None:
    """Numbers lie in the map as they are; text must be decoded."""
    db = store(Attr("n", "int64", filters=tilekv.FilterList()), Attr("text", str))
    rows = [(i, "word " * (i % 30)) for i in range(2000)]
    db.put_many(range(2000), rows)
    db.flush()
    keys = random.Random(1).sample(range(2000), 1500)
    db.read(keys[:10])
    batch = db.read(keys)
    assert batch["n"].tolist() == keys
    assert batch["text"].to_list() == [rows[key][1] for key in keys]


def test_the_first_that_is_missing_is_told(store: Make) -> None:
    db = store(Attr("n", "int64"), Attr("text", str))
    db.put_many(range(9000), [(i, "x") for i in range(9000)])
    db.flush()
    with pytest.raises(KeyNotFoundError, match="9001"):
        db.read([*range(8000), 9001, 5, 9002])
    batch = db.read([9001, 5, 9002], missing="mask")
    assert batch.found.tolist() == [False, True, False]
    assert batch["n"].tolist() == [0, 5, 0]
    assert batch["text"].to_list() == ["", "x", ""]


def test_nulls_are_zero_and_empty_whatever_is_beside_them(store: Make) -> None:
    """More columns than are read together, each with nulls of its own; in a buffer, decoded before, and read anew."""
    names = [f"c{i}" for i in range(11)]
    kinds: list[Any] = ["int64", str, "int16", bytes, "float64"]
    db = store(*(Attr(name, kinds[i % 5], nullable=i % 4 != 3) for i, name in enumerate(names)))
    made = {
        "int64": lambda key: key,
        "int16": lambda key: key % 1000,
        "float64": lambda key: key / 4,
        str: lambda key: f"{key}" * (key % 5),
        bytes: lambda key: b"%d" % key * (key % 7),
    }

    def row(key: int) -> tuple[Any, ...]:
        return tuple(
            None if i % 4 != 3 and key % (i + 2) == 0 else made[kinds[i % 5]](key)
            for i in range(11)
        )

    keys = random.Random(2).sample(range(9000), 9000)
    db.put_many(keys, [row(key) for key in keys])
    asked = [*keys[:5000], -1, *keys[100:200]]
    for _ in range(3):
        batch = db.read(asked, missing="mask")
        assert batch.found.tolist() == [key >= 0 for key in asked]
        rows = [row(key) if key >= 0 else (None,) * 11 for key in asked]
        for i, name in enumerate(names):
            column = batch[name]
            values = column.to_list() if kinds[i % 5] in (str, bytes) else column.tolist()
            zero = made[kinds[i % 5]](0)
            if i % 4 != 3:
                assert batch.valid[name].tolist() == [each[i] is not None for each in rows]
                values = [
                    v if ok else None for v, ok in zip(values, batch.valid[name], strict=True)
                ]
                assert values == [each[i] for each in rows]
                if kinds[i % 5] not in (str, bytes):
                    assert not column[~batch.valid[name]].any()
                else:
                    assert not np.diff(column.offsets)[~batch.valid[name]].any()
            else:
                assert values == [zero if each[i] is None else each[i] for each in rows]
        db.flush()


@pytest.mark.parametrize("threads", [1, 2])
def test_cells_that_are_too_many_for_a_part(store: Make, threads: int) -> None:
    """Nine megabytes a part; small ones before, between and after them."""
    db = store(Attr("data", bytes), Attr("n", "int32"), config={"kv.threads": threads})
    n = 20_000
    rows = [(b"%05d" % i * (i % 900 if i % 3 else 1), i) for i in range(n)]
    db.put_many(range(n), rows)
    db.flush()
    keys = random.Random(3).sample(range(n), n)
    for asked in (keys, keys[:100] * 3, keys):
        batch = db.read(asked)
        assert batch["n"].tolist() == asked
        assert batch["data"].to_list() == [rows[key][0] for key in asked]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_column_that_is_in_memory_in_part(store: Make, threads: int) -> None:
    """What the first parts have is there, the last must be decoded, while others are on their way."""
    db = store(Attr("text", str), Attr("n", "int32"), config={"kv.threads": threads})
    n = 30_000
    db.put_many(range(n), [(f"{i} " * (i % 9), i) for i in range(n)])
    db.flush()
    path = db.uri
    keys = list(range(n))
    with tilekv.open(path, config={"kv.threads": threads}) as other:
        for known in (9000, 20_000):
            other.read(keys[:known])
            batch = other.read(keys)
            assert batch["n"].tolist() == keys
            assert batch["text"].to_list() == [f"{i} " * (i % 9) for i in keys]

"""The column of keys that Arrow sees, and how a table's keys come back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import dataset

import tilekv
from tilekv import Attr, InvalidValueError, WrongTypeError
from tilekv.kvcore.values.keys import key_bytes

Make = Callable[..., tilekv.Store]


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["a", ""], pa.large_string()),
        ([b"a", b"\xff"], pa.large_binary()),
        ([1, -1], pa.int64()),
        ([2**63, 2**64 - 1], pa.uint64()),
        ([1.5, -0.0], pa.float64()),
        (np.array([1, 2], "int16"), pa.int64()),
        (np.array([1, 2], "M8[s]"), pa.timestamp("s")),
        (np.array([True, False]), pa.bool_()),
        ([1, "a"], None),
        ([1, 2.0], None),
        ([], pa.null()),
        (np.array([], "int16"), pa.null()),
    ],
)
def test_the_column_of_keys(store: Make, keys: Any, shown: Any) -> None:
    db = store(Attr("n", "int8"))
    db.put_many(keys, n=[5] * len(keys))
    batches = [db.read(keys), *db.scan()] if len(keys) else [db.read(keys)]
    for batch in batches:
        table = pa.table(batch)
        assert table.column_names == (["n"] if shown is None else ["key", "n"])
        assert len(table) == len(keys)
        if shown is not None:
            assert table["key"].type == shown
            given = pa.array(keys, shown).to_pylist() if len(keys) else []
            assert sorted(table["key"].to_pylist()) == sorted(given)


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "\udcff"],
        ["a", "caf\udcc3", "\udca9 b"],  # the pieces of one character
        [np.arange(2), np.arange(3)],
        [np.arange(1, 9, dtype="i4"), np.array([], "i4")],
        [np.array([True, False]), np.array([True])],
        [tilekv.Key(100, b"a"), tilekv.Key(100, b"")],
        [tilekv.Key(41, b"\2"), np.True_],
        [np.datetime64("NaT", "s"), np.datetime64(1, "s")],
        [np.datetime64(2**31, "D"), np.datetime64(1, "D")],
    ],
    ids=str,
)
def test_keys_without_an_array_of_their_own_are_bytes(store: Make, keys: list[Any]) -> None:
    """And come back as what they were, whichever batch one is in."""
    db = store(Attr("n", "int64"))
    db.put_many(zip(keys, range(len(keys)), strict=True))
    for flushed in (False, True):
        wanted = sorted(map(key_bytes, db))
        for table in (pa.table(db.read(keys)), pa.table(db.scan(rows=1)), db.scan(rows=1)):
            copy = store(Attr("n", "int64"))
            copy.put_many(table, key="key")
            assert sorted(map(key_bytes, copy)) == wanted, flushed
            assert copy.get_many(keys) == list(range(len(keys)))
        table = pa.table(db.scan(rows=1))
        assert table["key"].type == pa.large_binary()
        assert table.schema.field("key").metadata == {
            b"tilekv.key_type": str(key_bytes(keys[0])[0]).encode()
        }
        stored = [data for _, data in wanted]
        assert sorted(table["key"].to_pylist()) == stored
        assert sorted(pd.DataFrame.from_arrow(db.scan())["key"]) == stored
        assert sorted(pl.DataFrame(db.scan())["key"]) == stored
        db.flush()


@pytest.mark.parametrize("named", [b"", b"x", b"128", b"-1", b"1000", "²".encode()])
def test_a_type_of_keys_that_is_none(store: Make, named: bytes) -> None:
    db = store(Attr("n", "int64"))
    field = pa.field("key", pa.binary(), metadata={b"tilekv.key_type": named, b"a": b"b"})
    db.put_many(pa.table([[b"k"], [1]], pa.schema([field, pa.field("n", pa.int64())])), key="key")
    assert dict(db) == {b"k": 1}


@pytest.mark.parametrize("key", ["key", "__key"])
def test_an_attribute_named_key(store: Make, key: str) -> None:
    db = store(Attr("key", "int8"))
    db.put_many(["a"], key=[1])
    table = pa.table(db.read(["a"]))
    assert table.to_pylist() == [{"__key": "a", "key": 1}]
    for given in (table, db.scan(), {"__key": ["a"], "key": [1]}):
        other = store(Attr("key", "int8"))
        other.put_many(given, key=key)
        assert dict(other) == {"a": 1}
    with pytest.raises(InvalidValueError, match="missing: 'key'"):
        store(Attr("key", "int8")).put_many(pa.table({"key": [1]}), key="key")


def test_a_scan_of_keys_of_several_types_has_no_column_of_them(store: Make) -> None:
    db = store(Attr("n", "int64"))
    db.put_many([*range(1000), "text"], range(1001))
    table = pa.table(db.scan(rows=10))
    assert table.column_names == ["n"]
    assert sorted(table["n"].to_pylist()) == list(range(1001))


TABLE = {"id": ["a", "b", "c"], "n": [1, 2, 3]}


TABLES = {
    "dict of lists": lambda: TABLE,
    "dict of arrays": lambda: {"id": np.array(TABLE["id"]), "n": pa.array(TABLE["n"])},
    "dict of series": lambda: {"id": pd.Series(TABLE["id"]), "n": pl.Series(TABLE["n"])},
    "pyarrow table": lambda: pa.table(TABLE),
    "pyarrow batch": lambda: pa.record_batch(TABLE),
    "pyarrow reader": lambda: pa.table(TABLE).to_reader(1),
    "pyarrow dataset": lambda: dataset.dataset(pa.table(TABLE)),
    "pyarrow scanner": lambda: dataset.dataset(pa.table(TABLE)).scanner(batch_size=1),
    "polars": lambda: pl.DataFrame(TABLE),
    "polars lazy": lambda: pl.LazyFrame(TABLE).filter(pl.col("n") > 0),
    "pandas": lambda: pd.DataFrame(TABLE),
    "pandas, keys in the index": lambda: pd.DataFrame(TABLE).set_index("id"),
    "pandas, an index of numbers": lambda: pd.DataFrame(TABLE, index=[7, 8, 9]),
    "pandas, filtered": lambda: pd.concat([pd.DataFrame(TABLE)] * 2).iloc[[3, 4, 2]],
    "pandas, two indices": lambda: pd.concat({"x": pd.DataFrame(TABLE)}),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_tables_of_every_kind(store: Make, make: Callable[[], Any]) -> None:
    db = store(Attr("n", "int64"))
    db.put_many(make(), key="id")
    assert dict(db) == {"a": 1, "b": 2, "c": 3}


def test_an_index_without_a_name_may_be_the_keys(store: Make) -> None:
    db = store(Attr("n", "int64"))
    db.put_many(pd.DataFrame({"n": [1, 2]}, index=["x", "y"]), key="__index_level_0__")
    assert dict(db) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("table", "error", "says"),
    [
        ({"n": [1]}, InvalidValueError, "no column 'id'.*'n'"),
        ({"id": [1]}, InvalidValueError, "missing: 'n'"),
        ({**TABLE, "m": [1]}, InvalidValueError, "unknown: 'm'"),
        ({"id": [1], "n": [1, 2]}, InvalidValueError, "1 keys, but 2 values in column 'n'"),
        ({"id": "a", "n": [1]}, WrongTypeError, "keys must be a list"),
        ([1], WrongTypeError, "a dict of columns, not list"),
        (None, WrongTypeError, "not NoneType"),
        (pl.LazyFrame({"n": [1]}), InvalidValueError, "no column 'id'"),
        (pd.DataFrame(TABLE, pd.Index([5, 6, 7], name="x")), InvalidValueError, "unknown: 'x'"),
    ],
)
def test_tables_that_are_refused(store: Make, table: Any, error: Any, says: str) -> None:
    db = store(Attr("n", "int64"))
    with pytest.raises(error, match=says):
        db.put_many(table, key="id")
    assert db.info().buffered == 0

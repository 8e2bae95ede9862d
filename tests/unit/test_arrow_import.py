"""kvcore.values.arrow_import: what pyarrow, polars and pandas give us, ours among it; what is wrong is told, nothing leaks."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from arrow_samples import everything, filled
from tilekv import Attr, InvalidValueError, OutOfRangeError, WrongTypeError

Make = Callable[..., tilekv.Store]


def assert_same(a: tilekv.Store, b: tilekv.Store) -> None:
    keys = sorted(a)
    assert sorted(b) == keys
    one, other = a.read(keys), b.read(keys)
    for name in one:
        x, y = one[name], other[name]
        if isinstance(x, tilekv.VarColumn):
            assert x.offsets.tobytes() == y.offsets.tobytes(), name
            x, y = x.data, y.data
        assert x.tobytes() == y.tobytes(), name


def chunked(table: Any) -> Any:
    """The same rows in chunks that begin within buffers."""
    wide = pa.concat_tables([table.slice(0, 3), table])
    return pa.concat_tables(
        [wide.slice(3, 7), wide.slice(10, 1), wide.slice(11, 0), wide.slice(11)]
    )


def first_batch(table: Any) -> Any:
    return table.to_batches()[0]


@pytest.mark.parametrize("form", [pa.table, chunked, first_batch, pl.DataFrame])
def test_everything_there_and_back(store: Make, form: Callable[[Any], Any]) -> None:
    db = filled(store(*everything()), 50)
    table = pa.table(db.read(sorted(db)))
    copy = store(*everything())
    copy.put_many(form(table), key="key")
    assert_same(db, copy)
    copy.flush()
    again = store(*everything())
    again.put_many(copy.scan(rows=7), key="key")
    assert_same(db, again)


def test_pandas_there_and_back(store: Make) -> None:
    attrs = [Attr("n", "int32"), Attr("s", str), Attr("t", "datetime64[ns]"), Attr("f", "float64")]
    db = store(*attrs)
    frame = pd.DataFrame(
        {
            "id": [3, 4],
            "n": [1, 2],
            "s": ["a", "ü"],
            "f": [0.5, 1],
            "t": pd.to_datetime(["2020", "2021"]),
        }
    )
    frame["t"] = frame["t"].astype("datetime64[ns]")
    frame["c"] = pd.Categorical(["x", "y"])
    db.put_many(frame.drop(columns="c"), key="id")
    assert db[4] == {"n": 2, "s": "ü", "t": np.datetime64("2021", "ns"), "f": 1.0}
    db.put_many(frame["id"], n=frame["n"], s=frame["c"], t=frame["t"], f=frame["f"])
    assert db[3]["s"] == "x"


@pytest.mark.parametrize(
    "kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_integers_that_fit(store: Make, kind: str) -> None:
    column = pa.array(range(9), kind).slice(1)
    db = store(Attr("b", "int8"), Attr("w", "uint64"), Attr("f", "float32"))
    db.put_many(column, b=column, w=column, f=column.dictionary_encode())
    key = np.dtype(kind).type(8)
    assert db[key] == {"b": 8, "w": 8, "f": 8.0}
    if kind != "int8":
        with pytest.raises(OutOfRangeError, match="'b'"):
            db.put_many(
                pa.array([1]),
                b=pa.array([128 if kind == "uint8" else 127 + 1], kind),
                w=[1],
                f=[1.0],
            )
    if kind.startswith("i"):
        with pytest.raises(OutOfRangeError, match="'w'"):
            db.put_many(pa.array([1]), b=[1], w=pa.array([-1], kind), f=[1.0])


def test_times(store: Make) -> None:
    db = store(Attr("t", "datetime64[us]"), Attr("d", "timedelta64[ns]"))
    zoned = pa.array([1, 2], pa.timestamp("ms", "Europe/Berlin"))
    db.put_many(pa.array([7, 8], pa.date32()), t=zoned, d=pa.array([1, 2], pa.duration("s")))
    key = np.datetime64(8, "D")
    assert db[key] == {"t": np.datetime64(2000, "us"), "d": np.timedelta64(2, "s")}
    db.put_many([1], t=pa.array([3], pa.date32()), d=pa.array([1], pa.duration("ns")))
    assert db[1]["t"] == np.datetime64(3, "D")
    with pytest.raises(OutOfRangeError, match="'t'"):
        db.put_many([1], t=pa.array([1], pa.timestamp("ns")), d=pa.array([1], pa.duration("ns")))


def test_chunks_of_different_columns_need_not_match(store: Make) -> None:
    db = store(Attr("a", "int64"), Attr("b", str), Attr("c", "int8"))
    a = pa.chunked_array([[0, 1, 2], [], [3], [4, 5, 6, 7, 8, 9]], pa.int64())
    b = pa.chunked_array([[str(i) for i in range(7)], ["7", "8", "9"]])
    db.put_many(pl.Series(range(10)), a=a, b=b, c=list(range(10)))
    assert dict(db) == {i: {"a": i, "b": str(i), "c": i} for i in range(10)}


def test_our_own_columns_are_taken_too(store: Make) -> None:
    db = filled(store(*everything()), 20)
    batch = db.read(sorted(db))
    copy = store(*everything())
    copy.put_many(batch.keys, **{name: batch[name] for name in batch})
    assert_same(db, copy)


@pytest.mark.parametrize(
    ("column", "attr"),
    [
        (pa.array(["a", None]), Attr("v", str)),
        (pa.array([None, b"a"]), Attr("v", bytes)),
        (pa.array([1, None]), Attr("v", "int64")),
        (pa.array([True, None]), Attr("v", "bool")),
        (pa.array([1, None], pa.timestamp("s")), Attr("v", "datetime64[s]")),
        (pa.array([[1], None]), Attr("v", "int64", var=True)),
        (pa.array([[1], [None]]), Attr("v", "int64", var=True)),
        (pa.array([[1], None], pa.list_(pa.int64(), 1)), Attr("v", "int64", shape=1)),
        (pa.array([[1], [None]], pa.list_(pa.int64(), 1)), Attr("v", "int64", shape=1)),
        (pa.array(["a", None]).dictionary_encode(), Attr("v", str)),
        (pa.array(["a", None], pa.string_view()), Attr("v", str)),
        (pa.nulls(2), Attr("v", str)),
        (pl.Series(["a", None]), Attr("v", str)),
        (pd.Series([1.0, None]), Attr("v", "float64")),
    ],
)
def test_nulls_are_refused(store: Make, column: Any, attr: Attr) -> None:
    db = store(attr)
    with pytest.raises(ValueError, match=r"column 'v'.*null"):
        db.put_many(range(2), v=column)
    if isinstance(column, pa.Array):
        with pytest.raises(ValueError, match=r"column 'v'.*null"):
            db.put_many(pa.table({"id": [1, 2], "v": column}), key="id")
        if not pa.types.is_null(column.type) and column[0].is_valid:
            with contextlib.suppress(WrongTypeError):  # lists are no keys
                db.put_many(column.slice(0, 1), v=column.slice(0, 1))  # the null is in the rest
    with pytest.raises(ValueError, match="null"):
        db.put_many(pa.table({"id": pa.array([1, None]), "v": column}), key="id")


def test_wrong_shapes_lengths_and_names(store: Make) -> None:
    db = store(Attr("v", "int8", shape=2))
    with pytest.raises(InvalidValueError, match=r"shape \(2,\)"):
        db.put_many([1], v=pa.array([[1, 2, 3]], pa.list_(pa.int8(), 3)))
    with pytest.raises(InvalidValueError, match="1 keys, but 2 values in column 'v'"):
        db.put_many(pa.array([1]), v=pa.array([[1, 2]] * 2, pa.list_(pa.int8(), 2)))
    for table, says in (
        (pa.table({"a": [1]}), "no column 'id'.*'a'"),
        (pa.table({"id": [1]}), "missing: 'v'"),
        (pa.table({"id": [1], "v": [1], "w": [1]}), "unknown: 'w'"),
        (pa.table([[1], [1]], names=["id", "id"]), "one name"),
    ):
        with pytest.raises(InvalidValueError, match=says):
            db.put_many(table, key="id")
    with pytest.raises(WrongTypeError, match="key="):
        db.put_many(pa.table({"id": [1]}))
    with pytest.raises(WrongTypeError, match="not list"):
        db.put_many([1], key="id")
    with pytest.raises(WrongTypeError, match="single column"):
        db.put_many(pa.array([1]), key="id")


def test_a_stream_that_fails_leaves_nothing(store: Make) -> None:
    def batches() -> Iterator[Any]:
        yield pa.record_batch({"id": [1], "v": [b"a"]})
        raise RuntimeError("the producer gave up")

    schema = pa.schema({"id": pa.int64(), "v": pa.binary()})
    db = store(Attr("v", bytes))
    with pytest.raises(InvalidValueError, match="the producer gave up"):
        db.put_many(pa.RecordBatchReader.from_batches(schema, batches()), key="id")
    assert len(db) == 0


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.unsanitized
@pytest.mark.parametrize("use", ["kept", "dropped", "streams", "in", "failed"])
def test_nothing_leaks(store: Make, use: str) -> None:
    """A leak of one batch a round would be some 200 MB."""
    db = store(Attr("b", bytes), Attr("n", "int64", shape=16), Attr("q", "bool", var=True))
    db.put_many([f"{i}" for i in range(200)], [(bytes(200), range(16), [True] * 50)] * 200)
    copy = store(*db.schema.attrs)
    keys = sorted(db)
    bad = pa.table(
        {
            "key": ["x", None] * 2000,
            "b": [bytes(20)] * 4000,
            "n": [[0]] * 4000,
            "q": [[True]] * 4000,
        }
    )

    def once() -> None:
        if use == "kept":
            table = pa.table(db.read(keys))
            table["b"].chunk(0).slice(3, 5).to_pylist()
        elif use == "dropped":
            batch = db.read(keys)
            batch.__arrow_c_array__()
            batch.__arrow_c_stream__()
            batch.__arrow_c_schema__()
        elif use == "streams":
            next(iter(pa.RecordBatchReader.from_stream(db.scan(rows=50))))
        elif use == "in":
            copy.put_many(db.scan(rows=90), key="key")
            assert copy._freeze()
            assert copy._snapshot is not None
            copy._install(copy._snapshot, True)
        else:
            with pytest.raises(ValueError, match="null"):
                copy.put_many(bad, key="key")

    for _ in range(300):
        once()
    before = rss()
    for _ in range(2000):
        once()
    assert rss() - before < 30_000  # KiB

"""Arrow out and in: pyarrow, polars and pandas take our columns and give us theirs; what is wrong is told, nothing leaks."""

import contextlib
import gc
import random
import resource
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from sample_stores import CODES, some
from tilekv import Attr, InvalidValueError, OutOfRangeError, WrongTypeError

Make = Callable[..., tilekv.Store]


TIMES = {"s": "timestamp[s]", "ms": "timestamp[ms]", "us": "timestamp[us]", "ns": "timestamp[ns]"}


def shown_as(name: str) -> str:
    """The type by which pyarrow shows an attribute."""
    unit = name[name.find("[") + 1 : -1]
    if name.startswith("datetime64"):
        return "date32[day]" if unit == "D" else TIMES.get(unit, "int64")
    if name.startswith("timedelta64"):
        return f"duration[{unit}]" if unit in TIMES else "int64"
    return {"float64": "double", "float32": "float"}.get(name, name)


def some_array(name: str, n: int) -> Any:
    rng = random.Random(name)
    values = np.array([some(rng, name) for _ in range(n)], name)
    if name == "datetime64[D]":
        return (values.view("i8") % 1_000_000).view(name)  # an Arrow date has 32 bits
    if values.dtype.kind in "mM":
        return (values.view("i8") % 2**40).view(name)  # no NaT, and polars makes ms of seconds
    return values


def everything() -> list[Attr]:
    attrs = [Attr("bytes", bytes), Attr("str", str), Attr("im", "uint8", shape=(4, 2, 3))]
    for name in CODES:
        attrs += [Attr(f"{name} {CODES[name]}", name)]
        attrs += [Attr(f"{name} {CODES[name]} pair", name, shape=2)]
        attrs += [Attr(f"{name} {CODES[name]} runs", name, var=True)]
    return attrs


def filled(db: tilekv.Store, n: int) -> tilekv.Store:
    """Rows with str keys, of everything()."""
    columns: dict[str, Any] = {}
    for attr in db.schema.attrs:
        if attr.type_name in ("bytes", "str"):
            words = ["", "a", "naïve", "中文\0", "x" * 40]
            texts = [words[i % 5] for i in range(n)]
            columns[attr.name] = texts if attr.type_name == "str" else [t.encode() for t in texts]
        elif attr.var:
            values = some_array(attr.type_name, n + 3)
            columns[attr.name] = [values[i : i + i % 4] for i in range(n)]
        else:
            size = int(np.prod(attr.shape or (1,)))
            values = some_array(attr.type_name, n * size)
            columns[attr.name] = values.reshape(n, *(attr.shape or ()))
    db.put_many([f"k{i}" for i in range(n)], **columns)
    return db


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


# --- out -------------------------------------------------------------------------------------------


def test_types_and_values_as_pyarrow_sees_them(store: Make) -> None:
    db = filled(store(*everything()), 50)
    table = pa.table(db.read([f"k{i}" for i in range(50)]))
    table.validate(full=True)
    assert table["key"].type == pa.large_string()
    assert table["key"].to_pylist() == [f"k{i}" for i in range(50)]
    for attr in db.schema.attrs:
        field = table.schema.field(attr.name)
        if attr.type_name in ("bytes", "str"):
            assert field.type == (
                pa.large_string() if attr.type_name == "str" else pa.large_binary()
            )
            assert table[attr.name].to_pylist() == db.read(table["key"])[attr.name].to_list()
            continue
        if attr.name == "im":
            nested = pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 2), 4)
            assert field.type == nested
            assert table["im"].to_pylist() == db.read(table["key"])["im"].tolist()
            continue
        shown = shown_as(attr.type_name)
        if attr.var:
            assert str(field.type) == f"large_list<item: {shown}>"
        elif attr.shape:
            assert str(field.type) == f"fixed_size_list<item: {shown}>[2]"
        else:
            assert str(field.type) == shown
            values = table[attr.name].to_numpy()
            assert values.astype(attr.dtype).tobytes() == db.read(table["key"])[attr.name].tobytes()
            if shown == "int64" and attr.type_name != "int64":
                assert field.metadata == {b"tilekv.dtype": attr.type_name.encode()}


def test_numbers_and_text_are_not_copied(store: Make) -> None:
    db = store(Attr("n", "int32"), Attr("s", str))
    db.put_many(range(100), n=range(100), s=["text"] * 100)
    batch = db.read(range(100))
    table = pa.record_batch(batch)
    at = {"n": batch["n"].ctypes.data, "s": batch["s"].data.ctypes.data}
    del batch
    gc.collect()
    assert table["n"].buffers()[1].address == at["n"]
    assert table["s"].buffers()[2].address == at["s"]
    assert table["n"].to_pylist() == list(range(100))


def test_polars_and_pandas_take_batches_and_scans(store: Make) -> None:
    db = store(
        Attr("n", "int32"), Attr("s", str), Attr("t", "datetime64[ms]"), Attr("v", "f8", var=True)
    )
    rows = [(i, f"{i}", np.datetime64(i, "ms"), np.arange(i % 3, dtype="f8")) for i in range(500)]
    db.put_many(range(500), rows)
    for made in (db.read(range(500)), db.scan(rows=64)):
        frame = pl.DataFrame(made).sort("key")
        assert frame["n"].to_list() == list(range(500))
        assert frame["s"].to_list() == [row[1] for row in rows]
        assert frame["t"].to_numpy().tolist() == [row[2].astype(object) for row in rows]
        assert frame["v"].to_list() == [row[3].tolist() for row in rows]
        pandas = pd.DataFrame.from_arrow(made).sort_values("key")
        assert pandas["n"].tolist() == list(range(500))
        assert pandas["s"].tolist() == [row[1] for row in rows]
        assert (pandas["t"].to_numpy() == np.array([row[2] for row in rows])).all()


def test_missing_rows_and_nat_are_nulls(store: Make) -> None:
    attrs = [Attr("b", bytes), Attr("n", "int8"), Attr("q", "bool"), Attr("t", "datetime64[W]")]
    attrs += [
        Attr("pair", "int8", shape=2),
        Attr("run", "int8", var=True),
        Attr("d", "datetime64[D]"),
    ]
    db = store(*attrs)
    nat = np.datetime64("NaT", "D")
    row = (b"x", 1, True, np.datetime64(0, "W"), [1, 2], [3], np.datetime64("1969-12-31"))
    db.put_many([1, 3], [row, (*row[:3], nat.astype("M8[W]"), *row[4:6], nat.astype("M8[D]"))])
    table = pa.table(db.read([1, 2, 3], missing="mask"))
    table.validate(full=True)
    assert table["key"].to_pylist() == [1, 2, 3]
    for name in "b", "n", "q", "pair", "run":
        assert [value is None for value in table[name].to_pylist()] == [False, True, False], name
    for name in "t", "d":
        assert [value is None for value in table[name].to_pylist()] == [False, True, True], name
    assert [chunk.null_count for chunk in table["n"].chunks] == [1]
    assert [chunk.null_count for chunk in pa.table(db.read([1]))["n"].chunks] == [0]


def test_dates_beyond_32_bits_are_refused(store: Make) -> None:
    db = store(Attr("d", "datetime64[D]"))
    db["k"] = np.datetime64(2**31, "D")
    with pytest.raises(OutOfRangeError, match="'d'"):
        db.read(["k"]).__arrow_c_array__()
    with pytest.raises((pa.ArrowInvalid, OSError), match=r"OutOfRangeError.*'d'"):
        pa.table(db.scan())


def test_a_scan_is_one_stream(store: Make) -> None:
    db = store(Attr("n", "int64"))
    db.put_many(range(1000), range(1000))
    db.flush()
    db.put_many(range(500, 1500), range(500, 1500))
    scan = db.scan(rows=100)
    db.clear()
    for _ in range(2):  # from the start every time, and as it was
        reader = pa.RecordBatchReader.from_stream(scan)
        assert reader.schema.names == ["key", "n"]
        batches = list(reader)
        assert len(batches) == 15
        assert sorted(n for batch in batches for n in batch["key"].to_pylist()) == list(range(1500))
    assert pa.table(db.scan()).num_rows == 0
    assert pa.table(store(Attr("n", "int64")).scan()).schema.names == ["key", "n"]


# --- in --------------------------------------------------------------------------------------------


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


def test_collecting_and_threads_while_a_stream_is_read(store: Make) -> None:
    db = store(Attr("n", "int64"), Attr("s", str))
    db.put_many(range(3000), n=range(3000), s=[str(i) for i in range(3000)])
    db.flush()
    found: list[int] = []

    def consume() -> None:
        reader = pa.RecordBatchReader.from_stream(db.scan(rows=50))
        for batch in reader:
            gc.collect(0)
            found.append(sum(batch["n"].to_pylist()))

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        gc.collect()
    for thread in threads:
        thread.join()
    assert sum(found) == 4 * sum(range(3000))

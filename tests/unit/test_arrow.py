"""Arrow out and in: pyarrow, polars and pandas take our columns and give us theirs; what is wrong is told, nothing leaks."""

import contextlib
import ctypes
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
from fuzz_arrow import (
    DICTIONARY,
    NO_BUFFERS,
    NO_CHILD,
    NO_CHILD_TYPE,
    NO_CHILDREN,
    Made,
    node,
    rows_of,
)
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


STRINGS = ["", "a", "naïve", "twelve bytes", "thirteen byte", "x" * 100, "中文🎉"]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view()]
    + [pa.dictionary(index, pa.string()) for index in (pa.int8(), pa.uint32(), pa.int64())]
    + [pa.dictionary(pa.int16(), pa.large_string())],
    ids=str,
)
def test_text_of_every_kind(store: Make, kind: Any) -> None:
    """As keys and as values, whole and in part, in an array and in chunks."""
    plain = pa.array(STRINGS * 3)
    text = (
        plain.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else plain.cast(kind)
    )
    for column in (text, text.slice(2, 9), pa.chunked_array([text.slice(0, 5), text.slice(5)])):
        db = store(Attr("s", str))
        db.put_many(range(len(column)), column)
        assert [db[i] for i in range(len(column))] == column.to_pylist()
        db.put_many(column, s=column)
        assert db.get_many(column) == column.to_pylist()
        assert set(db) == {*range(len(column)), *column.to_pylist()}


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)], ids=str
)
def test_bytes_of_every_kind(store: Make, kind: Any) -> None:
    values = [b"\0\xffz", b"abc"] if kind == pa.binary(3) else [b"", b"\0\xff", b"y" * 13]
    column = pa.array(values * 3, kind).slice(1)
    db = store()
    db.put_many(column, column)
    assert dict(db) == {value: value for value in values}


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


def test_lists_of_every_kind(store: Make) -> None:
    lists = [[1, 2], [], [3], [4, 5, 6]]
    for kind in pa.list_(pa.int32()), pa.large_list(pa.int8()), pa.list_(pa.uint64()):
        for column in (pa.array(lists, kind), pa.array([[9], *lists, [8]], kind).slice(1, 4)):
            db = store(Attr("v", "int16", var=True))
            db.put_many(range(4), column)
            assert [db[i].tolist() for i in range(4)] == lists
    pairs = pa.array([[[1, 2]], [[3, 4]], [[5, 6]]], pa.list_(pa.list_(pa.int64(), 2), 1)).slice(1)
    db = store(Attr("v", "float64", shape=(1, 2)))
    db.put_many(range(2), pairs)
    assert [db[i].tolist() for i in range(2)] == [[[3.0, 4.0]], [[5.0, 6.0]]]


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


@pytest.mark.parametrize(
    ("column", "attr", "says"),
    [
        (pa.array([b"a"]), Attr("v", str), "takes text, and this Arrow column is bytes"),
        (pa.array(["a"]), Attr("v", bytes), "takes bytes, and this Arrow column is text"),
        (pa.array(["a"]), Attr("v", "int8"), "takes int8, .* text"),
        (pa.array([1]), Attr("v", str), "takes text"),
        (pa.array([1.0]), Attr("v", "int8"), "'v' takes int8, not float64"),
        (pa.array([1]), Attr("v", "bool"), "'v' takes bool, not int64"),
        (pa.array([[1]]), Attr("v", "int64"), r"takes int64, .*'\+l'"),
        (pa.array([["a"]]), Attr("v", "int64", var=True), "1-d arrays of int64, .* lists of 'u'"),
        (pa.array([{"a": 1}]), Attr("v", "int64"), r"'\+s'"),
        (pa.array([1], pa.time32("s")), Attr("v", "int64"), "'tts'"),
        (pa.array([1], pa.decimal128(5)), Attr("v", "int64"), "'d:5,0'"),
    ],
)
def test_types_that_do_not_fit(store: Make, column: Any, attr: Attr, says: str) -> None:
    db = store(attr)
    with pytest.raises(WrongTypeError, match=says):
        db.put_many([1], v=column)
    assert db.info().buffered == 0


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
    db = store()
    with pytest.raises(InvalidValueError, match="the producer gave up"):
        db.put_many(pa.RecordBatchReader.from_batches(schema, batches()), key="id")
    assert len(db) == 0


# --- what a producer may get wrong -------------------------------------------------------------------


def buffers(kind: Any, n: int, *parts: Any) -> Any:
    return pa.Array.from_buffers(kind, n, [None, *(pa.py_buffer(part) for part in parts)])


def test_arrays_that_contradict_themselves(store: Make) -> None:
    text = Attr("v", str)
    i4, i8 = np.array([0, 5, 2, 3], "i4"), np.array([0, 5, 2, 3], "i8")
    view = np.zeros((1, 4), "i4")
    view[0] = 100, 0, 0, 0
    far = np.zeros((1, 4), "i4")
    far[0] = 13, 0, 7, 0
    index = pa.DictionaryArray.from_arrays(pa.array([5], pa.int8()), pa.array(["a"]), safe=False)
    under = pa.DictionaryArray.from_arrays(pa.array([-1], pa.int8()), pa.array(["a"]), safe=False)
    for attr, column, says in (
        (text, buffers(pa.string(), 3, i4, b"abcde"), "do not rise"),
        (text, buffers(pa.large_string(), 3, i8, b"abcde"), "do not rise"),
        (text, buffers(pa.string(), 2, np.array([0, 1, 2], "i4"), "é".encode()), "not UTF-8"),
        (text, buffers(pa.string(), 1, np.array([0, 3], "i4"), b"\xed\xa0\x80"), "not UTF-8"),
        (text, buffers(pa.string_view(), 1, view, b"only ten b"), "leads out"),
        (text, buffers(pa.string_view(), 1, far, b"thirteen byte"), "leads out"),
        (text, index, "out of the dictionary"),
        (text, under, "out of the dictionary"),
    ):
        db = store(attr)
        with pytest.raises(InvalidValueError, match=says):
            db.put_many([*range(len(column))], v=column)
        assert db.info().buffered == 0


@pytest.mark.parametrize(
    "text",
    [
        b"\x80",
        b"\xc1\x80",
        b"\xc3",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"\xe4\xb8",
        b"\xf0\x9f\x8e",
        b"12345678\x80",
        b"\xc3\xa9\xc3",
        b"\xe4\xb8A",
        b"\xf5\x80\x80\x80",
        "é中🎉\U0010ffff\ud7ff\ue000".encode(),
        b"12345678" * 3,
        "1234567é".encode(),
    ],
)
def test_utf8_is_what_python_takes(store: Make, text: bytes) -> None:
    db = store(Attr("v", str))
    column = buffers(pa.string(), 1, np.array([0, len(text)], "i4"), text)
    try:
        text.decode()
    except UnicodeDecodeError:
        with pytest.raises(InvalidValueError, match="not UTF-8"):
            db.put_many([1], v=column)
    else:
        db.put_many([1], v=column)
        assert db[1] == text.decode()


def pointer_to(capsule: Any, name: bytes) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


class Once:
    """Hands out the same capsules again and again."""

    def __init__(self, array: Any = None, stream: Any = None) -> None:
        if array is not None:
            self.__arrow_c_array__ = lambda requested_schema=None: array
        if stream is not None:
            self.__arrow_c_stream__ = lambda requested_schema=None: stream


def test_a_list_longer_than_its_child(store: Make) -> None:
    schema, array = pa.array([[1, 2], [3]], pa.list_(pa.int8())).__arrow_c_array__()
    words = (ctypes.c_void_p * 10).from_address(pointer_to(array, b"arrow_array"))
    child = ctypes.c_void_p.from_address(words[6]).value
    ctypes.c_int64.from_address(child).value = 2
    db = store(Attr("v", "int8", var=True))
    with pytest.raises(InvalidValueError, match="2 elements is asked for 3"):
        db.put_many([1, 2], v=Once(array=(schema, array)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (node(b"+w:x", 4, 1, 1) + node(b"i", 8, 2), r"no type '\+w:x'"),
        (node(b"+w:2", 4, 1, 1, NO_CHILDREN) + node(b"i", 8, 2), "does not fit"),
        (node(b"i", 4, 2, 0, NO_BUFFERS), "does not fit"),
        (node(b"i", 4, 2, 0, DICTIONARY | NO_CHILDREN) + node(b"i", 4, 2), "needs|no dictionary"),
        (node(b"i", 2**62, 2), "no Arrow array has 46116"),
    ],
)
def test_arrays_that_do_not_fit_their_types(store: Make, data: bytes, match: str) -> None:
    db = store(Attr("v", "int32", shape=2) if data[:2] == b"+w" else Attr("v", "int32"))
    with pytest.raises(InvalidValueError, match=match):
        db.put_many(range(4), v=Made(data))


@pytest.mark.parametrize("missing", [NO_CHILD, NO_CHILD_TYPE])
def test_a_table_whose_column_is_missing(store: Make, missing: int) -> None:
    with pytest.raises(InvalidValueError, match="the Arrow array"):
        store(Attr("n", "int32")).put_many(Made(rows_of(flags=missing)), key="k")
    db = store(Attr("n", "int32"))
    db.put_many(Made(rows_of()), key="k")
    assert len(db) == 4


def test_a_key_that_is_too_long_among_columns(store: Make) -> None:
    """Rows of arrays are copied without the GIL: what is refused there is told after it. The 4 GiB are never touched."""
    db = store(Attr("n", "int64"))
    ends = pa.py_buffer(np.array([0, 3, 2**32 + 3]))
    data = pa.py_buffer(np.zeros(2**32 + 3, "u1"))
    keys = pa.Array.from_buffers(pa.large_binary(), 2, [None, ends, data])
    with pytest.raises(InvalidValueError, match=r"a key of 4294967296 bytes; the longest is 4,294"):
        db.put_many(keys, n=np.arange(2))
    assert db.info().buffered == 0


def test_capsules_are_consumed_once(store: Make) -> None:
    db = store(Attr("v", "int8"))
    db["a"] = 1
    batch = db.read(["a"])
    array, stream = Once(array=batch.__arrow_c_array__()), Once(stream=batch.__arrow_c_stream__())
    for given in (array, stream):
        assert len(pa.table(given) if given is stream else pa.record_batch(given)) == 1
        with pytest.raises(pa.ArrowInvalid, match="released"):
            pa.table(given) if given is stream else pa.record_batch(given)
        with pytest.raises(InvalidValueError, match="consumed before"):
            db.put_many(given, key="key")
    ours = Once(stream=db.scan().__arrow_c_stream__())
    db.put_many(ours, key="key")
    with pytest.raises(InvalidValueError, match="consumed before"):
        db.put_many(ours, key="key")
    with pytest.raises(WrongTypeError, match="capsule"):
        db.put_many(Once(stream=batch.__arrow_c_schema__()), key="key")


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
            copy._install(copy._view, copy._buffer.n)
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


def test_released_in_a_thread_without_the_gil(store: Make) -> None:
    """polars drops its frames from threads of its own; ctypes calls the callback with the GIL given back."""
    db = store(Attr("n", "int64"))
    db["a"] = 1
    _, capsule = db.read(["a"]).__arrow_c_array__()
    at = pointer_to(capsule, b"arrow_array")
    words = (ctypes.c_void_p * 10).from_address(at)
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(words[8])
    thread = threading.Thread(target=release, args=(at,))
    thread.start()
    thread.join()
    assert words[8] is None
    del capsule
    gc.collect()

"""kvcore.values.arrow_export: pyarrow, polars and pandas take our columns."""

import gc
import threading
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from arrow_samples import everything, filled
from tilekv import Attr, OutOfRangeError

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
    db.put_many(range(4), [np.datetime64(day, "D") for day in (2**31 - 1, "NaT", -(2**31), 0)])
    dates = pa.table(db.read(range(4)))["d"].cast("int32").to_pylist()
    assert dates == [2**31 - 1, None, -(2**31), 0]


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


@pytest.mark.usefixtures("quick_collections")
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

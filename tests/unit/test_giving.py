"""frames.giving: rows as frames of pandas, polars and Arrow."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, KeyNotFoundError, MissingPackageError, Schema
from tilekv.frames import giving


def test_a_store_that_was_made_of_no_frame() -> None:
    schema = Schema([Attr("n", "int64", nullable=True), Attr("key", str)])
    with tilekv.open("memory://giving-plain", "a", schema=schema) as db:
        db.put_many(["a", "b"], n=[2**53 + 1, None], key=["x", "y"])
        assert db.to_arrow(["a"]).to_pylist() == [{"__key": "a", "n": 2**53 + 1, "key": "x"}]
        assert db.to_polars(["b", "a"])["n"].to_list() == [None, 2**53 + 1]
        frame = db.to_pandas(["a", "b"])
        assert frame["n"].dtype == "Int64"  # not a float, which would round
        assert frame["n"].tolist() == [2**53 + 1, pd.NA]
        assert db.to_arrow(["a"], attrs=["n"]).column_names == ["key", "n"]


def test_keys_and_attributes(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "k": ["x", "y"], "b": [True, False]})
    with tilekv.from_arrow(tmp_path / "s", table, "k") as db:
        assert db.to_arrow(["y", "x", "y"], attrs=["b"]).to_pydict() == {
            "k": ["y", "x", "y"],
            "b": [False, True, False],
        }
        masked = db.to_arrow(["y", "no"], missing="mask")
        assert masked["a"].to_pylist() == [2, None]
        assert db.to_pandas(["y", "no"], missing="mask")["b"].tolist() == [False, pd.NA]
        with pytest.raises(KeyNotFoundError):
            db.to_polars(["no"])
        batch = db.read(["x"])
    assert batch.to_arrow().equals(table.slice(0, 1))  # after the handle is closed


def test_keys_of_several_types_are_no_column(tmp_path: Path) -> None:
    with tilekv.from_arrow(tmp_path / "s", pa.table({"k": ["x"], "a": [1]}), "k") as db:
        db[5] = 2
        for give in (db.to_arrow, db.to_pandas, db.to_polars):
            with pytest.raises(InvalidValueError, match="several types"):
                give()
        assert db.to_arrow(["x"]).to_pylist() == [{"k": "x", "a": 1}]


def test_a_key_that_the_frames_type_has_no_room_for(tmp_path: Path) -> None:
    table = pa.table({"k": pa.array([1], pa.int8()), "a": [1]})
    with tilekv.from_arrow(tmp_path / "s", table, "k") as db:
        assert db.to_arrow().schema.equals(table.schema)
        db[1000] = 2
        assert db.to_arrow()["k"].type == pa.int64()
        assert sorted(db.to_polars()["k"]) == [1, 1000]


def test_categories_in_their_order_and_new_ones_behind() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["lo"], ["lo", "mid", "hi"], ordered=True)})
    with tilekv.from_pandas("memory://giving-categories", frame) as db:
        assert db.to_pandas()["c"].dtype == frame["c"].dtype
        db[1], db[2] = "top", "hi"
        assert db.to_pandas([0, 1, 2])["c"].cat.categories.tolist() == ["lo", "mid", "hi", "top"]
        assert db.to_pandas([0, 1, 2])["c"].tolist() == ["lo", "top", "hi"]
    kind = pl.Enum(["a", "b"])
    with tilekv.from_polars(
        "memory://giving-enum", pl.DataFrame({"k": [0], "e": pl.Series(["a"], dtype=kind)}), "k"
    ) as db:
        assert db.to_polars()["e"].dtype == kind
        db[1] = "c"
        assert db.to_polars([1])["e"].to_list() == ["c"]


def test_a_dictionary_whose_index_is_too_small() -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    table = pa.table({"k": [0], "c": pa.array(["a"]).cast(kind)})
    with tilekv.from_arrow("memory://giving-index", table, "k") as db:
        assert db.to_arrow().schema.equals(table.schema)
        db.update({i: f"value {i}" for i in range(300)})
        assert len(set(db.to_arrow()["c"].to_pylist())) == 300


def test_a_reader_gives_batches() -> None:
    table = pa.table({"k": range(10), "t": pa.array(range(10), pa.timestamp("us", "UTC"))})
    with tilekv.from_arrow("memory://giving-reader", table, "k") as db:
        reader = giving.reader(db.schema, db.scan(rows=3))
        assert reader.schema.equals(table.schema)
        sizes = [len(batch) for batch in reader]
        assert sum(sizes) == 10
        assert max(sizes) == 3


def test_what_streams_say(tmp_path: Path) -> None:
    table = pa.table({"name": ["a", "b"], "t": pa.array([0, 1], pa.timestamp("us", "UTC"))})
    with tilekv.from_arrow(tmp_path / "s", table, "name") as db:
        assert pa.table(db).column_names == ["name", "t"]
        assert pa.table(db).schema.field("t").type == pa.timestamp("us", "UTC")
        assert pa.schema(db).equals(pa.table(db).schema)
        assert pa.schema(db.scan(["t"])).equals(pa.table(db.scan(["t"])).schema)
        assert pl.DataFrame(db.scan())["t"].dtype == pl.Datetime("us", "UTC")
        assert pa.table(db.read(["b"]))["name"].to_pylist() == ["b"]
        # It stands for its keys where keys are asked for.
        assert db.get_many(db) == list(db.values())
        found = duckdb.sql("select name, epoch_us(t) from db where name > 'a'").fetchall()
        assert found == [("b", 1)]


@pytest.mark.parametrize(
    ("give", "lacks"),
    [
        ("to_arrow", "pyarrow"),
        ("to_pandas", "pandas"),
        ("to_pandas", "pyarrow"),
        ("to_polars", "polars"),
    ],
)
def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, give: str, lacks: str) -> None:
    with tilekv.open("memory://giving-missing", "a") as db:
        db["a"] = b"1"
        batch = db.read(["a"])
        monkeypatch.setitem(sys.modules, lacks, None)
        for made in (db, batch):
            with pytest.raises(MissingPackageError, match=f"pip install {lacks}"):
                getattr(made, give)()


def test_polars_takes_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"k": ["a"], "d": pl.Series([1], dtype=pl.Duration("ms"))})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with tilekv.from_polars("memory://giving-polars", frame, "k") as db:
        assert db.to_polars().equals(frame)


def test_names_of_pandas() -> None:
    frame = pd.DataFrame(np.arange(4).reshape(2, 2), columns=[10, 20], index=["a", "b"])
    with tilekv.from_pandas("memory://giving-names", frame) as db:
        back: Any = db.to_pandas(["a", "b"])
        pd.testing.assert_frame_equal(back, frame)


GIVING: dict[str, Callable[[tilekv.Store, Path], object]] = {
    "arrow": lambda db, path: db.to_arrow(),
    "pandas": lambda db, path: db.to_pandas(),
    "polars": lambda db, path: db.to_polars(),
    "dataset": lambda db, path: db.to_dataset().to_table(),
    "parquet": lambda db, path: db.to_parquet(path),
}


@pytest.mark.parametrize("give", GIVING)
def test_damage_is_what_it_is(tmp_path: Path, give: str) -> None:
    """It comes through a stream of Arrow, whose readers know no classes of ours."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db.update({n: b"value %d" % n for n in range(10)})
    for file in tmp_path.glob("s/__*/value_var.tdb"):
        file.write_bytes(bytes(file.stat().st_size))
    with (
        tilekv.open(tmp_path / "s") as db,
        pytest.raises(tilekv.CorruptionError, match="value_var"),
    ):
        GIVING[give](db, tmp_path / "file")

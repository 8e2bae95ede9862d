"""frames.loading: schemas of frames, and stores made of them."""

import os
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, Schema, StoreExistsError, WrongTypeError
from tilekv.frames import loading

ROWS: dict[str, Any] = {
    "name": ["numpy", "zarr", "six"],
    "rank": [7, None, 9],
    "summary": ["Arrays", "Chunks", "Both"],
}
WANTED = Schema([Attr("rank", "int64", nullable=True), Attr("summary", str)])


def test_the_schema_is_said_back_and_can_be_changed(tmp_path: Path) -> None:
    table = pa.table(ROWS)
    schema = tilekv.schema_of(table, "name")
    assert schema == WANTED
    assert schema.key_name == "name"
    changed = schema.replace(Attr("rank", "float64", nullable=True), capacity=256)
    assert changed.key_name == "name"
    assert (changed.capacity, changed.attrs[1]) == (256, schema.attrs[1])
    with tilekv.from_arrow(tmp_path / "s", table, "name", schema=changed) as db:
        assert db.schema == changed
        assert db.to_arrow()["rank"].type == pa.float64()
        assert db["numpy"] == {"rank": 7.0, "summary": "Arrays"}
    with pytest.raises(InvalidValueError, match="'other'"):
        schema.replace(Attr("other", str))
    with pytest.raises(WrongTypeError):
        schema.replace("rank")  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError):
        tilekv.from_arrow(tmp_path / "t", table, "name", schema=[])  # type: ignore[arg-type]
    for columns in (pa.table({}), table.drop(["name"])):
        with pytest.raises(InvalidValueError, match="'name'"):
            tilekv.from_arrow(tmp_path / "t", columns, "name", schema=schema)


def test_replaced_options() -> None:
    schema = Schema([Attr("a", "int8")])
    other = schema.replace(
        digest="md5", capacity=7, offsets_filters=[], key_filters=[], expires=True
    )
    assert other == Schema(schema.attrs, "md5", 7, [], [], True)
    assert other.replace() == other


@pytest.mark.parametrize("nullable", [None, True, False])
def test_which_attributes_may_be_null(nullable: bool | None) -> None:
    found = tilekv.schema_of(pa.table(ROWS), "name", nullable=nullable)
    wanted = [True, False] if nullable is None else [nullable] * 2
    assert [attr.nullable for attr in found.attrs] == wanted
    stream = tilekv.schema_of(pa.table(ROWS).to_reader(), "name", nullable=nullable)
    assert all(attr.nullable is (nullable is not False) for attr in stream.attrs)


def every_frame() -> list[Any]:
    table = pa.table(ROWS)
    frame = pd.DataFrame({**ROWS, "rank": pd.array(ROWS["rank"], dtype="Int64")})
    relation = duckdb.connect().from_arrow(table)
    return [
        pytest.param("from_arrow", table, id="table"),
        pytest.param("from_arrow", table.to_batches()[0], id="batch"),
        pytest.param("from_arrow", table.to_reader(1), id="reader"),
        pytest.param("from_arrow", pyarrow.dataset.dataset(table), id="dataset"),
        pytest.param("from_arrow", relation, id="relation"),
        pytest.param("from_arrow", pl.DataFrame(ROWS), id="polars as arrow"),
        pytest.param("from_polars", pl.DataFrame(ROWS), id="polars"),
        pytest.param("from_polars", pl.LazyFrame(ROWS), id="lazy"),
        pytest.param("from_pandas", frame, id="pandas"),
        pytest.param("from_pandas", frame.set_index("name"), id="index"),
        pytest.param("from_pandas", frame[frame["name"] != ""], id="filtered"),
    ]


@pytest.mark.parametrize(("make", "frame"), every_frame())
def test_every_frame(tmp_path: Path, make: str, frame: Any) -> None:
    key = None if getattr(getattr(frame, "index", None), "name", None) else "name"
    with getattr(tilekv, make)(tmp_path / "s", frame, key) as db:
        assert db.mode == "a"
        assert len(db.fragments) == 1
        assert db["numpy"] == {"rank": 7, "summary": "Arrays"}
        assert db["zarr"]["rank"] is None
        db["new"] = {"rank": 1, "summary": ""}
        assert db.schema.key_name == "name"


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ROWS", 2)
    said: list[tuple[int, int]] = []
    frame = pl.DataFrame(ROWS)
    tilekv.from_polars(
        tmp_path / "s", frame, "name", progress=lambda *told: said.append(told)
    ).close()
    assert said == [(2, 3), (3, 3)]
    tilekv.from_pandas(
        tmp_path / "p", frame.to_pandas(), "name", progress=lambda *told: said.append(told)
    ).close()
    assert said[2:] == said[:2]


REFUSED: list[tuple[Any, str]] = [
    (pa.table({"k": [1, 1, 2], "v": [1, 2, 3]}), "1 of 3 rows have a key, of column 'k'"),
    (pa.table({"k": [1, None], "v": [1, 2]}), "column 'k' has nulls"),
    (pa.table({"k": [1]}), "no column but 'k'"),
    (pa.table({"x": [1]}), "no column 'k'; it has 'x'"),
    (pa.table({"k": [1], "a/b": [1]}), "'a/b'"),
    (pa.table({"k": [1], "a": [1], "A": [1]}), "the same but for case"),
    (pa.table({"k": [1], "d": pa.array(["1.5"]).cast(pa.decimal128(5, 2))}), "column 'd'"),
    (pd.DataFrame({"k": [1, 2], "mixed": [1, "b"]}), "column 'mixed' is no column of one type"),
    (pd.DataFrame([[1, 2, 3]], columns=["k", "a", "a"]), "columns of one name"),
    (pl.DataFrame({"k": [1], "s": [{"a": 1}]}), "column 's' is struct"),
    ("text", "not str"),
    (None, "not NoneType"),
]


@pytest.mark.parametrize(("frame", "said"), REFUSED)
def test_what_is_refused_leaves_nothing(tmp_path: Path, frame: Any, said: str) -> None:
    make = tilekv.from_arrow
    if isinstance(frame, pd.DataFrame):
        make = tilekv.from_pandas  # type: ignore[assignment]
    if isinstance(frame, pl.DataFrame):
        make = tilekv.from_polars
    with pytest.raises(tilekv.TileKVError, match=said):
        make(tmp_path / "s", frame, "k")
    assert os.listdir(tmp_path) == []


def test_wrong_libraries_and_keys(tmp_path: Path) -> None:
    class Lies:
        def __arrow_c_array__(self, requested_schema: object = None) -> object:
            return 1, 2

    with pytest.raises(WrongTypeError, match="Lies is no table of columns"):
        tilekv.schema_of(Lies(), "k")
    with pytest.raises(WrongTypeError, match="pandas"):
        tilekv.from_pandas(tmp_path / "s", pl.DataFrame(ROWS))
    with pytest.raises(WrongTypeError, match="polars"):
        tilekv.from_polars(tmp_path / "s", pd.DataFrame(ROWS), "name")
    with pytest.raises(WrongTypeError, match="name of a column"):
        tilekv.schema_of(pl.DataFrame(ROWS), 5)  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match="key="):
        tilekv.schema_of(pl.DataFrame(ROWS))
    levels = pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)]))
    with pytest.raises(InvalidValueError, match="several levels"):
        tilekv.from_pandas(tmp_path / "s", levels)


def test_nothing_is_replaced(tmp_path: Path) -> None:
    tilekv.open(tmp_path / "s", "x").close()
    with pytest.raises(StoreExistsError):
        tilekv.from_polars(tmp_path / "s", pl.DataFrame(ROWS), "name")


def test_an_update_a_day(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS)
    with tilekv.from_polars(tmp_path / "s", frame, "name") as db:
        db.put_many(
            pl.DataFrame({"name": ["six", "new"], "rank": [1, 2], "summary": "x"}), key="name"
        )
        db.flush()
    with tilekv.open(tmp_path / "s") as db:
        after = db.to_polars(["six", "new", "zarr"])
        assert after.schema == frame.schema
        assert after["rank"].to_list() == [1, 2, None]

"""frames.reading: Parquet and CSV files into stores."""

import datetime as dt
import os
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, Schema
from tilekv.frames import reading

TABLE = pa.table(
    {
        "k": ["a", "b", "c"],
        "n": pa.array([1, None, 3], pa.int16()),
        "t": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
        "d": pa.array(["x", "y", "x"]).dictionary_encode(),
        "l": [[1], [], [2, 3]],
    }
)


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=2)
    said: list[tuple[int, int]] = []
    with tilekv.from_parquet(
        tmp_path / "s", tmp_path / "t.parquet", "k", progress=lambda *told: said.append(told)
    ) as db:
        nullable = {attr.name: attr.nullable for attr in db.schema.attrs}
        # Of lists the statistics tell nothing of their own.
        assert nullable == {"n": True, "t": False, "d": False, "l": True}
        assert db.to_arrow(TABLE["k"]).schema.equals(pq.read_schema(tmp_path / "t.parquet"))
        assert db["c"]["l"].tolist() == [2, 3]
    assert said[-1] == (3, 3)


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 2)
    pq.write_table(TABLE, tmp_path / "t.parquet")
    said: list[tuple[int, int]] = []
    tilekv.from_parquet(
        tmp_path / "s", tmp_path / "t.parquet", "k", progress=lambda *told: said.append(told)
    ).close()
    assert said == [(2, 3), (3, 3)]


def test_what_pandas_and_polars_noted_comes_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"v": pd.array([1, None], dtype="Int8")}, index=pd.Index(["a", "b"], name="k")
    )
    frame.to_parquet(tmp_path / "p.parquet")
    with tilekv.from_parquet(tmp_path / "p", tmp_path / "p.parquet", "k") as db:
        pd.testing.assert_frame_equal(db.to_pandas(["a", "b"]), frame)
    other = pl.DataFrame({"k": [1], "e": pl.Series(["a"], dtype=pl.Enum(["b", "a"]))})
    other.write_parquet(tmp_path / "o.parquet")
    with tilekv.from_parquet(tmp_path / "o", tmp_path / "o.parquet", "k") as db:
        assert db.to_polars().equals(pl.read_parquet(tmp_path / "o.parquet"))


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('k,n,text,day\na,1,"",2020-01-01\nNA,,,\n')
    with tilekv.from_csv(tmp_path / "s", file, "k") as db:
        assert db["a"]["n"] == 1
        assert db["a"]["text"] == ""
        assert db["NA"] == {"n": None, "text": None, "day": None}
        assert db.to_arrow(["a"])["day"].to_pylist() == [dt.date(2020, 1, 1)]
    schema = Schema(
        [
            Attr("n", "float32", nullable=True),
            Attr("text", bytes, nullable=True),
            Attr("day", str, nullable=True),
        ]
    )
    with tilekv.from_csv(tmp_path / "t", file, "k", schema=schema) as db:
        assert db["a"] == {"n": 1.0, "text": b"", "day": "2020-01-01"}
    file.write_text("k;n\na;1\n")
    with tilekv.from_csv(tmp_path / "u", file, "k", delimiter=";") as db:
        assert dict(db) == {"a": 1}


def test_what_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("k,n\na,1\nb,x\n")
    schema = Schema([Attr("n", "int8")])
    with pytest.raises(InvalidValueError, match="schema="):
        tilekv.from_csv(tmp_path / "s", file, "k", schema=schema)
    with pytest.raises(InvalidValueError, match="no options of a CSV file: got an unexpected"):
        tilekv.from_csv(tmp_path / "s", file, "k", n=1)
    for make in (tilekv.from_csv, tilekv.from_parquet):
        with pytest.raises(FileNotFoundError):
            make(tmp_path / "s", tmp_path / "missing", "k")
        with pytest.raises(IsADirectoryError):
            make(tmp_path / "s", tmp_path, "k")
    with pytest.raises(InvalidValueError, match=r"t\.csv"):
        tilekv.from_parquet(tmp_path / "s", file, "k")
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"k": ["a", "b"], "é": [1, 2]}), file)
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for damaged in (
        whole[:-1],
        whole[:footer] + b"\xff" * (len(whole) - 8 - footer) + whole[-8:],
        whole.replace("é".encode(), b"\xc3\xc3"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(InvalidValueError, match=r"t\.parquet"):
            tilekv.from_parquet(tmp_path / "s", file, "k")
    assert os.listdir(tmp_path) == ["t.parquet"]

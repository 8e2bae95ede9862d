"""frames.saving: a store's rows into Parquet and CSV files."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tilekv
from tilekv import MissingPackageError

TABLE = pa.table({"n": pa.array(range(1000), pa.int16()), "k": [f"k{i}" for i in range(1000)]})


def test_parquet(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    with tilekv.from_arrow(tmp_path / "s", TABLE, "k") as db:
        db.to_parquet(
            tmp_path / "a.parquet", progress=lambda *told: said.append(told), compression="snappy"
        )
        db.to_parquet(tmp_path / "b.parquet", keys=["k7", "k5"], attrs=["n"])
    back = pq.read_table(tmp_path / "a.parquet")
    assert back.sort_by("n").equals(TABLE)
    assert (
        pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).compression
        == "SNAPPY"
    )
    assert pq.read_table(tmp_path / "b.parquet")["n"].to_pylist() == [7, 5]
    assert said[-1] == (1000, 1000)


def test_csv(tmp_path: Path) -> None:
    with tilekv.from_arrow(tmp_path / "s", TABLE, "k") as db:
        db.to_csv(tmp_path / "a.csv", keys=["k7", "k5"], delimiter=";")
    assert (tmp_path / "a.csv").read_text() == '"n";"k"\n7;"k7"\n5;"k5"\n'


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("before")
    table = pa.table({"k": ["a"], "l": [[1]]})
    with (
        tilekv.from_arrow(tmp_path / "s", table, "k") as db,
        pytest.raises(tilekv.InvalidValueError, match="cannot be written"),
    ):
        db.to_csv(tmp_path / "a.csv")  # which has no lists
    assert (tmp_path / "a.csv").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "s"]


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open("memory://saving", "a") as db:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        with pytest.raises(MissingPackageError, match="pip install pyarrow"):
            db.to_parquet(tmp_path / "a.parquet")


def test_options_that_there_are_not(tmp_path: Path) -> None:
    with tilekv.open("memory://options", "a") as db:
        for write in (db.to_csv, db.to_parquet):
            with pytest.raises(
                tilekv.InvalidValueError, match="written: got an unexpected keyword"
            ):
                write(tmp_path / "f", nothing=1)
    assert os.listdir(tmp_path) == []

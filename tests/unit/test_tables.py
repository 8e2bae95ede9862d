"""cli.tables: Parquet and CSV files into stores, and back."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tilekv
from tilekv.cli.command import main

TABLE = pa.table({"k": ["a", "b"], "n": pa.array([1, None], pa.int8()), "l": [[1], [2]]})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_parquet_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(TABLE, "t.parquet")
    assert main(["load", "t.parquet", "t.kv", "--key", "k"]) == 0
    assert capsys.readouterr().out == (
        "n: int8, may be null\nl: int64 of any length, may be null\n2 rows, by k\n"
    )
    assert main(["unload", "t.kv", "u.parquet"]) == 0
    assert capsys.readouterr().out == "2 rows\n"
    assert pq.read_table("u.parquet").sort_by("k").equals(TABLE)


def test_csv_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text('"k","n"\n"a",1\n')
    assert main(["load", "t.csv", "t.kv", "--key", "k"]) == 0
    assert main(["unload", "t.kv", "u.csv"]) == 0
    assert Path("u.csv").read_text() == Path("t.csv").read_text()
    capsys.readouterr()
    assert main(["load", "t.csv", "t.kv", "--key", "k"]) == 1
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["load", "t.txt", "t.kv", "--key", "k"], ["unload", "t.kv", "t"]]
)
def test_other_files(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert "neither" in capsys.readouterr().err
    assert not Path("t.kv").exists()


def test_what_cannot_be_held_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"k": ["a"], "s": [{"x": 1}]}), "t.parquet")
    assert main(["load", "t.parquet", "t.kv", "--key", "k"]) == 1
    assert "column 's'" in capsys.readouterr().err
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.open("t.kv")

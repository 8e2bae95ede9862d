"""frames.dataset: a store as a pyarrow Dataset, of which only the columns that are asked for are read."""

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import tilekv
from tilekv.frames import dataset

TABLE = pa.table(
    {"a": range(100), "k": [f"k{i}" for i in range(100)], "b": [str(i % 7) for i in range(100)]}
)


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with tilekv.from_arrow(tmp_path / "s", TABLE, "k") as db:
        yield db


@pytest.fixture
def asked(db: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The attributes that are read."""
    found: list[Any] = []
    real = dataset.reader

    def reader(schema: Any, scan: Any) -> Any:
        made = real(schema, scan)
        found.append(made.schema.names)
        return made

    monkeypatch.setattr(dataset, "reader", reader)
    return found


def test_duckdb_reads_what_it_wants(db: Any, asked: list[Any]) -> None:
    data = db.to_dataset()  # noqa: F841 - duckdb finds it
    del asked[:]
    assert duckdb.sql("select sum(a) from data").fetchall() == [(4950,)]
    assert asked == [["a", "k"]]
    assert duckdb.sql("select k from data where b = '3' and a < 20 order by a").fetchall() == [
        ("k3",),
        ("k10",),
        ("k17",),
    ]
    assert duckdb.sql("select count(*) from data where b in ('1', '2')").fetchall() == [(29,)]


def test_arrow_and_polars(db: Any, asked: list[Any]) -> None:
    data = db.to_dataset()
    assert data.schema.equals(TABLE.schema)
    assert data.count_rows() == 100
    assert data.to_table().sort_by("a").equals(TABLE)
    del asked[:]
    found = data.to_table(columns=["b"], filter=pc.field("a") == 8)
    assert found.to_pydict() == {"b": ["1"]}
    assert asked == [["a", "k", "b"]]
    assert pl.scan_pyarrow_dataset(data).filter(pl.col("a") > 97).select("b").collect().height == 2


def test_it_is_of_its_moment(db: Any) -> None:
    data = db.to_dataset()
    db["new"] = {"a": 1, "b": ""}
    assert data.count_rows() == 100
    assert db.to_dataset().count_rows() == 101

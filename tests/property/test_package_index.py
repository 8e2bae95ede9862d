"""An index of packages, most of whose ranks are null, goes in from every library at the first try and comes back equal."""

import os
import random
from collections.abc import Callable
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from tilekv import Attr, Schema

ROWS: Final = 886_000 if os.environ.get("TILEKV_NIGHTLY") else 20_000
RANKED: Final = 0.017
SCHEMA: Final = Schema(
    [
        Attr("version", str),
        Attr("month", "datetime64[D]", nullable=True),
        Attr("rank", "int64", nullable=True),
        Attr("summary", str, nullable=True),
    ]
)
WORDS: Final = ["a", "fast", "client", "for", "größere", "Daten", "数据", "library", "of", "tools"]


@pytest.fixture(scope="module")
def index() -> dict[str, list[Any]]:
    rng = random.Random(20261129)
    rows: dict[str, list[Any]] = {name: [] for name in ("name", *(a.name for a in SCHEMA.attrs))}
    months = np.arange("2005-01", "2026-12", dtype="datetime64[M]").astype("datetime64[D]").tolist()
    for i in range(ROWS):
        rows["name"].append(f"{rng.choice(WORDS)}-{i}")
        rows["version"].append(f"{rng.randrange(9)}.{rng.randrange(40)}")
        rows["month"].append(rng.choice(months) if rng.random() < 0.9 else None)
        rows["rank"].append(i + 1 if rng.random() < RANKED else None)
        said = " ".join(rng.choices(WORDS, k=rng.randrange(12)))
        rows["summary"].append(said if rng.random() < 0.95 else None)
    return rows


def of_pandas(rows: dict[str, list[Any]]) -> Any:
    """By pandas' own choice: ranks are floats, and what is missing is NaN, NaT and None."""
    frame = pd.DataFrame(rows)
    assert frame["rank"].dtype == "float64"
    return frame


def of_pandas_types(rows: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(rows).astype({"rank": "Int64", "summary": "string"})


def of_pandas_times(rows: dict[str, list[Any]]) -> Any:
    frame = pd.DataFrame(rows)
    frame["month"] = pd.to_datetime(frame["month"])
    return frame


def of_arrow(rows: dict[str, list[Any]]) -> Any:
    return pa.table(rows)


def of_polars(rows: dict[str, list[Any]]) -> Any:
    return pl.DataFrame(rows, infer_schema_length=None)


def of_duckdb(rows: dict[str, list[Any]]) -> Any:
    connection = duckdb.connect()
    table = pa.table(rows)
    connection.register("packages", table)
    return connection.sql("select * from packages order by name desc")


@pytest.mark.parametrize(
    "make", [of_pandas, of_pandas_types, of_pandas_times, of_arrow, of_polars, of_duckdb]
)
def test_in_and_out(index: dict[str, list[Any]], make: Callable[..., Any]) -> None:
    with tilekv.open(f"memory://{make.__name__}", "w", schema=SCHEMA) as db:
        db.put_many(make(index), key="name")
        db.flush()
        assert len(db) == ROWS
        names = index["name"]
        values = db.get_many(names[:1000])
        for i, value in enumerate(values):
            month = index["month"][i]
            assert value == {
                "version": index["version"][i],
                "month": None if month is None else np.datetime64(month),
                "rank": index["rank"][i],
                "summary": index["summary"][i],
            }
        batch = db.read(names)
        wanted = pa.table(index).rename_columns(["key", *list(index)[1:]])
        shown = pa.table(batch)
        for name in wanted.column_names:
            assert shown[name].cast(wanted[name].type).equals(wanted[name]), name
        frame = pl.DataFrame(db.scan()).sort("key")
        assert frame.equals(
            pl.DataFrame(index, schema=dict(zip(index, frame.schema.values(), strict=True)))
            .rename({"name": "key"})
            .sort("key")
        )
        assert pa.table(db.scan()).to_pandas()["rank"].isna().sum() == index["rank"].count(None)
        with duckdb.connect() as connection:
            connection.register("scan", pa.RecordBatchReader.from_stream(db.scan()))
            counted = connection.sql("select count(*), count(rank), count(summary) from scan")
            assert counted.fetchall()[0] == (
                ROWS,
                ROWS - index["rank"].count(None),
                ROWS - index["summary"].count(None),
            )


def test_a_frame_of_it_comes_back_equal(index: dict[str, list[Any]]) -> None:
    names = index["name"]
    table = pa.table(index)
    with tilekv.from_arrow("memory://index-arrow", table, "name") as db:
        assert db.to_arrow(names).equals(table)
        found = duckdb.sql("select count(*), count(rank), count(summary) from db").fetchall()[0]
        assert found == tuple(
            ROWS - index[name].count(None) for name in ("name", "rank", "summary")
        )
    relation = duckdb.connect().from_arrow(table)
    with tilekv.from_arrow("memory://index-duckdb", relation, "name") as db:
        assert db.to_arrow(names).equals(table)
    frame = of_polars(index)
    with tilekv.from_polars("memory://index-polars", frame, "name") as db:
        assert db.to_polars(names).equals(frame)
        assert db.to_polars().sort("name").equals(frame.sort("name"))
    for kind in (of_pandas, of_pandas_types, of_pandas_times):
        panda = kind(index)
        with tilekv.from_pandas(f"memory://index-{kind.__name__}", panda, "name") as db:
            pd.testing.assert_frame_equal(db.to_pandas(names), panda)

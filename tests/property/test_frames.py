"""Frames of every library go in and come back equal: every type that has a counterpart, with nulls, empty, chunked, sliced."""

import datetime as dt
import string
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tilekv

TEXT = st.text(max_size=20)
BLOB = st.binary(max_size=20)
FLOATS = st.floats(allow_nan=False)
# Seconds from 1900 to 2200, which every unit can tell.
SECONDS = st.integers(-(2**31), 7 * 2**30)
DATES = st.dates(dt.date(1000, 1, 1), dt.date(3000, 1, 1))


def integers(kind: Any) -> st.SearchStrategy[int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return st.integers(int(info.min), int(info.max))


def times(kind: Any) -> st.SearchStrategy[int]:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    return SECONDS.map(lambda n: n * factor)


def half(n: int) -> float:
    return float(np.array(n, "u2").view("f2"))


def scalars() -> dict[str, tuple[Any, st.SearchStrategy[Any]]]:
    """Arrow's types of single values, and values of each."""
    found: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
        "bool": (pa.bool_(), st.booleans()),
        "half": (pa.float16(), st.integers(0, 0x7BFF).map(half)),
        "float": (pa.float32(), st.floats(width=32, allow_nan=False)),
        "double": (pa.float64(), FLOATS),
        "date32": (pa.date32(), DATES),
        "date64": (pa.date64(), DATES),
    }
    for text in (pa.string(), pa.large_string(), pa.string_view()):
        found[str(text)] = (text, TEXT)
    for blob in (pa.binary(), pa.large_binary(), pa.binary_view()):
        found[str(blob)] = (blob, BLOB)
    found["fixed"] = (pa.binary(3), st.binary(min_size=3, max_size=3))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        kind = pa.type_for_alias(name)
        found[name] = (kind, integers(kind))
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Vienna", "+05:30"):
            kind = pa.timestamp(unit, zone)
            found[str(kind)] = (kind, times(kind))
        kind = pa.duration(unit)
        found[str(kind)] = (kind, times(kind))
    return found


SCALARS = scalars()
NUMBERS = [
    name for name in SCALARS if not any(word in name for word in ("string", "binary", "fixed"))
]


def array_of(kind: Any, values: list[Any]) -> pa.Array:
    if pa.types.is_float16(kind):
        return pa.array([None if v is None else np.float16(v) for v in values], kind)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def nested(inner: pa.Array, n: int, kind: str) -> pa.Array:
    """n lists of the numbers, all of them valid."""
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(inner[: 2 * n], 2)
    if kind == "square":
        pairs = pa.FixedSizeListArray.from_arrays(inner[: 4 * n], 2)
        return pa.FixedSizeListArray.from_arrays(pairs, 2)
    ends = np.linspace(0, len(inner), n + 1).astype("i4")
    made = pa.ListArray.from_arrays(ends, inner)
    if kind == "list":
        return made
    if kind == "large":
        return made.cast(pa.large_list(inner.type))
    return pa.ListViewArray.from_arrays(pa.array(ends[:-1]), pa.array(np.diff(ends)), inner)


@st.composite
def columns(draw: Any, n: int) -> pa.Array:
    form = draw(
        st.sampled_from(
            ["plain"] * 4 + ["dictionary", "runs", "fixed", "square", "list", "large", "list_view"]
        )
    )
    many = form not in ("plain", "dictionary", "runs")
    kind, values = SCALARS[draw(st.sampled_from(sorted(NUMBERS if many else list(SCALARS))))]
    if many:
        inner = array_of(kind, draw(st.lists(values, min_size=4 * n, max_size=4 * n)))
        return nested(inner, n, form)
    nulls = draw(st.booleans()) and form != "runs"
    whole = array_of(
        kind,
        draw(st.lists(st.none() | values if nulls else values, min_size=n, max_size=n)),
    )
    if form == "dictionary" and not pa.types.is_float16(kind):
        return whole.dictionary_encode()
    if form == "runs" and n and not pa.types.is_float16(kind) and "view" not in str(kind):
        return pc.run_end_encode(whole)
    return whole


@st.composite
def tables(draw: Any) -> pa.Table:
    """Of some columns, in some chunks, and a slice of what was made."""
    n = draw(st.integers(0, 12))
    keys = draw(
        st.sampled_from(
            [
                pa.array([f"k{i}" for i in range(n)], pa.string()),
                pa.array([f"k{i}" for i in range(n)], pa.string_view()),
                pa.array([b"%d" % i for i in range(n)], pa.binary()),
                pa.array(range(n), pa.int16()),
                pa.array(range(n), pa.uint64()),
                pa.array([i / 2 for i in range(n)], pa.float32()),
                pa.array(range(n), pa.int64()).cast(pa.timestamp("us")),
            ]
        )
    )
    made = {f"c{i}": draw(columns(n)) for i in range(draw(st.integers(1, 4)))}
    table = pa.table({"before": pa.array(range(n), pa.int8()), "key column": keys, **made})
    start = draw(st.integers(0, n))
    table = table.slice(start, draw(st.integers(0, n)))
    return table.slice(0, 0) if not table.num_rows else chunked(table, draw(st.integers(1, 5)))


def chunked(table: pa.Table, size: int) -> pa.Table:
    return pa.concat_tables([table.slice(i, size) for i in range(0, table.num_rows, size)])


def decoded(column: pa.ChunkedArray) -> list[Any]:
    """The values: a dictionary may have another order, and what it did not use."""
    if pa.types.is_dictionary(column.type) and pa.types.is_temporal(column.type.value_type):
        column = column.cast(column.type.value_type)
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        column = column.cast(pa.int64())
    found: list[Any] = column.to_pylist()
    return found


def memory() -> str:
    memory.count += 1  # type: ignore[attr-defined]
    return f"memory://frames-{memory.count}"  # type: ignore[attr-defined]


memory.count = 0  # type: ignore[attr-defined]


@given(tables())
def test_arrow(table: pa.Table) -> None:
    with tilekv.from_arrow(memory(), table, "key column") as db:
        keys = table["key column"]
        for back in (db.to_arrow(keys), db.read(keys).to_arrow()):
            assert back.schema.equals(table.schema, check_metadata=True)
            back.validate(full=True)
            for name in table.column_names:
                assert decoded(back[name]) == decoded(table[name]), name
        every = db.to_arrow()
        assert every.schema.equals(table.schema)
        assert sorted(every["before"].to_pylist()) == sorted(table["before"].to_pylist())


@given(tables())
def test_an_arrow_stream_is_a_table(table: pa.Table) -> None:
    schema = tilekv.schema_of(table, "key column", nullable=True)
    with tilekv.from_arrow(memory(), table.to_reader(2), "key column", schema=schema) as db:
        assert db.to_arrow(table["key column"]).schema.equals(table.schema)
        assert len(db) == table.num_rows


# --- polars -------------------------------------------------------------------------------------------------------------

POLARS: dict[str, Any] = {
    **{str(each): each for each in (pl.Int8, pl.Int16, pl.Int32, pl.Int64)},
    **{str(each): each for each in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)},
    **{str(each): each for each in (pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary)},
    "date": pl.Date,
    **{f"time {unit}": pl.Datetime(unit) for unit in ("ms", "us", "ns")},
    **{f"instant {unit}": pl.Datetime(unit, "Europe/Vienna") for unit in ("ms", "us", "ns")},
    **{f"span {unit}": pl.Duration(unit) for unit in ("ms", "us", "ns")},
    "categorical": pl.Categorical,
    "enum": pl.Enum(["", "a", "b", "ü"]),
    "list": pl.List(pl.Int16),
    "array": pl.Array(pl.Float32, 2),
    "square": pl.Array(pl.Int64, (2, 3)),
}


@st.composite
def series(draw: Any, name: str, n: int) -> pl.Series:
    kind = POLARS[draw(st.sampled_from(sorted(POLARS)))]
    of: st.SearchStrategy[Any]
    if kind == pl.List:
        of = st.lists(st.integers(-100, 100), max_size=4)
    elif kind == pl.Array:
        one = st.integers(-100, 100)
        for side in reversed(kind.shape):
            one = st.lists(one, min_size=side, max_size=side)  # type: ignore[assignment]
        of = one
    elif kind == pl.Boolean:
        of = st.booleans()
    elif kind.is_integer():
        low, high = pl.select(kind.min(), kind.max().alias("max")).row(0)
        of = st.integers(low, high)
    elif kind.is_float():
        of = st.floats(width=32)
    elif kind == pl.Binary:
        of = BLOB
    elif kind == pl.Enum:
        of = st.sampled_from(kind.categories.to_list())
    elif kind == pl.Date:
        of = st.integers(-100_000, 100_000)
    elif kind.is_temporal():
        of = st.integers(-(2**61), 2**61)
    else:
        of = TEXT
    values = draw(st.lists(st.none() | of if draw(st.booleans()) else of, min_size=n, max_size=n))
    if kind.is_temporal():
        return (
            pl.Series(name, values, pl.Int64)
            .cast(pl.Int32 if kind == pl.Date else pl.Int64)
            .cast(kind)
        )
    return pl.Series(name, values, kind)


@st.composite
def frames(draw: Any) -> pl.DataFrame:
    n = draw(st.integers(0, 12))
    keys = draw(
        st.sampled_from(
            [
                pl.Series("k", [f"k{i}" for i in range(n)], pl.String),
                pl.Series("k", [f"k{i}" for i in range(n)], pl.Categorical),
                pl.Series("k", range(n), pl.Int8),
                pl.Series("k", range(n), pl.UInt64),
                pl.Series("k", [b"%d" % i for i in range(n)], pl.Binary),
                pl.Series("k", range(n), pl.Int64).cast(pl.Datetime("us")),
            ]
        )
    )
    made = [draw(series(f"c{i}", n)) for i in range(draw(st.integers(1, 4)))]
    frame = pl.DataFrame([*made, keys])
    start = draw(st.integers(0, n))
    frame = frame.slice(start, draw(st.integers(0, n)))
    cut = draw(st.integers(0, len(frame)))
    return pl.concat([frame[:cut], frame[cut:]], rechunk=False)


@given(frames())
def test_polars(frame: pl.DataFrame) -> None:
    with tilekv.from_polars(memory(), frame, "k") as db:
        for back in (db.to_polars(frame["k"]), db.read(frame["k"]).to_polars()):
            polars.testing.assert_frame_equal(back, frame)
        every = db.to_polars()
        assert every.schema == frame.schema
        assert len(every) == len(frame)


# --- pandas -------------------------------------------------------------------------------------------------------------

PANDAS = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("float32", "float64", "Float32", "Float64", "bool", "boolean", "str", "object"),
    *(
        "string[python]",
        "string[pyarrow]",
        "int64[pyarrow]",
        "large_string[pyarrow]",
        "timestamp[us][pyarrow]",
    ),
    *("datetime64[s]", "datetime64[ms]", "datetime64[us]", "datetime64[ns]"),
    *("datetime64[us, Europe/Vienna]", "datetime64[ns, UTC]"),
    *("timedelta64[s]", "timedelta64[ms]", "timedelta64[us]", "timedelta64[ns]"),
    *("category", "ordered"),
]


@st.composite
def pandas_series(draw: Any, n: int) -> pd.Series:
    kind = draw(st.sampled_from(PANDAS))
    of: st.SearchStrategy[Any]
    lower = kind.lower()
    if kind in ("category", "ordered"):
        letters = draw(st.permutations(string.ascii_lowercase[:5]))
        codes = draw(st.lists(st.integers(-1, 4), min_size=n, max_size=n))
        return pd.Series(pd.Categorical.from_codes(codes, letters, ordered=kind == "ordered"))
    can_miss = (kind[0] in "IUFsodfl" and kind != "bool") or "[" in kind or kind == "boolean"
    if "int" in lower:
        bits = int("".join(filter(str.isdigit, kind)))
        low, high = (
            (0, 2**bits - 1) if lower[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        of = st.integers(low, high)
        can_miss = kind[0].isupper() or "pyarrow" in kind
    elif "float" in lower:
        of = st.floats(width=32, allow_nan=False)
    elif "bool" in lower:
        of = st.booleans()
    elif "time" in lower:
        of = st.integers(-(2**31), 2**31)
    else:
        of = st.text(max_size=10)
    values = draw(
        st.lists(st.none() | of if can_miss and draw(st.booleans()) else of, min_size=n, max_size=n)
    )
    if "time" in lower:
        raw = pd.Series([0 if v is None else v for v in values], dtype="int64")
        made = raw.astype("timedelta64[s]" if "delta" in kind else "datetime64[s]")
        made[[v is None for v in values]] = pd.NaT
        if ", " in kind:
            return (
                made.astype(kind.replace(", Europe/Vienna", "").replace(", UTC", ""))
                .dt.tz_localize("UTC")
                .dt.tz_convert(kind.partition(", ")[2][:-1])
            )
        return made.astype(kind)
    return pd.Series(values, dtype=kind)


@st.composite
def pandas_frames(draw: Any) -> pd.DataFrame:
    n = draw(st.integers(0, 10))
    made = {f"c{i}": draw(pandas_series(n)) for i in range(draw(st.integers(1, 4)))}
    frame = pd.DataFrame(made)
    frame["k"] = pd.Series([f"k{i}" for i in range(n)], dtype="str")
    if draw(st.booleans()):
        return frame.set_index("k")
    start = draw(st.integers(0, n))
    return frame[start : start + draw(st.integers(0, n))].reset_index(drop=True)


@given(pandas_frames())
def test_pandas(frame: pd.DataFrame) -> None:
    objects = [frame[name] for name in frame.columns if frame[name].dtype == object]
    assume(
        all(one.notna().any() for one in objects)
    )  # of objects that are all missing nothing tells the type
    key = None if frame.index.name == "k" else "k"
    with tilekv.from_pandas(memory(), frame, key) as db:
        keys = frame.index if key is None else frame["k"]
        for back in (db.to_pandas(keys), db.read(keys).to_pandas()):
            pd.testing.assert_frame_equal(back, frame, check_categorical=True)
        assert len(db.to_pandas()) == len(frame)


# --- each in each -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", ["to_arrow", "to_pandas", "to_polars"])
@given(table=tables())
def test_every_library_takes_what_another_gave(give: str, table: pa.Table) -> None:
    if give == "to_polars":
        assume("+05:30" not in str(table.schema))  # a zone that polars does not have
    with tilekv.from_arrow(memory(), table, "key column") as db:
        frame = getattr(db, give)()
        assert len(frame) == table.num_rows
        assert set(map(str, frame.columns if give != "to_arrow" else frame.column_names)) == set(
            table.column_names
        )

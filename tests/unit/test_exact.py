"""Numbers and times arrive exactly or are refused, however they come in."""

# Times as NumPy and pandas have them, without a zone.
# ruff: noqa: DTZ001, DTZ901

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, OutOfRangeError, Store, WrongTypeError

Make = Callable[[Attr], Store]


def ways(value: Any, beside: Any) -> dict[str, Callable[[Store], None]]:
    """One value, alone and in containers of objects, which a zero of the same kind may follow."""
    return {
        "set": lambda db: db.__setitem__("k", value),
        "update": lambda db: db.update(k=value),
        "list": lambda db: db.put_many(["k"], [value]),
        "tuple": lambda db: db.put_many(("k", "z"), (value, beside)),
        "generator": lambda db: db.put_many(iter(["k"]), iter([value])),
        "column": lambda db: db.put_many(["z", "k"], v=[beside, value]),
        "objects": lambda db: db.put_many(["k"], np.array([value, None], object)[:1]),
        "object Series": lambda db: db.put_many(["k"], pd.Series([value], dtype=object)),
        "object Index": lambda db: db.put_many(["k"], pd.Index([value], dtype=object)),
        "Series of keys": lambda db: db.put_many(pd.Series(["k"]), [value]),
        "mapping": lambda db: db.put_many({"k": value}),
    }


def arrive(store: Make, attr: Attr, value: Any, beside: Any, want: Any) -> None:
    for way, put in ways(value, beside).items():
        db = store(attr)
        put(db)
        assert db["k"] == want, way
    db = store(Attr("v", attr.dtype, var=True))
    db["k"] = [beside, value]
    assert db["k"][1] == want
    db = store(Attr("v", attr.dtype, shape=(2, 1)))
    db["k"] = [[value], np.array([beside], attr.dtype)]
    assert db["k"][0, 0] == want


def refused(
    store: Make, attr: Attr, value: Any, beside: Any, error: type[Exception] = OutOfRangeError
) -> None:
    for way, put in ways(value, beside).items():
        db = store(attr)
        null = way in ("object Series", "object Index") and pd.isna(value)
        with pytest.raises(InvalidValueError if null else error, match="'v'"):
            put(db)
        assert list(db) == [], way
    for more in ({"var": True}, {"shape": (2,)}):
        db = store(Attr("v", attr.dtype, **more))
        with pytest.raises(error, match="'v'"):
            db["k"] = [beside, value]


# --- times ---

NANOSECONDS = np.datetime64("2020-01-01T00:00:00.123456789", "ns")
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30, microseconds=7))


@pytest.mark.parametrize(
    ("dtype", "value", "want"),
    [
        ("datetime64[ns]", pd.Timestamp(NANOSECONDS), NANOSECONDS),
        ("datetime64[ps]", pd.Timestamp(5), np.datetime64(5000, "ps")),
        ("datetime64[ns]", pd.Timestamp(NANOSECONDS, tz="Asia/Tokyo"), "2019-12-31T15:00:00.123456789"),
        ("datetime64[s]", pd.Timestamp("2300-01-01").as_unit("s"), "2300-01-01"),
        ("datetime64[us]", dt.datetime(2020, 1, 1, 0, 0, 0, 1, EAST), "2019-12-31T18:29:59.999994"),
        ("datetime64[us]", dt.datetime(1, 1, 1, tzinfo=EAST), "0000-12-31T18:29:59.999993"),
        ("datetime64[us]", dt.datetime.max, "9999-12-31T23:59:59.999999"),
        ("datetime64[h]", dt.datetime(1969, 12, 31, 23), "1969-12-31T23"),
        ("datetime64[W]", dt.date(1970, 1, 8), "1970-01-08"),
        ("datetime64[M]", dt.date(1969, 2, 1), "1969-02"),
        ("datetime64[Y]", dt.datetime(2024, 1, 1), "2024"),
        ("datetime64[D]", np.datetime64("2024", "Y"), "2024-01-01"),
        ("datetime64[D]", np.datetime64(5, "2D"), "1970-01-11"),
    ],
    ids=str,
)  # fmt: skip
def test_moments(dtype: str, value: Any, want: Any, store: Make) -> None:
    beside = pd.Timestamp(0, tz="UTC") if getattr(value, "tzinfo", None) else np.datetime64(0, "s")
    if dtype[11] in "YMWDh":
        beside = np.datetime64(0, dtype[11])
    if isinstance(beside, pd.Timestamp):
        db = store(Attr("v", dtype))
        for put in ways(value, beside).values():
            put(db)
            assert db["k"] == np.datetime64(want)
    else:
        arrive(store, Attr("v", dtype), value, beside, np.datetime64(want))


@pytest.mark.parametrize(
    ("dtype", "value", "want"),
    [
        ("timedelta64[ns]", pd.Timedelta(1500, "ns"), np.timedelta64(1500, "ns")),
        ("timedelta64[us]", dt.timedelta(-1, 0, 1), np.timedelta64(-86400 * 10**6 + 1, "us")),
        ("timedelta64[s]", dt.timedelta.min, np.timedelta64(-999999999 * 86400, "s")),
        ("timedelta64[as]", dt.timedelta(microseconds=9), np.timedelta64(9 * 10**12, "as")),
        ("timedelta64[h]", np.timedelta64(2, "W"), np.timedelta64(14 * 24, "h")),
    ],
    ids=str,
)
def test_durations(dtype: str, value: Any, want: Any, store: Make) -> None:
    arrive(store, Attr("v", dtype), value, np.zeros((), dtype)[()], want)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("datetime64[us]", pd.Timestamp(NANOSECONDS)),
        ("datetime64[D]", dt.datetime(2020, 1, 1, 1)),
        ("datetime64[M]", dt.date(2020, 1, 2)),
        ("datetime64[W]", dt.date(2020, 1, 1)),
        ("datetime64[ns]", dt.datetime(2500, 1, 1)),
        ("datetime64[ns]", np.datetime64("2500", "s")),
        ("datetime64[as]", np.datetime64("2000", "Y")),
        ("timedelta64[us]", dt.timedelta.max),
        ("timedelta64[us]", pd.Timedelta(1500, "ns")),
        ("timedelta64[h]", dt.timedelta(minutes=30)),
        ("timedelta64[as]", np.timedelta64(10, "s")),
    ],
    ids=str,
)
def test_times_that_do_not_fit(dtype: str, value: Any, store: Make) -> None:
    kind = np.datetime64 if dtype.startswith("d") else np.timedelta64
    refused(store, Attr("v", dtype), value, kind(0, np.datetime_data(dtype)[0]))


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "timedelta64[ns]"])
def test_what_is_no_time(dtype: str, store: Make) -> None:
    other = "timedelta64[ns]" if dtype == "datetime64[ns]" else "datetime64[ns]"
    for value in (None, pd.NA, 0, 1.0, "2020-01-01", dt.time(1), True, np.zeros((), other)[()]):
        refused(store, Attr("v", dtype), value, np.zeros((), dtype)[()], WrongTypeError)


def test_durations_of_no_one_length(store: Make) -> None:
    beside = np.timedelta64(0, "s")
    for value in (np.timedelta64(1, "Y"), np.timedelta64(1, "M"), np.timedelta64(5)):
        refused(store, Attr("v", "timedelta64[s]"), value, beside, WrongTypeError)
        with pytest.raises(WrongTypeError, match="'v'"):
            store(Attr("v", "timedelta64[s]")).put_many(["k"], np.array([value]))


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "datetime64[M]"])
def test_no_time_is_one_value(dtype: str, store: Make) -> None:
    moments = dtype[0] == "d"
    missing: list[Any] = [pd.NaT, np.array("NaT", dtype)[()]]
    missing += [np.datetime64("NaT"), np.datetime64("NaT", "ns")] if moments else []
    for value in missing:
        for way, put in ways(value, np.zeros((), dtype)[()]).items():
            db = store(Attr("v", dtype))
            if way in ("object Series", "object Index"):  # there it is a null
                with pytest.raises(InvalidValueError, match=r"'v'.*null"):
                    put(db)
                continue
            put(db)
            assert np.isnat(db["k"]), way
            assert db["k"].dtype == dtype
    kind = "M8[s]" if moments else "m8[s]"
    for given in (pd.Series([pd.NaT], dtype=kind), pd.Index([pd.NaT], dtype=kind)):
        with pytest.raises(InvalidValueError, match=r"'v'.*null"):
            store(Attr("v", dtype)).put_many(["k"], given)
        db = store(Attr("v", dtype))
        db.put_many(["k"], given.to_numpy())
        assert np.isnat(db["k"])


def test_times_with_a_zone_beside_times_without(store: Make) -> None:
    aware = [dt.datetime(2020, 1, 1, tzinfo=EAST), pd.Timestamp(0, tz="Asia/Tokyo")]
    naive = [dt.datetime(2020, 1, 1), pd.Timestamp(0), np.datetime64(0, "s"), dt.date(2020, 1, 1)]
    for one in aware:
        for other in naive:
            for values in ([one, other], [other, one]):
                refusing: list[Callable[[Store], None]] = [
                    lambda db, values=values: db.put_many(["k", "l"], values),
                    lambda db, values=values: db.put_many(["k", "l"], v=values),
                    lambda db, values=values: db.put_many(dict(zip("kl", values, strict=True))),
                    lambda db, values=values: db.put_many(
                        ["k", "l"], pd.Series(values, dtype=object)
                    ),
                ]
                for put in refusing:
                    db = store(Attr("v", "datetime64[ns]"))
                    with pytest.raises(InvalidValueError, match=r"'v'.*with a zone beside"):
                        put(db)
                for attr in (Attr("v", "M8[ns]", var=True), Attr("v", "M8[ns]", shape=(2,))):
                    with pytest.raises(InvalidValueError, match=r"'v'.*with a zone beside"):
                        store(attr)["k"] = values
    db = store(Attr("v", "datetime64[ns]"))
    db.put_many(["k", "l", "m"], [*aware, pd.NaT])
    db["n"] = naive[0]  # another call
    assert db["k"] == np.datetime64("2019-12-31T18:29:59.999993")


def test_times_with_and_without_a_zone_in_pieces(store: Make) -> None:
    """Keys that come in two pieces cut the values too, and they are still those of one call."""
    db = store(Attr("v", "datetime64[ns]", shape=(1,)))
    keys = pa.chunked_array([[1], [2]])
    mixed = [[dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], [dt.datetime(2020, 1, 1)]]
    with pytest.raises(InvalidValueError, match="with a zone beside times without one"):
        db.put_many(keys, mixed)
    assert list(db) == []


def test_times_with_a_zone_in_years_that_python_has_not(store: Make) -> None:
    db = store(Attr("v", "datetime64[us]"))
    moment = np.datetime64("-290308-12-21T19:59:05.224193")
    db[1] = pd.Timestamp(moment).tz_localize("UTC").tz_convert("Asia/Kolkata")
    assert db[1] == moment


def test_frames_of_objects(store: Make) -> None:
    """By way of Arrow the times were cut, the floats rounded, and polars' objects were addresses in memory."""
    stamps = [dt.datetime(2020, 1, 1), pd.Timestamp(1_500_000_000_000_000_001)]
    db = store(Attr("v", "datetime64[ns]"))
    db.put_many(pd.DataFrame({"k": [1, 2], "v": pd.Series(stamps, dtype=object)}), key="k")
    assert db[1] == np.datetime64("2020-01-01")
    assert db[2].view("i8") == 1_500_000_000_000_000_001
    db = store(Attr("v", "int64"))
    db.put_many(pl.DataFrame({"k": [1], "v": pl.Series([5], dtype=pl.Object)}), key="k")
    assert db[1] == 5
    with pytest.raises(InvalidValueError, match="columns of one name: 'k', 'k'"):
        db.put_many(pd.DataFrame([[1, 2]], columns=["k", "k"]), key="k")


def test_an_index_with_a_zone_is_its_instants(store: Make) -> None:
    index = pd.DatetimeIndex(["2020-01-01", "2021-01-01"]).tz_localize("Asia/Tokyo").as_unit("ns")
    for given in (index, index.array):
        db = store(Attr("v", "datetime64[ns]"))
        db.put_many(["k", "l"], given)
        assert db["k"] == np.datetime64("2019-12-31T15")
        assert db["l"] == np.datetime64("2020-12-31T15")


# --- numbers ---


@pytest.mark.parametrize(("dtype", "bits"), [("float64", 53), ("float32", 24)])
def test_integers_in_floats(dtype: str, bits: int, store: Make) -> None:
    attr = Attr("v", dtype)
    for value in (2**bits, -(2**bits), 2**bits + 2, -(2**63), 2**63, (2**bits - 1) << (64 - bits)):
        kinds: list[Any] = [int, Decimal, Fraction, np.longdouble]
        kinds += [np.uint64] if value > 0 else []
        kinds += [np.int64] if value < 2**63 else []
        for kind in kinds:
            arrive(store, attr, kind(value), 0.5, value)
        dtypes = [kind for kind in kinds if kind in (np.int64, np.uint64)]
        for array in (np.array([value], kind) for kind in dtypes):
            for given in (
                array,
                pd.Series(array),
                pd.Index(array),
                pa.array(array),
                pl.Series(array),
            ):
                db = store(attr)
                db.put_many(["k"], given)
                assert int(db["k"]) == value
    for value in (
        2**bits + 1,
        -(2**bits) - 1,
        2**63 - 1,
        1 - 2**63,
        2**64 - 1,
        2**bits * 2 + 2 + 1,
    ):
        kinds = [int, Decimal, Fraction]
        kinds += [np.uint64] if value > 0 else []
        kinds += [np.int64] if value < 2**63 else []
        for kind in kinds:
            refused(store, attr, kind(value), 0.5)
        dtypes = [kind for kind in kinds if kind in (np.int64, np.uint64)]
        for array in (np.array([0, value], kind) for kind in dtypes):
            for given in (
                array,
                pd.Series(array),
                pd.Index(array),
                pa.array(array),
                pl.Series(array),
            ):
                with pytest.raises(OutOfRangeError, match="'v'"):
                    store(attr).put_many(["k", "l"], given)
                with pytest.raises(OutOfRangeError, match="'v'"):
                    store(Attr("v", dtype, var=True))["k"] = given


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_numbers_in_floats(dtype: str, store: Make) -> None:
    attr = Attr("v", dtype)
    for value in (
        Decimal("0.5"),
        Fraction(1, 4),
        np.float16(0.1),
        np.longdouble(0.75),
        np.float32(0.1),
    ):
        arrive(store, attr, value, 1, np.dtype(dtype).type(value))
    third = np.longdouble(1) / 3
    for value in (Decimal("0.1"), Fraction(1, 3), third, Decimal("1e400"), 10**400, 10**5000):
        refused(store, attr, value, 1)
    for array in (np.array([third]), np.array([1, np.longdouble("1e4000")])):
        with pytest.raises(OutOfRangeError, match="'v'"):
            store(attr).put_many(["k", "l"][: len(array)], array)
    for value in (Decimal("NaN"), np.longdouble("nan"), float("nan")):
        for way, put in ways(value, 0).items():
            db = store(attr)
            if way not in ("object Series", "object Index"):
                put(db)
                assert np.isnan(db["k"])
    for value in (
        "1",
        b"1",
        True,
        np.True_,
        1j,
        None,
        pd.NA,
        pd.NaT,
        np.timedelta64(1, "s"),
        object(),
    ):
        refused(store, attr, value, 1, WrongTypeError)


def test_floats_are_rounded_to_float32(store: Make) -> None:
    arrive(store, Attr("v", "float32"), 0.1, 1, np.float32(0.1))
    arrive(store, Attr("v", "float32"), np.float64(0.1), 1, np.float32(0.1))
    refused(store, Attr("v", "float32"), 1e300, 1)


def test_a_number_that_says_only_its_float(store: Make) -> None:
    class Measured:
        def __float__(self) -> float:
            return 0.1

    arrive(store, Attr("v", "float64"), Measured(), 1, 0.1)


def test_what_is_missing_is_no_number(store: Make) -> None:
    for dtype, name in (("int64", "Int64"), ("float64", "Float64"), ("float64", "Int32")):
        for given in (pd.array([1, None], dtype=name), pd.Index([1, None], dtype=name)):
            with pytest.raises(tilekv.TileKVError, match="'v'"):
                store(Attr("v", dtype)).put_many(["k", "l"], given)
            with pytest.raises(tilekv.TileKVError, match="'v'"):
                store(Attr("v", dtype, var=True))["k"] = given
    for given in (pa.array([1, None]), pl.Series([1, None]), pa.chunked_array([[1], [None]])):
        with pytest.raises(InvalidValueError, match=r"'v'.*null"):
            store(Attr("v", "float64", var=True))["k"] = given
    db = store(Attr("v", "float64"))
    for given in (pd.Series([1.5, np.nan]), pd.Index([1.5, np.nan])):
        with pytest.raises(InvalidValueError, match=r"'v'.*null"):
            db.put_many(["k", "l"], given)
    db.put_many(["k", "l"], np.array([1.5, np.nan]))  # a NaN is a number here
    assert np.isnan(db["l"])


def test_bools_are_no_integers_in_lists(store: Make) -> None:
    for dtype in ("int64", "float64", "uint8"):
        refused(store, Attr("v", dtype), True, 2, WrongTypeError)
    refused(store, Attr("v", "bool"), 1, True, WrongTypeError)


def test_what_has_columns_is_no_column(store: Make) -> None:
    db = store(Attr("v", "int64", shape=2))
    with pytest.raises(WrongTypeError, match="'v' is the elements of one cell, not DataFrame"):
        db["k"] = pl.DataFrame({"a": [1, 2]})
    several = pd.MultiIndex.from_tuples([(1, 2)])
    with pytest.raises(WrongTypeError, match=r"a key must be .*not tuple"):
        db.put_many(several, [[1, 2]])
    pairs = store(Attr("v", bytes))
    pairs.put_many(pd.MultiIndex.from_tuples([("a", b"2")]))
    assert dict(pairs) == {"a": b"2"}
    assert db.get_many(several) == [None]
    with pytest.raises(tilekv.KeyNotFoundError, match=r"\(1, 2\): a key must be .*not tuple"):
        db.read(several)


def test_no_time_is_no_timestamp() -> None:
    with pytest.raises(InvalidValueError, match="not a time"):
        tilekv.open("memory://none", timestamp=pd.NaT)


def test_a_moment_of_pandas(tmp_path: Path) -> None:
    """Its astimezone asks for a zone, where a datetime's takes the local one."""
    tilekv.open(tmp_path / "s", "x").close()
    naive = pd.Timestamp("2020-07-01 12:00:00.123")
    for moment in (naive, naive.tz_localize("Asia/Tokyo"), pd.Timestamp(1, 1, 1)):
        with (
            tilekv.open(tmp_path / "s", timestamp=moment) as db,
            tilekv.open(tmp_path / "s", timestamp=moment.to_pydatetime()) as alike,
        ):
            assert db.timestamp == alike.timestamp

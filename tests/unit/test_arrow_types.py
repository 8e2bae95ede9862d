"""Every type that Arrow's producers make, in every wrapping: taken exactly, or refused in words of types."""

import decimal
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, OutOfRangeError, WrongTypeError

Make = Callable[..., tilekv.Store]

NUMBER, REAL = Attr("v", "int64"), Attr("v", "float64")
RUNS, PAIR = Attr("v", "int16", var=True), Attr("v", "float32", shape=2)
MOMENT, SPAN = Attr("v", "datetime64[us]"), Attr("v", "timedelta64[us]")
LISTS = {
    "list": pa.list_(pa.int32()),
    "large_list": pa.large_list(pa.int32()),
    "list_view": pa.list_view(pa.int32()),
    "large_list_view": pa.large_list_view(pa.int32()),
}
day, second = np.timedelta64(1, "D"), np.timedelta64(1, "s")


def moments(*texts: str) -> list[np.datetime64]:
    return [np.datetime64(text, "us") for text in texts]


def ints(*numbers: int) -> list[decimal.Decimal]:
    return [decimal.Decimal(number) for number in numbers]


# (values, Arrow's type, attribute, what is read: the values unless given)
TAKEN: list[tuple[list[Any], pa.DataType, Attr, list[Any] | None]] = [
    *((["a", "", "twelve bytes", "x" * 40, "né"], kind, Attr("v", str), None)
      for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *(([b"\0\xff", b"", b"y" * 13], kind, Attr("v", bytes), None)
      for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    ([b"abc", b"\0\0\1"], pa.binary(3), Attr("v", bytes), None),
    ([b"", b""], pa.binary(0), Attr("v", bytes), None),
    *(([1, 127, 0], kind, NUMBER, None) for kind in map(pa.type_for_alias, (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"))),
    ([-1, -128], pa.int8(), Attr("v", "int8"), None),
    ([2**64 - 1, 0], pa.uint64(), Attr("v", "uint64"), None),
    *(([0.5, -1.0], kind, REAL, None) for kind in (pa.float16(), pa.float32(), pa.float64())),
    ([1, -2], pa.int32(), REAL, [1.0, -2.0]),
    ([True, False, True], pa.bool_(), Attr("v", "bool"), None),
    ([1, 0], pa.date32(), MOMENT, moments("1970-01-02", "1970-01-01")),
    ([86_400_000, 0], pa.date64(), MOMENT, moments("1970-01-02", "1970-01-01")),
    *(([7, -7], pa.timestamp(unit), Attr("v", f"datetime64[{unit}]"),
       list(np.array([7, -7], f"M8[{unit}]"))) for unit in ("s", "ms", "us", "ns")),
    ([7], pa.timestamp("ms", "Europe/Berlin"), MOMENT, moments("1970-01-01T00:00:00.007")),
    *(([7, -7], pa.duration(unit), Attr("v", f"timedelta64[{unit}]"),
       list(np.array([7, -7], f"m8[{unit}]"))) for unit in ("s", "ms", "us", "ns")),
    # What DuckDB makes of durations.
    ([(0, 3, 0), (0, -1, 2_000), (0, 0, -1_000)], pa.month_day_nano_interval(), SPAN,
     [3 * day, -day + np.timedelta64(2, "us"), np.timedelta64(-1, "us")]),
    ([(0, 100_000, 10**9), (0, -(10**5), 0)], pa.month_day_nano_interval(),
     Attr("v", "timedelta64[s]"), [100_000 * day + second, -100_000 * day]),
    ([(0, 2**31 - 1, 0)], pa.month_day_nano_interval(), Attr("v", "timedelta64[ms]"),
     [(2**31 - 1) * day]),
    ([(0, 0, 1)], pa.month_day_nano_interval(), Attr("v", "timedelta64[ps]"),
     [np.timedelta64(1, "ns")]),
    *((ints(1, -2, 10**4), kind, attr, [1, -2, 10**4]) for attr in (NUMBER, Attr("v", "int16"), REAL)
      for kind in (pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(38, 0),
                   pa.decimal128(38, 30), pa.decimal256(76, 0), pa.decimal256(76, 60))),
    *((ints(2**64 - 1, 0), kind, Attr("v", "uint64"), [2**64 - 1, 0])
      for kind in (pa.decimal128(38, 0), pa.decimal128(38, 5), pa.decimal256(50, 0))),
    (ints(-(2**63), 2**63 - 1), pa.decimal128(38, 3), NUMBER, [-(2**63), 2**63 - 1]),
    (ints(12_000, -5_000), pa.decimal128(5, -3), NUMBER, [12_000, -5_000]),
    ([decimal.Decimal("0.5"), decimal.Decimal("-1.25")], pa.decimal64(9, 3), REAL, [0.5, -1.25]),
    ([decimal.Decimal("0.5"), decimal.Decimal(2) ** -24], pa.decimal128(38, 24),
     Attr("v", "float32"), [0.5, 2.0**-24]),
    ([decimal.Decimal(2) ** 70], pa.decimal128(38, 2), REAL, [2.0**70]),
    *(([[1, 2], [], [3]], kind, RUNS, None) for kind in LISTS.values()),
    ([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2), RUNS, None),
    *(([[1, 2], [3, 4], [5, 6]], kind, PAIR, None)
      for kind in (*LISTS.values(), pa.list_(pa.int64(), 2))),
    ([[[1, 2, 3]], [[4, 5, 6]]], pa.list_(pa.list_(pa.int8(), 3)), Attr("v", "int8", shape=(1, 3)),
     None),
    ([[[1], [2]], [[4], [5]]], pa.list_(pa.large_list(pa.int8()), 2),
     Attr("v", "int8", shape=(2, 1)), None),
    ([[[1], [2]], [[4], [5]]], pa.list_view(pa.list_view(pa.int8())),
     Attr("v", "int8", shape=(2, 1)), None),
    ([[True, False], [True]], pa.list_(pa.bool_()), Attr("v", "bool", var=True), None),
    ([ints(1, 2), ints(3)], pa.list_(pa.decimal128(5, 1)), RUNS, [[1, 2], [3]]),
    ([1, 0, 2], pa.bool8(), Attr("v", "bool"), [True, False, True]),
    ([b"\1" * 16], pa.uuid(), Attr("v", bytes), None),
    (["{}"], pa.json_(), Attr("v", str), None),
    ([[[1, 2, 3], [4, 5, 6]]], pa.fixed_shape_tensor(pa.int32(), [2, 3]),
     Attr("v", "int32", shape=(2, 3)), None),
    ([[[1, 2, 3], [4, 5, 6]]], pa.fixed_shape_tensor(pa.int32(), [2, 3], permutation=[0, 1]),
     Attr("v", "int8", shape=(2, 3)), None),
]  # fmt: skip


def numbered(rows: list[Any]) -> list[Any]:
    return [pytest.param(*row, id=f"{i} {row[1]}") for i, row in enumerate(rows)]


def read_back(db: tilekv.Store, n: int) -> list[Any]:
    return [
        value.tolist() if isinstance(value, np.ndarray) else value
        for value in map(db.get, range(n))
    ]


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        tensors = isinstance(kind, pa.FixedShapeTensorType)
        values = [np.ravel(value).tolist() for value in values] if tensors else values
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def wrappings(column: pa.Array) -> Iterator[Any]:
    """The same values, in arrays of many kinds; the rows they leave out are null."""
    n, null = len(column), pa.nulls(1, column.type)
    wide = pa.concat_arrays([null, column, null])
    yield column
    yield wide.slice(1, n)
    yield pa.chunked_array([column.slice(0, 1), column.slice(1, 0), wide.slice(2, n - 1)])
    places = pa.array(range(1, n + 1), pa.int8())
    dictionary = pa.DictionaryArray.from_arrays(places, wide)
    ends = pa.array(range(2, n + 4), pa.int32())
    runs = pa.RunEndEncodedArray.from_arrays(ends, wide)
    yield dictionary
    yield pa.DictionaryArray.from_arrays(pa.array(range(n + 1), pa.uint16()), wide).slice(1)
    yield runs.slice(2, n)
    yield pa.chunked_array([runs.slice(2, 1), runs.slice(3, n - 1)])
    yield pa.RunEndEncodedArray.from_arrays(pa.array(range(1, n + 1), pa.int16()), dictionary)
    yield pa.DictionaryArray.from_arrays(pa.array(range(2, n + 2), pa.int64()), runs)


@pytest.mark.parametrize(("values", "kind", "attr", "wanted"), numbered(TAKEN))
def test_types_in_every_wrapping(
    store: Make, values: list[Any], kind: pa.DataType, attr: Attr, wanted: list[Any] | None
) -> None:
    wanted = values if wanted is None else wanted
    for number, column in enumerate(wrappings(array_of(values, kind))):
        db = store(attr)
        db.put_many(range(len(values)), v=column)
        assert read_back(db, len(values)) == wanted, number
        db = store(attr)
        two = pa.table({"k": range(len(values)), "v": column})
        db.put_many(pa.concat_tables([two.slice(0, 1), two.slice(1)]), key="k")
        assert read_back(db, len(values)) == wanted, number


KEYS: list[tuple[list[Any], pa.DataType, list[Any] | None]] = [
    (["a", "", "x" * 40], pa.string_view(), None),
    ([b"abc", b"\0\0\1"], pa.binary(3), None),
    ([b"", b"y" * 13], pa.binary_view(), None),
    ([1, -1], pa.int64(), None),
    ([1.5, -0.0], pa.float64(), None),
    (ints(1, -1), pa.decimal128(38, 0), [1, -1]),
    (ints(2**63, 2**64 - 1), pa.decimal128(38, 0), [2**63, 2**64 - 1]),
    ([86_400_000, 0], pa.date64(), list(np.array([86_400_000, 0], "M8[ms]"))),
]


@pytest.mark.parametrize(("values", "kind", "wanted"), numbered(KEYS))
def test_keys_in_every_wrapping(
    store: Make, values: list[Any], kind: pa.DataType, wanted: list[Any] | None
) -> None:
    for column in wrappings(pa.array(values, kind)):
        db = store(NUMBER)
        db.put_many(column, range(len(values)))
        assert db.get_many(values if wanted is None else wanted) == [*range(len(values))]
        assert db.read(column)["v"].tolist() == [*range(len(values))]
        db.delete_many(column)
        assert len(db) == 0


NULLABLE = ("Int64", "int64[pyarrow]", "UInt8", "uint8[pyarrow]")


FRAMES: list[tuple[Any, list[Any], Attr]] = [
    # pandas: lists are objects, and nullable arrays may be given without a Series around them.
    (pd.Series([np.array([1, 2], "f4"), np.array([3, 4], "f4")]), [[1, 2], [3, 4]], PAIR),
    (pd.Series([[1, 2], [3]]), [[1, 2], [3]], RUNS),
    (pd.Series(["a", "b", "a"], dtype="category"), ["a", "b", "a"], Attr("v", str)),
    (pd.Series([5, 6], dtype="category"), [5, 6], NUMBER),
    *((pd.Series([1, 2], dtype=kind), [1, 2], NUMBER) for kind in NULLABLE),
    *((pd.array([1, 2], dtype=kind), [1, 2], NUMBER) for kind in NULLABLE),
    (pd.array([0.5, 1], dtype="Float64"), [0.5, 1.0], REAL),
    (pd.array([True, False], dtype="boolean"), [True, False], Attr("v", "bool")),
    (pd.array(["a", "b"], dtype="string"), ["a", "b"], Attr("v", str)),
    (pd.array(["a", "b"], dtype="str"), ["a", "b"], Attr("v", str)),
    (pd.array(["a", "b"], dtype="string[pyarrow]"), ["a", "b"], Attr("v", str)),
    (pd.array([[1, 2], [3, 4]], dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
     [[1, 2], [3, 4]], PAIR),
    (pd.Series(pd.to_timedelta([1, 2], "s")), [second, 2 * second], SPAN),
    # polars
    (pl.Series([[1, 2], [3, 4]]), [[1, 2], [3, 4]], PAIR),
    (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)), [[1, 2], [3, 4]], RUNS),
    (pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"], Attr("v", str)),
    (pl.Series(["a", "b"], dtype=pl.Enum(["b", "c", "a"])), ["a", "b"], Attr("v", str)),
    (pl.Series(ints(1, 2)), [1, 2], NUMBER),
    (pl.Series([7, -7], dtype=pl.Duration("ms")), list(np.array([7, -7], "m8[ms]")), SPAN),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "wanted", "attr"), numbered(FRAMES))
def test_what_frames_are_made_of(store: Make, frame: Any, wanted: list[Any], attr: Attr) -> None:
    db = store(attr)
    db.put_many(range(len(wanted)), frame)
    assert read_back(db, len(wanted)) == wanted
    db = store(attr)
    module = pd if isinstance(frame, (pd.Series, pd.api.extensions.ExtensionArray)) else pl
    db.put_many(module.DataFrame({"k": range(len(wanted)), "v": frame}), key="k")
    assert read_back(db, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("expression", "attr", "wanted"),
    [
        ("to_days(3)", SPAN, 3 * day),
        ("interval '1 hour 2 seconds'", SPAN, 3602 * second),
        ("timestamp '2020-01-02' - timestamp '2020-01-01 12:00:00'", SPAN, 43_200 * second),
        ("sum(x)", NUMBER, 3),  # a HUGEINT
        ("1.5::decimal(5, 2)", REAL, 1.5),
        ("[1, 2]", PAIR, [1, 2]),
        ("array_value(1::float, 2::float)", PAIR, [1, 2]),
        ("array_value(1::int, 2::int)", RUNS, [1, 2]),
        ("'b'::enum('a', 'b')", Attr("v", str), "b"),
        ("'text'", Attr("v", str), "text"),
        ("blob 'ab'", Attr("v", bytes), b"ab"),
        ("date '2020-01-01'", MOMENT, np.datetime64("2020-01-01")),
        ("timestamptz '2020-01-01 00:00:00Z'", MOMENT, np.datetime64("2020-01-01")),
    ],
)
@pytest.mark.parametrize("views", [False, True])
def test_what_duckdb_makes(
    store: Make, expression: str, attr: Attr, wanted: Any, views: bool
) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"set arrow_output_list_view = {views}; set produce_arrow_string_view = {views}"
        )
        table = connection.sql(
            f"select 7::bigint as k, {expression} as v from range(3) t(x) group by all"
        )
        db = store(attr)
        db.put_many(table, key="k")
        assert read_back(db, 8)[7] == wanted


@pytest.mark.parametrize(
    ("column", "attr", "error", "says"),
    [
        (pa.array([b"a"]), Attr("v", str), WrongTypeError, "takes text, .* column is binary$"),
        (pa.array(["a"]), Attr("v", bytes), WrongTypeError, "takes bytes, .* column is string$"),
        (pa.array(["a"], pa.string_view()), NUMBER, WrongTypeError, "is string_view$"),
        (pa.array([1]), Attr("v", str), WrongTypeError, "takes text, .* is int64"),
        (pa.array([1.0]), Attr("v", "int8"), WrongTypeError, "'v' takes int8, not float64"),
        (pa.array([1]), Attr("v", "bool"), WrongTypeError, "'v' takes bool, not int64"),
        (pa.array([[1]], pa.list_(pa.int32())), NUMBER, WrongTypeError, "int64, .* is list<int32>$"),
        (pa.array([["a"]]), RUNS, WrongTypeError, "1-d arrays of int16, .* is list<string>$"),
        (pa.array([[[1]]]), RUNS, WrongTypeError, "is list<list<int64>>$"),
        (pa.array([[1]], pa.list_(pa.int8(), 1)), NUMBER, WrongTypeError,
         r"is fixed_size_list<int8>\[1\]$"),
        (pa.array([[1]], pa.large_list_view(pa.int8())), Attr("v", bytes), WrongTypeError,
         "is large_list_view<int8>$"),
        (pa.array([{"a": 1, "b": [""]}]), NUMBER, WrongTypeError,
         "is struct<a: int64, b: list<string>>$"),
        (pa.array([dict.fromkeys("abcdefg", 1)]), NUMBER, WrongTypeError, "d: int64, ...>$"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), NUMBER, WrongTypeError,
         "is map<string, int8>$"),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), NUMBER, WrongTypeError,
         "is sparse_union<0: int64>$"),
        (pd.Series(pd.period_range("2020", periods=2)), NUMBER, WrongTypeError,
         "is extension<pandas.period>$"),
        (pd.period_range("2020", periods=2).array, NUMBER, WrongTypeError, "extension<pandas.period>$"),
        (array_of([1], pa.bool8()), NUMBER, WrongTypeError, "'v' takes int64, not bool"),
        (array_of([[[1, 2, 3]]], pa.fixed_shape_tensor(pa.int8(), [1, 3], permutation=[1, 0])),
         Attr("v", "int8", shape=(1, 3)), InvalidValueError, "a list of 3"),
        (array_of([[[1, 2, 3]]], pa.fixed_shape_tensor(pa.int8(), [1, 3])),
         Attr("v", "int8", shape=(3, 1)), InvalidValueError, r"shape \(3, 1\)"),
        (pa.array([1], pa.time32("s")), Attr("v", "timedelta64[s]"), WrongTypeError, r"is time32\[s\]$"),
        (pa.array([1], pa.time64("ns")), NUMBER, WrongTypeError, r"is time64\[ns\]$"),
        (pa.array([1], pa.timestamp("us", "UTC")), Attr("v", str), WrongTypeError,
         r"is timestamp\[us, tz=UTC\]$"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), NUMBER, WrongTypeError,
         "is month_day_nano_interval$"),
        (pa.array([(1, 0, 0)], pa.month_day_nano_interval()), SPAN, OutOfRangeError, "of months"),
        (pa.array([(0, 0, 1)], pa.month_day_nano_interval()), SPAN, OutOfRangeError, "cannot hold"),
        (pa.array([(0, 200_000, 1)], pa.month_day_nano_interval()), SPAN, OutOfRangeError,
         "cannot hold"),
        (pa.array(ints(1), pa.decimal128(5, 2)), Attr("v", str), WrongTypeError,
         r"is decimal128\(5, 2\)$"),
        (pa.array(ints(1), pa.decimal256(50, 0)), Attr("v", "bool"), WrongTypeError,
         r"is decimal256\(50, 0\)$"),
        (pa.array([decimal.Decimal("1.5")]), NUMBER, OutOfRangeError, "int64, which cannot hold"),
        (pa.array([decimal.Decimal("0.1")]), REAL, OutOfRangeError, "float64, which cannot hold"),
        (pa.array(ints(2**53 + 1), pa.decimal128(38, 1)), REAL, OutOfRangeError, "cannot hold"),
        (pa.array(ints(2**24 + 1), pa.decimal128(38, 1)), Attr("v", "float32"), OutOfRangeError,
         "float32, which cannot hold"),
        (pa.array(ints(2**64), pa.decimal128(38, 0)), Attr("v", "uint64"), OutOfRangeError, "uint64"),
        (pa.array(ints(-1, 2**63), pa.decimal128(38, 0)), NUMBER, OutOfRangeError, "cannot hold"),
        (pa.array(ints(300), pa.decimal128(38, 0)), Attr("v", "int8"), OutOfRangeError, "int8"),
        (pa.array([[1, 2], [3]]).slice(1), PAIR, InvalidValueError,
         r"shape \(2,\), and its column a list of 1, at row 0"),
        (pa.array([[1, 2, 3]], pa.list_(pa.int8(), 3)), PAIR, InvalidValueError, "a list of 3"),
        (pa.array([1, 2]), PAIR, InvalidValueError, r"cells of shape \(2,\), those of the column"),
        (pa.array([[[1], [2]]]), PAIR, WrongTypeError, "is list<list<int64>>$"),
        (pa.array(["a"]).dictionary_encode(), NUMBER, WrongTypeError,
         "is dictionary<values=string, indices=int32>$"),
        (pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int16()), pa.array(["a"])), NUMBER,
         WrongTypeError, "is run_end_encoded<int16, string>$"),
    ],
)  # fmt: skip
def test_types_that_are_refused(
    store: Make, column: pa.Array, attr: Attr, error: type[Exception], says: str
) -> None:
    db = store(attr)
    with pytest.raises(error, match=says):
        db.put_many(range(len(column)), v=column)
    assert db.info().buffered == 0


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (pa.array([[1]]), "keys are text, bytes or numbers, and this Arrow column is list<int64>$"),
        (pa.array(ints(1), pa.decimal128(5, 2)), r"is decimal128\(5, 2\)$"),
        (pa.array([(0, 1, 0)], pa.month_day_nano_interval()), "is month_day_nano_interval$"),
    ],
)
def test_keys_that_are_refused(store: Make, keys: pa.Array, says: str) -> None:
    with pytest.raises(WrongTypeError, match=says):
        store(NUMBER).put_many(keys, [1])


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None], dtype="Int64"),
        pd.array([1, None], dtype="int64[pyarrow]"),
        pd.Series([1, None], dtype="Int64"),
        pd.array(["a", None], dtype="str"),
        np.array(["a", None], np.dtypes.StringDType(na_object=None)),
        np.array(["a", np.nan], np.dtypes.StringDType(na_object=np.nan)),
        pl.Series([1, None]),
    ],
    ids=lambda column: f"{type(column).__name__} {column.dtype!r}",
)
def test_nulls_of_frames(store: Make, column: Any) -> None:
    """As keys, and as values."""
    with pytest.raises(InvalidValueError, match="keys has a null, at row 1"):
        store(NUMBER).put_many(column, [1, 2])
    attr = NUMBER if column[0] == 1 else Attr("v", str)
    with pytest.raises((InvalidValueError, WrongTypeError), match=r"null, at row 1|takes str"):
        store(attr).put_many([1, 2], v=column)


def test_numpy_text_of_variable_width(store: Make) -> None:
    keys = np.array(["a", "b" * 40, "é", "\0"], np.dtypes.StringDType())
    db = store(Attr("v", str))
    db.put_many(keys, keys)
    assert dict(db) == {key: key for key in ("a", "b" * 40, "é", "\0")}
    assert db.get_many(keys[::-1]) == keys[::-1].tolist()
    assert db.read(keys)["v"].to_list() == keys.tolist()
    assert db[np.array("é", keys.dtype)] == "é"
    assert np.array("nothing", keys.dtype) not in db
    with pytest.raises(WrongTypeError, match="NumPy type StringDType"):
        db[keys] = "an array of text is no key"
    db.delete_many(keys)
    assert len(db) == 0


def test_nulls_that_count(store: Make) -> None:
    """Of a dictionary and of runs: those that rows refer to."""
    values = pa.array(["a", None])
    for column in (
        pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), values),
        pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.array(["a"])),
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int16()), values),
        pa.array([["a"], None], pa.list_view(pa.string())),
    ):
        with pytest.raises(
            (InvalidValueError, WrongTypeError), match=r"a null, at row 1|list_view"
        ):
            store(Attr("v", str)).put_many(range(2), v=column)
    views = pa.ListViewArray.from_arrays([1, 0, 1], [1, 0, 1], pa.array([None, 7, None]))
    db = store(RUNS)
    db.put_many(range(3), v=views)
    assert read_back(db, 3) == [[7], [], [7]]


def test_views_may_overlap(store: Make) -> None:
    column = pa.ListViewArray.from_arrays(
        [3, 0, 1], [2, 4, 0], pa.array([1, 2, 3, 4, 5], pa.int8())
    )
    db = store(RUNS)
    db.put_many(range(3), v=column)
    assert read_back(db, 3) == [[4, 5], [1, 2, 3, 4], []]

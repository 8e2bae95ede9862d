"""The one table of datatypes, and what NumPy dtypes become."""

import numpy as np
import pytest

from tilekv import datatypes
from tilekv.datatypes import DATATYPES, datatype, datatype_of
from tilekv.errors import FormatError, WrongTypeError
from tilekv.kvcore.values.keys import key_bytes


def test_codes_are_those_on_disk() -> None:
    # TileDB's tiledb_datatype_t: a row that moves makes every store unreadable.
    names = [
        "INT32",
        "INT64",
        "FLOAT32",
        "FLOAT64",
        "CHAR",
        "INT8",
        "UINT8",
        "INT16",
        "UINT16",
        "UINT32",
        "UINT64",
        "STRING_ASCII",
        "STRING_UTF8",
        "STRING_UTF16",
        "STRING_UTF32",
        "STRING_UCS2",
        "STRING_UCS4",
        "ANY",
        "DATETIME_YEAR",
        "DATETIME_MONTH",
        "DATETIME_WEEK",
        "DATETIME_DAY",
        "DATETIME_HR",
        "DATETIME_MIN",
        "DATETIME_SEC",
        "DATETIME_MS",
        "DATETIME_US",
        "DATETIME_NS",
        "DATETIME_PS",
        "DATETIME_FS",
        "DATETIME_AS",
        "TIME_HR",
        "TIME_MIN",
        "TIME_SEC",
        "TIME_MS",
        "TIME_US",
        "TIME_NS",
        "TIME_PS",
        "TIME_FS",
        "TIME_AS",
        "BLOB",
        "BOOL",
    ]
    assert [row.name for row in DATATYPES] == names
    assert [row.code for row in DATATYPES] == list(range(42))
    sizes = [4, 8, 4, 8, 1, 1, 1, 2, 2, 4, 8, 1, 1, 2, 4, 2, 4, 1, *[8] * 22, 1, 1]
    assert [row.size for row in DATATYPES] == sizes


def test_what_filters_take_for_integers() -> None:
    assert [row.code for row in DATATYPES if row.signed] == [0, 1, 5, 7]
    assert [row.code for row in DATATYPES if row.integer] == [0, 1, 5, 6, 7, 8, 9, 10, 40, 41]


def test_kinds_are_those_of_numpy() -> None:
    assert all(np.dtype(row.dtype).kind == row.kind for row in DATATYPES if row.dtype)
    assert {row.kind for row in DATATYPES if row.dtype is None} == {"text", "bytes"}


def test_codes_that_python_names() -> None:
    named = (datatypes.CHAR, datatypes.UINT64, datatypes.ASCII, datatypes.UTF8, datatypes.ANY)
    assert named == (4, 10, 11, 12, 17)


def test_codes_that_the_core_names() -> None:
    keys = ["text", b"bytes", 1, 1.5, 1 << 63]
    assert [key_bytes(key)[0] for key in keys] == [4, 40, 1, 3, 10]


@pytest.mark.parametrize("row", [row for row in DATATYPES if row.dtype])
def test_dtypes_go_both_ways(row: datatypes.Datatype) -> None:
    dtype = np.dtype(row.dtype)
    assert dtype.itemsize == row.size
    assert datatype_of(dtype) is row
    assert datatype_of(dtype.newbyteorder(">")) is row


@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        ("<M8[ns]", 27),
        (">M8[Y]", 18),
        ("<m8[h]", 31),
        ("m8[as]", 39),
        ("?", 41),
        ("q", 1),
        ("Q", 10),
    ],
)
def test_codes_of_dtypes(dtype: str, code: int) -> None:
    assert datatype_of(np.dtype(dtype)).code == code


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [
        ("float16", "float32"),
        ("longdouble", "float64"),
        ("complex128", "shape"),
        ("M8", "ms"),
        ("M8[10s]", "ms"),
        ("m8[D]", "from h"),
        ("m8", "from h"),
        ("S5", "bytes"),
        ("U5", "str"),
        ("O", "NumPy number"),
        ("i4,i4", "NumPy number"),
        ("V3", "NumPy number"),
    ],
)
def test_refused_dtypes_say_what_to_use(dtype: str, hint: str) -> None:
    with pytest.raises(WrongTypeError, match=hint):
        datatype_of(np.dtype(dtype))


@pytest.mark.parametrize("code", [-1, 42, 128, 255])
def test_unknown_codes(code: int) -> None:
    with pytest.raises(FormatError, match=str(code)):
        datatype(code)

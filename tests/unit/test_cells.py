"""kvcore.values.keys and kvcore.values.cells: keys and cells between Python and bytes."""

import datetime as dt
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilekv
from tilekv.kvcore.format.datatypes import CODES
from tilekv.kvcore.values.keys import key_bytes, key_object

TABLE: list[tuple[Any, int, bytes]] = [
    ("", 4, b""),
    ("aä€😀", 4, "aä€😀".encode()),
    ("\udcff\udc80", 4, b"\xff\x80"),
    (b"", 40, b""),
    (b"\0a", 40, b"\0a"),
    (0, 1, bytes(8)),
    (-1, 1, b"\xff" * 8),
    (2**63 - 1, 1, b"\xff" * 7 + b"\x7f"),
    (-(2**63), 1, bytes(7) + b"\x80"),
    (2**63, 10, bytes(7) + b"\x80"),
    (2**64 - 1, 10, b"\xff" * 8),
    (1.5, 3, struct.pack("<d", 1.5)),
    (-0.0, 3, struct.pack("<d", -0.0)),
    (np.int8(-1), 5, b"\xff"),
    (np.int32(1), 0, b"\1\0\0\0"),
    (np.uint64(7), 10, b"\7" + bytes(7)),
    (np.float32(1), 2, struct.pack("<f", 1)),
    (np.array([1, 2], np.int16), 7, b"\1\0\2\0"),
    (np.array([], np.uint8), 6, b""),
    (np.datetime64("1970-01-02", "D"), 21, b"\1" + bytes(7)),
    (np.timedelta64(3, "ms"), 34, b"\3" + bytes(7)),
    (tilekv.Key(11, b"ascii"), 11, b"ascii"),
    (tilekv.Key(127, b""), 127, b""),
    (tilekv.Key(1, b"odd"), 1, b"odd"),
]


@pytest.mark.parametrize(("key", "type_", "data"), TABLE, ids=lambda value: repr(value)[:20])
def test_keys_by_the_table(key: Any, type_: int, data: bytes) -> None:
    assert key_bytes(key, False) == (type_, data)
    back = key_object(type_, data, False)
    assert type(back) is type(key)
    assert str(back) == str(key)


def test_other_forms_of_the_same_keys() -> None:
    for key, same in [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (np.int64(5), 5),
        (np.float64(5), 5.0),
        (np.array([5]), 5),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (np.array([1, 2], ">i4"), np.array([1, 2], "<i4")),
        (np.array([1, 9, 2, 9], "<i4")[::2], np.array([1, 2], "<i4")),
        (tilekv.Key(4, b"a"), "a"),
    ]:
        assert key_bytes(key) == key_bytes(same)


@given(st.integers(0, 127), st.binary(max_size=17), st.booleans())
def test_any_key_from_disk_has_a_form_that_comes_back(
    type_: int, data: bytes, numbers: bool
) -> None:
    assert key_bytes(key_object(type_, data, numbers), numbers) == (type_, data)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (True, "True and 1"),
        (None, "NoneType"),
        ((1, 2), "tuple"),
        ([1], "list"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.array([["a"]]), "shape"),
        (np.array(["a", "b"]), "NumPy type"),
        (np.array([object()]), "NumPy type"),
        (np.zeros((2, 2)), "shape"),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "datetime"),
    ],
    ids=repr,
)
def test_no_keys(key: Any, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        key_bytes(key)


@pytest.mark.parametrize("key", [2**64, -(2**63) - 1, 10**30])
def test_ints_beyond_64_bits(key: int) -> None:
    with pytest.raises(OverflowError, match="64 bits"):
        key_bytes(key)


def test_key_objects() -> None:
    key = tilekv.Key(11, bytearray(b"a"))
    assert key == tilekv.Key(11, b"a") != tilekv.Key(12, b"a")
    assert {key: 1}[tilekv.Key(11, b"a")] == 1
    assert pickle.loads(pickle.dumps(key)) == key
    assert repr(key) == "Key(11, b'a')"
    with pytest.raises(AttributeError):
        key.type = 3
    for type_ in (-1, 128, True, "4"):
        with pytest.raises(ValueError, match="0 to 127"):
            tilekv.Key(type_, b"")  # type: ignore[arg-type]


# --- cells --------------------------------------------------------------------------------------


def through(value: Any, *attr: Any, **options: Any) -> Any:
    """What comes back from the buffer, and, after a flush, from a file."""
    schema = tilekv.Schema([tilekv.Attr("cell", *attr, **options)])
    with tilekv.open("memory://cells", "w", schema=schema) as db:
        db["k"] = value
        buffered = db["k"]
        db.flush()
        stored = db["k"]
    assert type(buffered) is type(stored)
    assert np.array_equal(buffered, stored, equal_nan=isinstance(stored, float))
    return stored


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    bounds = np.iinfo(name)
    for value in (int(bounds.min), int(bounds.max), 0, 1):
        back = through(value, name)
        assert (back, type(back)) == (value, int)
        assert through(np.int64(min(value, 2**63 - 1)), name) == min(value, 2**63 - 1)
        assert through([value], name, var=True).tolist() == [value]
    for value in (int(bounds.min) - 1, int(bounds.max) + 1, 2**64, -(2**64)):
        with pytest.raises(OverflowError, match=f"'cell' is {name}"):
            through(value, name)
        with pytest.raises((OverflowError, TypeError), match="'cell'"):
            through([value], name, var=True)


@pytest.mark.parametrize("dtype", sorted(CODES))
def test_every_dtype(dtype: str) -> None:
    kind = np.dtype(dtype)
    values = np.arange(6).astype(kind).reshape(2, 3)
    back = through(values, kind, shape=(2, 3))
    assert back.dtype == kind
    assert back.shape == (2, 3)
    assert (back == values).all()
    assert not back.flags.writeable
    flat = through(values[0][::-1], kind, var=True)
    assert flat.dtype == kind
    assert (flat == values[0][::-1]).all()
    assert not flat.flags.writeable
    assert through(values[0][:0], kind, var=True).shape == (0,)
    assert through(values[0][1], kind) == values[0][1]
    swapped = values.astype(kind.newbyteorder(">"))
    assert (through(swapped, kind, shape=(2, 3)) == values).all()


def test_scalars_come_back_as_documented() -> None:
    assert type(through(1, "int8")) is int
    assert type(through(1, "float64")) is float
    assert type(through(1, "float32")) is np.float32
    assert type(through(True, "bool")) is bool
    assert type(through(np.datetime64("2020-01-01"), "datetime64[D]")) is np.datetime64
    assert type(through(np.timedelta64(1, "s"), "timedelta64[s]")) is np.timedelta64
    assert np.isnan(through(float("nan"), "float64"))
    assert str(through(-0.0, "float64")) == "-0.0"
    assert through(bytearray(b"ab"), bytes) == b"ab"
    assert through(memoryview(b"abcd")[::2], bytes) == b"ac"
    assert through("ä\0€", str) == "ä\0€"


@pytest.mark.parametrize(
    ("value", "attr", "error"),
    [
        ("text", {"dtype": bytes}, TypeError),
        (None, {"dtype": bytes}, TypeError),
        (1, {"dtype": bytes}, TypeError),
        (b"bytes", {"dtype": str}, TypeError),
        ("\ud800", {"dtype": str}, ValueError),
        (1.0, {"dtype": "int32"}, TypeError),
        ("1", {"dtype": "int32"}, TypeError),
        (np.array([1]), {"dtype": "int32"}, TypeError),
        (1j, {"dtype": "float64"}, TypeError),
        ("1", {"dtype": "float64"}, TypeError),
        (10**400, {"dtype": "float64"}, OverflowError),
        (1, {"dtype": "bool"}, TypeError),
        ([1, 2], {"dtype": "int32", "shape": (3,)}, ValueError),
        ([1, 2, 3], {"dtype": "int32", "shape": (3, 1)}, ValueError),
        ([[1]], {"dtype": "int32", "var": True}, ValueError),
        ([1.5], {"dtype": "int32", "var": True}, TypeError),
        (["a"], {"dtype": "int32", "var": True}, TypeError),
        ([1, 2], {"dtype": "bool", "var": True}, TypeError),
        ([300], {"dtype": "uint8", "var": True}, OverflowError),
        ([-1], {"dtype": "uint64", "var": True}, OverflowError),
        (1, {"dtype": "datetime64[s]"}, TypeError),
        ("2020-01-01", {"dtype": "datetime64[s]"}, TypeError),
    ],
    ids=repr,
)
def test_wrong_cells(value: Any, attr: dict[str, Any], error: type[Exception]) -> None:
    schema = tilekv.Schema([tilekv.Attr("fine", "int32"), tilekv.Attr("odd", **attr)])
    with tilekv.open("memory://wrong", "w", schema=schema) as db:
        with pytest.raises(error, match="'odd'") as caught:
            db["k"] = (1, value)
        assert isinstance(caught.value, tilekv.TileKVError)
        assert db.info().buffered == 0


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.datetime64("3000-01-01"), "datetime64[ns]"),  # not in 64 bits: it came back as 1830
        (np.datetime64("2020-01-01T00:00:00.5"), "datetime64[s]"),
        (
            np.datetime64(-(2**63) + 1, "ns"),
            "datetime64[Y]",
        ),  # nor the first day of that year in ns
        (np.timedelta64(1500, "ms"), "timedelta64[s]"),
    ],
)
def test_times_that_their_unit_cannot_hold(value: Any, dtype: str) -> None:
    for cell, options in [(value, {}), ([value], {"var": True})]:
        with pytest.raises((OverflowError, ValueError), match="'cell'"):
            through(cell, dtype, **options)


@pytest.mark.parametrize(
    ("value", "attr"),
    [
        (np.timedelta64(1, "s"), {"dtype": "float64"}),
        (np.datetime64(1, "s"), {"dtype": "float64"}),
        ([[1, 2], [3]], {"dtype": "int8", "var": True}),
    ],
    ids=repr,
)
def test_what_numpy_refuses_is_our_error_too(value: Any, attr: dict[str, Any]) -> None:
    schema = tilekv.Schema([tilekv.Attr("odd", **attr)])
    with (
        tilekv.open("memory://wrong", "w", schema=schema) as db,
        pytest.raises((TypeError, ValueError), match="'odd'"),
    ):
        db["k"] = value

"""kvcore.values.values: cells between Python and bytes, and what is refused."""

from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv.kvcore.format.datatypes import CODES


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

"""What a value becomes in an attribute, and a key in a store, by the integers and fractions of Python alone."""

import datetime as dt
import math
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
MOMENTS = [
    f"datetime64[{unit}]"
    for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
]
DURATIONS = [f"timedelta64[{unit}]" for unit in ("h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")]
DTYPES = [*INTEGERS, "float32", "float64", "bool", *MOMENTS, *DURATIONS]
SECOND = 10**18  # in attoseconds
UNITS = {
    "W": 7 * 86400 * SECOND,
    "D": 86400 * SECOND,
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 10**15,
    "us": 10**12,
    "ns": 10**9,
    "ps": 10**6,
    "fs": 10**3,
    "as": 1,
}
NAT = -(2**63)


def element(value: Any, dtype: np.dtype[Any] | type) -> set[bytes]:
    """The bytes that a value may become in an attribute; none when it must be refused."""
    if dtype is str:
        try:
            return {value.encode()} if isinstance(value, str) else set()
        except UnicodeEncodeError:
            return set()
    if dtype is bytes:
        return {bytes(value)} if isinstance(value, (bytes, bytearray, memoryview)) else set()
    assert isinstance(dtype, np.dtype)
    if dtype.kind in "mM":
        count = ticks(value, dtype)
        return set() if count is None else {struct.pack("<q", count)}
    truth = isinstance(value, (bool, np.bool_))
    if dtype.kind == "b" or truth:
        return {bytes([bool(value)])} if dtype.kind == "b" and truth else set()
    if dtype.kind in "iu":
        number = rational(value)
        if not isinstance(number, Fraction) or number.denominator != 1:
            return set()
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max)
        held = low <= number <= high
        return (
            {int(number).to_bytes(dtype.itemsize, "little", signed=dtype.kind == "i")}
            if held
            else set()
        )
    return real(value, dtype)


def rational(value: Any) -> Fraction | float | None:
    """A finite number as a fraction; infinities and NaNs as floats; None for what is no number."""
    if isinstance(value, np.timedelta64):  # which NumPy calls an integer
        return None
    if isinstance(value, (int, np.integer)):
        return Fraction(int(value))
    if isinstance(value, (Decimal, Fraction, float, np.floating)):
        if isinstance(value, Fraction):
            return value
        if value != value or value in (math.inf, -math.inf):
            return float(value)
        return Fraction(*value.as_integer_ratio())
    return None


def real(value: Any, dtype: np.dtype[Any]) -> set[bytes]:
    number = rational(value)
    if number is None:
        return set()
    code = "<f" if dtype.itemsize == 4 else "<d"
    if isinstance(number, float) and number != number:
        if isinstance(value, (float, np.floating)) and np.asarray(value).itemsize == dtype.itemsize:
            return {np.asarray(value).tobytes()}
        return NAN  # of another width: some NaN
    if isinstance(number, float):
        return {struct.pack(code, number)}
    if not number:
        signed = isinstance(value, (Decimal, float, np.floating)) and str(value).startswith("-")
        return {struct.pack(code, -0.0 if signed else 0.0)}
    try:
        bits = struct.pack(code, float(number))  # rounded to the nearest
    except OverflowError:
        return set()
    rounded = struct.unpack(code, bits)[0]
    single = (
        code == "<f" and isinstance(value, (float, np.floating)) and np.asarray(value).itemsize <= 8
    )
    return {bits} if math.isfinite(rounded) and (single or Fraction(rounded) == number) else set()


NAN = {b"a NaN"}


def days(year: int, month: int) -> int:
    """From 1970-01-01 to the first of a month, by the calendar of today at any time."""
    year -= month <= 2
    era, rest = divmod(year, 400)
    return (
        era * 146097
        + rest * 365
        + rest // 4
        - rest // 100
        + (153 * ((month + 9) % 12) + 2) // 5
        - 719468
    )


def ticks(value: Any, dtype: np.dtype[Any]) -> int | None:
    """A time in the unit of dtype."""
    if value is pd.NaT:
        return NAT
    unit = np.datetime_data(dtype)[0]
    if dtype.kind == "m":
        if isinstance(value, pd.Timedelta):
            value = value.to_timedelta64()
        if isinstance(value, np.timedelta64):
            came, step = np.datetime_data(value.dtype)
            if np.isnat(value):
                return NAT
            if came not in UNITS:
                return None
            total = int(value.view(np.int64)) * step * UNITS[came]
        elif isinstance(value, dt.timedelta):
            total = ((value.days * 86400 + value.seconds) * 10**6 + value.microseconds) * 10**12
        else:
            return None
        return whole(total, UNITS[unit])
    found = instant(value)
    if found is None or found == NAT:
        return NAT if found is not None else None
    if unit not in "YM":
        return whole(found, UNITS[unit])
    day, rest = divmod(found, UNITS["D"])
    if rest:
        return None
    month = day * 4800 // 146097 - 2  # about, and a few more at most
    while days(1970 + month // 12, month % 12 + 1) < day:
        month += 1
    if days(1970 + month // 12, month % 12 + 1) != day or (unit == "Y" and month % 12):
        return None
    return whole(month, 1 if unit == "M" else 12)


def instant(value: Any) -> int | None:
    """In attoseconds since 1970; NAT; None when it is no moment."""
    if isinstance(value, pd.Timestamp):
        value = value.to_datetime64()
    if isinstance(value, np.datetime64):
        unit, step = np.datetime_data(value.dtype)
        if np.isnat(value):
            return NAT
        count = int(value.view(np.int64)) * step
        if unit in "YM":
            months = count * 12 if unit == "Y" else count
            return days(1970 + months // 12, months % 12 + 1) * UNITS["D"]
        return count * UNITS[unit]
    if isinstance(value, dt.datetime):
        since = value.replace(tzinfo=None) - dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as NumPy has them
        since -= value.utcoffset() or dt.timedelta()
        return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 10**12
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days * UNITS["D"]
    return None


def whole(total: int, unit: int) -> int | None:
    count, rest = divmod(total, unit)
    return count if not rest and NAT < count < 2**63 else None


def aware(value: Any) -> bool | None:
    """Whether a moment has a zone; None of what is no moment."""
    if value is pd.NaT or instant(value) in (None, NAT):
        return None
    return isinstance(value, dt.datetime) and value.utcoffset() is not None


def cells(values: Sequence[Any], dtype: Any, shape: tuple[int, ...] | None) -> list[set[bytes]]:
    """What each of the values may be in an attribute; shape None: of any length."""
    found = [cell(value, dtype, shape) for value in values]
    mixed = {aware(each) for value in values for each in flat(value)}
    if isinstance(dtype, np.dtype) and dtype.kind == "M" and {True, False} <= mixed:
        return [set() for _ in values]
    return found


def counts(values: Sequence[Any], dtype: Any) -> list[set[bytes]]:
    """What integers become that come as Arrow: times of a unit that Arrow has no type for."""
    units = ("Y", "M", "W", "h", "m", "ps", "fs", "as")
    if (
        not isinstance(dtype, np.dtype)
        or dtype.kind not in "mM"
        or np.datetime_data(dtype)[0] not in units
    ):
        return [set() for _ in values]
    parts = [list(flat(value)) for value in values]
    if not all(type(each) is np.int64 for part in parts for each in part):
        return [set() for _ in values]
    return [{b"".join(each.tobytes() for each in part)} for part in parts]


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, np.ndarray)):
        for each in value:
            yield from flat(each)
    else:
        yield value


def cell(value: Any, dtype: Any, shape: tuple[int, ...] | None) -> set[bytes]:
    if shape == ():
        return element(value, dtype)
    if not isinstance(value, (list, np.ndarray)):
        return set()
    parts = [element(each, dtype) for each in flat(value)]
    if not all(parts):
        return set()
    if any(part is NAN for part in parts):
        return NAN
    return {b"".join(next(iter(part)) for part in parts)}


def identity(key: Any) -> tuple[str, bytes] | None:
    """What makes a key the key it is; None when it can be none."""
    if isinstance(key, str):
        try:
            spelled = key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return None
        return ("text", spelled) if spelled.decode("utf-8", "surrogateescape") == key else None
    if isinstance(key, (bytes, bytearray, memoryview)):
        return "bytes", bytes(key)
    if isinstance(key, bool):
        return None
    if isinstance(key, (int, np.integer)) and not isinstance(key, np.timedelta64):
        return ("integer", b"%d" % key) if -(2**63) <= key < 2**64 else None
    if isinstance(key, (float, np.floating)):
        if key != key:
            return "float", wide_nan(np.asarray(key))
        bits = real(key, np.dtype("float64"))
        return ("float", *bits) if bits else None
    if isinstance(key, (np.datetime64, np.timedelta64, np.bool_)):
        unit = "" if isinstance(key, np.bool_) else np.datetime_data(key.dtype)
        known = unit == "" or f"{key.dtype}" in (*MOMENTS, *DURATIONS)
        return (f"{key.dtype}", key.tobytes()) if known else None
    return None


def wide_nan(nan: np.ndarray[Any, Any]) -> bytes:
    """The NaN as a double: its sign, and its payload at the same place below the point."""
    if nan.dtype == np.longdouble:
        return nan.astype("f8").tobytes()
    size, digits = nan.dtype.itemsize, {2: 10, 4: 23, 8: 52}[nan.dtype.itemsize]
    bits = int.from_bytes(nan.tobytes(), "little")
    payload = (bits & ((1 << digits) - 1)) << (52 - digits)
    return (bits >> (8 * size - 1) << 63 | 0x7FF << 52 | payload).to_bytes(8, "little")

"""Random values and keys, of every type and at every edge, with the containers that they come in."""

# Times without a zone too: they are what is tried.
# ruff: noqa: DTZ001

import datetime as dt
import math
import random
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

import containers
import exactness
from containers import Made
from exactness import DTYPES, DURATIONS, INTEGERS, MOMENTS
from tilekv import Attr

# Powers of two are where types end, and where a float's integers do.
EDGES = [0, *(2**bits + k for bits in (0, 1, 7, 8, 15, 16, 24, 31, 32, 53, 63, 64) for k in (0, 1))]
# Zeros, infinities, NaNs quiet and signalling, the least, one, 2**53 + 2, the greatest, a tenth.
ODD_FLOATS = [
    *("0000000000000000", "8000000000000000", "7ff0000000000000", "fff0000000000000"),
    *("7ff8000000000000", "7ff0000000000001", "fff4000000000007", "0000000000000001"),
    *("3ff0000000000000", "4340000000000001", "7fefffffffffffff", "3fb999999999999a"),
]
ZONES = [
    dt.UTC,
    dt.timezone(dt.timedelta(hours=5, minutes=30, microseconds=7)),
    dt.timezone(-dt.timedelta(hours=23, seconds=59)),
]
TEXTS = ["", "a", "a\0", "\0", "é", "𝄞", "nan", "NaT", "None", "1", "x" * 300, "\ufeff", "e\u0301"]
SURROGATES = ["\ud800", "a\udcff", "\udcc3\udca9"]
BLOBS = [b"", b"a", b"a\0", b"\0\0", b"\xff\xfe", b"x" * 300, b"nan", b"1"]


def integer(pick: random.Random) -> int:
    if pick.random() < 0.5:
        return pick.randrange(-100, 100)
    return pick.choice([1, -1]) * pick.choice(EDGES) - pick.choice([0, 0, 1])


def numbers(pick: random.Random, dtype: np.dtype[Any], n: int) -> np.ndarray[Any, Any]:
    """Of one type: small ones, edges, or any bits."""
    mode = pick.random()
    if dtype.kind == "b":
        return np.array([pick.random() < 0.5 for _ in range(n)], bool)
    if dtype.kind in "iu":
        if mode < 0.3:
            return np.frombuffer(pick.randbytes(n * dtype.itemsize), dtype)
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return np.array([min(max(integer(pick), low), high) for _ in range(n)], dtype)
    if dtype.kind == "f":
        if mode < 0.3 and dtype.itemsize <= 8:
            return np.frombuffer(pick.randbytes(n * dtype.itemsize), dtype)
        if mode < 0.6:
            with np.errstate(all="ignore"):
                return np.array([integer(pick) for _ in range(n)]).astype(dtype)
        odd = np.array([odd_float(pick) for _ in range(n)])
        with np.errstate(all="ignore"):
            return odd.astype(dtype) if pick.random() < 0.7 else odd.astype(dtype) / dtype.type(3)
    counts = [
        pick.randrange(-1000, 20_000)
        if mode < 0.7
        else pick.choice([0, 1, -1, 2**31, -(2**40), 2**53 + 1, 2**63 - 1, 1 - 2**63])
        for _ in range(n)
    ]
    if pick.random() < 0.15 and n:
        counts[pick.randrange(n)] = exactness.NAT
    return np.array(counts, np.int64).view(dtype)


def odd_float(pick: random.Random) -> float:
    return struct.unpack(">d", bytes.fromhex(pick.choice(ODD_FLOATS)))[0]


def number(pick: random.Random) -> Any:
    """One, of any type."""
    whole = integer(pick)
    choice = pick.randrange(9)
    if choice < 2:
        return whole
    if choice == 2:
        return odd_float(pick)
    if choice == 3:
        return pick.choice([Decimal(whole), Decimal(whole) / 4, Decimal("0.1"), Decimal("-0")])
    if choice == 4:
        return pick.choice([Fraction(whole), Fraction(whole, 8), Fraction(1, 3)])
    if choice == 5:
        return numbers(pick, np.dtype("longdouble"), 1)[0]
    dtype = np.dtype(pick.choice([*INTEGERS, "float16", "float32", "float64"]))
    return numbers(pick, dtype, 1)[0]


def moment(pick: random.Random, aware: bool) -> Any:
    when = pick.choice(
        [
            dt.datetime(1, 1, 2, 3),
            dt.datetime(1969, 12, 31, 23, 59, 59, 999_999),
            dt.datetime(1970, 1, 1),
            dt.datetime(2024, 2, 1),
            dt.datetime(2262, 4, 12),
            dt.datetime(9999, 12, 30),
        ]
    )
    when += (
        pick.choice([dt.timedelta(0), dt.timedelta(pick.randrange(1000)), dt.timedelta(0, 0, 1)])
        if when.year < 9999
        else dt.timedelta(0)
    )
    stamp = pd.Timestamp(pick.choice([0, 1, 10**18 + 123_456_789]), unit="ns")
    if aware:
        return pick.choice(
            [
                when.replace(tzinfo=pick.choice(ZONES)),
                stamp.tz_localize(pick.choice(["UTC", "Asia/Kolkata"])),
            ]
        )
    unit = np.dtype(pick.choice(MOMENTS))
    return pick.choice(
        [when, when.date(), stamp, stamp.as_unit("s"), pd.NaT, numbers(pick, unit, 1)[0]]
    )


def duration(pick: random.Random) -> Any:
    unit = np.dtype(pick.choice(DURATIONS))
    some = dt.timedelta(pick.randrange(-9, 9), pick.choice([0, 1]), pick.choice([0, 1]))
    return pick.choice(
        [
            some,
            pd.Timedelta(1500, "ns"),
            pd.Timedelta(7, "s"),
            pd.NaT,
            dt.timedelta.min,
            numbers(pick, unit, 1)[0],
            np.timedelta64(2, "W"),
        ]
    )


def anything(pick: random.Random) -> Any:
    return pick.choice(
        [
            None,
            pd.NA,
            pd.NaT,
            math.nan,
            True,
            np.True_,
            "1",
            b"1",
            1,
            1.5,
            2**70,
            dt.time(1),
            object(),
            1j,
            Ellipsis,
            np.datetime64(5, "s"),
            dt.date(2020, 1, 1),
            np.timedelta64(1, "Y"),
        ]
    )


def mixed(pick: random.Random, dtype: Any, n: int) -> list[Any]:
    """Objects for an attribute of a type: mostly such as it holds."""
    aware = pick.random() < 0.3
    tame = pick.random() < 0.75
    found: list[Any] = []
    while len(found) < n:
        if pick.random() < 0.02:
            value = anything(pick)
        elif dtype is str:
            value = pick.choice([*TEXTS, *TEXTS, np.str_("é"), pick.choice(SURROGATES)])
        elif dtype is bytes:
            value = pick.choice([*BLOBS, bytearray(b"a\0"), memoryview(b"b"), np.bytes_(b"c")])
        elif dtype.kind == "M":
            value = moment(pick, aware if pick.random() < 0.95 else not aware)
        elif dtype.kind == "m":
            value = duration(pick)
        elif dtype.kind == "b":
            value = pick.choice([True, False, np.True_, np.False_])
        else:
            value = number(pick)
        if tame and not exactness.element(value, dtype) and pick.random() < 0.98:
            continue
        found.append(value)
    return found


def sides(attr: Attr) -> tuple[int, ...] | None:
    """The shape of a cell; None when it is of any length."""
    return None if attr.var and attr.type_name not in ("str", "bytes") else attr.shape or ()


def column(pick: random.Random, attr: Attr, n: int) -> tuple[Made, list[Any], bool]:
    """Values for an attribute: their containers, what they hold, and whether they are all of the attribute's own type."""
    dtype: Any = {"str": str, "bytes": bytes}.get(attr.type_name) or attr.dtype
    if pick.random() < 0.05:  # others'
        dtype = pick.choice([str, bytes, *map(np.dtype, DTYPES)])
    if dtype in (str, bytes):
        if pick.random() < 0.3:
            values = mixed(pick, dtype, n)
            return containers.of_objects(values), values, False
        values = [pick.choice(TEXTS if dtype is str else BLOBS) for _ in range(n)]
        made = containers.of_texts(values) if dtype is str else containers.of_blobs(values)
        return made, values, attr.type_name == dtype.__name__
    source = dtype
    if pick.random() < 0.3:
        kind = dtype.kind
        source = np.dtype(
            pick.choice(
                MOMENTS
                if kind == "M"
                else DURATIONS
                if kind == "m"
                else [*INTEGERS, "float16", "float32", "float64", "longdouble", "bool"]
            )
        )
    shape = sides(attr)
    if shape == ():
        if pick.random() < 0.4:
            values = mixed(pick, dtype, n)
            return containers.of_objects(values), values, False
        array = numbers(pick, source, n)
        return containers.of_array(array), list(array), source == attr.dtype
    if pick.random() < 0.3 and (shape is None or len(shape) == 1):
        deep = [mixed(pick, dtype, shape[0] if shape else pick.randrange(4)) for _ in range(n)]
        made = containers.of_objects(deep)
        made.pop("pd categories", None)
        return made, deep, False
    arrays = [
        numbers(pick, source, int(np.prod(shape)) if shape else pick.randrange(4)).reshape(
            shape or -1
        )
        for _ in range(n)
    ]
    return containers.of_lists(arrays), arrays, source == attr.dtype


def attribute(pick: random.Random) -> Attr:
    dtype: Any = pick.choice(
        [
            *DTYPES,
            "float32",
            "float64",
            "int64",
            str,
            bytes,
            str,
            bytes,
            "datetime64[ns]",
            "datetime64[us]",
        ]
    )
    if dtype in (str, bytes) or pick.random() < 0.6:
        return Attr("v", dtype)
    return Attr(
        "v",
        dtype,
        **pick.choice([{"var": True}, {"shape": (3,)}, {"shape": (2, 2)}, {"shape": (1,)}]),
    )


def key_column(pick: random.Random, n: int) -> tuple[Made, list[Any]]:
    """Keys: their containers, and what they hold."""
    choice = pick.random()
    if choice < 0.2:
        texts = [pick.choice(TEXTS) for _ in range(n)]
        return containers.of_texts(texts), texts
    if choice < 0.35:
        blobs = [pick.choice(BLOBS) for _ in range(n)]
        return containers.of_blobs(blobs), blobs
    if choice < 0.7:
        dtype = np.dtype(
            pick.choice([*DTYPES, *INTEGERS, "float16", "float32", "float64", "longdouble"])
        )
        array = numbers(pick, dtype, n)
        made = containers.of_array(array)
        if dtype.kind == "b":
            made.pop("py objects")  # Python's bools are no keys
        return made, list(array)
    found: list[Any] = []
    while len(found) < n:
        made = [
            lambda: pick.choice([*TEXTS, *SURROGATES[1:2]]),
            lambda: pick.choice(BLOBS),
            lambda: number(pick),
            lambda: numbers(pick, np.dtype(pick.choice(DTYPES)), 1)[0],
            lambda: pick.choice(SURROGATES),
            lambda: anything(pick),
        ]
        value = pick.choices(made, [4, 3, 8, 3, 0.5, 0.5])[0]()
        if exactness.identity(value) is not None or pick.random() < 0.2:
            found.append(value)
    return containers.of_objects(found), found

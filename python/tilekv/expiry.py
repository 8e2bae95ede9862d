"""Moments of expiry: what a user gives, as ms since 1970 (docs/design.md 3.7)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sized
from collections.abc import Set as AbstractSet
from typing import Any, Final

import numpy as np

from tilekv.errors import InvalidValueError, OutOfRangeError, WrongTypeError, shown

NEVER: Final = 2**63 - 1
# The end of the year 9999: the last moment that a datetime can tell.
LAST: Final = 253_402_300_799_999
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
_COARSE: Final = ("Y", "M", "W", "D", "h", "m", "s")  # units of NumPy longer than a ms


def seen_at(timestamp: int | None) -> int | None:
    """The moment, in ms, by which a handle of that timestamp leaves out what has expired; None: the one when it is asked."""
    return None if timestamp is None else min(max(timestamp, 1), LAST)


def moment(expire: Any, now: int) -> int:
    """When something expires, in ms since 1970.

    Parameters
    ----------
    expire : None, int, float, datetime.timedelta, datetime.datetime, numpy.timedelta64 or numpy.datetime64
        Never; seconds from now, or a span of time; or the moment itself: a datetime without a zone is local time, a datetime64
        UTC. What is past has expired already.
    now : int
        ms since 1970.

    Raises
    ------
    WrongTypeError, InvalidValueError, OutOfRangeError
        For anything else, for what is no number or no time, and for moments after the year 9999.
    """
    if expire is None:
        return NEVER
    if isinstance(expire, (np.datetime64, np.timedelta64)):
        return int(_words(np.asarray(expire).reshape(1), now)[0])
    if isinstance(expire, dt.datetime):
        if expire != expire:  # pandas' NaT
            raise InvalidValueError("expire is not a time")
        if hasattr(
            expire, "to_pydatetime"
        ):  # pandas' Timestamp: without a zone it has no astimezone()
            expire = expire.to_pydatetime(warn=False)
        try:
            return _within((expire.astimezone(dt.UTC) - _EPOCH) // _MS)
        except (ValueError, OverflowError, OSError):  # in UTC it is in the year 0, or 10000
            return _within(LAST + 1 if expire.year > 1970 else 0)
    if isinstance(expire, dt.timedelta):
        if expire != expire:
            raise InvalidValueError("expire is not a time")
        return _within(now + expire // _MS)
    if isinstance(expire, (bool, np.bool_)) or not isinstance(
        expire, (int, float, np.integer, np.floating)
    ):
        raise WrongTypeError(
            f"expire is a number of seconds, a timedelta, a datetime or None, not {type(expire).__name__}"
        )
    seconds = int(expire) if isinstance(expire, (int, np.integer)) else float(expire)
    if seconds != seconds:
        raise InvalidValueError("expire is not a number")
    if seconds > LAST:
        raise OutOfRangeError(f"expire is after the year 9999: {shown(expire)}")
    return _within(now + round(max(seconds, -LAST) * 1000))


def moments(expire: Any, n: int, now: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The moments of n entries, or one for all of them: `expire` as of moment(), or a column of n such.

    An array of numbers, datetime64 or timedelta64 is converted as a whole.
    """
    if expire is None or isinstance(expire, (int, float, dt.datetime, dt.timedelta, np.generic)):
        return np.array([moment(expire, now)], np.int64)
    if (
        isinstance(expire, (str, bytes, Mapping, AbstractSet))
        or not isinstance(expire, Sized)
        or not isinstance(expire, Iterable)
        or getattr(expire, "shape", None) == ()
    ):
        raise WrongTypeError(
            f"expire is one moment or a column of them, not {type(expire).__name__}"
        )
    dtype = getattr(expire, "dtype", None)
    whole = isinstance(dtype, np.dtype) and dtype.kind in "iufmM"
    column = np.asanyarray(expire) if whole else list(expire)
    if len(column) != n:
        raise InvalidValueError(f"{n} keys, but {len(column)} values of expire")
    if isinstance(column, np.ndarray):
        return _words(column, now)
    return np.array([moment(one, now) for one in column], np.int64)


def put_expiring(store: Any, entries: list[tuple[Any, Any]], words: list[int]) -> None:
    """Set entries of a Store with moments in ms, as another store has them."""
    keys = [key for key, _ in entries]
    store._apply((), keys, [value for _, value in entries], np.array(words, np.int64), ())


def expires_at(ms: int) -> dt.datetime | None:
    """The moment as a datetime in UTC; None for never."""
    return None if ms == NEVER else _EPOCH + dt.timedelta(milliseconds=ms)


def _words(given: np.ndarray[Any, Any], now: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if given.ndim != 1:
        raise InvalidValueError(f"expire has {given.ndim} dimensions, not one")
    if np.ma.is_masked(given):
        raise InvalidValueError("expire has masked elements")
    given = np.asarray(given)
    kind = given.dtype.kind
    if kind in "mM":
        if np.isnat(given).any():
            raise InvalidValueError("expire is not a time")
        unit, _ = np.datetime_data(given.dtype)
        if unit == "generic":
            raise InvalidValueError("expire is a time without a unit")
        words = given.astype(f"{kind}8[ms]")
        # Years to seconds are multiplied: NumPy does not say when 64 bits are too few.
        if unit in _COARSE and (words.astype(given.dtype) != given).any():
            raise OutOfRangeError("expire is a moment that 64 bits of ms cannot tell")
        spans = np.maximum(words.astype(np.int64), -LAST)
        if (spans > LAST).any():
            raise OutOfRangeError("expire is after the year 9999")
        found = spans + (now if kind == "m" else 0)
    else:
        if kind == "f" and np.isnan(given).any():
            raise InvalidValueError("expire is not a number")
        seconds = np.maximum(given.astype(np.float64), -LAST)
        if (seconds > LAST).any():
            raise OutOfRangeError("expire is after the year 9999")
        found = now + np.round(seconds * 1000).astype(np.int64)
    if (found > LAST).any():
        raise OutOfRangeError("expire is after the year 9999")
    ms: np.ndarray[Any, np.dtype[np.int64]] = np.maximum(found, 1)
    return ms


def _within(ms: int) -> int:
    """0 stands for "no moment" where cells are read, and what is past is past."""
    if ms > LAST:
        raise OutOfRangeError("expire is after the year 9999")
    return max(ms, 1)

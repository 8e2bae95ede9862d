"""Moments of expiry: what a user gives, as ms since 1970 (docs/design.md 3.7)."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any, Final

import numpy as np

from tilekv.errors import InvalidValueError, OutOfRangeError, WrongTypeError, shown

NEVER: Final = 2**63 - 1
# The end of the year 9999: the last moment that a datetime can tell.
LAST: Final = 253_402_300_799_999
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)


def clock() -> int:
    """ms since 1970, by the local clock."""
    return time.time_ns() // 1_000_000


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
        return _within((expire.astimezone(dt.UTC) - _EPOCH) // _MS)
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
    seconds = float(expire)
    if seconds != seconds:
        raise InvalidValueError("expire is not a number")
    if abs(seconds) > LAST:
        raise OutOfRangeError(f"expire is after the year 9999: {shown(expire)}")
    return _within(now + round(seconds * 1000))


def moments(expire: Any, n: int, now: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The moments of n entries, or one for all of them: `expire` as of moment(), or a column of n such.

    An array of numbers, datetime64 or timedelta64 is converted as a whole.
    """
    if expire is None or isinstance(expire, (int, float, dt.datetime, dt.timedelta, np.generic)):
        return np.array([moment(expire, now)], np.int64)
    if isinstance(expire, (str, bytes)) or not hasattr(expire, "__len__"):
        raise WrongTypeError(
            f"expire is one moment or a column of them, not {type(expire).__name__}"
        )
    if len(expire) != n:
        raise InvalidValueError(f"{n} keys, but {len(expire)} values of expire")
    dtype = getattr(expire, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "iufmM":
        return _words(np.asarray(expire), now)
    return np.array([moment(one, now) for one in expire], np.int64).reshape(n)


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
    kind = given.dtype.kind
    if kind in "mM":
        if np.isnat(given).any():
            raise InvalidValueError("expire is not a time")
        unit = "datetime64[ms]" if kind == "M" else "timedelta64[ms]"
        words = given.astype(unit)
        if (words.astype(given.dtype) != given.astype(unit).astype(given.dtype)).any():
            raise OutOfRangeError("expire is a moment that 64 bits of ms cannot tell")
        spans = words.astype(np.int64)
        if (np.abs(spans.astype(np.float64)) > LAST).any():
            raise OutOfRangeError("expire is after the year 9999")
        found = spans + (now if kind == "m" else 0)
    else:
        if kind == "f" and np.isnan(given).any():
            raise InvalidValueError("expire is not a number")
        if (np.abs(given.astype(np.float64)) > LAST).any():
            raise OutOfRangeError("expire is after the year 9999")
        found = now + np.round(given.astype(np.float64) * 1000).astype(np.int64)
    if (found > LAST).any():
        raise OutOfRangeError("expire is after the year 9999")
    ms: np.ndarray[Any, np.dtype[np.int64]] = np.maximum(found, 1)
    return ms


def _within(ms: int) -> int:
    """0 stands for "no moment" where cells are read, and what is past is past."""
    if ms > LAST:
        raise OutOfRangeError("expire is after the year 9999")
    return max(ms, 1)

"""The local clock."""

from __future__ import annotations

import time


def milliseconds() -> int:
    """ms since 1970."""
    return time.time_ns() // 1_000_000


def seconds() -> float:
    """Seconds since some moment, those included in which the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

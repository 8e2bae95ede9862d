"""The local clock."""

from __future__ import annotations

import time


def milliseconds() -> int:
    """ms since 1970."""
    return time.time_ns() // 1_000_000

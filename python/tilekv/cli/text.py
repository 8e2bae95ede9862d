"""How sizes, times, keys and errors are written for people."""

from __future__ import annotations

import math
import re
from typing import Final

from tilekv.errors import TileKVError

UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> float:
    """The seconds that `90`, `1.5h`, `10m` or `3d` stands for, infinite for `never`; ValueError for anything else."""
    if text == "never":
        return math.inf
    unit = text[-1:] if text[-1:] in UNITS else ""
    seconds = float(text.removesuffix(unit)) * UNITS[unit]
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def size_text(size: float) -> str:
    """A number of bytes with a decimal unit: 421.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def time_text(seconds: float) -> str:
    """A duration in whole seconds: 0:07, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """1 file, 2,000 files, 3 entries."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def key_text(key: object) -> str:
    """A str key as it is; one that would break a line or steer a terminal, and any other key, as Python writes it."""
    return key if isinstance(key, str) and not re.search(r"[\0-\x1f\x7f-\x9f]", key) else repr(key)


def error_text(error: BaseException) -> str:
    """What went wrong, on one line and without an errno."""
    text = error.for_shell if isinstance(error, TileKVError) else str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.splitlines()) or type(error).__name__

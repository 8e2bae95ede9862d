"""How figures are said: medians with their spread, and goals as met or not met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def milliseconds(seconds: Sequence[float]) -> str:
    """The median, and in brackets the quartiles."""
    low, middle, high = quartiles(seconds)
    return f"{middle * 1e3:.2f} ({low * 1e3:.2f}..{high * 1e3:.2f})"


def quartiles(figures: Sequence[float]) -> tuple[float, float, float]:
    """The first quartile, the median and the third; of one figure all three are that."""
    if len(figures) == 1:
        return (figures[0],) * 3
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, middle, high


def goal(what: str, found: float, bound: float, unit: str = "") -> str:
    """Whether a figure is at most its bound, in one line."""
    verdict = "met" if found <= bound else "NOT MET"
    return f"{what}: at most {bound:g}{unit}: {verdict} ({found:.3g}{unit})"


def at_least(what: str, found: float, bound: float) -> str:
    """Whether a figure is at least its bound, in one line."""
    verdict = "met" if found >= bound else "NOT MET"
    return f"{what}: at least {bound:g}: {verdict} ({found:.3g})"

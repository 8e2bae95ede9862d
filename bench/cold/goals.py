"""What is asked of look-ups in stores of 10,000,000 keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.goals import Goal, Results
from bench.life.figures import quartiles

KEYS = 10_000_000  # that the goals are for
READ = ", bytes read"  # of an operation: after the name of its pass

GOALS = (
    Goal("cold get", 1.2, "lmdb", data="equal"),
    Goal("cold get", 1, "rocksdict", data="equal"),
    Goal("cold get" + READ, 65_536, at_most=True, data="equal"),
    Goal("cold get", 0.6, "lmdb", data="varying"),
    Goal("get in 256 MiB", 1.2, "lmdb", data="equal"),
    Goal("get in 256 MiB", 1, "rocksdict", data="equal"),
    Goal("get in 256 MiB", 0.6, "lmdb", data="varying"),
    Goal("cold get_many", 3.5, "lmdb", data="equal"),
    Goal("cold get_many", 2, "rocksdict", data="equal"),
    Goal("cold get_many", 2, "lmdb", data="varying"),
    Goal("first touch", 0.6, "lmdb", data="equal"),
    Goal("first touch", 1.5, "rocksdict", data="equal"),
    Goal("first touch", 1, "lmdb", data="lz4"),
    Goal("miss", 1, "rocksdict", data="ten"),
    Goal("miss", 1, "lmdb", data="ten"),
    Goal("open", 2e-3, at_most=True, data="forty"),
    Goal("range", 1e-3, at_most=True, data="large"),
    Goal("cold range", 1e-3, at_most=True, data="large"),
    Goal("prefix", 30e6, data="equal"),
)


def judged(results: Results) -> list[dict[str, Any]]:
    """Every goal with what was measured: the rounds' figures or ratios, their quartiles, and whether the median meets it."""
    rows = []
    for goal in GOALS:
        figures = goal.figures(results)
        row = {
            "data": goal.data,
            "goal": goal.text,
            "bound": goal.bound,
            "at_most": goal.at_most,
            "rounds": figures,
            "quartiles": None,
            "met": None,
        }
        if figures:
            row["quartiles"] = quartiles(figures)
            row["met"] = goal.met(quartiles(figures)[1])
        rows.append(row)
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def lines(rows: list[dict[str, Any]], keys: int) -> Iterable[str]:
    """The goals as a table."""
    size = "" if keys == KEYS else f", asked of {KEYS:,} keys and measured with {keys:,}"
    yield f"goals{size}: the median of the rounds, and the quartiles"
    for row in rows:
        sign = "at most" if row["at_most"] else "at least"
        asked = f"{sign} {_number(row['bound'])}"
        label = f"{row['goal']} ({row['data']})"
        if row["quartiles"] is None:
            yield f"  {label:36}{asked:>20}  not measured"
            continue
        low, middle, high = map(_number, row["quartiles"])
        verdict = "met" if row["met"] else "NOT MET"
        yield f"  {label:36}{asked:>20}  {verdict:8}{middle} ({low}..{high})"

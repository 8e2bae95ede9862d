"""What tilekv is to reach: each goal is a figure of one data set against another figure of the same run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

# data set -> workload -> rival -> a figure a round
Results = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class Goal:
    """tilekv's `workload`, relative to that of `rival` (or to tilekv's own `base`).

    With `rival` "" and `base` "" the figure itself is held against `bound`.
    """

    workload: str
    bound: float
    rival: str = ""
    base: str = ""
    at_most: bool = False
    data: str = "sentence"

    def figures(self, results: Results) -> list[float]:
        """The ratio of every round in which both were measured."""
        rounds = results.get(self.data, {})
        ours = rounds.get(self.workload, {}).get("tilekv", [])
        if not self.rival and not self.base:
            return ours
        theirs = rounds.get(self.base or self.workload, {}).get(self.rival or "tilekv", [])
        return [one / other for one, other in zip(ours, theirs, strict=False)]

    def median(self, results: Results) -> float | None:
        """The median of the ratios; None when it was not measured."""
        figures = self.figures(results)
        return statistics.median(figures) if figures else None

    def met(self, median: float) -> bool:
        """Whether a median is on the right side of the bound."""
        return median <= self.bound if self.at_most else median >= self.bound

    @property
    def text(self) -> str:
        """What it says, without the bound."""
        other = " ".join(part for part in (self.rival, self.base) if part)
        return self.workload + (f" / {other}" if other else "")


GOALS = (
    Goal("load", 4, "lmdb"),
    Goal("load", 5, "rocksdict"),
    Goal("load", 20, "redis"),
    Goal("get", 1.5, "lmdb"),
    Goal("get", 1, "simd-r-drive"),
    Goal("get", 6, "rocksdict"),
    Goal("get", 80, "redis"),
    Goal("miss", 2, "lmdb"),
    Goal("get_8MB", 1.2, "rocksdict"),
    Goal("get_many", 6, "lmdb"),
    Goal("get_many", 5, "redis"),
    Goal("get_many", 1.3, "dict"),
    Goal("read", 2, base="get_many"),
    Goal("items", 1, "lmdb"),
    Goal("values", 1, "lmdb"),
    Goal("scan", 4, "lmdb", "items"),
    Goal("get_10", 0.6, base="get"),
    Goal("get_100", 0.2, base="get"),
    Goal("consolidate", 1.5, "rocksdict"),
    Goal("consolidate_memory", 256e6, at_most=True),
    Goal("open_large", 1e-3, at_most=True),
    Goal("two_writers", 1.8, base="one_writer"),
    Goal("disk", 0.45, "lmdb", at_most=True),
    Goal("disk", 1.3, "rocksdict", at_most=True),
    Goal("disk", 1, "rocksdict", at_most=True, data="1KB"),
    Goal("get", 100, "tiledb"),
    Goal("get_many", 100, "tiledb"),
)

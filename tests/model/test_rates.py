"""Flushes at the rates of real writers: some commit late, inside a range that was merged, unless merges heed marks.

A writer flushes every so often, and from the choice of its time to its commit it takes what a disk or an object store takes;
whoever finds eight small fragments after its flush merges them. A late commit counts as newer than what was merged past it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

FAN = 8


class Rate(NamedTuple):
    writers: int
    every: float  # seconds from a commit to the next choice, on average
    takes: float  # seconds from a choice to its commit, the median
    spread: float
    merge: float  # seconds of a merge
    hours: float


RATES = {
    "2 writers, one a second each": Rate(2, 1, 0.005, 0.5, 0.02, 2),
    "8 writers, one a second each": Rate(8, 1, 0.005, 0.5, 0.02, 1),
    "the same on a loaded disk": Rate(8, 1, 0.04, 0.7, 0.05, 1),
    "8 writers, ten a second each": Rate(8, 0.1, 0.005, 0.5, 0.02, 0.1),
    "8 writers on an object store": Rate(8, 10, 0.4, 0.8, 2, 4),
    "32 writers on an object store": Rate(32, 10, 0.4, 0.8, 2, 1),
}


class Result(NamedTuple):
    commits: int
    merges: int
    withdrawn: int
    late: int  # commits that count as newer than later ones
    most: int  # small fragments at a time


def simulate(rate: Rate, seed: int, *, marks: bool, looks_again: bool) -> Result:
    rng = random.Random(seed)
    events: list[tuple[float, int, str, int, int]] = []
    number = 0

    def at(time: float, what: str, writer: int = 0, chosen: int = 0) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (time, number, what, writer, chosen))

    for writer in range(rate.writers):
        at(rng.expovariate(1 / rate.every), "choose", writer)
    small: list[tuple[int, float]] = []  # the time chosen, and when it appeared
    choosing: dict[int, float] = {}
    merging: list[tuple[int, float]] = []
    newest = merged = commits = merges = withdrawn = late = most = 0
    while events:
        now, _, what, writer, chosen = heapq.heappop(events)
        if now > rate.hours * 3600:
            break
        if what == "choose":
            choosing[writer] = now
            took = rng.lognormvariate(math.log(rate.takes), rate.spread)
            at(now + took, "commit", writer, max(int(now * 1000), newest + 1))
        elif what == "commit":
            del choosing[writer]
            commits += 1
            newest = max(newest, chosen)
            late += chosen <= merged
            small.append((chosen, now))
            most = max(most, len(small))
            at(now + rng.expovariate(1 / rate.every), "choose", writer)
            if not merging:
                merging = neighbours(small, min(choosing.values(), default=now) if marks else now)
                if merging:
                    at(now + rate.merge, "merged")
        else:
            last = merging[-1][0]
            between = sum(each not in merging and each[0] <= last for each in small)
            if between and looks_again:
                withdrawn += 1
            else:
                late += between
                merges += 1
                merged = max(merged, last)
                small = [each for each in small if each not in merging]
            merging = []
    return Result(commits, merges, withdrawn, late, most)


def neighbours(small: list[tuple[int, float]], oldest: float) -> list[tuple[int, float]]:
    """A prefix, in order, of what had appeared by the oldest mark, whole groups of equal times; nothing unless it is worth it."""
    taken = sorted(small)
    end = next((i for i, each in enumerate(taken) if each[1] > oldest), len(taken))
    while 0 < end < len(taken) and taken[end][0] == taken[end - 1][0]:
        end -= 1
    return taken[:end] if end >= FAN else []


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_late_commits_change_no_view(rate: Rate, tally: Callable[..., None]) -> None:
    """And marks hold merges back by what is under way, and by no more."""
    for seed in range(3):
        result = simulate(rate, seed, marks=True, looks_again=True)
        assert result.late == 0, f"seed {seed}: {result}"
        assert result.merges > result.commits / 1000, f"seed {seed}: {result}"
        assert result.most <= 64, f"seed {seed}: {result}"
        tally("flushes at their rates", result.commits)


@pytest.mark.parametrize("looks_again", [False, True])
def test_without_marks_views_change(looks_again: bool) -> None:
    rate = RATES["the same on a loaded disk"]
    assert sum(simulate(rate, s, marks=False, looks_again=looks_again).late for s in range(3)) > 0

"""Which neighbours are merged: how many fragments a store has by that, and how often a byte is written (docs/design.md 6.9)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from tilekv.tiers import FAN, MANY, choose, most_behind

MIB = 1 << 20
MOST = 64 * MIB
EVERYTHING = 1 << 60


def test_too_few_are_left_alone() -> None:
    assert choose([], MOST) is None
    assert choose([100] * (FAN - 1), MOST) is None


def test_a_tier_that_is_full() -> None:
    assert choose([100] * FAN, MOST) == (0, FAN)
    assert choose([10_000, *[100] * FAN], MOST) == (1, FAN + 1)
    assert choose([10_000, *[100] * (FAN + 3), 10_000], MOST) == (1, FAN + 4)


def test_the_smallest_first() -> None:
    sizes = [*[80_000] * FAN, *[100] * FAN]
    assert choose(sizes, MOST) == (FAN, 2 * FAN)


def test_smaller_ones_between_go_with_their_neighbours() -> None:
    sizes = [80_000, 100, 80_000, 80_000, 100, 80_000, 80_000, 100]
    assert choose(sizes, MOST) == (0, len(sizes))


def test_one_large_among_small_ones_is_not_written_again() -> None:
    assert choose([1000, *[60] * 7], MOST) is None


def test_what_takes_no_part_parts_the_others() -> None:
    """It is full size, or somebody else merges it."""
    assert choose([*[100] * 7, 0, *[100] * 7], MOST) is None
    assert choose([*[100] * 8, 0, *[100] * 7], MOST) == (0, 8)
    assert choose([0] * 100, MOST) is None


def test_no_merge_reads_more_than_it_may() -> None:
    assert choose([9 * MIB] * FAN, MOST) is None
    assert choose([9 * MIB] * FAN, EVERYTHING) == (0, FAN)


def test_with_many_the_cheapest_neighbours_are_merged() -> None:
    falling = [int(1.5 ** (60 - i)) for i in range(MANY + 1)]
    chosen = choose(falling, EVERYTHING)
    assert chosen
    assert chosen[1] == len(falling)
    assert choose(falling[:-1], EVERYTHING) is None


def test_what_a_merge_behind_who_writes_may_read() -> None:
    assert [most_behind(n * MIB) for n in (0, 100, 256, 400, 1024, 9999)] == [
        *(64 * MIB, 64 * MIB, 64 * MIB, 100 * MIB, 256 * MIB, 256 * MIB)
    ]


def life(size: Callable[[int], int], flushes: int, most: int) -> tuple[int, float, Sequence[int]]:
    """The most fragments at any time, bytes written over bytes flushed, and what is left."""
    sizes: list[int] = []
    written = flushed = peak = 0
    for number in range(flushes):
        sizes.append(size(number))
        flushed += sizes[-1]
        written += sizes[-1]
        peak = max(peak, len(sizes))
        while chosen := choose(sizes, most):
            first, last = chosen
            sizes[first:last] = [sum(sizes[first:last])]
            written += sizes[first]
    return peak, written / flushed, sizes


RNG = random.Random(5)
SIZES: dict[str, Callable[[int], int]] = {
    "equal": lambda number: 60_000,
    "small": lambda number: 6_000,
    "two writers": lambda number: 60_000 if number % 2 else 600,
    "mixed": lambda number: RNG.choice([600, 6_000, 60_000, 600_000]),
    "lognormal": lambda number: int(RNG.lognormvariate(9, 2)) + 1,
    "falling": lambda number: int(10**6 * 0.999**number) + 100,
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("most", [MOST, EVERYTHING], ids=["64 MiB", "any"])
def test_ten_thousand_flushes(name: str, most: int) -> None:
    """Few fragments at any time, and each byte written a few times: 6.2 and 25, or 53 with sizes of all kinds, as measured."""
    peak, written, sizes = life(SIZES[name], 10_000, most)
    assert peak <= (40 if name in ("equal", "small", "two writers") else 64)
    assert written <= 7
    assert sum(sizes) > 0

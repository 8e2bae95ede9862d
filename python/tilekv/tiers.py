"""Which neighbours are worth a merge: tiers of like size (docs/design.md 6.9).

Universal compaction, as RocksDB calls it: fragments that lie beside one another in time are merged when there are many of one
size or smaller, so that each byte is written about once a tier. https://github.com/facebook/rocksdb/wiki/Universal-Compaction
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FAN: Final = 8  # fragments of a tier, at least; sizes of two tiers differ by this factor
# A merge makes of its largest source something at least so much larger: so a byte is written log3 of the flushes times at most.
GROWTH: Final = 3
# With more fragments than this, the cheapest neighbours are merged whatever their tiers, if they double.
MANY: Final = 24
LITTLE_GROWTH: Final = 2


def most_behind(stored: int) -> int:
    """Bytes that a merge behind who writes may read, of a store of so many: 64 MiB, about a second of one core, or a quarter of a
    larger store, 256 MiB at most. 10,000 flushes of 134 KB have 33 fragments by that, and 50 with 64 MiB."""
    return max(64 << 20, min(stored // 4, 256 << 20))


def choose(sizes: Sequence[int], most: int) -> tuple[int, int] | None:
    """The neighbours to merge next, as the first of them and the one behind the last; None when no merge pays.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of the fragments, oldest first; 0: it takes no part, and nothing is merged across it.
    most : int
        Bytes that a merge may read.
    """
    tiers = [tier_of(size) for size in sizes]
    for tier in sorted({*tiers}):
        for first, last in _runs(
            [size > 0 and each <= tier for size, each in zip(sizes, tiers, strict=True)]
        ):
            run = sizes[first:last]
            if last - first >= FAN and GROWTH * max(run) <= sum(run) <= most:
                return first, last
    if len(sizes) <= MANY:
        return None
    found = None
    cheapest = float("inf")
    for length in (FAN, 2 * FAN):
        for first in range(len(sizes) - length + 1):
            run = sizes[first : first + length]
            total = sum(run)
            if 0 in run or not LITTLE_GROWTH * max(run) <= total <= most:
                continue
            if total / (length - 1) < cheapest:  # bytes a fragment less
                cheapest = total / (length - 1)
                found = first, first + length
    return found


def tier_of(size: int) -> int:
    """The tier of a fragment of so many bytes: the logarithm to the base FAN, rounded down."""
    return (max(size, 1).bit_length() - 1) // 3


def _runs(taken: Sequence[bool]) -> list[tuple[int, int]]:
    """The stretches of what is taken."""
    found = []
    first = None
    for at, each in enumerate([*taken, False]):
        if each and first is None:
            first = at
        elif not each and first is not None:
            found.append((first, at))
            first = None
    return found

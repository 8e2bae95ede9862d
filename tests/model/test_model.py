"""Random schedules of flushes, merges, vacuums and readers that sleep and die between any two steps: nobody sees what never was.

After each step the view, and on a local disk what TileDB sees in the root, is what the committed flushes say together. So no view
changes but by a flush, and no deleted key comes back. A reader shows what was there when it began, and of what is committed
meanwhile nothing without what its writer saw; two flushes under way at the same time it may show without one another. TileDB
gets this when nothing is moved while it lists. Each rule of the protocol is needed: without it some schedule goes wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from merge_schedules import ANYTHING, play, run, search, told
from merge_world import RULES, World

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
SCHEDULES = 300_000 if NIGHTLY else 30_000
PARTS = 6
MOST = 20_000  # schedules until one goes wrong without a rule; most rules take a few hundred
# Where it goes wrong sooner.

WHERE: dict[str, dict[str, object]] = {
    "choice reads the record": {"local": True, "claims": False, "skews": (-20, 0, 20)},
    "stamps again": {"by_hand": False, "history": 60},
}


@pytest.mark.parametrize("part", range(PARTS))
def test_no_view_is_wrong(part: int, tally: Callable[..., None]) -> None:
    size = SCHEDULES // PARTS
    mixed = 0
    for seed in range(part * size, (part + 1) * size):
        world = World(seed, RULES)
        wrong, shown = play(world)
        mixed += shown
        assert wrong is None, told(seed)
    tally("schedules of merges", size)
    tally("moments with one of two flushes under way", mixed)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_is_needed(rule: str) -> None:
    seed = search(range(MOST), RULES - {rule}, WHERE.get(rule, ANYTHING))
    assert seed is not None, f"{MOST} schedules went right without: {rule}"


def test_claims_are_no_rule() -> None:
    assert search(range(3000), RULES, {"claims": False}) is None


def test_a_schedule_is_told_in_words_and_comes_again() -> None:
    rules = RULES - {"marks"}
    seed = search(range(MOST), rules)
    assert seed is not None
    wrong = run(seed, rules)
    assert wrong is not None
    text = told(seed, rules)
    assert text == told(seed, rules)
    assert text.endswith(f"WRONG: {wrong}")
    assert "commits" in text

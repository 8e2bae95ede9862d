"""Many replace the record of a local disk at once, sleep and die: no change is lost, and no reader believes what never was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from record_files import RULES, run, told

SCHEDULES = 4_000
MOST = 20_000


def test_no_change_is_lost(tally: Callable[..., None]) -> None:
    for seed in range(SCHEDULES):
        assert run(seed) is None, told(seed)
    tally("schedules of the record's files", SCHEDULES)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_is_needed(rule: str) -> None:
    rules = RULES - {rule}
    assert any(run(seed, rules) for seed in range(MOST)), f"all went right without: {rule}"

"""A writer that is suspended at any moment of a flush, while others write, merge and remove: its data is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, age, contents
from suspended import Suspension, suspended

FAST = {"kv.sync": False}
BATCH = 5  # keys of a flush


def keys(turn: int) -> list[str]:
    return [f"slow {turn} {i}" for i in range(BATCH)]


def write_and_sleep(path: Path, forgotten: bool) -> None:
    """Flush, suspended before the first call to the storage; flush, suspended before the second; and so on, to the last."""
    failed = 0
    with tilekv.open(path, "a", config=FAST) as db:
        suspension = Suspension(db)
        for turn in suspension.turns():
            db.put_many(dict.fromkeys([*keys(turn), "slow", f"moving {turn}"], b"%d" % turn))
            db.delete_many([f"moving {turn - 1}"])
            with suspension.at_work():
                try:
                    db.flush()
                except FileNotFoundError:
                    db.flush()
                    failed += 1
    assert failed > 20 if forgotten else failed == 0, failed


def check(found: dict[str, bytes], turns: int, others: int) -> None:
    """All of so many turns, and of the next one all or nothing."""
    turns += keys(turns + 1)[0] in found
    expected = {key: b"%d" % turn for turn in range(1, turns + 1) for key in keys(turn)}
    if turns:
        expected |= {"slow": b"%d" % turns, f"moving {turns}": b"%d" % turns}
    assert found == expected | {f"other {i}": b"" for i in range(others)}


@pytest.mark.parametrize("forgotten", [False, True])
def test_suspended_anywhere_in_a_flush(
    folder: Path, forgotten: bool, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile others write, merge and remove, and write and merge.

    forgotten: for so long that the folder it writes is removed too; then the flush fails, and succeeds when it is called again.
    """
    # What the suspended one is about to commit a merge would wait for: it does not come meanwhile.
    monkeypatch.setattr("tilekv.consolidation.DRAFTS_S", 0)
    path = folder / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    turns = others = 0
    with suspended(lambda: write_and_sleep(path, forgotten)) as suspensions:
        for turns in suspensions:
            check(contents(path), turns - 1, others)
            for each in path.glob(".tmp-*") if forgotten else []:
                age(each, 2)
            for vacuum in (True, False):  # at last there is a list of what was merged
                with tilekv.open(path, "a", config=FAST) as db:
                    db[f"other {others}"] = b""
                    db.consolidate(vacuum=vacuum)
                others += 1
            check(contents(path), turns - 1, others)
    check(contents(path), turns + 1, others)
    assert others > 40
    tally("suspensions in a flush", turns)

"""A writer that is suspended at any moment of a flush, while others write, merge and remove: its data is there."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Call, Faults, meet
from life import SMALL, age, contents

FAST = {"kv.sync": False}
BATCH = 5  # keys of a flush


def keys(turn: int) -> list[str]:
    return [f"slow {turn} {i}" for i in range(BATCH)]


def write_and_sleep(path: Path, forgotten: bool) -> None:
    """Flush, suspended before the first call to the storage; flush, suspended before the second; and so on, to the last."""
    left = failed = 0

    def suspend(call: Call) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

    with tilekv.open(path, "a", config=FAST) as db:
        meet(db, Faults(suspend))
        for turn in itertools.count(1):
            left = turn
            db.put_many(dict.fromkeys([*keys(turn), "slow", f"moving {turn}"], b"%d" % turn))
            db.delete_many([f"moving {turn - 1}"])
            try:
                db.flush()
            except FileNotFoundError:
                db.flush()
                failed += 1
            if left > 0:
                break
    assert failed > 20 if forgotten else failed == 0, failed


def check(found: dict[str, bytes], turns: int, others: int) -> None:
    """All of so many turns, and of the next one all or nothing."""
    turns += keys(turns + 1)[0] in found
    expected = {key: b"%d" % turn for turn in range(1, turns + 1) for key in keys(turn)}
    if turns:
        expected |= {"slow": b"%d" % turns, f"moving {turns}": b"%d" % turns}
    assert found == expected | {f"other {i}": b"" for i in range(others)}


@pytest.mark.parametrize("forgotten", [False, True])
def test_suspended_anywhere_in_a_flush(tmp_path: Path, forgotten: bool, tally: Any) -> None:
    """Meanwhile others write, merge and remove, and write and merge.

    forgotten: for so long that the folder it writes is removed too; then the flush fails, and succeeds when it is called again.
    """
    path = tmp_path / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    pid = os.fork()
    if pid == 0:
        try:
            write_and_sleep(path, forgotten)
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    others = 0
    try:
        for turn in itertools.count(1):
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            check(contents(path), turn - 1, others)
            for each in path.glob(".tmp-*") if forgotten else []:
                age(each, 2)
            for vacuum in (True, False):  # at last there is a list of what was merged
                with tilekv.open(path, "a", config=FAST) as db:
                    db[f"other {others}"] = b""
                    db.consolidate(vacuum=vacuum)
                others += 1
            check(contents(path), turn - 1, others)
            os.kill(pid, signal.SIGCONT)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    check(contents(path), turn, others)
    assert others > 40
    tally("suspensions in a flush", turn - 1)

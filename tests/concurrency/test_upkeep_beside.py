"""Stores that keep themselves while several processes write, one is suspended within a merge, or the lock is never free."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, contents, folders, past
from suspended import Suspension, suspended
from tilekv import keeper
from tilekv.tiers import FAN
from tilekv.upkeeping import MOST_SUPERSEDED, Upkeep

OFF = {"kv.sync": False, "kv.upkeep": "off"}
HANG = 60.0
CLAIM_MS = 30  # more than a merge of a tier takes, and waited for a hundred times
SECONDS = 600 if os.environ.get("TILEKV_NIGHTLY") else 15
WRITERS = 5
# The goal is 64, and some 42 are what there is; but how many there are at a moment is up to who has the processor.
MOST_VISIBLE = 100


def until(there: Callable[[], object]) -> None:
    start = time.monotonic()
    while not there():
        assert time.monotonic() - start < HANG
        time.sleep(0.01)


# --- one is suspended ---


def tier(turn: int) -> dict[str, bytes]:
    """What the fragments of a turn hold: as many small ones as make a tier."""
    return {f"turn {turn} {number}": b"%d" % turn for number in range(FAN)}


def merge_and_sleep(path: Path, history: int) -> None:
    """Upkeep, suspended before the first call to the storage; upkeep, suspended before the second; and so on, to the last."""
    with tilekv.open(path, "a", config=OFF | {"kv.history": history}) as db:
        suspension = Suspension(db, ["files"])  # once for each fragment of the past, which grows
        for turn in suspension.turns():
            for key, value in tier(turn).items():
                db[key] = db["all"] = value
                db.delete_many([f"turn {turn - 1} 0"])
                db.flush()
            with suspension.at_work(), suppress(OSError, tilekv.SnapshotGone):
                Upkeep(
                    db._engine
                ).run()  # fails when history has ended, and with it what it was merging


@pytest.mark.parametrize("history", [0, 2])
def test_suspended_anywhere_in_a_merge(
    folder: Path, history: int, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others merge what it has claimed once the claim is over, and what it does when it goes on changes nothing."""
    for module in ("maintenance", "consolidation"):
        monkeypatch.setattr(f"tilekv.{module}.CLAIM_MS", CLAIM_MS)
    path = folder / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    expected: dict[str, bytes] = {}
    turns = 0

    def flushed(turn: int) -> None:
        expected.update(tier(turn) | {"all": b"%d" % turn})
        expected.pop(f"turn {turn - 1} 0", None)
        assert contents(path) == expected

    with suspended(lambda: merge_and_sleep(path, history)) as suspensions:
        for turns in suspensions:
            flushed(turns)
            with tilekv.open(path, "a", config=OFF | {"kv.history": history}) as db:
                db[f"other {turns}"] = b""
                expected[f"other {turns}"] = b""
                db.flush()

                def merged(db: tilekv.Store = db) -> bool:
                    db.upkeep()
                    return db.info().mergeable == 0

                until(merged)
            assert contents(path) == expected
    flushed(turns + 1)
    assert turns > 20
    tally("suspensions in a merge", turns)


# --- the lock ---


def test_a_lock_that_stays_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a program of the time before the record hangs: only the first record waits for it, and no flush."""
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(keeper, "LONGEST_PAUSE_S", 0.1)
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config={"kv.sync": False}) as db:
        model = {}

        def flush(n: int) -> None:
            for _ in range(n):
                number = len(model)
                model[number] = db[number] = b"x"
                db.flush()

        with open(path / "__lock.tdb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            flush(2 * FAN)
            until(lambda: "under way" in db.info().failure)
            flush(FAN)
            assert len(db.fragments) == 3 * FAN
        time.sleep(0.3)
        flush(1)
        until(lambda: len(db.fragments) < FAN)
        assert db.info().failure == ""
        with open(path / "__lock.tdb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            flush(2 * FAN)
            until(lambda: len(db.fragments) < 2 * FAN)
            db.upkeep()
            db.vacuum()
        assert dict(db) == model
    assert contents(path) == model


# --- five processes ---

WRITE = """
import itertools, random, sys, time, tilekv
path, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
rng = random.Random(name)
end = time.monotonic() + seconds
with tilekv.open(path, "a") as db:
    for flush in itertools.count():
        rows = {f"{name} {flush} {i}": b"%d" % flush for i in range(rng.choice([1, 1, 5, 100]))}
        db.put_many(rows | {f"last {name}": b"%d" % flush, "all": b"x"})
        db.delete_many([f"moving {name} {flush - 1}"])
        db[f"moving {name} {flush}"] = b"m"
        db.flush()
        if time.monotonic() > end:
            break
print(flush)
"""


def written(name: str, flushes: int) -> dict[str, bytes]:
    import random

    rng = random.Random(name)
    found = {f"last {name}": b"%d" % flushes, f"moving {name} {flushes}": b"m", "all": b"x"}
    for flush in range(flushes + 1):
        found |= {f"{name} {flush} {i}": b"%d" % flush for i in range(rng.choice([1, 1, 5, 100]))}
    return found


def test_five_processes_need_nothing_from_anybody(tmp_path: Path, tally: Any) -> None:
    path = tmp_path / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    argv = [sys.executable, "-P", "-c", WRITE, str(path)]
    writers = {
        name: subprocess.Popen(
            [*argv, name, str(SECONDS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in map(str, range(WRITERS))
    }
    visible = in_root = superseded = 0
    while [writer for writer in writers.values() if writer.poll() is None]:
        with tilekv.open(path) as db:
            visible = max(visible, len(db.fragments))
        in_root = max(in_root, len(folders(path)))
        superseded = max(superseded, len(past(path)))
        time.sleep(0.1)
    expected: dict[str, bytes] = {}
    flushes = 0
    for name, writer in writers.items():
        out, err = writer.communicate()
        assert (writer.returncode, err) == (0, "")
        flushes += int(out) + 1
        expected |= written(name, int(out))
    assert contents(path) == expected
    assert tilekv.verify(path) == []
    assert max(visible, in_root) <= MOST_VISIBLE
    assert superseded <= MOST_SUPERSEDED + MOST_VISIBLE
    assert not list(path.glob(".tmp-*"))
    tally("flushes of five processes into one store", flushes)
    tally("fragments that were visible at once, at most", visible)

"""Backups beside processes that write, merge and remove, and beside readers of the backup (docs/design.md 6.8)."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import contents, folders
from life_workers import (
    TIMEOUT,
    back_up_often,
    check_snapshot,
    consolidate_often,
    read_snapshots,
    write_batches,
)

BACKUPS = 200 if os.environ.get("TILEKV_NIGHTLY") else 20
FRESH = 4  # every so many goes to a new place
KILLS = 50 if os.environ.get("TILEKV_NIGHTLY") else 8


class Beside:
    """Processes that work in a store until the end of a `with`; then none of them has met an error."""

    def __init__(self, store: Path, reader: Path | None = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._stop, self._results = spawn.Event(), spawn.Queue()
        jobs: list[tuple[Any, int, Path]] = [(write_batches, i, store) for i in range(2)]
        jobs.append((consolidate_often, 0, store))
        if reader:
            jobs.append((read_snapshots, 0, reader))
        self._start = spawn.Barrier(len(jobs) + 1)
        self._processes = [
            spawn.Process(target=job, args=(str(path), i, self._start, self._stop, self._results))
            for job, i, path in jobs
        ]

    def __enter__(self) -> None:
        for process in self._processes:
            process.start()
        self._start.wait(TIMEOUT)

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        told = [self._results.get(timeout=TIMEOUT) for _ in self._processes]
        for process in self._processes:
            process.join(TIMEOUT)
        assert [each for each in told if each[2] is not None] == []


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "store", "x") as db:
        db.flush()
    return tmp_path / "store"


def items(path: Path) -> dict[Any, Any]:
    with tilekv.open(path) as db:
        return dict(db.items())


def check_backup(path: Path, seen: dict[str, int]) -> None:
    """It opens, is sound, and is one snapshot of the store, no older than the last: the writers number what they write."""
    assert tilekv.verify(path) == []
    check_snapshot(items(path), seen)
    assert not list(path.glob(".tmp-*"))
    assert not list((path / ".tilekv" / "staged").glob("*"))


def test_backups_at_random_moments(store: Path, tmp_path: Path, tally: Any) -> None:
    rng = random.Random(11)
    copy = tmp_path / "copy"
    tilekv.backup(store, copy)
    seen: dict[str, int] = {}
    brought = removed = 0
    with Beside(store, copy):
        for number in range(BACKUPS):
            time.sleep(rng.random() * 0.2)
            place = tmp_path / f"copy {number}" if number % FRESH == 0 else copy
            done = tilekv.backup(store, place)
            assert {done.fragments} == {len(folders(place))}
            check_backup(place, seen)
            brought += done.copied
            removed += done.removed
    assert len(seen) == 2
    assert brought > BACKUPS / 2
    assert removed > BACKUPS / 4
    tilekv.backup(store, copy)
    assert contents(copy) == contents(store)
    tally("backups beside writers", BACKUPS)


def test_backups_that_are_killed(store: Path, tmp_path: Path, tally: Any) -> None:
    """At random moments; each time the next one, to the same place, is right."""
    rng = random.Random(12)
    copy = tmp_path / "copy"
    tilekv.backup(store, copy)
    spawn = multiprocessing.get_context("forkserver")
    seen: dict[str, int] = {}
    with Beside(store):
        for _ in range(KILLS):
            process = spawn.Process(target=back_up_often, args=(str(store), str(copy)))
            process.start()
            time.sleep(0.3 + rng.random() * 0.3)
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            process.join(TIMEOUT)
            assert process.exitcode == -signal.SIGKILL
            check_snapshot(items(copy), seen)
            tilekv.backup(store, copy)
            assert tilekv.verify(copy) == []
            check_snapshot(items(copy), seen)
    tilekv.backup(store, copy)
    assert contents(copy) == contents(store)
    tally("backups killed", KILLS)

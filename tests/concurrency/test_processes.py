"""Many processes on one store, none of which waits for another (docs/design.md 7)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import contents, folders
from life_workers import (
    TIMEOUT,
    check_snapshot,
    consolidate_often,
    read_snapshots,
    use,
    verify_often,
    write_batches,
)

WRITERS, READERS, CONSOLIDATORS = 8, 2, 2
SECONDS = 180 if os.environ.get("TILEKV_NIGHTLY") else 4


def test_writers_readers_consolidators_and_vacuums(tmp_path: Path, tally: Any) -> None:
    """Nothing is lost, no batch is seen in part, and nobody meets an error."""
    path = str(tmp_path / "store")
    tilekv.open(path, "x").close()
    spawn = multiprocessing.get_context("spawn")
    stop, results = spawn.Event(), spawn.Queue()
    jobs = [(write_batches, i) for i in range(WRITERS)]
    jobs += [(read_snapshots, i) for i in range(READERS)]
    jobs += [(consolidate_often, i) for i in range(CONSOLIDATORS)] + [(verify_often, 0)]
    start = spawn.Barrier(len(jobs) + 1)
    processes = [spawn.Process(target=job, args=(path, i, start, stop, results)) for job, i in jobs]
    for process in processes:
        process.start()
    start.wait(TIMEOUT)
    time.sleep(SECONDS)
    stop.set()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    errors = [each for each in told if each[2] is not None]
    assert errors == []
    done = {kind: sum(each[3] for each in told if each[0] == kind) for kind, *_ in told}
    assert min(done.values()) > 2, done
    for kind, n in done.items():
        tally(f"rounds of {kind}s", n)
    found = contents(Path(path))
    check_snapshot(found, {})
    batches = {number: count for kind, number, _, count in told if kind == "writer"}
    assert {key for key in found if key.startswith("kept")} == {
        f"kept {writer} {batch}" for writer, count in batches.items() for batch in range(count)
    }
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
    assert contents(Path(path)) == found
    assert len(folders(Path(path))) == 1


def test_killed_writers_leave_a_sound_store(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    tilekv.open(path, "x").close()
    spawn = multiprocessing.get_context("spawn")
    stop, results = spawn.Event(), spawn.Queue()
    jobs = [(write_batches, i) for i in range(3)] + [(consolidate_often, 0)]
    start = spawn.Barrier(len(jobs) + 1)
    processes = [spawn.Process(target=job, args=(path, i, start, stop, results)) for job, i in jobs]
    for process in processes:
        process.start()
    start.wait(TIMEOUT)
    while len(folders(Path(path))) < 3:
        time.sleep(0.01)
    time.sleep(0.5)
    for process in processes:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    found = contents(Path(path))
    check_snapshot(found, {})
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
    assert contents(Path(path)) == found


# --- handles that travel ---------------------------------------------------------------------------


def in_child(method: str, db: tilekv.Store) -> Any:
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=use, args=(db, results))
    process.start()
    told = results.get()
    process.join(60)
    assert process.exitcode == 0
    assert told[3] is None
    return told


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_handle_in_another_process(tmp_path: Path, method: str, mode: Any) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "a") as db:
        db.put_many({i: b"%d" % i for i in range(50)})
    model: dict[Any, bytes] = {i: b"%d" % i for i in range(50)}
    with tilekv.open(path, mode) as db:
        assert db[1] == b"1"
        before, one, buffered, _ = in_child(method, db)
        assert (before, one, buffered) == (model, None, 0)
        assert dict(db.items()) == model  # a snapshot is a snapshot
        db.reopen()
        assert db.get("child") == (b"child" if mode == "a" else None)


def test_buffer_does_not_travel_by_pickle(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "store", "a") as db:
        db[1] = b"1"
        with pytest.raises(tilekv.InvalidValueError, match="flush"):
            pickle.dumps(db)
        db.flush()
        with pickle.loads(pickle.dumps(db)) as other:
            assert (other.mode, other.uri) == ("a", db.uri)
            assert dict(other.items()) == {1: b"1"}
    with pytest.raises(tilekv.ClosedError):
        pickle.dumps(db)


@pytest.mark.parametrize("mode", ["w", "x"])
def test_handle_that_created_travels_without_creating_again(tmp_path: Path, mode: Any) -> None:
    with tilekv.open(tmp_path / "store", mode) as db:
        db[1] = b"1"
        db.flush()
        with pickle.loads(pickle.dumps(db)) as other:
            assert (other.mode, other[1]) == ("a", b"1")


def test_moment_travels(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "a") as db:
        db[1] = b"1"
        db.flush()
        moment = db.fragments[0].t2
        db[1] = b"2"
    config = {"kv.cache_bytes": 12345}
    with (
        tilekv.open(path, timestamp=moment, config=config) as past,
        pickle.loads(pickle.dumps(past)) as other,
    ):
        assert other[1] == b"1"
        assert other.timestamp == moment
        assert other._config.cache_bytes == 12345

"""What other processes do in the tests of concurrency: importable by name, so that spawn and forkserver find it."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import tilekv

LEAST = 3  # rounds of each, however busy the machine is
TIMEOUT = 120  # seconds until all have started
PARTS = 8  # keys that every batch sets to its token
FAST = {"kv.sync": False, "kv.threads": 1}


def write_batches(path: str, writer: int, start: Barrier, stop: Event, results: Any) -> None:
    """Each flush sets this writer's keys and everybody's to one token, adds a key of its own and moves another."""
    batch = 0
    start.wait(TIMEOUT)
    try:
        with tilekv.open(path, "a", config=FAST) as db:
            while batch < LEAST or not stop.is_set():
                token = b"%d %d" % (writer, batch)
                db.put_many({f"writer {writer} part {part}": token for part in range(PARTS)})
                db.put_many({f"shared part {part}": token for part in range(PARTS)})
                db[f"kept {writer} {batch}"] = token
                db[f"moving {writer} {batch}"] = token
                db.delete_many([f"moving {writer} {batch - 1}"])
                db.flush()
                batch += 1
    except BaseException as error:  # noqa: BLE001 - told to the test
        results.put(("writer", writer, repr(error), batch))
    else:
        results.put(("writer", writer, None, batch))


def check_snapshot(found: dict[str, bytes], seen: dict[str, int]) -> None:
    """Of every batch all or nothing, and of every writer nothing older than before. `seen`: batches, by writer."""
    groups: dict[str, set[bytes | None]] = {}
    for group in ["shared", *{key[: key.index(" part")] for key in found if " part" in key}]:
        groups[group] = {found.get(f"{group} part {part}") for part in range(PARTS)}
    torn = {group: tokens for group, tokens in groups.items() if len(tokens) > 1}
    assert not torn, torn
    moving: dict[str, list[int]] = {}
    kept: dict[str, set[int]] = {}
    for key in found:
        kind, _, rest = key.partition(" ")
        if kind == "moving":
            moving.setdefault(rest.split()[0], []).append(int(rest.split()[1]))
        elif kind == "kept":
            kept.setdefault(rest.split()[0], set()).add(int(rest.split()[1]))
    for writer, batches in kept.items():
        last = max(batches)
        assert batches == set(range(last + 1)), (writer, "lost", set(range(last + 1)) - batches)
        assert moving[writer] == [last], (writer, moving[writer], last)
        assert groups[f"writer {writer}"] == {b"%d" % int(writer) + b" %d" % last}
        assert last >= seen.get(writer, 0)
        seen[writer] = last


def read_snapshots(path: str, reader: int, start: Barrier, stop: Event, results: Any) -> None:
    """Open or reopen, and check what is seen; an old snapshot stays what it was."""
    snapshots = 0
    seen: dict[str, int] = {}
    config = FAST | {"kv.mmap": reader % 2 == 0, "kv.cache_bytes": 1000}
    start.wait(TIMEOUT)
    try:
        with tilekv.open(path, config=config) as kept:
            shown = dict(kept.items())
            while snapshots < LEAST or not stop.is_set():
                if snapshots % 2:
                    assert dict(kept.items()) == shown
                    kept.reopen()
                    found = shown = dict(kept.items())
                else:
                    with tilekv.open(path, config=config) as fresh:
                        keys = list(fresh)
                        found = dict(zip(keys, fresh.get_many(keys), strict=True))
                check_snapshot(found, seen)
                snapshots += 1
    except BaseException as error:  # noqa: BLE001 - told to the test
        results.put(("reader", reader, repr(error), snapshots))
    else:
        results.put(("reader", reader, None, snapshots))


def consolidate_often(path: str, number: int, start: Barrier, stop: Event, results: Any) -> None:
    """Merge and remove, and try again when another does."""
    merged = 0
    start.wait(TIMEOUT)
    try:
        with tilekv.open(path, "a", config=FAST) as db:
            while merged < LEAST or not stop.is_set():
                try:
                    db.consolidate(vacuum=True)
                    merged += 1
                except tilekv.StoreBusyError:
                    time.sleep(0.01)
    except BaseException as error:  # noqa: BLE001 - told to the test
        results.put(("consolidator", number, repr(error), merged))
    else:
        results.put(("consolidator", number, None, merged))


def back_up_often(path: str, destination: str) -> None:
    """Until it is killed."""
    while True:
        tilekv.backup(path, destination)


def verify_often(path: str, number: int, start: Barrier, stop: Event, results: Any) -> None:
    """Check the whole store; there is no damage."""
    checked = 0
    start.wait(TIMEOUT)
    try:
        while checked < LEAST or not stop.is_set():
            problems = tilekv.verify(path)
            assert problems == [], "\n".join(map(str, problems))
            checked += 1
    except BaseException as error:  # noqa: BLE001 - told to the test
        results.put(("verifier", number, repr(error), checked))
    else:
        results.put(("verifier", number, None, checked))


def use(db: Any, results: Any) -> None:
    """In a child that got a handle, by fork or by pickle: read, write, close."""
    try:
        before = dict(db.items())
        one = db.get("parent")
        info = db.info().buffered
        if db.mode == "a":
            db["child"] = b"child"
            db.flush()
        db.close()
        results.put((before, one, info, None))
    except BaseException as error:  # noqa: BLE001 - told to the test
        results.put((None, None, None, repr(error)))


def leave(db: Any, how: str) -> None:
    """Leave two handles open with unflushed writes: the one that was given, and one that ends with this function."""
    db["child"] = b"3"
    db.flush()
    own = tilekv.open(db.uri, "a", config=FAST)
    own["own"] = b"4"
    own.flush()
    db["left"] = b"5"
    own["left in its own"] = b"6"
    warnings.simplefilter("ignore")
    if how == "exits":
        os._exit(3)
    if how == "raises":
        sys.stderr = None  # of the traceback, which is expected
        raise RuntimeError


class Numbers:
    """A data set that holds a handle, as those of PyTorch do."""

    def __init__(self, db: tilekv.Store) -> None:
        self.db = db

    def __getitem__(self, i: int) -> int:
        return int(self.db[i])


def load(numbers: Numbers, asked: Any, loaded: Any) -> None:
    """Give what is asked for, batch by batch, until None is."""
    for batch in iter(asked.get, None):
        loaded.put((tuple(batch), [numbers[i] for i in batch]))


def forked(job: Any, seconds: int = 20) -> int:
    """Exit status of a child that runs `job`; a child that hangs is ended by an alarm."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run in the child
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

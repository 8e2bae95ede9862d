"""Ctrl-C in a long call: it stops soon, raises KeyboardInterrupt, and leaves the store and the handle whole.

How soon is not timed: looks for signals are counted, and Ctrl-C comes at one of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tilekv
from life import age, contents, folders
from looks import interrupt, looks
from tilekv import Attr, Schema
from tilekv.kvcore.write.sorted_buffer import sort_buffer
from tilekv.storage import Storage, open_storage

FEW, N = 10, 300_000
OFTEN = (
    N // 150_000
)  # looks that N rows take more than a few do: one every 131,072 rows is the rarest there is
FAST: dict[str, object] = {"kv.sync": False, "kv.upkeep": "off"}  # no thread beside
KEYS = [b"key %d" % i for i in range(N)]
VALUES = [b"value %d" % i for i in range(N)]
NUMBERS = np.arange(N)
NUMBER = Schema([Attr("number", "int64")])
TURNS = 20_000 if os.environ.get("TILEKV_NIGHTLY") else 400


def spread(n: int) -> Sequence[int]:
    """Some of n looks, the last ones left out: the call is over by then."""
    return range(0, n * 3 // 4, max(n // 6, 1))


PUTS: dict[str, Callable[[tilekv.Store, int], object]] = {
    "lists": lambda db, n: db.put_many(KEYS[:n], VALUES[:n]),
    "pairs": lambda db, n: db.put_many(zip(KEYS[:n], VALUES[:n], strict=True)),
    "other iterables": lambda db, n: db.put_many(iter(KEYS[:n]), iter(VALUES[:n])),
    "columns": lambda db, n: db.put_many(NUMBERS[:n], value=VALUES[:n]),
    "arrays": lambda db, n: db.put_many(NUMBERS[:n], number=NUMBERS[:n]),
    "tables": lambda db, n: db.put_many(
        pa.table({"k": NUMBERS[:n], "number": NUMBERS[:n]}), key="k"
    ),
    "deletes": lambda db, n: db.delete_many(KEYS[:n]),
    "deletes of an array": lambda db, n: db.delete_many(NUMBERS[:n]),
}


@pytest.mark.parametrize("kind", PUTS)
def test_loading(kind: str) -> None:
    """What is interrupted has buffered nothing, unless it was about to return."""
    schema = NUMBER if kind in ("arrays", "tables") else None

    with tilekv.open("memory://signals", "w", schema=schema) as db:
        put = partial(PUTS[kind], db)
        put(FEW)
        few = looks(partial(put, FEW))
        many = looks(partial(put, N))
        assert many >= few + OFTEN
        db.close(discard=True)
    for after in spread(many):
        with tilekv.open("memory://signals", "w", schema=schema) as db:
            put = partial(PUTS[kind], db)
            assert interrupt(partial(put, N), after)
            assert db.info().buffered in ([0] if after < many // 2 else [0, N])
            db.close(discard=True)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Stores of a few and of many keys, and as many deletes, in two fragments."""
    paths = {}
    for n in (FEW, N):
        paths[n] = tmp_path_factory.mktemp("signals") / "store"
        with tilekv.open(paths[n], "x", config=FAST) as db:
            db.put_many(KEYS[:n], VALUES[:n])
            db.flush()
            db.delete_many(NUMBERS[:n])
    return paths


READS: dict[str, Callable[[tilekv.Store, int], object]] = {
    "len": lambda db, n: len(db),
    "info": lambda db, n: db.info(),
    "keys": lambda db, n: list(db),
    "items": lambda db, n: dict(db.items()),
    "get_many": lambda db, n: db.get_many(KEYS[:n]),
    "read": lambda db, n: db.read(KEYS[:n]),
    "scan": lambda db, n: [batch.keys for batch in db.scan()],
    "verify": lambda db, n: db.verify(),
}


@pytest.mark.parametrize("kind", READS)
def test_reading(paths: dict[int, Path], kind: str) -> None:
    """What is interrupted can be called again; `get_many` the first time makes a table, the next time it has one."""

    def counts(n: int) -> tuple[int, int]:
        with tilekv.open(paths[n], config={"kv.threads": 1}) as db:
            call = partial(READS[kind], db, n)
            return looks(call), looks(call)

    counts(FEW)
    few, (first, again) = counts(FEW), counts(N)
    assert first >= few[0] + OFTEN
    assert again >= few[1] + OFTEN
    with tilekv.open(paths[N], config={"kv.threads": 1}) as db:
        call = partial(READS[kind], db, N)
        for after in spread(again):
            assert interrupt(call, after)
            assert db.get_many(KEYS[:1000]) == VALUES[:1000]
        call()
        assert len(db) == N


def test_reading_what_is_buffered() -> None:
    """The first look-up makes the buffer's table, the first iterator sorts it."""
    calls: list[Callable[[tilekv.Store], object]] = [
        lambda db: db.get(KEYS[0]),
        lambda db: sort_buffer(db._buffer),
    ]
    for call in calls:

        def counted(n: int, call: Callable[[tilekv.Store], object] = call) -> int:
            with tilekv.open("memory://signals", "w") as db:
                db.put_many(KEYS[:n], VALUES[:n])
                many = looks(partial(call, db))
                db.close(discard=True)
            return many

        counted(FEW)
        many = counted(N)
        assert many >= counted(FEW) + OFTEN
        with tilekv.open("memory://signals", "w") as db:
            db.put_many(KEYS, VALUES)
            assert interrupt(partial(call, db), many // 2)
            assert db.get_many(KEYS) == VALUES
            db.close(discard=True)


def test_flushing_and_consolidating(tmp_path: Path) -> None:
    """The buffer is kept, or the fragments that were to be merged."""
    config = FAST | {"kv.threads": 1}

    def fill(path: Path, n: int) -> tilekv.Store:
        db = tilekv.open(path, "x", config=config)
        db.put_many(KEYS[:n], VALUES[:n])
        return db

    counts = {}
    for turn, n in enumerate((FEW, FEW, N)):
        with fill(tmp_path / str(turn), n) as db:
            flush = looks(db.flush)
            db.put_many(KEYS[: n // 2], VALUES[: n // 2])
            db.flush()
            counts[n] = flush, looks(db.consolidate)
    assert counts[N][0] >= counts[FEW][0] + OFTEN
    assert counts[N][1] >= counts[FEW][1] + OFTEN
    path = tmp_path / "store"
    with fill(path, N) as db:
        for after in spread(counts[N][0] // 2):
            assert interrupt(db.flush, after)
            assert (db.info().buffered, db.fragments) == (N, ())
        db.flush()
        db.put_many(KEYS[: N // 2], VALUES[: N // 2])
        db.flush()
        for after in spread(counts[N][1] // 2):
            assert interrupt(db.consolidate, after)
            assert len(db.fragments) == len(folders(path)) == 2
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1
        assert db.get_many(KEYS) == VALUES


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def draft_files(storage: Storage) -> None:
    draft = storage.draft()
    try:
        for name in "ab":
            writer = draft.create(name)
            writer.write(b"1")
            writer.close()
        draft.commit(f"folder {uuid.uuid4()}")
    finally:
        draft.abandon()


def lock(storage: Storage) -> None:
    with storage.lock() as locked:
        assert locked


def reclaim(storage: Storage) -> None:
    (Path(storage.uri) / "hidden" / "inside").mkdir(parents=True, exist_ok=True)
    storage.reclaim(["hidden"])


STORAGE_CALLS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("__lock.tdb"),
    "list": lambda storage: storage.list(),
    "files": lambda storage: storage.files("folder"),
    "open_file": lambda storage: storage.open_file("folder", "file", True),
    "open_files": lambda storage: storage.open_files("folder", False),
    "put": lambda storage: storage.put("__name", b"1"),
    "sync": lambda storage: storage.sync(),
    "lock": lock,
    "draft": draft_files,
    "reclaim": reclaim,
}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # raised in a __del__
@pytest.mark.parametrize("name", STORAGE_CALLS)
def test_no_interrupt_leaves_a_descriptor_open(name: str, tmp_path: Path) -> None:
    """Ctrl-C at every look: between a call that opens a file and whatever takes its result, too."""
    storage = open_storage(tmp_path / "s")
    storage.create({"__lock.tdb": b"1"}, replace=False)
    (tmp_path / "s" / "folder").mkdir()
    (tmp_path / "s" / "folder" / "file").write_bytes(b"1")
    call = partial(STORAGE_CALLS[name], storage)
    call()
    before = descriptors()
    for after in range(looks(call) + 1):
        interrupt(call, after)
        assert descriptors() == before, after


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # raised in a __del__
@pytest.mark.parametrize("name", ["flush", "consolidate", "open"])
def test_no_interrupt_of_a_store_leaves_a_descriptor_open(name: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    calls: dict[str, Callable[[], object]] = {
        "flush": lambda: (db.put_many({1: b"1"}), db.flush()),
        "consolidate": lambda: (db.put_many({1: b"1"}), db.flush(), db.consolidate(vacuum=True)),
        "open": lambda: tilekv.open(path).close(),
    }
    with tilekv.open(path, "x", config={"kv.sync": name == "flush", "kv.upkeep": "off"}) as db:
        calls["consolidate"]()
        calls["flush"]()
        before = descriptors()
        for after in random.Random(name).sample(range(looks(calls[name])), 2000 * TURNS // 20_000):
            interrupt(calls[name], after)
            assert descriptors() == before, after


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # raised in a __del__
def test_interrupts_anywhere(tmp_path: Path, tally: Any) -> None:
    """One handle goes on through hundreds of interrupts: each batch is there whole or not at all, and none is lost."""
    path = tmp_path / "store"
    rng = random.Random(8)
    schema = Schema([Attr("value", bytes)], capacity=16)
    model: dict[Any, bytes] = {}
    stopped = 0
    with tilekv.open(path, "x", schema=schema, config=FAST | {"kv.threads": 2}) as db:
        for turn in range(TURNS):
            batch = {(turn * 7 + i) % 900: b"%d %d" % (turn, i) for i in range(200)}
            call = rng.choice(
                [
                    lambda batch=batch: db.put_many(batch),
                    db.flush,
                    lambda batch=batch: (db.put_many(batch), db.flush()),
                    lambda: db.consolidate(vacuum=True),
                    db.reopen,
                    lambda: dict(db.items()),
                ]
            )
            stopped += interrupt(call, int(2 ** rng.uniform(0, 12)))
            found = db.get_many(list(batch))
            if found == list(batch.values()):
                model.update(batch)
            assert found == [model.get(key) for key in batch]
        assert stopped > TURNS // 5
        db.flush()
        assert dict(db.items()) == model
        # What it was about to remove is for a later vacuum, as after a crash.
        age(path, 2)
        db.vacuum()
    assert contents(path) == model
    assert [each.name for each in path.glob(".tmp-*")] == []
    tally("interrupts", stopped)


LOAD = """
import signal
import sys
import tilekv
signal.signal(signal.SIGINT, signal.default_int_handler)
with tilekv.open(sys.argv[1], "a", config={"kv.sync": False}) as db:
    for start in range(0, 1 << 60, 1000):
        db.put_many([(f"{start} {i}", b"x") for i in range(1000)])
        if start == 5000:
            print("loaded", flush=True)
"""


def test_ctrl_c(tmp_path: Path) -> None:
    """A program that loads in `with` ends, by KeyboardInterrupt, and has flushed what it had put."""
    command = [sys.executable, "-P", "-c", LOAD, tmp_path / "store"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout
        assert job.stdout.readline() == "loaded\n"
        job.send_signal(signal.SIGINT)
        try:
            _, errors = job.communicate(timeout=120)
        finally:
            job.kill()
    assert job.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    batches = contents(tmp_path / "store")
    assert len(batches) >= 6000
    assert len(batches) % 1000 == 0

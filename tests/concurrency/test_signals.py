"""Ctrl-C in a long call: it stops soon, raises KeyboardInterrupt, and leaves the store and the handle whole.

How soon is not timed. A timer ticks every millisecond, and its handler counts: a call that never looked for signals would let it
run once, at its end.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from life import contents

N = 400_000  # calls look every sixteen thousand rows, or every hundred thousand cells where they do not hold the GIL
FAST = {"kv.sync": False}
KEYS = [b"key %d" % i for i in range(N)]
VALUES = [b"value %d" % i for i in range(N)]
NUMBERS = np.arange(N)
TICK = 0.001


class Interrupt(KeyboardInterrupt):
    """What the handlers of these tests raise."""


@contextmanager
def ticking(
    handler: Callable[..., None], first: float = TICK, then: float = TICK
) -> Iterator[None]:
    """Ticks, in seconds; none of them comes later than this."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, first, then)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def looks(call: Callable[[], object]) -> int:
    """How often a call of one bytecode, which takes many ticks, let the handler run."""
    count = 0

    def handler(number: int, frame: object) -> None:
        nonlocal count
        count += 1

    with ticking(handler):
        call()
    return count


def interrupt(call: Callable[[], object], after: float = TICK) -> bool:
    """Whether the call was interrupted."""

    def handler(number: int, frame: object) -> None:
        raise Interrupt

    try:
        with ticking(handler, after, 0):
            call()
    except Interrupt:
        return True
    return False


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N keys and N deletes, in two fragments."""
    path = tmp_path_factory.mktemp("signals") / "store"
    with tilekv.open(path, "x", config=FAST) as db:
        db.put_many(KEYS, VALUES)
        db.flush()
        db.delete_many(NUMBERS)
    return path


PUTS: dict[str, Callable[[tilekv.Store], object]] = {
    "lists": lambda db: db.put_many(KEYS, VALUES),
    "pairs": lambda db: db.put_many(zip(KEYS, VALUES, strict=True)),
    "other iterables": lambda db: db.put_many(iter(KEYS), iter(VALUES)),
    "columns": lambda db: db.put_many(NUMBERS, value=VALUES),
    "deletes": lambda db: db.delete_many(KEYS),
}


@pytest.mark.parametrize("kind", PUTS)
def test_loading(tmp_path: Path, kind: str) -> None:
    """What is interrupted has buffered nothing."""
    with tilekv.open(tmp_path / "store", "x", config=FAST) as db:
        assert interrupt(lambda: PUTS[kind](db))
        assert db.info().buffered == 0
        assert looks(lambda: PUTS[kind](db)) > 2
        assert db.info().buffered == N
        db._discard()


READS: dict[str, Callable[[tilekv.Store], object]] = {
    "len": len,
    "info": tilekv.Store.info,
    "keys": list,
    "items": lambda db: dict(db.items()),
    "get_many": lambda db: db.get_many(KEYS),
    "read": lambda db: db.read(KEYS),
    "scan": lambda db: [batch.keys for batch in db.scan()],
    "verify": tilekv.Store.verify,
}


@pytest.mark.parametrize("kind", READS)
def test_reading(path: Path, kind: str) -> None:
    """What is interrupted can be called again; `get_many` the first time makes a table, the next time it has one."""
    for _ in range(2):
        with tilekv.open(path, config={"kv.threads": 1}) as db:
            assert interrupt(lambda: READS[kind](db))
            assert looks(lambda: READS[kind](db)) > 2
            assert looks(lambda: READS[kind](db)) > 2
            assert db.get_many(KEYS[:1000]) == VALUES[:1000]
            assert len(db) == N


def test_reading_what_is_buffered(tmp_path: Path) -> None:
    """The first look-up makes the buffer's table, the first iterator sorts it."""
    for call in (lambda db: db.get(KEYS[0]), tilekv.Store._sorted):
        with tilekv.open(tmp_path / "store", "a", config=FAST) as db:
            db.put_many(KEYS, VALUES)
            assert interrupt(partial(call, db))
            assert looks(partial(call, db)) > 2
            assert db.get_many(KEYS) == VALUES
            db._discard()


def test_flushing_and_consolidating(tmp_path: Path) -> None:
    """The buffer is kept, or the fragments that were to be merged."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", config=FAST) as db:
        db.put_many(KEYS, VALUES)
        assert interrupt(db.flush, 0.02)
        assert db.info().buffered == N
        assert db.fragments == ()
        db.flush()
        db.put_many(KEYS[: N // 2], VALUES[: N // 2])
        db.flush()
        assert interrupt(db.consolidate, 0.02)
        assert len(db.fragments) == 2
        assert len(list(path.glob("__*_*_*"))) == 2
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1
        assert db.get_many(KEYS) == VALUES


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # raised in a __del__
def test_interrupts_anywhere(tmp_path: Path) -> None:
    """One handle goes on through hundreds of interrupts: each batch is there whole or not at all, and none is lost."""
    path = tmp_path / "store"
    rng = random.Random(8)
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=16)
    model: dict[Any, bytes] = {}
    stopped = 0
    with tilekv.open(path, "x", schema=schema, config=FAST | {"kv.threads": 2}) as db:
        for turn in range(250):
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
            stopped += interrupt(call, rng.choice([0.00005, 0.0005, 0.002, 0.01]) * rng.random())
            found = db.get_many(list(batch))
            if found == list(batch.values()):
                model.update(batch)
            assert found == [model.get(key) for key in batch]
        assert stopped > 20
        db.flush()
        assert dict(db.items()) == model
        db.vacuum()
    assert contents(path) == model


LOAD = """
import sys
import tilekv
with tilekv.open(sys.argv[1], "a", config={"kv.sync": False}) as db:
    print("loading", flush=True)
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
        assert [job.stdout.readline() for _ in range(2)] == ["loading\n", "loaded\n"]
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=120)
    assert job.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    batches = contents(tmp_path / "store")
    assert len(batches) >= 6000
    assert len(batches) % 1000 == 0

"""One handle, sixteen threads that do all there is to do with it, and a close in the middle; caches too small for what is read.

Every value says which key it is of, who wrote it and when, so that a value of another key, of the past, or of freed memory shows.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import contents
from tilekv import Attr, Schema

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
SECONDS = 120 if NIGHTLY else 1.5
ROUNDS = 300 if NIGHTLY else 6
WRITERS = 6
OWN = 40  # keys of each writer
BATCH = 12  # keys that are only ever set together
TINY, LARGE = 3_000, 1 << 26  # bytes: a chunk or two, or all there is


pytestmark = pytest.mark.usefixtures("eager_switching")


class Threads:
    """Runs jobs, each in a thread of its own; the first error of any is raised at the end."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, job: Callable[[], object]) -> None:
        def run() -> None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised by `join`
                self.errors.append(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(300)
            assert not thread.is_alive(), "a deadlock"
        if self.errors:
            raise self.errors[0]


# --- all at once ------------------------------------------------------------------------------------

ATTRS = [
    Attr("text", bytes),
    Attr("number", "int64"),
    Attr("long", bytes),
    Attr("note", str, nullable=True),
]
DAY = 24 * 3600
LENGTHS = [1, 0, 20, 60, 3, 6000]  # the last is decoded past the cache


def row(key: str, turn: int) -> dict[str, Any]:
    """What writer `key.split()[0]` sets a key to in its turn."""
    return {
        "text": f"{key} {turn}".encode(),
        "number": turn,
        "long": f"{key} {turn} ".encode() * LENGTHS[sum(key.encode()) % len(LENGTHS)],
        "note": f"{key} {turn}" if turn % 3 else None,
    }


def check(key: str, found: dict[str, Any] | None) -> None:
    """It is what somebody has set this key to, whole."""
    if found is not None:
        assert found == row(key, found["number"])


def check_batches(found: dict[str, dict[str, Any]]) -> None:
    """Of every batch all or nothing."""
    for key, value in found.items():
        check(key, value)
    for writer in range(WRITERS):
        values = [found.get(f"{writer} batch {i}") for i in range(BATCH)]
        assert len({value["number"] if value else None for value in values}) == 1, values


class Writer:
    """Sets and deletes keys that nobody else touches: what it reads of them is what it wrote last."""

    def __init__(self, db: tilekv.Store, number: int) -> None:
        self.db = db
        self.number = number
        self.model: dict[str, dict[str, Any]] = {}
        self.rng = random.Random(number)
        self.turns = itertools.count()

    def turn(self) -> None:
        db, rng, turn = self.db, self.rng, next(self.turns)
        key = f"{self.number} own {rng.randrange(OWN)}"
        db[key] = row(key, turn)
        self.model[key] = row(key, turn)
        assert db[key] == self.model[key]
        many = {f"{self.number} own {rng.randrange(OWN)}": None for _ in range(5)}
        rows = {name: row(name, turn) for name in many}
        db.put_many(rows)
        self.model.update(rows)
        batch = {
            f"{self.number} batch {i}": row(f"{self.number} batch {i}", turn) for i in range(BATCH)
        }
        db.put_many(batch)
        self.model.update(batch)
        gone = [f"{self.number} own {rng.randrange(OWN)}" for _ in range(3)]
        db.delete_many(gone)
        for name in gone:
            self.model.pop(name, None)
        if key in self.model:
            del db[key]
            del self.model[key]
        if db.schema.expires:
            self.expire(turn)
        names = [f"{self.number} own {i}" for i in range(OWN)]
        assert db.get_many(names) == [self.model.get(name) for name in names]
        asked = db.read(names, missing="mask")
        assert asked.found.tolist() == [name in self.model for name in names]
        if turn % 7 == self.number:
            db.flush()

    def expire(self, turn: int) -> None:
        """One at once, which is as if deleted, and one after a day, and then not at all."""
        soon, later = (f"{self.number} own {i}" for i in self.rng.sample(range(OWN), 2))
        rows = {name: row(name, turn) for name in (soon, later)}
        self.db.apply(rows, expires={soon: 0, later: DAY})
        self.model[later] = rows[later]
        self.model.pop(soon, None)
        self.db.touch(later)
        self.db.update_many([later], note=[rows[later]["note"]])


class Others:
    """What the other threads do, over and over."""

    def __init__(self, db: tilekv.Store) -> None:
        self.db = db

    def get(self) -> None:
        for writer in range(WRITERS):
            for i in range(OWN):
                check(f"{writer} own {i}", self.db.get(f"{writer} own {i}"))

    def get_many(self) -> None:
        names = [f"{writer} own {i}" for writer in range(WRITERS) for i in range(OWN)]
        for name, found in zip(names, self.db.get_many(names), strict=True):
            check(name, found)

    def iterate(self) -> None:
        check_batches(dict(self.db.items()))
        assert all(isinstance(key, str) for key in self.db)

    def scan(self) -> None:
        """Whole columns: each row is of one moment."""
        rows: dict[str, dict[str, Any]] = {}
        for batch in self.db.scan(rows=50):
            numbers = batch["number"].tolist()
            texts, longs, notes = (batch[name].to_list() for name in ("text", "long", "note"))
            for key, *values in zip(batch.keys, texts, numbers, longs, notes, strict=True):
                rows[key] = dict(zip(("text", "number", "long", "note"), values, strict=True))
        check_batches(rows)

    def count(self) -> None:
        assert len(self.db) <= WRITERS * (OWN + BATCH)
        assert self.db.info().fragments >= 0

    def verify(self) -> None:
        assert self.db.verify() == []

    def reopen(self) -> None:
        self.db.reopen()
        self.db.flush()

    def maintain(self) -> None:
        self.db.consolidate(vacuum=True)
        time.sleep(0.01)


@pytest.mark.parametrize(("cache", "mmap"), [(TINY, False), (LARGE, True)])
@pytest.mark.parametrize("expires", [False, True])
def test_sixteen_threads_and_a_close(
    tmp_path: Path, cache: int, mmap: bool, expires: bool, tally: Any
) -> None:
    path = tmp_path / "store"
    schema = Schema(ATTRS, capacity=8, expires=expires)
    config = {"kv.sync": False, "kv.threads": 2, "kv.cache_bytes": cache, "kv.mmap": mmap}
    db = tilekv.open(path, "x", schema=schema, config=config)
    others = Others(db)
    writers = [Writer(db, number) for number in range(WRITERS)]
    jobs = [writer.turn for writer in writers]
    jobs += [others.get, others.get, others.get_many, others.get_many, others.iterate]
    jobs += [others.scan, others.count, others.verify, others.reopen, others.maintain]
    threads, rounds = Threads(), [0] * len(jobs)

    def repeat(number: int) -> None:
        try:
            while True:
                jobs[number]()
                rounds[number] += 1
        except tilekv.ClosedError:
            assert db.closed

    for number in range(len(jobs)):
        threads.start(partial(repeat, number))
    time.sleep(SECONDS)
    while min(rounds) == 0 and not threads.errors:
        time.sleep(0.01)
    db.close()
    threads.join()
    expected = {key: value for writer in writers for key, value in writer.model.items()}
    assert len(expected) >= WRITERS * BATCH
    assert contents(path) == expected
    tally("rounds of sixteen threads on one handle", sum(rounds))


# --- iterating while others write -------------------------------------------------------------------


def test_an_iterator_shows_the_moment_it_was_made(tmp_path: Path) -> None:
    """Whatever is put, deleted, flushed, merged, removed or closed before it is used, and between its steps."""
    with tilekv.open(tmp_path / "store", "x", config={"kv.sync": False}) as db:
        db.put_many(dict.fromkeys(range(3000), b"flushed"))
        db.flush()
        db.put_many(dict.fromkeys(range(2000, 4000), b"buffered"))
        expected = dict.fromkeys(range(2000), b"flushed") | dict.fromkeys(
            range(2000, 4000), b"buffered"
        )
        made = [iter(db.items()), iter(db.items()), db.scan(rows=100)]
        keys, values = iter(db), iter(db.values())
        first = [next(made[0]) for _ in range(10)]
        db.delete_many(range(0, 4000, 2))
        db.put_many(dict.fromkeys(range(1, 5000, 2), b"later"))
        db.flush()
        second = [next(made[0]) for _ in range(1500)]
        db.consolidate(vacuum=True)
        db["last"] = b"later"
    assert dict([*first, *second, *made[0]]) == expected
    assert dict(made[1]) == expected
    assert dict(zip(keys, values, strict=True)) == expected
    columns = [(batch.keys, batch["value"].to_list()) for batch in made[2]]
    assert {k: v for ks, vs in columns for k, v in zip(ks, vs, strict=True)} == expected


# --- chunks that are evicted while they are read ----------------------------------------------------


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("cache", [TINY, 40_000, LARGE])
def test_chunks_evicted_while_they_are_read(tmp_path: Path, cache: int, mmap: bool) -> None:
    """Ten threads read, each in its own way, what three fragments hold."""
    path = tmp_path / "store"
    rng = random.Random(cache)
    schema = Schema([Attr("text", bytes), Attr("number", "int64")], capacity=64)
    n = 3000
    lengths = [rng.choice([3, 40, 300, 5000 if i % 50 == 0 else 10]) for i in range(n)]
    model = {f"key {i}": {"text": b"%d " % i * lengths[i], "number": i * i} for i in range(n)}
    keys = list(model)
    with tilekv.open(path, "x", schema=schema, config={"kv.sync": False}) as db:
        for start in range(3):
            db.put_many({key: model[key] for key in keys[start::3]})
            db.flush()
    config = {"kv.cache_bytes": cache, "kv.mmap": mmap, "kv.threads": 2}
    threads = Threads()
    with tilekv.open(path, config=config) as db:

        def get(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(ROUNDS):
                for key in rng.choices(keys, k=200):
                    assert db[key] == model[key]

        def get_many(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(ROUNDS):
                # A second thread looks up some of the larger batch.
                asked = rng.choices([*keys, "absent"], k=rng.choice([500, 15_000]))
                assert db.get_many(asked) == [model.get(key) for key in asked]

        def read(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(ROUNDS):
                asked = rng.choices(keys, k=500)
                batch = db.read(asked)
                assert batch["text"].to_list() == [model[key]["text"] for key in asked]
                assert batch["number"].tolist() == [model[key]["number"] for key in asked]

        def iterate(seed: int) -> None:
            for _ in range(max(ROUNDS // 4, 1)):
                assert dict(db.items()) == model
                assert sum(len(batch.keys) for batch in db.scan(rows=97)) == n

        def verify(seed: int) -> None:
            for _ in range(max(ROUNDS // 4, 1)):
                assert db.verify() == []

        jobs = [get, get, get, get_many, get_many, get_many, read, read, iterate, verify]
        for seed, job in enumerate(jobs):
            threads.start(partial(job, seed))
        threads.join()

"""Writers, merges, vacuums and readers of one store in a bucket take turns at random, one request at a time, and die anywhere.

The real code runs in threads, each of which waits for its turn before each request. A value is a number that only grows, so that
a reader knows what he may see: all that was acknowledged when he began, nothing that had not been begun when he ended.
"""

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from tilekv.storage import objectclient, objectstore
from tilekv.storage.objectstore import ObjectStorage

SEEDS = 1500 if os.environ.get("TILEKV_NIGHTLY") else 40
KEYS = ("a", "b", "c")


class Killed(BaseException):
    """The process is gone."""


class Turns:
    """Lets one thread at a time make a request: which, a seed says."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._turn = threading.Condition()
        self._waiting: dict[str, bool] = {}  # by actor: whether it waits; those that work do not
        self._next = ""
        self.dead: set[str] = set()
        self.requests = 0

    def join(self, name: str) -> None:
        with self._turn:
            self._waiting[name] = False

    def leave(self, name: str) -> None:
        with self._turn:
            del self._waiting[name]
            self._choose()

    def wait(self, name: str) -> None:
        """Until it is this actor's turn; or it dies here."""
        with self._turn:
            if name in self.dead:
                raise Killed
            self._waiting[name] = True
            self._choose()
            while self._next != name:
                self._turn.wait()
            self._next = ""
            self._waiting[name] = False
            self.requests += 1
            if name.startswith("merge") and self._random.random() < 0.001:
                self.dead.add(name)
                raise Killed

    def _choose(self) -> None:
        if self._waiting and all(self._waiting.values()) and not self._next:
            self._next = self._random.choice(sorted(self._waiting))
            self._turn.notify_all()


class World:
    """A store, what was written to it, and who works there."""

    def __init__(self, bucket: Bucket, seed: int, merges: int = 2) -> None:
        self.bucket = bucket
        self.merges = merges
        self.uri = bucket.new()
        self.turns = Turns(seed)
        self.random = random.Random(seed)
        self.begun = dict.fromkeys(KEYS, 0)
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.deleted: set[tuple[str, int]] = set()  # states of keys in which there is none
        self.wrong: list[str] = []

    def write(self, key: str, rounds: int) -> None:
        with self.bucket.open(self.uri, "a", config=OFF) as db:
            for number in range(1, rounds + 1):
                if number % 4 == 3:
                    self.deleted.add((key, number))
                    db.delete_many([key])
                else:
                    db[key] = b"%d" % number
                self.begun[key] = number
                db.flush()
                self.acknowledged[key] = number

    def read(self) -> None:
        for _ in range(4):
            before = dict(self.acknowledged)
            seen = self.bucket.items(self.uri)
            for key in KEYS:
                allowed = range(before[key], self.begun[key] + 1)
                if key in seen:
                    right = int(seen[key]) in allowed
                else:
                    right = any(n == 0 or (key, n) in self.deleted for n in allowed)
                if not right:
                    self.wrong.append(f"{key}: {seen.get(key)} instead of one of {allowed}")

    def merge(self, vacuum: bool) -> None:
        for _ in range(8):
            with self.bucket.open(self.uri, "a", config=OFF) as db:
                try:
                    db.consolidate()
                    if vacuum:
                        db.vacuum()
                except tilekv.StoreBusyError:
                    continue

    def run(self) -> None:
        self.bucket.open(self.uri, "x").close()
        actors: dict[str, Callable[[], None]] = {
            **{f"write {key}": lambda key=key: self.write(key, 5) for key in KEYS},
            **{f"merge {i}": lambda i=i: self.merge(i == 0) for i in range(self.merges)},
            "read": self.read,
        }
        for name in actors:
            self.turns.join(name)

        def act(name: str, work: Callable[[], None]) -> None:
            try:
                work()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001 - the test shows it
                self.wrong.append(f"{name}: {error!r}")
            finally:
                self.turns.leave(name)

        threads = [threading.Thread(target=act, args=each, name=each[0]) for each in actors.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.fixture
def by_turns(monkeypatch: pytest.MonkeyPatch) -> list[Turns]:
    """Requests wait for their turn at the last of these; nothing else takes time."""
    turns: list[Turns] = []
    real = objectclient.Client._call

    def call(self: Any, *request: Any) -> Any:
        name = threading.current_thread().name
        if turns and name in turns[-1]._waiting:
            turns[-1].wait(name)
        return real(self, *request)

    monkeypatch.setattr(objectclient.Client, "_call", call)
    monkeypatch.setattr(
        objectclient.Client, "at_once", lambda self, work, items: [work(item) for item in items]
    )
    monkeypatch.setattr(objectstore, "TELLS_MS", 1)
    monkeypatch.setattr("tilekv.consolidation.DRAFTS_S", 0)
    monkeypatch.setattr("tilekv.consolidation.BUSY_S", 0)
    return turns


def records(world: World) -> int:
    """How often the record was replaced."""
    record = world.bucket.storage(world.uri).record()
    return record.seq if record else 0


def wrong(
    bucket: str, turns: list[Turns], seed: int, tally: Any = None, merges: int = 2
) -> list[str]:
    """What was wrong in one schedule, or is at its end."""
    world = World(Bucket(bucket), seed, merges)
    turns.append(world.turns)
    world.run()
    turns.pop()
    last = {key: n for key, n in world.begun.items() if (key, n) not in world.deleted}
    want = {key: b"%d" % n for key, n in last.items()}
    if not world.wrong and (now := world.bucket.items(world.uri)) != want:
        world.wrong.append(f"{now} instead of {want}")
    if tally:
        tally("requests in random order", world.turns.requests)
        tally("records of merges in these", records(world))
        assert tilekv.verify(world.uri) == []
    return world.wrong


def test_whatever_the_order(memory_bucket: str, by_turns: list[Turns], tally: Any) -> None:
    for seed in range(SEEDS):
        assert wrong(memory_bucket, by_turns, seed, tally, 2 + seed % 4) == [], f"seed {seed}"


def no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is replaced whoever was faster."""

    def put_if(self: Any, key: str, data: bytes, version: Any) -> Any:
        self.put(key, data)
        return {"e_tag": None, "version": None}

    monkeypatch.setattr(objectclient.Client, "put_if", put_if)
    monkeypatch.setattr(ObjectStorage, "_check_conditions", lambda *_: None)


def test_without_conditions(
    memory_bucket: str, by_turns: list[Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are needed: a schedule shows it soon."""
    no_conditions(monkeypatch)
    assert any(wrong(memory_bucket, by_turns, seed, merges=5) for seed in range(200))

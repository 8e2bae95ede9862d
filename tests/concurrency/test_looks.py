"""Opening while others write, merge and vacuum: what is shown was there, whole, whatever the listings missed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tilekv
from tilekv.names import FragmentName
from tilekv.opener import MOST_LISTINGS, Opener
from tilekv.record import Commit, Record, shorts
from tilekv.storage import Listing, RecordFile
from tilekv.storage.local import LocalStorage

NIGHTLY = "TILEKV_NIGHTLY" in os.environ


class World:
    """A store without contents, changed a step at a time by its actors; its listings take as long as those of a large folder."""

    uri = "a model"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.actors: list[Iterator[None]] = []
        self.folders: set[FragmentName] = set()
        self.staged: set[FragmentName] = set()
        self.aside: set[FragmentName] = set()
        self.newest = Record("")
        self.slots: dict[str, float] = {}  # where names are in a listing
        # All that ever were, and their sources.
        self.known: dict[FragmentName, tuple[FragmentName, ...]] = {}
        self.begun: dict[FragmentName, int] = {}  # by flush: when it looked what is there,
        self.ended: dict[FragmentName, int] = {}  # and when it had appeared
        self.now = self.listings = 0
        self.pace = rng.choice([0.02, 0.1, 0.3, 0.6])  # how often the others are faster

    # --- what is done to it ---

    def flushes(self, n: int) -> Iterator[None]:
        for _ in range(n):
            begun = self.now
            t = max(self.now // 8, max((name.t2 for name in self.folders), default=-1) + 1)
            yield
            name = self.name(t, t)
            self.begun[name] = begun
            self.known[name] = ()
            self.appear(name)
            self.ended[name] = self.now
            yield

    def merges(self, n: int, vacuum: bool) -> Iterator[None]:
        for _ in range(n):
            sources = sorted(self.visible(), key=lambda name: name.order)
            if len(sources) < 2:
                yield
                continue
            span = min(name.t1 for name in sources), max(name.t2 for name in sources)
            outputs = tuple(
                self.name(*span, merged=True) for _ in range(self.rng.choice([1, 1, 2]))
            )
            for output in outputs:
                self.known[output] = tuple(sources)
                self.staged.add(output)
                yield
            self.commit(Commit(outputs, shorts(sources), 0))
            yield
            for output in outputs:
                self.staged.remove(output)
                self.appear(output)
                yield
            for source in sources:
                self.folders.remove(source)
                self.aside.add(source)
                yield
            if vacuum:
                yield from self.vacuum()

    def vacuum(self) -> Iterator[None]:
        gone = sorted(self.aside)
        for name in gone:
            self.aside.remove(name)
            yield
        self.newest = self.newest.without(shorts(gone))
        yield

    def commit(self, commit: Commit) -> None:
        self.newest = self.newest.committed(commit, "")

    def visible(self) -> list[FragmentName]:
        return self.newest.visible(map(str, self.folders))

    def name(self, t1: int, t2: int, merged: bool = False) -> FragmentName:
        text = f"{self.rng.getrandbits(128):032x}"
        return FragmentName(t1, t2, f"{text[:12]}{'8' if merged else '4'}{text[13:]}")

    def appear(self, name: FragmentName) -> None:
        self.folders.add(name)
        self.slots[str(name)] = self.rng.random()

    def go_on(self) -> None:
        while self.rng.random() < self.pace and self.actors:
            self.step()

    def step(self) -> None:
        if not self.actors:
            return
        actor = self.rng.choice(self.actors)
        self.now += 1
        if next(actor, self) is self:
            self.actors.remove(actor)

    # --- what is asked of it ---

    def list(self) -> Listing:
        """As of a large folder: name by name, in the order of their hashes."""
        self.listings += 1
        found: list[str] = []
        at = 0.0
        while True:
            self.go_on()
            there = map(str, self.folders)
            at, name = min(
                ((self.slots[n], n) for n in there if self.slots[n] > at), default=(2, "")
            )
            if not name:
                return Listing(tuple(sorted(found)), ())
            found.append(name)

    def record(self) -> RecordFile | None:
        self.go_on()
        return RecordFile(self.newest.seq, self.newest.to_bytes()) if self.newest.seq else None

    def expect(self, folders: Iterable[str]) -> None:
        pass

    def record_seq(self) -> int:
        self.go_on()
        return self.newest.seq

    def is_empty(self, folder: str) -> bool:
        raise AssertionError("TileDB 2 adds nothing to a model")

    def files(self, folder: str) -> dict[str, int]:
        self.find(folder)
        return {}

    def open(self, name: str) -> Any:
        sources = self.known[self.find(name)]
        return SimpleNamespace(name=name, sources=tuple(map(str, sources)))

    def find(self, name: str) -> FragmentName:
        """In one place after the other, as it moves."""
        found = FragmentName.parse(name)
        assert found
        for place in (self.folders, self.staged, self.folders, self.aside):
            self.go_on()
            if found in place:
                return found
        raise FileNotFoundError(name)

    # --- what may be shown ---

    def holds(self, name: FragmentName) -> frozenset[FragmentName]:
        """The flushes in a fragment."""
        sources = self.known[name]
        return frozenset().union(*map(self.holds, sources)) if sources else frozenset({name})

    def check(self, texts: list[str], since: int) -> None:
        shown = [name for name in map(FragmentName.parse, texts) if name]
        assert len(set(shown)) == len(shown)

        def whole(name: FragmentName) -> bool:
            sources = self.known[name]
            return name in shown or (bool(sources) and all(map(whole, sources)))

        for name in shown:
            if self.below(name) & {*shown}:
                assert all(map(whole, self.known[name])), "a part of what was merged"
        held = frozenset[FragmentName]().union(*map(self.holds, shown))
        for flush, ended in self.ended.items():
            assert flush in held or ended > since, "a flush that had ended is missing"
            assert flush in held or not any(self.begun[other] >= ended for other in held), (
                "the later of two flushes, without the earlier"
            )

    def below(self, name: FragmentName) -> set[FragmentName]:
        sources = self.known[name]
        return {*sources}.union(*map(self.below, sources)) if sources else set()


def explore(seed: int, merges: int) -> int:
    """One course of events; how many listings it took to open."""
    rng = random.Random(seed)
    world = World(rng)
    for actor in [world.flushes(rng.randrange(4)), world.merges(rng.randrange(2), merges > 0)]:
        for _ in actor:
            world.now += 1
    world.actors = [world.flushes(rng.randrange(1, 6)) for _ in range(rng.randrange(1, 4))]
    world.actors.append(world.merges(merges, rng.random() < 0.8))
    for _ in range(rng.randrange(12)):
        world.step()
    since = world.now
    opener = Opener(world, SimpleNamespace(expires=-1), 0, True, 1000)  # type: ignore[arg-type]
    opener.open_listed = world.open  # type: ignore[method-assign]
    world.check(opener._names(None, {}), since)
    return world.listings


@pytest.mark.parametrize("merges", [0, 1, 3])
def test_any_course_of_events(merges: int, tally: Callable[..., None]) -> None:
    """Nothing that had been flushed is missing, no flush is shown without those before it, of what was merged all or nothing."""
    courses = 200_000 if NIGHTLY else 3_000
    took = Counter(explore(seed, merges) for seed in range(courses))
    assert max(took) <= (MOST_LISTINGS if merges else 2)
    tally("courses of events in which a store was opened", courses)


WRITER = """
import sys, tilekv
with tilekv.open(sys.argv[1], "a", config={"kv.sync": False}) as db:
    n = 0
    while True:
        n += 1
        for key in "first", "second":
            db[f"{sys.argv[2]} {key}"] = n
            db.flush()
"""


def test_five_writers_without_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`open` and `reopen` end, after three listings at most, and show what had been flushed by then, in its order."""
    path = str(tmp_path / "store")
    schema = tilekv.Schema([tilekv.Attr("n", "int64")])
    tilekv.open(path, "x", schema=schema).close()
    listings = 0
    list_ = LocalStorage.list

    def counted(storage: LocalStorage) -> Listing:
        nonlocal listings
        listings += 1
        return list_(storage)

    monkeypatch.setattr(LocalStorage, "list", counted)
    writers = [
        subprocess.Popen([sys.executable, "-P", "-c", WRITER, path, str(i)]) for i in range(5)
    ]
    try:
        with tilekv.open(path) as db:
            while len(db) < 10 or len(db.fragments) < 20:
                time.sleep(0.01)
                db.reopen()
            start = before = dict(db)
            for _ in range(200 if NIGHTLY else 3):
                listings = 0
                db.reopen()
                assert listings <= 3
                listings = 0
                with tilekv.open(path) as other:
                    assert listings <= 3
                    found = [before, dict(db), dict(other)]
                for earlier, now in pairwise(found):
                    assert all(now[key] >= n for key, n in earlier.items())
                for now in found[1:]:
                    assert {now[f"{i} first"] - now[f"{i} second"] for i in range(5)} <= {0, 1}
                before = found[2]
            assert before != start
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()

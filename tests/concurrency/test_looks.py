"""Opening while others write, merge and vacuum: what is shown was there, whole, whatever the listings missed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tilekv
from tilekv.history import vac_bytes
from tilekv.names import FragmentName, vac_file
from tilekv.opener import MOST_LISTINGS, Opener
from tilekv.storage import Listing
from tilekv.storage.local import LocalStorage

NIGHTLY = "TILEKV_NIGHTLY" in os.environ


class World:
    """A store without contents, changed a step at a time by its actors; its listings take as long as those of a large folder."""

    uri = "a model"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.actors: list[Iterator[None]] = []
        self.folders: dict[str, tuple[str, ...]] = {}  # sources by name
        self.markers: dict[str, bytes] = {}
        self.slots: dict[str, float] = {}  # where names are in a listing
        self.known: dict[str, tuple[str, ...]] = {}  # all that ever were, and their sources
        self.begun: dict[str, int] = {}  # by flush: when it looked what is there,
        self.ended: dict[str, int] = {}  # and when it had appeared
        self.now = self.listings = 0
        self.pace = rng.choice([0.02, 0.1, 0.3, 0.6])  # how often the others are faster

    # --- what is done to it ---

    def flushes(self, n: int) -> Iterator[None]:
        for _ in range(n):
            begun = self.now
            latest = [FragmentName.parse(name) for name in self.folders]
            t = max(self.now // 8, max((name.t2 for name in latest if name), default=-1) + 1)
            yield
            name = self.name(t, t)
            self.begun[name] = begun
            self.appear(name, ())
            self.ended[name] = self.now
            yield

    def merges(self, n: int, vacuum: bool) -> Iterator[None]:
        for _ in range(n):
            sources = self.visible()
            if len(sources) < 2:
                yield
                continue
            parsed = list(filter(None, map(FragmentName.parse, sources)))
            span = min(name.t1 for name in parsed), max(name.t2 for name in parsed)
            outputs = [self.name(*span) for _ in range(self.rng.choice([1, 1, 2]))]
            for output in outputs:
                self.appear(output, tuple(sources))
                yield
            file = vac_file(outputs[-1])
            self.markers[file] = vac_bytes(outputs[-1], sources)
            self.slots[file] = self.rng.random()
            yield
            if vacuum:
                yield from self.vacuum()

    def vacuum(self) -> Iterator[None]:
        waiting = {file[:-4]: self.known[file[:-4]] for file in self.markers}
        while waiting:
            owner = next(o for o, names in waiting.items() if not waiting.keys() & set(names))
            for source in sorted(waiting.pop(owner)):
                self.folders.pop(source, None)
                yield
            del self.markers[vac_file(owner)]
            yield

    def visible(self) -> list[str]:
        gone = {source for file in self.markers for source in self.known[file[:-4]]}
        return sorted(self.folders.keys() - gone)

    def name(self, t1: int, t2: int) -> str:
        return str(FragmentName(t1, t2, f"{self.rng.getrandbits(128):032x}"))

    def appear(self, name: str, sources: tuple[str, ...]) -> None:
        self.folders[name] = self.known[name] = sources
        self.slots[name] = self.rng.random()

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
            there = {*self.folders, *self.markers}
            at, name = min(
                ((self.slots[n], n) for n in there if self.slots[n] > at), default=(2, "")
            )
            if not name:
                break
            found.append(name)
        files = {name for name in found if name.endswith(".vac")}
        return Listing(tuple(sorted({*found} - files)), tuple(sorted(files)))

    def read(self, name: str) -> bytes:
        self.go_on()
        if name not in self.markers:
            raise FileNotFoundError(name)
        return self.markers[name]

    def is_empty(self, folder: str) -> bool:
        raise AssertionError("TileDB 2 adds nothing to a model")

    def files(self, folder: str) -> dict[str, int]:
        self.go_on()
        if folder not in self.folders:
            raise FileNotFoundError(folder)
        return {}

    def open(self, name: str) -> Any:
        self.go_on()
        if name not in self.folders:
            raise FileNotFoundError(name)
        return SimpleNamespace(name=name, sources=self.folders[name])

    # --- what may be shown ---

    def holds(self, name: str) -> frozenset[str]:
        """The flushes in a fragment."""
        sources = self.known[name]
        return frozenset().union(*map(self.holds, sources)) if sources else frozenset({name})

    def check(self, shown: list[str], since: int) -> None:
        assert len(set(shown)) == len(shown)

        def whole(name: str) -> bool:
            sources = self.known[name]
            return name in shown or (bool(sources) and all(map(whole, sources)))

        for name in shown:
            if self.below(name) & {*shown}:
                assert all(map(whole, self.known[name])), "a part of what was merged"
        held = frozenset[str]().union(*map(self.holds, shown))
        for flush, ended in self.ended.items():
            assert flush in held or ended > since, "a flush that had ended is missing"
            assert flush in held or not any(self.begun[other] >= ended for other in held), (
                "the later of two flushes, without the earlier"
            )

    def below(self, name: str) -> set[str]:
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
    opener = Opener(world, None, 0, True, 1000)  # type: ignore[arg-type]
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
            while len(db) < 10 or len(db.fragments) < 60:
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

"""The passes: what a new process does with a store that is in memory not at all, wholly, or as far as it may be."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.alone import try_in_child
from bench.cold import limit
from bench.cold.keys import Numbered
from bench.cold.pages import Spent
from bench.cold.stores import Contender, Large
from bench.rivals import NotOffered, Rival

COLD, CACHED, LIMITED = "cold", "cached", "limited"
PART_BYTES = 16 << 10
PARTS = 20  # of one large value
OPENED = 21  # times that a store is opened
CHECKED = 50  # keys of a pass whose values are compared
WARM = 1_000_000  # keys looked up, at most, before those that a cache is timed with
STEP = 200  # keys between looks at the clock
ON = 200_000  # keys that a limited pass goes through: as many objects fit into little memory


@dataclass(frozen=True)
class Pass:
    """What is done, on which data, in which state of the system's cache, with how many keys.

    `run` gets a Task and returns what the pass has spent, and on how many operations. `unit` is /s or s, of one operation.
    """

    data: str
    name: str
    state: str
    asked: int
    run: Callable[[Task], tuple[Spent, int]]
    what: str
    unit: str = "/s"
    who: tuple[str, ...] = ()  # contenders; all of the data
    cache_bytes: int | None = None
    limit: int = 0  # bytes of memory


@dataclass(frozen=True)
class Task:
    """What a process needs to know for one pass of one contender."""

    contender: Contender
    path: Path
    source: Numbered | Large
    asked: int
    seed: int
    cache_bytes: int | None
    seconds: float  # that a limited pass goes on for, twice

    def keys(self, count: int, more: int = 0) -> list[bytes]:
        """Keys that are there, in random order; with another `more` others."""
        assert isinstance(self.source, Numbered)
        return [
            self.source.key(each) for each in self.source.some(count, self.seed + more).tolist()
        ]

    def open(self) -> Rival:
        """The store, with the cache that the pass asks for if it has one of its own."""
        store = self.contender.make()
        try:
            store.open(self.path, self.cache_bytes)
        except NotOffered:
            store.open(self.path)
        return store


def _timed(work: Callable[..., object], *arguments: object) -> Spent:
    gc.collect()
    gc.freeze()
    before = Spent.now()
    work(*arguments)
    return Spent.now().since(before)


def _check(task: Task, store: Rival) -> None:
    """What is found is what was loaded."""
    assert isinstance(task.source, Numbered)
    for number in task.source.some(task.asked, task.seed)[:CHECKED].tolist():
        value = task.source.value(number)
        found = store.part(task.source.key(number), 0, len(value) + 1)
        assert found == value, f"{found!r} is not what was loaded: {value!r}"


def get(task: Task) -> tuple[Spent, int]:
    """One key at a time."""
    keys, store = task.keys(task.asked), task.open()
    spent = _timed(store.get, keys)
    _check(task, store)
    store.close()
    return spent, len(keys)


def get_many(task: Task) -> tuple[Spent, int]:
    """All keys at once."""
    keys, store = task.keys(task.asked), task.open()
    spent = _timed(store.get_many, keys)
    _check(task, store)
    store.close()
    return spent, len(keys)


def _absent(task: Task) -> list[bytes]:
    assert isinstance(task.source, Numbered)
    numbers = task.source.some(task.asked, task.seed).tolist()
    return [task.source.key(number, b"1") for number in numbers]


def miss(task: Task) -> tuple[Spent, int]:
    """One absent key at a time."""
    keys, store = _absent(task), task.open()
    spent = _timed(store.miss, keys)
    store.close()
    return spent, len(keys)


def miss_again(task: Task) -> tuple[Spent, int]:
    """The same a second time."""
    keys, store = _absent(task), task.open()
    store.miss(keys)
    spent = _timed(store.miss, keys)
    store.close()
    return spent, len(keys)


def get_after(task: Task) -> tuple[Spent, int]:
    """One key at a time, of all there are, after so many others that a cache is as full as it gets."""
    assert isinstance(task.source, Numbered)
    keys, store = task.keys(task.asked), task.open()
    wanted = WARM if task.cache_bytes is None else min(50_000 + task.cache_bytes // 256, WARM)
    others = task.keys(min(wanted, task.source.count), more=1000)
    try:
        for at in range(0, len(others), 10_000):
            store.get_many(others[at : at + 10_000])
    except NotOffered:
        store.get(others)
    spent = _timed(store.get, keys)
    store.close()
    return spent, len(keys)


def get_on(task: Task) -> tuple[Spent, int]:
    """One key at a time, all others before it, for some seconds; after as many that do not count."""
    keys, store = task.keys(task.asked), task.open()
    at = _until(store, keys, 0, task.seconds)
    before = Spent.now()
    end = _until(store, keys, at, task.seconds)
    spent = Spent.now().since(before)
    _check(task, store)
    store.close()
    return spent, end - at


def _until(store: Rival, keys: list[bytes], at: int, seconds: float) -> int:
    """Look up from place `at` on; return where that ended. After the last key comes the first."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = at % len(keys)
        some = keys[begin : begin + STEP]
        store.get(some)
        at += len(some)
    return at


def whole(task: Task) -> tuple[Spent, int]:
    """A large value."""
    assert isinstance(task.source, Large)
    key, store = task.source.key(0), task.open()
    spent = _timed(store.part, key, 0, task.source.size)
    store.close()
    return spent, 1


def whole_again(task: Task) -> tuple[Spent, int]:
    """A large value that was read before."""
    assert isinstance(task.source, Large)
    key, store = task.source.key(0), task.open()
    for _ in range(3):
        spent = _timed(store.part, key, 0, task.source.size)
    store.close()
    return spent, 1


def part(task: Task) -> tuple[Spent, int]:
    """Parts of a large value, each from another place."""
    assert isinstance(task.source, Large)
    key, size = task.source.key(0), task.source.size
    # Odd multiples of a step: no two lie close to each other, and none follows the one before.
    starts = [
        (7 * each + task.seed) % PARTS * (size - PART_BYTES) // PARTS for each in range(PARTS)
    ]
    store = task.open()
    found: list[bytes] = []

    def read() -> None:
        found.extend(store.part(key, start, start + PART_BYTES) for start in starts)

    spent = _timed(read)
    value = task.source.value(0)
    assert found == [value[start : start + PART_BYTES] for start in starts]
    store.close()
    return spent, PARTS


def prefix(task: Task) -> tuple[Spent, int]:
    """All keys that begin in some way, a thousandth or fewer; a key of the store is one operation. The second time counts."""
    assert isinstance(task.source, Numbered)
    store: Any = task.open()
    last = task.source.count - 1
    begin = task.source.key(last)[:-4]
    wanted = range(last - last % 1000, last + 1)
    found: list[bytes] = []

    def find() -> None:
        found[:] = store.db.scan_keys(prefix=begin)

    find()
    spent = _timed(find)
    assert sorted(found) == [task.source.key(each) for each in wanted]
    store.close()
    return spent, task.source.count


def open_(task: Task) -> tuple[Spent, int]:
    """Open; the median of many."""
    store = task.contender.make()
    spent = []
    for _ in range(OPENED):
        spent.append(_timed(store.open, task.path))
        store.close()
    middle = statistics.median(each.seconds for each in spent)
    return next(each for each in spent if each.seconds == middle), 1


def open_once(task: Task) -> tuple[Spent, int]:
    """Open, the first time in this process."""
    store = task.contender.make()
    spent = _timed(store.open, task.path)
    store.close()
    return spent, 1


@dataclass(frozen=True)
class Figures:
    """What one pass of one contender came to; all but the first two a operation.

    `there` is the part of the store that was in memory before, `figure` is in the unit of the pass.
    """

    there: float
    figure: float
    read_bytes: float
    major: float
    minor: float


def perform(chosen: Pass, task: Task, there: float) -> dict[str, float]:
    """A pass in a process of its own.

    Raises
    ------
    NotOffered
        When the rival does not offer it.
    RuntimeError
        When it failed; the message is the traceback.
    """
    if chosen.limit:
        with limit.limited(chosen.limit) as group:
            outcome, answer = try_in_child(_perform, chosen, task, group)
    else:
        outcome, answer = try_in_child(_perform, chosen, task, None)
    if outcome == "absent":
        raise NotOffered(answer)
    if outcome == "failed":
        raise RuntimeError(answer)
    spent, count = answer
    figure = count / spent.seconds if chosen.unit == "/s" else spent.seconds / count
    return asdict(
        Figures(there, figure, spent.read_bytes / count, spent.major / count, spent.minor / count)
    )


def _perform(chosen: Pass, task: Task, group: Path | None) -> tuple[Spent, int]:
    """The main function of that process."""
    if group is not None:
        limit.enter(group)
    return chosen.run(task)


@dataclass(frozen=True)
class Sizes:
    """How much of everything a run does."""

    keys: int
    gets: int
    many: int
    first: int
    limits: Sequence[int]
    caches: Sequence[int]


OURS = ("tilekv",)
WITH_CACHE = ("tilekv", "rocksdict")


def passes(sizes: Sizes) -> list[Pass]:
    """All of them."""
    found = []
    for data in ("equal", "varying"):
        found += [
            Pass(data, "cold get", COLD, sizes.gets, get, "one key at a time"),
            Pass(data, "cold get_many", COLD, sizes.many, get_many, "all keys at once"),
            Pass(data, "cold miss", COLD, sizes.gets, miss, "one absent key at a time"),
            Pass(data, "first touch", CACHED, sizes.first, get, "first keys of a new process"),
        ]
        found += [
            Pass(
                data,
                f"get in {each >> 20} MiB",
                LIMITED,
                min(sizes.keys, ON),
                get_on,
                f"one key at a time, in a process of {each >> 20} MiB, caches a quarter of it",
                limit=each,
                cache_bytes=each // 4,
            )
            for each in sizes.limits
        ]
    found += [
        Pass("lz4", "first touch", CACHED, sizes.first, get, "first keys of a new process"),
        Pass("ten", "miss", CACHED, sizes.first, miss_again, "one absent key at a time, again"),
        Pass("forty", "open", CACHED, 1, open_, "open, median", unit="s"),
        Pass("forty", "cold open", COLD, 1, open_once, "open, the first time", unit="s"),
        Pass("large", "range", CACHED, 1, part, "16 KiB of the value", unit="s"),
        Pass("large", "cold range", COLD, 1, part, "16 KiB of the value", unit="s"),
        Pass("large", "whole", CACHED, 1, whole, "the value, of a new process", unit="s"),
        Pass(
            "large", "whole again", CACHED, 1, whole_again, "the same for the third time", unit="s"
        ),
        Pass("equal", "prefix", CACHED, 1, prefix, "keys by prefix, by keys there are", who=OURS),
    ]
    found += [
        Pass(
            "equal",
            f"get, cache {each >> 20} MiB",
            CACHED,
            sizes.gets * 50,
            get_after,
            "one key at a time after so many others that the cache is full",
            who=WITH_CACHE,
            cache_bytes=each,
        )
        for each in sizes.caches
    ]
    return found

"""A store whose every request for memory, and every read of a file, is refused once. With refuse.c preloaded:
`python starved.py SEED FOLDER`.

Every call is made again and again: request 1 is refused, then request 2, until there is none that could be. Each time it gives
what a dict gives, or raises and has done nothing: MemoryError; of a map, an OSError that says ENOMEM; of a read, one of EIO.
"""

from __future__ import annotations

import ctypes
import errno
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tilekv
from old_stores import OldStoreWriter

Rows = dict[Any, tuple[int, str, bytes]]

MOST_STEP = 3  # requests from one that is refused to the next
FILTERS: list[list[tilekv.Filter]] = [
    [],
    [tilekv.ZstdFilter()],
    [tilekv.LZ4Filter()],
    [tilekv.GzipFilter()],
    [tilekv.Bzip2Filter()],
    [tilekv.ByteShuffleFilter(), tilekv.RleFilter(), tilekv.ZstdFilter()],
]


class Wrong(Exception):
    """A call gave, or left behind, something else than it should."""


class Starved:
    """Makes calls while memory is refused.

    Attributes
    ----------
    refused : int
        How many calls met with a refusal.
    """

    def __init__(self, pick: random.Random) -> None:
        self.refused = 0
        self._pick = pick
        self._refuse = ctypes.CDLL(None)

    def reads(self, what: str, call: Callable[[], Any], expected: Any) -> None:
        """A call that changes nothing."""
        for nth, found in self._each(call):
            if found is not None:
                same(f"{what}, request {nth}", found, expected)
        same(f"{what}, afterwards", call(), expected)

    def writes(self, what: str, call: Callable[[], Any], check: Callable[[str], None]) -> None:
        """A call after which, however it ended, `check` finds all in order and makes it ready to be made again."""
        for nth, _ in self._each(call):
            check(f"{what}, request {nth}")

    def _each(self, call: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
        """The number of the request that was refused, and what came of it: None for an error."""
        nth = 1
        met = True
        while met:
            found = None
            self._refuse.refuse_nth(ctypes.c_long(nth))
            try:
                found = call()
            except MemoryError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOMEM, errno.EIO):
                    raise
            finally:
                met = bool(self._refuse.refuse_none())
            self.refused += met
            yield nth, found
            nth += self._pick.randint(1, MOST_STEP)


def same(what: str, found: Any, expected: Any) -> None:
    """Wrong unless they are equal."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        found, expected = ({key: rows.get(key) for key in keys[:3]} for rows in (found, expected))
    raise Wrong(f"{what}: {found!r:.600} instead of {expected!r:.600}")


def ways(db: tilekv.Store, probes: list[Any]) -> dict[str, Callable[[], Any]]:
    """Every way to read all rows."""

    def row(value: Any) -> tuple[int, str, bytes]:
        return value["n"], value["text"], value["blob"]

    def read() -> Rows:
        batch = db.read(probes, missing="mask")
        there = [i for i, found in enumerate(batch.found.tolist()) if found]
        return {probes[i]: (int(batch["n"][i]), batch["text"][i], batch["blob"][i]) for i in there}

    return {
        "getitem": lambda: {key: row(db[key]) for key in probes if key in db},
        "get_many": lambda: {
            key: row(value) for key, value in zip(probes, db.get_many(probes), strict=True) if value
        },
        "read": read,
        "items": lambda: {key: row(value) for key, value in db.items()},
        "keys, values": lambda: dict(zip(db.keys(), map(row, db.values()), strict=True)),
        "scan": lambda: {
            key: (int(batch["n"][i]), batch["text"][i], batch["blob"][i])
            for batch in db.scan(rows=7)
            for i, key in enumerate(batch.keys)
        },
    }


def walk(seed: int, folder: Path) -> int:
    """Write and read a small store of any kind; return how many calls met with a refusal."""
    pick = random.Random(seed)
    starved = Starved(pick)

    def value(i: int) -> tuple[int, str, bytes]:
        size = pick.choice([0, 3, 40, 700]) if i else pick.choice([10, 80_000])
        return i, f"text {i % 7}" * (i % 5), pick.randbytes(size)

    def filters() -> tilekv.FilterList:
        return tilekv.FilterList(pick.choice(FILTERS))

    n = pick.choice([5, 12, 20])
    schema = tilekv.Schema(
        [
            tilekv.Attr("n", "int64", filters=filters()),
            tilekv.Attr("text", str, filters=filters()),
            tilekv.Attr("blob", bytes, filters=filters()),
        ],
        capacity=pick.choice([3, 8, 1024]),
        offsets_filters=pick.choice([filters(), tilekv.FilterList(), schema_default()]),
    )
    state: Rows = {pick.choice([i, f"key_{i}", b"%d" % i, i + 0.5]): value(i) for i in range(n)}
    keys = list(state)
    probes = [*keys, *range(n, n + 3), "none"]
    pick.shuffle(probes)
    options = {"kv.mmap": pick.random() < 0.5, "kv.cache_bytes": pick.choice([0, 1000, 1 << 24])}
    config: Any = {"kv.sync": False, "kv.threads": pick.choice([1, 2]), "kv.upkeep": "off"}

    def rows(db: tilekv.Store) -> Rows:
        return ways(db, probes)["items"]()

    def opened() -> tilekv.Store:
        return tilekv.open(folder, config=options)

    with tilekv.open(folder, "x", schema=schema, config=config) as db:
        added = dict(state)

        def check_buffer(what: str) -> None:
            found = rows(db)
            same(what, found, added if found else {})

        starved.writes("put_many", lambda: db.put_many(added), check_buffer)
        for name, way in ways(db, probes).items():
            starved.reads(f"{name} of the buffer", way, state)

        fragments = frozen = 0

        def check_flush(what: str) -> None:
            nonlocal fragments, frozen
            same(what, rows(db), state)
            # All or nothing, and nothing twice: of what was frozen before this flush and by it, what is no longer is on disk.
            fragments += frozen + (db._buffer.n == 0) - (db._frozen is not None)
            frozen = db._frozen is not None
            with opened() as other:
                same(f"{what}, on disk", rows(other), state if fragments else {})
                same(f"{what}, fragments", len(other.fragments), fragments)
            db.put_many(added)

        starved.writes("flush", db.flush, check_flush)
        db.delete_many(keys[::3])
        added = dict.fromkeys(keys[1::4], (7, "new", b""))
        db.put_many(added)
        for key in keys[::3]:
            del state[key]
        state |= added
        db.flush()
        db.delete_many(keys[:1])
        db.put_many({keys[-1]: (8, "newest", b"8")})
        state[keys[-1]] = 8, "newest", b"8"
        for name, way in ways(db, probes).items():
            starved.reads(f"{name} of buffer and fragments", way, state)
    with opened() as db:
        for name in ways(db, probes):
            # Of a handle in which nothing is decoded or checked, then of one that goes on after each refusal.
            starved.reads(f"{name}, cold", lambda name=name: ways(opened(), probes)[name](), state)
            starved.reads(name, ways(db, probes)[name], state)
        starved.reads("len", lambda: len(db), len(state))
        starved.reads("verify", db.verify, [])
        starved.reads("info", db.info, db.info())

    def salvaged() -> Rows:
        copy = folder.with_name("salvaged")
        shutil.rmtree(copy, ignore_errors=True)
        tilekv.salvage(folder, copy)
        with tilekv.open(copy) as other:
            return rows(other)

    starved.reads("verify by URI", lambda: tilekv.verify(folder), [])
    starved.reads("salvage", salvaged, state)

    old = folder.with_name("old")
    OldStoreWriter(old, 3).flush([((4, key.encode()), 7, b"v") for key in "abcde"], 1000)

    def converted() -> Rows:
        copy = folder.with_name("converted")
        shutil.rmtree(copy, ignore_errors=True)
        tilekv.convert(old, copy)
        with tilekv.open(copy) as other:
            return dict(other.items())

    starved.reads("convert", converted, converted())

    def check_disk(what: str) -> None:
        with opened() as other:
            same(what, rows(other), state)

    with tilekv.open(folder, "a", config=config) as db:
        starved.writes("consolidate", db.consolidate, check_disk)
        same("consolidated", rows(db), state)
    return starved.refused


def schema_default() -> tilekv.FilterList:
    """The filters of offsets unless others are given."""
    return tilekv.Schema([tilekv.Attr("value", bytes)]).offsets_filters


if __name__ == "__main__":
    print(walk(int(sys.argv[1]), Path(sys.argv[2])))

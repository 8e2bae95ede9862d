"""A store of many flushes, and all that can be done with it, by a process that may hold few descriptors and maps.

Run as: limited.py FOLDER FLUSHES ATTRIBUTES DESCRIPTORS MAPS KEPT MMAP
KEPT: bytes of a fragment's files that are read into memory. MAPS: 0 for what the system says.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import tilekv
from tilekv.kvcore.base.file import held, limit_maps
from tilekv.storage import local


def main(
    folder: Path, flushes: int, attributes: int, descriptors: int, maps: int, kept: int, mmap: bool
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    limit_maps(maps)
    local.SMALL_FRAGMENT = kept  # type: ignore[misc]
    path, names = folder / "store", [f"a{i}" for i in range(attributes)]
    schema = tilekv.Schema([tilekv.Attr(name, "int32") for name in names])
    config = {"kv.sync": False, "kv.mmap": bool(mmap)}
    expected = {i: dict.fromkeys(names, i) if attributes > 1 else i for i in range(flushes)}
    with tilekv.open(path, "x", schema=schema, config=config) as db:
        for key, value in expected.items():
            db[key] = value
            db.flush()
            if key % 200 == 199:
                db.reopen()
        few = [0, flushes // 2, flushes - 1]
        check(db, expected, few)
        assert db.verify() == []
    assert tilekv.verify(path) == []
    handles = [tilekv.open(path, config=config) for _ in range(3)]
    for db in handles:
        check(db, expected, few)
    done = tilekv.salvage(path, folder / "salvaged")
    assert (done.copied, done.stale, done.lost, done.problems) == (flushes, 0, 0, ())
    for vacuum in (False, True):
        with tilekv.open(path, "a", config=config) as db:
            db[flushes] = expected[flushes] = expected[0]
            db.consolidate(vacuum=vacuum)
            check(db, expected, few)
            assert db.info().fragments == 1
        assert tilekv.verify(path) == []
        flushes += 1
    del handles, db
    print("held at the end:", held())


def check(db: tilekv.Store, expected: dict[int, object], few: list[int]) -> None:
    assert db.get_many(few) == [expected[key] for key in few]
    assert -1 not in db
    assert (len(db), db.info().live) == (len(expected), len(expected))
    assert dict(db) == expected


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    main(Path(place), *map(int, numbers))  # type: ignore[arg-type]

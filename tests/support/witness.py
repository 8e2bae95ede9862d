"""What can still be told when a store gave something wrong: asked for when a test has failed, so that it costs nothing before."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tilekv
from tilekv.kvcore.hashing.digest import SIMD
from tilekv.kvcore.testing import table_hash
from tilekv.kvcore.values.keys import key_bytes

FEW = 5  # keys that are told of


def account(
    db: tilekv.Store, way: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]
) -> str:
    """Which keys are wrong, whether they still are, and how the store and the process stand.

    Parameters
    ----------
    db : Store
        The handle that gave `found`.
    way : str
        How it was asked.
    """
    absent = object()
    wrong = [
        key for key in {**expected, **found} if found.get(key, absent) != expected.get(key, absent)
    ]
    missing, more = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    lines = [
        f"{way}: {len(wrong)} of {len(expected)} keys are wrong, {missing} missing, {more} more"
    ]
    for key in wrong[:FEW]:
        lines += [
            f"  {key!r}, table hash {_told(lambda key=key: hex(table_hash(*key_bytes(key))))}",
            f"    found      {_cut(found.get(key, 'nothing'))}",
            f"    expected   {_cut(expected.get(key, 'nothing'))}",
            f"    they part  {_told(lambda key=key: _parting(found[key], expected[key]))}",
            f"    now        {_told(lambda key=key: db.get(key))}",
            f"    reopened   {_told(lambda key=key: _reopened(db).get(key))}",
        ]
    parts: dict[str, Callable[[], object]] = {
        "all of them now": lambda: db.get_many(wrong[:FEW]),
        "store": lambda: db,
        "buffered": lambda: db.info().buffered,
        "fragments": lambda: [repr(fragment) for fragment in db.fragments],
        "damage": db.verify,
        "cache": lambda: (db._engine.opener.cache.used, db._engine.opener.cache.budget),
        "digest index": lambda: db._snapshot.indexed,
        "files": lambda: {
            str(path): path.stat().st_size for path in Path(db.uri).rglob("*") if path.is_file()
        },
        "digests": lambda: SIMD,
        "clock": time.time,
        "threads": lambda: [thread.name for thread in threading.enumerate()],
        "descriptors": lambda: (
            len(os.listdir("/proc/self/fd")),
            resource.getrlimit(resource.RLIMIT_NOFILE),
        ),
        "maps": lambda: len(Path("/proc/self/maps").read_text().splitlines()),
        "memory": lambda: Path("/proc/meminfo").read_text().splitlines()[:3],
        "address space": lambda: resource.getrlimit(resource.RLIMIT_AS),
        "load": os.getloadavg,
    }
    lines += [f"  {name}: {_told(tell, 4000)}" for name, tell in parts.items()]
    return "\n".join(lines)


def _parting(found: Any, expected: Any) -> object:
    """Lengths of two values, or of the first items of two rows that differ, and the first place where they do."""
    if isinstance(found, tuple):
        found, expected = next((a, b) for a, b in zip(found, expected, strict=True) if a != b)
    if not hasattr(found, "__len__"):
        return found, expected
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    return len(found), len(expected), at, found[at : at + 32], expected[at : at + 32]


def _reopened(db: tilekv.Store) -> tilekv.Store:
    return tilekv.open(db.uri, config=db._config)


def _told(tell: Callable[[], object], most: int = 300) -> str:
    """One part, or why it cannot be told: the others are told all the same."""
    try:
        return _cut(tell(), most)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return f"cannot be told: {error!r}"


def _cut(thing: object, most: int = 300) -> str:
    text = repr(thing)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"

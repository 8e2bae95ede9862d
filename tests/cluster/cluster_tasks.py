"""What workers of a test's cluster do; they find this module by their PYTHONPATH."""

import os
from pathlib import Path
from typing import Any

import tilekv
from tilekv.dask import _write


def die_once(folder: Path, number: int) -> None:
    """End this process, unless that was done before."""
    try:
        (folder / f"{number}").touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(1)


def write_and_die(
    target: Any,
    number: int,
    part: Any,
    entries: Any,
    *,
    folder: Path,
    doomed: set[int],
    before: int,
) -> list[str]:
    """A task of to_store() whose process dies at the first attempt, before the partition is written or after; while any of them
    is at work a reader sees `before` entries."""
    if number in doomed and number % 2:
        die_once(folder, number)
    names: list[str] = _write(target, number, part, entries)
    with tilekv.open(target.uri, storage_options=target.storage_options) as db:
        assert len(db) == before
    if number in doomed:
        die_once(folder, number)
    return names


def write_flushes(
    uri: str, options: dict[str, Any] | None, writer: int, flushes: int, keys: int
) -> int:
    """A writer of many small fragments; how many it has written."""
    with tilekv.open(uri, "a", config={"kv.upkeep": "off"}, storage_options=options) as db:
        for flush in range(flushes):
            first = (writer * flushes + flush) * keys
            db.put_many(range(first, first + keys), [b"%d" % n for n in range(first, first + keys)])
            db.flush()
    return flushes


def count_of(store: tilekv.Store) -> int:
    """Of a handle that was pickled."""
    return len(store)

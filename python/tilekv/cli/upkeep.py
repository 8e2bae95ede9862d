"""consolidate, upkeep, vacuum, backup and convert."""

from __future__ import annotations

import datetime as dt
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tilekv.cli.options import Opening, Options
from tilekv.cli.text import counted, error_text
from tilekv.config import Config
from tilekv.errors import TileKVError
from tilekv.executors import processes
from tilekv.legacy.cipher import KEY_BYTES
from tilekv.store import Store
from tilekv.tools.backups import backup
from tilekv.tools.convert import convert
from tilekv.tools.parallel import consolidate
from tilekv.upkeeping import Upkept

NOTHING: Final = Upkept()
BY_HAND: Final = {"kv.upkeep": "off"}  # no thread beside
LONGEST_PAUSE_S: Final = 3600.0  # after one failure upon another


def consolidate_store(
    uri: str, vacuum: bool, workers: int | None, shown: bool, opening: Opening
) -> int:
    """Merge all fragments, by so many processes, and remove what was merged if asked; say what became of the store."""
    with opening.to_read(uri) as db:
        before = db.info()
    if workers is not None:
        threads = max(Config.of(opening.config).usable_threads // workers, 1)
        with processes(workers) as executor:
            consolidate(
                uri,
                executor=executor,
                progress=shown,
                config={**(opening.config or {}), "kv.threads": threads},
                storage_options=opening.storage_options,
            )
    with opening.to_write(uri) as db:
        if workers is None:
            db.consolidate(progress=shown)
        if vacuum:
            db.vacuum(progress=shown)
        after = db.info()
    print(
        f"{counted(before.fragments, 'fragment')}, {before.stored_bytes:,} bytes -> "
        f"{counted(after.fragments, 'fragment')}, {after.stored_bytes:,} bytes"
    )
    if after.advice:
        print(after.advice)
    return 0


def keep_store(uri: str, every: float | None, dry_run: bool, opening: Opening) -> int:
    """Keep a store once, or every so many seconds until a signal says to end; a line for each time that something was done."""
    by_hand = _by_hand(opening)
    if every is None:
        with by_hand.to_read(uri) if dry_run else by_hand.to_write(uri) as db:
            print(db.upkeep(dry_run=True) if dry_run else db.upkeep())
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    watch(lambda: by_hand.to_write(uri), every, stop, say)
    return 0


def _by_hand(opening: Opening) -> Opening:
    return replace(opening, config={**(opening.config or {}), **BY_HAND})


class _Stopped(Exception):
    """It is enough."""


def watch(
    opened: Callable[[], Store],
    every: float,
    stop: threading.Event,
    say: Callable[[str], object],
) -> None:
    """Keep a store again and again, until `stop` is set: then the merge under way is withdrawn. What goes wrong is said, and
    tried again later."""

    def report(done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped

    pause = every
    db: Store | None = None
    try:
        while True:
            try:
                if db is None:
                    db = opened()
                done = db.upkeep(progress=report)
                pause = every
                if done != NOTHING:
                    say(str(done))
            except _Stopped:
                return
            except (TileKVError, OSError, MemoryError) as error:
                pause = min(2 * pause, max(every, LONGEST_PAUSE_S))
                say(f"{error_text(error)}; trying again in {pause:g} s")
                if db is not None:  # another store may have taken its place
                    db.close(discard=True)
                    db = None
            if stop.wait(pause):
                return
    finally:
        if db is not None:
            db.close(discard=True)


def say(line: str) -> None:
    """A line of the log, with the time."""
    print(f"{dt.datetime.now().astimezone():%Y-%m-%dT%H:%M:%S%z} {line}", flush=True)


def vacuum_store(uri: str, history: float, shown: bool, opening: Opening) -> int:
    """Remove what merges have replaced, but for the last `history` seconds; say how much that was."""
    with opening.to_read(uri) as db:
        before = db.info()
    with _by_hand(opening).to_write(uri) as db:
        db.vacuum(history="all" if history == math.inf else history, progress=shown)
        after = db.info()
    fragments = counted(max(before.superseded - after.superseded, 0), "fragment")
    print(
        f"removed {fragments}, {max(before.superseded_bytes - after.superseded_bytes, 0):,} bytes"
    )
    return 0


def backup_store(uri: str, destination: str, shown: bool, options: Options) -> int:
    """Copy a store as it is at one moment; say how much that was."""
    done = backup(uri, destination, progress=shown, storage_options=options)
    print(
        f"copied {done.copied} of {counted(done.fragments, 'fragment')}, {done.copied_bytes:,} bytes; removed {done.removed}"
    )
    return 0


def convert_store(
    old: str, new: str, key_file: str | None, expires: bool, shown: bool, options: Options
) -> int:
    """Copy a store into a new one, whose entries may expire if asked; say how much that was."""
    key = None
    if key_file is not None:
        with open(key_file, "rb") as file:
            key = file.read(KEY_BYTES + 1)
        if len(key) > KEY_BYTES:
            key = key.removesuffix(b"\n")  # as an editor ends the only line
    n = convert(old, new, key, shown, expires, storage_options=options)
    print(f"converted {counted(n, 'entry', 'entries')}")
    return 0

"""What a store that is only ever flushed into comes to, with the defaults: fragments, folders, bytes, and what look-ups cost."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import tilekv
from bench.life.figures import at_least, goal, quartiles
from bench.rivals import NotOffered, Rival, rival
from tilekv.keeper import MOST_VISIBLE

HISTORY_S = 60
KEY, VALUE = 20, 100  # bytes
LOOKS = 60  # moments at which a run is looked at
GETS = 1000  # look-ups at each, and 20 times as many at the end
MOST_MIXED = 64  # fragments, with writers of several sizes
MOST_FOLDERS = 1100
MOST_BYTES = 3.0  # times what is live
MOST_WRITTEN = {100: 10.0, 1000: 6.0}  # times what was loaded, by the entries of a flush
LEAST_GETS = 0.5  # of those of one fragment
POOL = random.Random(1).randbytes(1 << 20)  # values that nothing makes smaller
CONFIG = {"kv.sync": False, "kv.history": HISTORY_S}
WRITERS = (1, 10, 300)  # entries of a flush, one process each
WRITE = """
import sys
from pathlib import Path
from bench.life.upkeep import write
write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""


@dataclass
class Kept:
    """What became of one store.

    Attributes
    ----------
    at : list of int
        After how many flushes it was looked at; then `fragments`, `folders`, `times_live` (bytes of the folder) and `gets` (a
        second) have a number each.
    most : int
        Fragments that were visible after any flush.
    written : float
        Bytes that were written, over those of the keys and values.
    after, one : float
        Look-ups a second by a new handle at the end, and once all is one fragment.
    """

    entries: int
    flushes: int
    seconds: float = 0.0
    at: list[int] = field(default_factory=list)
    fragments: list[int] = field(default_factory=list)
    folders: list[int] = field(default_factory=list)
    times_live: list[float] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)
    most: int = 0
    written: float = 0.0
    after: float = 0.0
    one: float = 0.0


def batch(number: int, entries: int) -> tuple[list[bytes], list[bytes]]:
    """What one flush writes: keys that no other has."""
    rng = random.Random(number)
    keys = [b"%08d%012x" % (number, rng.getrandbits(48)) for _ in range(entries)]
    starts = (rng.randrange(len(POOL) - VALUE) for _ in range(entries))
    return keys, [POOL[start : start + VALUE] for start in starts]


def written_bytes() -> int:
    """What this process has given to the system to write."""
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["wchar"])


def within(path: Path) -> tuple[int, int]:
    """Folders of fragments, and bytes of all files. What vanishes meanwhile is not counted."""
    folders = size = 0
    for place, _, files in os.walk(path):
        folders += "__fragment_metadata.tdb" in files
        for file in files:
            try:
                size += os.lstat(os.path.join(place, file)).st_size
            except FileNotFoundError:
                continue
    return folders, size


def gets_a_second(db: tilekv.Store | Rival, flushes: int, entries: int, count: int) -> float:
    """Of keys of any flushes so far, by the processor time of this thread: what others take of the cores does not count."""
    rng = random.Random(flushes)
    per = 10
    keys = []
    for _ in range(max(count // per, 1)):
        keys += batch(rng.randrange(flushes), min(entries, per))[0]  # the first of a flush
    start = time.thread_time()
    if isinstance(db, Rival):
        db.get(keys)
    else:
        for key in keys:
            db[key]
    return len(keys) / (time.thread_time() - start)


def measure(path: Path, entries: int, flushes: int) -> Kept:
    """One writer."""
    kept = Kept(entries, flushes)
    every = max(flushes // LOOKS, 1)
    before = written_bytes()
    with tilekv.open(path, "x", config=CONFIG) as db:
        for number in range(flushes):
            keys, values = batch(number, entries)
            start = time.perf_counter()
            db.put_many(keys, values)
            db.flush()
            kept.seconds += time.perf_counter() - start
            kept.most = max(kept.most, len(db.fragments))
            if (number + 1) % every == 0:
                folders, size = within(path)
                live = sum(fragment.stored_bytes for fragment in db.fragments)
                kept.at.append(number + 1)
                kept.fragments.append(len(db.fragments))
                kept.folders.append(folders)
                kept.times_live.append(size / live)
                kept.gets.append(gets_a_second(db, number + 1, entries, GETS))
    kept.written = (written_bytes() - before) / (flushes * entries * (KEY + VALUE))
    kept.after = settled_gets(path, flushes, entries)
    with tilekv.open(path, "a", config=CONFIG) as db:
        db.consolidate(vacuum=True)
    kept.one = settled_gets(path, flushes, entries)
    return kept


def settled_gets(path: Path, flushes: int, entries: int) -> float:
    """By a new handle, the median of five after the first: what they need was read once."""
    with tilekv.open(path) as db:
        found = [gets_a_second(db, flushes, entries, 20 * GETS) for _ in range(6)]
    return statistics.median(found[1:])


def beside(path: Path, name: str, entries: int, flushes: int) -> tuple[float, float, float]:
    """The same with synced transactions of a rival: seconds, bytes written over loaded, and look-ups a second at the end."""
    other = rival(name)
    before = written_bytes()
    seconds = 0.0
    other.open_to_write(path)
    for number in range(flushes):
        keys, values = batch(number, entries)
        start = time.perf_counter()
        other.commit(keys, values)
        seconds += time.perf_counter() - start
    other.close_written()
    written = (written_bytes() - before) / (flushes * entries * (KEY + VALUE))
    other.open(path)
    gets_a_second(other, flushes, entries, 20 * GETS)
    gets = gets_a_second(other, flushes, entries, 20 * GETS)
    other.close()
    return seconds, written, gets


def write(path: Path, entries: int, flushes: int) -> None:
    """What one of several processes does."""
    with tilekv.open(path, "a", config=CONFIG) as db:
        for number in range(flushes):
            db.put_many(*batch(1000 * entries + number, entries))
            db.flush()


def mixed(path: Path, flushes: int) -> int:
    """Fragments that were visible at once at most, while processes write flushes of several sizes."""
    tilekv.open(path, "x").close()
    program = [sys.executable, "-c", WRITE, str(path)]
    writers = [subprocess.Popen([*program, str(entries), str(flushes)]) for entries in WRITERS]
    most = 0
    while [writer for writer in writers if writer.poll() is None]:
        with tilekv.open(path) as db:
            most = max(most, len(db.fragments))
        time.sleep(0.02)
    if any(writer.returncode for writer in writers):
        raise RuntimeError("a writer has failed")
    return most


def show(folder: Path, flushes: int, svg: Path | None) -> None:
    """Measure, print, and draw."""
    print(
        f"{flushes:,} flushes, not synced, of keys of {KEY} bytes and values of {VALUE} that nothing makes smaller; "
        f"upkeep and its history of {HISTORY_S} s by itself"
    )
    runs = []
    for entries in MOST_WRITTEN:
        kept = measure(folder / f"kept {entries}", entries, flushes)
        runs.append(kept)
        _print(kept)
        try:
            seconds, written, gets = beside(folder / "beside", "rocksdict", entries, flushes)
        except (ImportError, NotOffered) as error:
            print(f"  without RocksDB: {error}")
        else:
            print(
                f"  RocksDB: {seconds:.1f} s, synced; {written:.1f} x written; {gets:,.0f} gets a second at the end"
            )
            rival("rocksdict").remove(folder / "beside")
    most = mixed(folder / "mixed", flushes // 5)
    print(goal("fragments at once with writers of several sizes", most, MOST_MIXED))
    if svg is not None:
        from bench.picture import draw_life

        draw_life(runs, svg)


def _print(kept: Kept) -> None:
    low, middle, high = quartiles(kept.gets)
    print(
        f"of {kept.entries:,} entries: {kept.seconds:.1f} s; gets a second: meanwhile {middle:,.0f} ({low:,.0f}..{high:,.0f}), "
        f"at the end {kept.after:,.0f}, of one fragment {kept.one:,.0f}"
    )
    for line in (
        goal("fragments at once", kept.most, MOST_VISIBLE),
        goal("folders", max(kept.folders), MOST_FOLDERS),
        goal("bytes in the folder, times the live", max(kept.times_live), MOST_BYTES)
        + f", {kept.times_live[-1]:.3g} at the end",
        goal("bytes written, times the loaded", kept.written, MOST_WRITTEN[kept.entries]),
        at_least("gets at the end, times those of one fragment", kept.after / kept.one, LEAST_GETS),
    ):
        print(f"  {line}", flush=True)

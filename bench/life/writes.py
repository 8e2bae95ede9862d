"""Durable writes of few entries: tilekv's flush beside a synced transaction, or log, of others, in turns."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from bench.data import Source, make_data
from bench.life.figures import goal, milliseconds, quartiles
from bench.rivals import NotOffered, Rival, rival
from tilekv.kvcore.base.writeback import sync_all

NAMES = ("tilekv", "lmdb", "sqlite3", "rocksdict")
ENTRIES = (1, 10, 100, 1000)
APPEND = "append"
RECORD = 120  # bytes of one key and its value
SLOW_SYNC = 1e-3  # seconds of an append, from which on an fsync costs milliseconds
MOST_FAST, MOST_SLOW = 4.0, 1.5  # times LMDB's transaction that a flush of one entry may take

Seconds = dict[
    int, dict[str, list[float]]
]  # of each round, by the number of entries and by who wrote them


class Append(Rival):
    """A file that is appended to and synced: what no durable write can be faster than here."""

    name = APPEND
    version = what = ""

    def open_to_write(self, path: Path) -> None:
        """A new file."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """One write, one fdatasync."""
        os.write(self._fd, b"".join(keys + values))
        os.fdatasync(self._fd)

    def close_written(self) -> None:
        """Close."""
        os.close(self._fd)


class SevenFiles(Rival):
    """What a fragment is to the file system, and nothing else: what no flush can be faster than here."""

    name = "seven files"
    version = what = ""

    def open_to_write(self, path: Path) -> None:
        """A folder."""
        path.mkdir()
        self._path = path
        self._made = 0
        self._root = os.open(path, os.O_RDONLY)

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """A folder of seven files, all synced at once; renamed, and its parent synced."""
        hidden = self._path / f".{self._made}"
        hidden.mkdir()
        fds = [os.open(hidden / str(file), os.O_WRONLY | os.O_CREAT) for file in range(7)]
        for fd in fds:
            os.write(fd, b"".join(keys + values)[: len(keys) * RECORD // 7])
        fds.append(os.open(hidden, os.O_RDONLY))
        if any(sync_all(fds)):
            raise OSError("a file could not be synced")
        for fd in fds:
            os.close(fd)
        hidden.rename(self._path / str(self._made))
        os.fsync(self._root)
        self._made += 1

    def close_written(self) -> None:
        """Close."""
        os.close(self._root)


def offered() -> list[type[Rival]]:
    """Who takes part: all that are installed."""
    found: list[type[Rival]] = [Append, SevenFiles]
    for name in NAMES:
        try:
            found.append(type(rival(name)))
        except (ImportError, NotOffered) as error:
            print(f"without {name}: {error}")
    return found


def measure(folder: Path, rounds: int) -> Seconds:
    """Every size in stores of its own, that stay open; who comes first turns from round to round."""
    kinds = offered()
    taken: Seconds = {}
    for entries in ENTRIES:
        data = make_data(Source("sentence", entries * (rounds + 1)), 1)
        writers = [kind() for kind in kinds]
        taken[entries] = {each.name: [] for each in writers}
        for each in writers:
            each.open_to_write(folder / f"{each.name} {entries}")
        for turn in range(rounds + 1):
            part = slice(turn * entries, (turn + 1) * entries)
            keys, values = data.keys[part], data.values[part]
            at = turn % len(writers)
            for each in writers[at:] + writers[:at]:
                start = time.perf_counter()
                each.commit(keys, values)
                if turn:  # the first makes files that the others find
                    taken[entries][each.name].append(time.perf_counter() - start)
        for each in writers:
            each.close_written()
    return taken


def show(taken: Seconds) -> None:
    """A table, and what is asked of a flush of one entry."""
    names = list(taken[1])
    rounds = len(taken[1][APPEND])
    print(f"durable writes, ms: the median of {rounds} rounds, and the quartiles")
    print(f"{'entries':>8}" + "".join(f"{name:>22}" for name in names))
    for entries, seconds in taken.items():
        print(f"{entries:8,}" + "".join(f"{milliseconds(seconds[name]):>22}" for name in names))
    sync = statistics.median(taken[1][APPEND])
    slow = sync >= SLOW_SYNC
    print(
        f"an append with fdatasync takes {sync * 1e3:.2f} ms: "
        f"an fsync costs {'milliseconds' if slow else 'a fraction of a millisecond'} here"
    )
    ours, floor = (statistics.median(taken[1][name]) for name in ("tilekv", "seven files"))
    print(f"of a flush of one entry, {floor / ours:.0%} is what seven files in a folder cost")
    if "lmdb" in names:
        low, middle, high = _times(taken[1], "tilekv", "lmdb")
        what = "a flush of one entry, times LMDB's transaction"
        print(goal(what, middle, MOST_SLOW if slow else MOST_FAST) + f", {low:.2f}..{high:.2f}")
        low, middle, high = _times(taken[1], "seven files", "lmdb")
        print(f"seven files in a folder alone, times that: {middle:.2f}, {low:.2f}..{high:.2f}")


def _times(seconds: dict[str, list[float]], ours: str, theirs: str) -> tuple[float, float, float]:
    """The quartiles of the rounds' ratios."""
    return quartiles([a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)])

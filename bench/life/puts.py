"""How long a put waits while another thread flushes."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import tilekv
from bench.data import Data, Source, make_data
from bench.life.figures import goal

EVERY = 1e-3  # seconds from one put to the next
VALUE = bytes(100)
MOST_LONGEST, MOST_999 = 20, 5  # ms
ENTRY_BYTES = (
    144  # of the write buffer: 20 of the key, 100 of the value, 8 of its length, 16 of the entry
)


class Putter:
    """A thread that puts a key every millisecond, until the context ends.

    A put waits from when it is due until it has returned. One is due a millisecond after the one before it was: what
    stops them all for 20 ms is 20 waits, as it is for a program to which a request comes every millisecond.
    """

    def __init__(self, db: tilekv.Store) -> None:
        self._db = db
        self._end = False
        self._thread = threading.Thread(target=self._put)
        self.puts: list[tuple[float, float]] = []  # when each was due, and when it was done

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end = True
        self._thread.join()

    def _put(self) -> None:
        db, puts = self._db, self.puts
        due = time.perf_counter()
        while not self._end:
            ahead = due - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            db[b"put:%016d" % len(puts)] = VALUE
            puts.append((due, time.perf_counter()))
            due += EVERY

    def waits(self, start: float, end: float) -> list[float]:
        """Milliseconds, sorted, of the puts that were waiting at some moment between two."""
        return sorted((done - due) * 1e3 for due, done in self.puts if due <= end and done >= start)


@contextlib.contextmanager
def loaded(path: Path, data: Data, buffer_bytes: int) -> Iterator[tilekv.Store]:
    """A store with unflushed data, that is thrown away afterwards."""
    with tilekv.open(path, "x", config={"kv.buffer_bytes": buffer_bytes}) as db:
        db.put_many(data.keys, data.values)
        yield db


def during_flush(path: Path, data: Data) -> tuple[list[float], float]:
    """Waits of the puts during a call of flush, and its seconds."""
    with loaded(path, data, 8 << 30) as db, Putter(db) as putter:
        time.sleep(0.1)
        start = time.perf_counter()
        db.flush()
        end = time.perf_counter()
    return putter.waits(start, end), end - start


def during_automatic_flush(path: Path, data: Data) -> tuple[list[float], float]:
    """Waits of the puts from when one of them has filled the buffer until a thread has written it."""
    size = ENTRY_BYTES * len(data.keys)
    with loaded(path, data, size + ENTRY_BYTES) as db, Putter(db) as putter:
        start = time.perf_counter()
        while not db.fragments:
            time.sleep(5e-3)
        end = time.perf_counter()
    return putter.waits(start, end), end - start


def during(path: Path, work: Callable[[], object]) -> list[float]:
    """Waits of the puts while something else is done."""
    with tilekv.open(path, "x") as db, Putter(db) as putter:
        time.sleep(0.1)
        start = time.perf_counter()
        work()
        end = time.perf_counter()
    return putter.waits(start, end)


def hash_on_all_cores(seconds: float) -> None:
    """What keeps the processor busy and nearly never needs the interpreter's lock."""
    end = time.perf_counter() + seconds
    block = bytes(1 << 20)

    def work() -> None:
        while time.perf_counter() < end:
            hashlib.blake2b(block).digest()

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def at_999(waits: list[float]) -> float:
    """The wait that one of a thousand exceeds."""
    return waits[max(math.ceil(0.999 * len(waits)) - 1, 0)]


def show(folder: Path, keys: int, runs: int) -> None:
    """Measure and print."""
    data = make_data(Source("sentence", keys), 1)
    gc.collect()
    gc.freeze()  # a full collection would look at all of them, and everybody waits for it
    print(
        f"a put every ms, by a second thread, ms; the interpreter switches after {sys.getswitchinterval() * 1e3:g}\n"
        f"{'meanwhile':40}{'puts':>7}{'median':>9}{'p99.9':>9}{'longest':>9}"
    )
    seconds = min(1.0, keys / 1e6)
    _line("nothing", during(folder / "nothing", lambda: time.sleep(seconds)))
    _line("all cores hash", during(folder / "hashing", lambda: hash_on_all_cores(seconds)))
    longest, rare = [], []
    for run in range(runs):
        waits, took = during_flush(folder / f"flush {run}", data)
        _line(f"flush of {keys:,} keys, {took:.2f} s", waits)
        longest.append(waits[-1])
        rare.append(at_999(waits))
    waits, took = during_automatic_flush(folder / "automatic", data)
    _line(f"automatic flush of as many, {took:.2f} s", waits)
    print(
        goal(
            "longest wait during a flush, median of the runs",
            statistics.median(longest),
            MOST_LONGEST,
            " ms",
        )
    )
    print(goal("p99.9 of the waits, median of the runs", statistics.median(rare), MOST_999, " ms"))


def _line(what: str, waits: list[float]) -> None:
    print(
        f"{what:40}{len(waits):7,}{statistics.median(waits):9.2f}{at_999(waits):9.2f}{waits[-1]:9.2f}",
        flush=True,
    )

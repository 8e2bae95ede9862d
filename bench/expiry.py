"""What moments of expiry cost who reads: a store whose entries expire beside one whose entries do not, of the same keys.

`python -m bench.expiry` asks both in turns, by one thread, and prints the processor's time a key, the median of the rounds with
the least and the most, and the instructions a key by callgrind. Half of the entries expire, in a day; nothing has.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tilekv
from bench import report
from bench.against import COUNTED_KEYS, FIXED_MALLOC, ROOT, callgrind, compile_switch, total
from bench.data import Data, Source, make_data

CONFIG = {"kv.threads": 1}  # as of bench.one_build
SIDES = ("plain", "expiring")
DAY = 24 * 3600


def get(db: tilekv.Store, asked: list[bytes]) -> int:
    """One value at a time."""
    for key in asked:
        db[key]
    return len(asked)


def get_many(db: tilekv.Store, asked: list[bytes]) -> int:
    """All values at once."""
    return len(db.get_many(asked))


def contains(db: tilekv.Store, asked: list[bytes]) -> int:
    """One key at a time, without its value."""
    return sum(key in db for key in asked)


def scan(db: tilekv.Store, asked: list[bytes]) -> int:
    """The whole store, as columns."""
    return sum(len(batch) for batch in db.scan())


def length(db: tilekv.Store, asked: list[bytes]) -> int:
    """How many there are."""
    return len(db)


OPERATIONS: dict[str, Callable[[tilekv.Store, list[bytes]], int]] = {
    "get": get,
    "get_many": get_many,
    "in": contains,
    "scan": scan,
    "len": length,
}


def make_stores(folder: Path, data: Data) -> list[tilekv.Store]:
    """Both, open for reading, and every key looked up once."""
    stores = []
    half = len(data.keys) // 2
    for side in SIDES:
        with tilekv.open(folder / side, "x", config=CONFIG, expires=side == "expiring") as db:
            expire = {"expire": [DAY] * half + [None] * (len(data.keys) - half)}
            db.put_many(data.keys, data.values, **(expire if side == "expiring" else {}))
        stores.append(tilekv.open(folder / side, config=CONFIG))
    first, second = (store.get_many(data.keys) for store in stores)
    assert first == second == data.values, "what was found was not written"
    return stores


def take_times(stores: list[tilekv.Store], data: Data, rounds: int) -> dict[str, list[list[float]]]:
    """Seconds a key, of each side, by operation; a round before the first does not count."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in SIDES] for name in OPERATIONS}
    for turn in range(rounds + 1):
        for name, operation in OPERATIONS.items():
            for side in (0, 1) if turn % 2 else (1, 0):
                start = time.process_time()
                count = operation(stores[side], data.asked)
                seconds = (time.process_time() - start) / count
                if turn:
                    times[name][side].append(seconds)
    return times


def count(stores: list[tilekv.Store], data: Data, library: str) -> None:
    """Under callgrind: each operation once on each store; print how many keys each was for."""
    switch = ctypes.PyDLL(library)
    counts = []
    for name, operation in OPERATIONS.items():
        for store in stores:
            operation(store, data.asked)  # the second time counts, as the caches are then
            switch.counting_begins()
            keys = operation(store, data.asked)
            switch.counting_ends(name.encode())
            counts.append(keys)
    print(json.dumps(counts))


def count_instructions(options: argparse.Namespace) -> dict[str, list[float]] | str:
    """A key, of each side, by operation; or why they were not counted."""
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        library, profile = Path(folder, "callgrind_switch.so"), Path(folder, "profile")
        if problem := compile_switch(library):
            return problem
        keys, asked = min(options.keys, COUNTED_KEYS), min(options.asked, COUNTED_KEYS)
        program = [sys.executable, "-P", "-m", "bench.expiry", "--library", str(library)]
        done = subprocess.run(
            [*callgrind(profile), *program, f"--keys={keys}", f"--asked={asked}"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", **FIXED_MALLOC},
            stdout=subprocess.PIPE,
            check=True,
        )
        counts = json.loads(done.stdout)
        each = [total(Path(f"{profile}.{i}")) / n for i, n in enumerate(counts, 1)]
    return {name: each[2 * i : 2 * i + 2] for i, name in enumerate(OPERATIONS)}


def table(times: dict[str, list[list[float]]], instructions: dict[str, list[float]] | str) -> str:
    """What is printed."""
    lines = [
        f"{'':10}{'plain, ns':>28}{'expiring, ns':>28}{'ratio':>8}{'instructions':>22}{'ratio':>8}"
    ]
    for name, sides in times.items():
        cells = []
        for side in sides:
            ns = [1e9 * each for each in side]
            cells.append(f"{statistics.median(ns):,.1f} ({min(ns):,.1f}..{max(ns):,.1f})")
        ratio = statistics.median(b / a for a, b in zip(*sides, strict=True))
        line = f"{name:10}" + "".join(f"{cell:>28}" for cell in cells) + f"{ratio:8.3f}"
        if not isinstance(instructions, str):
            plain, expiring = instructions[name]
            line += f"{f'{plain:,.1f} {expiring:,.1f}':>22}{expiring / plain:8.3f}"
        lines.append(line)
    if isinstance(instructions, str):
        lines.append(f"instructions: {instructions}")
    return "\n".join(lines)


def main() -> None:
    """Measure, or count for who measures."""
    parser = argparse.ArgumentParser(prog="python -m bench.expiry", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--asked", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--library", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = make_data(Source("sentence", options.keys), options.asked)
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        stores = make_stores(Path(folder), data)
        gc.collect()
        gc.disable()
        if options.library:
            count(stores, data, options.library)
            return
        times = take_times(stores, data, options.rounds)
        for store in stores:
            store.close()
    print(json.dumps(report.machine()))
    print(table(times, count_instructions(options)))


if __name__ == "__main__":
    main()

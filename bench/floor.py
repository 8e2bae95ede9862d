"""What a load cannot be faster than on this machine: its parts, each alone, and the machine's own share of it.

`python -m bench.floor` counts the processor's seconds of each part of one load by one thread, times the disk with as many bytes
and the first touch of as much memory, and shows how much more two processes do than one that has both cores to itself. The store
and the bytes for the disk are in the system's folder for temporary files: TMPDIR names another one.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import tilekv
from bench.alone import at_once, write_at_once
from bench.data import Data, Source, make_data
from bench.rivals import rival
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.tile import encode
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.kvcore.write.sorted_buffer import sort_buffer

RUN = 1 << 20
PAGE = 4096
HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)


class Clock:
    """The seconds of each named part, of all rounds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()
        self.parts: dict[str, list[float]] = {}

    def restart(self) -> None:
        """What was before is not counted."""
        self._last = self._now()

    def part(self, name: str) -> None:
        """A part ends here, and the next begins."""
        self.parts.setdefault(name, []).append(self._now() - self._last)
        self._last = self._now()

    def show(self) -> list[float]:
        """Print a line a part, its median; return the medians."""
        medians = [statistics.median(each) for each in self.parts.values()]
        for name, seconds in zip(self.parts, medians, strict=True):
            print(f"  {name:46}{seconds * 1e3:10.1f}")
        return medians


def parts_of_a_load(data: Data, clock: Clock) -> dict[str, int]:
    """One load by one thread, part by part; the stored bytes of each file, without what ends it."""
    sizes = {}
    codecs = CodecPool()
    with tilekv.open("memory://floor", "w", config={"kv.buffer_bytes": "8 GiB"}) as db:
        clock.restart()
        db.put_many(data.keys, data.values)
        clock.part("copy from the objects, under the GIL")
        cells = sort_buffer(db._buffer)
        clock.part("digests and sort")
        planned = FragmentBuilder(db._layout).add(cells)
        clock.part("plan the chunks")
        names = {slot: stem + "_var" * is_bytes for slot, stem, is_bytes in db._layout.files}
        for plan in planned:
            runs = plan.runs(RUN)
            name = names[plan.slot]
            sizes[name] = sum(len(encode(db._layout, cells, plan, *run, codecs)) for run in runs)
            clock.part(f"encode {name}")
        db.close(discard=True)
    return sizes


def disk(folder: Path, size: int, clock: Clock) -> None:
    """As many bytes as a store has, written and synced."""
    block = os.urandom(RUN)
    fd = os.open(folder / "bytes", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        clock.restart()
        for at in range(0, size, RUN):
            os.write(fd, block[: size - at])
        clock.part("write as many bytes")
        os.fsync(fd)
        clock.part("sync them")
    finally:
        os.close(fd)
        os.unlink(folder / "bytes")


def touch(size: int, huge: bool, clock: Clock, name: str) -> None:
    """Memory that nobody had: how long until all of it is there."""
    clock.restart()
    with mmap.mmap(-1, size) as memory:
        if huge and HUGE_PAGES is not None:
            memory.madvise(HUGE_PAGES)
        for at in range(0, size, PAGE):
            memory[at] = 1
        clock.part(name)


def _hash(gate: Barrier, _number: int, times: int) -> None:
    block = bytes(RUN)
    gate.wait(600)
    for _ in range(times):
        hashlib.blake2b(block).digest()
    gate.wait(600)


def hash_at_once(processes: int, times: int) -> float:
    """Seconds in which so many processes hash `times` blocks together: they share nothing but the processor."""
    return at_once(processes, _hash, times // processes)


def two_for_one(source: Source, folder: Path, rounds: int) -> dict[str, float]:
    """How much more two processes do than one, at hashing and at writing into one store: the median of the rounds."""
    store, path = rival("tilekv"), folder / "store"
    ratios: dict[str, list[float]] = {"hashing": [], "writing": []}
    for _ in range(rounds):
        ratios["hashing"].append(hash_at_once(1, 600) / hash_at_once(2, 600))
        seconds = []
        for writers in (1, 2):
            tilekv.open(path, "w").close()
            seconds.append(write_at_once(store, source, path, writers))
            shutil.rmtree(path)
        ratios["writing"].append(seconds[0] / seconds[1])
    return {name: statistics.median(each) for name, each in ratios.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.floor", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many (1,000,000)")
    parser.add_argument("--value-size", type=int, default=100, help="bytes of a value (100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--idle",
        type=float,
        default=5,
        help="seconds, after which a hypervisor that is told of free memory has taken it (5)",
    )
    options = parser.parse_args()
    source = Source("sentence", options.keys, options.value_size)
    data = make_data(source, 1)
    processor, wall = Clock(time.thread_time), Clock(time.perf_counter)
    memory = Clock(time.thread_time)
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as name:
        folder = Path(name)
        for _ in range(options.rounds):
            sizes = parts_of_a_load(data, processor)
            disk(folder, sum(sizes.values()), wall)
            touch(data.raw_bytes, False, memory, "small pages")
            touch(data.raw_bytes, True, memory, "large pages, given back just now")
            time.sleep(options.idle)
            touch(data.raw_bytes, True, memory, f"large pages, after {options.idle:g} seconds")
        count = len(data.keys)
        print(f"{count:,} keys, {data.raw_bytes / 1e6:,.1f} MB; medians of {options.rounds} rounds")
        print("\nbytes a key, by file:")
        for file, size in sizes.items():
            print(f"  {file:46}{size / count:10.2f}")
        print(f"  {'all':46}{sum(sizes.values()) / count:10.2f}")
        print("\none load, milliseconds of one core:")
        staged, *rest = processor.show()
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        print(f"  {'copied by one core, the rest by ' + str(cores):46}", end="")
        print(f"{(staged + sum(rest) / cores) * 1e3:10.1f}")
        print("\nthe disk, milliseconds of the clock:")
        wall.show()
        print("\nfirst touch of memory for all keys and values, milliseconds of one core:")
        memory.show()
        del data
        print("\ntwo processes of one thread each against one, times as fast:")
        for what, ratio in two_for_one(source, folder, options.rounds).items():
            print(f"  {what:46}{ratio:10.2f}")


if __name__ == "__main__":
    main()

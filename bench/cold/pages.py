"""What the system has of files in memory, and what it reads: pages dropped, brought, counted."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

MOST_RESIDENT = 0.01  # of a store, for a pass to be called cold
LEAST_RESIDENT = 0.99  # to be called cached
_mincore = ctypes.CDLL(None, use_errno=True).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class NotCold(RuntimeError):
    """The system keeps pages that it was asked to drop."""


def files(path: Path) -> Iterator[Path]:
    """All files of a store that have bytes."""
    for file in path.rglob("*"):
        if file.is_file() and file.stat().st_size:
            yield file


def drop(path: Path) -> float:
    """Write what was changed, and have the system forget all pages of a store; return the part that is still there.

    Raises
    ------
    NotCold
        When that is a hundredth or more.
    """
    for file in files(path):
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    left = resident(path)
    if left >= MOST_RESIDENT:
        raise NotCold(
            f"{left:.1%} of {path} is still in memory: its file system does not drop it (a folder in memory?)"
        )
    return left


def bring(path: Path) -> float:
    """Have the system read all of a store, unless it has it; return the part that is there."""
    if resident(path) < LEAST_RESIDENT:
        for file in files(path):
            with file.open("rb", buffering=0) as stream:
                while stream.read(1 << 22):
                    pass
    return resident(path)


def resident(path: Path) -> float:
    """The part of a store's pages that are in memory, by mincore."""
    pages = there = 0
    for file in files(path):
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            count = -(-size // mmap.PAGESIZE)
            # Private and writable, though nothing is written: ctypes takes no address of a map that is neither.
            with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
                states = np.zeros(count, np.uint8)
                first = ctypes.c_char.from_buffer(mapped)
                failed = _mincore(ctypes.addressof(first), size, states.ctypes.data)
                del first
                if failed:
                    raise OSError(ctypes.get_errno(), "mincore", str(file))
            pages += count
            there += int((states & 1).sum())
    return there / max(pages, 1)


@dataclass(frozen=True)
class Spent:
    """What this process has spent so far, or between two moments: seconds, bytes read from the disk, page faults.

    A major fault waits for the disk; a minor one finds its page in memory.
    """

    seconds: float
    read_bytes: int
    major: int
    minor: int

    @classmethod
    def now(cls) -> Self:
        """So far."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/io") as file:
            read = int(dict(line.split(": ") for line in file)["read_bytes"])
        return cls(time.perf_counter(), read, usage.ru_majflt, usage.ru_minflt)

    def since(self, before: Spent) -> Spent:
        """Between a moment before and this one."""
        return Spent(
            self.seconds - before.seconds,
            self.read_bytes - before.read_bytes,
            self.major - before.major,
            self.minor - before.minor,
        )

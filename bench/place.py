"""Where workloads run: the data, and the rival's open store, which are held between them."""

from __future__ import annotations

import contextlib
import gc
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.data import Data, Source, make_data
from bench.rivals import Rival, rival


@dataclass(frozen=True)
class Options:
    """What every place of a run has in common.

    `asked` keys are looked up, `open_keys` are in the store of open_large; `cpu` counts the processor's seconds, of
    all threads of the process, instead of the wall's.
    """

    asked: int
    open_keys: int
    cpu: bool = False


class Place:
    """One rival and one data set, in a folder of their own: what a workload gets.

    The store at `path` holds the data whenever `loaded` or `opened` gave it. A workload that changes it says so with
    `spoil`.
    """

    def __init__(self, name: str, folder: Path, options: Options) -> None:
        self.rival: Rival = rival(name)
        self.folder = folder
        self.path = folder / "store"
        self.options = options
        self.clock = time.process_time if options.cpu else time.perf_counter
        self._holds = False
        # The cache_bytes that the store is open with; False when it is not open.
        self._open: int | bool | None = False
        self.built: set[str] = set()  # names of other stores, made once for the data set

    def timed(self, work: Callable[..., object], *arguments: object) -> float:
        """Seconds that a call takes."""
        start = self.clock()
        work(*arguments)
        return self.clock() - start

    def prepare(self, source: Source) -> tuple[int, int]:
        """Make the data; return how many keys there are, and how many bytes."""
        self.spoil()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.built.clear()
        self.source = source
        self.data: Data = make_data(source, self.options.asked)
        gc.collect()
        gc.freeze()  # a million keys would be looked at by every full collection
        return len(self.data.keys), self.data.raw_bytes

    @property
    def asked(self) -> list[bytes]:
        """Keys to be looked up one at a time."""
        return self.data.asked[: self.rival.lookups]

    def load(self) -> float:
        """Make the store anew; return the seconds of the load alone."""
        self.spoil()
        self.rival.remove(self.path)
        seconds = self.timed(self.rival.load, self.path, self.data.keys, self.data.values)
        self.rival.settle(self.path)
        self._holds = True
        return seconds

    def loaded(self) -> Path:
        """The store, closed."""
        self.closed()
        if not self._holds:
            self.load()
        return self.path

    def opened(self, cache_bytes: int | None = None) -> Rival:
        """The rival with the store open, as it was left if possible: hot."""
        if self._open is False or self._open != cache_bytes:
            self.rival.open(self.loaded(), cache_bytes)
            self._open = cache_bytes
        return self.rival

    def closed(self) -> None:
        """Close what is open."""
        if self._open is not False:
            self.rival.close()
            self._open = False

    def spoil(self) -> None:
        """The store at `path` no longer holds the data."""
        self.closed()
        self._holds = False

    @contextlib.contextmanager
    def other(self, name: str, cache_bytes: int | None = None) -> Iterator[Rival]:
        """The rival with another store open; the one at `path` is closed."""
        self.closed()
        self.rival.open(self.folder / name, cache_bytes)
        try:
            yield self.rival
        finally:
            self.rival.close()

    def parts(self, count: int) -> list[tuple[list[bytes], list[bytes]]]:
        """The data in so many parts."""
        data = self.data
        return [(data.keys[i::count], data.values[i::count]) for i in range(count)]

    def finish(self) -> None:
        """Close, and end what the rival began."""
        self.closed()
        self.rival.stop()

"""The stores of a run: which data, kept by whom, and how they are made and found again."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cold.keys import Numbered
from bench.data import SENTENCE
from bench.rivals import Rival, rival
from bench.rivals.rival import Block

LARGE_BYTES = 64_000_000
GROUP = 100  # blocks: what a store writes behind its caller while more is made is a small part of so many


@dataclass(frozen=True)
class Large:
    """One key with a large value, half of it random."""

    size: int

    def key(self, number: int, last: bytes = b"0") -> bytes:
        """The one key."""
        return b"large" + last

    def value(self, number: int) -> bytes:
        """Its value: pieces of 50 random bytes and 50 of a sentence."""
        noise = random.Random(number).randbytes(self.size // 2 + 50)
        pieces = (noise[at : at + 50] + SENTENCE for at in range(0, self.size // 2, 50))
        return b"".join(pieces)[: self.size]

    def blocks(self, seed: int, *, ordered: bool = False) -> Iterator[Block]:
        """The one pair."""
        yield [self.key(0)], [self.value(0)]


@dataclass(frozen=True)
class Contender:
    """One rival with some settings. `stored` names the store: two who read the same one have it in common."""

    name: str
    rival: str
    stored: str
    how: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Rival:
        """The rival, as it is set."""
        made = rival(self.rival)
        for name, value in self.settings.items():
            assert hasattr(made, name)
            setattr(made, name, value)
        return made


@dataclass(frozen=True)
class DataSet:
    """Data, and who keeps it."""

    what: str
    contenders: tuple[Contender, ...]
    varying: bool = False
    large: bool = False

    def source(self, keys: int, large_bytes: int) -> Numbered | Large:
        """The data."""
        return Large(large_bytes) if self.large else Numbered(keys, self.varying)


def _lmdb(data: str) -> Contender:
    return Contender("lmdb", "lmdb", f"{data}/lmdb", "readahead=False", {"readahead": False})


def _all(data: str) -> tuple[Contender, ...]:
    return (
        Contender("tilekv", "tilekv", f"{data}/tilekv"),
        _lmdb(data),
        Contender("lmdb-ahead", "lmdb", f"{data}/lmdb", "readahead=True, its default"),
        Contender(
            "rocksdict",
            "rocksdict",
            f"{data}/rocksdict",
            "optimize_for_point_lookup, 256 MiB block cache, zstd",
            {"point_lookups": True},
        ),
        Contender("sqlite3", "sqlite3", f"{data}/sqlite3"),
        Contender("cdbx", "cdbx", f"{data}/cdbx"),
        Contender("tkrzw", "tkrzw", f"{data}/tkrzw"),
    )


SETS = {
    "equal": DataSet("keys of 20 bytes, values of 100", _all("equal")),
    "varying": DataSet("keys of 13 to 50 bytes, values of 0 to 198", _all("varying"), varying=True),
    "lz4": DataSet(
        "as equal, values in lz4 instead of zstd",
        (Contender("tilekv", "tilekv", "lz4/tilekv", settings={"lz4": True}), _lmdb("equal")),
    ),
    "ten": DataSet(
        "as equal, in ten fragments; RocksDB has ten files",
        (
            Contender("tilekv", "tilekv", "ten/tilekv", settings={"fragments": 10}),
            _lmdb("equal"),
            Contender(
                "rocksdict",
                "rocksdict",
                "ten/rocksdict",
                settings={"point_lookups": True, "parts": 10},
            ),
        ),
    ),
    "forty": DataSet(
        "as equal, in forty fragments",
        (Contender("tilekv", "tilekv", "forty/tilekv", settings={"fragments": 40}),),
    ),
    "large": DataSet("one value", _all("large"), large=True),
}


def make(
    contender: Contender, source: Numbered | Large, path: Path, seed: int
) -> tuple[float, int, str]:
    """Make a store, unless it is there from another run; return the seconds of the load, its bytes, and who made it.

    What stands beside a store tells that it is whole, and of what data.
    """
    store = contender.make()
    wanted = [repr(source), seed, store.version]
    note = path.with_suffix(".json")
    if note.exists():
        known = json.loads(note.read_text())
        if known["of"] == wanted:
            return known["seconds"], known["bytes"], store.version
    note.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = timed_load(contender, store, source, path, seed)
    store.settle(path)
    size = store.disk_bytes(path)
    store.stop()
    note.write_text(json.dumps({"of": wanted, "seconds": seconds, "bytes": size}))
    return seconds, size, store.version


def timed_load(
    contender: Contender,
    store: Rival,
    source: Numbered | Large,
    path: Path,
    seed: int,
    made: Callable[[], object] = bool,
) -> float:
    """Seconds of a load, until all is durable. Its data is made before the clock starts, GROUP blocks at a time; `made` is called
    when the first are there."""
    making = 0.0

    def blocks() -> Iterator[Block]:
        nonlocal making
        begun = time.perf_counter()
        every = source.blocks(seed, ordered=contender.rival == "sqlite3")
        group = list(itertools.islice(every, GROUP))
        made()
        while group:
            making += time.perf_counter() - begun
            yield from group
            begun = time.perf_counter()
            group.clear()  # before there are others: memory is what one group takes
            group = list(itertools.islice(every, GROUP))
        making += time.perf_counter() - begun

    start = time.perf_counter()
    store.load_blocks(path, blocks(), getattr(source, "count", 1))
    return time.perf_counter() - start - making

"""What a store of up to ten thousand million keys costs: a model of counts, checked against stores that are made here.

`python -m bench.scale` makes stores of 100,000 and 400,000 keys, of 20 bytes with values of 100, and takes from them what a
key and a fragment cost. With that it says what larger ones do: 1,000,000 keys and ten times as many, up to `--most`, are made,
too, and what is off by more than a fifth is said; then up to 10^10 keys, which are not. Stores lie in the system's folder for
temporary files (TMPDIR names another one), are opened as a bucket is, and their requests are counted: times of this machine
tell nothing of a bucket's.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from obstore.store import LocalStore

import tilekv
from bench.cold.keys import Numbered
from tilekv.names import FRAGMENT_METADATA
from tilekv.storage import objectclient
from tilekv.tiers import choose

SMALL = (100_000, 400_000)  # keys of the stores that the model is made from
CHECKED = 1_000_000  # keys of the first that it is checked against
BEYOND = 10**10
OFF = 0.2
ASKED = 60  # look-ups: few, so that hardly any two need the same chunk
FIRST = 8  # for each fragment, that are not counted
MOST = 128 << 20  # bytes of a fragment of the stores that are made: so that there are many
FLUSHES = 16  # about so many are merged, and so divided anew
BUCKET = 1 << 30  # and of those in a bucket
FLUSH = 16 << 20  # bytes of a flush
PLAYED = 3000  # flushes whose upkeep is gone through
WORKERS = 64
CELLS_S = (
    1_000_000  # cells that a core merges a second: `python -m bench` prints it, as consolidate
)
PLACE = "s3://scale"
# Dollars, of the prices that S3 lists in us-east-1: a GB a month, a million of GETs, of PUTs and LISTs.
PRICES = {"store": 0.023, "get": 0.4, "put": 5.0}
FILES = 7  # of a fragment of one attribute
PART = 64 << 20  # bytes that one PUT of a file takes


class Counts(NamedTuple):
    """What a store costs."""

    fragments: float
    stored: float  # bytes
    metadata: float  # bytes of all fragments, which an open reads
    open_requests: float
    open_bytes: float
    get_requests: float
    get_bytes: float


class _Counting(objectclient.Client):
    """A bucket that is a folder, and counts."""

    requests = 0
    received = 0

    def _ask(self, what: str, key: str, function: Any) -> Any:
        found = super()._ask(what, key, function)
        self.requests += 1
        self.received += len(found if isinstance(found, bytes) else getattr(found, "data", b""))
        return found


def make(path: Path, count: int, seed: int = 1) -> None:
    """A store that was merged."""
    size = count * (len(Numbered(1).key(0)) + len(Numbered(1).value(0)))
    config = {
        "kv.upkeep": "off",
        "kv.max_fragment_bytes": MOST,
        "kv.buffer_bytes": max(size // FLUSHES, 1),
    }
    with tilekv.open(path, "x", config=config) as db:
        for keys, values in Numbered(count).blocks(seed):
            db.put_many(keys, values)
        db.consolidate(vacuum=True)


def measure(path: Path, count: int) -> Counts:
    """Open it as a bucket, without a cache, and look keys up; each reads its own chunks."""
    client = _Counting(PLACE, lambda repeats: LocalStore(prefix=path.parent))
    objectclient._clients[PLACE, ()] = client
    source = Numbered(count)
    keys = [source.key(each) for each in source.some(ASKED, 2).tolist()]
    try:
        with tilekv.open(f"{PLACE}/{path.name}", config={"kv.cache_bytes": 0}) as db:
            fragments, opened = db.fragments, (client.requests, client.received)
            # The first look-up in a fragment asks for the ends of its files, too.
            for each in source.some(min(FIRST * len(fragments), count), 3).tolist():
                assert db[source.key(each)]
            client.requests = client.received = 0
            for key in keys:
                assert db[key]
            got = client.requests / len(keys), client.received / len(keys)
            stored = sum(each.stored_bytes for each in fragments)
    finally:
        del objectclient._clients[PLACE, ()]
    metadata = sum(each.stat().st_size for each in path.glob(f"__*/{FRAGMENT_METADATA}"))
    return Counts(len(fragments), stored, metadata, *opened, *got)


@dataclass(frozen=True)
class Model:
    """What a key and a fragment cost, by two stores of few keys.

    Attributes
    ----------
    stored, metadata : float
        Bytes of a key.
    fixed : float
        Bytes of a fragment's metadata, whatever is in it.
    named : float
        Bytes of a fragment in the record, and of whatever else an open reads for each.
    opened : float
        Requests of an open, without those for each fragment.
    get_requests, get_bytes : float
    """

    stored: float
    metadata: float
    fixed: float
    named: float
    opened: float
    get_requests: float
    get_bytes: float

    @classmethod
    def of(cls, few: Counts, more: Counts, keys: tuple[int, int]) -> Model:
        """By what was counted of a store of keys[0], and of one of keys[1]."""
        metadata = (more.metadata - few.metadata) / (keys[1] - keys[0])
        fixed = few.metadata / few.fragments - metadata * keys[0] / few.fragments
        return cls(
            more.stored / keys[1],
            metadata,
            max(fixed, 0.0),
            (more.open_bytes - more.metadata) / more.fragments,
            more.open_requests - more.fragments,
            more.get_requests,
            more.get_bytes,
        )

    def of_keys(self, keys: int, most: int) -> Counts:
        """Of a merged store whose fragments have `most` bytes."""
        stored = keys * self.stored
        fragments = math.ceil(stored / most)
        metadata = keys * self.metadata + fragments * self.fixed
        return Counts(
            fragments,
            stored,
            metadata,
            self.opened + fragments,
            metadata + fragments * self.named,
            self.get_requests,
            self.get_bytes,
        )


@functools.cache
def kept(flushes: int, size: int, most: int) -> tuple[float, float]:
    """Fragments that upkeep leaves of so many flushes of `size` bytes, and how often a byte was written. Once fragments are full,
    more flushes leave as many more: beyond some thousands they are not gone through one by one."""
    if flushes > PLAYED:
        fragments, times = kept(PLAYED, size, most)
        return fragments * flushes / PLAYED, times
    sizes: list[int] = []
    written = 0
    for _ in range(flushes):
        sizes.append(size)
        written += size
        while chosen := choose([each if each < most else 0 for each in sizes], most):
            merged = sum(sizes[slice(*chosen)])
            sizes[slice(*chosen)] = [merged]
            written += merged
    return len(sizes), written / (flushes * size)


def compare(measured: dict[int, Counts], model: Model) -> Iterator[str]:
    """A line a count and a size, with what the model says."""
    yield f"{'':16}{'keys':>16}{'measured':>16}{'model':>16}"
    for name in Counts._fields:
        for keys, counts in measured.items():
            one, other = getattr(counts, name), getattr(model.of_keys(keys, MOST), name)
            off = "" if abs(other / one - 1) <= OFF else "  off"
            yield f"{name:16}{keys:>16,}{one:>16,.1f}{other:>16,.1f}{off}"


def beyond(model: Model) -> Iterator[str]:
    """A table of stores in a bucket that nobody has made."""
    sizes = [10**exponent for exponent in range(6, 11)]
    yield f"{'':34}" + "".join(f"{size:>16,}" for size in sizes)
    rows: dict[str, list[float]] = {}
    for keys in sizes:
        counts = model.of_keys(keys, BUCKET)
        for name, value in counts._asdict().items():
            rows.setdefault(name.replace("_", ", "), []).append(value)
        flushes = math.ceil(counts.stored / FLUSH)
        fragments, times = kept(flushes, FLUSH, BUCKET)
        puts = FILES * counts.fragments + counts.stored / PART
        rows.setdefault(f"flushes of {FLUSH >> 20} MiB", []).append(flushes)
        rows.setdefault("upkeep: fragments left", []).append(fragments)
        rows.setdefault("upkeep: a byte is written, times", []).append(times)
        each = counts.stored / WORKERS
        rows.setdefault(f"merge by {WORKERS}: bytes each reads", []).append(each)
        rows.setdefault(f"merge by {WORKERS}: seconds of a core", []).append(
            keys / WORKERS / CELLS_S
        )
        rows.setdefault("$ a month", []).append(counts.stored / 1e9 * PRICES["store"])
        rows.setdefault("$ to write it once", []).append(puts / 1e6 * PRICES["put"])
        rows.setdefault("$ a million look-ups", []).append(counts.get_requests * PRICES["get"])
    for name, values in rows.items():
        yield f"{name:34}" + "".join(f"{_figure(value):>16}" for value in values)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 when the model is off."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--most", type=int, default=10_000_000, help="keys (10,000,000)")
    parser.add_argument("--least", type=int, default=CHECKED, help="keys (1,000,000)")
    parser.add_argument("--svg", type=Path, help="draw it")
    parser.add_argument(
        "--few", default="{},{}".format(*SMALL), help="keys of the stores that the model is of"
    )
    parser.add_argument("--lenient", action="store_true", help="a model that is off is no failure")
    options = parser.parse_args(arguments)
    found: dict[int, Counts] = {}
    size = options.least
    few, more = map(int, options.few.split(","))
    sizes = [few, more]
    while size <= options.most:
        sizes.append(size)
        size *= 10
    for size in sizes:
        print(f"bench: {size:,} keys", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as name:
            make(Path(name, "store"), size)
            found[size] = measure(Path(name, "store"), size)
    model = Model.of(found[few], found[more], (few, more))
    checked = {size: counts for size, counts in found.items() if size not in (few, more)}
    lines = list(compare(checked, model))
    print(*lines, sep="\n")
    print(f"\nin a bucket, fragments of {BUCKET >> 30} GiB:")
    print(*beyond(model), sep="\n")
    if options.svg:
        from bench.picture import draw_scale

        modelled = {10**e: model.of_keys(10**e, MOST) for e in range(6, 11)}
        draw_scale(checked, modelled, options.svg)
    return int(any(line.endswith("off") for line in lines) and not options.lenient)


if __name__ == "__main__":
    sys.exit(main())

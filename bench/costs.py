"""How costs grow with the number of keys, the size of a value and the number of fragments, and what each choice buys.

`python -m bench.costs` measures tilekv alone. A growth is a line of figures over one axis, the others at their defaults; a
choice is one option or filter switched to something else, its figures relative to the defaults in the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tilekv
from bench import report
from bench.data import Data, Source, make_data
from tilekv import FilterList, LZ4Filter, ZstdFilter

# figure -> unit: ns a key, of which less is better, or bytes a key
FIGURES = {
    "load": "ns/key",
    "get": "ns/key",
    "miss": "ns/key",
    "get_many": "ns/key",
    "read": "ns/key",
    "items": "ns/key",
    "scan": "ns/key",
    "prefix": "ns/key",
    "consolidate": "ns/key",
    "disk": "B/key",
    "open": "us",
}


@dataclass(frozen=True)
class Case:
    """One store; what is not named is the default."""

    keys: int = 100_000
    value_size: int = 100
    fragments: int = 1
    config: dict[str, object] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=dict)
    filters: FilterList | None = None
    capacity: int | None = None

    def make_schema(self) -> tilekv.Schema:
        """The schema with its one attribute."""
        extra = {} if self.capacity is None else {"capacity": self.capacity}
        return tilekv.Schema(
            [tilekv.Attr("value", bytes, filters=self.filters)], **self.schema, **extra
        )


# The switch that each choice of the design has; without one it cannot be switched off, and is not here.
CHOICES = {
    "default": Case(),
    "one thread": Case(config={"kv.threads": 1}),
    "without fsync": Case(config={"kv.sync": False}),
    "pread, no maps": Case(config={"kv.mmap": False}),
    "cache 8 MiB": Case(config={"kv.cache_bytes": 8 << 20}),
    "no cache": Case(config={"kv.cache_bytes": 0}),
    "digest MD5": Case(schema={"digest": "md5"}),
    "keys plain": Case(schema={"key_filters": FilterList()}),
    "keys zstd 1": Case(schema={"key_filters": FilterList(ZstdFilter(1))}),
    "offsets plain": Case(schema={"offsets_filters": FilterList()}),
    "offsets zstd 1": Case(schema={"offsets_filters": FilterList(ZstdFilter(1))}),
    "values plain": Case(filters=FilterList()),
    "values lz4": Case(filters=FilterList(LZ4Filter())),
    "values zstd 9": Case(filters=FilterList(ZstdFilter(9))),
    "tiles of 128 cells": Case(capacity=128),
    "tiles of 16,384 cells": Case(capacity=16_384),
}


def axes(most: int) -> dict[str, list[tuple[int, Case]]]:
    """The growths: by axis the value on it and its case. `most` keys, and a tenth of them for the other axes."""
    some = max(most // 10, 10)
    counts = [most // 10**power for power in range(4, -1, -1) if most // 10**power]
    sizes = [size for size in (10, 100, 1000, 10_000, 100_000) if size <= most]
    return {
        "keys": [(count, Case(keys=count)) for count in counts],
        "value bytes": [
            (size, Case(keys=max(10, min(some, 100 * some // size)), value_size=size))
            for size in sizes
        ],
        "fragments": [
            (count, Case(keys=some, fragments=count))
            for count in (1, 2, 5, 10, 20, 50, 100)
            if count * 10 <= some
        ],
    }


def measure(case: Case, data: Data, path: Path) -> dict[str, float]:
    """All figures of one store, made anew and removed by the caller."""
    figures = {}
    n, asked = len(data.keys), data.asked
    start = time.perf_counter()
    with tilekv.open(path, "x", schema=case.make_schema(), config=case.config) as db:
        for part in range(case.fragments):
            db.put_many(data.keys[part :: case.fragments], data.values[part :: case.fragments])
            db.flush()
    figures["load"] = (time.perf_counter() - start) / n
    opened = []
    for _ in range(11):
        start = time.perf_counter()
        tilekv.open(path, config=case.config).close()
        opened.append(time.perf_counter() - start)
    figures["open"] = statistics.median(opened)
    with tilekv.open(path, config=case.config) as db:
        figures["disk"] = db.info().stored_bytes / n
        reads: dict[str, tuple[Callable[[], object], int]] = {
            "get": (lambda: [db[key] for key in asked], len(asked)),
            "miss": (lambda: [db.get(key) for key in data.absent], len(data.absent)),
            "get_many": (lambda: db.get_many(asked), len(asked)),
            "read": (lambda: db.read(asked), len(asked)),
            "items": (lambda: [None for _item in db.items()], n),
            "scan": (lambda: [None for _batch in db.scan()], n),
            "prefix": (lambda: db.scan_keys(prefix=asked[0]), n),
        }
        for name, (work, count) in reads.items():
            work()
            start = time.perf_counter()
            work()
            figures[name] = (time.perf_counter() - start) / count
    if case.fragments > 1:
        with tilekv.open(path, "a", config=case.config) as db:
            start = time.perf_counter()
            db.consolidate()
            figures["consolidate"] = (time.perf_counter() - start) / n
    return figures


def rounds_of(cases: list[Case], rounds: int, seed: int) -> Iterator[list[dict[str, float]]]:
    """A round after another: the figures of every case, in order. Data of one shape is made once."""
    made: dict[tuple[int, int], Data] = {}
    for _ in range(rounds):
        figures = []
        for case in cases:
            shape = (case.keys, case.value_size)
            if shape not in made:
                source = Source("sentence", case.keys, case.value_size, seed)
                made[shape] = make_data(source, min(case.keys, 20_000))
            with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
                figures.append(measure(case, made[shape], Path(folder, "store")))
        yield figures


def grow(axis: list[tuple[int, Case]], rounds: int, seed: int) -> dict[str, list[float | None]]:
    """Medians of every figure, a value a case."""
    seen = list(rounds_of([case for _, case in axis], rounds, seed))
    return {
        name: [
            statistics.median(one[i][name] for one in seen) if name in seen[0][i] else None
            for i in range(len(axis))
        ]
        for name in FIGURES
    }


def compare(keys: int, rounds: int, seed: int) -> dict[str, dict[str, float]]:
    """By choice: the medians of its figures relative to those of the defaults, round by round."""
    cases = [replace(case, keys=keys) for case in CHOICES.values()]
    seen = list(rounds_of(cases, rounds, seed))
    return {
        choice: {
            name: statistics.median(one[i][name] / one[0][name] for one in seen)
            for name in seen[0][0]
        }
        for i, choice in enumerate(CHOICES)
    }


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    for axis, growth in figures["growth"].items():
        print(f"\n{axis:>12}" + "".join(f"{count:>11,}" for count in growth["at"]))
        for name, unit in FIGURES.items():
            values = growth["figures"][name]
            scale = {"ns/key": 1e9, "us": 1e6, "B/key": 1}[unit]
            cells = ["-" if one is None else f"{one * scale:,.0f}" for one in values]
            print(f"{name:>12}" + "".join(f"{cell:>11}" for cell in cells) + f"  {unit}")
    names = list(figures["choices"]["default"])
    print("\nrelative to the defaults: less is faster, or smaller")
    print(f"{'':24}" + "".join(f"{name:>10}" for name in names))
    for choice, ratios in figures["choices"].items():
        print(f"{choice:24}" + "".join(f"{ratios[name]:10.2f}" for name in names))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="most keys (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--svg", type=Path, help="draw the growths")
    options = parser.parse_args(arguments)
    growth = {}
    for axis, cases in axes(options.keys).items():
        print(f"bench: growth with {axis}", file=sys.stderr, flush=True)
        figures = grow(cases, options.rounds, options.seed)
        growth[axis] = {"at": [count for count, _ in cases], "figures": figures}
    print("bench: choices", file=sys.stderr, flush=True)
    choices = compare(max(options.keys // 10, 10), options.rounds, options.seed)
    record = {
        "when": report.now(),
        "commit": report.commit(),
        "machine": report.machine(),
        "version": tilekv.__version__,
        "seed": options.seed,
        "rounds": options.rounds,
        "growth": growth,
        "choices": choices,
    }
    show(record)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.svg:
        from bench.picture import draw_growth

        options.svg.parent.mkdir(parents=True, exist_ok=True)
        draw_growth(record, options.svg)


if __name__ == "__main__":
    main()

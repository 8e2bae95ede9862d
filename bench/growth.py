"""How costs grow with the keys of a store, beside others: `python -m bench.growth`.

Each size and each store has a process of its own for the load, and one for the look-ups, with the defaults; what is read is in
the system's cache. `load` is until all is durable, of data that is there before; `settle` is what comes after it,
a merge into one fragment or RocksDB's compaction. `get hot` asks for the same keys a second time, `get` for keys that nobody has
asked for, after a million others, so that caches are as full as they get; `miss` for absent keys, a second time.
`peak` is the most memory that the load took, its data not counted; `own` what is its own after the look-ups, pages of
files that it maps not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import report
from bench.alone import restart_peak, status, try_in_child
from bench.cold.keys import Numbered
from bench.cold.pages import bring
from bench.cold.stores import SETS, Contender, timed_load
from bench.rivals import NotOffered, Rival

# figure -> unit
FIGURES = {
    "load": "/s",
    "settle": "s",
    "get hot": "/s",
    "get": "/s",
    "miss": "/s",
    "disk": "B/key",
    "peak": "B",
    "own": "B",
}
WARM = 1_000_000  # keys asked for before those of `get`
BATCH = 10_000
CONTENDERS = tuple(each for each in SETS["equal"].contenders if each.name != "lmdb-ahead")

# contender -> keys -> figure
Found = dict[str, dict[int, dict[str, float]]]


def load(contender: Contender, source: Numbered, path: Path, seed: int) -> dict[str, float]:
    """Make the store; the process does nothing else."""
    store = contender.make()
    before = 0

    def made() -> None:
        nonlocal before
        before = restart_peak(os.getpid())

    seconds = timed_load(contender, store, source, path, seed, made)
    peak = status(os.getpid(), "VmHWM") - before
    figures = {"load": source.count / seconds, "peak": float(peak)}
    if type(store).settle is not Rival.settle:
        start = time.perf_counter()
        store.settle(path)
        figures["settle"] = time.perf_counter() - start
    return figures | {"disk": store.disk_bytes(path) / source.count}


def look(
    contender: Contender, source: Numbered, path: Path, seed: int, asked: int
) -> dict[str, float]:
    """Look-ups in the store that is there."""
    store = contender.make()
    hot = [source.key(each) for each in source.some(asked, seed).tolist()]
    absent = [source.key(each, b"1") for each in source.some(asked, seed).tolist()]
    others = [source.key(each) for each in source.some(WARM, seed + 1).tolist()]
    new = [source.key(each) for each in source.some(asked, seed + 2).tolist()]
    before = status(os.getpid(), "RssAnon")
    figures = {}

    def timed(work: Any, keys: list[bytes]) -> float:
        start = time.perf_counter()
        work(keys)
        return len(keys) / (time.perf_counter() - start)

    store.open(path)
    store.get(hot)
    figures["get hot"] = timed(store.get, hot)
    try:
        for at in range(0, len(others), BATCH):
            store.get_many(others[at : at + BATCH])
    except NotOffered:
        store.get(others)
    figures["get"] = timed(store.get, new)
    store.miss(absent)
    figures["miss"] = timed(store.miss, absent)
    figures["own"] = status(os.getpid(), "RssAnon") - before
    store.close()
    return figures


def measure(
    contender: Contender, source: Numbered, folder: Path, options: argparse.Namespace
) -> tuple[str, Any]:
    """Both processes; the store is removed."""
    path = folder / contender.name
    try:
        outcome, answer = try_in_child(load, contender, source, path, options.seed)
        if outcome != "done":
            return outcome, answer
        figures = answer
        bring(path)
        outcome, answer = try_in_child(
            look, contender, source, path, options.seed, min(options.asked, source.count)
        )
        return outcome, figures | answer if outcome == "done" else answer
    finally:
        shutil.rmtree(path, ignore_errors=True)


def table(found: Found, sizes: list[int]) -> Iterable[str]:
    """A part a figure: a line a contender, a column a size; below it how many times better tilekv is."""
    for name, unit in FIGURES.items():
        yield f"\n{name:20}" + "".join(f"{size:>15,}" for size in sizes)
        for who, by_size in found.items():
            cells = [
                report.figure(by_size[size][name], unit) if name in by_size.get(size, {}) else "-"
                for size in sizes
            ]
            yield f"{who:20}" + "".join(f"{cell:>15}" for cell in cells)
            ratios = [
                "" if (one := ratio(found, who, size, name)) is None else f"x {one:.2f}"
                for size in sizes
            ]
            if any(ratios):
                yield f"{'':20}" + "".join(f"{each:>15}" for each in ratios)


def ratio(found: Found, who: str, size: int, name: str) -> float | None:
    """How many times better tilekv is than another, whatever the unit."""
    ours, theirs = (found.get(each, {}).get(size) for each in ("tilekv", who))
    if who == "tilekv" or ours is None or theirs is None or name not in ours or name not in theirs:
        return None
    above, below = ours[name], theirs[name]
    if FIGURES[name] != "/s":
        above, below = below, above
    return above / below if above > 0 and below > 0 else None


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--least", type=int, default=100_000, help="keys, then ten times as many")
    parser.add_argument("--most", type=int, default=10_000_000, help="keys (10,000,000)")
    parser.add_argument("--rivals-most", type=int, default=10_000_000, help="keys of others")
    parser.add_argument("--asked", type=int, default=200_000, help="keys looked up (200,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--contenders", help="by commas (all that are installed)")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--svg", type=Path, help="draw them")
    parser.add_argument("--tiny", action="store_true", help="300 and 3,000 keys: does it run")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.least, options.most, options.asked = 300, 3000, 200
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run and report; 1 when something failed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stores are removed
    machine = report.machine()
    sizes = []
    size = options.least
    while size <= options.most:
        sizes.append(size)
        size *= 10
    chosen = [
        each
        for each in CONTENDERS
        if options.contenders is None or each.name in options.contenders.split(",")
    ]
    found: Found = {}
    skipped: dict[str, str] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        for size in sizes:
            for contender in chosen:
                if contender.name in skipped or (
                    contender.name != "tilekv" and size > options.rivals_most
                ):
                    continue
                say(f"{contender.name}, {size:,} keys")
                outcome, answer = measure(contender, Numbered(size), Path(folder), options)
                if outcome == "done":
                    found.setdefault(contender.name, {})[size] = answer
                elif outcome == "absent":
                    skipped[contender.name] = answer
                else:
                    failures.append(f"{contender.name}, {size:,} keys: {answer}")
    print("keys of 20 bytes, values of 100")
    print("\n".join(table(found, sizes)))
    for name, reason in skipped.items():
        print(f"\nwithout {name}: {reason}")
    for failure in failures:
        print(f"\nFAILED: {failure}")
    record = {
        "when": report.now(),
        "commit": report.commit(),
        "machine": machine,
        "seed": options.seed,
        "sizes": sizes,
        "figures": found,
        "units": FIGURES,
        "skipped": skipped,
        "failures": failures,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.svg:
        from bench.picture import draw_grown

        options.svg.parent.mkdir(parents=True, exist_ok=True)
        draw_grown(found, options.svg)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

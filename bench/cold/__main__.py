"""What a look-up costs when nothing of the store is in memory, when the system has all of it, and when there is room for a part.

Each pass is a process of its own, so that nothing was opened or decoded before. Before a cold pass all files of the store are
synced and dropped from the system's cache, and mincore says how much is left: a hundredth, or the pass does not count.
Before the others the system reads all of it. The contenders take turns, and ask for the same keys.

Stores are made in the system's folder for temporary files, whose disk is what is measured: TMPDIR names another one, that
must not be in memory. 10,000,000 keys take 21 GB there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import report
from bench.cold import goals, passes
from bench.cold.passes import Pass, Sizes
from bench.cold.run import Run, load, measure
from bench.cold.stores import LARGE_BYTES, SETS
from bench.cold.tables import show


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cold",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keys", type=int, default=goals.KEYS, help="(10,000,000)")
    parser.add_argument("--gets", type=int, default=1000, help="cold, one at a time (1,000)")
    parser.add_argument("--many", type=int, default=10_000, help="cold, at once (10,000)")
    parser.add_argument("--first", type=int, default=200_000, help="on first touch (200,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of a limited pass, twice (5)")
    parser.add_argument(
        "--limits", type=_mebibytes, default=[256 << 20], help="of memory, MiB (256)"
    )
    caches = [0, 16 << 20, 64 << 20, 256 << 20, 1 << 30]
    parser.add_argument("--caches", type=_mebibytes, default=caches, help="MiB (0,16,64,256,1024)")
    parser.add_argument("--data", type=_names(SETS), help="by commas (all)")
    parser.add_argument("--passes", help="only those in whose name this is")
    parser.add_argument("--contenders", help="by commas (all that are installed)")
    parser.add_argument(
        "--stores", type=Path, help="where they are made, and kept for the next run"
    )
    parser.add_argument("--json", type=Path, help="write the figures of every round")
    parser.add_argument("--svg", type=Path, help="draw the ratios")
    parser.add_argument("--tiny", action="store_true", help="3,000 keys, one round: does it run")
    options = parser.parse_args(arguments)
    options.large = LARGE_BYTES
    if options.tiny:
        options.keys, options.gets, options.many, options.first = 3000, 50, 300, 1000
        options.rounds, options.seconds, options.large = 1, 0.05, 3_000_000
        options.caches = [0, 16 << 20]
    return options


def _mebibytes(text: str) -> list[int]:
    return [int(each) << 20 for each in text.split(",") if each]


def _names(known: Iterable[str]) -> Any:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


def chosen_passes(options: argparse.Namespace) -> list[Pass]:
    """Those that are asked for."""
    sizes = Sizes(
        options.keys, options.gets, options.many, options.first, options.limits, options.caches
    )
    return [
        each
        for each in passes.passes(sizes)
        if (options.data is None or each.data in options.data)
        and (options.passes is None or options.passes in each.name)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run and report; 1 when something failed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stores are removed
    machine = report.machine()
    run = Run(options)
    chosen = chosen_passes(options)
    with contextlib.ExitStack() as stack:
        if options.stores:
            folder = options.stores
        else:
            folder = Path(tempfile.mkdtemp(prefix="tilekv-bench-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        load(run, chosen, folder)
        measure(run, chosen, folder)
    rows = goals.judged(run.results())
    show(run, chosen, rows)
    record = {
        "when": report.now(),
        "commit": report.commit(),
        "machine": machine,
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(options).items()
        },
        "rivals": run.versions,
        "loads": {"seconds": run.seconds, "bytes": run.sizes},
        "figures": run.found,
        "units": {each.name: each.unit for each in chosen},
        "skipped": run.skipped,
        "goals": rows,
        "failures": run.failures,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.svg:
        from bench.picture import draw_cold

        options.svg.parent.mkdir(parents=True, exist_ok=True)
        draw_cold(record, options.svg)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())

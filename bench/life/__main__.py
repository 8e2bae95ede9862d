"""What a store costs while it lives: durable writes of few entries beside others, what a flush costs who writes meanwhile, and
what thousands of flushes come to.

Everything is in one process, and the stores take turns. Stores are made in the system's folder for temporary files, whose file
system and disk are what is measured: TMPDIR names another one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.life import puts, upkeep, waits, writes


def main(arguments: list[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.life", description=__doc__)
    parser.add_argument("--rounds", type=int, default=41, help="of durable writes (41)")
    parser.add_argument("--keys", type=int, default=1_500_000, help="that are flushed (1,500,000)")
    parser.add_argument("--runs", type=int, default=5, help="flushes during which keys are put (5)")
    parser.add_argument("--flushes", type=int, default=10_000, help="into one store (10,000)")
    parser.add_argument("--part", choices=("writes", "upkeep"), help="only this one")
    parser.add_argument("--svg", type=Path, help="draw the flushes into one store")
    parser.add_argument("--tiny", action="store_true", help="50,000 keys, one round: does it run")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.keys, options.rounds, options.runs, options.flushes = 50_000, 1, 1, 60
    machine = report.machine()
    load = ", ".join(f"{each:.1f}" for each in machine["load_average"])
    print(f"{machine['cpu']}, {machine['cores']} cores; load averages before: {load}\n")
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        if options.part != "upkeep":
            writes.show(writes.measure(Path(folder), options.rounds))
            print()
            waits.show(Path(folder))
            print()
            puts.show(Path(folder), options.keys, options.runs)
            print()
        if options.part != "writes":
            upkeep.show(Path(folder), options.flushes, options.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())

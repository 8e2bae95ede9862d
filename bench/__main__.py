"""A first look: the same workloads on tilekv and py-lmdb, in one run, interleaved.

Every round builds both stores anew in one temporary folder; the medians of the rounds and their ratios are printed.
Nothing is switched off for it: checksums, key comparison and fsync are as a user has them.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench.rivals import RIVALS, Rival

SENTENCE = b"the quick brown fox jumps over the lazy dog and so"  # 50 bytes

# name, what one operation is
WORKLOADS = {
    "load": "keys written in one batch, durable at the end",
    "get": "one key at a time, random order, all present",
    "get_many": "the same keys in batches of 10,000",
    "scan": "all items, in the store's own order",
}


def make_data(count: int, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Keys of 20 bytes in random order, values of 50 random bytes and 50 of a fixed sentence."""
    rng = random.Random(seed)
    keys = [b"user:%015d" % number for number in range(count)]
    rng.shuffle(keys)
    return keys, [rng.randbytes(50) + SENTENCE for _ in keys]


def timed(work: object, *arguments: object) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def run_round(
    rival: Rival, folder: Path, keys: list[bytes], values: list[bytes], asked: list[bytes]
) -> dict[str, float]:
    """Operations a second of each workload, and the bytes on disk."""
    path = folder / rival.name
    shutil.rmtree(path, ignore_errors=True)
    rates = {"load": len(keys) / timed(rival.load, path, keys, values)}
    rival.open(path)
    try:
        rival.get(asked)  # both sides hot
        rates["get"] = len(asked) / timed(rival.get, asked)
        rates["get_many"] = len(asked) / timed(rival.get_many, asked)
        rates["scan"] = len(keys) / timed(rival.scan)
    finally:
        rival.close()
    rates["bytes"] = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    return rates


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many (1,000,000)")
    parser.add_argument(
        "--gets", type=int, default=200_000, help="how many are looked up (200,000)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, at least (3)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    keys, values = make_data(options.keys, options.seed)
    asked = random.Random(options.seed + 1).sample(keys, min(options.gets, len(keys)))
    results: dict[str, list[dict[str, float]]] = {rival.name: [] for rival in RIVALS}
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as name:
        for _ in range(options.rounds):
            for rival in RIVALS:
                results[rival.name].append(run_round(rival, Path(name), keys, values, asked))
    print(
        f"{len(keys):,} keys of 20 bytes, values of 100, medians of {options.rounds} rounds; "
        "thousands of operations a second, MB on disk"
    )
    print(f"{'':10}" + "".join(f"{rival.name:>12}" for rival in RIVALS) + f"{'ratio':>10}")
    for workload in (*WORKLOADS, "bytes"):
        medians = [
            statistics.median(one[workload] for one in results[rival.name]) for rival in RIVALS
        ]
        scale = 1e6 if workload == "bytes" else 1e3
        row = "".join(f"{median / scale:12,.0f}" for median in medians)
        print(f"{workload:10}{row}{medians[0] / medians[1]:10.2f}")


if __name__ == "__main__":
    main()

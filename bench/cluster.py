"""How much more two workers of dask do than one, beside what two processes gain on this machine in the same run.

`python -m bench.cluster` loads a store by `tilekv.dask.to_store`, reads it by `from_store` and merges it by `consolidate`, by a
cluster of one worker and by one of two, in turns, each worker with one thread; and writes into one store by one process and by
two, as `python -m bench.floor` does. The stores are in the system's folder for temporary files: TMPDIR names another one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path

import dask
import pandas as pd
from distributed import Client, LocalCluster

import tilekv
import tilekv.dask
from bench.data import Source, make_data
from bench.floor import two_for_one

GOAL = 0.85  # of what two processes gain by writing
CONFIG = {"kv.threads": 1, "kv.upkeep": "off"}


@lru_cache(16)
def frame_of(source: Source) -> pd.DataFrame:
    """A partition, made where it is written, and in the first round only: nothing of it travels."""
    data = make_data(source, 1)
    return pd.DataFrame({"key": data.keys, "value": data.values})


def load(sources: list[Source], path: Path) -> None:
    """A store, a fragment a source."""
    parts = [dask.delayed(frame_of, pure=False)(source) for source in sources]
    schema = tilekv.Schema([tilekv.Attr("value", bytes)])
    tilekv.dask.to_store(parts, path, key="key", schema=schema, config=CONFIG)


def scan(partitions: int, path: Path) -> None:
    """The bytes of all values are added up."""
    frame = tilekv.dask.from_store(path, npartitions=partitions, config=CONFIG)
    frame["value"].map_partitions(_bytes, meta=("bytes", "int64")).sum().compute()


def _bytes(values: pd.Series) -> pd.Series:
    return pd.Series([values.str.len().sum()])


def merge(client: Client, partitions: int, path: Path) -> None:
    """Fragments of all digests become those of a range each."""
    tilekv.dask.consolidate(path, client=client, parts=partitions, config=CONFIG)


def seconds(client: Client, step: Callable[[Path], object], path: Path) -> float:
    """Of a step by this client's workers."""
    with client.as_current():
        begun = time.perf_counter()
        step(path)
        return time.perf_counter() - begun


def gains(
    clients: list[Client], sources: list[Source], folder: Path, rounds: int
) -> dict[str, float]:
    """How much faster the last client's workers do each step than the first's: the median of the rounds."""
    ratios: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        took: dict[str, list[float]] = {}
        for client in clients:
            path = folder / "store"
            steps = {
                "to_store": partial(load, sources),
                "from_store": partial(scan, len(sources)),
                "consolidate": partial(merge, client, len(sources)),
            }
            for name, step in steps.items():
                took.setdefault(name, []).append(seconds(client, step, path))
            shutil.rmtree(path)
        for name, (one, two) in took.items():
            if number:  # in the first round the partitions were made
                ratios.setdefault(name, []).append(one / two)
    return {name: statistics.median(each) for name, each in ratios.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--keys", type=int, default=2_000_000, help="how many (2,000,000)")
    parser.add_argument("--value-size", type=int, default=100, help="bytes of a value (100)")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    each = options.keys // options.partitions
    sources = [
        Source("sentence", each, options.value_size, seed) for seed in range(options.partitions)
    ]
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as name, ExitStack() as stack:
        clients = []
        for workers in (1, 2):
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
            )
            clients.append(stack.enter_context(Client(stack.enter_context(cluster))))
        found = gains(clients, sources, Path(name), options.rounds)
        whole = Source("sentence", options.keys, options.value_size)
        floor = two_for_one(whole, Path(name), options.rounds)
    print(
        f"{options.keys:,} keys in {options.partitions} partitions; medians of {options.rounds} rounds"
    )
    print("\ntwo against one of one thread each, times as fast:")
    for what, ratio in {**{f"processes, {k}": v for k, v in floor.items()}, **found}.items():
        print(f"  {what:46}{ratio:10.2f}")
    share = found["to_store"] / floor["writing"]
    print(f"\nto_store gains {share:.2f} of what writing by two processes does; the goal is {GOAL}")


if __name__ == "__main__":
    main()

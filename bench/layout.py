"""What each stored layout costs: bytes on disk against the time of a point read.

`python -m bench.layout` builds the same data under one changed choice after another and prints bytes a cell, the time of a
get that decodes everything it needs (a cache of 0 bytes), of one that finds it decoded, and of the load, relative to the
defaults in the same run. The defaults in `tilekv.schema` were chosen from this table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass

import tilekv
from tilekv import BitWidthReductionFilter, FilterList, LZ4Filter, ZstdFilter
from tilekv.schema import KEY_FILTERS, OFFSETS_FILTERS, VALUE_FILTERS


@dataclass(frozen=True)
class Choice:
    """One layout; what is not named is the default."""

    name: str
    capacity: int = 1024
    chunk: int = 4096
    keys: FilterList = KEY_FILTERS
    values: FilterList = VALUE_FILTERS
    offsets: FilterList = OFFSETS_FILTERS


CHOICES = (
    Choice("default"),
    Choice("capacity 256", capacity=256),
    Choice("capacity 512", capacity=512),
    Choice("capacity 2048", capacity=2048),
    Choice("capacity 4096", capacity=4096),
    Choice("capacity 10000", capacity=10_000),
    Choice("chunk 1 KiB", chunk=1 << 10),
    Choice("chunk 2 KiB", chunk=1 << 11),
    Choice("chunk 8 KiB", chunk=1 << 13),
    Choice("chunk 16 KiB", chunk=1 << 14),
    Choice("chunk 64 KiB", chunk=1 << 16),
    Choice("keys plain", keys=FilterList()),
    Choice("keys zstd 1", keys=FilterList(ZstdFilter(1))),
    Choice("values plain", values=FilterList()),
    Choice("values lz4", values=FilterList(LZ4Filter())),
    Choice("values zstd -5", values=FilterList(ZstdFilter(-5))),
    Choice("values zstd 3", values=FilterList(ZstdFilter(3))),
    Choice("offsets plain", offsets=FilterList()),
    Choice("offsets zstd 1", offsets=FilterList(ZstdFilter(1))),
    Choice(
        "offsets bit-width, zstd",
        offsets=FilterList([BitWidthReductionFilter(8192), ZstdFilter(1)]),
    ),
)


def records(rng: random.Random, count: int) -> list[bytes]:
    """JSON records of about 100 bytes from a vocabulary of 2,000 words."""
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 10)))
        for _ in range(2000)
    ]
    pick = rng.choice
    return [
        json.dumps(
            {
                "id": i,
                "name": pick(words),
                "score": round(rng.random(), 3),
                "tags": [pick(words), pick(words)],
            }
        ).encode()
        for i in range(count)
    ]


def measure(
    choice: Choice, keys: list[bytes], values: list[bytes], asked: list[bytes]
) -> tuple[float, float, float, float]:
    """Bytes a cell, and seconds of load, cold gets and hot gets."""
    filters = [FilterList(each, choice.chunk) for each in (choice.values, choice.keys)]
    schema = tilekv.Schema(
        [tilekv.Attr("value", bytes, filters=filters[0])],
        capacity=choice.capacity,
        key_filters=filters[1],
        offsets_filters=choice.offsets,
    )
    start = time.perf_counter()
    with tilekv.open("memory://layout", "w", schema=schema) as db:
        db.put_many(keys, values)
    load = time.perf_counter() - start
    seconds = []
    for cache in (0, 1 << 30):
        with tilekv.open("memory://layout", config={"kv.cache_bytes": cache}) as db:
            size = db.info().stored_bytes / len(keys)
            for key in asked if cache else asked[:1000]:
                db[key]
            start = time.perf_counter()
            for key in asked:
                db[key]
            seconds.append(time.perf_counter() - start)
    return size, load, seconds[0], seconds[1]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.layout", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--keys", type=int, default=100_000, help="how many (100,000)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = random.Random(1)
    sentence = b"the quick brown fox jumps over the lazy dog and so"
    keys = [b"user:%015d" % number for number in range(options.keys)]
    rng.shuffle(keys)
    asked = rng.sample(keys, min(20_000, len(keys)))
    data = {
        "half random": [rng.randbytes(50) + sentence for _ in keys],
        "JSON": records(rng, len(keys)),
    }
    for name, values in data.items():
        raw = sum(map(len, values)) / len(values)
        print(
            f"\n{options.keys:,} keys of 20 bytes, values of {raw:.0f} bytes ({name}); ratios to the default"
        )
        print(f"{'':26}{'bytes/cell':>11}{'load':>8}{'cold get':>10}{'hot get':>9}")
        rounds: dict[str, list[tuple[float, float, float, float]]] = {
            choice.name: [] for choice in CHOICES
        }
        for _ in range(options.rounds):
            for choice in CHOICES:
                rounds[choice.name].append(measure(choice, keys, values, asked))
        default = rounds["default"]
        for label, seen in rounds.items():
            ratios = [
                statistics.median(one[i] / base[i] for one, base in zip(seen, default, strict=True))
                for i in (1, 2, 3)
            ]
            print(f"{label:26}{seen[0][0]:11.1f}{ratios[0]:8.2f}{ratios[1]:10.2f}{ratios[2]:9.2f}")


if __name__ == "__main__":
    main()

"""Training samples in a store, in LMDB and in files: `python -m bench.dataset`.

50,000 JPEGs of 64 by 64 pixels, made from a seed, each with a label, are loaded; then a loader of one process goes through them
in batches of 256, encoded as they are, in a random order and, in a store, in that of `tilekv.torch.WindowSampler`:

* tilekv: two attributes, `StoreDataset`, whose batch is one `get_many`;
* LMDB: the label in front of the JPEG, one read transaction, a `get` for each sample;
* files: a folder for each label, a file for each sample.

Every batch's labels and sizes are compared. An epoch comes twice: just loaded, and after the system was told to forget the
files (`posix_fadvise`), which reads the disk. Seconds of the clock, and of the processor.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import lmdb
import numpy as np
from PIL import Image

import tilekv
from tilekv.torch import StoreDataset, WindowSampler

SAMPLES, BATCH, LABELS, SIDE = 50_000, 256, 100, 64
LABEL_BYTES: Final = 4
Sample = tuple[bytes, int]


def make_samples(n: int) -> Iterator[Sample]:
    """JPEGs with labels: smooth noise, which compresses about as photographs of that size do."""
    rng = np.random.default_rng(20261130)
    for _ in range(n):
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        encoded = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=85)
        yield encoded.getvalue(), int(rng.integers(LABELS))


class Keeper:
    """One way to keep samples, by their numbers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / type(self).__name__.lower()

    def load(self, samples: Sequence[Sample]) -> None:
        """Write all, durably, and open them."""
        raise NotImplementedError

    def batch(self, numbers: Sequence[int]) -> list[Sample]:
        """Some of them."""
        raise NotImplementedError

    def bytes_on_disk(self) -> int:
        """As they are counted for a quota: whole blocks."""
        return sum(each.lstat().st_blocks * 512 for each in self.path.rglob("*"))

    def forget(self) -> None:
        """Have the system drop what it has cached of the files."""
        for each in self.path.rglob("*"):
            if each.is_file():
                file = os.open(each, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


class Tilekv(Keeper):
    def load(self, samples: Sequence[Sample]) -> None:
        attrs = [tilekv.Attr("image", bytes, filters=[]), tilekv.Attr("label", "int32")]
        with tilekv.open(self.path, "x", schema=tilekv.Schema(attrs)) as db:
            names = [f"{i:06}.jpg" for i in range(len(samples))]
            images, labels = zip(*samples, strict=True)
            db.put_many(names, image=list(images), label=list(labels))
        self.open()

    def open(self) -> None:
        self.dataset = StoreDataset(self.path, transform=self.sample)
        numbers = [int(name[:-4]) for name in self.dataset.keys]
        self.place = {number: place for place, number in enumerate(numbers)}
        self.windows = [numbers[place] for place in WindowSampler(self.dataset)]

    @staticmethod
    def sample(row: dict[str, Any]) -> Sample:
        return row["image"], int(row["label"])

    def batch(self, numbers: Sequence[int]) -> list[Sample]:
        return self.dataset.__getitems__([self.place[number] for number in numbers])

    def forget(self) -> None:
        self.dataset._db.close()  # what is mapped is not forgotten
        super().forget()
        self.open()


class LMDB(Keeper):
    def load(self, samples: Sequence[Sample]) -> None:
        with lmdb.open(str(self.path), map_size=1 << 33) as env, env.begin(write=True) as txn:
            for number, (image, label) in enumerate(samples):
                txn.put(b"%06d.jpg" % number, label.to_bytes(LABEL_BYTES, "little") + image)
        self.open()

    def open(self) -> None:
        self.env = lmdb.open(str(self.path), readonly=True, lock=False, readahead=False)
        self.txn = self.env.begin()

    def batch(self, numbers: Sequence[int]) -> list[Sample]:
        values = [self.txn.get(b"%06d.jpg" % number) for number in numbers]
        return [
            (value[LABEL_BYTES:], int.from_bytes(value[:LABEL_BYTES], "little")) for value in values
        ]

    def forget(self) -> None:
        self.txn.abort()
        self.env.close()
        super().forget()
        self.open()


class Files(Keeper):
    def load(self, samples: Sequence[Sample]) -> None:
        for label in range(LABELS):
            (self.path / f"{label}").mkdir(parents=True)
        self.paths = []
        for number, (image, label) in enumerate(samples):
            path = self.path / f"{label}" / f"{number:06}.jpg"
            path.write_bytes(image)
            self.paths.append((str(path), label))
        os.sync()

    def batch(self, numbers: Sequence[int]) -> list[Sample]:
        found = []
        for path, label in map(self.paths.__getitem__, numbers):
            with open(path, "rb", buffering=0) as file:
                found.append((file.read(), label))
        return found


def epoch(keeper: Keeper, order: Sequence[int], samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds of the clock, and of the processor, to go through all; AssertionError when a sample is another one."""
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    wanted = [[(len(samples[n][0]), samples[n][1]) for n in numbers] for numbers in batches]
    clock = processor = 0.0
    for numbers, told in zip(batches, wanted, strict=True):
        begun, used = time.perf_counter(), time.process_time()
        found = keeper.batch(numbers)
        clock += time.perf_counter() - begun
        processor += time.process_time() - used
        assert [(len(image), label) for image, label in found] == told
    return clock, processor


def measure(n: int, folder: Path) -> dict[str, dict[str, float]]:
    """The figures of each keeper."""
    samples = list(make_samples(n))
    shuffled = np.random.default_rng(1).permutation(n).tolist()
    figures: dict[str, dict[str, float]] = {}
    for kind in (Tilekv, LMDB, Files):
        keeper = kind(folder)
        begun = time.perf_counter()
        keeper.load(samples)
        facts = {"load s": time.perf_counter() - begun, "MB on disk": keeper.bytes_on_disk() / 1e6}
        orders = {"random": shuffled}
        epoch(keeper, shuffled, samples)  # what was just written is mapped by then, by all
        if isinstance(keeper, Tilekv):
            orders["windows"] = keeper.windows
        for name, order in orders.items():
            facts[f"{name} s"], facts[f"{name} cpu s"] = epoch(keeper, order, samples)
            os.sync()
            keeper.forget()
            facts[f"{name} from disk s"], _ = epoch(keeper, order, samples)
        figures[kind.__name__] = facts
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = measure(args.samples, Path(folder))
    names = list(figures["Tilekv"])
    print(f"{args.samples:,} samples")
    print(f"{'':<20}" + "".join(f"{keeper:>10}" for keeper in figures))
    for name in names:
        cells = [figures[keeper].get(name) for keeper in figures]
        print(
            f"{name:<20}"
            + "".join(f"{'-' if cell is None else f'{cell:.2f}':>10}" for cell in cells)
        )
    if args.json:
        args.json.write_text(json.dumps({"samples": args.samples, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()

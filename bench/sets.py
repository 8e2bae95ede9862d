"""The data sets of a run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.data import Source
from bench.workloads import BASIC, WORKLOADS

MOST_BYTES = 200  # of values, for each key that is asked for: larger values mean fewer keys


@dataclass(frozen=True)
class DataSet:
    """Which values, and which workloads run on them."""

    kind: str
    value_size: int
    workloads: tuple[str, ...]
    what: str

    def source(self, keys: int, seed: int) -> Source:
        """The data, of at most so many keys."""
        most = keys if self.value_size <= 100 else max(keys * MOST_BYTES // self.value_size, 3)
        return Source(self.kind, min(keys, most), self.value_size, seed)


SETS = {
    "sentence": DataSet(
        "sentence",
        100,
        tuple(name for name in WORKLOADS if name != "attributes"),
        "values of 50 random bytes and 50 of one sentence",
    ),
    "words": DataSet("words", 100, BASIC, "values of 50 random bytes and 50 of words"),
    "10B": DataSet("sentence", 10, BASIC, "values of 10 bytes"),
    "1KB": DataSet("sentence", 1000, BASIC, "values of 1,000 bytes"),
    "10KB": DataSet("sentence", 10_000, BASIC, "values of 10,000 bytes"),
    "1MB": DataSet("sentence", 1_000_000, BASIC, "values of 1,000,000 bytes"),
    "files": DataSet("files", 0, BASIC, "paths of installed files, with package and MD5"),
    "packages": DataSet(
        "packages", 0, (*BASIC, "attributes"), "paragraphs of Debian's package index"
    ),
}

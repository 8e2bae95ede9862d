"""Keys and values made from their number alone: any process makes again what it asks for, and knows what must be found."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data import SENTENCE
from bench.rivals.rival import Block

BLOCK = 100_000  # keys
POOL_BYTES = 1 << 24
TEXT = SENTENCE * 4
# Multipliers that scatter a number: Knuth's, and the one of the 64-bit hashes after him.
SCATTER, SCATTER_SIZES = 2_654_435_761, 0x9E3779B97F4A7C15


@functools.cache
def pool() -> bytes:
    """Random bytes, of which values are cut."""
    return random.Random(1).randbytes(POOL_BYTES)


@dataclass(frozen=True)
class Numbered:
    """So many keys. `varying`: keys of 13 to 50 bytes and values of 0 to 198, else 20 and 100; half of a value is random."""

    count: int
    varying: bool = False

    def key(self, number: int, last: bytes = b"0") -> bytes:
        """The key of a number; one with another `last` byte is not there, and lies between the others."""
        if not self.varying:
            return b"user:%014d%b" % (number, last)
        return b"user:%d:%b" % (number, last) + TEXT[: 5 + _size(number) % 32]

    def value(self, number: int) -> bytes:
        """The value of a number."""
        half = _size(number) % 100 if self.varying else 50
        start = number * SCATTER % (POOL_BYTES - 128)
        return pool()[start : start + half] + TEXT[:half]

    def blocks(self, seed: int, *, ordered: bool = False) -> Iterator[Block]:
        """All of them in random order, or in that of the numbers."""
        order = np.arange(self.count, dtype=np.uint32)
        if not ordered:
            np.random.default_rng(seed).shuffle(order)
        for at in range(0, self.count, BLOCK):
            numbers = order[at : at + BLOCK].tolist()
            yield [self.key(each) for each in numbers], [self.value(each) for each in numbers]

    def some(self, count: int, seed: int) -> NDArray[np.int64]:
        """Numbers of different keys, in random order."""
        rng = np.random.default_rng(seed)
        if count * 2 > self.count:
            return rng.permutation(self.count)[:count]
        found = np.unique(rng.integers(0, self.count, count + count // 8 + 64))
        return rng.permutation(found)[:count]


def _size(number: int) -> int:
    return number * SCATTER_SIZES >> 32 & 0xFFFF_FFFF

"""What a fuzzer does to bytes: the mistakes, and the attacks, that parsers fall for."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

# Where sizes, counts and offsets go wrong: at the borders of their types, and a little beside.
BORDERS = [
    *(0, 1, 2, 3, 7, 8, 9, 16, 255, 256, 4096, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 2, 2**64 - 1),
]
WORDS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}

Mutation = Callable[[random.Random, bytearray], None]


def flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def random_byte(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def word(rng: random.Random, data: bytearray) -> None:
    """A border in the place of a number, or a number a little off."""
    width = rng.choice([size for size in WORDS if size <= len(data)])
    at = rng.randrange(len(data) - width + 1)
    if rng.random() < 0.7:
        at -= at % width
    (value,) = struct.unpack_from(WORDS[width], data, at)
    if rng.random() < 0.5:
        value = rng.choice([*BORDERS, len(data), len(data) - at])
    else:
        value += rng.choice([-256, -16, -8, -2, -1, 1, 2, 8, 16, 256])
    struct.pack_into(WORDS[width], data, at, value % (1 << 8 * width))


def remove(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 4, 8, rng.randrange(1, 64)])]


def insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice([1, 4, 8, rng.randrange(1, 64)]))


def copy(rng: random.Random, data: bytearray) -> None:
    """A part of it over another part, or once more."""
    n = min(len(data), rng.choice([1, 4, 8, 16, rng.randrange(1, 200)]))
    source = rng.randrange(len(data) - n + 1)
    at = rng.randrange(len(data))
    data[at : at + rng.choice([0, n])] = data[source : source + n]


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def fill(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    n = min(len(data) - at, rng.choice([4, 8, 16, 64]))
    data[at : at + n] = bytes([rng.choice([0, 255])]) * n


MUTATIONS: Sequence[Mutation] = (
    *(flip, random_byte, word, word, word, word, remove, insert, copy, fill, cut),
)


def mutated(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """`data` with one to a few things wrong; now and then the rest of it is that of `other`."""
    made = bytearray(data)
    if other and rng.random() < 0.05:
        made[rng.randrange(len(made) + 1) :] = other[rng.randrange(len(other)) :]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        if made:
            rng.choice(MUTATIONS)(rng, made)
        else:
            made += rng.randbytes(4)
    return bytes(made)

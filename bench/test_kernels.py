"""The kernels that every operation is made of, each beside what a Python program would use instead.

`python -m bench.kernels` runs this with pytest-benchmark and prints ns a key and MB a second. The digest and the sort are
called as compiled modules call one another, through the C function that the module exports: their Python forms
convert every key, which takes longer than the kernel.
"""

from __future__ import annotations

import bisect
import ctypes
import hashlib
import random
import re
import struct
from array import array
from collections.abc import Iterator
from typing import Any

import lz4.block
import numpy as np
import pytest
import zstandard

from tilekv.filters import CHUNK_BYTES, BitWidthReductionFilter, FilterList, LZ4Filter, ZstdFilter
from tilekv.kvcore import testing
from tilekv.kvcore.codec.chunk import decode
from tilekv.kvcore.hashing import coords, digest

COUNT = 100_000
KEY_REF = np.dtype([("data", "<u8"), ("size", "<u8"), ("type", "<u8")])
ITEM = np.dtype([("c0", "<u8"), ("c1", "<u8"), ("index", "<u4"), ("", "<u4")])
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


def exported(module: Any, name: str, signature: str, *types: Any) -> Any:
    """A C function of a compiled module. The signature is stated, for a call that no longer fits would crash."""
    capsule = module.__pyx_capi__[name]
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    mangled = name_of(capsule)
    there = re.sub(r"(?:struct |enum )?__pyx_t_\w*_([A-Za-z]+)", r"\1", mangled.decode())
    assert there == signature, f"{name} is another: see {module.__name__}'s .pxd"
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = POINTER, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(*types)(pointer_of(capsule, mangled))


@pytest.fixture(scope="module")
def keys() -> list[bytes]:
    made = [b"user:%015d" % number for number in range(COUNT)]
    random.Random(1).shuffle(made)
    return made


@pytest.fixture(scope="module")
def refs(keys: list[bytes]) -> Iterator[np.ndarray]:
    """KeyRef of every key: BLOB, one after the other, as hashlib's stand, and those of a write buffer."""
    made = np.zeros(COUNT, KEY_REF)
    joined = np.frombuffer(b"".join(keys), np.uint8)
    made["data"] = joined.ctypes.data + 20 * np.arange(COUNT, dtype=np.uint64)
    made["size"] = 20
    made["type"] = 40
    yield made
    del joined


def expected(keys: list[bytes], function: Any) -> np.ndarray:
    """(2, keys) coordinates by hashlib."""
    raw = b"".join([function(struct.pack("<BQ", 40, len(key)) + key) for key in keys])
    return np.frombuffer(raw, "<u8").reshape(-1, 2).T


FUNCTIONS = {
    "blake2b": lambda data: hashlib.blake2b(data, digest_size=16).digest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_digest(benchmark: Any, keys: list[bytes], refs: np.ndarray, name: str) -> None:
    benchmark.group, benchmark.extra_info["keys"] = f"digest {name}", COUNT
    signature = "void (tkv_kind, tkv_key const *, size_t, uint64_t *, uint64_t *)"
    types = (None, ctypes.c_int, POINTER, SIZE, POINTER, POINTER)
    digest_keys = exported(digest, "digest_keys", signature, *types)
    out = np.zeros((2, COUNT), np.uint64)
    benchmark(
        digest_keys,
        digest.DIGESTS[name],
        refs.ctypes.data,
        COUNT,
        out[0].ctypes.data,
        out[1].ctypes.data,
    )
    assert np.array_equal(out, expected(keys, FUNCTIONS[name]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_digest_by_hashlib(benchmark: Any, keys: list[bytes], name: str) -> None:
    benchmark.group, benchmark.extra_info["keys"] = f"digest {name}", COUNT
    benchmark.extra_info["reference"] = True
    prefix = struct.pack("<BQ", 40, 20)
    framed = [prefix + key for key in keys]
    if name == "md5":
        function = hashlib.md5
        benchmark(lambda: [function(each).digest() for each in framed])
    else:
        blake = hashlib.blake2b
        benchmark(lambda: [blake(each, digest_size=16).digest() for each in framed])


def test_sort(benchmark: Any, keys: list[bytes]) -> None:
    benchmark.group, benchmark.extra_info["keys"] = "sort", COUNT
    words = np.ascontiguousarray(expected(keys, FUNCTIONS["blake2b"]))
    shift_of = exported(coords, "bucket_shift", "int (size_t)", ctypes.c_int, SIZE)
    count = exported(
        coords,
        "count_buckets",
        "void (uint64_t const *, size_t, size_t, int, uint32_t *)",
        *(None, POINTER, SIZE, SIZE, ctypes.c_int, POINTER),
    )
    place = exported(
        coords,
        "place_buckets",
        "void (uint32_t *, size_t, int)",
        *(None, POINTER, SIZE, ctypes.c_int),
    )
    fill = exported(
        coords,
        "fill_buckets",
        "void (uint64_t const *, uint64_t const *, size_t, size_t, int, uint32_t *, Item *)",
        *(None, POINTER, POINTER, SIZE, SIZE, ctypes.c_int, POINTER, POINTER),
    )
    order = exported(
        coords,
        "sort_buckets",
        "int (Item *, size_t, uint32_t const *, size_t, size_t, int, CompareCells, void const *)",
        *(ctypes.c_int, POINTER, SIZE, POINTER, SIZE, SIZE, ctypes.c_int, POINTER, POINTER),
    )
    items = np.zeros(COUNT, ITEM)
    ends = np.zeros(1 << 11, np.uint32)
    c0, c1, at, to = (each.ctypes.data for each in (words[0], words[1], items, ends))

    def sort() -> int:
        """All steps, in one share. No two coordinates are equal: nothing is compared."""
        shift = shift_of(COUNT)
        count(c0, 0, COUNT, shift, to)
        place(to, 1, shift)
        fill(c0, c1, 0, COUNT, shift, to, at)
        return int(order(at, COUNT, to, 0, 1 << (64 - shift), shift, None, None))

    assert benchmark(sort) == 0
    assert np.array_equal(items["index"], np.argsort(words[0]))


def test_sort_by_argsort(benchmark: Any, keys: list[bytes]) -> None:
    benchmark.group, benchmark.extra_info["keys"] = "sort", COUNT
    benchmark.extra_info["reference"] = True
    benchmark(np.argsort, np.ascontiguousarray(expected(keys, FUNCTIONS["blake2b"])[0]))


@pytest.fixture(scope="module")
def tile() -> tuple[array, list[int]]:
    """1,024 sorted words, and words to be found."""
    rng = random.Random(2)
    values = array("Q", sorted(rng.randrange(2**64) for _ in range(1024)))
    return values, [rng.choice(values) for _ in range(10_000)]


def test_search(benchmark: Any, tile: tuple[array, list[int]]) -> None:
    benchmark.group, benchmark.extra_info["keys"] = "search of 1,024", 10_000
    values, asked = tile
    find = testing.first_not_below
    found = benchmark(lambda: [find(values, word) for word in asked])
    assert [values[at] for at in found] == asked


def test_search_by_bisect(benchmark: Any, tile: tuple[array, list[int]]) -> None:
    benchmark.group, benchmark.extra_info["keys"] = "search of 1,024", 10_000
    benchmark.extra_info["reference"] = True
    values, asked = tile
    find = bisect.bisect_left
    benchmark(lambda: [find(values, word) for word in asked])


VALUES = b"".join(
    random.Random(number).randbytes(50) + b"the quick brown fox jumps over the lazy dog and so"
    for number in range(1311)
)[: 1 << 17]
OFFSETS = np.arange(0, 100 * (1 << 14), 100, np.uint64).tobytes()
CODECS = {
    "zstd 1": (FilterList(ZstdFilter(level=1)), (1, False, False), VALUES),
    "lz4": (FilterList(LZ4Filter()), (1, False, False), VALUES),
    "bit width": (FilterList(BitWidthReductionFilter(window=8192)), (8, False, True), OFFSETS),
}


@pytest.mark.parametrize("name", CODECS)
def test_encode(benchmark: Any, name: str) -> None:
    filters, element, raw = CODECS[name]
    benchmark.group, benchmark.extra_info["bytes"] = f"encode {name}", len(raw)
    pipeline = filters._to_bytes()
    stored = benchmark(testing.encode, pipeline, *element, raw)
    assert decode(pipeline, *element, stored, len(raw)) == raw


@pytest.mark.parametrize("name", CODECS)
def test_decode(benchmark: Any, name: str) -> None:
    filters, element, raw = CODECS[name]
    benchmark.group, benchmark.extra_info["bytes"] = f"decode {name}", len(raw)
    pipeline = filters._to_bytes()
    stored = testing.encode(pipeline, *element, raw)
    assert benchmark(decode, pipeline, *element, stored, len(raw)) == raw


ZSTD = zstandard.ZstdCompressor(level=1, write_checksum=True), zstandard.ZstdDecompressor()
BINDINGS = {
    "zstd 1": (ZSTD[0].compress, ZSTD[1].decompress),
    "lz4": (lz4.block.compress, lz4.block.decompress),
}


@pytest.mark.parametrize("name", BINDINGS)
def test_encode_by_binding(benchmark: Any, name: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"encode {name}", len(VALUES)
    benchmark.extra_info["reference"] = True
    encode = BINDINGS[name][0]
    chunks = chunked(VALUES)
    benchmark(lambda: [encode(chunk) for chunk in chunks])


@pytest.mark.parametrize("name", BINDINGS)
def test_decode_by_binding(benchmark: Any, name: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"decode {name}", len(VALUES)
    benchmark.extra_info["reference"] = True
    encode, decode = BINDINGS[name]
    stored = [encode(chunk) for chunk in chunked(VALUES)]
    assert b"".join(benchmark(lambda: [decode(chunk) for chunk in stored])) == VALUES


def chunked(raw: bytes) -> list[bytes]:
    """In pieces as large as tilekv's chunks, each a frame or block of its own."""
    return [raw[at : at + CHUNK_BYTES] for at in range(0, len(raw), CHUNK_BYTES)]

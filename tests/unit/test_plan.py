"""kvcore.read.plan: what a look-up asks for before it reads is what it reads, and little more."""

import hashlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest

import tilekv
from tilekv.kvcore.testing import plans

N = 40_000
LOOKUPS = 20_000
MOST_BYTES = 64 << 10  # a look-up: docs/performance.md
PAGE = 4096


def c0_of(key: int) -> int:
    digest = hashlib.blake2b(struct.pack("<BQq", 1, 8, key), digest_size=16).digest()
    return min(int.from_bytes(digest[:8], "little"), 2**64 - 2)


def covered(needed: tuple[int, int, int], asked: list[tuple[int, int, int]]) -> bool:
    slot, offset, n = needed
    return any(slot == s and o <= offset and offset + n <= o + m for s, o, m in asked)


def pages(ranges: list[tuple[int, int, int]]) -> int:
    """Bytes that are read for them: whole pages."""
    return sum(-(-(o + n) // PAGE) - o // PAGE for _, o, n in ranges) * PAGE


@pytest.mark.parametrize("sizes", ["equal", "varied"])
@pytest.mark.parametrize("config", [{}, {"kv.mmap": False}], ids=["map", "pread"])
def test_one_wait_a_look_up(tmp_path: Path, sizes: str, config: dict[str, object]) -> None:
    """Of 20,000 look-ups at most one in a hundred needs more than it has asked for, and each asks for at most 64 KiB."""
    rng = random.Random(sizes)
    size = {"equal": lambda: 100, "varied": lambda: int(rng.expovariate(1 / 100)) + 1}[sizes]
    schema = tilekv.Schema([tilekv.Attr("value", bytes)])
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many({i: rng.randbytes(size()) for i in range(N)})
    with tilekv.open(tmp_path / "s", config=config) as db:
        [fragment] = db.fragments
        missed = most = 0
        for key in rng.sample(range(N), LOOKUPS):
            asked, needed = plans(fragment, c0_of(key), b"\0\1\0")
            missed += not all(covered(one, asked) for one in needed)
            most = max(most, pages(asked))
            # Equal cells need no offsets: coordinates, key, value.
            assert len(asked) == 3 if sizes == "equal" else len(asked) in (4, 5)
        assert missed <= LOOKUPS // 100
        assert most <= MOST_BYTES


def test_only_what_is_wanted(tmp_path: Path) -> None:
    schema = tilekv.Schema(
        [tilekv.Attr(name, bytes) for name in "abc"] + [tilekv.Attr("n", "int32")]
    )
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many({i: (b"a" * 9, b"b" * 9, b"c" * 9, i) for i in range(5000)})
    with tilekv.open(tmp_path / "s") as db:
        [fragment] = db.fragments
        nf = 6
        for wanted, slots in (
            (bytes(nf), {nf, nf + 1}),
            (b"\0\0\1\0\0\0", {nf, nf + 1, nf + 1 + 2}),
            (b"\0\1\0\1\1\0", {nf, nf + 1, nf + 1 + 1, nf + 1 + 3, 4}),
        ):
            asked, _ = plans(fragment, c0_of(77), wanted)
            assert {slot for slot, _, _ in asked} == slots


def test_what_is_decoded_is_not_asked_for(tmp_path: Path) -> None:
    """Of what is used where it is mapped, which the system may drop again, what will be read is: no chunk to be checked."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many({i: b"%d" % i * 50 for i in range(5000)})
    with tilekv.open(tmp_path / "s") as db:
        [fragment] = db.fragments
        assert db[5] == b"5" * 50
        asked, needed = plans(fragment, c0_of(5), b"\0\1\0")
        names = [fragment.files[slot] for slot, _, _ in needed]
        assert names == ["value.tdb"]  # keys have one size, which the metadata says
        assert sum(n for _, _, n in needed) <= 8
        sizes = {fragment.files[slot]: n for slot, _, n in asked}
        assert "__key_var.tdb" not in sizes
        assert sizes["__coords.tdb"] < 1024


def test_odd_fragments(tmp_path: Path) -> None:
    """One cell, empty values, values of megabytes, a tile of one cell: every look-up is right, whatever was asked for."""
    for name, rows in {
        "one": {1: b"x"},
        "empty": dict.fromkeys(range(3000), b""),
        "long": {i: bytes(3 << 20) for i in range(3)},
        "deleted": {},
        "mixed": {i: bytes(i % 7 * 3000) for i in range(500)},
    }.items():
        with tilekv.open(tmp_path / name, "x") as db:
            db.put_many(rows)
            db.delete_many([10**6])
        for config in ({}, {"kv.mmap": False}, {"kv.cache_bytes": 0}):
            with tilekv.open(tmp_path / name, config=config) as db:
                assert db.get(10**6) is db.get(10**7) is None
                for key, value in rows.items():
                    assert db[key] == value
                    plans(db.fragments[0], c0_of(key), b"\0\1\0")
                keys = np.array([*rows, 10**6, 10**7], "int64")
                assert db.get_many(keys) == [*rows.values(), None, None]

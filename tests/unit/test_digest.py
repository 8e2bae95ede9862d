"""kvcore.hashing.digest, at every SIMD level of this machine, against hashlib, against word-by-word models, and against every
coordinate that TileDB wrote."""

import csv
import gzip
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_features__ as cpu_features

from tilekv.errors import InvalidValueError
from tilekv.kvcore.hashing.digest import (
    DIGESTS,
    SIMD,
    SIMD_LEVELS,
    coordinates,
)
from tilekv.kvcore.testing import clamped, table_hash

FIXTURES = Path(__file__).parents[1] / "fixtures"
STORES = {
    "f1_tutorial": 3,
    "f2_5flush": 5000,
    "f3_typed_keys": 213,
    "f5_5flush_tiles128_compressed": 5000,
    "f6_compressors": 200,
    "f8_collisions": 931,
    "g1_py_tutorial": 3,
    "g3_py_consolidated": 2000,
    "h2_5flush": 5000,
    "h4_consolidated": 5000,
    "i1_tutorial": 3,
    "i5_5flush_tiles128_filters": 5000,
    "i6_encrypted": 300,
}
# In the order of their codes.
DATATYPES = ["INT32", "INT64", "FLOAT32", "FLOAT64", "CHAR", "INT8", "UINT8"]
DATATYPES += ["INT16", "UINT16", "UINT32", "UINT64"]
CHAR, BLOB = 4, 40

BLAKE2B, MD5, MD5_LP64 = DIGESTS["blake2b"], DIGESTS["md5"], DIGESTS["md5-lp64"]
U64 = 2**64 - 1

# Both block sizes (64 and 128 bytes), MD5's padding border, and the borders of the first four blocks of each.
LENGTHS = range(530)
LONG = [10**6, 2**20 - 10, 2**20 - 9, 2**20 - 8, 2**20]
TYPES = [0, 1, CHAR, BLOB, 127]


def message(key_type, key):
    return bytes([key_type]) + len(key).to_bytes(8, "little") + key


def blake2b(key_type, key):
    return hashlib.blake2b(message(key_type, key), digest_size=16).digest()


def md5(key_type, key):
    return hashlib.md5(message(key_type, key), usedforsecurity=False).digest()


def md5_in_words(data, bits):
    """MD5 as RFC 1321 words it, computed in words of `bits` bits: 32 is MD5, 64 is what TileDB 1.x had on LP64 systems."""
    mask = 2**bits - 1
    shifts = [(7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)]
    length = 8 * len(data)
    data += b"\x80" + bytes((55 - len(data)) % 64)
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words += [length & mask, length >> bits]
    state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    for start in range(0, len(words), 16):
        a, b, c, d = state
        for i in range(64):
            f, g = [
                ((b & c) | (~b & d), i),
                ((d & b) | (~d & c), 5 * i + 1),
                (b ^ c ^ d, 3 * i + 5),
                (c ^ (b | (~d & mask)), 7 * i),
            ][i // 16]
            total = (a + f + int(abs(math.sin(i + 1)) * 2**32) + words[start + g % 16]) & mask
            s = shifts[i // 16][i % 4]
            a, d, c, b = d, c, b, (b + ((total << s & mask) | total >> (32 - s))) & mask
        state = [(x + y) & mask for x, y in zip(state, (a, b, c, d), strict=True)]
    return b"".join((x & 0xFFFFFFFF).to_bytes(4, "little") for x in state)


def md5_lp64(key_type, key):
    return md5_in_words(message(key_type, key), 64)


def siphash13(secret, data):
    v0, v1, v2, v3 = (
        int.from_bytes(secret[at : at + 8], "little") ^ int.from_bytes(word, "big")
        for at, word in ((0, b"somepseu"), (8, b"dorandom"), (0, b"lygenera"), (8, b"tedbytes"))
    )

    def rotl(x, n):
        return (x << n | x >> (64 - n)) & U64

    def sip_round(v0, v1, v2, v3):
        v0, v2 = (v0 + v1) & U64, (v2 + v3) & U64
        v1, v3, v0 = rotl(v1, 13) ^ v0, rotl(v3, 16) ^ v2, rotl(v0, 32)
        v2, v0 = (v2 + v1) & U64, (v0 + v3) & U64
        return v0, rotl(v1, 17) ^ v2, rotl(v2, 32), rotl(v3, 21) ^ v0

    data += bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


MODELS = {BLAKE2B: blake2b, MD5: md5, MD5_LP64: md5_lp64}


def digest(kind, key_type, key):
    """Of one key by itself. No known one has a half that coordinates clamp."""
    [(c0, c1)] = coordinates(kind, [(key_type, key)])
    return c0.to_bytes(8, "little") + c1.to_bytes(8, "little")


def some_key(length):
    return bytes((7 * i + i // 251 + length) % 256 for i in range(length))


def halves(digest_bytes):
    return int.from_bytes(digest_bytes[:8], "little"), int.from_bytes(digest_bytes[8:], "little")


def test_the_models_are_right():
    for length in LENGTHS:
        data = some_key(length)
        assert md5_in_words(data, 32) == hashlib.md5(data, usedforsecurity=False).digest()
    # The vectors for the key 00..0f and the messages of 0 and of 63 bytes 00 01 02 ...
    assert siphash13(bytes(range(16)), b"").to_bytes(8, "little").hex() == "dcc40f055801acab"
    assert (
        siphash13(bytes(range(16)), bytes(range(63))).to_bytes(8, "little").hex()
        == "a8b3bbb76290199d"
    )


@pytest.mark.parametrize("kind", [BLAKE2B, MD5, MD5_LP64])
def test_digest_at_every_length(kind):
    for length in LENGTHS:
        key = some_key(length)
        assert digest(kind, CHAR, key) == MODELS[kind](CHAR, key), f"{length} bytes"


@pytest.mark.parametrize("kind", [BLAKE2B, MD5])
@pytest.mark.parametrize("key_type", TYPES)
def test_digest_of_every_kind_of_key(kind, key_type):
    for length in [0, 1, 20, 46, 47, 54, 55, 56, 118, 119, 120, 300, *LONG]:
        key = some_key(1009) * (length // 1009) + some_key(length % 1009)
        assert digest(kind, key_type, key) == MODELS[kind](key_type, key), f"{length} bytes"


@given(
    st.sampled_from(sorted(MODELS)),
    st.lists(st.tuples(st.integers(0, 127), st.binary(max_size=400)), max_size=20),
)
def test_coordinates_are_the_halves_of_the_digests(kind, keys):
    expected = [halves(MODELS[kind](*key)) for key in keys]
    for simd in SIMD_LEVELS:
        assert coordinates(kind, keys, simd=simd) == expected
    assert [digest(kind, *key) for key in keys] == [MODELS[kind](*key) for key in keys]


@pytest.mark.parametrize("simd", SIMD_LEVELS)
@pytest.mark.parametrize("kind", [BLAKE2B, MD5])
def test_batches_of_one_length(kind, simd):
    """The most lanes are 32: a batch that fills them, and some that go on alone."""
    for length in range(301):
        keys = [(length % 128, some_key(length + i)[i:]) for i in range(35)]
        expected = [halves(MODELS[kind](*key)) for key in keys]
        assert coordinates(kind, keys, simd=simd) == expected, f"{length} bytes"


@pytest.mark.parametrize("simd", SIMD_LEVELS)
@pytest.mark.parametrize("kind", [BLAKE2B, MD5])
def test_batches_of_mixed_lengths(kind, simd):
    """Lanes are filled, emptied and filled again at different blocks."""
    pick = random.Random(5)
    for most in (7, 22, 46, 60, 130, 300, 2000):
        for n in [*range(40), 200]:
            keys = [(pick.randrange(128), pick.randbytes(pick.randint(0, most))) for _ in range(n)]
            expected = [halves(MODELS[kind](*key)) for key in keys]
            assert coordinates(kind, keys, simd=simd) == expected, f"{n} of up to {most} bytes"


@pytest.mark.parametrize("simd", SIMD_LEVELS)
@pytest.mark.parametrize("kind", [BLAKE2B, MD5])
def test_batches_with_one_long_key(kind, simd):
    for n in (1, 2, 5, 40, 70):
        keys = [(CHAR, some_key(i)) for i in range(100, 100 + n)]
        keys[n // 2] = (CHAR, some_key(1 << 17))
        assert coordinates(kind, keys, simd=simd) == [halves(MODELS[kind](*key)) for key in keys]


def test_the_levels_are_those_that_numpy_sees():
    seen = [
        level for level, name in (("avx2", "AVX2"), ("avx512", "AVX512F")) if cpu_features.get(name)
    ]
    assert list(SIMD_LEVELS) == ["scalar", *seen]
    assert (os.environ.get("TILEKV_SIMD") or SIMD_LEVELS[-1]) == SIMD


def in_a_process(simd, program):
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TILEKV_SIMD": simd},
    )


@pytest.mark.parametrize("simd", [*SIMD_LEVELS, ""])
def test_the_level_can_be_forced(simd):
    program = "from tilekv.kvcore.hashing import digest as d; print(d.SIMD, d.coordinates(0, [(4, b'k')] * 9)[8])"
    run = in_a_process(simd, program)
    assert run.returncode == 0, run.stderr
    expected = halves(blake2b(CHAR, b"k"))
    assert run.stdout == f"{simd or SIMD_LEVELS[-1]} {expected}\n"


def test_a_level_that_is_not_there():
    run = in_a_process("altivec", "import tilekv")
    assert run.returncode == 1
    assert (
        f"the SIMD levels of this processor are {', '.join(SIMD_LEVELS)}, not 'altivec'"
        in run.stderr
    )
    with pytest.raises(InvalidValueError, match="TILEKV_SIMD"):
        coordinates(MD5, [], simd="altivec")


def test_the_type_and_the_size_are_part_of_the_key():
    keys = [(1, b"\0" * 4), (0, b"\0" * 4), (1, b"\0" * 8), (1, b"")]
    for kind in DIGESTS.values():
        assert len(set(coordinates(kind, keys))) == len(keys)
    assert len({table_hash(*key) for key in keys}) == len(keys)


def testclamped():
    """No known key has a digest half of 2^64-1, which the domain of docs/format.md 1.2 leaves out."""
    assert clamped(U64) == U64 - 1
    for half in (0, 1, 2**63, U64 - 2, U64 - 1):
        assert clamped(half) == half


def test_coordinates_hold_the_keys_of_an_iterator_for_the_call_only():
    key = some_key(200)
    before = sys.getrefcount(key)
    found = coordinates(
        BLAKE2B, ((BLOB, key if i == 77 else some_key(i % 200)) for i in range(20_000))
    )
    after = sys.getrefcount(key)
    assert after == before
    assert len(found) == 20_000
    for i in (0, 77, 19_999):
        assert found[i] == halves(blake2b(BLOB, key if i == 77 else some_key(i % 200)))


@pytest.mark.parametrize("bad", [-1, 128, 255, 256, 2**70, 1.5, "CHAR", None])
def test_a_key_type_is_0_to_127(bad):
    with pytest.raises(ValueError, match="0 to 127"):
        digest(MD5, bad, b"k")
    with pytest.raises(ValueError, match="0 to 127"):
        coordinates(MD5, [(CHAR, b"k"), (bad, b"k")])
    with pytest.raises(ValueError, match="0 to 127"):
        table_hash(bad, b"k")


@pytest.mark.parametrize("bad", [-1, 3, 2**70, 0.5, "md5", None])
def test_a_kind_is_one_of_digests(bad):
    with pytest.raises(ValueError, match="digest kind"):
        digest(bad, CHAR, b"k")
    with pytest.raises(ValueError, match="digest kind"):
        coordinates(bad, [])


@pytest.mark.parametrize("bad", [None, "text", 7, bytearray(b"k"), memoryview(b"k")])
def test_a_key_is_bytes(bad):
    with pytest.raises(TypeError, match="bytes"):
        digest(BLAKE2B, CHAR, bad)
    with pytest.raises(TypeError, match="bytes"):
        coordinates(BLAKE2B, [(CHAR, bad)])


@pytest.mark.parametrize("name", STORES)
def test_coordinates_that_tiledb_wrote(name):
    items = json.loads(gzip.decompress((FIXTURES / name / "expected.json.gz").read_bytes()))[
        "items"
    ]
    assert len(items) == STORES[name]
    keys = [(DATATYPES.index(item["key_type"]), bytes.fromhex(item["key_hex"])) for item in items]
    written = [tuple(int(c) for c in item["coords"]) for item in items]
    assert coordinates(MD5_LP64, keys) == written
    assert all(
        a != b for a, b in zip(coordinates(MD5, keys), written, strict=True)
    )  # no fixture was written on Windows


def test_every_store_among_the_fixtures_is_tested():
    assert sorted(path.parent.name for path in FIXTURES.glob("*/expected.json.gz")) == sorted(
        STORES
    )


def test_the_lp64_variant_collides_as_it_did():
    with (FIXTURES / "f8_collisions" / "gets.csv").open(newline="") as rows:
        gets = list(csv.DictReader(rows))
    asked = [(CHAR, row["key_written"].encode()) for row in gets]
    answered = [(CHAR, row["k_returned"].encode()) for row in gets]
    assert len(asked) == 1000
    assert coordinates(MD5_LP64, asked) == coordinates(MD5_LP64, answered)
    assert len(set(coordinates(MD5_LP64, asked))) == 931
    ten_thousand = [(CHAR, b"key_%d" % i) for i in range(10_000)]
    assert len(set(coordinates(MD5_LP64, ten_thousand))) == 10_000 - 245  # docs/format.md 1.1
    for kind in (BLAKE2B, MD5):
        assert len(set(coordinates(kind, asked))) == 1000
        assert len(set(coordinates(kind, ten_thousand))) == 10_000


def collisions():
    pairs = json.loads((FIXTURES / "md5_collisions.json").read_text())
    return [[(pair["key_type_code"], bytes.fromhex(key)) for key in pair["keys"]] for pair in pairs]


def test_made_collisions_collide_under_md5_only():
    assert collisions()
    for one, other in collisions():
        assert one != other
        assert digest(MD5, *one) == digest(MD5, *other)
        assert digest(BLAKE2B, *one) != digest(BLAKE2B, *other)
        assert table_hash(*one) != table_hash(*other)


def test_table_hash_tells_colliding_keys_apart():
    """The keys that the LP64 variant throws together differ in the table hash, even in its low 32 bits alone."""
    keys = [(CHAR, b"key_%06d" % i) for i in range(1000)]
    for secret in (bytes(16), bytes(range(16)), b"\xff" * 16):
        assert len({table_hash(*key, secret) % 2**32 for key in keys}) == 1000


@given(st.binary(min_size=16, max_size=16), st.integers(0, 127), st.binary(max_size=300))
def test_table_hash_is_siphash_1_3(secret, key_type, key):
    assert table_hash(key_type, key, secret) == siphash13(
        secret, key_type.to_bytes(8, "little") + key
    )


def test_table_hash_at_every_length():
    for length in LENGTHS:
        key = some_key(length)
        assert table_hash(BLOB, key, bytes(16)) == siphash13(
            bytes(16), bytes([BLOB, *bytes(7)]) + key
        )


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_secret_is_16_bytes(size):
    with pytest.raises(ValueError, match="16 bytes"):
        table_hash(CHAR, b"k", bytes(size))


def test_the_table_secret_is_drawn_once_per_process():
    program = "from tilekv.kvcore.testing import table_hash as h; print(h(4, b'k'), h(4, b'k'))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert all(first == second for first, second in runs)
    assert (
        len(
            {
                runs[0][0],
                runs[1][0],
                str(table_hash(CHAR, b"k")),
                str(table_hash(CHAR, b"k", bytes(16))),
            }
        )
        == 4
    )

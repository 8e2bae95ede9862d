"""Each filter alone: exact bytes, chains with every other, damage, and blocks without a chunk."""

import bz2
import contextlib
import hashlib
import itertools
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.codec.chunk import decode
from tilekv.kvcore.codec.pipeline import block_ratio, decode_block, ratio
from tilekv.kvcore.testing import encode

NONE, GZIP, ZSTD, LZ4, RLE, BZIP2, DOUBLE_DELTA = range(7)
BIT_WIDTH, BITSHUFFLE, BYTESHUFFLE, POSITIVE_DELTA, MD5, SHA256 = 7, 8, 9, 10, 12, 13
FILTERS = [*range(11), MD5, SHA256]
DIGESTS = {MD5: hashlib.md5, SHA256: hashlib.sha256}

ELEMENTS = [(1, False, False), (4, False, False), (8, False, False)] + [
    (size, signed, True) for size in (1, 2, 4, 8) for signed in (False, True)
]
BYTES = (1, False, False)
LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def descriptor(*filters, level=3, window=256):
    out = struct.pack("<II", 8192, len(filters))
    for code in filters:
        if GZIP <= code <= DOUBLE_DELTA:
            out += struct.pack("<BIBi", code, 5, code, level)
        elif code in (BIT_WIDTH, POSITIVE_DELTA):
            out += struct.pack("<BII", code, 4, window)
        else:
            out += struct.pack("<BI", code, 0)
    return out


def parts(stored):
    """Metadata, without the CRC of a chunk that does not end in zstd, and filtered bytes."""
    _, filtered, meta = struct.unpack_from("<III", stored)
    assert len(stored) == 12 + meta + filtered
    return stored[12 : 12 + meta - 4], stored[12 + meta :]


def chunk(raw_size, meta, filtered):
    """A chunk from a stranger: no CRC."""
    return struct.pack("<III", raw_size, len(filtered), len(meta)) + meta + filtered


def block_chunk(raw_size, block, parts=1):
    meta = struct.pack("<II", 0, parts) + struct.pack("<II", raw_size, len(block)) * parts
    return chunk(raw_size * parts, meta, block * parts)


def pack(size, values, signed=False):
    letter = LETTERS[size].lower() if signed else LETTERS[size]
    return struct.pack(f"<{len(values)}{letter}", *values)


def samples(size, n):
    """n bytes: runs, noise, growing numbers."""
    rng = random.Random(n * 10 + size)
    runs = b"".join(rng.randbytes(size) * rng.randrange(1, 9) for _ in range(n // size + 1))
    growing = itertools.accumulate(rng.randrange(3) for _ in range(n // size + 1))
    grown = pack(size, [v % (1 << 8 * size) for v in growing])
    return runs[:n], rng.randbytes(n), grown[:n], bytes(n)


# ---- Chains ----


def round_trip(pipeline, element, raw, cell=0):
    """Whether the chain takes the data; what it takes must come back."""
    try:
        stored = encode(pipeline, *element, raw, cell)
    except ValueError:
        return False
    assert decode(pipeline, *element, stored, len(raw), True, cell) == raw
    return True


def whole_cells_only(chain):
    return RLE in chain or DOUBLE_DELTA in chain


@pytest.mark.parametrize("code", FILTERS)
def test_round_trip_with_every_other(code):
    for other in FILTERS:
        for chain in [(code, other), (code, other, code)]:
            for element in ELEMENTS:
                for n in (0, element[0], 72, 520):
                    for raw in samples(element[0], n):
                        done = round_trip(descriptor(*chain), element, raw)
                        assert done or whole_cells_only(chain[1:]), (chain, element, n)


@pytest.mark.parametrize("code", FILTERS)
@pytest.mark.parametrize("n", [8192, 8200, 100_003])
def test_round_trip_of_large_chunks(code, n):
    for element in ELEMENTS:
        for raw in samples(element[0], n):
            done = round_trip(descriptor(code), element, raw)
            assert done or (code in (RLE, DOUBLE_DELTA) and n % element[0])


@given(
    st.lists(st.sampled_from(FILTERS), max_size=4),
    st.sampled_from(ELEMENTS),
    st.binary(max_size=400),
    st.integers(1, 50),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 3, 8, 12]),
)
@settings(deadline=None)
def test_round_trip_of_anything(chain, element, seed, times, window, cell):
    round_trip(descriptor(*chain, window=window), element, seed * times, cell)


def test_cells_that_are_not_whole_are_refused():
    for code in (RLE, DOUBLE_DELTA):
        with pytest.raises(ValueError, match="cannot work"):
            encode(descriptor(code), 4, False, True, bytes(6))
        # The metadata of a byte shuffle is 8 bytes.
        assert round_trip(descriptor(BYTESHUFFLE, code), (8, False, True), bytes(80))
    assert not round_trip(descriptor(BYTESHUFFLE, RLE), (4, False, True), bytes(60), 12)
    with pytest.raises(ValueError, match="not 0"):
        encode(descriptor(RLE), 0, False, False, b"")


# ---- Exact bytes ----


def test_gzip_is_a_zlib_stream():
    raw = samples(8, 4096)[0]
    meta, block = parts(encode(descriptor(GZIP, level=9), *BYTES, raw))
    assert meta == struct.pack("<IIII", 0, 1, len(raw), len(block))
    assert zlib.decompress(block) == raw
    for level in (9, 1, 9, -1, 0):  # one context for all of them
        _, block = parts(encode(descriptor(GZIP, level=level), *BYTES, raw))
        assert block == zlib.compress(raw, level)


def test_bzip2_is_a_bz2_stream():
    raw = samples(8, 4096)[0]
    for level in (9, 1):
        meta, block = parts(encode(descriptor(BZIP2, level=level), *BYTES, raw))
        assert meta == struct.pack("<IIII", 0, 1, len(raw), len(block))
        assert block == bz2.compress(raw, level)
    assert parts(encode(descriptor(BZIP2, level=-1), *BYTES, raw))[1] == bz2.compress(raw, 1)


def test_runs_are_cells_and_big_endian_counts():
    raw = b"a" * 3 + b"b" + b"c" * 65_536
    _, block = parts(encode(descriptor(RLE), *BYTES, raw))
    assert block == b"a\x00\x03b\x00\x01c\xff\xffc\x00\x01"
    _, block = parts(encode(descriptor(RLE), 4, False, True, b"abcd" * 6, 12))
    assert block == b"abcd" * 3 + b"\x00\x02"


def test_double_deltas():
    """Deltas 10, 12, 9, 9: changes 2, -3, 0 in 2 bits each after a sign."""
    _, block = parts(encode(descriptor(DOUBLE_DELTA), 4, True, True, pack(4, [5, 15, 27, 36, 45])))
    word = 0b010_111_000 << 55
    assert block == struct.pack("<BQIIQ", 2, 5, 5, 15, word)
    # One in a row of equal deltas needs a bit, two elements no word, one not even the second.
    for values, bits, words in [([7, 8, 9], 1, 1), ([7, 8], 0, 0), ([7], 0, 0)]:
        _, block = parts(encode(descriptor(DOUBLE_DELTA), 8, False, True, pack(8, values)))
        first = pack(8, values[:2])
        assert block == struct.pack("<BQ", bits, len(values)) + first + bytes(8 * words)
    wild = pack(8, [0, 1 << 63, 1, 5])
    _, block = parts(encode(descriptor(DOUBLE_DELTA), 8, False, True, wild))
    assert block[1:] == struct.pack("<Q", 4) + wild
    assert block[0] >= 63


def test_positive_deltas_begin_a_window_where_they_would_fall():
    raw = pack(4, [3, 5, 5, 2, 9])
    meta, deltas = parts(encode(descriptor(POSITIVE_DELTA), 4, False, True, raw))
    assert meta == struct.pack("<IIIII", 2, 3, 12, 2, 8)
    assert deltas == pack(4, [0, 2, 0, 0, 7])
    meta, deltas = parts(encode(descriptor(POSITIVE_DELTA, window=8), 4, True, True, raw[:12]))
    assert meta == struct.pack("<IIIII", 2, 3, 8, 5, 4)
    signed = pack(1, [-128, 127], True)
    meta, deltas = parts(encode(descriptor(POSITIVE_DELTA), 1, True, True, signed))
    assert (meta, deltas) == (struct.pack("<IbI", 1, -128, 2), b"\0\xff")


@pytest.mark.parametrize("element", [(4, False, False), (8, True, False), (1, False, False)])
def test_positive_delta_leaves_what_is_no_integer(element):
    assert parts(encode(descriptor(POSITIVE_DELTA), *element, b"b" * 24)) == (b"", b"b" * 24)


def test_byte_shuffle():
    meta, data = parts(encode(descriptor(BYTESHUFFLE), 4, False, False, b"abcdABCDxy"))
    assert (meta, data) == (struct.pack("<II", 1, 10), b"aAbBcCdDxy")


def test_bit_shuffle():
    """Bit k of byte j of 8 elements is byte 8 j + k; what is no multiple of 8 bytes is a part of its own."""
    rng = random.Random(1)
    raw = rng.randbytes(16) + b"tail"
    meta, data = parts(encode(descriptor(BITSHUFFLE), 2, False, True, raw))
    rows = [
        sum((raw[2 * i + j] >> k & 1) << i for i in range(8)) for j in range(2) for k in range(8)
    ]
    assert (meta, data) == (struct.pack("<III", 2, 16, 4), bytes(rows) + b"tail")
    # 8,192 bytes are shuffled at once; elements that are left over are copied.
    raw = samples(4, 8192 + 40)[0]
    meta, data = parts(encode(descriptor(BITSHUFFLE), 4, False, True, raw))
    first, second = (
        encode(descriptor(BITSHUFFLE), 4, False, True, r) for r in (raw[:8192], raw[8192:-8])
    )
    assert (meta, data) == (
        struct.pack("<II", 1, 8232),
        parts(first)[1] + parts(second)[1] + raw[-8:],
    )


@pytest.mark.parametrize("code", [MD5, SHA256])
@pytest.mark.parametrize("n", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4096])
def test_checksums(code, n):
    raw = samples(1, n)[1]
    meta, data = parts(encode(descriptor(code), *BYTES, raw))
    assert data == raw
    assert meta == struct.pack("<IIQ", 0, 1, n) + DIGESTS[code](raw).digest()
    meta, data = parts(encode(descriptor(LZ4, code), *BYTES, raw))
    before = meta[-16:]
    sums = b"".join(struct.pack("<Q", len(x)) + DIGESTS[code](x).digest() for x in (before, data))
    assert meta == struct.pack("<II", 1, 1) + sums + before


# ---- What TileDB may write, and damage ----


def test_any_number_of_parts():
    block = zlib.compress(b"abc")
    assert decode(descriptor(GZIP), *BYTES, block_chunk(3, block, 4), 12, False) == b"abc" * 4
    halves = b"".join(struct.pack("<Q", 2) + hashlib.md5(x).digest() for x in (b"ab", b"cd"))
    stored = chunk(4, struct.pack("<II", 0, 2) + halves, b"abcd")
    assert decode(descriptor(MD5), *BYTES, stored, 4, False) == b"abcd"
    shuffled = chunk(8, struct.pack("<III", 2, 4, 4), b"acbdACBD")
    assert decode(descriptor(BYTESHUFFLE), 2, False, False, shuffled, 8, False) == b"abcdABCD"


@pytest.mark.parametrize("code", FILTERS)
@pytest.mark.parametrize("other", [NONE, RLE, LZ4, SHA256])
def test_every_flipped_bit_is_noticed_or_harmless(code, other):
    raw = pack(2, [i * i for i in range(20)])
    element = (2, False, True)
    for pipeline in (descriptor(code, other), descriptor(other, code)):
        try:
            stored = encode(pipeline, *element, raw)
        except ValueError:
            continue
        for bit in range(8 * len(stored)):
            damaged = bytearray(stored)
            damaged[bit // 8] ^= 1 << bit % 8
            with contextlib.suppress(ValueError):
                assert decode(pipeline, *element, damaged, len(raw)) == raw, bit
            # Without the CRC a wrong value may come back, but of its size.
            with contextlib.suppress(ValueError):
                assert len(decode(pipeline, *element, damaged, len(raw), False)) == len(raw)
        for n in range(len(stored)):
            with pytest.raises(ValueError, match="damaged"):
                decode(pipeline, *element, stored[:n], len(raw), False)


@given(
    st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3),
    st.sampled_from(ELEMENTS),
    st.lists(st.sampled_from([0, 1, 2, 3, 8, 16, 24, 255, 1 << 31, (1 << 32) - 1]), max_size=12),
    st.binary(max_size=300),
    st.integers(0, 600),
    st.sampled_from([0, 2, 12]),
)
@settings(deadline=None, max_examples=400)
def test_noise_never_overruns(chain, element, meta, filtered, raw_size, cell):
    stored = chunk(raw_size, struct.pack(f"<{len(meta)}I", *meta), filtered)
    with contextlib.suppress(ValueError):
        found = decode(descriptor(*chain), *element, stored, raw_size, False, cell)
        assert len(found) == raw_size


@pytest.mark.parametrize("code", [MD5, SHA256])
def test_checksums_are_verified_in_chunks_of_others(code):
    stored = bytearray(chunk(3, parts(encode(descriptor(code), *BYTES, b"abc"))[0], b"abc"))
    assert decode(descriptor(code), *BYTES, stored, 3, False) == b"abc"
    stored[-1] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode(descriptor(code), *BYTES, stored, 3, False)
    # A part longer than the data, and parts without end.
    for n_data, size in [(1, 4), (2, 3), ((1 << 32) - 1, 0)]:
        meta = struct.pack("<IIQ", 0, n_data, size) + DIGESTS[code](b"abc").digest()
        with pytest.raises(ValueError, match="damaged"):
            decode(descriptor(code), *BYTES, chunk(3, meta, b"abc"), 3, False)


BOMBS = {
    GZIP: zlib.compress(bytes(10**7)),
    BZIP2: bz2.compress(bytes(10**7)),
    RLE: b"\0\xff\xff" * 200,
    DOUBLE_DELTA: struct.pack("<BQBBQ", 1, 1 << 40, 0, 0, 0),
}


@pytest.mark.parametrize("code", BOMBS)
def test_bombs_are_refused(code):
    """No block grows beyond what the chunk, or the room between two filters, has for it."""
    for claimed in (100, 10**7, (1 << 32) - 1):
        meta = struct.pack("<IIII", 0, 1, claimed, len(BOMBS[code]))
        for chain in [(code,), (BYTESHUFFLE, code), (NONE, MD5, code)]:
            with pytest.raises(ValueError, match="damaged"):
                decode(descriptor(*chain), *BYTES, chunk(100, meta, BOMBS[code]), 100, False)
    with pytest.raises(ValueError, match="damaged"):
        decode_block({GZIP: 1, BZIP2: 11, RLE: 10, DOUBLE_DELTA: 12}[code], BOMBS[code], 100, 1)


@pytest.mark.parametrize(
    "chain", [(POSITIVE_DELTA,) * 8, (POSITIVE_DELTA, LZ4) * 3, (RLE, RLE, RLE), (SHA256,) * 8]
)
def test_chains_that_grow_come_back(chain):
    """How much lies between two filters is known: what they can make of the raw bytes at most."""
    raw = samples(1, 20_000)[1]
    stored = encode(descriptor(*chain, window=8), *BYTES[:2], True, raw)
    assert decode(descriptor(*chain, window=8), *BYTES[:2], True, stored, len(raw)) == raw


TWENTY = bytes(20 << 20)


@pytest.mark.parametrize(
    ("chain", "element", "known", "least"),
    [
        ((), BYTES, 1, 1),
        ((BYTESHUFFLE, BITSHUFFLE, MD5, POSITIVE_DELTA), BYTES, 1, 0.99),
        ((GZIP,), BYTES, 1032, 1020),
        ((ZSTD,), BYTES, 1 << 15, 20_000),
        ((LZ4,), BYTES, 255, 250),
        ((RLE,), BYTES, 65_535 // 3 + 1, 21_000),
        ((RLE,), ELEMENTS[2], 65_535 * 8 // 10 + 1, 49_000),
        ((BZIP2,), BYTES, 1 << 21, 300_000),
        ((DOUBLE_DELTA,), BYTES, 8, 3.9),
        ((DOUBLE_DELTA,), (8, True, True), 64, 31),
        ((BIT_WIDTH,), (8, False, True), 8, 7.8),
        ((BIT_WIDTH,), (8, False, False), 1, 1),
        ((GZIP, LZ4), BYTES, 1032 * 255, 50_000),
        ((BZIP2, ZSTD), BYTES, (1 << 32) - 1, 100_000),
        ((14,), BYTES, (1 << 32) - 1, 0),
    ],
)
def test_what_a_stored_byte_can_mean(chain, element, known, least):
    """The most, and that chunks come near it: no reader may take less, and none needs to take much more."""
    pipeline = descriptor(*chain, level=9, window=1 << 20)
    assert ratio(pipeline, *element) == known
    if least:
        stored = encode(pipeline, *element, TWENTY)
        assert least <= len(TWENTY) / (len(stored) - 16) <= known


def test_what_a_byte_of_a_block_can_mean():
    assert [block_ratio(code, 8) for code in (0, 1, 2, 3, 10, 11, 12)] == [
        1, 1032, 1 << 15, 255, 52_429, 1 << 21, 64,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="compressor 5"):
        block_ratio(5, 8)


def test_every_chunk_but_those_that_end_in_zstd_carries_a_crc():
    for code in FILTERS:
        stored = encode(descriptor(code), 2, False, True, b"abcdefgh")
        _, filtered, meta = struct.unpack_from("<III", stored)
        if code != ZSTD:
            (crc,) = struct.unpack_from("<I", stored, 12 + meta - 4)
            assert crc == crc32c(stored[len(stored) - filtered :], crc32c(stored[: 12 + meta - 4]))


# ---- Blocks ----


@pytest.mark.parametrize(
    ("code", "filter_", "size"),
    [(1, GZIP, 8), (2, ZSTD, 8), (3, LZ4, 8), (10, RLE, 8), (11, BZIP2, 8), (12, DOUBLE_DELTA, 2)],
)
def test_blocks(code, filter_, size):
    raw = samples(size, 4096)[0]
    stored = encode(descriptor(filter_), size, False, True, raw)
    _, filtered, _ = struct.unpack_from("<III", stored)
    block = stored[len(stored) - filtered :]
    assert decode_block(code, block, len(raw), size) == raw
    for other in (block[:-1], block + b"\0", b""):
        with pytest.raises(ValueError, match="damaged"):
            decode_block(code, other, len(raw), size)
    for n in (0, len(raw) - 8, len(raw) + 8):
        with pytest.raises(ValueError, match="damaged"):
            decode_block(code, block, n, size)


def test_blocks_without_a_compressor():
    assert decode_block(0, b"abc", 3, 1) == b"abc"
    with pytest.raises(ValueError, match="damaged"):
        decode_block(0, b"abc", 4, 1)
    for code, size in [(4, 1), (9, 1), (13, 1), (-1, 1), (1, 0)]:
        with pytest.raises(ValueError, match="supported are"):
            decode_block(code, b"abc", 3, size)

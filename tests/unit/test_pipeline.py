"""kvcore.codec.pipeline: chains of filters: round trips, exact bytes, damage."""

import contextlib
import random
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunk_bytes import (
    BIT_WIDTH,
    CHAINS,
    ELEMENTS,
    LZ4,
    NONE,
    OFFSETS,
    SHUFFLE,
    SMALL,
    TEXT,
    UNKNOWN,
    ZSTD,
    descriptor,
    pack,
    parts,
    sealed,
    widths,
)
from tilekv.kvcore.codec.chunk import decode
from tilekv.kvcore.testing import encode, rewritten

# ---- Round trips ----


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_round_trip_of_every_chain(chain):
    rng = random.Random(str(chain))
    pipeline = descriptor(*chain, window=256)
    for element in ELEMENTS:
        for n in (0, 1, 7, 8, 255, 256, 264, 8192, 8195):
            for raw in (TEXT[:n], bytes(n), rng.randbytes(n)):
                stored = encode(pipeline, *element, raw)
                assert decode(pipeline, *element, stored, n) == raw


@given(
    st.sampled_from(CHAINS),
    st.sampled_from(ELEMENTS),
    st.binary(max_size=3000),
    st.integers(0, 100_000),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_round_trip_of_any_bytes(chain, element, seed, n, window):
    raw = (seed * (n // max(len(seed), 1) + 1))[:n]
    pipeline = descriptor(*chain, window=window)
    assert decode(pipeline, *element, encode(pipeline, *element, raw), len(raw)) == raw


@pytest.mark.parametrize("chain", [(), (LZ4,), (ZSTD,), (BIT_WIDTH,), (BIT_WIDTH, ZSTD)], ids=str)
@pytest.mark.parametrize("n", [10_000, 65_536, 99_999, 100_000])
def test_round_trip_of_large_chunks(chain, n):
    pipeline = descriptor(*chain)
    assert decode(pipeline, *OFFSETS, encode(pipeline, *OFFSETS, TEXT[:n]), n) == TEXT[:n]


def test_eight_filters_are_the_most():
    pipeline = descriptor(*[LZ4, ZSTD] * 4)
    assert (
        decode(pipeline, 1, False, False, encode(pipeline, 1, False, False, TEXT), len(TEXT))
        == TEXT
    )


# ---- Exact bytes ----


def test_zstd_is_one_frame_with_a_content_checksum_and_no_crc():
    meta, frame = parts(encode(descriptor(ZSTD), *OFFSETS, TEXT[:8192]))
    assert meta == struct.pack("<IIII", 0, 1, 8192, len(frame))
    assert frame[:4] == b"\x28\xb5\x2f\xfd"
    assert frame[4] & 4


def test_lz4_is_a_raw_block():
    meta, block = parts(encode(descriptor(LZ4), *OFFSETS, b"abcdefgh"))
    assert meta[:16] == struct.pack("<IIII", 0, 1, 8, 9)
    assert block == b"\x80abcdefgh"
    assert len(meta) == 20


def test_a_compressor_compresses_the_metadata_before_it():
    raw = pack(8, range(0, 8192, 8))
    stored = encode(descriptor(BIT_WIDTH, ZSTD), *OFFSETS, raw)
    meta, frames = parts(stored)
    n_meta, n_data, raw_meta, stored_meta, raw_data, stored_data = struct.unpack("<6I", meta)
    alone, narrow = parts(encode(descriptor(BIT_WIDTH), *OFFSETS, raw))
    assert (n_meta, n_data, raw_meta, raw_data) == (1, 1, len(alone) - 4, len(narrow))
    assert stored_meta + stored_data == len(frames)


def test_bit_width_of_offsets():
    meta, narrow = parts(encode(descriptor(BIT_WIDTH), *OFFSETS, pack(8, [1000, 1003, 1000 + 255])))
    assert meta[:-4] == struct.pack("<IIQBI", 24, 1, 1000, 8, 24)
    assert narrow == bytes([0, 3, 255])


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_bit_width_spans(size, signed):
    lowest = -(1 << 8 * size - 1) if signed else 0
    for bits in (8, 16, 32, 64):
        span = (1 << bits - signed) - 1
        for extra in (0, 1):
            if bits < 8 * size or (extra == 0 and bits == 8 * size):
                values = [lowest + 0, min(lowest + span + extra, lowest + (1 << 8 * size) - 1)]
                raw = pack(size, values, signed)
                stored = encode(descriptor(BIT_WIDTH), size, signed, True, raw)
                assert widths(stored, size) == [(2, bits << extra)]
                assert decode(descriptor(BIT_WIDTH), size, signed, True, stored, len(raw)) == raw


def test_signed_windows_hold_the_smallest_value():
    meta, narrow = parts(encode(descriptor(BIT_WIDTH), 4, True, True, pack(4, [5, -100, 27], True)))
    assert meta[:-4] == struct.pack("<IIiBI", 12, 1, -100, 8, 12)
    assert narrow == bytes([105, 0, 127])


def test_narrow_values_of_signed_elements_carry_a_sign():
    """TileDB reads them so; it writes none below zero, but what it would read is what we must."""
    stored = sealed(
        struct.pack("<III", 8, 2, 8 + 9 + 4)
        + struct.pack("<IIiBI", 8, 1, 1000, 8, 8)
        + bytes(4)
        + b"\xff\x01"
    )
    assert decode(descriptor(BIT_WIDTH), 4, True, True, stored, 8) == pack(4, [999, 1001], True)
    assert decode(descriptor(BIT_WIDTH), 4, False, True, stored, 8) == pack(4, [1255, 1001])


@pytest.mark.parametrize(
    "element", [(1, False, True), (4, False, False), (8, True, False), (3, False, True)]
)
def test_bit_width_leaves_bytes_and_what_is_no_integer(element):
    meta, data = parts(encode(descriptor(BIT_WIDTH), *element, b"x" * 24))
    assert (len(meta), data) == (4, b"x" * 24)


def test_bit_width_copies_what_ends_within_an_element():
    meta, data = parts(encode(descriptor(BIT_WIDTH), *OFFSETS, bytes(27)))
    assert meta[:-4] == struct.pack("<IIQBI", 27, 1, 0, 64, 27)
    assert data == bytes(27)


def test_windows_are_cut_where_the_chunk_is_smallest():
    slow = list(range(1024))
    steep = [i * 7 for i in range(1024)]  # 32 elements span 217
    wild = [i << 40 for i in range(1024)]
    assert widths(encode(descriptor(BIT_WIDTH), *OFFSETS, pack(8, slow)), 8) == [(256, 8)] * 4
    assert widths(encode(descriptor(BIT_WIDTH), *OFFSETS, pack(8, steep)), 8) == [(32, 8)] * 32
    assert widths(encode(descriptor(BIT_WIDTH), *OFFSETS, pack(8, wild)), 8) == [(1024, 64)]
    assert (
        widths(encode(descriptor(BIT_WIDTH, window=1000), *OFFSETS, pack(8, wild)), 8)
        == [(64, 64)] * 16
    )
    assert (
        widths(encode(descriptor(BIT_WIDTH, window=1), *OFFSETS, pack(8, wild)), 8)
        == [(1, 8)] * 1024
    )
    assert widths(encode(descriptor(BIT_WIDTH), *OFFSETS, pack(8, [0] * 33)), 8) == [(33, 8)]


# ---- Damage ----


@given(st.sampled_from(CHAINS), st.data())
@settings(deadline=None)
def test_damage_behind_the_crc_never_overruns(chain, data):
    """Whatever lies in a chunk from a stranger: an error, or raw_size bytes of something."""
    pipeline = descriptor(*chain, window=256)
    stored = bytearray(encode(pipeline, *OFFSETS, SMALL))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(stored) - 4))
        stored[at : at + 4] = struct.pack(
            "<I", data.draw(st.sampled_from([0, 1, 2, 255, 1 << 31, (1 << 32) - 1]))
        )
    with contextlib.suppress(ValueError):
        assert len(decode(pipeline, *OFFSETS, stored, len(SMALL), False)) == len(SMALL)


def frame_chunk(frame, raw_size):
    return (
        struct.pack("<III", raw_size, len(frame), 16)
        + struct.pack("<IIII", 0, 1, raw_size, len(frame))
        + frame
    )


def test_zstd_frames_are_checked_only_where_tilekv_wrote_them():
    frame = parts(encode(descriptor(ZSTD), *OFFSETS, TEXT[:8192]))[1]
    size = struct.pack("<H", 8192 - 256)
    assert frame[4] == 0x64
    assert frame[5:7] == size  # single segment, two bytes of content size, checksum
    bare = frame[:4] + b"\x60" + frame[5:-4]
    unsized = frame[:4] + b"\x04\x58" + frame[7:]  # window descriptor instead of the content size
    empty = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"
    for other in (bare, unsized, frame + empty):
        stored = frame_chunk(other, 8192)
        assert decode(descriptor(ZSTD), *OFFSETS, stored, 8192, False) == TEXT[:8192]
        with pytest.raises(ValueError, match="damaged"):
            decode(descriptor(ZSTD), *OFFSETS, stored, 8192)
    assert decode(descriptor(ZSTD), *OFFSETS, frame_chunk(frame, 8192), 8192) == TEXT[:8192]


@pytest.mark.parametrize(("padding", "accepted"), [(1000, True), (10_000_000, False)])
def test_a_bomb_between_two_filters_is_refused(padding, accepted):
    """A zstd frame and zeros in a frame that zstd skips, which lz4 makes small: memory must not follow what lz4 claims."""
    frame = parts(encode(descriptor(ZSTD), *OFFSETS, TEXT[:100]))[1]
    frames = frame + struct.pack("<II", 0x184D2A50, padding) + bytes(padding)
    inner = struct.pack("<IIII", 0, 1, 100, len(frames))
    blocks = [parts(encode(descriptor(LZ4), *OFFSETS, part))[1] for part in (inner, frames)]
    meta = struct.pack("<6I", 1, 1, len(inner), len(blocks[0]), len(frames), len(blocks[1]))
    stored = struct.pack("<III", 100, sum(map(len, blocks)), len(meta)) + meta + b"".join(blocks)
    if accepted:
        assert decode(descriptor(ZSTD, LZ4), *OFFSETS, stored, 100, False) == TEXT[:100]
    else:
        with pytest.raises(ValueError, match="damaged"):
            decode(descriptor(ZSTD, LZ4), *OFFSETS, stored, 100, False)


# ---- Pipelines ----


def test_descriptors_come_back():
    for chain in [*CHAINS, tuple(range(11))[:8], (10, 12, 13)]:
        whole = struct.pack("<II", 65536, len(chain))
        for code in chain:
            options = (
                struct.pack("<Bi", code, -7)
                if 1 <= code <= 6
                else struct.pack("<I", 512)
                if code in (7, 10)
                else b""
            )
            whole += struct.pack("<BI", code, len(options)) + options
        assert rewritten(whole) == whole


def test_bad_descriptors():
    good = descriptor(ZSTD, BIT_WIDTH)
    for n in range(len(good)):
        with pytest.raises(ValueError, match="cut short"):
            rewritten(good[:n])
    with pytest.raises(ValueError, match="1 bytes follow"):
        rewritten(good + b"\0")
    with pytest.raises(ValueError, match="9 filters"):
        rewritten(descriptor(*[ZSTD] * 9))
    with pytest.raises(ValueError, match="another compressor's code"):
        rewritten(descriptor(ZSTD)[:-5] + struct.pack("<Bi", LZ4, 3))
    for code, options in [
        (ZSTD, bytes([ZSTD])),
        (BIT_WIDTH, bytes(5)),
        (NONE, b"\0"),
        (SHUFFLE, b"\0"),
    ]:
        with pytest.raises(ValueError, match="options of"):
            rewritten(struct.pack("<IIBI", 0, 1, code, len(options)) + options)


@pytest.mark.parametrize("code", [14, UNKNOWN])
def test_unknown_filters_fail_when_used(code):
    unknown = struct.pack("<IIBI", 8192, 1, code, 3) + b"abc"
    rewritten(unknown)
    with pytest.raises(ValueError, match="does not support"):
        encode(unknown, *OFFSETS, b"x")
    with pytest.raises(ValueError, match="does not support"):
        decode(unknown, *OFFSETS, encode(descriptor(), *OFFSETS, b"x"), 1)


# ---- Threads ----


def test_many_threads_share_one_pool():
    def work(seed):
        rng = random.Random(seed)
        for _ in range(100):
            pipeline = descriptor(*rng.choice(CHAINS))
            at = rng.randrange(50_000)
            raw = TEXT[at : at + rng.randrange(20_000)]
            if decode(pipeline, *OFFSETS, encode(pipeline, *OFFSETS, raw), len(raw)) != raw:
                return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))

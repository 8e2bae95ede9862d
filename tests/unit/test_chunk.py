"""kvcore.codec.chunk: what stands around filtered bytes, its damage, and the offsets that are read in place."""

import contextlib
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunk_bytes import (
    BIT_WIDTH,
    CHAINS,
    ELEMENTS,
    LZ4,
    OFFSETS,
    SMALL,
    TEXT,
    ZSTD,
    descriptor,
    pack,
    parts,
    sealed,
    widths,
)
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.codec.chunk import decode
from tilekv.kvcore.testing import check, encode, windows


def test_takes_any_contiguous_buffer():
    pipeline = descriptor(LZ4)
    stored = encode(pipeline, *OFFSETS, memoryview(TEXT)[100:900])
    assert decode(pipeline, *OFFSETS, bytearray(stored), 800) == TEXT[100:900]


def test_empty_pipeline_is_header_crc_and_bytes():
    stored = encode(descriptor(), *OFFSETS, b"abc")
    assert stored == sealed(struct.pack("<IIII", 3, 3, 4, 0) + b"abc")
    assert crc32c(stored[:12] + b"abc") == struct.unpack_from("<I", stored, 12)[0]


@pytest.mark.parametrize("chain", [c for c in CHAINS if len(c) < 3], ids=str)
def test_every_flipped_bit_is_noticed_or_harmless(chain):
    pipeline = descriptor(*chain, window=256)
    stored = encode(pipeline, *OFFSETS, SMALL)
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(ValueError):
            assert decode(pipeline, *OFFSETS, damaged, len(SMALL)) == SMALL, bit


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("chain", [c for c in CHAINS if len(c) < 3], ids=str)
def test_truncation_at_every_length(chain, checked):
    pipeline = descriptor(*chain, window=256)
    stored = encode(pipeline, *OFFSETS, SMALL)
    for n in range(len(stored)):
        with pytest.raises(ValueError, match="damaged"):
            decode(pipeline, *OFFSETS, stored[:n], len(SMALL), checked)
    with pytest.raises(ValueError, match="damaged"):
        decode(pipeline, *OFFSETS, stored + b"\0", len(SMALL), checked)
    for size in (0, len(SMALL) - 8, len(SMALL) + 8):
        with pytest.raises(ValueError, match="damaged"):
            decode(pipeline, *OFFSETS, stored, size, checked)


@given(
    st.sampled_from(CHAINS),
    st.sampled_from(ELEMENTS),
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.integers(0, 600),
)
@settings(deadline=None)
def test_noise_never_overruns(chain, element, meta, filtered, raw_size):
    stored = struct.pack("<III", raw_size, len(filtered), len(meta)) + meta + filtered
    with contextlib.suppress(ValueError):
        assert len(decode(descriptor(*chain), *element, stored, raw_size, False)) == raw_size


def test_metadata_that_no_filter_takes_is_damage_only_where_tilekv_wrote_it():
    for chain in [(), (LZ4,), (ZSTD,), (BIT_WIDTH,)]:
        stored = encode(descriptor(*chain), *OFFSETS, SMALL)
        meta, filtered = parts(stored)
        longer = (
            struct.pack("<III", len(SMALL), len(filtered), len(meta) + 8)
            + meta
            + bytes(8)
            + filtered
        )
        assert decode(descriptor(*chain), *OFFSETS, longer, len(SMALL), False) == SMALL
        if chain != (ZSTD,):
            longer = sealed(longer)
        with pytest.raises(ValueError, match="damaged"):
            decode(descriptor(*chain), *OFFSETS, longer, len(SMALL))


def test_check():
    stored = encode(descriptor(LZ4), *OFFSETS, SMALL)
    assert check(stored)
    assert not check(stored[:-1])
    assert not check(b"")
    assert not check(bytes(12))
    for i in range(len(stored)):
        assert not check(stored[:i] + bytes([stored[i] ^ 0x10]) + stored[i + 1 :])


# ---- Windows read in place ----


@given(
    st.lists(st.integers(0, 2**16), max_size=1500),
    st.integers(0, 40),
    st.integers(0, 2**63),
    st.sampled_from([1, 8, 100, 256, 1000, 8192, 2**32 - 1]),
)
@settings(deadline=None)
def test_windows_equal_decode(steps, shift, base, window):
    values = [(base + (s << shift)) % 2**64 for s in itertools.accumulate(steps)]
    pipeline = descriptor(BIT_WIDTH, window=window)
    raw = pack(8, values)
    stored = encode(pipeline, *OFFSETS, raw)
    assert windows(stored, len(raw)) == values
    assert decode(pipeline, *OFFSETS, stored, len(raw)) == raw
    assert len({bits for _, bits in widths(stored, 8)}) <= 1


def test_windows_of_other_shapes_are_refused():
    def chunk(rows, data, raw_size):
        meta = (
            struct.pack("<II", raw_size, len(rows))
            + b"".join(struct.pack("<QBI", *row) for row in rows)
            + bytes(4)
        )
        return struct.pack("<III", raw_size, len(data), len(meta)) + meta + data

    assert windows(chunk([(5, 8, 16), (9, 8, 8)], b"\1\2\3", 24), 24) == [6, 7, 12]
    assert windows(chunk([], b"", 0), 0) == []
    for rows, data, raw_size in [
        ([(5, 8, 16), (9, 16, 8)], b"\1\2\3", 24),  # two widths
        ([(5, 8, 8), (9, 8, 16)], b"\1\2\3", 24),  # a longer last window
        ([(5, 8, 24), (9, 8, 8)], b"\1\2\3\4", 32),  # three elements a window
        ([(5, 8, 16)], b"\1\2\3", 24),  # too few
        ([(5, 8, 16), (9, 8, 16)], b"\1\2\3\4", 24),  # too many
        ([(5, 8, 16), (9, 8, 8), (9, 8, 0)], b"\1\2\3", 24),  # an empty window
        ([(5, 8, 16), (9, 8, 8)], b"\1\2", 24),  # data missing
        ([(5, 24, 16), (9, 24, 8)], bytes(9), 24),  # no such width
        ([(5, 64, 12)], bytes(12), 12),  # half an element
    ]:
        with pytest.raises(ValueError, match="damaged"):
            windows(chunk(rows, data, raw_size), raw_size)


def test_windows_never_overrun():
    stored = encode(descriptor(BIT_WIDTH, window=256), *OFFSETS, SMALL)
    for n in range(len(stored)):
        with pytest.raises(ValueError, match="damaged"):
            windows(stored[:n], len(SMALL))
    for i in range(12 + struct.unpack_from("<I", stored, 8)[0] - 4):
        for value in (0, 1, 7, 0x80, 0xFF):
            with contextlib.suppress(ValueError):
                assert (
                    len(windows(stored[:i] + bytes([value]) + stored[i + 1 :], len(SMALL)))
                    == len(SMALL) // 8
                )

"""CRC-32C: published values, and the instruction against the tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.testing import crc32c_software

# RFC 3720 appendix B.4, and the check value of the CRC catalogue.
KNOWN = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
        ),
        0xD9963A56,
    ),
]
NOISE = bytes((i * i * 2654435761 >> 13) & 0xFF for i in range(20_000))


@pytest.mark.parametrize("crc", [crc32c, crc32c_software])
@pytest.mark.parametrize(("data", "value"), KNOWN)
def test_known_values(crc, data, value):
    assert crc(data) == value


def test_lengths_around_the_three_streams():
    for n in [*range(1600), *range(8180, 8200)]:
        for start in (0, 1, 7):
            piece = NOISE[start : start + n]
            assert crc32c(piece) == crc32c_software(piece), (n, start)


@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_instruction_equals_tables(data, before, repeat):
    data *= repeat
    assert crc32c(data, before) == crc32c_software(data, before)


@given(st.binary(max_size=4000), st.integers(0, 4000))
def test_continues(data, cut):
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_takes_any_contiguous_buffer():
    assert crc32c(bytearray(b"123456789")) == crc32c(memoryview(b"x123456789")[1:]) == 0xE3069283
    with pytest.raises(BufferError):
        crc32c(memoryview(b"123456")[::2])
    with pytest.raises(TypeError):
        crc32c("text")


@pytest.mark.parametrize("before", [-1, 2**32])
def test_a_crc_has_32_bits(before):
    with pytest.raises(OverflowError):
        crc32c(b"", before)

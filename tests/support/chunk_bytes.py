"""Chunks and descriptors of pipelines as tests take them apart and put them together."""

import itertools
import struct

from tilekv.kvcore.base.crc32c import crc32c

NONE, GZIP, ZSTD, LZ4, BIT_WIDTH, SHUFFLE, UNKNOWN = 0, 1, 2, 3, 7, 9, 200


def descriptor(*filters, window=8192, max_chunk=8192):
    out = struct.pack("<II", max_chunk, len(filters))
    for code in filters:
        if code in (GZIP, ZSTD, LZ4):
            out += struct.pack("<BIBi", code, 5, code, 3)
        elif code == BIT_WIDTH:
            out += struct.pack("<BII", code, 4, window)
        else:
            out += struct.pack("<BI", code, 0)
    return out


CHAINS = [
    chain for n in range(4) for chain in itertools.product((NONE, ZSTD, LZ4, BIT_WIDTH), repeat=n)
]
ELEMENTS = [(1, False, False), (4, True, False)] + [
    (size, signed, True) for size in (1, 2, 4, 8) for signed in (False, True)
]
OFFSETS = (8, False, True)
TEXT = b"".join(b"key_%d=%x;" % (i, i * i * 7919) for i in range(9000))[:100_000]


def header(stored):
    return struct.unpack_from("<III", stored)


def parts(stored):
    """Metadata and filtered bytes."""
    _, filtered, meta = header(stored)
    assert len(stored) == 12 + meta + filtered
    return stored[12 : 12 + meta], stored[12 + meta :]


def pack(size, values, signed=False):
    letter = "_BH_I___Q"[size]
    return struct.pack(f"<{len(values)}{letter.lower() if signed else letter}", *values)


def widths(stored, size):
    """(elements, bits) of every bit-width window."""
    meta, _ = parts(stored)
    n = struct.unpack_from("<I", meta, 4)[0]
    rows = [meta[8 + i * (size + 5) + size :][:5] for i in range(n)]
    return [(struct.unpack("<BI", row)[1] // size, row[0]) for row in rows]


def sealed(stored):
    """The chunk with a CRC that holds: for damage that only what lies behind the CRC can notice."""
    meta, filtered = parts(stored)
    before = stored[: 12 + len(meta) - 4]
    return before + struct.pack("<I", crc32c(filtered, crc32c(before))) + filtered


SMALL = pack(8, [i * 37 % 5000 for i in range(40)])

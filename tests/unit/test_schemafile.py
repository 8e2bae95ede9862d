"""The schema file: its bytes, and what hostile ones do."""

import dataclasses
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilekv.errors import CorruptionError, FormatError
from tilekv.filters import FilterList, UnknownFilter, ZstdFilter
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.schema import Attr, Schema
from tilekv.schemafile import Field, read_schema, schema_version, write_schema

SCHEMA = Schema([Attr("a1", "int32"), Attr("tag", str)], capacity=1000)
DATA = SCHEMA.to_file()
EMPTY = FilterList()._to_bytes(4096)


def words(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def test_bytes() -> None:
    """docs/format.md 3 and 5, written out by hand."""
    zstd = "00100000 01000000 02 05000000 02 01000000"
    payload = words(
        "03000000 01 00 00 e803000000000000",
        "f8ffff7f 00000000",  # coordinates
        "00100000 01000000 07 04000000 00200000",  # offsets
        "0a 02000000",
        "0b000000" + b"__key_dim_1".hex() + "0000000000000000 feffffffffffffff 00 ffffffffffffffff",
        "0b000000" + b"__key_dim_2".hex() + "0000000000000000 feffffffffffffff 00 ffffffffffffffff",
        "04000000",
        "05000000" + b"__key".hex() + "04 ffffffff 00100000 01000000 03 05000000 03 ffffffff",
        "02000000" + b"a1".hex() + "00 01000000" + zstd,
        "03000000" + b"tag".hex() + "0c ffffffff" + zstd,
        "0a000000" + b"__key_type".hex() + "04 01000000 00100000 00000000",
    )
    n = len(payload)
    written = (
        struct.pack("<IQQBQBI", 3, 20 + n, n, 4, 1, 0, 8)
        + words("00000100 00000000")
        + struct.pack("<QIII", 1, n, n, 0)
        + payload
    )
    assert written == DATA
    assert DATA.index(payload) == 62


def test_reading() -> None:
    stored = read_schema(DATA, "f")
    assert stored.capacity == 1000
    assert list(stored.coords_filters) == []
    assert stored.offsets_filters == SCHEMA.offsets_filters
    assert [field[:3] for field in stored.fields] == [field[:3] for field in SCHEMA.fields]
    assert stored.fields[1].filters == FilterList(ZstdFilter(1))


def test_any_chunking() -> None:
    payload = DATA[62:]
    cut = [payload[:5], b"", payload[5:]]
    chunks = b"".join(struct.pack("<III", len(c), len(c), 3) + b"crc" + c for c in cut)
    body = struct.pack("<Q", len(cut)) + chunks
    data = struct.pack("<IQ", 3, len(body)) + DATA[12:42] + body
    assert read_schema(data, "f") == read_schema(DATA, "f")


def test_every_truncation() -> None:
    for n in range(len(DATA)):
        with pytest.raises(CorruptionError):
            read_schema(DATA[:n], "f")


def test_trailing_bytes() -> None:
    with pytest.raises(CorruptionError):
        read_schema(DATA + b"\0", "f")
    body = struct.pack("<Q", len(DATA) - 42 + 1)  # counted, but in no chunk
    with pytest.raises(CorruptionError):
        read_schema(DATA[:4] + body + DATA[12:] + b"\0", "f")


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (4, "should follow"),  # body size
        (12, "should be in chunks"),  # raw size
        (30, "pipeline"),
        (50, "two sizes"),  # of the chunk
        (62, "another format version"),
        (66, "sparse"),
        (67, "row-major"),
        (115, "domain"),
    ],
)
def test_what_is_wrong_is_said(at: int, reason: str) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= 1
    with pytest.raises(CorruptionError, match=reason) as caught:
        read_schema(bytes(damaged), "f")
    assert caught.value.file == "f"


def test_trailing_bytes_in_the_tile() -> None:
    payload = DATA[62:] + b"\0"
    n = len(payload)
    sizes = struct.pack("<IQQ", 3, 20 + n, n)
    chunk = struct.pack("<QIII", 1, n, n, 0)
    with pytest.raises(CorruptionError, match="1 bytes too many"):
        read_schema(sizes + DATA[20:42] + chunk + payload, "f")


def test_names_that_are_no_text() -> None:
    with pytest.raises(CorruptionError, match="UTF-8"):
        read_schema(DATA.replace(b"tag", b"t\xffg"), "f")


@given(st.data())
def test_any_damage_is_an_error_or_a_schema(data: st.DataObject) -> None:
    """Without the checksum, which a stranger can make right, nothing but these two errors comes out."""
    damaged = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(DATA) - 4))
        damaged[at : at + 4] = data.draw(
            st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\0\x01"])
        )
    good = SCHEMA.describe("f" * 32, "0")
    descriptor = dataclasses.replace(good, schema_crc32c=crc32c(damaged))
    with suppress(CorruptionError, FormatError):
        Schema._from_file(bytes(damaged), descriptor)


@pytest.mark.parametrize(
    ("version", "writer"),
    [
        (1, r"1\.4\.0"),
        (2, r"1\.4\.1 to 1\.5\.1"),
        (4, r"1\.7"),
        (5, r"2\.0"),
        (22, r"2\.25 or newer"),
    ],
)
def test_other_versions_name_their_writer(version: int, writer: str) -> None:
    data = struct.pack("<I", version) + DATA[4:]
    assert schema_version(data, "f") == version
    with pytest.raises(FormatError, match=f"format {version}: TileDB {writer} wrote this"):
        read_schema(data, "f")


def test_version_0_has_no_version() -> None:
    data = struct.pack("<QQBQBi", 100, 90, 4, 1, 1, -1) + bytes(100)
    assert schema_version(data, "f") == 0
    with pytest.raises(FormatError, match=r"TileDB 1\.3"):
        read_schema(data, "f")


@pytest.mark.parametrize("data", [b"", b"\3\0\0", bytes(8), b"\xff" * 100, b'{"format": 3}'])
def test_no_schema_file_at_all(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        schema_version(data, "f")


def test_filters_and_datatypes_from_the_future() -> None:
    strange = FilterList(UnknownFilter(14, b""))._to_bytes(9)
    for coords, offsets, code, pipeline, named in (
        (strange, EMPTY, 4, EMPTY, "coordinates.*dictionary"),
        (EMPTY, strange, 4, EMPTY, "offsets.*dictionary"),
        (EMPTY, EMPTY, 4, strange, "'x'.*dictionary"),
        (EMPTY, EMPTY, 42, EMPTY, "datatype 42"),
    ):
        data = write_schema([Field("x", code, 1, pipeline, 9)], 1, offsets, coords)
        with pytest.raises(FormatError, match=named):
            read_schema(data, "f")


def test_encrypted_and_compressed_files() -> None:
    with pytest.raises(FormatError, match="encrypted"):
        read_schema(DATA[:29] + b"\1" + DATA[30:], "f")
    pipeline = FilterList(ZstdFilter())._to_bytes(65536)
    data = DATA[:30] + struct.pack("<I", len(pipeline)) + pipeline + DATA[42:]
    with pytest.raises(FormatError, match="filtered"):
        read_schema(data, "f")

"""`__tilekv.json`: its text, its checksum, and everything that can be wrong with it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tilekv.descriptor import AttrEntry, Descriptor
from tilekv.errors import CorruptionError, FormatError
from tilekv.kvcore.base.crc32c import crc32c

ID = "0123456789abcdef" * 2
ONE = Descriptor(
    ID,
    "blake2b",
    "0.1.0",
    (AttrEntry("a1", "int32", None), AttrEntry("größe", "float64", (3, 2))),
    0xFFFFFFFF,
)


def sealed(members: dict[str, Any]) -> bytes:
    """A descriptor file with a right checksum, computed here from its definition."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return json.dumps(members | {"crc32c": crc32c(text.encode())}).encode()


def members(**changes: Any) -> dict[str, Any]:
    found = json.loads(ONE.to_bytes()) | changes
    del found["crc32c"]
    return {key: value for key, value in found.items() if value is not ...}


def test_text() -> None:
    text = ONE.to_bytes().decode()
    crc = json.loads(text)["crc32c"]
    assert text == (
        "{\n"
        ' "format": 1,\n'
        f' "id": "{ID}",\n'
        ' "digest": "blake2b",\n'
        ' "version": "0.1.0",\n'
        ' "attrs": {\n'
        '  "a1": {"dtype": "int32", "shape": null},\n'
        '  "größe": {"dtype": "float64", "shape": [3, 2]}\n'
        " },\n"
        ' "schema_crc32c": 4294967295,\n'
        f' "crc32c": {crc}\n'
        "}\n"
    )


def test_round_trip() -> None:
    assert Descriptor.from_bytes(ONE.to_bytes()) == ONE
    assert Descriptor.from_bytes(sealed(members())) == ONE


def test_formatting_and_unknown_members_are_free() -> None:
    data = sealed(members(later={"x": [1.5, None]}))
    again = json.dumps(json.loads(data), indent=4, ensure_ascii=False).encode()
    assert Descriptor.from_bytes(again) == ONE


def test_every_flipped_bit() -> None:
    data = ONE.to_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            ok = Descriptor.from_bytes(bytes(flipped)) == ONE  # one white space became another
        except CorruptionError as error:
            ok = error.file == "__tilekv.json" and error.offset is not None
        assert ok


def test_every_truncation() -> None:
    data = ONE.to_bytes().rstrip()
    for n in range(len(data)):
        with pytest.raises(CorruptionError):
            Descriptor.from_bytes(data[:n])


def test_a_key_that_appears_twice() -> None:
    text = ONE.to_bytes().replace(b' "digest": ', b' "digest": "md5",\n "digest": ')
    with pytest.raises(CorruptionError, match="twice"):
        Descriptor.from_bytes(text)


def test_newer_format_names_who_wrote_it() -> None:
    with pytest.raises(FormatError, match=r"format 3.*tilekv 9\.8"):
        Descriptor.from_bytes(sealed(members(format=3, version="9.8")))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": ...},
        {"format": 0},
        {"format": True},
        {"format": "1"},
        {"version": 1},
        {"id": ...},
        {"id": ID[1:]},
        {"id": ID.upper()},
        {"id": ID + "\n"},
        {"digest": None},
        {"schema_crc32c": "5"},
        {"attrs": []},
        {"attrs": {"a": "int32"}},
        {"attrs": {"a": {"shape": None}}},
        {"attrs": {"a": {"dtype": "int32", "shape": 3}}},
        {"attrs": {"a": {"dtype": "int32", "shape": [0]}}},
        {"attrs": {"a": {"dtype": "int32", "shape": [True]}}},
        {"attrs": {"a": {"dtype": "int32", "shape": [1.0]}}},
        {"version": "\ud800"},
        {"attrs": {"\ud800": {"dtype": "int32"}}},
    ],
)
def test_sealed_but_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError):
        Descriptor.from_bytes(sealed(members(**changes)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": 1, "a": 1}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        "{}".encode("utf-16"),
    ],
)
def test_hostile_texts(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        Descriptor.from_bytes(data)


def test_nesting_at_every_depth() -> None:
    for depth in range(100, 1100, 50):
        data = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(CorruptionError):
            Descriptor.from_bytes(data)


def test_schema_checksum() -> None:
    one = Descriptor(ID, "md5", "0", (), crc32c(b"schema"))
    one.check_schema(b"schema", "__kv_schema.tdb")
    with pytest.raises(CorruptionError) as caught:
        one.check_schema(b"schemb", "__kv_schema.tdb")
    assert caught.value.file == "__kv_schema.tdb"


def test_the_schema_may_be_in_it() -> None:
    """As it is for stores that are made on object storage."""
    data = b"a schema file"
    whole = replace(ONE, schema_crc32c=crc32c(data)).with_schema(data)
    assert Descriptor.from_bytes(whole.to_bytes()) == whole
    assert whole.recorded().schema == data
    for wrong in ("", "YQ==", "?", 7, None):
        with pytest.raises(CorruptionError, match="`schema` is not what"):
            Descriptor.from_bytes(sealed(members(schema=wrong)))

"""JSON with a checksum: it may be formatted anew, and nothing in it changed (docs/format.md 8.1)."""

from __future__ import annotations

import json

import pytest

from tilekv.errors import CorruptionError
from tilekv.sealed import as_json, seal, unseal

MEMBERS = {"b": [1, None, "ä"], "a": {"x": True}}


def test_sealed_members_come_back() -> None:
    sealed = seal(MEMBERS)
    assert sealed.keys() == {"a", "b", "crc32c"}
    for data in (json.dumps(sealed), as_json(sealed), json.dumps(sealed, indent=2)):
        assert unseal(data.encode(), "x.json") == MEMBERS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"5",
        b'{"crc32c": 1}',
        b'{"a": 1}',
        b'{"a": 1, "a": 1, "crc32c": 1}',
        b'{"a": NaN, "crc32c": 1}',
        b'{"a": "\\ud800", "crc32c": 1}',
        b"\xff",
        b"[" * 100_000,
        json.dumps(seal(MEMBERS) | {"c": 1}).encode(),
        json.dumps(seal(MEMBERS) | {"crc32c": True}).encode(),
    ],
)
def test_what_nobody_sealed_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptionError) as info:
        unseal(data, "x.json")
    assert info.value.file == "x.json"

"""JSON with a checksum: files that may be formatted anew but not changed (docs/format.md 8.1).

The canonical form is every member but ``crc32c``, those that this version does not know included, as JSON in ASCII with sorted
keys and no white space (``json.dumps(members, sort_keys=True, separators=(",", ":"))``); ``crc32c`` is its CRC-32C.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from tilekv.errors import CorruptionError
from tilekv.kvcore.base.crc32c import crc32c


def seal(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members with their checksum."""
    return {**members, "crc32c": crc32c(_canonical(members))}


def as_json(value: object) -> str:
    """One value, in characters as they are."""
    return json.dumps(value, ensure_ascii=False)


def unseal(data: bytes, file: str) -> dict[str, Any]:
    """The members but `crc32c`, which has been compared. CorruptionError, of `file`, when nobody sealed them."""
    try:
        text = data.decode("utf-8")
        members = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        if not isinstance(members, dict):
            raise ValueError("not an object")
        crc = members.pop("crc32c", None)
        found = crc32c(_canonical(members))
        as_json(
            members
        ).encode()  # an escape may stand for half a character, which no file can hold
    except (ValueError, RecursionError) as error:
        raise CorruptionError(file, 0, f"it is not JSON: {error}") from None
    if type(crc) is not int or crc != found:
        raise CorruptionError(file, 0, "its checksum does not match")
    return members


def is_sealed(data: bytes) -> bool:
    """Whether `unseal` finds nothing wrong."""
    try:
        unseal(data, "")
    except CorruptionError:
        return False
    return True


def _canonical(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key appears twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

"""`__tilekv.json`: what TileDB's schema has no room for (docs/format.md 8.1, docs/design.md 3.2).

One JSON object, UTF-8, one key a line::

    format         int, 1 or 2: the version of this file and of tilekv's private parts of a fragment;
                   2 for what a tilekv that knows 1 only must not read
    id             str, 32 hex digits: a store keeps it for life, and no other has it
    digest         str, how keys become coordinates: "blake2b" or "md5"
    keys           "numbers": equal integers are one key whatever their width, and equal floats;
                   absent in stores whose keys are of exact types
    expires        true: the last field but one, `__expires`, holds moments of expiry; format 2
    record         true: there is a record of merges, which tells what counts; format 2
    version        str, the tilekv that created the store
    attrs          {name: {"dtype": str, "shape": [int, ...] or null}} in schema order; with "nullable": true
                   of an attribute whose values may be null, which a field `__valid_<name>` tells; format 2
    frame          {"key": str, "columns": [...], ...}: the columns of the frame that the store was made of (frametypes.py);
                   absent in others. Says nothing of what is stored
    schema         base64 of the schema file, of a store that was made on object storage: two requests less to open it
    schema_crc32c  int, CRC-32C of the whole schema file
    crc32c         int, CRC-32C of the canonical form

The file is sealed (`sealed`): it may be formatted anew but not changed. Every future format keeps this rule: that is how a
damaged `format` is told from a newer one.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn

from tilekv.errors import CorruptionError, FormatError
from tilekv.frametypes import FrameTypes
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.sealed import as_json, seal, unseal

DESCRIPTOR_FILE: Final = "__tilekv.json"
FORMAT: Final = 2


class AttrEntry(NamedTuple):
    """What the descriptor says of an attribute.

    Attributes
    ----------
    name : str
        The attribute.
    dtype : str
        "bytes", "str" or the name of a NumPy dtype.
    shape : tuple of int or None
        The shape of a cell; None for scalars and for cells of variable length.
    nullable : bool
        Whether a value may be null.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The contents of `__tilekv.json`; see the top of this file."""

    id: str
    digest: str
    version: str
    attrs: tuple[AttrEntry, ...]
    schema_crc32c: int
    numbers: bool = False  # whether `keys` is there
    expires: bool = False
    record: bool = False
    frame: FrameTypes | None = None
    schema: bytes | None = None

    @property
    def format(self) -> int:
        """The least that has all of it, so that older programs read what they can."""
        newer = self.record or self.expires or any(entry.nullable for entry in self.attrs)
        return 2 if newer else 1

    def recorded(self) -> Descriptor:
        """The same of a store that has a record."""
        return replace(self, record=True)

    def with_schema(self, data: bytes) -> Descriptor:
        """The same with the schema file in it."""
        return replace(self, schema=data)

    def to_bytes(self) -> bytes:
        """Return the file."""
        members = seal(self._members())
        lines = []
        for key, value in members.items():
            if key == "attrs":
                inner = ",\n".join(
                    f"  {as_json(name)}: {as_json(entry)}" for name, entry in value.items()
                )
                lines.append(f' "attrs": {{\n{inner}\n }}')
            else:
                lines.append(f" {as_json(key)}: {as_json(value)}")
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    @classmethod
    @lru_cache(16)  # every flush reads it again, and finds what it was
    def from_bytes(cls, data: bytes) -> Descriptor:
        """Parse the file.

        Raises
        ------
        CorruptionError
            When it is not what a tilekv wrote.
        FormatError
            When a newer tilekv wrote it.
        """
        members = unseal(data, DESCRIPTOR_FILE)
        version = members.get("version")
        format_ = members.get("format")
        if type(format_) is not int or format_ < 1 or not isinstance(version, str):
            _fail("`format` or `version` is missing")
        if format_ > FORMAT:
            raise FormatError(
                f"{DESCRIPTOR_FILE} has format {format_}, written by tilekv {version}; "
                f"this tilekv reads formats up to {FORMAT}: update it"
            )
        id_, digest, schema_crc = (members.get(key) for key in ("id", "digest", "schema_crc32c"))
        if not isinstance(id_, str) or not re.fullmatch("[0-9a-f]{32}", id_):
            _fail("`id` is not 32 hex digits")
        if not isinstance(digest, str):
            _fail("`digest` is not a string")
        if type(schema_crc) is not int:
            _fail("`schema_crc32c` is not a number")
        attrs = members.get("attrs")
        if not isinstance(attrs, dict):
            _fail("`attrs` is not an object")
        entries = tuple(_entry(name, value) for name, value in attrs.items())
        keys = members.get("keys")
        if keys not in (None, "numbers"):
            raise FormatError(
                f"{DESCRIPTOR_FILE} has keys of {keys!r}, written by tilekv {version}: update this tilekv"
            )
        flags = {flag: members.get(flag) for flag in ("expires", "record")}
        for flag, value in flags.items():
            if value is not None and value is not True:
                _fail(f"`{flag}` is not true")
            if format_ < 2 and value:
                _fail(f"`{flag}` in a descriptor of format 1")
        if format_ < 2 and any(entry.nullable for entry in entries):
            _fail("`nullable` in a descriptor of format 1")
        frame = FrameTypes.of(members["frame"]) if "frame" in members else None
        if frame is None and "frame" in members:
            _fail("`frame` is of no frame")
        schema = _schema(members["schema"], schema_crc) if "schema" in members else None
        return cls(
            id_,
            digest,
            version,
            entries,
            schema_crc,
            keys is not None,
            flags["expires"] is True,
            flags["record"] is True,
            frame,
            schema,
        )

    def check_schema(self, data: bytes, file: str) -> None:
        """Raise CorruptionError unless `data`, the bytes of schema file `file`, are the store's."""
        if crc32c(data) != self.schema_crc32c:
            raise CorruptionError(file, 0, f"its checksum is not that in {DESCRIPTOR_FILE}")

    def _members(self) -> dict[str, Any]:
        attrs = {
            entry.name: {
                "dtype": entry.dtype,
                "shape": entry.shape and list(entry.shape),
                **({"nullable": True} if entry.nullable else {}),
            }
            for entry in self.attrs
        }
        return {
            "format": self.format,
            "id": self.id,
            "digest": self.digest,
            **({"keys": "numbers"} if self.numbers else {}),
            **({"expires": True} if self.expires else {}),
            **({"record": True} if self.record else {}),
            "version": self.version,
            "attrs": attrs,
            **({} if self.frame is None else {"frame": self.frame.members}),
            **({} if self.schema is None else {"schema": b64encode(self.schema).decode()}),
            "schema_crc32c": self.schema_crc32c,
        }


def _entry(name: str, value: object) -> AttrEntry:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        _fail(f"attribute {name!r} has no `dtype`")
    nullable = value.get("nullable")
    if nullable is not None and nullable is not True:
        _fail(f"`nullable` of attribute {name!r} is not true")
    shape = value.get("shape")
    if shape is None:
        return AttrEntry(name, value["dtype"], None, nullable is True)
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        _fail(f"the `shape` of attribute {name!r} is not a list of positive numbers")
    return AttrEntry(name, value["dtype"], tuple(shape), nullable is True)


def _schema(text: object, checksum: int) -> bytes:
    try:
        data = b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if crc32c(data) != checksum:
        _fail("`schema` is not what `schema_crc32c` is of")
    return data


def _fail(reason: str) -> NoReturn:
    raise CorruptionError(DESCRIPTOR_FILE, 0, reason)

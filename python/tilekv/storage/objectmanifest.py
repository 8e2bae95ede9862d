"""What spares a reader of many fragments a request for each: their metadata, and how large their files are (docs/format.md 2.7).

It is a copy, written now and then, and counts only while the descriptor and the record of merges have the versions that it names:
until then nothing of it goes. What was flushed since it lacks.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tilekv.names import DESCRIPTOR, FRAGMENT_METADATA
from tilekv.storage.objectclient import Stored
from tilekv.storage.protocol import SMALL_FILE, Storage

SMALL: Final = 64 << 10  # larger metadata is not in it


class Listed(NamedTuple):
    """A fragment: its files by size, and its metadata, unless that is large."""

    files: Mapping[str, int]
    metadata: bytes | None


class Manifest(NamedTuple):
    """What is in it; versions are ETags."""

    descriptor: Stored
    record: Stored | None
    fragments: Mapping[str, Listed]
    moment: int = 0  # when it was written, in ms by the server's clock

    def to_bytes(self) -> bytes:
        """The object: JSON, deflated."""
        members = {
            "descriptor": _named(self.descriptor),
            "record": None if self.record is None else _named(self.record),
            "fragments": {
                name: [files, None if data is None else b64encode(data).decode()]
                for name, (files, data) in self.fragments.items()
            },
        }
        return zlib.compress(json.dumps(members).encode(), 1)

    @classmethod
    def of(cls, found: Stored) -> Manifest | None:
        """None when it is none: then it spares nothing."""
        try:
            members = json.loads(_inflated(found.data))
            fragments = {
                str(name): Listed(
                    {str(file): int(size) for file, size in files.items()},
                    None if text is None else b64decode(text),
                )
                for name, (files, text) in members["fragments"].items()
            }
            record = members["record"]
            return cls(
                _stored(members["descriptor"]),
                None if record is None else _stored(record),
                fragments,
                found.moment,
            )
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
            return None


def is_manifest(data: bytes) -> bool:
    """Whether the checksum at its end holds."""
    try:
        return len(_inflated(data)) > 0
    except (ValueError, zlib.error):
        return False


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    text = inflating.decompress(data, SMALL_FILE)
    if not inflating.eof:  # its checksum comes last
        raise ValueError("it ends early, or is too long")
    return text


def manifest_of(storage: Storage, folders: Iterable[str]) -> Manifest:
    """What web servers need of a store on a disk; what is there has no versions."""
    record = storage.record()
    fragments = {}
    for name in folders:
        files = storage.files(name)
        small = files[FRAGMENT_METADATA] <= SMALL
        file = storage.open_file(name, FRAGMENT_METADATA, False)
        fragments[name] = Listed(files, file.read(0, file.size) if small else None)
    return Manifest(
        _unversioned(storage.read(DESCRIPTOR)),
        _unversioned(record.data) if record else None,
        fragments,
    )


def _unversioned(data: bytes) -> Stored:
    return Stored(data, 0, {"e_tag": "", "version": None})


def _named(found: Stored) -> list[str]:
    return [str(found.version["e_tag"]), b64encode(found.data).decode()]


def _stored(member: list[str]) -> Stored:
    tag, text = member
    return Stored(b64decode(text), 0, {"e_tag": str(tag), "version": None})

"""How a store appears in a bucket, in one step (docs/design.md 6.12).

One object, put there only if there is none, says all that the new store has: its small files, and the names of its fragments if
it was filled before. From then on it is the store. Then its files are put in their places, by whoever comes first, and it goes.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tilekv.errors import CorruptionError
from tilekv.names import ASIDE, DESCRIPTOR, FRAGMENT_METADATA
from tilekv.storage.objectclient import Client
from tilekv.storage.objectlayout import (
    CHOOSING,
    CLOCK,
    CREATING,
    LEASE,
    RECORD,
    split_token,
)

PLACE: Final = f"{ASIDE}/{CREATING}"


@dataclass(frozen=True)
class Creation:
    """A store that is appearing.

    Attributes
    ----------
    files : dict of str to bytes
        Of its root.
    folders : tuple of str
        Its fragments.
    build : str
        Where their metadata is, below `.tilekv/`; empty without fragments.
    record : bytes or None
        The record of its merges.
    replaces : bool
        Whether whatever else is there goes. With no files nothing is there afterwards: a store is removed.
    aside : tuple of str
        What of the build lies below its `.tilekv/` and goes below the store's: fragments that are staged or past.
    locked : bool
        Whether its maker holds the store's lock until it has ended: nobody else ends it without that. What it does is right only
        while no other store can come to the place.
    """

    files: Mapping[str, bytes]
    folders: tuple[str, ...] = ()
    build: str = ""
    record: bytes | None = None
    replaces: bool = False
    aside: tuple[str, ...] = ()
    locked: bool = False

    def to_bytes(self) -> bytes:
        """The object."""
        members = {
            "files": {name: b64encode(data).decode() for name, data in self.files.items()},
            "folders": list(self.folders),
            "build": self.build,
            "record": None if self.record is None else b64encode(self.record).decode(),
            "replaces": self.replaces,
            "aside": list(self.aside),
            "locked": self.locked,
        }
        return json.dumps(members).encode()

    def in_order(self) -> list[str]:
        """The files, in the order in which they are put: the descriptor first, after which no handle of an old store goes on."""
        return sorted(self.files, key=lambda name: name != DESCRIPTOR)

    def is_late(self, descriptor: bytes | None) -> bool:
        """Whether another store, of this descriptor, was there before: this one is withdrawn, or its maker has died."""
        if self.replaces or descriptor is None:
            return False
        return store_id(descriptor) != store_id(self.files.get(DESCRIPTOR))

    @classmethod
    def of(cls, data: bytes) -> Creation:
        """CorruptionError when it is none."""
        try:
            members = json.loads(data)
            record = members["record"]
            return cls(
                {str(name): b64decode(text) for name, text in members["files"].items()},
                tuple(map(str, members["folders"])),
                str(members["build"]),
                None if record is None else b64decode(record),
                members["replaces"] is True,
                tuple(map(str, members.get("aside", ()))),
                members.get("locked") is True,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(PLACE, None, f"it says of no store what it is: {error}") from None


def store_id(descriptor: bytes | None) -> str | None:
    """What a descriptor says that its store is; None of what is none."""
    if descriptor is None:
        return None
    try:
        return str(json.loads(descriptor)["id"])
    except (ValueError, KeyError, TypeError):
        return None


def settle(client: Client, root: str, data: bytes) -> bool:
    """Put a creation's files in their places; False when it has ended meanwhile.

    Whoever sleeps in here and goes on when all is over changes nothing: what is listed before the creation is seen to go on is
    older than its end, names of fragments never come again, and the other files are replaced only as they were then.
    """
    creation = Creation.of(data)
    aside = f"{root}{ASIDE}/"
    there = client.list_all(root)
    if not _goes_on(client, root, data):
        return False
    if DESCRIPTOR in there and creation.is_late(_get(client, root + DESCRIPTOR)):
        client.delete([f"{aside}{CREATING}"])
        return False
    put = {name: creation.files[name] for name in creation.in_order()}
    if creation.record is not None:
        put[f"{ASIDE}/{RECORD}"] = creation.record
    for name, content in put.items():
        if name not in there:
            client.put_new(root + name, content)
        elif creation.replaces:
            client.put_if(root + name, content, there[name].version)
    if creation.replaces and not _remove_others(client, root, put, creation, data):
        return False

    def show(key: str, to: str) -> None:
        try:
            client.copy(f"{aside}{creation.build}/{key}", f"{root}{to}")
        except FileNotFoundError:  # somebody else has done it, and removed the build
            return

    moves = [(f"{ASIDE}/{key}", f"{ASIDE}/{key}") for key in creation.aside]
    moves += [(f"{folder}/{FRAGMENT_METADATA}",) * 2 for folder in creation.folders]
    client.at_once(lambda each: show(*each), moves)
    if creation.build:
        build = f"{aside}{creation.build}/"
        client.delete(build + key for key in client.list_all(build))
    client.delete([f"{aside}{CREATING}"])
    return True


def delete_drafts(client: Client, root: str) -> None:
    """Delete what could still become a fragment: the marks first, see ObjectDraft._show."""
    drafts = f"{root}{ASIDE}/{CHOOSING}/"
    found = client.list_all(drafts)
    for ending in (False, True):
        client.delete(drafts + name for name in found if bool(split_token(name)[1]) is ending)


def _goes_on(client: Client, root: str, data: bytes) -> bool:
    return _get(client, f"{root}{ASIDE}/{CREATING}") == data


def _remove_others(
    client: Client, root: str, put: Iterable[str], creation: Creation, data: bytes
) -> bool:
    """All that the new store has not; False when the creation has ended meanwhile.

    The descriptor is another one by now, and whoever has seen the old one before has put its metadata aside before. So once that
    is gone nothing is shown any more, and what is listed then is all there is.
    """
    if not creation.files:
        client.delete([root + DESCRIPTOR])
    delete_drafts(client, root)
    there = client.list_all(root)
    if not _goes_on(client, root, data):
        return False
    kept = {*put, PLACE, f"{ASIDE}/{LEASE}"}
    if creation.files:
        kept |= {f"{ASIDE}/{each}" for each in (RECORD, CLOCK)}
    folders = {*creation.folders}
    client.delete(
        root + name
        for name in there
        if name not in kept
        and name.partition("/")[0] not in folders
        and not (creation.build and name.startswith(f"{ASIDE}/{creation.build}/"))
    )
    return True


def _get(client: Client, key: str) -> bytes | None:
    try:
        found = client.get(key)
    except FileNotFoundError:
        return None
    return found.data if found else None

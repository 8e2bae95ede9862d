"""Stores in a bucket that go elsewhere, or go (docs/design.md 6.12).

Nothing is renamed there: a store moves by copies within the server. Before the first, nobody can write to it any more: its small
files are in one object, as those of a store that is appearing (`objectcreation`), and its descriptor is gone, which a writer asks
for before it shows a fragment. Readers see no difference. Meanwhile the store's lock is held. When its holder has died, whoever
wants to write takes it and settles that object, and the store is as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from tilekv.errors import InvalidValueError, StoreBusyError
from tilekv.names import ASIDE, DESCRIPTOR, FRAGMENT_METADATA, PAST, STAGED, FragmentName
from tilekv.storage.objectclient import Entry
from tilekv.storage.objectcreation import Creation, delete_drafts, settle
from tilekv.storage.objectlayout import BUILD, CREATING, GONE

if TYPE_CHECKING:
    from tilekv.storage.objectstore import ObjectStorage

_TRIES: Final = 20
_REMOVAL: Final = Creation({}, replaces=True, locked=True).to_bytes()


class _Copies(NamedTuple):
    """What moves: keys, each with where it goes."""

    now: Mapping[str, str]
    later: Mapping[str, str]  # once the store is there: what is no part of it
    creation: Creation


def move(old: ObjectStorage, new: ObjectStorage) -> bool:
    """Give a store another place in its bucket; False when something is there.

    Whatever ends this on its way leaves the store where it was, or in both places.
    """
    if old.client is not new.client:
        raise InvalidValueError(
            f"nothing moves from one bucket to another: tilekv.backup({old.uri!r}, {new.uri!r}), then remove it"
        )
    if new.data.startswith(old.data):
        raise InvalidValueError(f"{new.uri} is in {old.uri}")
    with _locked(old):
        return new.is_empty() and _moved(old, new)


def _moved(old: ObjectStorage, new: ObjectStorage) -> bool:
    client, key = old.client, f"{old.aside}{CREATING}"
    frozen, version = _freeze(old, key)
    try:
        copies = _copied(old, new, Creation.of(frozen).files)
        if not new.appear(copies.creation):
            return False
        client.at_once(lambda each: client.copy(*each), copies.later.items())
        if client.put_if(key, _REMOVAL, version) is None and not old.has(key, _REMOVAL):
            remove(new)
            raise StoreBusyError(f"others write to {old.uri}: it was not moved")
        frozen = _REMOVAL
    finally:
        with suppress(OSError):
            settle(client, old.root, frozen)
        old.forget()
    return True


def remove(storage: ObjectStorage) -> None:
    """Take all that is under a prefix out of sight, by one object, and delete it."""
    key = f"{storage.aside}{CREATING}"
    with _locked(storage):
        for _ in range(_TRIES):
            if storage.client.put_new(key, _REMOVAL) is not None or storage.has(key, _REMOVAL):
                settle(storage.client, storage.root, _REMOVAL)
                storage.forget()
                return
            if found := storage.client.get(key):
                settle(storage.client, storage.root, found.data)
    raise StoreBusyError(f"others create stores at {storage.uri} all the time")


@contextmanager
def _locked(storage: ObjectStorage) -> Iterator[None]:
    with storage.lock() as held:
        if not held:
            raise StoreBusyError(f"another program works on all of {storage.uri}")
        yield


def _freeze(old: ObjectStorage, key: str) -> tuple[bytes, Mapping[str, Any]]:
    """Keep others from writing: what says so, and its version."""
    client = old.client
    files = {name: old.read(name) for name in old.outline().files}
    data = Creation(files, locked=True).to_bytes()
    version = client.put_new(key, data)
    if version is None and (found := client.get(key)) and found.data == data:
        version = found.version
    if version is None:
        raise StoreBusyError(f"a store is being made or moved at {old.uri}: it was not moved")
    client.delete([old.root + DESCRIPTOR])
    delete_drafts(client, old.root)
    return data, version


def _copied(old: ObjectStorage, new: ObjectStorage, files: Mapping[str, bytes]) -> _Copies:
    """Copy all that is in a store to where it can appear."""
    client = old.client
    for _ in range(_TRIES):
        build = f"{BUILD}{uuid4().hex}"
        before, record = client.list_all(old.data), old.record()
        copies = _planned(before, old, new, build)
        try:
            client.at_once(lambda each: client.copy(*each), copies.now.items())
        except FileNotFoundError:
            continue  # a merge or a vacuum is at work
        finally:
            done = old.record() == record and _parts(client.list_all(old.data)) == _parts(before)
            if not done:
                client.delete([*copies.now.values()])
        if done:
            data = record.data if record else None
            return copies._replace(creation=replace(copies.creation, files=files, record=data))
    raise StoreBusyError(f"others merge {old.uri} all the time: it was not moved")


def _planned(
    there: Mapping[str, Entry], old: ObjectStorage, new: ObjectStorage, build: str
) -> _Copies:
    """What is to be copied, of what is listed."""
    now, later = {}, {}
    folders, aside = [], []
    gone = {key.split("/")[2] for key in there if key.startswith(f"{ASIDE}/{GONE}/")}
    for key in sorted(_parts(there)):
        first, *rest = key.split("/")
        if first == ASIDE:
            if rest[1] not in gone:
                aside.append("/".join(rest))
                now[old.data + key] = f"{new.aside}{build}/{key}"
        elif first in gone or not rest:
            continue
        elif FragmentName.parse(first) is None:
            later[old.data + key] = new.data + key
        elif rest == [FRAGMENT_METADATA]:
            folders.append(first)
            now[old.data + key] = f"{new.aside}{build}/{key}"
        else:
            now[old.data + key] = new.data + key
    return _Copies(now, later, Creation({}, tuple(folders), build, aside=tuple(aside)))


def _parts(there: Mapping[str, Entry]) -> set[str]:
    """What of a listing is a part of the store: not what is under way, and not what says so."""
    kept = (f"{ASIDE}/{STAGED}/", f"{ASIDE}/{PAST}/")
    return {key for key in there if key.startswith(kept) or not key.startswith(f"{ASIDE}/")}

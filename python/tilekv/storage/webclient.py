"""Stores on web servers, which list nothing and are only read: their manifest says what is there (docs/cloud.md)."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

from tilekv.errors import CorruptionError, ReadOnlyError
from tilekv.names import ARRAY_SCHEMA, ASIDE, DESCRIPTOR, FRAGMENT_METADATA, KV_SCHEMA, MANIFEST
from tilekv.storage.objectclient import Client, Entry, Stored
from tilekv.storage.objectlayout import RECORD
from tilekv.storage.objectmanifest import Manifest, is_manifest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_MANIFEST: Final = f"{ASIDE}/{MANIFEST}"
_RECORD: Final = f"{ASIDE}/{RECORD}"


class WebClient(Client):
    """A Client for the one store below `root`, which ends with ``/``: lists what its manifest has, and writes nothing.

    The descriptor, the record, and what metadata the manifest has come from there: so all that a reader sees is of one moment.
    """

    def __init__(self, client: Client, root: str) -> None:
        self.place = client.place
        self._client = client
        self._root = root
        self._known: Stored | None = None  # the manifest, as it came
        self._objects: dict[str, Stored | Entry] = {}  # what it says, by key below the root

    def uri_of(self, key: str) -> str:
        """Percent-encoded."""
        return f"{self.place}/{quote(key)}"

    def get(
        self,
        key: str,
        unless: Mapping[str, Any] | None = None,
        sound: Callable[[bytes], bool] | None = None,
    ) -> Stored | None:
        """What the manifest has, or else what the server has."""
        name = key.removeprefix(self._root)
        if (
            name == DESCRIPTOR
        ):  # whoever asks for it wants to know whether it is still the same store
            self._look()
        found = self._objects.get(name)
        if isinstance(found, Stored):
            same = unless is not None and unless["e_tag"] == found.version["e_tag"]
            return None if same else found
        if name in (DESCRIPTOR, _RECORD) or (name.startswith(f"{ASIDE}/") and name != _MANIFEST):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri_of(key))
        return self._client.get(key, unless, sound)

    def get_range(self, key: str, offset: int, n: int) -> bytes:
        """Asks the server."""
        return self._client.get_range(key, offset, n)

    # --- what is there ---

    def list_some(
        self, prefix: str, enough: Callable[[Mapping[str, Entry]], bool]
    ) -> tuple[dict[str, Entry], bool]:
        """All that the manifest has, as it is now."""
        self._look()
        return self.list_all(prefix), True

    def list_all(self, prefix: str) -> dict[str, Entry]:
        """What the manifest has that was read last."""
        inside = prefix.removeprefix(self._root)
        return {
            name[len(inside) :]: found if isinstance(found, Entry) else _entry(found)
            for name, found in self._objects.items()
            if name.startswith(inside)
        }

    def list_folder(self, prefix: str) -> tuple[list[str], dict[str, Entry]]:
        """The same, of the first level."""
        found = self.list_all(prefix)
        folders = {name.partition("/")[0] for name in found if "/" in name}
        return sorted(folders), {name: each for name, each in found.items() if "/" not in name}

    def is_empty(self, prefix: str) -> bool:
        """Whether the manifest, as it is now, has nothing there."""
        self._look()
        return not self.list_all(prefix)

    def _look(self) -> None:
        """Read the manifest, if it has changed."""
        last = self._known
        try:
            known = last.version if last else None
            found = self._client.get(self._root + _MANIFEST, known, is_manifest)
        except FileNotFoundError:
            self._known, self._objects = None, {}
            try:
                self._client.get(self._root + DESCRIPTOR)
            except FileNotFoundError:
                return
            raise OSError(errno.ENOTSUP, _UNLISTED, self.uri_of(self._root)) from None
        if found is None or (last is not None and found.data == last.data):
            return
        manifest = Manifest.of(found)
        if manifest is None:
            raise CorruptionError(_MANIFEST, None, "it is damaged, or none that this tilekv knows")
        self._objects = _objects(manifest)
        self._known = found

    # --- what all requests go through ---

    def _opened(self, repeats: bool = True, renew: ObjectStore | None = None) -> ObjectStore:
        return self._client._opened(repeats, renew)

    def _threads(self) -> ThreadPoolExecutor:
        return self._client._threads()

    # --- what there is not ---

    def put(self, key: str, data: bytes) -> None:
        """See below."""
        self._refuse()

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """See below."""
        self._refuse()

    def _put_on(self, key: str, data: bytes, mode: Any) -> dict[str, Any] | None:
        self._refuse()

    def copy(self, key: str, to: str) -> None:
        """See below."""
        self._refuse()

    def delete(self, keys: Iterable[str]) -> None:
        """See below."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyError(
            f"{self.uri_of(self._root)} is on a web server: stores there are only read"
        )


_UNLISTED: Final = (
    "a web server lists nothing, and the store has no manifest that says what is there: write one, where the store can be "
    "written to, with python -m tilekv manifest STORE"
)


def _objects(manifest: Manifest) -> dict[str, Stored | Entry]:
    """What is in a store, by its manifest: with their data those objects that it has."""
    moment = manifest.moment
    unknown = {"e_tag": None, "version": None}
    # Every store has these; how large they are nobody asks.
    found: dict[str, Stored | Entry] = {
        name: Entry(0, moment, unknown) for name in (KV_SCHEMA, ARRAY_SCHEMA)
    }
    found[DESCRIPTOR] = _stored(manifest.descriptor.data, moment)
    if manifest.record is not None:
        found[_RECORD] = _stored(manifest.record.data, moment)
    for name, (files, metadata) in manifest.fragments.items():
        for file, size in files.items():
            found[f"{name}/{file}"] = Entry(size, moment, unknown)
        if metadata is not None:
            found[f"{name}/{FRAGMENT_METADATA}"] = _stored(metadata, moment)
    return found


def _stored(data: bytes, moment: int) -> Stored:
    tag = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Stored(data, moment, {"e_tag": tag, "version": None})


def _entry(found: Stored) -> Entry:
    return Entry(len(found.data), found.moment, found.version)

"""Old stores opened: each fragment becomes one of tilekv's own, in memory, with the coordinates that it has on disk."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np

from tilekv.errors import CorruptionError, FormatError, InvalidValueError, SnapshotGone
from tilekv.kvcore.base.file import File
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import encode
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.legacy.cipher import Cipher
from tilekv.legacy.fragment import Mask, OldFragment
from tilekv.legacy.names import OldName, committed, visible
from tilekv.legacy.schema import old_version, read_old_schema
from tilekv.names import ARRAY_SCHEMA, FRAGMENT_METADATA, KV_SCHEMA, NEWER_SCHEMAS
from tilekv.opener import MOST_LISTINGS, Opener
from tilekv.probe import Probe
from tilekv.schema import OLD_DIGEST
from tilekv.storage import Listing

_RUN_BYTES: Final = 1 << 20  # raw bytes that are encoded at a time


def check_old_format(found: Probe) -> None:
    """FormatError when it was TileDB 2 that wrote what is there."""
    file, data = _schema_file(found)
    old_version(data, file)


class OldStore:
    """What an old store holds, before any fragment is opened.

    Parameters
    ----------
    found : Probe
        What is there.
    key : bytes or str, optional
        Of an encrypted store: 32 bytes.

    Attributes
    ----------
    schema : Schema
        What tilekv shows of it.

    Raises
    ------
    FormatError
        When it is no key-value store of TileDB 1.3 to 1.7.
    CorruptionError
        When its schema file is damaged.
    InvalidValueError, WrongTypeError
        For a key that is none, is missing, is not needed or does not fit.
    MissingPackageError
        When decryption needs a package that is not installed.
    """

    def __init__(
        self, found: Probe, key: bytes | str | None, mmap: bool, ignore_newer: bool = False
    ) -> None:
        self.found: Final = found
        self.storage: Final = found.storage
        self.mmap: Final = mmap
        self.ignore_newer: Final = ignore_newer
        self.cipher: Final = None if key is None else Cipher(key)
        file, data = _schema_file(found)
        try:
            self.stored: Final = read_old_schema(data, file, self.cipher)
        except CorruptionError:
            if self.cipher is None:
                raise
            raise InvalidValueError(
                f"{self.storage.uri}: the key does not open this store, or {file} is damaged"
            ) from None
        self.schema: Final = self.stored.shown(self._digest())

    def fragment(self, name: OldName) -> OldFragment:
        """Open one. FileNotFoundError when it is gone."""
        opened = self.storage.open_files(name.folder, self.mmap)
        if FRAGMENT_METADATA not in opened:
            raise FileNotFoundError(f"{name.folder}/{FRAGMENT_METADATA}")
        return OldFragment(name, self.stored, opened, self.cipher)

    def _digest(self) -> str:
        """How its keys became coordinates: not the same on Windows, where `long` has 32 bits (docs/format.md 1.1)."""
        listing = self.found.listing
        while True:
            try:
                names = visible(self.storage, listing, None, self.ignore_newer)
                return digest_of(self.fragment(names[0])) if names else OLD_DIGEST
            except FileNotFoundError:
                listing = self.storage.list()  # consolidated since the last one


def digest_of(fragment: OldFragment) -> str:
    """The digest that takes the fragment's first key to its coordinates; CorruptionError when none does."""
    c0, c1 = fragment.coordinates(0)
    types, (starts, data) = fragment.keys(0)
    first = int(types[0]), data[: int(starts[1])].tobytes()
    for name in (OLD_DIGEST, "md5"):
        if coordinates(DIGESTS[name], [first]) == [(int(c0[0]), int(c1[0]))]:
            return name
    raise CorruptionError(
        f"{fragment.name.folder}/__coords.tdb", None, "the coordinates are not those of the keys"
    )


def _schema_file(found: Probe) -> tuple[str, bytes]:
    """The name of a schema file and what is in it; of a newer TileDB's, enough to tell its version."""
    storage = found.storage
    for file in (KV_SCHEMA, ARRAY_SCHEMA):
        if file in found.listing.files:
            return file, storage.read(file)
    newest = max(storage.files(NEWER_SCHEMAS), default=None)
    if newest is None:
        raise CorruptionError(NEWER_SCHEMAS, None, "there is no schema in it")
    opened = storage.open_file(NEWER_SCHEMAS, newest, False)
    return f"{NEWER_SCHEMAS}/{newest}", opened.read(0, min(opened.size, 64))


class OldOpener(Opener):
    """Opens the fragments of an old store; see `Opener`. All at once: which cells count depends on all newer ones."""

    def __init__(
        self, store: OldStore, layout: Layout, cache_bytes: int, mmap: bool, eager: int
    ) -> None:
        super().__init__(
            store.storage, layout, cache_bytes, mmap, eager, "", store.ignore_newer, store.found
        )
        self._store = store

    def superseded(self) -> frozenset[str]:
        """As `Opener.superseded`: the names of their folders."""
        listing = self.storage.list()
        shown = {name.folder for name in visible(self.storage, listing, None, self.ignore_newer)}
        return frozenset(name.folder for name in committed(self.storage, listing)) - shown

    def _names(
        self, timestamp: int | None, opened: dict[str, Fragment], first: Listing | None = None
    ) -> list[str]:
        """As `Opener._names`: nothing may have changed while they were being opened."""
        listing = first or self.storage.list()
        for _ in range(MOST_LISTINGS - 1):
            names = self._rewrite(listing, timestamp, opened)
            again = self.storage.list()
            if names is not None and again == listing:
                return names
            listing = again
        raise SnapshotGone(
            f"{self.storage.uri} was changed again and again while it was being opened"
        )

    def _rewrite(
        self, listing: Listing, timestamp: int | None, opened: dict[str, Fragment]
    ) -> list[str] | None:
        try:
            names = visible(self.storage, listing, timestamp, self.ignore_newer)
            lost = self._lost(names) if len(names) > 1 else [None] * len(names)
            for name, cells in zip(names, lost, strict=True):
                opened[name.shown] = self._rewritten(self._store.fragment(name), cells)
        except FileNotFoundError:
            return None
        return [name.shown for name in names]

    def _lost(self, names: Sequence[OldName]) -> list[Mask | None]:
        """By fragment, the cells whose coordinates a newer fragment has.

        TileDB shows one cell for each pair of coordinates, and its digest gives many keys the same: of those, the key that was
        written last is the only one left.
        """
        found = []
        for name in names:  # opened one after the other: a process may map 65,530 files
            old = self._store.fragment(name)
            tiles = [old.coordinates(tile) for tile in range(old.metadata.tiles)]
            found.append([np.concatenate(halves) for halves in zip(*tiles, strict=True)])
        c0, c1 = (np.concatenate(halves) for halves in zip(*found, strict=True))
        order = np.lexsort((c1, c0))  # stable: the newest of equal coordinates comes first
        again = (np.diff(c0[order]) == 0) & (np.diff(c1[order]) == 0)
        lost = np.zeros(len(c0), bool)
        lost[order[1:]] = again
        ends = np.cumsum([len(halves[0]) for halves in found])
        return list(np.split(lost, ends[:-1]))

    def _rewritten(self, old: OldFragment, lost: Mask | None) -> Fragment:
        """The same cells as a fragment in memory."""
        if digest_of(old) != self._store.schema.digest:
            raise FormatError(
                f"{self.storage.uri}: some fragments were written on Windows and some were not: their keys have different "
                "digests, and TileDB 1.x itself finds only one part of them"
            )
        builder = FragmentBuilder(self.layout)
        files = {slot: BytesIO() for slot, _, _ in self.layout.files}
        for portion in old.portions(self.layout, lost):
            for plan in builder.add(portion):
                for first, last in plan.runs(_RUN_BYTES):
                    files[plan.slot].write(
                        encode(self.layout, portion, plan, first, last, self.codecs)
                    )
                builder.written(plan)
        name = old.name
        metadata = builder.metadata(bytes.fromhex(name.uuid), name.t1, name.t2, bound=False)
        return Fragment(
            self.layout,
            name.shown,
            File.memory(metadata),
            [File.memory(file.getvalue()) for file in files.values()],
            self.cache,
            self.codecs,
        )

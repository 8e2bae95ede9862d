"""Whole stores as what is fuzzed: today's and old ones, read in every way, and salvaged."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.ciphers import aead

import tilekv
from damage import Place
from fuzz_mutations import mutated
from fuzz_samples import (
    KEY,
    PlainCipher,
    consolidated,
    encrypted,
    goldens,
    listed,
    old_stores,
    stored,
)
from fuzz_seals import Files, sealed_store
from fuzz_targets import REFUSED, Target
from tilekv.tools.verify import verify


def packed(files: Files) -> bytes:
    """Files in one input: {u16 size, path, u32 size, bytes} each."""
    parts = []
    for path, data in files.items():
        name = path.encode("utf-8", "surrogateescape")
        parts += [struct.pack("<H", len(name)), name, struct.pack("<I", len(data)), data]
    return b"".join(parts)


def unpacked(data: bytes) -> Files:
    """The files of an input; what is cut is left out."""
    files, at = {}, 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        path = data[at + 2 : at + 2 + size].decode("utf-8", "surrogateescape")
        at += 2 + size
        size = int.from_bytes(data[at : at + 4], "little")
        files[path] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return files


class Stores(Target):
    """Whole stores of tilekv, every checksum in them right: opened, read in every way, checked, consolidated."""

    name = "stores"
    short = 100
    refuses = (*REFUSED, tilekv.StoreNotFoundError)
    key: ClassVar[bytes | None] = None

    def seeds(self) -> Sequence[bytes]:
        return [packed(files) for files in (*goldens().values(), consolidated(), listed())]

    def mutated(self, rng: random.Random, data: bytes, other: bytes) -> bytes:
        files, others = unpacked(data), unpacked(other)
        if not files:
            return data
        path = rng.choice(list(files))
        if rng.random() < 0.4:  # it says where all else is
            path = rng.choice(
                [one for one in files if "metadata" in one or "/" not in one] or [path]
            )
        kind = rng.random()
        if kind < 0.9:
            files[path] = mutated(rng, files[path], others.get(path, b""))
        elif kind < 0.94:
            files[path] = files[rng.choice(list(files))]
        elif kind < 0.97:
            del files[path]
        else:
            files[os.fsdecode(mutated(rng, os.fsencode(path)))] = files[path]
        return packed(files)

    def sealed(self, data: bytes) -> bytes:
        return packed(sealed_store(unpacked(data)))

    def run(self, data: bytes) -> None:
        storage = stored(unpacked(data))
        with contextlib.suppress(*self.refuses, tilekv.InvalidValueError):
            verify(storage.uri)
        try:
            db = tilekv.open(storage.uri, key=self.key)
        except tilekv.InvalidValueError:
            return  # without its descriptor it may seem an encrypted one of TileDB 1.x, and there is no key
        with db:
            self.read(db)
        self.write(storage.uri)

    def read(self, db: tilekv.Store) -> None:
        keys: list[Any] = ["", "text", "key_7", b"bytes", 5, 2**63, 1.5, "gone", np.int32(5)]
        with contextlib.suppress(*REFUSED):
            keys += list(itertools.islice(db, 20))
        attempts: list[Callable[[], object]] = [
            lambda: list(db.items()),
            lambda: [db.get(key) for key in keys],
            lambda: db.get_many(keys * 8),
            lambda: db.read(keys, missing="mask"),
            lambda: [list(batch.keys) for batch in db.scan(rows=3)],
            lambda: len(db),
            db.verify,
            db.info,
        ]
        for attempt in attempts:
            with contextlib.suppress(*REFUSED):
                attempt()

    def write(self, uri: str) -> None:
        """What is written from damaged sources: refused, or whole."""
        with contextlib.suppress(*REFUSED), tilekv.open(uri, "a") as db:
            db.consolidate(vacuum=True)


class OldStores(Stores):
    """Stores of TileDB 1.3 to 1.7, which have no checksums."""

    name = "old stores"
    short = 100

    def seeds(self) -> Sequence[bytes]:
        return [packed(files) for files in old_stores()]

    def sealed(self, data: bytes) -> bytes:
        return data

    def write(self, uri: str) -> None:
        """Nothing is written to old stores."""


class Encrypted(OldStores):
    """Stores that TileDB 1.x encrypted, of an attacker who has the key: nothing behind a tag is safe."""

    name = "encrypted"
    short = 30
    key = KEY

    def seeds(self) -> Sequence[bytes]:
        return [packed(encrypted())]

    def run(self, data: bytes) -> None:
        with mock.patch.object(aead, "AESGCM", PlainCipher):
            super().run(data)


class Salvaged(Stores):
    """Stores that are salvaged: what is copied makes a whole store."""

    name = "salvage"
    short = 60

    def sealed(self, data: bytes) -> bytes:
        """Every other one: what is damaged is found by its checksum, what is sealed is read."""
        return super().sealed(data) if zlib.crc32(data) % 2 else data

    def run(self, data: bytes) -> None:
        storage = stored(unpacked(data))
        new, aside = Place(), Place()
        try:
            report = tilekv.salvage(storage.uri, new.uri, stale=aside.uri)
            for place, count in ((new, report.copied), (aside, report.stale)):
                with tilekv.open(place.uri) as db:
                    assert db.verify() == []
                    assert len(list(db.items())) == len(db) == count
        finally:
            new.close()
            aside.close()


STORES: Sequence[Target] = (Stores(), OldStores(), Encrypted(), Salvaged())

"""One class a store, all with the same few methods; each as its own documentation recommends for speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import lmdb

import tilekv


class Rival(Protocol):
    """What a workload asks of a store."""

    name: str

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """Create a store and write everything, durably."""

    def open(self, path: Path) -> None:
        """Open it for reading."""

    def get(self, keys: list[bytes]) -> None:
        """Look keys up one at a time."""

    def get_many(self, keys: list[bytes]) -> None:
        """Look keys up in batches."""

    def scan(self) -> None:
        """Read all items."""

    def close(self) -> None:
        """Close it."""


class TileKV:
    """tilekv with its defaults."""

    name = "tilekv"

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """put_many, and the flush of close."""
        with tilekv.open(path, "x") as db:
            db.put_many(keys, values)

    def open(self, path: Path) -> None:
        """Mode r."""
        self.db = tilekv.open(path)

    def get(self, keys: list[bytes]) -> None:
        """db[key]."""
        db = self.db
        for key in keys:
            db[key]

    def get_many(self, keys: list[bytes]) -> None:
        """Batches of 10,000."""
        for at in range(0, len(keys), 10_000):
            self.db.get_many(keys[at : at + 10_000])

    def scan(self) -> None:
        """items()."""
        for _ in self.db.items():
            pass

    def close(self) -> None:
        """Close."""
        self.db.close()


class LMDB:
    """py-lmdb: one write transaction with putmulti; reads in one transaction, without copies where it offers none."""

    name = "py-lmdb"
    env: Any

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One transaction, synced."""
        size = 4096 * (64 + sum(map(len, keys)) // 512 + sum(map(len, values)) // 512)
        with lmdb.open(str(path), map_size=max(size, 1 << 24)) as env:
            with env.begin(write=True) as txn, txn.cursor() as cursor:
                cursor.putmulti(zip(keys, values, strict=True))
            env.sync(True)

    def open(self, path: Path) -> None:
        """Read only, no lock, one transaction."""
        self.env = lmdb.open(str(path), readonly=True, lock=False)
        self.txn = self.env.begin()

    def get(self, keys: list[bytes]) -> None:
        """txn.get."""
        get = self.txn.get
        for key in keys:
            get(key)

    def get_many(self, keys: list[bytes]) -> None:
        """cursor.getmulti."""
        with self.txn.cursor() as cursor:
            for at in range(0, len(keys), 10_000):
                cursor.getmulti(keys[at : at + 10_000])

    def scan(self) -> None:
        """A cursor from end to end."""
        with self.txn.cursor() as cursor:
            for _ in cursor:
                pass

    def close(self) -> None:
        """Close."""
        self.txn.abort()
        self.env.close()


RIVALS: tuple[Rival, ...] = (TileKV(), LMDB())

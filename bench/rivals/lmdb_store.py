"""LMDB through py-lmdb."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb

from bench.rivals.rival import Block, Rival


class LMDB(Rival):
    """One write transaction with putmulti; reads in one transaction that stays open."""

    name = "lmdb"
    version = lmdb.__version__
    what = "putmulti in one transaction with sync; txn.get, getmulti and a cursor in one read transaction"
    readahead = True  # its default; its manual advises False for random look-ups in what is larger than memory
    env: Any
    txn: Any

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One transaction."""
        self.write(path, keys, values)

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """A transaction a block, synced at the end."""
        with lmdb.open(str(path), map_size=1 << 40, sync=False) as env:
            for some, values in blocks:
                with env.begin(write=True) as txn, txn.cursor() as cursor:
                    cursor.putmulti(zip(some, values, strict=True))
            env.sync(True)

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """Of the map, without a copy of the value."""
        with self.env.begin(buffers=True) as txn:
            return bytes(txn.get(key)[start:stop])

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Read only, without the lock file. It has no cache of its own."""
        if cache_bytes is not None:
            self._not_offered()
        self.env = lmdb.open(str(path), readonly=True, lock=False, readahead=self.readahead)
        self.txn = self.env.begin()

    def close(self) -> None:
        """Close."""
        self.txn.abort()
        self.env.close()

    def get(self, keys: list[bytes]) -> None:
        """txn.get."""
        get = self.txn.get
        for key in keys:
            get(key)

    def get_many(self, keys: list[bytes]) -> list[Any]:
        """cursor.getmulti gives pairs."""
        with self.txn.cursor() as cursor:
            return cursor.getmulti(keys)

    def items(self) -> int:
        """A cursor from end to end."""
        count = 0
        with self.txn.cursor() as cursor:
            for _key, _value in cursor:
                count += 1
        return count

    def values(self) -> int:
        """The cursor's values."""
        count = 0
        with self.txn.cursor() as cursor:
            for _value in cursor.iternext(keys=False):
                count += 1
        return count

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """One transaction."""
        with self._writable(path) as env, env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(zip(keys, values, strict=True))

    def open_to_write(self, path: Path) -> None:
        """An environment with its defaults: a transaction is synced."""
        self.env = self._writable(path)

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """One transaction."""
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(zip(keys, values, strict=True))

    def close_written(self) -> None:
        """Close."""
        self.env.close()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """txn.delete in one transaction."""
        with self._writable(path) as env, env.begin(write=True) as txn:
            delete = txn.delete
            for key in keys:
                delete(key)

    def many_writers(self) -> None:
        """One at a time: the others wait."""

    def _writable(self, path: Path) -> Any:
        """The manual advises a map of a terabyte where addresses have 64 bits: only what is used takes room."""
        return lmdb.open(str(path), map_size=1 << 40)


STORE = LMDB

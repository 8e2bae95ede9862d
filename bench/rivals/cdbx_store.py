"""CDB, a constant database, through cdbx: a file that is written once, two look-ups of memory to find a key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import cdbx

from bench.rivals.rival import Block, Rival


class CDBX(Rival):
    """Nothing of it can be changed; values are stored as they are, without a checksum."""

    name = "cdbx"
    version = version("cdbx")
    what = "a constant database: written once, no compression, no checksum; synced by us"
    db: cdbx.CDB

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One file."""
        self.load_blocks(path, [(keys, values)], len(keys))

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """One file, synced."""
        path.mkdir()
        with (path / "store.cdb").open("w+b") as file:
            maker = cdbx.CDB.make(file)
            add = maker.add
            for some, values in blocks:
                for key, value in zip(some, values, strict=True):
                    add(key, value)
            maker.commit().close()
            os.fsync(file.fileno())

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """A map of the file."""
        if cache_bytes is not None:
            self._not_offered()
        self.db = cdbx.CDB(str(path / "store.cdb"))

    def close(self) -> None:
        """Close."""
        self.db.close()

    def get(self, keys: list[bytes]) -> None:
        """db.get."""
        get = self.db.get
        for key in keys:
            get(key)

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """db[key], cut."""
        value: bytes = self.db[key]
        return value[start:stop]

    def items(self) -> int:
        """items()."""
        count = 0
        for _key, _value in self.db.items():
            count += 1
        return count


STORE = CDBX

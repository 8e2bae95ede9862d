"""What a workload asks of a store."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

Block = tuple[list[bytes], list[bytes]]  # keys and their values


class NotOffered(Exception):
    """The store has no such operation, or cannot be used here."""


class Rival:
    """A store in the folder `path`; keys and values are bytes.

    A subclass says what it offers by overriding it. What it writes is durable when the method returns, and what it
    reads it turns into the objects that a program gets. An open handle is kept as the subclass likes, between `open`
    and `close`.
    """

    name: str
    version: str
    what: str  # how it is used, in one line
    in_memory = False  # nothing on disk that another process could open
    lookups = (
        1 << 62
    )  # one at a time, of a round: fewer where one takes long; figures are per look-up

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """Create the store and write all, durably."""
        raise NotImplementedError

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """Create the store from blocks of keys and values, durably: what is too much for two lists. `keys` is how many come."""
        self._not_offered()

    def settle(self, path: Path) -> None:
        """Give the store the time it wants after a load, before it is read; not timed."""

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Open it for reading; with `cache_bytes` its own cache is limited to so many."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what `open` opened."""
        raise NotImplementedError

    def get(self, keys: list[bytes]) -> None:
        """Look up one at a time; all are there."""
        raise NotImplementedError

    def miss(self, keys: list[bytes]) -> None:
        """Look up one at a time; none is there."""
        self.get(keys)

    def get_many(self, keys: list[bytes]) -> list[Any]:
        """Look up all, in whatever batches are fastest; values in the order asked, or (key, value) pairs."""
        self._not_offered()

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """A part of one value."""
        self._not_offered()

    def read(self, keys: list[bytes]) -> int:
        """Look up all, into columns; return the bytes of the values."""
        self._not_offered()

    def items(self) -> int:
        """Iterate over all (key, value) pairs; return how many."""
        self._not_offered()

    def values(self) -> int:
        """Iterate over all values; return how many."""
        self._not_offered()

    def scan(self) -> int:
        """Read everything in columns; return how many cells."""
        self._not_offered()

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """Write to the store that is there, durably; with 1 thread where the number can be set."""
        self._not_offered()

    def open_to_write(self, path: Path) -> None:
        """A new store, that stays open for any number of `commit` until `close_written`."""
        self._not_offered()

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """Write to the store that `open_to_write` opened, durably."""
        self._not_offered()

    def close_written(self) -> None:
        """Close what `open_to_write` opened."""
        self._not_offered()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """Delete keys that are there, durably."""
        self._not_offered()

    def load_rows(self, path: Path, keys: list[bytes], columns: dict[str, list[Any]]) -> None:
        """Create the store with several attributes a key: JSON, unless the store has columns of its own."""
        rows = zip(*columns.values(), strict=True)
        values = [json.dumps(dict(zip(columns, row, strict=True))).encode() for row in rows]
        self.load(path, keys, values)
        self.settle(path)

    def read_rows(self, keys: list[bytes], names: list[str]) -> list[list[Any]]:
        """Some attributes of all keys, a column each."""
        found = self.get_many(keys)
        rows = [json.loads(one[1] if isinstance(one, tuple) else one) for one in found]
        return [[row[name] for row in rows] for name in names]

    def load_parts(self, path: Path, parts: list[tuple[list[bytes], list[bytes]]]) -> None:
        """Create the store with one immutable file, or folder, a part."""
        self._not_offered()

    def consolidate(self, path: Path) -> None:
        """Merge what `load_parts` made into one."""
        self._not_offered()

    def many_writers(self) -> None:
        """Raise NotOffered unless several processes may write to one store at once."""
        self._not_offered()

    def processes(self) -> list[int]:
        """The processes whose memory is the store's."""
        return [os.getpid()]

    def disk_bytes(self, path: Path) -> int:
        """Bytes of the disk's blocks that the store takes."""
        return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())

    def remove(self, path: Path) -> None:
        """Remove a store, if there is one."""
        shutil.rmtree(path, ignore_errors=True)

    def stop(self) -> None:
        """End what `__init__` began."""

    def _not_offered(self) -> NoReturn:
        raise NotOffered(f"{self.name} does not offer it")

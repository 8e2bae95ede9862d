"""A Python dict: not a store, but the ceiling of what a program can see."""

from __future__ import annotations

import platform
from pathlib import Path

from bench.rivals.rival import Rival


class Dict(Rival):
    """In memory; nothing of it is durable."""

    name = "dict"
    version = platform.python_version()
    what = "in memory, nothing durable: the ceiling"
    in_memory = True
    table: dict[bytes, bytes]

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One dict."""
        self.table = dict(zip(keys, values, strict=True))

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Nothing to open."""
        if cache_bytes is not None:
            self._not_offered()

    def close(self) -> None:
        """Nothing to close."""

    def get(self, keys: list[bytes]) -> None:
        """table[key]."""
        table = self.table
        for key in keys:
            table[key]

    def miss(self, keys: list[bytes]) -> None:
        """table.get(key)."""
        get = self.table.get
        for key in keys:
            get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """A list comprehension."""
        table = self.table
        return [table[key] for key in keys]

    def items(self) -> int:
        """items()."""
        count = 0
        for _key, _value in self.table.items():
            count += 1
        return count

    def values(self) -> int:
        """values()."""
        count = 0
        for _value in self.table.values():
            count += 1
        return count

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """update."""
        self.table.update(zip(keys, values, strict=True))

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """del."""
        table = self.table
        for key in keys:
            del table[key]

    def remove(self, path: Path) -> None:
        """Forget the dict."""
        self.table = {}


STORE = Dict

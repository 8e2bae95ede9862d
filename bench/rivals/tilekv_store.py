"""tilekv, with its defaults."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import tilekv
from bench.rivals.rival import Block, Rival
from tilekv import LZ4Filter


class TileKV(Rival):
    """`tilekv.open`."""

    name = "tilekv"
    version = tilekv.__version__
    what = "defaults"
    lz4 = False  # values compressed with it instead of zstd
    fragments = 1  # that `load_blocks` makes

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """put_many and flush."""
        with tilekv.open(path, "x") as db:
            db.put_many(keys, values)

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """put_many, which flushes by itself; or a flush a fragment, each of as many keys."""
        filters = [LZ4Filter()] if self.lz4 else None
        schema = tilekv.Schema([tilekv.Attr("value", bytes, filters=filters)])
        config = {"kv.upkeep": "off"} | (
            {} if self.fragments == 1 else {"kv.buffer_bytes": "8 GiB"}
        )
        with tilekv.open(path, "x", schema=schema, config=config) as db:
            done = flushed = 0
            for some, values in blocks:
                db.put_many(some, values)
                done += len(some)
                if self.fragments > 1 and done * self.fragments >= keys * (flushed + 1):
                    db.flush()
                    flushed += 1

    def settle(self, path: Path) -> None:
        """Merge what a load has flushed by itself into one fragment."""
        with tilekv.open(path, "a") as db:
            if self.fragments == 1 and len(db.fragments) > 1:
                db.consolidate(vacuum=True)

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """get_range."""
        part: bytes = self.db.get_range(key, start, stop)
        return part

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Mode r."""
        config = None if cache_bytes is None else {"kv.cache_bytes": cache_bytes}
        self.db = tilekv.open(path, config=config)

    def close(self) -> None:
        """Close."""
        self.db.close()

    def get(self, keys: list[bytes]) -> None:
        """db[key]."""
        db = self.db
        for key in keys:
            db[key]

    def miss(self, keys: list[bytes]) -> None:
        """db.get(key)."""
        get = self.db.get
        for key in keys:
            get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """One call."""
        return self.db.get_many(keys)

    def read(self, keys: list[bytes]) -> int:
        """One call; offsets and bytes."""
        return len(self.db.read(keys)["value"].data)

    def items(self) -> int:
        """items()."""
        count = 0
        for _key, _value in self.db.items():
            count += 1
        return count

    def values(self) -> int:
        """values()."""
        count = 0
        for _value in self.db.values():
            count += 1
        return count

    def scan(self) -> int:
        """scan()."""
        return sum(len(batch) for batch in self.db.scan())

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """put_many and flush in mode a."""
        with tilekv.open(path, "a", config={"kv.threads": threads}) as db:
            db.put_many(keys, values)

    def open_to_write(self, path: Path) -> None:
        """Mode x."""
        self.db = tilekv.open(path, "x")

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """put_many and flush."""
        self.db.put_many(keys, values)
        self.db.flush()

    def close_written(self) -> None:
        """Close."""
        self.db.close()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """delete_many and flush."""
        with tilekv.open(path, "a") as db:
            db.delete_many(keys)

    def load_rows(self, path: Path, keys: list[bytes], columns: dict[str, list[Any]]) -> None:
        """An attribute a column: text, or int64."""
        schema = tilekv.Schema(
            [tilekv.Attr(name, type(column[0])) for name, column in columns.items()]
        )
        with tilekv.open(path, "x", schema=schema) as db:
            db.put_many(keys, **columns)

    def read_rows(self, keys: list[bytes], names: list[str]) -> list[list[Any]]:
        """read, and the columns as lists."""
        batch = self.db.read(keys, attrs=names)
        return [
            column.tolist() if isinstance(column, np.ndarray) else column.to_list()
            for column in (batch[name] for name in names)
        ]

    def load_parts(self, path: Path, parts: list[tuple[list[bytes], list[bytes]]]) -> None:
        """A flush a part."""
        with tilekv.open(path, "x") as db:
            for keys, values in parts:
                db.put_many(keys, values)
                db.flush()

    def consolidate(self, path: Path) -> None:
        """consolidate()."""
        with tilekv.open(path, "a") as db:
            db.consolidate()

    def many_writers(self) -> None:
        """Any number."""


STORE = TileKV

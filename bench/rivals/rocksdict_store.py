"""RocksDB through rocksdict."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from bench.rivals.rival import Block, Rival

BATCH = 10_000  # puts of one WriteBatch


class RocksDict(Rival):
    """Raw mode (bytes as they are), zstd, bloom filters, a cache as large as tilekv's."""

    name = "rocksdict"
    version = version("rocksdict")
    what = (
        "raw mode, zstd, bloom filters of 10 bits, 256 MiB block cache; WriteBatch without the log and a flush "
        "at the end; compact_range before reads"
    )
    point_lookups = False  # its optimize_for_point_lookup: a hash index in each block besides
    parts = 1  # that `load_blocks` makes

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """WriteBatches into memtables, flushed and synced at the end: what RocksDB's manual advises for bulk loads."""
        self.write(path, keys, values)

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """WriteBatches into memtables; or a flush a part, each of as many keys, and no compaction meanwhile."""
        options = self._options()
        if self.parts > 1:
            options.set_disable_auto_compactions(True)
            options.set_write_buffer_size(8 << 30)
        with Rdict(str(path), options) as db:
            done = flushed = 0
            for some, values in blocks:
                self._put(db, some, values)
                done += len(some)
                if self.parts > 1 and done * self.parts >= keys * (flushed + 1):
                    db.flush()
                    flushed += 1
            db.flush()

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """db[key], cut."""
        value: bytes = self.db[key]
        return value[start:stop]

    def settle(self, path: Path) -> None:
        """Compact everything into the last level, unless it is to be in parts."""
        if self.parts == 1:
            self.consolidate(path)

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Read only."""
        cache = 256 << 20 if cache_bytes is None else cache_bytes
        self.db = self._db(path, cache, AccessType.read_only())

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
        """db[list of keys]: RocksDB's MultiGet."""
        values: list[bytes] = self.db[keys]
        return values

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

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """WriteBatches and a flush."""
        with self._db(path) as db:
            self._put(db, keys, values)
            db.flush()

    def open_to_write(self, path: Path) -> None:
        """A database, and options that sync its write-ahead log."""
        self.db = self._db(path)
        self.synced = WriteOptions()
        self.synced.sync = True

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """One WriteBatch, in the log when this returns."""
        batch = WriteBatch(raw_mode=True)
        for key, value in zip(keys, values, strict=True):
            batch.put(key, value)
        self.db.write(batch, self.synced)

    def close_written(self) -> None:
        """Close."""
        self.db.close()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """Deletes in WriteBatches and a flush."""
        with self._db(path) as db:
            for at in range(0, len(keys), BATCH):
                batch = WriteBatch(raw_mode=True)
                for key in keys[at : at + BATCH]:
                    batch.delete(key)
                db.write(batch, self._without_log())
            db.flush()

    def load_parts(self, path: Path, parts: list[tuple[list[bytes], list[bytes]]]) -> None:
        """A flush a part, no compaction meanwhile."""
        options = self._options()
        options.set_disable_auto_compactions(True)
        with Rdict(str(path), options) as db:
            for keys, values in parts:
                self._put(db, keys, values)
                db.flush()

    def consolidate(self, path: Path) -> None:
        """compact_range."""
        with self._db(path) as db:
            db.compact_range(None, None)

    def _put(self, db: Rdict, keys: list[bytes], values: list[bytes]) -> None:
        for at in range(0, len(keys), BATCH):
            batch = WriteBatch(raw_mode=True)
            put = batch.put
            for key, value in zip(keys[at : at + BATCH], values[at : at + BATCH], strict=True):
                put(key, value)
            db.write(batch, self._without_log())

    def _without_log(self) -> WriteOptions:
        options = WriteOptions()
        options.disable_wal = True
        return options

    def _db(
        self, path: Path, cache_bytes: int = 256 << 20, access: AccessType | None = None
    ) -> Rdict:
        """A database, new or not.

        One that is there must be given its column family's options too: rocksdict 0.3.29 takes them from the
        database's OPTIONS file otherwise, with a block cache of 8 MiB and filters that are not read.
        """
        options = self._options(cache_bytes)
        families = {"default": options} if path.exists() else None
        return Rdict(str(path), options, families, access or AccessType.read_write())

    def _options(self, cache_bytes: int = 256 << 20) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(DBCompressionType.zstd())
        options.increase_parallelism(os.cpu_count() or 1)
        options.set_write_buffer_size(64 << 20)
        options.set_max_write_buffer_number(4)
        if self.point_lookups:
            options.optimize_for_point_lookup(cache_bytes >> 20)
            return options
        table = BlockBasedOptions()
        table.set_block_cache(Cache(cache_bytes))
        table.set_bloom_filter(10, False)
        table.set_format_version(5)
        options.set_block_based_table_factory(table)
        return options


STORE = RocksDict

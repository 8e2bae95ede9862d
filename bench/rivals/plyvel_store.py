"""LevelDB through plyvel."""

from __future__ import annotations

from pathlib import Path

import plyvel

from bench.rivals.rival import Rival

BATCH = 10_000  # puts of one write_batch


class Plyvel(Rival):
    """Snappy (its only compression), bloom filters, a cache as large as tilekv's."""

    name = "plyvel"
    version = plyvel.__version__
    what = (
        "snappy, bloom filters of 10 bits, 256 MiB cache, 64 MiB write buffer; write_batch, the last one with sync; "
        "compact_range before reads"
    )

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """Batches; the sync of the last one covers the log before it."""
        self.write(path, keys, values)

    def settle(self, path: Path) -> None:
        """Compact everything into the last level."""
        with self._db(path) as db:
            db.compact_range()

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """It has no read-only mode."""
        self.db = self._db(path, 256 << 20 if cache_bytes is None else cache_bytes)

    def close(self) -> None:
        """Close."""
        self.db.close()

    def get(self, keys: list[bytes]) -> None:
        """db.get."""
        get = self.db.get
        for key in keys:
            get(key)

    def items(self) -> int:
        """iterator()."""
        count = 0
        for _key, _value in self.db.iterator(fill_cache=False):
            count += 1
        return count

    def values(self) -> int:
        """iterator(include_key=False)."""
        count = 0
        for _value in self.db.iterator(include_key=False, fill_cache=False):
            count += 1
        return count

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """Batches."""
        with self._db(path) as db:
            for at in range(0, len(keys), BATCH):
                with db.write_batch(sync=at + BATCH >= len(keys)) as batch:
                    put = batch.put
                    for pair in zip(keys[at : at + BATCH], values[at : at + BATCH], strict=True):
                        put(*pair)

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """Deletes in batches."""
        with self._db(path) as db:
            for at in range(0, len(keys), BATCH):
                with db.write_batch(sync=at + BATCH >= len(keys)) as batch:
                    for key in keys[at : at + BATCH]:
                        batch.delete(key)

    def _db(self, path: Path, cache_bytes: int = 256 << 20) -> plyvel.DB:
        return plyvel.DB(
            str(path),
            create_if_missing=True,
            lru_cache_size=cache_bytes,
            bloom_filter_bits=10,
            write_buffer_size=64 << 20,
        )


STORE = Plyvel

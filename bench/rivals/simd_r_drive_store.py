"""simd-r-drive: one append-only file, uncompressed, its index of 64-bit hashes rebuilt in memory at every open."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from simd_r_drive import DataStore

from bench.rivals.rival import Rival


class SimdRDrive(Rival):
    """Keys are not stored, so that it cannot list them."""

    name = "simd-r-drive"
    version = version("simd-r-drive-py")
    what = "batch_write and fsync; read"

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One batch; it syncs nothing itself."""
        path.mkdir()
        self.write(path, keys, values)

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Rebuilds the index. It has no cache of its own."""
        if cache_bytes is not None:
            self._not_offered()
        self.store = DataStore(str(path / "store"))

    def close(self) -> None:
        """It has no close."""
        del self.store

    def get(self, keys: list[bytes]) -> None:
        """read, which copies into bytes."""
        read = self.store.read
        for key in keys:
            read(key)

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """batch_write."""
        store = DataStore(str(path / "store"))
        store.batch_write(list(zip(keys, values, strict=True)))
        del store
        self._sync(path)

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """One at a time."""
        store = DataStore(str(path / "store"))
        for key in keys:
            store.delete(key)
        del store
        self._sync(path)

    def _sync(self, path: Path) -> None:
        for each in (path / "store", path):
            descriptor = os.open(each, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


STORE = SimdRDrive

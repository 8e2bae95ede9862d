"""Tkrzw's HashDBM through its own Python interface, which Debian packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.rivals.rival import Block, NotOffered, Rival

DEBIAN = Path("/usr/lib/python3/dist-packages")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends python3-tkrzw"
BATCH = 10_000  # keys of one GetMulti


def module() -> Any:
    """tkrzw as it is installed here, or Debian's, which every interpreter of the same version can load."""
    spec = importlib.util.find_spec("tkrzw")
    if spec is None:
        for file in DEBIAN.glob(f"tkrzw.{sys.implementation.cache_tag}-*.so"):
            spec = importlib.util.spec_from_file_location("tkrzw", file)
    if spec is None or spec.loader is None:
        raise NotOffered(
            f"tkrzw is not installed for this interpreter. As root, for Debian's own: {INSTALL}"
        )
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Tkrzw(Rival):
    """Two buckets a key, as its manual advises; updates in place."""

    name = "tkrzw"
    what = "HashDBM, two buckets a key, no compression, no checksum; db[key] = value, and Synchronize to the device at the end"
    db: Any

    def __init__(self) -> None:
        self.tkrzw = module()
        self.version = self.tkrzw.Utility.VERSION

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """db[key] = value."""
        self.load_blocks(path, [(keys, values)], len(keys))

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """db[key] = value."""
        path.mkdir()
        self._open(path, writable=True, num_buckets=2 * keys)
        for some, values in blocks:
            self._put(some, values)
        self._settled()

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Read only."""
        if cache_bytes is not None:
            self._not_offered()
        self._open(path, writable=False)

    def close(self) -> None:
        """Close."""
        self.db.Close().OrDie()

    def get(self, keys: list[bytes]) -> None:
        """Get."""
        get = self.db.Get
        for key in keys:
            get(key)

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """Get, cut."""
        value: bytes = self.db[key]
        return value[start:stop]

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """GetMulti, put into the order asked."""
        values: list[bytes] = []
        for at in range(0, len(keys), BATCH):
            some = keys[at : at + BATCH]
            found = self.db.GetMulti(*some)
            values += [found[key] for key in some]
        return values

    def items(self) -> int:
        """The database as an iterable of pairs."""
        count = 0
        for _key, _value in self.db:
            count += 1
        return count

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """db[key] = value."""
        self._open(path, writable=True)
        self._put(keys, values)
        self._settled()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """Remove."""
        self._open(path, writable=True)
        remove = self.db.Remove
        for key in keys:
            remove(key).OrDie()
        self._settled()

    def _open(self, path: Path, *, writable: bool, **options: int) -> None:
        self.db = self.tkrzw.DBM()
        self.db.Open(str(path / "store.tkh"), writable, **options).OrDie()

    def _put(self, keys: list[bytes], values: list[bytes]) -> None:
        db = self.db
        for key, value in zip(keys, values, strict=True):
            db[key] = value

    def _settled(self) -> None:
        self.db.Synchronize(True).OrDie()
        self.close()


STORE = Tkrzw

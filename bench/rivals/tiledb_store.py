"""TileDB: the same data in a sparse array of two uint64 dimensions, which are a digest of the key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tiledb

from bench.rivals.rival import Rival

LAST = 2**64 - 2 - 1024  # the end of the domain: a tile extent must fit behind it


class TileDB(Rival):
    """Attributes key and value, zstd; the keys' digests are computed once, outside the array."""

    name = "tiledb"
    version = tiledb.__version__
    what = "sparse array, two uint64 dimensions (BLAKE2b of the key), capacity 1,024, zstd 1; one write; multi_index"
    lookups = 500

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """One write: one fragment."""
        filters = tiledb.FilterList([tiledb.ZstdFilter(level=1)])
        dimensions = [
            tiledb.Dim(name, domain=(0, LAST), tile=1024, dtype=np.uint64) for name in ("c0", "c1")
        ]
        attributes = [
            tiledb.Attr(name, dtype="S0", var=True, filters=filters) for name in ("key", "value")
        ]
        schema = tiledb.ArraySchema(
            tiledb.Domain(*dimensions), attributes, sparse=True, capacity=1024, cell_order="hilbert"
        )
        tiledb.Array.create(str(path), schema)
        self.write(path, keys, values)

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """Mode r."""
        if cache_bytes is not None:
            self._not_offered()
        self.array = tiledb.open(str(path))

    def close(self) -> None:
        """Close."""
        self.array.close()

    def get(self, keys: list[bytes]) -> None:
        """multi_index at one point; the key is compared."""
        at = self.array.multi_index
        for key in keys:
            c0, c1 = (int(half) for half in digests([key])[0])
            found = at[c0, c1]
            for stored, value in zip(found["key"], found["value"], strict=True):
                if stored == key:
                    bytes(value)

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """multi_index at all first coordinates: a list of them for each dimension would be their product."""
        found = self._read(keys)
        table = dict(zip(found["key"], found["value"], strict=True))
        return [table[key] for key in keys]

    def read(self, keys: list[bytes]) -> int:
        """The same, as the arrays that TileDB-Py makes: of objects."""
        return sum(map(len, self._read(keys)["value"]))

    def _read(self, keys: list[bytes]) -> dict[str, npt.NDArray[np.object_]]:
        found: dict[str, npt.NDArray[np.object_]] = self.array.multi_index[
            sorted(digests(keys)[:, 0].tolist()), :
        ]
        return found

    def items(self) -> int:
        """Everything at once."""
        found = self.array[:]
        count = 0
        for _key, _value in zip(found["key"], found["value"], strict=True):
            count += 1
        return count

    def values(self) -> int:
        """The attribute value, at once."""
        return len(self.array.query(attrs=["value"], dims=False)[:]["value"])

    def scan(self) -> int:
        """Everything at once, as arrays."""
        return len(self.array[:]["value"])

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """One write."""
        at = digests(keys)
        with tiledb.open(str(path), "w") as array:
            array[at[:, 0], at[:, 1]] = {
                "key": np.array(keys, dtype=object),
                "value": np.array(values, dtype=object),
            }

    def load_parts(self, path: Path, parts: list[tuple[list[bytes], list[bytes]]]) -> None:
        """A write a part."""
        self.load(path, *parts[0])
        for keys, values in parts[1:]:
            self.write(path, keys, values)

    def consolidate(self, path: Path) -> None:
        """consolidate."""
        tiledb.consolidate(str(path))

    def many_writers(self) -> None:
        """Any number."""


def digests(keys: list[bytes]) -> npt.NDArray[np.uint64]:
    """(keys, 2), within the domain."""
    blake2b = hashlib.blake2b
    raw = b"".join([blake2b(key, digest_size=16).digest() for key in keys])
    return np.minimum(np.frombuffer(raw, "<u8").reshape(-1, 2), np.uint64(LAST))


STORE = TileDB

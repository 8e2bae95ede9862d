"""A store of tilekv in the folder of a TileDB array or a zarr group, and what both hold while each is worked on.

    python attached.py KIND FOLDER KV STEPS OUT

KIND is a name in HOSTS, FOLDER the array or group, KV the store, both to be made. STEPS is a JSON list of [what, number] with the
names of `perform`; before the first one, cell 0 is written and the store made. OUT becomes a list, after each step {"cells":
{place: value}, "members": [name], "kv": {key: value}, "said": [warning]}, of handles that are opened for that.

A program of its own: TileDB and zarr start threads, and then nobody must fork.
"""

import json
import sys
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

import tilekv

CELLS = 8
SMALL = {
    "sm.consolidation.buffer_size": "10000",
    "sm.consolidation.total_buffer_size": "100000",
    "sm.compute_concurrency_level": "1",
    "sm.io_concurrency_level": "1",
    "py.init_buffer_bytes": "10000",
}
MODES = ("fragments", "fragment_meta", "commits", "array_meta")


class Host(ABC):
    """What the store is attached to: a row of CELLS numbers."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @abstractmethod
    def create(self) -> None:
        """Make it, without a number."""

    @abstractmethod
    def write(self, n: int) -> None:
        """Put 10 n into cell n."""

    @abstractmethod
    def cells(self) -> dict[int, int]:
        """The numbers that are there."""

    @abstractmethod
    def members(self) -> list[str]:
        """What the library lists."""

    @abstractmethod
    def tend(self) -> None:
        """All upkeep that the library has."""


class SparseArray(Host):
    """An array of TileDB."""

    sparse = True

    def create(self) -> None:
        import tiledb

        # TileDB touches all of its buffers, whatever it reads: with those it has by default this takes six times as long.
        tiledb.default_ctx(SMALL)
        dimension = tiledb.Dim("d", domain=(0, CELLS - 1), tile=2, dtype=np.uint64)
        schema = tiledb.ArraySchema(
            tiledb.Domain(dimension), [tiledb.Attr("v", dtype=np.int64)], sparse=self.sparse
        )
        tiledb.Array.create(self.folder, schema)

    def write(self, n: int) -> None:
        import tiledb

        with tiledb.open(self.folder, "w") as array:
            array.meta[f"wrote {n}"] = n
            array[n] = 10 * n

    def cells(self) -> dict[int, int]:
        import tiledb

        with tiledb.open(self.folder) as array:
            found = array[:]
        return dict(zip(found["d"].tolist(), found["v"].tolist(), strict=True))

    def members(self) -> list[str]:
        import tiledb

        with tiledb.open(self.folder) as array:
            return sorted([tiledb.object_type(self.folder), *array.meta.keys()])

    def tend(self) -> None:
        import tiledb

        for mode in MODES:
            tiledb.consolidate(
                self.folder, config=tiledb.Config(SMALL | {"sm.consolidation.mode": mode})
            )
        for mode in MODES:
            tiledb.vacuum(self.folder, config=tiledb.Config(SMALL | {"sm.vacuum.mode": mode}))


class DenseArray(SparseArray):
    """One that has a cell at every place; those that were not written show the least number."""

    sparse = False

    def write(self, n: int) -> None:
        import tiledb

        with tiledb.open(self.folder, "w") as array:
            array.meta[f"wrote {n}"] = n
            array[n : n + 1] = np.array([10 * n])

    def cells(self) -> dict[int, int]:
        import tiledb

        with tiledb.open(self.folder) as array:
            found = array[:]["v"].tolist()
        return {n: value for n, value in enumerate(found) if value >= 0}


class ZarrGroup(Host):
    """A group with an array and a group within."""

    def create(self) -> None:
        import zarr

        group = zarr.open_group(zarr.storage.LocalStore(self.folder), mode="w-")
        group.create_array("cells", shape=(CELLS,), chunks=(2,), dtype="i8", fill_value=-1)
        group.create_group("within").create_array("other", shape=(1,), dtype="f8")

    def write(self, n: int) -> None:
        import zarr

        group = zarr.open_group(self.folder, mode="r+")
        group["cells"][n] = 10 * n
        group.attrs[f"wrote {n}"] = n

    def cells(self) -> dict[int, int]:
        import zarr

        found = zarr.open_group(self.folder, mode="r")["cells"][:].tolist()
        return {n: value for n, value in enumerate(found) if value >= 0}

    def members(self) -> list[str]:
        import zarr

        group = zarr.open_group(self.folder, mode="r", use_consolidated=False)
        return sorted([name for name, _ in group.members(max_depth=None)] + [*group.attrs])

    def tend(self) -> None:
        import zarr

        group = zarr.open_group(self.folder, mode="r+", use_consolidated=False)
        group.create_array("passing", shape=(1,), dtype="i4")
        del group["passing"]
        group["cells"].resize((2 * CELLS,))
        group["cells"].resize((CELLS,))
        zarr.consolidate_metadata(self.folder, zarr_format=3)


HOSTS = {"sparse": SparseArray, "dense": DenseArray, "group": ZarrGroup}


def perform(host: Host, kv: str, what: str, n: int) -> None:
    """One step. Handles are closed before the next, but in `both`, which writes with both libraries at a time."""
    if what == "write":
        host.write(n)
    elif what == "tend":
        host.tend()
    else:
        with tilekv.open(kv, "a") as db:
            if what == "kv write":
                db[f"key {n}"] = n
            elif what == "kv delete":
                del db[f"key {n}"]
            elif what == "kv tend":
                db.consolidate(vacuum=True)
            elif what == "both":
                db[f"key {n}"] = n
                host.write(n)
                host.tend()
            else:
                raise ValueError(what)


def look(host: Host, kv: str) -> dict[str, Any]:
    """What both hold."""
    with tilekv.open(kv) as db:
        assert db.verify() == []
        held = dict(db)
    return {"cells": host.cells(), "members": host.members(), "kv": held}


def main(kind: str, folder: str, kv: str, steps: str, out: str) -> None:
    host = HOSTS[kind](folder)
    host.create()
    host.write(0)
    tilekv.open(kv, "x", schema=tilekv.Schema([tilekv.Attr("value", "int64")])).close()
    found = []
    for what, n in json.loads(steps):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            # Between TileDB-Py 0.36 and NumPy 2.5, whatever is in the folder.
            warnings.simplefilter("ignore", DeprecationWarning)
            perform(host, kv, what, n)
            state = look(host, kv)
        found.append(state | {"said": sorted({str(one.message) for one in said})})
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Adapters over stores in a bucket, here one in memory."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import numpy as np
import pytest
import zarr

from bucket_stores import bucket_in_memory
from tilekv.torch import StoreDataset
from tilekv.zarr import TilekvStore


@pytest.fixture
def bucket() -> Iterator[str]:
    with bucket_in_memory() as place:
        yield place


def test_arrays(bucket: str) -> None:
    """They are read and written by threads, since a request may take long: of one handle all the same."""
    values = np.arange(10_000, dtype="int32").reshape(100, 100)
    with TilekvStore(f"{bucket}/cells.kv") as store:
        zarr.open_group(store, mode="w").create_array("a", data=values, chunks=(10, 10))
    with TilekvStore(f"{bucket}/cells.kv", read_only=True) as store:
        np.testing.assert_array_equal(
            zarr.open_group(store, mode="r")["a"][5:95, 5:95], values[5:95, 5:95]
        )
        assert len(store.db.fragments) == 1
        assert len(store.db.scan_keys(prefix="a/c/")) == 100


def test_files(bucket: str) -> None:
    fs = fsspec.filesystem("tilekv", fo=f"{bucket}/files.kv", target_options={"region": "here"})
    assert fs._opening["storage_options"] == {"region": "here"}
    fs = fsspec.filesystem("tilekv", fo=f"{bucket}/files.kv")
    fs.pipe({"a/1": b"one", "a/2": bytes(5 << 20)})
    other = fsspec.filesystem("tilekv", fo=f"{bucket}/files.kv", mode="r")
    assert {name: info["size"] for name, info in other.find("a", detail=True).items()} == {
        "a/1": 3,
        "a/2": 5 << 20,
    }
    with other.open("a/2") as file:
        file.seek(-3, 2)
        assert file.read() == bytes(3)
    dataset = StoreDataset(f"{bucket}/files.kv", transform=len)
    assert sorted(dataset) == [3, 5 << 20]

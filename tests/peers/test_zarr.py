"""zarr's own tests of stores, which its package brings along (README.md), over a `Store` by way of `zarr_store`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

import tilekv
from zarr_store import ZarrStore


@pytest.fixture(params=["buffered", "flushed"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tilekv.Store]:
    """Empty; "flushed" lets nothing stay in the buffer, for what zarr's tests put there themselves."""
    with tilekv.open(tmp_path / "store", "x", config={"kv.sync": False}) as opened:
        opened["old"] = b"gone"
        opened.flush()
        del opened["old"]
        if request.param == "flushed":
            opened.flush()
        yield opened


class TestStore(StoreTests[ZarrStore, cpu.Buffer]):
    store_cls = ZarrStore
    buffer_cls = cpu.Buffer

    @pytest.fixture(autouse=True)
    def flushing(self, request: pytest.FixtureRequest) -> None:
        self.flushed = "flushed" in request.node.callspec.params.values()

    @pytest.fixture
    def store_kwargs(self, db: tilekv.Store) -> dict[str, Any]:
        return {"db": db}

    # zarr's are coroutines.
    @pytest.fixture
    def store(self, store_kwargs: dict[str, Any]) -> ZarrStore:
        made = ZarrStore(**store_kwargs)
        made._is_open = True
        return made

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> ZarrStore:
        return ZarrStore(**store_kwargs)

    async def set(self, store: ZarrStore, key: str, value: Buffer) -> None:
        store.db[key] = value.to_bytes()
        if self.flushed:
            store.db.flush()

    async def get(self, store: ZarrStore, key: str) -> Buffer:
        if self.flushed:
            store.db.flush()
        return self.buffer_cls.from_bytes(store.db[key])

    async def test_serializable_store(self, store: ZarrStore) -> None:
        """A handle with unflushed writes does not travel."""
        store.db.flush()
        await super().test_serializable_store(store)

    def test_store_repr(self, store: ZarrStore) -> None:
        assert store.db.uri in repr(store)

    def test_store_supports_writes(self, store: ZarrStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: ZarrStore) -> None:
        assert store.supports_listing


def test_a_group_in_a_store(db: tilekv.Store) -> None:
    values = np.arange(60, dtype="float32").reshape(6, 10)
    group = zarr.open_group(ZarrStore(db), mode="w")
    array = group.create_array("a/b", shape=values.shape, chunks=(4, 3), dtype=values.dtype)
    array[:] = values
    array.attrs["unit"] = "m"
    db.flush()
    assert "a/b/zarr.json" in db
    with tilekv.open(db.uri) as other:
        read = zarr.open_group(ZarrStore(other, read_only=True), mode="r")
        np.testing.assert_array_equal(read["a/b"][1:5, 2:7], values[1:5, 2:7])
        assert read["a/b"].attrs["unit"] == "m"
    del group["a"]
    assert not [key for key in db if key.startswith("a/")]

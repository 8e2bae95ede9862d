"""Arrays of zarr in a store: zarr's own tests of stores, which its package brings along, and what stands on zarr."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.abc.store import RangeByteRequest, SuffixByteRequest, SupportsSyncStore
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.storage import LocalStore
from zarr.testing.store import StoreTests

import tilekv
from tilekv.zarr import TilekvStore

CPU = default_buffer_prototype()


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


class TestStore(StoreTests[TilekvStore, cpu.Buffer]):
    store_cls = TilekvStore
    buffer_cls = cpu.Buffer

    @pytest.fixture(autouse=True)
    def flushing(self, request: pytest.FixtureRequest) -> None:
        self.flushed = "flushed" in request.node.callspec.params.values()

    @pytest.fixture
    def store_kwargs(self, db: tilekv.Store) -> dict[str, Any]:
        return {"store": db}

    # zarr's are coroutines.
    @pytest.fixture
    def store(self, store_kwargs: dict[str, Any]) -> TilekvStore:
        made = TilekvStore(**store_kwargs)
        made._is_open = True
        return made

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> TilekvStore:
        return TilekvStore(**store_kwargs)

    async def set(self, store: TilekvStore, key: str, value: Buffer) -> None:
        store.db[key] = value.to_bytes()
        if self.flushed:
            store.db.flush()

    async def get(self, store: TilekvStore, key: str) -> Buffer:
        if self.flushed:
            store.db.flush()
        return self.buffer_cls.from_bytes(store.db[key])

    def test_store_repr(self, store: TilekvStore) -> None:
        assert store.db.uri in repr(store)

    def test_store_supports_writes(self, store: TilekvStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: TilekvStore) -> None:
        assert store.supports_listing

    def test_no_test_of_sync_methods_is_skipped(self, store: TilekvStore) -> None:
        assert isinstance(store, SupportsSyncStore)


def group_with_an_array(store: TilekvStore) -> np.ndarray[Any, Any]:
    values = np.arange(60, dtype="float32").reshape(6, 10)
    group = zarr.open_group(store, mode="w")
    array = group.create_array("a/b", shape=values.shape, chunks=(4, 3), dtype=values.dtype)
    array[:] = values
    array.attrs["unit"] = "m"
    return values


def test_a_group_by_its_place(tmp_path: Path) -> None:
    place = tmp_path / "cells.kv"
    with TilekvStore(place) as store:
        values = group_with_an_array(store)
    with TilekvStore(place, read_only=True) as store:
        read = zarr.open_group(store, mode="r")
        np.testing.assert_array_equal(read["a/b"][1:5, 2:7], values[1:5, 2:7])
        assert read["a/b"].attrs["unit"] == "m"
        assert [name for name, _ in read.members(max_depth=None)] == ["a", "a/b"]
    with TilekvStore(place) as store:
        del zarr.open_group(store)["a"]
        assert not store.db.scan_keys(prefix="a/")


def test_a_handle_stays_its_owners(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "cells.kv", "x") as db:
        store = TilekvStore(db)
        group_with_an_array(store)
        assert not db.fragments
        store.close()
        assert db.fragments
        assert not db.closed
        assert "a/b/zarr.json" in db


def test_what_was_written_travels(tmp_path: Path) -> None:
    with TilekvStore(tmp_path / "cells.kv") as store:
        values = group_with_an_array(store)
        with pickle.loads(pickle.dumps(store)) as copy:
            read = zarr.open_group(copy)["a/b"]
            np.testing.assert_array_equal(read[:], values)
            read[0, 0] = 7
            store.db.reopen()  # a copy flushes what it sets
            assert zarr.open_group(store)["a/b"][0, 0] == 7


def test_a_part_of_a_chunk_is_read_and_no_more(tmp_path: Path) -> None:
    data = np.random.default_rng(5).bytes(64 << 20)
    with TilekvStore(tmp_path / "large.kv") as store:
        store.set_sync("c/0", cpu.Buffer.from_bytes(data))
    with TilekvStore(
        tmp_path / "large.kv", read_only=True, config={"kv.cache_bytes": 1 << 20}
    ) as store:
        for part, found in (
            (RangeByteRequest(1 << 20, (1 << 20) + 9), data[1 << 20 : (1 << 20) + 9]),
            (SuffixByteRequest(5), data[-5:]),
            (SuffixByteRequest(0), b""),
        ):
            got = store.get_sync("c/0", byte_range=part)
            assert got is not None
            assert got.to_bytes() == found
        asked = [("c/0", RangeByteRequest(0, 3)), ("none", None), ("c/0", SuffixByteRequest(1))]
        parts = asyncio.run(store.get_partial_values(CPU, asked))
        assert [part and part.to_bytes() for part in parts] == [data[:3], None, data[-1:]]
        assert asyncio.run(store.getsize("c/0")) == len(data)


def test_listing_a_folder_makes_no_objects_of_others_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LocalStore lists one folder of the disk; here the keys of others are passed over."""
    with TilekvStore(tmp_path / "many.kv") as store:
        store.db.put_many({f"big/c/{i}": b"" for i in range(10_000)})
        store.db.put_many({f"small/c/{i}": b"" for i in range(3)})
        store.flush()
        made = []
        scan = tilekv.Store.scan_keys

        def counted(db: tilekv.Store, **asked: Any) -> list[Any]:
            found = scan(db, **asked)
            made.extend(found)
            return found

        monkeypatch.setattr(tilekv.Store, "scan_keys", counted)

        async def names(prefix: str) -> list[str]:
            return sorted([name async for name in store.list_dir(prefix)])

        for _ in range(3):  # and what was listed is known until something is written
            assert asyncio.run(names("small/c")) == ["0", "1", "2"]
            assert asyncio.run(names("small")) == ["c"]
        assert len(made) == 6
        store.db["small/d"] = b""
        assert asyncio.run(names("small")) == ["c", "d"]
        store.flush()
        del store.db["small/d"]
        assert asyncio.run(names("small")) == ["c"]
        with tilekv.open(store.db.uri, "a") as other:
            other["small/e"] = b""
        assert asyncio.run(names("small")) == ["c"]
        store.db.reopen()
        assert asyncio.run(names("small")) == ["c", "e"]


def test_a_small_folder_beside_many_chunks_is_listed_in_time(tmp_path: Path) -> None:
    """All keys are looked at: 2 to 8 times as long as a disk takes for one folder; from then on a third of it."""
    names = [*(f"big/c/{i}" for i in range(10_000)), *(f"small/c/{i}" for i in range(3))]
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.put_many(dict.fromkeys(names, b"x"))
    for name in names:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(b"x")

    async def seconds(store: zarr.abc.store.Store) -> float:
        begun = time.perf_counter()
        assert sorted([name async for name in store.list_dir("small/c")]) == ["0", "1", "2"]
        return time.perf_counter() - begun

    async def measure() -> tuple[float, float, float]:
        times = []
        for _ in range(10):
            disk, ours = LocalStore(tmp_path / "files"), TilekvStore(tmp_path / "s", read_only=True)
            await ours._open()
            times.append((await seconds(ours), await seconds(ours), await seconds(disk)))
            ours.close()
        first, known, local = zip(*times, strict=True)
        return min(first), min(known), min(local)

    first, known, local = asyncio.run(measure())
    assert first < 50 * local
    assert known < 5 * local


def test_what_is_no_store_of_chunks(tmp_path: Path) -> None:
    numbers = tilekv.Schema([tilekv.Attr("n", int)])
    with (
        tilekv.open(tmp_path / "n", "x", schema=numbers) as db,
        pytest.raises(tilekv.WrongTypeError, match="one bytes attribute"),
    ):
        TilekvStore(db)
    with pytest.raises(tilekv.StoreNotFoundError):
        TilekvStore(tmp_path / "none", read_only=True).db  # noqa: B018
    with TilekvStore(tmp_path / "a") as store, pytest.raises(tilekv.WrongTypeError, match="Buffer"):
        store.set_sync("k", b"bytes")


def test_xarray_and_dask_on_top(tmp_path: Path) -> None:
    data = xr.Dataset(
        {"t": (("y", "x"), np.arange(400.0).reshape(20, 20))}, coords={"x": np.arange(20)}
    )
    with TilekvStore(tmp_path / "data.kv") as store:
        data.chunk(y=5, x=10).to_zarr(store, consolidated=False)
        with xr.open_zarr(store, consolidated=False) as opened:
            assert opened.t.data.numblocks == (4, 2)
            xr.testing.assert_identical(opened.load(), data)
    with TilekvStore(tmp_path / "data.kv", read_only=True) as store:
        mean = xr.open_zarr(store, consolidated=False).t.mean("y")
        np.testing.assert_array_equal(mean, data.t.mean("y"))

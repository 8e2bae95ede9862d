"""tilekv.dask on workers that are processes, some of which die: docs/cluster.md."""

from functools import partial
from pathlib import Path
from typing import Any

import cluster_tasks
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
from cluster_places import Place
from distributed import Client

import tilekv
import tilekv.dask
from fault_proxy import FaultProxy
from s3_server import S3Server
from samples import NIGHTLY
from tilekv.storage import open_storage

PARTITIONS = 40
ROWS = 100_000
DOOMED = {3 * n + 1 for n in range(13)}
OLD = {f"old {n}": b"old" for n in range(100)}
FRAME = pd.DataFrame(
    {
        "key": np.arange(ROWS),
        "text": [None if n % 11 == 0 else f"row {n}" for n in range(ROWS)],
        "number": np.arange(ROWS) * 0.5,
    }
)


def staged(place: Place) -> tuple[str, ...]:
    return open_storage(place.uri, options=place.options).staged()


def test_a_third_of_the_tasks_kill_their_worker(
    client: Client, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was asked for is there, once; nothing before the commit."""
    schema = tilekv.schema_of(FRAME, "key", nullable=True)
    with place.open("x", schema=schema) as db:
        db.put_many({"key": [-1], "text": ["old"], "number": [0.0]}, key="key")
    dying = partial(
        cluster_tasks.write_and_die, folder=tmp_path, doomed=DOOMED, before=1
    )  # fmt: skip
    monkeypatch.setattr(tilekv.dask, "_write", dying)
    tilekv.dask.to_store(
        dask.dataframe.from_pandas(FRAME, npartitions=PARTITIONS),
        place.uri,
        key="key",
        mode="append",
        storage_options=place.options,
    )
    assert {int(mark.name) for mark in tmp_path.iterdir() if mark.name.isdigit()} == DOOMED
    with place.open() as db:
        assert len(db.fragments) == PARTITIONS + 1
        assert sum(fragment.cells for fragment in db.fragments) == ROWS + 1
        assert db.verify() == []
        found = db.to_pandas().set_index("key").sort_index()
    assert found.loc[-1, "text"] == "old"
    pd.testing.assert_frame_equal(found.loc[0:], FRAME.set_index("key"), check_dtype=False)
    assert staged(place) == ()


def test_a_job_that_fails_leaves_nothing(client: Client, place: Place) -> None:
    with place.open("x") as db:
        db.update(OLD)
    pairs = dask.bag.from_sequence([(n, b"v") for n in range(100)] + [(100, 7)], npartitions=10)
    with pytest.raises(tilekv.WrongTypeError):
        tilekv.dask.to_store(pairs, place.uri, mode="append", storage_options=place.options)
    assert place.items() == OLD
    client.run(lambda: None)
    with pytest.raises(tilekv.StoreExistsError):
        tilekv.dask.to_store(pairs, place.uri, storage_options=place.options)


def test_ranges_are_the_store(client: Client, place: Place) -> None:
    """Sixteen ranges, about as large as one another; what others write and merge meanwhile is not in them."""
    frame = dask.dataframe.from_pandas(FRAME, npartitions=4)
    tilekv.dask.to_store(frame, place.uri, key="key", storage_options=place.options)
    ranges = tilekv.dask.from_store(place.uri, npartitions=16, storage_options=place.options)
    numbers = tilekv.dask.from_store(place.uri, ["number"], 16, storage_options=place.options)
    bag = tilekv.dask.bag_from_store(place.uri, npartitions=16, storage_options=place.options)
    asked = dask.bag.from_sequence([*range(0, ROWS, 997), -7], npartitions=3)
    values = tilekv.dask.map_many(
        asked, place.uri, ["text"], default="none", storage_options=place.options
    )
    with place.open("a") as db:
        db.put_many({"key": range(500), "text": ["new"] * 500, "number": np.zeros(500)}, key="key")
        db.delete_many(range(1000, 2000))
        db.consolidate()
        assert len(db) == ROWS - 1000
    sizes = ranges.map_partitions(len).compute()
    assert len(sizes) == 16
    assert sizes.sum() == ROWS
    assert max(abs(sizes - ROWS / 16)) < 0.1 * ROWS / 16
    found = ranges.compute().sort_values("key").reset_index(drop=True)
    pd.testing.assert_frame_equal(found[[*FRAME.columns]], FRAME, check_dtype=False)
    assert numbers["number"].sum().compute() == FRAME["number"].sum()
    assert bag.count().compute() == ROWS
    assert bag.pluck(0).sum().compute() == FRAME["key"].sum()
    texts = [{"text": FRAME["text"][n] if n % 11 else None} for n in range(0, ROWS, 997)]
    assert values.compute() == [*texts, "none"]


def test_a_merge_by_workers_is_the_plain_one(client: Client, place: Place) -> None:
    """And TileDB reads it where it lies."""
    wanted: dict[Any, bytes] = {}
    with place.open("x", config={"kv.upkeep": "off"}) as db:
        for flush in range(10):
            part = {b"%d" % n: b"%d of %d" % (n, flush) for n in range(flush, 20_000, 10 - flush)}
            db.put_many(part)
            gone = [b"%d" % n for n in range(flush, 20_000, 97)]
            db.delete_many(gone)
            db.flush()
            wanted |= part
            wanted = {key: value for key, value in wanted.items() if key not in {*gone}}
        assert len(db.fragments) == 10
    assert tilekv.dask.consolidate(place.uri, client=client, parts=7, storage_options=place.options)
    with place.open() as db:
        assert len(db.fragments) == 7
        assert sum(fragment.cells for fragment in db.fragments) == len(wanted)
    assert place.items() == wanted
    with place.open("a") as db:
        db.vacuum()
    assert place.items() == wanted == place.seen_by_tiledb()
    assert tilekv.verify(
        place.uri, executor=client.get_executor(), storage_options=place.options
    ) == []  # fmt: skip


def test_many_writers_of_small_fragments(client: Client, place: Place) -> None:
    flushes = 100 if NIGHTLY or place.options is None else 10
    keys = 20
    with place.open("x"):
        pass
    tasks = client.map(
        partial(cluster_tasks.write_flushes, place.uri, place.options, flushes=flushes, keys=keys),
        range(8),
        pure=False,
    )
    assert client.gather(tasks) == [flushes] * 8
    total = 8 * flushes * keys
    with place.open() as db:
        assert len(db.fragments) == 8 * flushes
        assert db.get_many(range(total)) == [b"%d" % n for n in range(total)]
        assert client.submit(cluster_tasks.count_of, db, pure=False).result() == total
    assert tilekv.dask.consolidate(place.uri, client=client, storage_options=place.options)
    assert place.items() == {n: b"%d" % n for n in range(total)}


def test_filters_spare_requests(server: S3Server, tmp_path: Path) -> None:
    """A look-up among many small fragments asks for few: at most 8 requests on average."""
    place = Place(tmp_path, server)
    with place.open("x"):
        pass
    fragments, keys = 100, 50
    cluster_tasks.write_flushes(place.uri, place.options, 0, fragments, keys)
    with FaultProxy(server.port) as proxy:
        options = server.options(proxy.port)
        config = {"kv.cache_bytes": 0}
        with tilekv.open(place.uri, storage_options=options, config=config) as db:
            proxy.counts()
            asked = range(0, fragments * keys, 97)
            for n in asked:
                assert db[n] == b"%d" % n
            assert proxy.counts().get("all", 0) <= 8 * len(asked)

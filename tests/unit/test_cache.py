"""kvcore.base.cache: the budget holds, and what is dropped is dropped."""

import gc
import random
from pathlib import Path

import pytest

import tilekv
from tilekv.kvcore.base.cache import ChunkCache

CHUNK = 4096
N = 400


@pytest.fixture
def uri(tmp_path: Path) -> Path:
    pick = random.Random(1)
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many([(i, pick.randbytes(CHUNK)) for i in range(N)])
    return tmp_path / "s"


def cache_of(db: tilekv.Store) -> ChunkCache:
    return db._engine.opener.cache


@pytest.mark.parametrize("budget", [0, 1, CHUNK - 1, 10 * CHUNK, 100 * CHUNK])
@pytest.mark.parametrize("mmap", [True, False])
def test_used_never_stays_above_the_budget(uri: Path, budget: int, mmap: bool) -> None:
    with tilekv.open(uri, config={"kv.cache_bytes": budget, "kv.mmap": mmap}) as db:
        cache = cache_of(db)
        assert (cache.budget, cache.used) == (budget, 0)
        for i in range(N):
            assert len(db[i]) == CHUNK
            assert cache.used <= budget
        assert len(list(db.items())) == N
        assert len(db.get_many(range(N))) == N
        assert cache.used <= budget
        if budget >= 10 * CHUNK:
            assert cache.used > budget - 3 * CHUNK


def test_what_is_read_again_is_kept(uri: Path) -> None:
    """A second reading of a store that fits decodes nothing: the cache does not grow."""
    with tilekv.open(uri, config={"kv.cache_bytes": "64 MiB"}) as db:
        first = [db[i] for i in range(N)]
        used = cache_of(db).used
        assert used >= N * CHUNK
        assert [db[i] for i in range(N)] == db.get_many(range(N)) == first
        assert cache_of(db).used == used


def test_fragments_take_their_chunks_with_them(uri: Path) -> None:
    db = tilekv.open(uri)
    cache = cache_of(db)
    assert len([db[i] for i in range(N)]) == N
    iterator = iter(db.items())
    next(iterator)
    db.close()
    assert cache.used > 0  # the iterator holds the snapshot
    assert len(list(iterator)) == N - 1
    del iterator
    assert cache.used == 0


def test_what_is_evicted_waits_for_its_readers(tmp_path: Path) -> None:
    """The values of a block of keys are found first, and made into objects then: a collection of garbage between evicts them."""
    pick = random.Random(2)
    attrs = [tilekv.Attr("one", bytes), tilekv.Attr("two", bytes)]
    model = {i: {"one": pick.randbytes(CHUNK), "two": b"%d" % i} for i in range(4 * N)}
    with tilekv.open(tmp_path / "s", "x", schema=tilekv.Schema(attrs)) as db:
        db.put_many(model)
    keys = range(128)  # a block

    def evict(phase: str, info: object) -> None:
        if phase == "start":
            assert all(i in db and db[i] for i in range(len(keys), 4 * N))

    thresholds = gc.get_threshold()
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": 200 * CHUNK}) as db:
        for objects in (20, 50, 90):
            _none_left = [
                {} for _ in range(200)
            ]  # Python keeps some dicts for the next use, which are not counted
            assert db.get_many(keys) == db.get_many(keys)
            gc.collect()
            gc.callbacks.append(evict)
            gc.set_threshold(objects)
            try:
                found = db.get_many(keys)
            finally:
                gc.callbacks.remove(evict)
                gc.set_threshold(*thresholds)
            assert found == [model[i] for i in keys]


@pytest.mark.parametrize("budget", ["300 KiB", "8 MiB", "256 MiB"])
def test_chunks_of_all_sizes_come_and_go(tmp_path: Path, budget: str) -> None:
    """They are cut out of slabs by their size: every slab is filled, emptied, and used for another size."""
    pick = random.Random(2)
    sizes = [
        int(400 * 1.09**step) for step in range(60)
    ]  # to 65 KB; a large value is a chunk of its own
    known = {(size, i): pick.randbytes(size) for size in sizes for i in range(12)}
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.put_many([(f"{size}/{i}", value) for (size, i), value in known.items()])
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": budget}) as db:
        for turn in range(3):
            ordered = sorted(
                known, reverse=turn == 1
            )  # one size after another, so that slabs of it become idle
            if turn == 2:
                pick.shuffle(ordered)
            assert all(db[f"{size}/{i}"] == known[size, i] for size, i in ordered)
            assert cache_of(db).used <= cache_of(db).budget

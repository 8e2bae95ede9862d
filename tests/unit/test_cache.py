"""kvcore.base.cache: the budget holds, and what is dropped is dropped."""

import gc
import random
import threading
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


MIB = 1 << 20


def _damage(path: Path, every: int = 1 << 14) -> None:
    """The stored values of a store: whoever decodes one of them anew notices."""
    (file,) = path.glob("*/value_var.tdb")
    data = bytearray(file.read_bytes())
    for at in range(1000, len(data), every):
        data[at] ^= 1
    file.write_bytes(data)


def _large(path: Path, size: int, count: int) -> list[bytes]:
    values = [random.Random(each).randbytes(size) for each in range(count)]
    with tilekv.open(path, "x") as db:
        db.put_many(range(count), values)
    return values


@pytest.mark.parametrize("size", [1 << 16, 1_000_000, MIB, 3 * MIB + 5])
@pytest.mark.parametrize("how", ["get", "part", "file"])
def test_a_large_value_that_was_read_is_not_decoded_again(
    tmp_path: Path, size: int, how: str
) -> None:
    (value,) = _large(tmp_path / "s", size, 1)

    def read(db: tilekv.Store) -> bytes:
        if how == "get":
            return db[0]
        if how == "part":
            return db.get_range(0)
        with db.open_value(0) as file:
            return file.read()

    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": "64 MiB"}) as db:
        assert read(db) == value
        used = cache_of(db).used
        assert used >= size
        _damage(tmp_path / "s")
        assert read(db) == value
        assert cache_of(db).used == used


@pytest.mark.parametrize("budget", [0, MIB, 4 * MIB])
def test_a_large_value_that_has_no_room_is_not_kept(tmp_path: Path, budget: int) -> None:
    """More than half of the budget: two of them would drive each other out."""
    (value,) = _large(tmp_path / "s", 3 * MIB, 1)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": budget}) as db:
        assert [db[0], db[0], db[0]] == [value] * 3
        assert cache_of(db).used < MIB
        _damage(tmp_path / "s")
        with pytest.raises(tilekv.CorruptionError):
            db[0]


def test_large_values_that_are_read_again_drive_out_others(tmp_path: Path) -> None:
    """Read once, a value takes the room that is free and no more; read twice, it is cached as anything is."""
    values = _large(tmp_path / "s", 2 * MIB, 6)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": 9 * MIB}) as db:
        assert [db[i] for i in range(6)] == values
        assert 8 * MIB <= cache_of(db).used <= 9 * MIB
        assert db[4] == values[4]
        assert cache_of(db).used <= 9 * MIB
        _damage(tmp_path / "s")
        assert db[4] == values[4]
        with pytest.raises(tilekv.CorruptionError):
            db[5]


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


def _spread(path: Path, n: int) -> dict[int, bytes]:
    """Small values: 55 in a chunk."""
    pick = random.Random(3)
    model = {i: pick.randbytes(50) + b"x" * (i % 50) for i in range(n)}
    with tilekv.open(path, "x") as db:
        db.put_many(model)
    return model


@pytest.mark.parametrize("how", ["get", "get_many", "read"])
def test_keys_in_use_stay_although_their_chunks_do_not_fit(tmp_path: Path, how: str) -> None:
    """500 keys lie in two thirds of 730 chunks of values, 3 MB: kept as cells they take 70 KB."""
    model = _spread(tmp_path / "s", 40_000)
    used = random.Random(4).sample(range(40_000), 500)

    def look(db: tilekv.Store, keys: list[int]) -> list[bytes]:
        if how == "get":
            return [db[key] for key in keys]
        return list(db.get_many(keys) if how == "get_many" else db.read(keys)["value"].to_list())

    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": MIB}) as db:
        cache = cache_of(db)
        for _ in range(4):
            assert look(db, used) == [model[key] for key in used]
            assert cache.used <= cache.budget
        _damage(tmp_path / "s", 500)
        decoded = 0
        for key in used:
            try:
                assert look(db, [key]) == [model[key]]
            except tilekv.CorruptionError:
                decoded += 1
        print(decoded)
        assert decoded < 25
        with pytest.raises(tilekv.CorruptionError):
            db.get_many(model)


def test_neighbours_of_a_key_are_decoded_with_it(tmp_path: Path) -> None:
    """In the order of the digests each chunk is decoded once, cache full or not: it stays for a while."""
    model = _spread(tmp_path / "s", 20_000)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": MIB}) as db:
        ordered = list(db)
        assert [db[key] for key in reversed(ordered)] == [model[key] for key in reversed(ordered)]
        for key in ordered[:200:2]:
            db[key]
        _damage(tmp_path / "s", 500)
        assert [db[key] for key in ordered[:200]] == [model[key] for key in ordered[:200]]


@pytest.mark.parametrize("budget", [66 << 10, 200 << 10, MIB])
def test_cells_of_fragments_that_come_and_go(tmp_path: Path, budget: int) -> None:
    """Whatever was kept of a cell, a newer one, a delete and a merged one are what is read, by several threads."""
    pick = random.Random(budget)
    attrs = [
        tilekv.Attr("number", "int64"),
        tilekv.Attr("text", str, nullable=True),
        tilekv.Attr("data", bytes),
    ]
    config = {"kv.cache_bytes": budget, "kv.sync": False, "kv.upkeep": "off"}
    model: dict[int, dict[str, object]] = {}
    wrong: list[object] = []

    def look(db: tilekv.Store, seed: int) -> None:
        keys = random.Random(seed).sample(range(3000), 400)
        wrong.extend(key for key in keys if db.get(key) != model.get(key))
        if db.get_many(keys) != [model.get(key) for key in keys]:
            wrong.append(keys)

    schema = tilekv.Schema(attrs, capacity=256)
    with tilekv.open(tmp_path / "s", "w", schema=schema, config=config) as db:
        for turn in range(6):
            for key in pick.sample(range(3000), 1500):
                text = None if key % 5 == 0 else "t" * pick.randrange(60)
                model[key] = {"number": key * turn, "text": text, "data": pick.randbytes(key % 90)}
                db[key] = model[key]
            for key in pick.sample(sorted(model), 100):
                del db[key], model[key]
            db.flush()
            if turn % 3 == 2:
                db.consolidate(vacuum=True)
            db.reopen()
            threads = [threading.Thread(target=look, args=(db, turn * 10 + i)) for i in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert cache_of(db).used <= budget


@pytest.mark.unsanitized  # there each piece is by itself
def test_what_is_scattered_over_slabs_is_counted(tmp_path: Path) -> None:
    """Cells drive out chunks here and there: the slabs of those that stay must not be as much memory again."""
    pick = random.Random(5)
    n, size = 50_000, 300
    data = pick.randbytes(n * size)
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many(range(n), [data[i * size : (i + 1) * size] for i in range(n)])
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": 8 * MIB}) as db:
        cache = cache_of(db)
        for _ in range(50_000):
            key = pick.randrange(n)
            assert db[key] == data[key * size : (key + 1) * size]
        print(cache.slab_bytes / cache.budget)
        assert 0.5 * cache.budget < cache.slab_bytes < 1.2 * cache.budget

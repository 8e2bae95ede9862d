"""kvcore.write.memtable: a log of which the last entry of a key counts."""

import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np

import tilekv
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.tile import encode
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.kvcore.write.memtable import SortedBuffer, sort_buffer
from tilekv.workers import Workers


def test_last_entry_wins(db: tilekv.Store) -> None:
    for i in range(1000):
        db[i % 10] = b"%d" % i
    assert db._buffer.n == 1000
    assert len(sort_buffer(db._buffer)) == 10
    assert sorted(db.values()) == [b"%d" % i for i in range(990, 1000)]
    db.delete_many(range(5))
    assert len(sort_buffer(db._buffer)) == 10  # deletes are entries
    assert len(db) == 5


def test_size_counts_keys_rows_and_entries(db: tilekv.Store) -> None:
    db["key"] = b"x" * 1000
    assert 1000 < db._buffer.size < 1100
    db.put_many([("key", b"y" * 1000)] * 9)
    assert 10_000 < db._buffer.size < 11_000
    db.flush()
    assert (db._buffer.n, db._buffer.size) == (0, 0)


def test_a_sorted_buffer_is_a_snapshot(db: tilekv.Store) -> None:
    db.put_many([(i, b"old") for i in range(3000)])
    iterator = iter(db.items())
    db.put_many([(i, b"new") for i in range(6000)])
    db.delete_many(range(100))
    db.flush()
    db["more"] = b"x"
    assert dict(iterator) == dict.fromkeys(range(3000), b"old")
    assert len(db) == 5901


def test_table_keeps_up_with_writes_between_lookups(db: tilekv.Store) -> None:
    """The key table is brought up to date by lookups only, and rebuilt as it grows."""
    pick, model = random.Random(3), {}
    for step in range(4000):
        key = f"key_{pick.randrange(700)}"
        if pick.random() < 0.2:
            db.delete_many([key])
            model.pop(key, None)
        else:
            db[key] = model[key] = b"%d" % step
        if step % 97 == 0:
            probes = [f"key_{i}" for i in range(700)]
            assert db.get_many(probes) == [model.get(probe) for probe in probes]
        assert db.get(key) == model.get(key)


def test_records_of_every_size(db: tilekv.Store) -> None:
    """Blocks double from 4 KiB to 1 MiB; a record of half a block or more has its own."""
    pick = random.Random(4)
    sizes = [0, 1, 2047, 2048, 2049, 4096, 5000, 1 << 19, (1 << 19) + 1, 1 << 20, 3 << 20]
    values = [pick.randbytes(size) for size in [*sizes, *[10] * 500, *sizes]]
    for i, value in enumerate(values):
        db[i] = value
        db.put_many([(-i - 1, value)])
    assert db.get_many(range(len(values))) == values
    assert [db[-i - 1] for i in range(len(values))] == values


def stored(db: tilekv.Store, source: SortedBuffer) -> list[bytes]:
    """All that a flush would write of its cells."""
    runs = [
        (plan, *run)
        for plan in FragmentBuilder(db._layout).add(source)
        for run in plan.runs(1 << 20)
    ]
    return [bytes(encode(db._layout, source, *run, CodecPool())) for run in runs]


def test_threads_sort_as_one_does(db: tilekv.Store) -> None:
    """Shares are of 32,768 entries at least; the last of equal keys counts, whoever had the first."""
    n = 170_000
    keys = np.random.default_rng(6).integers(0, 120_000, n)
    db.put_many(keys, np.char.add("v", np.arange(n).astype(str)).astype("S").tolist())
    db.delete_many(keys[:10_000].tolist())
    alone = sort_buffer(db._buffer)
    assert len(alone) == len(np.unique(keys))
    expected = stored(db, alone)
    for most in (2, 3, 5, 1000):
        with Workers(most) as workers:
            source = sort_buffer(db._buffer, workers)
            assert len(source) == len(alone)
            assert stored(db, source) == expected


def test_one_key_is_one_threads(db: tilekv.Store) -> None:
    """All entries in one bucket: the other threads have none."""
    db.put_many([b"key"] * 100_000, [b"%d" % i for i in range(100_000)])
    with Workers(3) as workers:
        source = sort_buffer(db._buffer, workers)
    assert len(source) == 1
    assert stored(db, source) == stored(db, sort_buffer(db._buffer))


def test_a_buffer_grows_while_it_is_sorted(db: tilekv.Store) -> None:
    """Who writes between the steps does not move what is read."""
    db.put_many(list(range(70_000)), [b"old"] * 70_000)
    expected = stored(db, sort_buffer(db._buffer))

    class WriteToo:
        most = 2

        def map_all(self, step: Callable[[int], None], shares: Iterable[int]) -> Iterator[None]:
            for share in shares:
                db.put_many(list(range(100_000)), [b"newer"] * 100_000)
                yield step(share)

    source = sort_buffer(db._buffer, WriteToo())
    assert db._buffer.n == 670_000
    assert stored(db, source) == expected
    assert len(db) == 100_000

"""kvcore.write.memtable: a log of which the last entry of a key counts."""

import random

import tilekv
from tilekv.kvcore.write.sorted_buffer import sort_buffer


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

"""kvcore.write.sorted_buffer: one cell a key, in order, whoever sorts and whoever writes meanwhile."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

import tilekv
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.tile import encode
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.kvcore.write.sorted_buffer import SortedBuffer, sort_buffer
from tilekv.workers import Workers


def test_a_sorted_buffer_is_a_snapshot(db: tilekv.Store) -> None:
    db.put_many([(i, b"old") for i in range(3000)])
    iterator = iter(db.items())
    db.put_many([(i, b"new") for i in range(6000)])
    db.delete_many(range(100))
    db.flush()
    db["more"] = b"x"
    assert dict(iterator) == dict.fromkeys(range(3000), b"old")
    assert len(db) == 5901


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

"""One handle in many threads: right answers, or the error of a closed handle; never a crash (docs/design.md 7)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import tilekv
from life import contents
from tilekv import Attr, Schema

pytestmark = pytest.mark.usefixtures("eager_switching")


def forever(job: Callable[[], object]) -> None:
    while True:
        job()


def together(*jobs: Callable[[], object]) -> None:
    """Run jobs in a thread each; the first error of any."""
    errors: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def filled(path: Path, n: int = 2000) -> dict[int, bytes]:
    rng = random.Random(1)
    model = {i: rng.randbytes(rng.randrange(200)) for i in range(n)}
    with tilekv.open(path, "a", schema=Schema([Attr("value", bytes)], capacity=64)) as db:
        for start in range(3):
            db.put_many({i: model[i] for i in range(start, n, 3)})
            db.flush()
    return model


@pytest.mark.parametrize("cache", [0, 20_000, 1 << 26])
def test_readers(tmp_path: Path, cache: int) -> None:
    model = filled(tmp_path / "store")
    with tilekv.open(tmp_path / "store", config={"kv.cache_bytes": cache}) as db:

        def read(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(10):
                keys = rng.sample(range(2500), 300)
                assert db.get_many(keys) == [model.get(key) for key in keys]
                assert all(db.get(key) == model.get(key) for key in keys[:50])
                if seed == 0:
                    assert dict(db.items()) == model
                assert db.read(keys[:20], missing="mask")["value"].to_list() == [
                    model.get(key, b"") for key in keys[:20]
                ]

        together(*[lambda seed=seed: read(seed) for seed in range(6)])


def test_writers_readers_flushes_and_consolidations(tmp_path: Path) -> None:
    path = tmp_path / "store"
    filled(path, 100)
    config = {"kv.sync": False, "kv.buffer_bytes": 4000}
    with tilekv.open(path, "a", config=config) as db:
        stop = threading.Event()

        def write(writer: int) -> None:
            for i in range(300):
                db[f"{writer} {i}"] = b"%d" % i
                db.put_many({f"{writer} many {i} {j}": b"%d" % i for j in range(3)})
                assert db[f"{writer} {i}"] == b"%d" % i
                if i % 3 == 0:
                    del db[f"{writer} {i}"]
                    assert f"{writer} {i}" not in db

        def write_all() -> None:
            together(*[lambda writer=writer: write(writer) for writer in range(4)])
            stop.set()

        def read() -> None:
            while not stop.is_set():
                assert len(dict(db.items())) >= 100
                assert db.get_many(range(100)).count(None) == 0

        def maintain() -> None:
            while not stop.is_set():
                db.flush()
                db.consolidate(vacuum=True)
                db.reopen()

        together(write_all, read, maintain)
        found = dict(db.items())
    assert contents(path) == found
    expected = {f"{w} {i}": b"%d" % i for w in range(4) for i in range(300) if i % 3}
    expected |= {
        f"{w} many {i} {j}": b"%d" % i for w in range(4) for i in range(300) for j in range(3)
    }
    assert {key: value for key, value in found.items() if isinstance(key, str)} == expected


def test_batch_is_not_split_by_a_flush_in_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "a", config={"kv.sync": False}) as db:
        stop = threading.Event()

        def write() -> None:
            for i in range(300):
                db.put_many(dict.fromkeys(range(20), b"%d" % i))
            stop.set()

        def flush() -> None:
            while not stop.is_set():
                db.flush()

        def read() -> None:
            while not stop.is_set():
                with tilekv.open(path) as reader:
                    assert len(set(reader.get_many(range(20)))) == 1

        together(write, flush, read)
        assert set(db.values()) == {b"299"}


@pytest.mark.parametrize("mode", ["r", "a"])
def test_close_while_others_use_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "store"
    model = filled(path)
    written: set[str] = set()
    for _ in range(10):
        db = tilekv.open(path, mode, config={"kv.sync": False})  # type: ignore[arg-type]
        started = threading.Barrier(5)

        def until_closed(job: Callable[[], object], started: threading.Barrier = started) -> None:
            started.wait()
            with pytest.raises(tilekv.ClosedError):
                forever(job)

        def write(db: tilekv.Store = db) -> None:
            key = f"new {len(written)}"
            db[key] = b"x"
            written.add(key)

        def close(db: tilekv.Store = db, started: threading.Barrier = started) -> None:
            started.wait()
            db.get_many(range(500))
            db.close()
            db.close()

        def right(keys: range, found: list[object]) -> None:
            assert found == [model[key] for key in keys]

        def read(db: tilekv.Store = db) -> None:
            right(range(1), [db[0]])

        together(
            close,
            lambda db=db: until_closed(lambda: right(range(300), db.get_many(range(300)))),
            lambda db=db: until_closed(lambda: right(range(5, 6), [db[5]])),
            lambda db=db: until_closed(
                lambda: sum(1 for key in db if isinstance(key, int)) == 2000
            ),
            lambda write=write, read=read: until_closed(write if mode == "a" else read),
        )
    found = contents(path)
    assert {key for key in found if isinstance(key, str)} == written


def test_iterators_outlive_their_handle(tmp_path: Path) -> None:
    model = filled(tmp_path / "store")
    db = tilekv.open(tmp_path / "store")
    cursor, batches = iter(db.items()), db.scan(rows=50)
    first = next(cursor)
    db.close()
    del db
    assert dict([first, *cursor]) == model
    assert sum(len(batch.keys) for batch in batches) == len(model)


def test_two_threads_close_and_flush_once(tmp_path: Path) -> None:
    for i in range(20):
        path = tmp_path / f"store {i}"
        db = tilekv.open(path, "a", config={"kv.sync": False})
        db[1] = b"1"
        together(db.close, db.close, db.close)
        with tilekv.open(path) as reader:
            assert len(reader.fragments) == 1


def test_write_while_another_thread_closes_is_kept_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last flush of a close and its end."""
    path = tmp_path / "store"
    db = tilekv.open(path, "a")
    db[1] = b"1"
    written = []
    let_go = tilekv.Store._let_go
    threads: list[threading.Thread] = []

    def write() -> None:
        try:
            db[2] = b"2"
            written.append(2)
        except tilekv.ClosedError:
            pass

    def write_and_let_go(self: tilekv.Store) -> None:
        if self is db:
            threads.append(threading.Thread(target=write))
            threads[0].start()
            threads[0].join(0.5)
        let_go(self)

    monkeypatch.setattr(tilekv.Store, "_let_go", write_and_let_go)
    db.close()
    for thread in threads:
        thread.join(20)
    assert contents(path) == {1: b"1"} | dict.fromkeys(written, b"2")

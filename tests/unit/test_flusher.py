"""flusher: a frozen buffer under a new one, and nobody waits for it to be written; nothing is lost, and nothing written twice."""

import errno
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Call, Fault, Faults, every_call, fault_at, meet
from tilekv.errors import TileKVError

FULL = Fault(errno.ENOSPC)
HANG = 60  # seconds: a test that takes so long hangs


@pytest.fixture
def db(tmp_path: Path) -> Iterator[tilekv.Store]:
    with tilekv.open(tmp_path / "s", "x") as store:
        store.put_many({"old": b"0", "both": b"0", "gone": b"0"})
        store.flush()
        yield store


class Gate:
    """Holds the flushes of a handle before the commit."""

    def __init__(self, store: tilekv.Store) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        sound = store._engine.storage
        self.faults = meet(store, Faults(self._pass))
        self.restore = lambda: setattr(store._engine, "storage", sound)

    def _pass(self, call: Call) -> Fault | None:
        if call.name == "draft.commit":
            self.reached.set()
            assert self.open.wait(HANG)
        return None


@contextmanager
def held(store: tilekv.Store, flush: Callable[[], object] | None = None) -> Iterator[Gate]:
    """While a flush stands before its commit, in a thread of the test's unless the store has begun it; done at the end."""
    gate = Gate(store)
    thread = None
    if flush is not None:
        thread = threading.Thread(target=flush)
        thread.start()
    try:
        assert gate.reached.wait(HANG)
        yield gate
    finally:
        gate.open.set()
        if thread is not None:
            thread.join(HANG)
            assert not thread.is_alive()
        store._join()
        gate.restore()


def filled(path: Path, budget: int = 1000) -> tilekv.Store:
    return tilekv.open(path, "a", config={"kv.buffer_bytes": budget})


def contents(path: Path) -> dict[Any, Any]:
    with tilekv.open(path) as store:
        assert store.verify() == []
        return dict(store)


def broken(store: tilekv.Store, name: str = "draft.create") -> Callable[[], None]:
    """Flushes fail from now on, until what is returned is called."""
    sound = store._engine.storage
    meet(store, Faults(lambda call: FULL if call.name == name else None))
    return lambda: setattr(store._engine, "storage", sound)


# --- while a flush is under way ----------------------------------------------------------------------------------------


def test_everything_shows_three_layers(db: tilekv.Store) -> None:
    db.put_many({"both": b"1", "frozen": b"1", "twice": b"1"})
    del db["gone"]
    with held(db, db.flush):
        before = iter(db.items())
        db["new"] = b"2"
        db["twice"] = b"2"
        db["gone"] = b"2"
        del db["frozen"]
        expected = {"old": b"0", "both": b"1", "twice": b"2", "new": b"2", "gone": b"2"}
        assert {key: db[key] for key in expected} == expected
        assert "frozen" not in db
        assert db.get_many([*expected, "frozen"], None) == [*expected.values(), None]
        batch = db.read([*expected, "frozen"], missing="mask")
        assert batch["value"].to_list() == [*expected.values(), b""]
        assert dict(db.items()) == expected
        assert len(db) == len(expected)
        assert {key for part in db.scan() for key in part.keys} == set(expected)
        assert dict(before) == {"old": b"0", "both": b"1", "frozen": b"1", "twice": b"1"}
        assert len(db.fragments) == 1
    assert dict(db) == expected
    assert len(db.fragments) == 2
    assert db.info().buffered == 4
    db.flush()
    assert dict(db) == expected
    assert db.info().buffered == 0


def test_what_is_written_meanwhile_is_for_the_next_flush(db: tilekv.Store) -> None:
    """A second flush waits for the first, and writes what came since."""
    db["a"] = b"1"
    done = []
    with held(db, db.flush):
        db["b"] = b"2"
        second = threading.Thread(target=lambda: done.append(db.flush()))
        second.start()
        second.join(0.1)
        assert second.is_alive()
        assert "b" in db
    second.join(HANG)
    assert done == [None]
    assert len(db.fragments) == 3
    assert db.info().buffered == 0


def test_a_full_buffer_is_written_behind_who_writes(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as db:
        gate = Gate(db)
        db["a"] = b"x" * 2000  # returns, though its fragment waits
        assert gate.reached.wait(HANG)
        db["b"] = b"y"
        assert (db["a"], db["b"]) == (b"x" * 2000, b"y")
        assert len(db.fragments) == 0
        gate.open.set()
        db._join()
        assert len(db.fragments) == 1
        assert db.info().buffered == 1


def test_who_writes_over_two_budgets_waits(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as db:
        gate = Gate(db)
        db["a"] = b"x" * 2000
        assert gate.reached.wait(HANG)
        db["b"] = b"y" * 2000
        third = threading.Thread(target=db.__setitem__, args=("c", b"z"))
        third.start()
        third.join(0.1)
        assert third.is_alive()
        assert "c" not in db
        gate.open.set()
        third.join(HANG)
        assert db["c"] == b"z"
    assert contents(tmp_path / "s").keys() == {"a", "b", "c"}


def test_a_write_from_within_a_flush_is_kept(db: tilekv.Store) -> None:
    """As a signal's handler makes one. A flush, and a write with no room left, cannot be there."""
    sound = db._engine.storage

    def write(call: Call) -> None:
        if call.name == "draft.commit":
            db["within"] = b"1"
            with pytest.raises(tilekv.TileKVError, match="within a flush"):
                db.flush()

    meet(db, Faults(write))
    db["a"] = b"1"
    db.flush()
    db._engine.storage = sound
    assert db["within"] == b"1"
    assert db.info().buffered == 1


def test_a_flush_within_a_flush_is_refused() -> None:
    """A signal handler may ask for one at any moment: the first goes on, and writes everything once."""
    asked: list[Callable[[tilekv.Store], object]] = [tilekv.Store.flush, tilekv.Store.close]

    def attempt(number: int) -> Faults:
        def ask() -> None:
            for call in asked:
                with pytest.raises(TileKVError, match="within a flush"):
                    call(db)

        with tilekv.open("memory://within", "w") as db:
            db["key"] = b"value"
            sound = db._engine.storage
            faults = meet(db, fault_at(number, ask))
            db.flush()
            db._engine.storage = sound
            assert (len(db.fragments), db.info().buffered) == (1, 0)
            db["more"] = b"after"
            db.flush()
            assert dict(db) == {"key": b"value", "more": b"after"}
        return faults

    assert every_call(attempt) > 10


# --- when it fails -----------------------------------------------------------------------------------------------------


def test_what_failed_lies_under_what_came_since(db: tilekv.Store) -> None:
    mend = broken(db)
    db.put_many({"both": b"1", "frozen": b"1", "twice": b"1"})
    with pytest.raises(OSError, match="injected"):
        db.flush()
    db["twice"] = b"2"
    del db["frozen"]
    expected = {"old": b"0", "both": b"1", "gone": b"0", "twice": b"2"}
    assert dict(db) == expected
    with pytest.raises(OSError, match="injected"):
        db.flush()
    assert dict(db) == expected
    assert db.info().buffered == 5
    mend()
    db.flush()
    assert dict(db) == expected
    assert len(db.fragments) == 3
    assert contents(Path(db.uri)) == expected


@pytest.mark.parametrize("call", ["put", "put_many", "delete", "flush", "sync", "close", "with"])
def test_the_next_call_raises_what_the_thread_met(tmp_path: Path, call: str) -> None:
    db = filled(tmp_path / "s")
    mend = broken(db)
    db["a"] = b"x" * 2000
    db._join()
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: db.__setitem__("b", b"1"),
        "put_many": lambda: db.put_many({"b": b"1"}),
        "delete": lambda: db.delete_many(["a"]),
        "flush": db.flush,
        "sync": db.sync,
        "close": db.close,
        "with": lambda: db.__exit__(None, None, None),
    }
    with pytest.raises(OSError, match="injected") as caught:
        calls[call]()
    assert caught.value.errno == errno.ENOSPC
    assert not db.closed
    assert dict(db) == {"a": b"x" * 2000}  # kept, and nothing was taken
    mend()
    calls[call]()
    db.close()
    expected = {"a": b"x" * 2000, "b": b"1"} if call.startswith("put") else {"a": b"x" * 2000}
    assert contents(tmp_path / "s") == ({} if call == "delete" else expected)


def test_a_flush_that_failed_is_begun_again(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as db:
        mend = broken(db)
        db.put_many([(i, b"x" * 100) for i in range(20)])
        db._join()
        with pytest.raises(OSError, match="injected"):
            db["refused"] = b""
        assert "refused" not in db
        assert db.info().buffered == 20
        mend()
        db["one more"] = b""  # and what failed is begun again
        db._join()
        assert db.info().buffered == 1
        assert len(db) == 21


def test_a_flush_that_was_asked_for_is_not_begun_again(tmp_path: Path) -> None:
    """Below the budget nothing is written behind whoever writes: they flush when they want to."""
    with filled(tmp_path / "s") as db:
        mend = broken(db)
        db["a"] = b"1"
        with pytest.raises(OSError, match="injected"):
            db.flush()
        mend()
        db["b"] = b"2"
        assert db._thread is None
        assert db.info().buffered == 2
        db["c"] = b"x" * 1000  # with what was left, over it
        db._join()
        assert db.info().fragments > 0
    assert contents(tmp_path / "s").keys() == {"a", "b", "c"}


def test_reading_goes_on_after_a_failure(tmp_path: Path) -> None:
    db = filled(tmp_path / "s")
    broken(db)
    db["a"] = b"x" * 2000
    db._join()
    assert db["a"] == b"x" * 2000
    assert list(db) == ["a"]
    db.close(discard=True)
    assert contents(tmp_path / "s") == {}


def test_over_two_budgets_a_put_raises_its_own_flush_s_error(tmp_path: Path) -> None:
    """Nothing of it was taken, however often it is tried: memory does not grow."""
    db = filled(tmp_path / "s")
    mend = broken(db)
    db["a"] = b"x" * 2000
    db._join()
    with pytest.raises(OSError, match="injected"):
        db.flush()
    db["b"] = b"y" * 2000
    db._join()
    kept = db.info().buffered
    for _ in range(10):
        with pytest.raises(OSError, match="injected"):
            db["c"] = b"z" * 2000
        assert db.info().buffered == kept == 2
    mend()
    db["c"] = b"z" * 2000
    db.close()
    assert contents(tmp_path / "s").keys() == {"a", "b", "c"}


def test_a_failure_is_not_lost_with_the_handle(tmp_path: Path) -> None:
    """Collected unclosed: what failed is written then."""
    db = filled(tmp_path / "s")
    mend = broken(db)
    db["a"] = b"x" * 2000
    db._join()
    mend()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del db, mend
        gc.collect()  # the error that it keeps holds frames, and these the handle
    assert contents(tmp_path / "s") == {"a": b"x" * 2000}


def test_without_a_thread_the_caller_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with filled(tmp_path / "s") as db:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        db["a"] = b"x" * 2000
        assert db.info().buffered == 0
        mend = broken(db)
        with pytest.raises(OSError, match="injected"):
            db["b"] = b"x" * 2000
        mend()
    assert contents(tmp_path / "s").keys() == {"a", "b"}


def test_an_interrupted_start_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    with filled(tmp_path / "s") as db:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                db["a"] = b"x" * 2000
        db["b"] = b"y" * 2000
        db["c"] = b"z"
        assert len(db) == 3
    assert contents(tmp_path / "s").keys() == {"a", "b", "c"}


# --- whoever ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["flush", "close"])
def test_flush_and_close_join_the_thread(tmp_path: Path, end: str) -> None:
    with filled(tmp_path / "s") as db:
        for i in range(20):
            db[i] = b"x" * 2000
        getattr(db, end)()
        assert db._thread is None
        assert [t for t in threading.enumerate() if t.name == "tilekv flush"] == []
    assert len(contents(tmp_path / "s")) == 20


def test_a_fork_joins_the_thread_and_the_child_drops_what_was_buffered(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as db:
        db["a"] = b"x" * 2000
        before = db._thread
        assert before is not None
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # The fork waited for the fragment; what has not been frozen is the parent's.
                status = 0 if list(db) == ["a"] and db.info().buffered == 0 else 2
                db["child"] = b"c" * 2000
                db.close()
            finally:
                os._exit(status)
        assert not before.is_alive()
        db["b"] = b"y"
        assert os.waitpid(pid, 0)[1] == 0
    assert contents(tmp_path / "s").keys() == {"a", "b", "child"}


def test_a_fork_from_within_a_flush_does_not_wait_for_itself(tmp_path: Path) -> None:
    """The thread behind the writers waits for the lock that the forking thread has."""
    path = tmp_path / "s"
    with filled(path) as db:
        gate = Gate(db)
        forked: list[int] = []
        gate.open.set()

        def fork(call: Call) -> None:
            if call.name == "draft.commit" and not forked:
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                forked.append(os.waitpid(pid, 0)[1])

        gate.faults.predicate = fork
        with db._lock:
            db["a"] = b"x" * 2000  # its thread waits for this one
            db.flush()
    assert forked == [0]
    assert contents(path).keys() == {"a"}


def test_a_program_may_end_while_the_thread_writes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    code = f"""
import tilekv
db = tilekv.open({str(path)!r}, "a", config={{"kv.buffer_bytes": 1000}})
for i in range(50):
    db[i] = b"x" * 900
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=HANG)
    assert contents(path) == dict.fromkeys(range(50), b"x" * 900)


def test_sixteen_threads_over_a_small_budget(tmp_path: Path) -> None:
    path, rounds, wrong = tmp_path / "s", 60, []

    def work(db: tilekv.Store, number: int) -> None:
        try:
            for i in range(rounds):
                key = f"{number} {i % 7}"
                db[key] = b"%d " % i * 100
                if db[key] != b"%d " % i * 100:
                    wrong.append((key, i))
                if i % 9 == 8:
                    del db[key]
                    if key in db:
                        wrong.append((key, "deleted"))
                if i % 20 == 19:
                    db.flush()
        except BaseException as error:
            wrong.append(error)
            raise

    with tilekv.open(path, "x", config={"kv.buffer_bytes": 2000, "kv.sync": False}) as db:
        threads = [threading.Thread(target=work, args=(db, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20 * HANG)
    assert wrong == []
    last = {i % 7: b"%d " % i * 100 for i in range(rounds)}
    deleted = {
        k
        for k, value in last.items()
        for i in range(rounds)
        if i % 9 == 8 and value == b"%d " % i * 100
    }
    expected = {
        f"{n} {k}": value for n in range(16) for k, value in last.items() if k not in deleted
    }
    assert contents(path) == expected

"""Handles that a forked child inherits, whatever the threads of its parent are at, and that workers share."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, contents
from life_workers import Numbers, forked, load
from tilekv.storage import open_storage

# Since Python 3.12 forking a process of several threads is warned of: rightly, and it is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
FAST = {"kv.sync": False}


def test_forked_child_never_flushes_its_parents_buffer(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "a") as db:
        db[1] = b"1"
        db.flush()
        db["parent"] = b"buffered"

        def child() -> None:
            assert db.info().buffered == 0
            assert dict(db.items()) == {1: b"1"}
            db["child"] = b"child"
            db.close()

        assert forked(child) == 0
        assert contents(path) == {1: b"1", "child": b"child"}
        assert db["parent"] == b"buffered"
    assert contents(path) == {1: b"1", "child": b"child", "parent": b"buffered"}


@pytest.mark.parametrize("first", ["flush", "close", "reopen", "read", "write", "consolidate"])
def test_fork_while_another_thread_flushes(tmp_path: Path, first: str) -> None:
    """Its lock is held by a thread that does not exist in the child."""
    path = tmp_path / "store"
    with tilekv.open(path, "a") as db:
        db[1] = b"1"
        db.flush()
        db[2] = b"2"
        held, go = threading.Event(), threading.Event()

        def wait() -> None:
            with db._lock:  # as a flush on a slow disk does
                held.set()
                go.wait()

        jobs: dict[str, Any] = {
            "flush": db.flush,
            "close": db.close,
            "reopen": db.reopen,
            "read": lambda: db[1],
            "write": lambda: db.update({3: b"3"}),
            "consolidate": db.consolidate,
        }
        thread = threading.Thread(target=wait)
        thread.start()
        held.wait()
        try:
            status = forked(jobs[first], 3)
        finally:
            go.set()
            thread.join()
        assert status == 0
        assert contents(path) == {1: b"1"}
    assert contents(path) == {1: b"1", 2: b"2"}


def test_fork_of_a_child(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "a") as db:
        db["parent"] = b"1"

        def child() -> None:
            db["child"] = b"2"

            def grandchild() -> None:
                assert dict(db.items()) == {}
                db["grandchild"] = b"3"
                db.close()

            assert forked(grandchild) == 0
            db.close()

        assert forked(child) == 0
        assert contents(path) == {"child": b"2", "grandchild": b"3"}
    assert contents(path) == {"child": b"2", "grandchild": b"3", "parent": b"1"}


def test_child_that_only_forgets_a_handle(tmp_path: Path) -> None:
    path = tmp_path / "store"
    handles = [tilekv.open(path, "a")]
    handles[0][1] = b"1"
    assert forked(handles.clear) == 0
    assert contents(path) == {}
    handles[0].close()
    assert contents(path) == {1: b"1"}


def test_two_threads_of_a_child_meet_an_inherited_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin to open it anew; what one has written by then is not lost by the other."""
    path = tmp_path / "store"
    engine = tilekv.store.Engine
    with tilekv.open(path, "a") as db:
        db["parent"] = b"0"

        def child() -> None:
            written, opening = threading.Event(), threading.Event()

            def slow(*arguments: Any) -> Any:
                if not opening.is_set():
                    opening.set()
                    written.wait(1)
                return engine(*arguments)

            monkeypatch.setattr("tilekv.store.Engine", slow)
            first = threading.Thread(target=lambda: db.update({"first": b"1"}))
            first.start()
            opening.wait()
            db["second"] = b"2"
            written.set()
            first.join()
            db.close()

        assert forked(child) == 0
        assert contents(path) == {"first": b"1", "second": b"2"}


# --- while threads are at work ----------------------------------------------------------------------

FORKS = 2000 if NIGHTLY else 30
WRITERS = 2
BATCH = 300  # keys that are only ever set together; a flush of them is encoded by threads


def check(found: dict[Any, bytes]) -> None:
    """Of each writer's batches all or nothing."""
    for writer in range(WRITERS):
        assert len({found.get(f"{writer} {i}") for i in range(BATCH)}) == 1, writer


def test_fork_while_threads_write(tmp_path: Path, tally: Any) -> None:
    """Children are forked at any moment of flushes, reads and merges in other threads. Each reads, writes, some merge, and leaves
    with something unflushed."""
    path = tmp_path / "store"
    config = FAST | {"kv.threads": 2, "kv.cache_bytes": 10_000, "kv.mmap": False}
    stop = threading.Event()
    turns = [0] * (WRITERS + 2)
    errors: list[BaseException] = []

    def write(writer: int) -> None:
        db.put_many(dict.fromkeys((f"{writer} {i}" for i in range(BATCH)), b"%d" % turns[writer]))
        db.flush()

    def merge() -> None:
        try:
            db.consolidate(vacuum=True)
        except tilekv.StoreBusyError:  # a child does
            pass

    def repeat(number: int, job: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                job()
                turns[number] += 1
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    def child(number: int) -> None:
        check(dict(db.items()))
        assert db.info().buffered == 0
        db.get_many([f"0 {i}" for i in range(BATCH)])
        db[f"child {number}"] = b"flushed"
        db.flush()
        if number % 5 == 0:
            merge()
        db["lost"] = b"buffered"

    with tilekv.open(path, "x", schema=SMALL, config=config) as db:
        for writer in range(WRITERS):
            write(writer)
        jobs: list[Callable[[], object]] = [lambda: write(0), lambda: write(1)]
        jobs += [lambda: check(dict(db.items())), merge]
        threads = [threading.Thread(target=repeat, args=each) for each in enumerate(jobs)]
        for thread in threads:
            thread.start()
        try:
            statuses = [forked(lambda number=number: child(number), 60) for number in range(FORKS)]  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join(120)
        assert errors == []
        assert statuses == [0] * FORKS
        assert min(turns) > 0
    found = contents(path)
    check(found)
    assert {key for key in found if not key[0].isdigit()} == {f"child {i}" for i in range(FORKS)}
    for writer in range(WRITERS):
        assert found[f"{writer} 0"] == b"%d" % (turns[writer] - 1)
    tally("forks while threads wrote", FORKS)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_loader_of_workers(tmp_path: Path, method: str) -> None:
    """As PyTorch's DataLoader: workers read batches of shuffled items through their parent's handle, which is in use there."""
    path = tmp_path / "store"
    n, workers = 2000, 3
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        db.put_many({i: b"%d" % (i * i) for i in range(n)})
    context: Any = multiprocessing.get_context(method)
    stop = threading.Event()
    with tilekv.open(path, config={"kv.cache_bytes": 5000}) as db:
        numbers = Numbers(db)

        def read() -> None:
            while not stop.is_set():
                assert numbers[7] == 49

        reader = threading.Thread(target=read)
        reader.start()
        asked, loaded = context.Queue(), context.Queue()
        processes = [
            context.Process(target=load, args=(numbers, asked, loaded)) for _ in range(workers)
        ]
        for process in processes:
            process.start()
        for epoch in range(2):
            order = random.Random(epoch).sample(range(n), n)
            batches = [order[i : i + 50] for i in range(0, n, 50)]
            for batch in batches:
                asked.put(batch)
            found = dict(loaded.get(timeout=60) for _ in batches)
            assert found == {tuple(batch): [i * i for i in batch] for batch in batches}
        for _ in processes:
            asked.put(None)
        for process in processes:
            process.join(60)
        stop.set()
        reader.join(60)
        assert [process.exitcode for process in processes] == [0] * workers
        assert len(db) == n


def test_a_lock_does_not_live_on_in_a_child(tmp_path: Path) -> None:
    """A holder that is killed after a fork, by another of its threads, leaves nobody who holds it."""
    path = tmp_path / "store"
    tilekv.open(path, "x").close()
    code = """
        import os, signal, sys, threading
        from tilekv.storage import open_storage
        held, go = threading.Event(), threading.Event()
        def hold():
            with open_storage(sys.argv[1]).lock() as free:
                assert free
                held.set()
                go.wait()
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        read, write = os.pipe()
        if os.fork() == 0:
            print("forked", flush=True)
            os.write(write, b"x")
            sys.stdin.read()
            os._exit(0)
        os.read(read, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(code), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "forked\n"
        holder.wait()  # its child goes on
        with open_storage(path).lock() as free:
            assert free

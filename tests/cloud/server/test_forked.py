"""Processes that are forked after their parent has made requests: an error that says what to write, at once, and never a hang."""

import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from tilekv.torch import StoreDataset

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no fork"),
    # Newer Pythons warn of a fork beside threads, which is what is tested.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def in_child(work: Callable[[], object]) -> tuple[str, float]:
    """What a forked child says of its work, and the seconds it took; it is killed after ten."""
    read, write = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            said = f"done: {work()}"
        except (OSError, tilekv.TileKVError) as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(pid, 0)
    return said, time.monotonic() - begun


@pytest.fixture
def uri(bucket: Bucket) -> str:
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many({f"{i}": b"%d" % i for i in range(1000)})
    return uri


def test_every_call(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    options = {"storage_options": bucket.options | {"cache_dir": str(tmp_path)}}
    with bucket.open(uri, "a", config=OFF) as db, tilekv.open(uri, **options) as cached:
        assert db["7"] == cached["7"] == b"7"
        db["new"] = b"1"
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: db.get("8"),
            "cached": lambda: cached.get("8"),
            "items": lambda: dict(db.items()),
            "set": lambda: db.put_many({"a": b"1"}) or db.flush(),
            "open": lambda: bucket.open(uri),
            "open cached": lambda: tilekv.open(uri, **options),
            "create": lambda: bucket.open(bucket.new(), "x"),
            "verify": lambda: tilekv.verify(uri, storage_options=bucket.options),
            "backup": lambda: tilekv.backup(uri, tmp_path / "copy", storage_options=bucket.options),
        }
        for name, call in calls.items():
            said, took = in_child(call)
            assert said.startswith("OSError"), (name, said)
            for way in ("spawn", "forkserver", 'DataLoader(multiprocessing_context="spawn")'):
                assert way in said
            assert took < 1, name
        assert db["8"] == cached["8"] == b"8"
    assert bucket.items(uri)["new"] == b"1"


def test_beside_threads_that_ask(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    """Whatever they hold at the fork."""
    ended = threading.Event()
    options = bucket.options | {"cache_dir": str(tmp_path)}

    def ask() -> None:
        while not ended.is_set():
            with tilekv.open(uri, storage_options=options) as db:
                db.get("7")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    with bucket.open(uri) as db:
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                said, took = in_child(lambda: db.get("9"))
                assert said.startswith("OSError"), said
                assert took < 1
                said, took = in_child(lambda: tilekv.open(uri, storage_options=options))
                assert said.startswith("OSError"), said
                assert took < 1
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert db["9"] == b"9"


def test_pools(bucket: Bucket, uri: str) -> None:
    """A worker's error is raised by whoever waits for it, though a handle that came with the task could not be opened."""
    context = multiprocessing.get_context("fork")
    wanted = pytest.raises(OSError, match=r'multiprocessing\.get_context\("spawn"\)')
    with bucket.open(uri) as db:
        assert db["7"] == b"7"
        with ProcessPoolExecutor(1, mp_context=context) as pool, wanted:
            pool.submit(db.get, "7").result(10)
        with context.Pool(1) as pool_of_old:
            with wanted:
                pool_of_old.map_async(db.get, ["7"]).get(10)
            with wanted:
                pool_of_old.map_async(operator.itemgetter("7"), [db]).get(10)
        assert db["9"] == b"9"


def test_a_dataset_in_workers(bucket: Bucket, uri: str) -> None:
    """As a loader of PyTorch has them: those of a forkserver open the store themselves."""
    dataset = StoreDataset(uri, storage_options=bucket.options)
    places = [list(range(i, i + 10)) for i in range(0, 1000, 10)]
    wanted = [dataset.__getitems__(some) for some in places]
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        assert pool.map_async(dataset.__getitems__, places).get(60) == wanted
    with (
        multiprocessing.get_context("fork").Pool(1) as pool_of_old,
        pytest.raises(OSError, match='DataLoader\\(multiprocessing_context="spawn"\\)'),
    ):
        pool_of_old.map_async(dataset.__getitems__, places).get(10)

"""Processes that are killed while a request of theirs is under way: nothing is half there, neither then nor when it goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from fault_proxy import FaultProxy, Rule

WORKER = Path(__file__).with_name("killed_worker.py")
NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
BEFORE = {"k": b"2", "0": b"x", "2": b"x"}
AFTER = {"create": {}, "flush": BEFORE | {"new": b"1"}}
EVERY = {"create": 7, "flush": 4, "consolidate": 29, "vacuum": 17}  # by day, of requests


def prepared(bucket: Bucket, operation: str) -> str:
    uri = bucket.new()
    if operation == "create":
        return uri
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(3):
            db.put_many(["k", f"{i}"], [b"%d" % i, b"x"])
            if i == 2:
                db.delete_many(["1"])
            db.flush()
        if operation == "vacuum":
            db.consolidate()
    return uri


def started(operation: str, uri: str, bucket: Bucket) -> subprocess.Popen[bytes]:
    options = json.dumps(bucket.options)
    return subprocess.Popen([sys.executable, "-P", WORKER, operation, uri, options])


def seen(bucket: Bucket, uri: str) -> Any:
    try:
        return bucket.items(uri)
    except tilekv.StoreNotFoundError:
        return None


@pytest.mark.parametrize("operation", EVERY)
def test_killed_at_a_request(
    operation: str, bucket: Bucket, through: Bucket, proxy: FaultProxy, tally: Any
) -> None:
    uri = prepared(bucket, operation)
    proxy.counts()
    assert started(operation, uri, through).wait(60) == 0
    requests = proxy.counts()["all"]
    assert requests > 10
    after = AFTER.get(operation, BEFORE)
    assert seen(bucket, uri) == after
    for number in range(0, requests, 1 if NIGHTLY else EVERY[operation]):
        uri = prepared(bucket, operation)
        before = seen(bucket, uri)
        proxy.rules(Rule("gate", skip=number))
        process = started(operation, uri, through)
        while not proxy.waiting():
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.01)
        process.kill()
        process.wait()
        now = seen(bucket, uri)
        assert now in (before, after)
        proxy.open_gate()
        while proxy.waiting():
            time.sleep(0.01)
        then = seen(bucket, uri)
        assert then in (now, after)
        with bucket.open(uri, "a", config=OFF) as db:
            db["on"] = b"1"
            db.flush()
            db.consolidate(vacuum=True)
        assert seen(bucket, uri) in ({**(then or {}), "on": b"1"}, {**after, "on": b"1"})
        assert tilekv.verify(uri, storage_options=bucket.options) == []
        tally("processes killed at a request")


def test_processes_that_create_at_once(bucket: Bucket, through: Bucket) -> None:
    """One of them does, with its own schema; the other finds it."""
    for _ in range(100 if NIGHTLY else 2):
        uri = bucket.new()
        both = [started(f"create {name}", uri, through) for name in "ab"]
        codes = [process.wait(60) for process in both]
        assert sorted(codes) == [0, 3]
        with bucket.open(uri) as db:
            assert db.schema.attrs[0].name == "ab"[codes.index(0)]
            assert dict(db.items()) == {}
        assert tilekv.verify(uri, storage_options=bucket.options) == []


def test_processes_that_merge_at_once(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """Two merge everything while a third writes: each finds the other, or comes too late, and nothing is lost."""
    uri = bucket.new()
    want = {}
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(20 if NIGHTLY else 4):
            for key in ("a", "b", "k"):
                db[key] = want[key] = b"%s %d" % (key.encode(), i)
                db.flush()
            if i % 2:
                db.delete_many(["b"])
                del want["b"]
                db.flush()
            merging = [started("consolidate", uri, through) for _ in range(2)]
            for j in range(4):
                db[f"{i} {j}"] = want[f"{i} {j}"] = b"beside"
                db.flush()
            for process in merging:
                process.wait(60)
            assert seen(bucket, uri) == want
            assert started("vacuum", uri, bucket).wait(60) == 0
            assert seen(bucket, uri) == want
    assert tilekv.verify(uri, storage_options=bucket.options) == []


@pytest.mark.parametrize("way", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(bucket: Bucket, way: str) -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many({f"{i}": b"%d" % i for i in range(10)})
        db.flush()
        context = multiprocessing.get_context(way)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(db.get, ["3", "7", "none"])) == [b"3", b"7", None]

"""How many requests calls make: each costs money, and a wait. docs/cloud.md has the figures."""

import os
import random

import pytest

from bucket_stores import OFF, Bucket
from fault_proxy import FaultProxy, Rule
from tilekv.storage.objectstore import ObjectStorage

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
FILES = 7  # of a fragment of the default schema


def filled(bucket: Bucket, fragments: int) -> str:
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(fragments):
            db[f"{i}"] = b"1"
            db.flush()
    return uri


def slow(proxy: FaultProxy) -> None:
    """Answers take long enough that rounds can be told."""
    proxy.counts()
    proxy.rules(Rule("delay 40", times=-1))


def total(proxy: FaultProxy) -> int:
    return proxy.counts().get("all", 0)


@pytest.mark.parametrize("fragments", [0, 1, 10])
def test_open(bucket: Bucket, through: Bucket, proxy: FaultProxy, fragments: int) -> None:
    """A listing; then another one, the descriptor and the metadata of each fragment, at once."""
    uri = filled(bucket, fragments)
    slow(proxy)
    with through.open(uri) as db:
        counts = proxy.counts()
        assert counts["all"] == 3 + fragments
        assert counts["rounds"] == 2
        assert db.get("none") is None
        assert total(proxy) == 0
        db.reopen()
        assert total(proxy) == 5
    assert total(proxy) == 0


def test_open_what_was_merged(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """There is a record, too."""
    uri = filled(bucket, 4)
    with bucket.open(uri, "a", config=OFF) as db:
        db.consolidate()
    slow(proxy)
    with through.open(uri):
        assert proxy.counts() | {"bytes": 0, "faults": 0} == {
            "LIST": 2,
            "GET": 3,
            "all": 5,
            "rounds": 2,
            "bytes": 0,
            "faults": 0,
        }


def test_open_many(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """A page of what lies aside, one of the first level for each thousand fragments, and the manifest."""
    uri = filled(bucket, 1000 if NIGHTLY else 160)
    with bucket.open(uri, "a", config=OFF) as db:
        storage = db._engine.storage
        assert isinstance(storage, ObjectStorage)
        storage._manifest_read = None, None
        assert db._snapshot is not None
        storage.spare(db._snapshot.names)
    proxy.counts()
    with through.open(uri) as db:
        assert total(proxy) <= 5
        assert len(db.fragments) >= 160
        assert db["7"] == b"1"
        assert total(proxy) <= 12


def test_small_fragments(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """A look-up asks for the files of one, at once; who reads along asks for the others together."""
    uri = filled(bucket, 10)
    with through.open(uri) as db:
        slow(proxy)
        assert db["3"] == b"1"
        counts = proxy.counts()
        assert (counts["all"] <= 6, counts["rounds"]) == (True, 1)
        assert db["3"] == b"1"
        assert total(proxy) == 0
        assert len(list(db.items())) == 10
        counts = proxy.counts()
        assert counts["all"] <= 10 * (FILES - 1)
        assert counts["rounds"] <= 2


def test_flush(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """Data, mark and metadata; a listing; the copy that shows it; a delete. The first of a handle that made its store reads the
    descriptor, too."""
    for fragments in (0, 10):
        uri = filled(bucket, fragments)
        with through.open(uri, "a", config=OFF) as db:
            slow(proxy)
            for _ in range(2):
                db["a"] = b"2"
                db.flush()
                assert proxy.counts() | {"bytes": 0, "faults": 0} == {
                    "PUT": FILES + 1,
                    "LIST": 1,
                    "COPY": 1,
                    "DELETE": 1,
                    "all": FILES + 4,
                    "rounds": 4,
                    "bytes": 0,
                    "faults": 0,
                }
            proxy.rules()


def test_create(through: Bucket, proxy: FaultProxy) -> None:
    through.open(through.new(), "x").close()
    assert total(proxy) <= 17


def test_consolidate_and_vacuum(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    uri = filled(bucket, 4)
    with through.open(uri, "a", config=OFF) as db:
        proxy.counts()
        db.consolidate()
        assert total(proxy) <= 145
        db.vacuum()
        assert total(proxy) <= 65


def test_look_ups(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """Coordinates, key and value, at once, and once; the ends of their files with the first."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many({i: random.Random(i).randbytes(1000) for i in range(45_000)})
    with through.open(uri) as db:
        slow(proxy)
        for i in range(20):
            assert db[i] == random.Random(i).randbytes(1000)
            counts = proxy.counts()
            assert counts["all"] <= (3 if i else 6)
            assert counts.get("rounds", 0) <= 1
        proxy.rules()
        for i in range(20):
            assert db[i] == random.Random(i).randbytes(1000)
        assert total(proxy) == 0
        for _ in range(2):
            found = db.get_many([*range(10_000, 20_000), -1])
            assert found[1] == random.Random(10_001).randbytes(1000)
            assert found[-1] is None
        assert total(proxy) <= 60
        db.get_many([*range(10_000, 20_000)])
        assert total(proxy) == 0


def test_many_look_ups_at_once(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """A thousand in one call wait less often than ten do by themselves."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many({i: random.Random(i).randbytes(100) for i in range(20_000)})
    with through.open(uri) as db:
        slow(proxy)
        asked = random.Random(1).sample(range(20_000), 1000)
        assert db.get_many(asked) == [random.Random(i).randbytes(100) for i in asked]
        assert proxy.counts()["rounds"] < 10
    with through.open(uri) as db:
        slow(proxy)
        assert sum(len(batch) for batch in db.scan()) == 20_000
        assert proxy.counts()["rounds"] <= 6
        proxy.rules()


def test_look_ups_in_ten_fragments(bucket: Bucket, through: Bucket, proxy: FaultProxy) -> None:
    """Their filters tell which has a key: 1 in 100 times one that has it not."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for part in range(10):
            db.put_many({i: b"%d" % i * 30 for i in range(part, 20_000, 10)})
            db.flush()
    with through.open(uri) as db:
        proxy.counts()
        for i in range(200):
            assert db[i * 97] == b"%d" % (i * 97) * 30
        assert total(proxy) <= 8 * 200
        missed = 0
        for i in range(1000):
            assert db.get(-1 - i) is None
            missed += total(proxy) == 0
        assert missed >= 850

"""A store that moves within its bucket, or is removed: whole somewhere at every step, whoever dies or writes beside."""

import errno
import random
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from test_interrupted import FAULTS, NIGHTLY, Killed, Requests, method_of
from tilekv.storage import objectclient, objectmove, open_storage
from tilekv.storage.objectstore import ObjectStorage

EVERY = 1 if NIGHTLY else 13
SEEDS = 200 if NIGHTLY else 12


@pytest.fixture
def bucket(memory_bucket: str) -> Bucket:
    return Bucket(memory_bucket)


def filled(bucket: Bucket) -> tuple[str, int]:
    """A store with a past, and a moment in that."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(2):
            db["k"] = b"%d" % i
            db.flush()
        moment = db.fragments[-1].t2
        db.consolidate()
        db["new"] = b"2"
    return uri, moment


NOW = {"k": b"1", "new": b"2"}


def found(bucket: Bucket, uri: str) -> dict[Any, Any] | None:
    try:
        return bucket.items(uri)
    except tilekv.StoreNotFoundError:
        return None


def meets(requests: Requests, step: Any) -> bool:
    """Whether a step ends, in spite of a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectclient.Client, "_call", method_of(requests.call))
        try:
            step()
        except (Killed, OSError):
            return False
    return True


def by_turns(whole: Requests) -> list[tuple[int, str]]:
    """Which faults are tried: by day some of them."""
    return [(number, fault) for number in range(1, whole.made + 1) for fault in FAULTS][::EVERY]


def free(uri: str) -> None:
    """Whoever held the lock has been dead for a minute."""
    storage = open_storage(uri)
    assert isinstance(storage, ObjectStorage)
    storage.client.delete([f"{storage.aside}lock"])


def test_every_request_of_a_move_fails_in_every_way(bucket: Bucket, tally: Any) -> None:
    whole = Requests()
    uri, _ = filled(bucket)
    assert meets(whole, lambda: tilekv.move(uri, f"{uri}-moved"))
    assert whole.made > 20
    for number, fault in by_turns(whole):
        uri, moment = filled(bucket)
        there = f"{uri}-moved"
        requests = Requests(number, fault)
        done = meets(requests, lambda uri=uri, there=there: tilekv.move(uri, there))
        note = f"{number} of {whole.made}: {requests.met}"
        states = [found(bucket, each) for each in (uri, there)]
        assert NOW in states, note
        assert all(state in (NOW, None) for state in states), (states, note)
        assert not done or states == [None, NOW], note
        for place, state in zip((uri, there), states, strict=True):
            free(place)
            if state is None:
                with bucket.open(place, "a", config=OFF) as db:  # it is free for another one
                    assert dict(db.items()) == {}
                    db["other"] = b"1"
                assert bucket.items(place) == {"other": b"1"}
            else:
                assert bucket.items(place, timestamp=moment) == {"k": b"0"}, note
                with bucket.open(place, "a", config=OFF) as db:
                    db["more"] = b"3"
                    db.flush()
                    db.consolidate(vacuum=True)
                assert bucket.items(place) == NOW | {"more": b"3"}, note
            assert tilekv.verify(place) == [], note
        tally("faults in requests of moves")


def test_every_request_of_a_removal_fails_in_every_way(bucket: Bucket) -> None:
    whole = Requests()
    uri, _ = filled(bucket)
    assert meets(whole, lambda: tilekv.remove(uri))
    for number, fault in by_turns(whole):
        uri, _ = filled(bucket)
        requests = Requests(number, fault)
        done = meets(requests, lambda uri=uri: tilekv.remove(uri))
        note = f"{number} of {whole.made}: {requests.met}"
        state = found(bucket, uri)
        assert state in (NOW, None), note
        assert not done or state is None, note
        free(uri)
        if state is None:
            with bucket.open(uri, "x", config=OFF) as db:
                db["other"] = b"1"
            assert bucket.items(uri) == {"other": b"1"}, note
        else:
            tilekv.remove(uri)
            assert found(bucket, uri) is None


def slow_calls(rng: random.Random) -> Any:
    """Requests that wait a little, now and then."""
    real = objectclient.Client._call

    def call(client: Any, *request: Any) -> Any:
        time.sleep(rng.randrange(3) * 0.0005)
        return real(client, *request)

    return method_of(call)


def written(db: tilekv.Store, acknowledged: dict[Any, Any]) -> None:
    for i in range(6):
        db[f"{i}"] = b"w"
        with suppress(OSError):
            db.flush()
            acknowledged |= {f"{j}": b"w" for j in range(i + 1)}


def test_who_writes_beside_loses_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move at each moment of a flush, and a flush at each moment of a move: what was acknowledged is in the moved store."""
    for seed in range(SEEDS):
        uri, _ = filled(bucket)
        acknowledged = dict(NOW)
        with bucket.open(uri, "a", config=OFF) as db:
            with monkeypatch.context() as patch:
                patch.setattr(objectclient.Client, "_call", slow_calls(random.Random(seed)))
                writer = threading.Thread(target=written, args=(db, acknowledged))
                writer.start()
                tilekv.move(uri, f"{uri}-moved")
                writer.join()
            db.close(discard=True)
        assert bucket.items(f"{uri}-moved") == acknowledged, seed
        assert found(bucket, uri) is None
        assert tilekv.verify(f"{uri}-moved") == []


def test_nobody_writes_while_a_store_moves(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see no difference; a writer keeps his buffer, and goes on when the move was broken off."""
    uri, _ = filled(bucket)
    real = objectmove._copied

    def stopped(*arguments: Any) -> Any:
        assert bucket.items(uri) == NOW
        with bucket.open(uri, "a", config=OFF) as db:
            db["beside"] = b"3"
            with pytest.raises(tilekv.StoreBusyError, match="is being moved"):
                db.flush()
            db.close(discard=True)
        with pytest.raises(tilekv.StoreBusyError):
            tilekv.move(uri, f"{uri}-other")
        with pytest.raises(tilekv.StoreBusyError):
            tilekv.remove(uri)
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(objectmove, "_copied", stopped)
        with pytest.raises(OSError, match="injected"):
            tilekv.move(uri, f"{uri}-moved")
    with bucket.open(uri, "a", config=OFF) as db:
        db["beside"] = b"3"
    monkeypatch.setattr(objectmove, "_copied", real)
    tilekv.move(uri, f"{uri}-moved")
    assert bucket.items(f"{uri}-moved") == NOW | {"beside": b"3"}


def test_a_merge_beside(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits while the files are copied: they are copied again."""
    uri, _ = filled(bucket)
    planned, put = objectmove._planned, ObjectStorage.replace_record
    mover = threading.Thread(target=lambda: tilekv.move(uri, f"{uri}-moved"))
    copying, committed = threading.Event(), threading.Event()

    def late(*arguments: Any) -> Any:
        found = planned(*arguments)
        copying.set()
        assert committed.wait(10)
        return found

    def commit(self: ObjectStorage, seq: int, data: bytes) -> bool:
        if not self.staged() or mover.ident is not None:
            return put(self, seq, data)
        mover.start()
        assert copying.wait(10)
        done = put(self, seq, data)
        committed.set()
        assert done
        return done

    monkeypatch.setattr(objectmove, "_planned", late)
    monkeypatch.setattr(ObjectStorage, "replace_record", commit)
    with bucket.open(uri, "a", config=OFF) as db:
        try:
            db.consolidate()
        except OSError:
            db.close(discard=True)
    mover.join()
    assert bucket.items(f"{uri}-moved") == NOW
    assert tilekv.verify(f"{uri}-moved") == []
    keys = bucket.storage(uri).client.list_all("")
    assert not [key for key in keys if "build-" in key]


def test_what_lies_in_a_store_moves_too(bucket: Bucket) -> None:
    uri, _ = filled(bucket)
    with bucket.open(f"{uri}/.kv", "x", config=OFF) as db:
        db["a"] = b"1"
    tilekv.move(uri, f"{uri}-moved")
    assert bucket.items(f"{uri}-moved") == NOW
    assert bucket.items(f"{uri}-moved/.kv") == {"a": b"1"}
    assert found(bucket, f"{uri}/.kv") is None


def test_who_is_told_that_the_store_is_gone_does_not_write_there(bucket: Bucket) -> None:
    """Not when he tries again, either, while something of another writer's lies where it was."""
    uri, _ = filled(bucket)
    with bucket.open(uri, "a", config=OFF) as db:
        db["late"] = b"1"
        tilekv.move(uri, f"{uri}-moved")
        storage = bucket.storage(uri)
        storage.client.put(f"{storage.data}left over", b"")
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                db.flush()
            with pytest.raises(tilekv.StoreNotFoundError):
                db.reopen()
        assert [*storage.client.list_all(storage.data)] == ["left over"]
        db.close(discard=True)
    assert bucket.items(f"{uri}-moved") == NOW

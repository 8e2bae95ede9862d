"""Today's TileDB reads a store where it lies, after whatever tilekv has done there, and while it does it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from s3_server import S3Server
from tiledb_cells import live_cells
from tilekv.storage import objectclient

See = Callable[[str], dict[bytes, bytes]]


@pytest.fixture
def see(server: S3Server, tmp_path: Path) -> See:
    """The live cells that TileDB shows: by the keys' bytes, deletes left out."""
    return lambda uri: live_cells(uri, tmp_path / "seen.json", server)


def test_after_every_step(bucket: Bucket, see: See, tally: Any) -> None:
    uri = bucket.new()
    want: dict[bytes, bytes] = {}

    def same() -> None:
        assert see(uri) == want == bucket.items(uri)
        tally("stores that TileDB has read on a server")

    with bucket.open(uri, "x", config=OFF) as db:
        same()
        for flush in range(3):
            part = {
                b"%d" % key: b"%d of %d" % (key, flush) for key in range(flush, 3000, 3 - flush)
            }
            db.put_many(part)
            db.flush()
            want |= part
        same()
        gone = [b"%d" % key for key in range(0, 3000, 7)]
        db.delete_many(gone)
        db.flush()
        want = {key: value for key, value in want.items() if key not in gone}
        same()
        db.consolidate()
        same()
        for key in range(9):
            db[b"%d" % key] = want[b"%d" % key] = b"again"
            db.delete_many([b"%d" % (key + 100)])
            want.pop(b"%d" % (key + 100), None)
            db.flush()
        assert db.upkeep().merges
        same()
        db.vacuum()
        same()
    with bucket.open(uri, "a", config={"kv.max_fragment_bytes": 20_000, **OFF}) as db:
        db.consolidate()
        assert len(db.fragments) > 1
        same()
        db.vacuum()
        same()
    storage = bucket.storage(uri)
    folders, files = storage.client.list_folder(storage.root)
    # Whatever begins with "_" in the root costs TileDB a request at each open.
    assert {*files} == {"__array_schema.tdb", "__kv_schema.tdb", "__tilekv.json"}
    # This server goes on listing prefixes in which nothing is left.
    left = [name for name in folders if not storage.client.is_empty(f"{storage.root}{name}/")]
    assert {*left} == {".tilekv", *storage.list().folders}


def test_while_fragments_move(
    bucket: Bucket, see: See, monkeypatch: pytest.MonkeyPatch, tally: Any
) -> None:
    """After each request by which a merge shows what it has made, and sets aside what that supersedes."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for flush in range(3):
            db.put_many({b"all": b"%d" % flush, b"%d" % flush: b"x", b"gone": b"y"})
            if flush:
                db.delete_many([b"%d" % (flush - 1), b"gone"])
            db.flush()
        want = {b"all": b"2", b"2": b"x"}
        assert see(uri) == want
        real = objectclient.Client._call
        looking = False

        def call(self: Any, what: str, *rest: Any) -> Any:
            nonlocal looking
            found = real(self, what, *rest)
            if what in ("copy", "delete") and not looking:
                looking = True
                assert see(uri) == want == bucket.items(uri)
                tally("stores that TileDB has read on a server")
                looking = False
            return found

        monkeypatch.setattr(objectclient.Client, "_call", call)
        monkeypatch.setattr(
            objectclient.Client, "at_once", lambda self, work, items: [work(item) for item in items]
        )
        db.consolidate()
        db.vacuum()
    assert see(uri) == want


def test_what_a_killed_merge_has_left(
    bucket: Bucket, see: See, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TileDB sees nothing of it, nor tilekv."""
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for flush in range(3):
            db.put_many({b"all": b"%d" % flush, b"gone": b"y"})
            db.flush()

        class Killed(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("tilekv.maintenance.Maintenance.commit", die)
            patch.setattr("tilekv.consolidation._withdraw", lambda *_: None)
            with pytest.raises(Killed):
                db.consolidate()
        assert len(bucket.storage(uri).staged()) == 1
        db.delete_many([b"gone"])
        db.flush()
        assert see(uri) == bucket.items(uri) == {b"all": b"2"}
        assert isinstance(tilekv.verify(uri, storage_options=bucket.options), list)

"""What a user does with a store in a bucket: the same in memory and on a server."""

import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

import tilekv
from storage_contract import Contract, Open, fill
from tilekv.consolidation import merge
from tilekv.maintenance import Maintenance
from tilekv.storage import Storage, objectclient, open_storage

OFF = {"kv.upkeep": "off"}


@contextmanager
def bucket_in_memory() -> Iterator[str]:
    """The URI of an empty bucket in the memory of this process."""
    place = f"s3://{uuid.uuid4().hex}"
    memory = MemoryStore()
    objectclient._clients[place, ()] = objectclient.Client(place, lambda _: memory)
    yield place
    del objectclient._clients[place, ()]


class Bucket:
    """A bucket, and what opens stores in it."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None) -> None:
        self.uri = uri
        self.options = options

    def new(self) -> str:
        """The URI of a place where nothing is."""
        return f"{self.uri}/{uuid.uuid4().hex}.kv"

    def open(self, uri: str, mode: Any = "r", **options: Any) -> tilekv.Store:
        return tilekv.open(uri, mode, storage_options=self.options, **options)

    def storage(self, uri: str) -> Any:
        return open_storage(uri, options=self.options)

    def items(self, uri: str, **options: Any) -> dict[Any, Any]:
        with self.open(uri, **options) as db:
            return dict(db.items())


class BucketContract(Contract):
    """As a storage like the others."""

    def test_views_outlive_the_store(self, storage: Storage, open_: Open) -> None:
        """What was read of them does, or was small and opened by itself; the rest is SnapshotGone."""
        fill(draft := storage.draft(), a=b"12345", b=b"12345")
        draft.commit("folder")
        alone = storage.open_file("folder", "a", True)
        fresh, read = (storage.open_files("folder", True)["a"] for _ in range(2))
        assert read.read(1, 3) == b"234"
        other = open_().open_files("folder", True)["a"]
        assert storage.create({"other": b""}, replace=True)
        assert [view.read(1, 3) for view in (alone, fresh, read)] == [b"234"] * 3
        with pytest.raises(tilekv.SnapshotGone, match="folder/a was vacuumed"):
            other.read(1, 3)


class BucketStores:
    """A test class inherits it."""

    @pytest.fixture
    def bucket(self) -> Bucket:
        raise NotImplementedError

    @pytest.fixture
    def uri(self, bucket: Bucket) -> str:
        return bucket.new()

    @pytest.fixture
    def db(self, bucket: Bucket, uri: str) -> Iterator[tilekv.Store]:
        with bucket.open(uri, "x", config=OFF) as db:
            yield db

    def test_what_was_flushed_is_there(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        reader = bucket.open(uri)
        db["a"] = b"1"
        assert "a" not in bucket.items(uri)
        db.flush()
        assert db["a"] == b"1"
        assert bucket.items(uri) == {"a": b"1"}
        assert "a" not in reader
        reader.reopen()
        assert reader["a"] == b"1"
        db["a"] = b"2"
        del db["a"]
        db["b"] = b"3"
        db.flush()
        assert bucket.items(uri) == {"b": b"3"}
        assert tilekv.verify(uri, storage_options=bucket.options) == []

    def test_nothing_there(self, bucket: Bucket, uri: str) -> None:
        with pytest.raises(tilekv.StoreNotFoundError, match="there is no store at"):
            bucket.open(uri)
        with bucket.open(uri, "a") as db:
            assert db.uri == uri
        with pytest.raises(tilekv.StoreExistsError):
            bucket.open(uri, "x")

    def test_large_values_and_many_keys(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        """Files beyond what is kept in memory."""
        large = np.random.default_rng(1).bytes(9 << 20)
        db["large"] = large
        db.put_many([f"k{i}" for i in range(20_000)], [b"%d" % i for i in range(20_000)])
        db.flush()
        assert db["large"] == large
        with bucket.open(uri) as other:
            assert other["large"] == large
            assert other.get_many(["k7", "k19999", "none"]) == [b"7", b"19999", None]
            assert len(other) == 20_001
            assert tilekv.verify(uri, storage_options=bucket.options) == []

    def test_large_files_are_read_by_ranges(
        self, bucket: Bucket, uri: str, db: tilekv.Store
    ) -> None:
        """What a handle has open of them it has not read: once a vacuum has removed them, that is SnapshotGone."""
        db.put_many([f"k{i}" for i in range(10_000)], [b"%d" % i * 9 for i in range(10_000)])
        db.flush()
        storage = bucket.storage(uri)
        (folder,) = storage.list().folders
        coords = storage.open_file(folder, "__coords.tdb", False)
        assert coords.size > 160_000
        assert coords.read(16, 100) == coords.read(0, coords.size)[16:116]
        with bucket.open(uri) as reader:
            assert reader["k7"] == b"7" * 9
            db["more"] = b"x"
            db.flush()
            db.consolidate(vacuum=True)
            assert reader["k7"] == b"7" * 9
            with pytest.raises(tilekv.SnapshotGone, match="was vacuumed"):
                [*reader.items()]
            reader.reopen()
            assert len([*reader.items()]) == 10_001

    def test_writers_see_one_another(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        with bucket.open(uri, "a", config=OFF) as other:
            for i in range(3):
                db[f"a{i}"] = b"1"
                other[f"b{i}"] = b"2"
                db["both"] = b"first"
                db.flush()
                other["both"] = b"second"
                other.flush()
        assert bucket.items(uri)["both"] == b"second"
        assert len(bucket.items(uri)) == 7

    def test_consolidate_and_vacuum(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        reader = bucket.open(uri)
        for i in range(3):
            db.put_many(["k", f"{i}"], [b"v%d" % i, b"x"])
            db.flush()
        del db["1"]
        db.flush()
        reader.reopen()
        want = {"k": b"v2", "0": b"x", "2": b"x"}
        db.consolidate()
        assert bucket.items(uri) == dict(reader.items()) == dict(db.items()) == want
        storage = bucket.storage(uri)
        assert len(storage.list().folders) == 1
        assert len(storage.past()) == 4
        assert storage.staged() == ()
        assert tilekv.verify(uri, storage_options=bucket.options) == []
        db.vacuum()
        assert bucket.items(uri) == dict(reader.items()) == want
        assert storage.past() == ()
        left = {key.partition("/")[0] for key in storage.client.list_all(storage.data)}
        assert left == {*storage.list().folders, *storage.list().files, ".tilekv"}
        assert tilekv.verify(uri, storage_options=bucket.options) == []

    def test_the_past(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        moments = []
        for i in range(3):
            db["k"] = b"%d" % i
            db.flush()
            moments.append(db.fragments[0].t2)
            time.sleep(0.002)
        db.consolidate()
        for i, moment in enumerate(moments):
            assert bucket.items(uri, timestamp=moment) == {"k": b"%d" % i}
        db.vacuum()
        with pytest.raises(tilekv.HistoryVacuumed):
            bucket.items(uri, timestamp=moments[0])

    def test_upkeep(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        for i in range(9):
            db[f"{i}"] = b"%d" % i
            db.flush()
        # Times on a server are whole seconds, and what is of the same second as a draft may be later.
        done = db.upkeep()
        assert done.merges == 1
        assert done.merged >= 8
        assert bucket.items(uri) == {f"{i}": b"%d" % i for i in range(9)}
        assert len(bucket.storage(uri).list().folders) < 9

    def test_a_handle_keeps_its_store(self, bucket: Bucket, uri: str) -> None:
        with bucket.open(uri, "x") as db:
            for i in range(24):
                db[f"{i}"] = b"%d" % i
                db.flush()
        with bucket.open(uri, "a") as db:
            db.upkeep()
            assert len(db.fragments) < 24
        assert bucket.items(uri) == {f"{i}": b"%d" % i for i in range(24)}

    def test_backup_from_and_to(
        self, bucket: Bucket, uri: str, db: tilekv.Store, tmp_path: Any
    ) -> None:
        for i in range(3):
            db[f"{i}"] = b"%d" % i
            db.flush()
        options = {"storage_options": bucket.options}
        there, here = bucket.new(), tmp_path / "backup"
        assert tilekv.backup(uri, there, **options).copied == 3
        assert tilekv.backup(uri, here, **options).copied == 3
        db.consolidate()
        db["new"] = b"3"
        db.flush()
        want = bucket.items(uri)
        for place in (there, here):
            done = tilekv.backup(uri, place, **options)
            assert (done.copied, done.removed, done.fragments) == (2, 3, 2)
        assert bucket.items(there) == want
        with tilekv.open(here) as copy:
            assert dict(copy.items()) == want
        back = bucket.new()
        tilekv.backup(here, back, **options)
        assert bucket.items(back) == want
        assert tilekv.verify(back, storage_options=bucket.options) == []
        with bucket.open(there, "a", config=OFF) as touched:
            touched["x"] = b"1"
        with pytest.raises(tilekv.StoreExistsError, match="somebody has written"):
            tilekv.backup(uri, there, **options)

    def test_convert_salvage_and_append(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        options = {"storage_options": bucket.options}
        db.put_many(["a", "b"], [b"1", b"2"])
        db.flush()
        copied, saved = bucket.new(), bucket.new()
        assert tilekv.convert(uri, copied, **options) == 2
        assert tilekv.salvage(uri, saved, **options).copied == 2
        assert bucket.items(copied) == bucket.items(saved) == {"a": b"1", "b": b"2"}
        for place in (uri, copied):
            with pytest.raises(tilekv.StoreExistsError):
                tilekv.convert(saved, place, **options)
        tilekv.append_attr(saved, tilekv.Attr("n", "int64"), 7, **options)
        assert bucket.items(saved)["a"] == {"value": b"1", "n": 7}
        keys = bucket.storage(saved).client.list_all(bucket.storage(saved).data)
        assert not [key for key in keys if "build-" in key or key.endswith("creating")]
        assert tilekv.verify(saved, storage_options=bucket.options) == []

    def test_replaced(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        db["a"] = b"1"
        db.flush()
        db["b"] = b"2"
        reader, late = bucket.open(uri), bucket.open(uri)
        assert reader["a"] == b"1"
        with bucket.open(uri, "w") as new:
            new["c"] = b"3"
        assert bucket.items(uri) == {"c": b"3"}
        assert reader["a"] == b"1"
        with pytest.raises(tilekv.SnapshotGone):
            late["a"]
        with pytest.raises(tilekv.StoreReplacedError):
            db.flush()
        with pytest.raises(tilekv.StoreReplacedError):
            reader.reopen()
        assert bucket.items(uri) == {"c": b"3"}
        db.close(discard=True)

    def test_creators_race(self, bucket: Bucket) -> None:
        for _ in range(5):
            uri = bucket.new()
            barrier = threading.Barrier(4)
            won: list[int] = []

            def create(i: int, uri: str = uri, barrier: Any = barrier, won: Any = won) -> None:
                schema = tilekv.Schema([tilekv.Attr(f"a{i}", "int64")])
                barrier.wait()
                try:
                    bucket.open(uri, "x", schema=schema).close()
                    won.append(i)
                except tilekv.StoreExistsError:
                    pass

            threads = [threading.Thread(target=create, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            with bucket.open(uri) as db:
                assert db.schema.attrs[0].name == f"a{won[0]}"

    def test_a_creator_that_died(self, bucket: Bucket, uri: str, monkeypatch: Any) -> None:
        """One request makes a store: whoever comes puts its files in their places."""
        from tilekv.storage import objectstore

        with monkeypatch.context() as patch:
            patch.setattr(objectstore, "settle", lambda *_: True)
            bucket.open(uri, "x")
        storage = bucket.storage(uri)
        assert [*storage.client.list_all(storage.data)] == [".tilekv/creating"]
        assert bucket.items(uri) == {}
        with pytest.raises(tilekv.StoreExistsError):
            bucket.open(uri, "x")
        with bucket.open(uri, "a") as db:
            db["a"] = b"1"
        assert bucket.items(uri) == {"a": b"1"}
        assert ".tilekv/creating" not in storage.client.list_all(storage.data)

    def test_a_merge_that_came_late(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        """What two have merged counts once: an older value does not win (the scene that lists alone lose)."""
        for i in (1, 2):
            db["k"] = b"%d" % i
            db.flush()
        late = Maintenance(bucket.open(uri, "a", config=OFF)._engine)
        claimed = late.claim(lambda state: state.visible)
        assert claimed is not None
        late.release(claimed.owner)  # it was suspended for a minute
        db.consolidate()
        db["k"] = b"3"
        db.flush()
        assert not merge(late, claimed)
        assert bucket.items(uri) == {"k": b"3"}
        db.vacuum()
        assert bucket.items(uri) == {"k": b"3"}

    def test_consolidators_race(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        want = {}
        for i in range(4):
            for j in range(3):
                db[f"{j}"] = want[f"{j}"] = b"%d %d" % (i, j)
                db.flush()
            outcomes: list[Any] = []

            def consolidate(outcomes: list[Any] = outcomes) -> None:
                with bucket.open(uri, "a", config=OFF) as other:
                    try:
                        outcomes.append(other.consolidate())
                    except tilekv.StoreBusyError as error:
                        outcomes.append(error)

            threads = [threading.Thread(target=consolidate) for _ in range(2)]
            for thread in threads:
                thread.start()
            db["beside"] = want["beside"] = b"%d" % i
            db.flush()
            for thread in threads:
                thread.join()
            assert len(outcomes) == 2
            assert bucket.items(uri) == want
        db.vacuum()
        assert bucket.items(uri) == want

    def test_a_handle_travels(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        db["a"] = b"1"
        db.flush()
        with pickle.loads(pickle.dumps(db)) as other:
            assert other["a"] == b"1"
            assert other._storage_options == bucket.options

    def test_groups(self, bucket: Bucket) -> None:
        """group_create, ls, walk, object_type, move and remove."""
        options: dict[str, Any] = {"storage_options": bucket.options}
        root = bucket.new()
        top = tilekv.group_create(f"{root}/top", **options)
        tilekv.group_create(f"{top}/sub", **options)
        for uri in (f"{top}/one", f"{top}/sub/two"):
            with bucket.open(uri, "x", config=OFF) as db:
                db["k"] = b"v"
        with pytest.raises(tilekv.StoreExistsError):
            tilekv.group_create(f"{top}/one", **options)

        def found(call: Any, path: str, *order: str) -> list[tuple[str, str]]:
            seen: list[tuple[str, str]] = []
            call(path, lambda *each: seen.append(each), *order, **options)
            return [(uri.removeprefix(path), kind) for uri, kind in seen]

        assert found(tilekv.ls, root) == [("/top", "group")]
        everything = [("/one", "kv"), ("/sub", "group"), ("/sub/two", "kv")]
        assert found(tilekv.ls, top) == everything[:2]
        assert found(tilekv.walk, top) == everything
        assert found(tilekv.walk, top, "postorder") == [everything[i] for i in (0, 2, 1)]
        assert tilekv.object_type(root, **options) is None
        assert tilekv.object_type(top, **options) == "group"

        moved = f"{root}/moved"
        tilekv.move(top, moved, **options)
        assert found(tilekv.walk, moved) == everything
        assert bucket.items(f"{moved}/sub/two") == {"k": b"v"}
        assert tilekv.object_type(top, **options) is None
        tilekv.move(f"{moved}/one", f"{moved}/sub/one", **options)
        for taken in (moved, f"{moved}/sub/two"):
            with pytest.raises(tilekv.StoreExistsError):
                tilekv.move(f"{moved}/sub/one", taken, **options)
        with pytest.raises(tilekv.StoreNotFoundError):
            tilekv.move(top, f"{root}/nothing", **options)
        with pytest.raises(tilekv.InvalidValueError, match="in"):
            tilekv.move(moved, f"{moved}/sub/below", **options)
        with pytest.raises(tilekv.InvalidValueError, match=r"tilekv\.backup"):
            tilekv.move(f"{moved}/sub/one", "memory://elsewhere", **options)

        storage = bucket.storage(root)
        storage.client.put(f"{storage.data}moved/sub/file", b"1")
        with pytest.raises(tilekv.InvalidValueError, match=r"sub/file is no key-value store"):
            tilekv.remove(moved, **options)
        storage.client.delete([f"{storage.data}moved/sub/file"])
        tilekv.remove(moved, **options)
        assert tilekv.object_type(f"{moved}/sub/two", **options) is None
        assert storage.client.list_all(storage.data) == {}
        with pytest.raises(tilekv.StoreNotFoundError):
            tilekv.remove(moved, **options)

    def test_a_store_moves_with_its_past(self, bucket: Bucket, uri: str, db: tilekv.Store) -> None:
        options: dict[str, Any] = {"storage_options": bucket.options}
        for i in range(3):
            db["k"] = b"%d" % i
            db.flush()
        moment = db.fragments[-1].t2
        db.consolidate()
        db["new"] = b"3"
        db.flush()
        reader = bucket.open(uri)
        db["lost"] = b"4"
        there = bucket.new()
        tilekv.move(uri, there, **options)
        want = {"k": b"2", "new": b"3"}
        assert bucket.items(there) == want
        with pytest.raises(tilekv.SnapshotGone):
            reader["k"]
        assert bucket.items(there, timestamp=moment) == {"k": b"0"}
        assert tilekv.verify(there, **options) == []
        assert bucket.storage(uri).client.list_all(bucket.storage(uri).data) == {}
        with pytest.raises(tilekv.StoreNotFoundError):
            db.flush()
        db.close(discard=True)
        with bucket.open(there, "a", config=OFF) as moved:
            moved["more"] = b"5"
            moved.flush()
            moved.consolidate(vacuum=True)
        assert bucket.items(there) == want | {"more": b"5"}
        assert tilekv.verify(there, **options) == []

    def test_frames(self, bucket: Bucket, uri: str) -> None:
        import pyarrow as pa

        table = pa.table({"key": ["a", "b"], "n": [1, 2]})
        with tilekv.from_arrow(uri, table, "key", storage_options=bucket.options) as db:
            assert db["b"] == 2
        assert len(bucket.items(uri)) == 2

"""One contract, every storage: what holds for each. A test class inherits it."""

import threading
from collections.abc import Callable

import pytest

from tilekv.errors import InvalidValueError, StoreNotFoundError
from tilekv.storage import Draft, Listing, Storage, open_storage

FILES = {"__schema.tdb": b"schema", "__tilekv.json": b'{"id": "1"}'}
BAD_NAMES = ["", ".", "..", "a/b", "/a", "a\\b", "a\0b"]
Open = Callable[[], Storage]


def fill(draft: Draft, **files: bytes) -> None:
    for name, data in files.items():
        writer = draft.create(name)
        writer.write(data)
        writer.close()


class Contract:
    """What holds for every Storage. `open_` opens the same place, empty at first, each time."""

    @pytest.fixture
    def open_(self) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def storage(self, open_: Open) -> Storage:
        storage = open_()
        assert storage.create(FILES, replace=False)
        return storage

    def test_nothing_there(self, open_: Open) -> None:
        storage = open_()
        assert not storage.exists()
        assert storage.is_empty()
        assert storage.is_empty("folder")
        for use in (
            storage.list,
            storage.draft,
            lambda: storage.read("a"),
            lambda: storage.put("a", b""),
            lambda: storage.files("a"),
            lambda: storage.open_file("a", "b", True),
        ):
            with pytest.raises(FileNotFoundError):
                use()
        with pytest.raises(StoreNotFoundError):
            storage.list()
        with pytest.raises(StoreNotFoundError), storage.lock():
            pass

    def test_create(self, open_: Open) -> None:
        storage = open_()
        assert storage.create(FILES, replace=False)
        for each in (storage, open_()):
            assert each.exists()
            assert not each.is_empty()
            assert each.list() == Listing((), ("__schema.tdb", "__tilekv.json"))
            assert each.read("__schema.tdb") == b"schema"
            assert each.read("__tilekv.json") == b'{"id": "1"}'

    def test_create_over_something(self, storage: Storage) -> None:
        fill(draft := storage.draft(), a=b"1")
        draft.commit("folder")
        assert not storage.create({"other": b""}, replace=False)
        assert storage.read("__schema.tdb") == b"schema"
        assert storage.create({"other": b"new"}, replace=True)
        assert storage.list() == Listing((), ("other",))
        assert storage.read("other") == b"new"

    def test_build(self, open_: Open, storage: Storage) -> None:
        """It opens by its own uri until the commit, and only then at its place."""
        fill(draft := storage.draft(), a=b"1")
        draft.commit("folder")
        for replace in (False, True):
            build = storage.build()
            built = open_storage(build.uri, sync=False)
            assert built.create({"new": b"1"}, replace=False)
            fill(draft := built.draft(), a=b"2")
            draft.commit("other")
            assert open_().list().folders == ("folder",)
            assert build.commit(replace) is replace
            build.abandon()
            build.abandon()
            assert not built.exists()
        assert open_().list() == Listing(("other",), ("new",))

    def test_build_that_is_abandoned(self, open_: Open) -> None:
        build = open_().build()
        built = open_storage(build.uri, sync=False)
        assert built.create({"new": b"1"}, replace=False)
        build.abandon()
        assert not built.exists()
        assert not open_().exists()

    def test_replace_nothing(self, open_: Open) -> None:
        storage = open_()
        assert storage.create({"a": b"1"}, replace=True)
        assert storage.list().files == ("a",)

    def test_create_race(self, open_: Open) -> None:
        barrier = threading.Barrier(8)
        won = []

        def create(i: int) -> None:
            storage = open_()
            barrier.wait()
            if storage.create({"who": b"%d" % i, "again": b"%d" % i}, replace=False):
                won.append(i)

        threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert open_().read("who") == open_().read("again") == b"%d" % won[0]

    def test_put_replaces(self, storage: Storage) -> None:
        storage.put("a.vac", b"one")
        storage.put("a.vac", b"two")
        assert storage.read("a.vac") == b"two"
        assert storage.list().files == ("__schema.tdb", "__tilekv.json", "a.vac")

    def test_draft_is_invisible_until_its_commit(self, open_: Open, storage: Storage) -> None:
        draft = storage.draft()
        fill(draft, a=b"1", b=b"")
        draft.sync()
        assert open_().list().folders == ()
        with pytest.raises(FileNotFoundError):
            open_().files("folder")
        fill(draft, c=b"333")
        draft.commit("folder")
        assert open_().list().folders == ("folder",)
        assert open_().files("folder") == {"a": 1, "b": 0, "c": 3}
        assert not open_().is_empty("folder")

    def test_listing_is_sorted(self, storage: Storage) -> None:
        for name in ("b", "c", "a"):
            fill(draft := storage.draft(), x=b"")
            draft.commit(name)
            storage.put(f"{name}.vac", b"")
        assert storage.list() == Listing(
            ("a", "b", "c"), ("__schema.tdb", "__tilekv.json", "a.vac", "b.vac", "c.vac")
        )

    def test_a_taken_name_keeps_both(self, storage: Storage) -> None:
        fill(first := storage.draft(), a=b"first")
        fill(second := storage.draft(), a=b"second")
        first.commit("one")
        with pytest.raises(FileExistsError):
            second.commit("one")
        with pytest.raises(FileExistsError):
            second.commit("__schema.tdb")
        assert storage.open_file("one", "a", False).read(0, 5) == b"first"
        second.commit("two")
        assert storage.open_file("two", "a", False).read(0, 6) == b"second"

    def test_abandon(self, storage: Storage) -> None:
        draft = storage.draft()
        writer = draft.create("a")
        draft.abandon()
        draft.abandon()
        writer.close()
        writer.close()
        assert storage.list().folders == ()
        with pytest.raises(FileNotFoundError):
            draft.commit("folder")
        with pytest.raises(FileNotFoundError):
            draft.create("b")

    def test_abandon_after_commit(self, storage: Storage) -> None:
        fill(draft := storage.draft(), a=b"1")
        draft.commit("folder")
        draft.abandon()
        assert storage.files("folder") == {"a": 1}
        with pytest.raises(FileNotFoundError):
            draft.commit("again")

    def test_a_draft_of_a_store_that_was_replaced(self, storage: Storage) -> None:
        fill(draft := storage.draft(), a=b"1")
        assert storage.create({"other": b""}, replace=True)
        with pytest.raises(FileNotFoundError):
            draft.commit("folder")
        draft.abandon()
        assert storage.list() == Listing((), ("other",))

    def test_writing(self, storage: Storage) -> None:
        draft = storage.draft()
        writer = draft.create("a")
        for data in (
            b"ab",
            bytearray(b"c"),
            memoryview(b"xdey")[1:3],
            memoryview(b"\1\0\2\0").cast("H"),
            b"",
        ):
            writer.write(data)
        draft.sync()
        writer.write(b"f")
        with pytest.raises(FileExistsError):
            draft.create("a")
        writer.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"g")
        draft.commit("folder")
        for mmap in (False, True):
            view = storage.open_file("folder", "a", mmap)
            assert view.size == 10
            assert view.read(0, 10) == b"abcde"[:3] + b"de" + b"\1\0\2\0" + b"f"

    def test_views_outlive_the_store(self, storage: Storage) -> None:
        fill(draft := storage.draft(), a=b"12345", empty=b"")
        draft.commit("folder")
        views = [storage.open_file("folder", "a", mmap) for mmap in (False, True)]
        empty = [storage.open_file("folder", "empty", mmap) for mmap in (False, True)]
        for mmap in (False, True):
            both = storage.open_files("folder", mmap)
            assert sorted(both) == ["a", "empty"]
            views.append(both["a"])
            empty.append(both["empty"])
        assert storage.create({"other": b""}, replace=True)
        assert [view.read(1, 3) for view in views] == [b"234"] * 4
        assert [view.size for view in empty] == [0] * 4

    def test_missing(self, storage: Storage) -> None:
        fill(draft := storage.draft(), a=b"")
        draft.commit("folder")
        for use in (
            lambda: storage.read("gone"),
            lambda: storage.files("gone"),
            lambda: storage.open_files("gone", True),
            lambda: storage.open_file("gone", "a", True),
            lambda: storage.open_file("folder", "gone", True),
        ):
            with pytest.raises(FileNotFoundError, match="gone"):
                use()

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_names_that_could_be_paths(self, storage: Storage, name: str) -> None:
        fill(draft := storage.draft(), a=b"")
        draft.commit("folder")
        draft = storage.draft()
        for use in (
            lambda: storage.read(name),
            lambda: storage.put(name, b""),
            lambda: storage.files(name),
            lambda: storage.open_file(name, "a", True),
            lambda: storage.open_files(name, True),
            lambda: storage.open_file("folder", name, True),
            lambda: storage.create({name: b""}, replace=True),
            lambda: draft.create(name),
            lambda: draft.commit(name),
        ):
            with pytest.raises(InvalidValueError):
                use()
        assert storage.read("__schema.tdb") == b"schema"

    def test_uri_opens_the_same_place(self, storage: Storage) -> None:
        assert open_storage(storage.uri).read("__schema.tdb") == b"schema"

    def test_commits_of_many_threads(self, open_: Open, storage: Storage) -> None:
        def commit(i: int) -> None:
            fill(draft := open_().draft(), a=b"%d" % i, b=b"%d" % i)
            draft.commit(f"f{i}")

        threads = [threading.Thread(target=commit, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert storage.list().folders == tuple(f"f{i}" for i in range(8))
        for i in range(8):
            assert storage.open_file(f"f{i}", "b", True).read(0, 1) == b"%d" % i

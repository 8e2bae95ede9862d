"""One contract, every storage; then what only local folders can get wrong."""

import ctypes
import errno
import fcntl
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faulty import Faults
from powercut import Disk
from storage_contract import Contract, Open, fill
from tilekv.errors import (
    CorruptionError,
    InvalidValueError,
    WrongTypeError,
)
from tilekv.kvcore.base.file import give_back_descriptors
from tilekv.kvcore.base.writeback import begin_writing, sync_all
from tilekv.names import is_temporary, temporary_name, temporary_owner
from tilekv.storage import (
    Listing,
    RecordFile,
    exchange,
    local,
    open_storage,
)
from tilekv.storage.process import process_name

FILES = {"__schema.tdb": b"schema", "__lock.tdb": b""}


class TestMemory(Contract):
    @pytest.fixture
    def open_(self) -> Open:
        name = uuid.uuid4().hex
        return lambda: open_storage(f"memory://{name}")

    def test_a_fork_gets_a_lock_that_is_free(self, open_: Open) -> None:
        from tilekv.storage import memory

        with memory._lock:
            held = memory._lock
            memory._renew_lock()
            assert open_().exists() is False
        assert memory._lock is not held


class TestLocal(Contract):
    @pytest.fixture
    def open_(self, tmp_path: Path) -> Open:
        return lambda: open_storage(tmp_path / "store")


class TestLocalWithoutRenameat2(TestLocal):
    @pytest.fixture(autouse=True)
    def old_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange, "_renameat2", None)


class TestLocalOnAFileSystemWithoutFlags(TestLocal):
    @pytest.fixture(autouse=True)
    def old_file_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

        monkeypatch.setattr(exchange, "_renameat2", refuse)


class TestLocalThroughALink(TestLocal):
    @pytest.fixture
    def open_(self, tmp_path: Path) -> Open:
        (tmp_path / "link").symlink_to("real", target_is_directory=True)
        return lambda: open_storage(tmp_path / "link")


class TestLocalWithoutSync(TestLocal):
    @pytest.fixture
    def open_(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
        def forbidden(fd: int) -> None:
            raise AssertionError("sync=False syncs nothing")

        monkeypatch.setattr(os, "fsync", forbidden)
        return lambda: open_storage(tmp_path / "store", sync=False)


class TestLocalWithShortReads(TestLocal):
    @pytest.fixture(autouse=True)
    def short_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = os.read
        monkeypatch.setattr(os, "read", lambda fd, n: read(fd, 1))


class TestLocalOnADiskThatForgets(TestLocal):
    """The one that tests of power cuts use is a storage like the others."""

    @pytest.fixture(autouse=True)
    def disk(self, tmp_path: Path) -> Iterator[None]:
        with Disk(tmp_path).recording():
            yield


class TestLocalWithFaults(Contract):
    """So is the one that fails where a test wants, until it does."""

    @pytest.fixture
    def open_(self, tmp_path: Path) -> Open:
        return lambda: Faults().storage(open_storage(tmp_path / "store"))


class TestLocalWithShortWrites(TestLocal):
    @pytest.fixture(autouse=True)
    def short_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert open_storage(tmp_path / "store").create(FILES, replace=False)
    return tmp_path / "store"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced, in order, and the renames between."""
    log: list[str] = []
    fsync, rename, sync_all = os.fsync, os.rename, local.sync_all

    def name(path: str) -> str:
        return "tmp" if os.path.basename(path).startswith(".tmp-") else os.path.basename(path)

    def path(fd: int) -> str:
        return name(os.readlink(f"/proc/self/fd/{fd}"))

    def logged_fsync(fd: int) -> None:
        log.append(path(fd))
        fsync(fd)

    def logged_syncs(fds: list[int]) -> list[int]:
        log.append(" ".join(sorted(map(path, fds))))
        return sync_all(fds)

    def logged_rename(old: str, new: str) -> None:
        log.append(f"{name(old)} -> {name(new)}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(local, "sync_all", logged_syncs)
    monkeypatch.setattr(os, "rename", logged_rename)
    monkeypatch.setattr(exchange, "_renameat2", None)
    return log


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")


@needs_proc
def test_what_a_sync_makes_durable(root: Path, synced: list[str]) -> None:
    """The names in the root, of the record and of what is staged."""
    storage = open_storage(root)
    storage.sync()
    assert synced == ["store"]
    storage.draft(staged=True).abandon()
    del synced[:]
    storage.sync()
    assert synced == ["store", ".tilekv", "staged"]


@needs_proc
def test_order_of_a_commit(root: Path, synced: list[str]) -> None:
    draft = open_storage(root).draft()
    fill(draft, a=b"1", b=b"2")
    assert synced == []
    draft.sync()
    assert synced == ["a b tmp"]
    fill(draft, c=b"3")
    draft.commit("folder")
    assert synced[1:] == ["c tmp", "tmp -> folder", "store"]


@needs_proc
def test_names_wait_for_the_last_file(root: Path, synced: list[str]) -> None:
    draft = open_storage(root).draft()
    fill(draft, a=b"1", b=b"2")
    draft.sync(names=False)
    assert synced == ["a b"]
    draft.sync(names=False)
    assert synced[1:] == []
    fill(draft, c=b"3")
    draft.sync()
    draft.commit("folder")
    assert synced[1:] == ["c tmp", "tmp -> folder", "store"]


@needs_proc
def test_a_commit_syncs_the_names_that_nobody_has(root: Path, synced: list[str]) -> None:
    draft = open_storage(root).draft()
    fill(draft, a=b"1")
    draft.sync(names=False)
    draft.commit("folder")
    assert synced == ["a", "tmp", "tmp -> folder", "store"]


@needs_proc
def test_what_was_synced_is_not_synced_again(root: Path, synced: list[str]) -> None:
    draft = open_storage(root).draft()
    (writer := draft.create("a")).write(b"1")
    draft.sync()
    draft.sync()
    writer.write(b"2")
    draft.sync()
    assert synced == ["a tmp", "a"]


@needs_proc
def test_many_files_are_synced_as_many_at_once_as_are_open(root: Path, synced: list[str]) -> None:
    draft = open_storage(root).draft()
    names = [f"{i:03}" for i in range(2 * local.DRAFT_FILES + 3)]
    fill(draft, **dict.fromkeys(names, b"1"))
    draft.sync()
    assert sorted(" ".join(synced).split()) == [*names, "tmp"]
    assert len(synced) == 3
    assert synced[0].endswith("tmp")


@pytest.mark.parametrize("sync", [True, False])
def test_the_disk_begins_early(root: Path, monkeypatch: pytest.MonkeyPatch, sync: bool) -> None:
    """Every so many bytes of a file the system is told to write those that are new; syncing is not left to that."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(local, "EARLY_WRITE", 100)
    monkeypatch.setattr(local, "begin_writing", lambda _fd, at, n: begun.append((at, n)))
    writer = open_storage(root, sync).draft().create("a")
    for size in (99, 2, 98, 3, 250):
        writer.write(b"x" * size)
    assert begun == ([(0, 101), (101, 101), (202, 250)] if sync else [])
    writer.close()


def test_begin_writing_promises_nothing(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"x" * 10_000)
        begin_writing(file.fileno(), 0, 10_000)
    begin_writing(-1, 0, 10)  # fsync is what says that something is wrong
    assert (tmp_path / "file").read_bytes() == b"x" * 10_000


@needs_proc
def test_a_draft_of_many_files_has_few_open(root: Path) -> None:
    """Of 62 attributes a fragment has up to 190 files; each is written a part at a time."""
    draft = open_storage(str(root)).draft()
    before = len(os.listdir("/proc/self/fd"))
    names = [f"{i:03}" for i in range(190)]
    writers = [draft.create(name) for name in names]
    for part in b"first, ", b"second, ", b"third":
        for writer in writers:
            writer.write(part)
            assert len(os.listdir("/proc/self/fd")) <= before + local.DRAFT_FILES
    draft.sync()
    for writer in writers:
        writer.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"more")
    assert len(os.listdir("/proc/self/fd")) == before
    draft.commit("folder")
    for name in names:
        assert (root / "folder" / name).read_bytes() == b"first, second, third"


def test_order_of_put_and_create(tmp_path: Path, root: Path, synced: list[str]) -> None:
    open_storage(root).put("a", b"1")
    assert synced == ["tmp", "tmp -> a", "store"]
    synced.clear()
    open_storage(tmp_path / "new").create({"a": b"", "b": b""}, replace=False)
    assert synced == ["a", "b", "tmp", "tmp -> new", tmp_path.name]


@needs_proc
def test_order_of_a_removal(root: Path, synced: list[str]) -> None:
    """What was hidden is durably so before anything that depends on it goes; what is hidden already can go at any time."""
    storage = open_storage(root)
    for name in ("one", "two"):
        fill(draft := storage.draft(), a=b"1")
        draft.commit(name)
    synced.clear()
    hidden = storage.retire(["one", "two"])
    assert synced == ["one -> tmp", "two -> tmp", "store"]
    synced.clear()
    storage.remove("__schema.tdb")
    assert synced == ["store"]
    synced.clear()
    storage.reclaim(hidden)
    assert synced == []
    assert storage.list() == Listing((), ("__lock.tdb",))


def test_an_empty_folder_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    storage = open_storage(tmp_path / "store")
    assert storage.exists()
    assert storage.is_empty()
    assert storage.create(FILES, replace=False)
    assert storage.read("__schema.tdb") == b"schema"


def test_hidden_files_are_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".keep").touch()
    storage = open_storage(tmp_path / "store")
    assert not storage.is_empty()
    assert not storage.create(FILES, replace=False)
    assert os.listdir(tmp_path) == ["store"]


def test_nothing_is_left_beside_the_store(tmp_path: Path, root: Path) -> None:
    storage = open_storage(root)
    assert storage.create({"a": b""}, replace=True)
    assert not storage.create({"a": b""}, replace=False)
    with pytest.raises(InvalidValueError):
        storage.create({"..": b""}, replace=True)
    assert os.listdir(tmp_path) == ["store"]
    assert os.listdir(root) == ["a"]


def test_no_folder_to_make_a_store_in(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder to make.*missing"):
        open_storage(tmp_path / "missing" / "store").create(FILES, replace=False)


def test_a_file_in_the_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"mine")
    storage = open_storage(tmp_path / "store")
    for use in (storage.exists, storage.is_empty, lambda: storage.create(FILES, replace=True)):
        with pytest.raises(NotADirectoryError, match="store"):
            use()
    assert (tmp_path / "store").read_bytes() == b"mine"


def test_an_empty_folder_of_a_fragments_name_is_taken(root: Path) -> None:
    # rename() alone would put the draft in its place.
    (root / "folder").mkdir()
    fill(draft := open_storage(root).draft(), a=b"1")
    with pytest.raises(FileExistsError):
        draft.commit("folder")


def test_a_draft_that_was_vacuumed(root: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(), a=b"1")
    [hidden] = [name for name in os.listdir(root) if name.startswith(".tmp-")]
    os.rename(root / hidden, root / ".tmp-elsewhere")
    for use in (lambda: draft.create("b"), draft.sync, lambda: draft.commit("folder")):
        with pytest.raises(FileNotFoundError):
            use()
    draft.abandon()
    assert storage.list().folders == ()


def test_an_interrupted_write_shows_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage = open_storage(root)
    draft = storage.draft()
    writer = draft.create("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"cannot write into the store: No space.*'.*a'"):
            writer.write(b"1")
        with pytest.raises(OSError, match="No space"):
            storage.put("__schema.tdb", b"other")
        with pytest.raises(OSError, match="No space"):
            storage.create({"a": b"1"}, replace=True)
    draft.abandon()
    assert storage.read("__schema.tdb") == b"schema"
    assert sorted(os.listdir(root)) == sorted(FILES)


@pytest.mark.parametrize("call", ["close", "flock", "scandir"])
def test_errors_say_what_could_not_be_done(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A network file system may say only on closing that its disk is full, and that it has no locks."""

    def broken(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    storage = open_storage(root)
    if call == "close":
        writer = storage.draft().create("a")
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", broken)
            with pytest.raises(OSError, match=r"cannot write into the store: .*'.*a'"):
                writer.close()
    elif call == "flock":
        monkeypatch.setattr(fcntl, "flock", broken)
        with (
            pytest.raises(OSError, match=r"cannot lock the store: .*'.*__lock.tdb'"),
            storage.lock(),
        ):
            pass
    else:
        monkeypatch.setattr(os, "scandir", broken)
        with pytest.raises(OSError, match=r"cannot list the store: .*'.*store'"):
            storage.list()


def test_a_system_that_writes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_storage(root).draft().create("a")
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="cannot write"):
        writer.write(b"1")


def test_a_failed_sync_commits_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any of the files. The system may have dropped what it could not write: the draft cannot be synced again."""
    for broken in range(3):
        storage = open_storage(root)
        fill(draft := storage.draft(), a=b"1", b=b"2")

        def broken_sync(fds: list[int], i: int = broken) -> list[int]:
            return [errno.EIO if each == i else 0 for each, _ in enumerate(fds)]

        with monkeypatch.context() as patch:
            patch.setattr(local, "sync_all", broken_sync)
            with pytest.raises(OSError, match="cannot make the store durable: Input/output"):
                draft.commit("folder")
        for again in (draft.sync, lambda draft=draft: draft.commit("folder")):
            with pytest.raises(OSError, match="cannot make the store durable"):
                again()
        assert storage.list().folders == ()
        draft.abandon()
        assert not list(root.glob(".tmp-*"))


def test_all_are_synced_and_each_says_what_was_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with (tmp_path / "file").open("r+b") as file:
        folder = os.open(tmp_path, os.O_RDONLY)
        read, write = os.pipe()
        assert sync_all([file.fileno(), -1, folder, write, file.fileno()]) == [
            0,
            errno.EBADF,
            0,
            errno.EINVAL,
            0,
        ]
        for fd in (folder, read, write):
            os.close(fd)
    assert sync_all([]) == []


def test_folders_that_cannot_be_synced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = errno.EINVAL  # what a file system says that has no such thing

    def is_folder(fd: int) -> bool:
        return stat.S_ISDIR(os.fstat(fd).st_mode)

    def files_only(fd: int) -> None:
        if is_folder(fd):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", files_only)
    monkeypatch.setattr(local, "sync_all", lambda fds: [is_folder(fd) * code for fd in fds])
    fill(draft := open_storage(root).draft(), a=b"1")
    draft.commit("folder")
    code = errno.EIO
    fill(draft := open_storage(root).draft(), a=b"1")
    with pytest.raises(OSError, match="cannot make the store durable"):
        draft.commit("other")
    assert open_storage(root).list().folders == ("folder",)


def test_links_in_a_store_are_not_followed(root: Path, tmp_path: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("folder")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"secret")
    (root / "link.tdb").symlink_to(tmp_path / "secret")
    (root / "linked").symlink_to(tmp_path / "other", target_is_directory=True)
    (root / "folder" / "b").symlink_to(tmp_path / "secret")
    assert storage.list() == Listing(("folder",), ("__lock.tdb", "__schema.tdb"))
    assert storage.files("folder") == {"a": 1}
    for use in (
        lambda: storage.read("link.tdb"),
        lambda: storage.files("linked"),
        lambda: storage.open_file("linked", "a", True),
        lambda: storage.open_files("linked", True),
        lambda: storage.open_file("folder", "b", True),
        lambda: storage.open_file("folder", "b", False),
    ):
        with pytest.raises(CorruptionError, match=r"not a (file|folder)"):
            use()
    storage.put("link.tdb", b"mine")  # replaces the link, not what it points to
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_other_things_in_a_store(root: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("folder")
    os.mkfifo(root / "folder" / "fifo")
    os.mkfifo(root / "fifo")
    (root / "folder" / "sub").mkdir()
    (root / "folder" / "link").symlink_to(root / "__schema.tdb")
    assert storage.files("folder") == {"a": 1}
    assert list(storage.open_files("folder", True)) == ["a"]
    for use in (
        lambda: storage.open_file("folder", "fifo", True),
        lambda: storage.open_file("folder", "sub", True),
        lambda: storage.read("fifo"),
        lambda: storage.read("folder"),
        lambda: storage.files("__lock.tdb"),
    ):
        with pytest.raises(CorruptionError):
            use()


def test_small_files_are_small(root: Path) -> None:
    with open(root / "big", "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(CorruptionError, match=r"big.*67108865"):
        open_storage(root).read("big")


def test_descriptors_are_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("folder")
    before = os.open(root, os.O_RDONLY)
    os.close(before)
    for _ in range(3):
        storage.list()
        storage.files("folder")
        storage.read("__schema.tdb")
        storage.put("x", b"")
        storage.is_empty()
        storage.open_file("folder", "a", True)
        storage.open_file("folder", "a", False)
        storage.open_files("folder", True)
        storage.open_files("folder", False)
        open_storage(root).draft().create("a")
        with pytest.raises(FileNotFoundError):
            storage.open_file("folder", "gone", True)
    after = os.open(root, os.O_RDONLY)
    os.close(after)
    assert after == before


@contextmanager
def nobody() -> Iterator[None]:
    """Run as a user who owns nothing: permissions do not count for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_nobody_may_look_into_is_nobodys(tmp_path: Path) -> None:
    """One user's draft does not keep another's vacuum from its work."""
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        storage = open_storage(os.path.join(parent, "store"))
        assert storage.create(FILES, replace=False)
        hidden = os.path.join(parent, "store", ".tmp-private")
        os.mkdir(hidden, 0o700)
        os.utime(hidden, (0, 0))
        with nobody() if os.geteuid() == 0 else unreadable(hidden):
            assert storage.abandoned(1) == []
        assert storage.abandoned(1) == [".tmp-private"]


@contextmanager
def unreadable(path: str) -> Iterator[None]:
    os.chmod(path, 0)
    try:
        yield
    finally:
        os.chmod(path, 0o700)


def test_permission_errors_say_what_and_where() -> None:
    with tempfile.TemporaryDirectory() as parent:
        path = os.path.join(parent, "store")
        storage = open_storage(path)
        assert storage.create(FILES, replace=False)
        fill(draft := storage.draft(), a=b"1")
        draft.commit("folder")
        fill(draft := storage.draft(), a=b"1")
        os.chmod(os.path.join(path, "folder", "a"), 0)
        os.chmod(os.path.join(path, "folder"), 0o555)
        os.chmod(path, 0o555)
        os.chmod(parent, 0o555)
        try:
            with nobody():
                assert storage.read("__schema.tdb") == b"schema"  # reading needs no more than that
                assert storage.list().folders == ("folder",)
                for use, what in (
                    (storage.draft, "cannot write into the store"),
                    (lambda: storage.put("x", b""), "cannot write into the store"),
                    (lambda: storage.create({}, replace=True), "cannot create the store"),
                    (lambda: draft.commit("new"), "cannot commit to the store"),
                    (lambda: storage.open_file("folder", "a", True), "cannot read"),
                    (lambda: storage.open_files("folder", True), "cannot read"),
                ):
                    with pytest.raises(
                        PermissionError, match=f"{what}: Permission denied: '{path}"
                    ):
                        use()
                draft.abandon()
        finally:
            os.chmod(parent, 0o755)
            os.chmod(path, 0o755)
            os.chmod(os.path.join(path, "folder"), 0o755)


def test_a_changed_working_directory_moves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    storage = open_storage("store")
    monkeypatch.chdir(root)
    assert storage.read("__schema.tdb") == b"schema"
    assert storage.uri == str(root)


def test_a_replaced_store_stays_until_the_new_one_is_durable(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the parent is synced, a power cut may bring the old one back: it must still be whole."""
    fsync = os.fsync

    def broken(fd: int) -> None:
        if os.path.sameopenfile(fd, parent):
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    parent = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="cannot create the store"):
        open_storage(root).create({"new": b""}, replace=True)
    os.close(parent)
    assert open_storage(root).list().files == ("new",)
    (hidden,) = tmp_path.glob(".tmp-*")
    assert {each.name: each.read_bytes() for each in hidden.iterdir()} == FILES


def test_swap_loses_to_a_faster_creator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path / "store")
    assert storage.create(FILES, replace=False)
    monkeypatch.setattr(exchange, "_renameat2", None)
    rename = os.rename

    def slow(old: str, new: str) -> None:
        if new == str(tmp_path / "store") and not os.path.exists(new):
            os.mkdir(new)
            Path(new, "faster").touch()
        rename(old, new)

    monkeypatch.setattr(os, "rename", slow)
    assert not storage.create({"a": b""}, replace=True)
    assert storage.list().files == ("faster",)
    assert os.listdir(tmp_path) == ["store"]


def test_swap_that_fails_puts_the_old_store_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_renameat2", None)
    rename = os.rename

    def broken(old: str, new: str) -> None:
        if (
            new == str(root)
            and not os.path.exists(new)
            and ".tmp-" in old
            and os.listdir(old) == ["a"]
        ):
            raise OSError(errno.EIO, "Input/output error")
        rename(old, new)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="cannot create the store"):
        open_storage(root).create({"a": b""}, replace=True)
    assert open_storage(root).read("__schema.tdb") == b"schema"


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/a/b", "/a/b"),
        ("/a/./c/../b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("file://localhost/a%20b%23", "/a b#"),
        ("FILE:///a", "/a"),
        ("file:///a%FF", "/a\udcff"),
        ("file:///a\udcff%fe", "/a\udcff\udcfe"),
        ("file:///%c3%a9é", "/éé"),
        ("file:///a\tb\n ", "/a\tb\n "),
        ("file:///a;b=c&d", "/a;b=c&d"),
        ("file://localhost/%25ff%2f", "/%ff"),
        (Path("/a/b"), "/a/b"),
        ("memory://x/y", "memory://x/y"),
        ("Memory://x", "memory://x"),
    ],
)
def test_uris(uri: str | Path, place: str) -> None:
    assert open_storage(uri).uri == place


@pytest.mark.parametrize(
    "uri",
    [
        *("\ud83d", "/a\ud83d/b", "memory://\ud83d", Path("\ud83d")),
        *(
            "",
            "a\0b",
            "hdfs://bucket/x",
            "s3://",
            "s3://b/..",
            "s3://b/a//b",
            "memory://",
            "file://host/a",
            "file://a",
            "file:///a?b",
        ),
        *("file:///a#b", "tiledb://x/y", "file:///a%00", "file:///a%", "file:///a%f"),
        *(
            "file:///a%fg",
            "file:///\ud83d",
            "file://",
            "file://localhost",
            "file://a\tb/c",
            "file:///a#",
        ),
    ],
)
def test_refused_uris(uri: str | Path) -> None:
    with pytest.raises(InvalidValueError):
        open_storage(uri)


@given(st.binary(min_size=1, max_size=20))
def test_every_path_has_a_uri_of_its_own(name: bytes) -> None:
    """The one that pathlib makes of it."""
    path = Path("/" + os.fsdecode(name.replace(b"\0", b"0")))
    assert open_storage(path.as_uri()).uri == open_storage(path).uri


@pytest.mark.parametrize("uri", [None, 5, b"/a", ["/a"]])
def test_uris_of_wrong_types(uri: object) -> None:
    with pytest.raises(WrongTypeError):
        open_storage(uri)  # type: ignore[arg-type]


# --- the record, and where fragments are ------------------------------------------------------------


def test_a_number_is_given_once(root: Path) -> None:
    storage = open_storage(root)
    assert (storage.record(), storage.record_seq()) == (None, 0)
    assert storage.replace_record(1, b"one")
    assert not storage.replace_record(1, b"another")
    assert storage.replace_record(2, b"two")
    assert not storage.replace_record(1, b"late")
    assert storage.record() == RecordFile(2, b"two")
    assert storage.record_seq() == 2
    storage.replace_record(3, b"three")
    assert sorted(os.listdir(root / ".tilekv")) == ["record-2", "record-3"]


def test_of_two_that_give_a_number_one_succeeds(root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for seq in range(1, 40):
            done = list(
                pool.map(lambda n: open_storage(root).replace_record(seq, b"%d" % n), range(8))  # noqa: B023
            )
            assert sum(done) == 1
            record = open_storage(root).record()
            assert record == RecordFile(seq, b"%d" % done.index(True))


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(old: str, new: str) -> None:
        raise OSError(code, os.strerror(code), new)

    monkeypatch.setattr(local.os, "link", refused)
    test_a_number_is_given_once(root)


def test_a_folder_is_found_wherever_it_is(root: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(staged=True), a=b"1")
    draft.commit("one")
    where = [storage.staged, lambda: storage.list().folders, storage.past]
    for move in (None, storage.show, storage.set_aside):
        if move:
            move(["one", "nothing"])
            where.pop(0)
        assert where[0]() == ("one",)
        assert not any(other() for other in where[1:])
        assert storage.files("one") == {"a": 1}
        assert storage.open_file("one", "a", True).read(0, 1) == b"1"
        assert storage.open_files("one", False)["a"].read(0, 1) == b"1"
    storage.show(["one"])  # too late
    assert storage.past() == ("one",)
    storage.reclaim(storage.retire(["one"]))
    assert storage.past() == ()
    with pytest.raises(FileNotFoundError):
        storage.files("one")


def test_a_file_that_was_given_back_is_found_where_its_folder_is_by_then(root: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(staged=True), a=b"1" * 200_000)
    draft.commit("one")
    file = storage.open_file("one", "a", False)
    for move in (storage.show, storage.set_aside):
        move(["one"])
        while give_back_descriptors():
            pass
        assert file.read(199_999, 1) == b"1"


def test_settled_is_what_came_before_the_drafts(root: Path) -> None:
    storage = open_storage(root)
    names = ("one", "two")
    for name in names:
        fill(draft := storage.draft(), a=b"1")
        draft.commit(name)
        time.sleep(0.02)  # the clock of a file system is coarse
    assert storage.settled(names) == {*names}
    fill(under_way := storage.draft(), a=b"1")
    fill(under_way, **{"__fragment_metadata.tdb": b"1"})  # and then chooses its time
    fill(writing := storage.draft(), a=b"1")
    time.sleep(0.02)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("three")
    assert storage.settled([*names, "three"]) == {*names}
    under_way.abandon()
    assert storage.settled([*names, "three"]) == {*names, "three"}  # the other has yet to choose
    time.sleep(0.02)
    fill(writing, **{"__fragment_metadata.tdb": b"1"})
    time.sleep(0.02)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("four")
    assert storage.settled([*names, "three", "four"]) == {*names, "three"}
    writing.commit("five")
    assert storage.settled([*names, "three", "four", "five"]) == {*names, "three", "four", "five"}


def test_a_draft_that_slept_cannot_be_committed(root: Path) -> None:
    storage = open_storage(root)
    slow, chosen = storage.draft(), storage.draft()
    fill(slow, a=b"1")  # is still writing its data
    fill(chosen, **{"__fragment_metadata.tdb": b"1"})
    for each in root.glob(".tmp-*"):
        os.utime(each, (time.time() - 61,) * 2)
    assert storage.settled([]) == frozenset()
    slow.commit("slow")
    with pytest.raises(FileNotFoundError):
        chosen.commit("chosen")
    assert storage.list().folders == ("slow",)


def test_the_time_without_a_lock_file(root: Path) -> None:
    storage = open_storage(root)
    (root / "__lock.tdb").unlink(missing_ok=True)
    assert abs(storage.now() - time.time() * 1000) < 60_000


def test_drafts_of_the_dead_count_for_nothing(root: Path) -> None:
    storage = open_storage(root)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("one")
    dead = process_name().rpartition(".")[0] + ".0"
    time.sleep(0.02)
    for name in (temporary_name(dead), temporary_name()):
        (root / name).mkdir()
        (root / name / "__fragment_metadata.tdb").touch()
        time.sleep(0.02)
    fill(draft := storage.draft(), a=b"1")
    draft.commit("two")
    assert storage.settled(["one", "two"]) == {"one"}
    assert [temporary_owner(name) for name in storage.abandoned(3600)] == [dead]
    storage.reclaim(storage.abandoned(3600))
    assert len([name for name in os.listdir(root) if is_temporary(name)]) == 1

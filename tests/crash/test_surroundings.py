"""A full disk, a read-only one, somebody else's store, a path that vanishes, no descriptors left.

A clear error each, and nothing is lost. As root the disks are mounts; for others, limits and permissions stand for them.
"""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, contents, folders
from old_stores import OldStoreWriter

ROOT = os.geteuid() == 0
NOBODY = 65534
BEFORE = {1: b"1", "a": b"b"}
LARGE = random.Random(6).randbytes(400_000)


def written(path: Path) -> Path:
    """A store of two fragments, and of what the first of them has superseded."""
    with tilekv.open(path, "x", schema=SMALL) as db:
        first, *others = BEFORE
        for _ in range(2):
            db[first] = BEFORE[first]
            db.flush()
        db.consolidate()
        for key in others:
            db[key] = BEFORE[key]
            db.flush()
    return path


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    mount(*options, place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def scarce(folder: Path) -> Iterator[Callable[[], None]]:
    """A folder that has room for 256 KB, or for files of no more; what is given makes more room."""
    if ROOT:
        with mounted(folder, "-t", "tmpfs", "-o", "size=256k", "none"):
            yield lambda: mount("-o", "remount,size=16m", folder)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(tmp_path: Path) -> None:
    full = r"cannot write into the store: (No space left on device|File too large): '.*/store/"
    with scarce(tmp_path) as make_room:
        path = written(tmp_path / "store")
        db = tilekv.open(path, "a")
        db["large"] = LARGE
        for flush in (db.flush, db.flush, db.close):
            with pytest.raises(OSError, match=full) as caught:
                flush()
            assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
            assert db.info().buffered == 1
            assert db["large"] == LARGE
            assert contents(path) == BEFORE
            assert not list(path.glob(".tmp-*"))
        make_room()
        db.close()
        assert contents(path) == BEFORE | {"large": LARGE}


def test_a_disk_too_full_to_consolidate(tmp_path: Path) -> None:
    """The sources stay, and what was written of the output goes: the disk is no fuller than before."""
    with scarce(tmp_path) as make_room:
        path = tmp_path / "store"
        with tilekv.open(path, "x", schema=SMALL) as db:
            for flush in range(2):
                db[flush] = LARGE[flush * 90_000 : (flush + 1) * 90_000]
                db.flush()
            if not ROOT:  # where it is a file that may not be larger
                resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, resource.RLIM_INFINITY))
            before, names = dict(db), folders(path)
            with pytest.raises(OSError, match="cannot write into the store"):
                db.consolidate()
            assert folders(path) == names
            assert not list(path.glob(".tmp-*"))
            db.vacuum()
            assert contents(path) == before
            make_room()
            db.consolidate(vacuum=True)
            assert contents(path) == before


def test_a_disk_too_full_to_create(tmp_path: Path) -> None:
    with scarce(tmp_path):
        if ROOT:
            with suppress(OSError):
                tmp_path.joinpath("other").write_bytes(LARGE)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        there = os.listdir(tmp_path)
        with pytest.raises(OSError, match=r"cannot create the store: .*'.*store"):
            tilekv.open(tmp_path / "store", "x")
        assert os.listdir(tmp_path) == there


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    if ROOT:
        with mounted(path, "--bind", str(path)):
            mount("-o", "remount,bind,ro", path)
            yield
        return
    path.chmod(0o555)
    try:
        yield
    finally:
        path.chmod(0o755)


def assert_refused(db: tilekv.Store, reason: str) -> None:
    """A writing handle with something buffered: all that writes is refused, and the buffer stays."""
    for write in (db.flush, db.consolidate, db.close):
        with pytest.raises(OSError, match=f"cannot write into the store: ({reason}): '"):
            write()
    with pytest.raises(OSError, match=f"cannot (lock|clean up) the store: ({reason}): '"):
        db.vacuum()
    assert not db.closed
    assert db.info().buffered == 1
    assert dict(db) == BEFORE | {"new": b"1"}


def test_a_read_only_mount(tmp_path: Path) -> None:
    path = written(tmp_path / "store")
    with tilekv.open(path, "a") as before, read_only(path):
        assert contents(path) == BEFORE
        before["new"] = b"1"
        db = tilekv.open(path, "a")
        db["new"] = b"1"
        for handle in (before, db):
            with pytest.raises(
                OSError, match=r"cannot write into the store: (Read-only|Permission)"
            ):
                handle.flush()
        if ROOT:  # whoever owns the folder may lock the file in it
            assert_refused(db, "Read-only file system")
        with (
            pytest.raises(OSError, match="cannot write into the store"),
            tilekv.open(path, "a") as other,
        ):
            other["given up"] = b"1"
        assert not other.closed  # the end of `with` flushes too
        other.close(discard=True)
    db.close()
    assert contents(path) == BEFORE | {"new": b"1"}


@contextmanager
def not_root() -> Iterator[None]:
    """Root may do everything, whatever the permissions say."""
    if not ROOT:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def somebody_else(path: Path) -> Iterator[None]:
    """Not the owner of a store, nor root."""
    if ROOT:
        with not_root():
            yield
        return
    for each in [path, *path.iterdir()]:
        each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        yield
    finally:
        path.chmod(0o755)
        for each in path.iterdir():
            each.chmod(0o755 if each.is_dir() else 0o644)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_store_owned_by_another_user(public: Path) -> None:
    path = written(public / "store")
    with somebody_else(path):
        assert contents(path) == BEFORE
        db = tilekv.open(path, "a")
        db["new"] = b"1"
        assert_refused(db, "Permission denied")
        if ROOT:
            with pytest.raises(PermissionError, match="cannot create the store: Permission denied"):
                tilekv.open(public / "other", "x")
            with pytest.raises(PermissionError, match="cannot create the store: Permission denied"):
                tilekv.open(path, "w")
    assert contents(path) == BEFORE
    db.close()
    assert contents(path) == BEFORE | {"new": b"1"}


def test_a_private_store(public: Path) -> None:
    path = written(public / "store")
    name, _ = folders(path)
    for private, what in ((path, "open the store"), (path / name, "open the fragment")):
        private.chmod(0)
        said = f"cannot {what}: Permission denied: '{private}'"
        for use in (
            tilekv.open,
            tilekv.verify,
            lambda path: tilekv.salvage(path, "memory://private"),
        ):
            with not_root(), pytest.raises(PermissionError, match=said):
                use(path)
        private.chmod(0o755)
    assert tilekv.verify(path) == []
    assert contents(path) == BEFORE


def test_a_path_that_vanishes(tmp_path: Path) -> None:
    path = written(tmp_path / "store")
    db = tilekv.open(path, "a")
    db["new"] = b"1"
    path.rename(tmp_path / "elsewhere")
    for use in (db.flush, db.consolidate, db.vacuum, db.reopen, db.close):
        with pytest.raises(tilekv.StoreNotFoundError, match=f"there is no store at '?{path}"):
            use()
        assert dict(db) == BEFORE | {"new": b"1"}  # what was opened is still there
        assert not path.exists()
    path.write_bytes(b"a file in its place")
    with pytest.raises(NotADirectoryError, match="cannot open the store: Not a directory"):
        db.flush()
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    db.close()
    assert contents(path) == BEFORE | {"new": b"1"}


def test_a_parent_that_vanishes(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    db = tilekv.open(tmp_path / "parent" / "store", "x", schema=SMALL)
    db["new"] = b"1"
    shutil.rmtree(tmp_path / "parent")
    with pytest.raises(tilekv.StoreNotFoundError):
        db.close()
    with pytest.raises(FileNotFoundError, match="there is no folder to make a store in"):
        tilekv.open(tmp_path / "parent" / "store", "x")
    written(tmp_path / "other")
    with tilekv.open(tmp_path / "other", "a") as other:  # what is buffered can go elsewhere
        other.update(db)
    assert contents(tmp_path / "other") == BEFORE | {"new": b"1"}
    db.close(discard=True)


class Crowd:
    """All descriptors of the process but a few: 20,000, or as many as it may have."""

    def __init__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = self.limit[1]
        most = 20_000 if hard == resource.RLIM_INFINITY else min(hard, 20_000)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        self.taken: list[int] = []
        self.fill()

    def fill(self) -> None:
        with suppress(OSError):
            while True:
                self.taken.append(os.open(os.devnull, os.O_RDONLY))

    def leave(self, spare: int) -> None:
        """Let `spare` descriptors be free."""
        self.fill()
        for _ in range(spare):
            os.close(self.taken.pop())

    def free(self) -> int:
        """How many are."""
        before = len(self.taken)
        self.fill()
        found = len(self.taken) - before
        self.leave(found)
        return found

    def go(self) -> None:
        for fd in self.taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limit)


@pytest.fixture
def crowd() -> Iterator[Callable[[], Crowd]]:
    made: list[Crowd] = []

    def make() -> Crowd:
        made.append(Crowd())
        return made[0]

    yield make
    for each in made:
        each.go()


@pytest.mark.parametrize("mmap", [True, False])
def test_no_descriptors_left(tmp_path: Path, crowd: Callable[[], Crowd], mmap: bool) -> None:
    """With so few left that one more call fails, for every number: each is an error that says so, and leaks none."""
    path = written(tmp_path / "store")
    config: Any = {"kv.mmap": mmap, "kv.sync": False}
    expected: dict[Any, bytes] = dict(BEFORE)
    said = "cannot .*: Too many open files: '|cannot duplicate the descriptor"
    db = tilekv.open(path, "a", config=config)
    crowded = crowd()
    errors: list[OSError] = []
    done = 0
    for spare in range(40):
        db[spare] = expected[spare] = b"%d" % spare
        crowded.leave(spare)
        for use in (lambda: tilekv.open(path, config=config).close(), db.flush, db.consolidate):
            try:
                use()
            except OSError as error:
                errors.append(error)
            else:
                done += 1
            if mmap:  # without maps the open fragments hold some
                assert crowded.free() == spare
        assert dict(db) == expected
    assert errors
    assert done
    assert {error.errno for error in errors} == {errno.EMFILE}
    assert [str(error) for error in errors if not re.search(said, str(error))] == []
    crowded.leave(100)
    db.close()
    assert contents(path) == expected


def info(path: Path) -> tilekv.Info:
    with tilekv.open(path / "store") as db:
        return db.info()


LOOKS: dict[str, Callable[[Path], Any]] = {
    "verify": lambda path: tilekv.verify(path / "store"),
    "salvage": lambda path: tilekv.salvage(path / "store", path / "new"),
    "info": info,
    "convert": lambda path: tilekv.convert(path / "old", path / "new"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_no_descriptors_left_to_look(folder: Path, crowd: Callable[[], Crowd], kind: str) -> None:
    """Nothing is found that is not there: not by who checks a store, copies it or counts what it holds."""
    written(folder / "store")
    OldStoreWriter(folder / "old", 2).flush([((4, b"key"), 1, b"v")], 1000)
    look = LOOKS[kind]
    expected = look(folder)
    crowded = crowd()
    failed = 0
    for spare in range(30):
        shutil.rmtree(folder / "new", ignore_errors=True)
        crowded.leave(spare)
        try:
            assert look(folder) == expected
        except OSError as error:
            assert error.errno == errno.EMFILE, error  # noqa: PT017
            failed += 1
        crowded.leave(30)
    assert 0 < failed < 30

"""Stores in folders of a local, or locally mounted, file system."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from tilekv.errors import (
    CorruptionError,
    NotDurableError,
    StoreBusyError,
    StoreNotFoundError,
    TileKVError,
)
from tilekv.kvcore.base.file import File
from tilekv.kvcore.base.writeback import begin_writing, sync_all
from tilekv.names import LOCK, is_temporary, temporary_name
from tilekv.storage.descriptors import (
    holding,
    open_held,
    open_into,
    opening,
    remove_tree,
    scan,
)
from tilekv.storage.exchange import move_new, swap
from tilekv.storage.overlay import remove_in_place, replace_in_place
from tilekv.storage.protocol import SMALL_FILE, Listing, check_component

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Inside a store no link is followed; without O_NONBLOCK a FIFO would hang whoever opens it.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
# Bytes of a file after which the disk begins to write them, while more are made: of the 65 MB of 1,000,000 cells the syncs at the
# end take 0.03 s instead of 0.09. Steps of 1 and 4 MiB win no more and cost 0.015 s of the processor.
EARLY_WRITE: Final = 16 << 20
# Files of a draft that are open at once: all that a store of three attributes has. One of 62 has up to 190.
DRAFT_FILES: Final = 12
# Bytes of a fragment's smallest files that are read into memory when it is opened: they need neither map nor descriptor, and a
# read costs what a map and its first touch cost.
SMALL_FRAGMENT: Final = 100 << 10
_IS_NO_FILE: Final = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


class LocalStorage:
    """A Storage in a folder. The root itself may be a symbolic link; nothing in it may."""

    def __init__(self, path: str, sync: bool) -> None:
        # The working directory may change while the store is open.
        self._path = os.path.abspath(path)
        self._sync = sync

    @property
    def uri(self) -> str:
        """The absolute path."""
        return self._path

    def exists(self) -> bool:
        """Tell whether there is a folder."""
        with _explained("look for the store", self._path):
            try:
                mode = os.stat(self._path).st_mode
            except FileNotFoundError:
                return False
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "a store is a folder", self._path)
        return True

    def is_empty(self, folder: str = "") -> bool:
        """Tell whether nothing at all is there, hidden files included."""
        place = self._opened_folder(folder) if folder else self._opened_root()
        try:
            with place as fd, scan(fd) as entries:
                return next(entries, None) is None
        except FileNotFoundError:
            return True

    def list(self) -> Listing:
        """List the root."""
        folders, files = [], []
        with self._scanned_root() as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def files(self, folder: str) -> dict[str, int]:
        """Return sizes by name."""
        with (
            self._opened_folder(folder) as fd,
            _explained("list the fragment", self._in_root(folder)),
        ):
            return {name: size for size, name in _sizes(fd)}

    def read(self, name: str) -> bytes:
        """Return a file of the root."""
        path = self._in_root(name)
        with self._opened_root() as root, _opened_file(name, name, root, path) as (fd, size):
            if size > SMALL_FILE:
                raise CorruptionError(name, 0, f"it has {size} bytes, over {SMALL_FILE}")
            parts = []
            while part := os.read(fd, 1 << 20):
                parts.append(part)
        return b"".join(parts)

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Open a file of a folder."""
        check_component(file)
        place = f"{folder}/{file}"
        path = os.path.join(self._path, folder, file)
        with (
            self._opened_folder(folder) as parent,
            _opened_file(file, place, parent, path) as (fd, size),
        ):
            inside = os.fsencode(os.path.dirname(path)), os.fsencode(file)
            return File.open(fd, size, *inside, mmap, size <= SMALL_FRAGMENT)

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Open every file of a folder."""
        found = {}
        path = os.fsencode(self._in_root(folder))
        with self._opened_folder(folder) as parent, _explained("read", self._in_root(folder)):
            left = SMALL_FRAGMENT
            for size, name in sorted(_sizes(parent)):
                with holding() as held:
                    try:
                        fd = open_held(held, name, _READ, parent)
                    except OSError as error:
                        if error.errno in _IS_NO_FILE:
                            continue
                        raise
                    left -= size
                    found[name] = File.open(
                        fd, os.fstat(fd).st_size, path, os.fsencode(name), mmap, left >= 0
                    )
        return found

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the root, under a hidden name first."""
        path = self._in_root(name)
        hidden = os.path.join(self._path, temporary_name())
        with _explained("write into the store", path):
            try:
                _write_file(hidden, data, self._sync)
                os.rename(hidden, path)
            except BaseException:
                with suppress(OSError):  # the error that led here is the one to see
                    os.unlink(hidden)
                raise
            self._sync_folder(self._path)

    def create(self, files: Mapping[str, bytes], replace: bool) -> bool:
        """Make the root beside its place and move it there."""
        build = self.build()
        with _explained("create the store", build.target):
            try:
                os.mkdir(build.uri)
                for name, data in files.items():
                    _write_file(os.path.join(build.uri, check_component(name)), data, self._sync)
                self._sync_folder(build.uri)
                return build.commit(replace)
            finally:
                build.abandon()

    def build(self) -> LocalBuild:
        """Begin a root beside this one, under a hidden name."""
        target = os.path.realpath(self._path)
        parent = os.path.dirname(target)
        with _explained("create the store", target):
            try:
                is_folder = stat.S_ISDIR(os.stat(parent).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                is_folder = False
        if not is_folder:
            raise FileNotFoundError(errno.ENOENT, "there is no folder to make a store in", parent)
        return LocalBuild(os.path.join(parent, temporary_name()), target, self._sync)

    def draft(self) -> LocalDraft:
        """Begin a folder, under a hidden name in the root."""
        path = os.path.join(self._path, temporary_name())
        with _explained("write into the store", self._path):
            try:
                os.mkdir(path)
            except FileNotFoundError:
                self._missing()
        return LocalDraft(path, self._path, self._sync)

    def sync(self) -> None:
        """Sync the root."""
        if self._sync:
            with self._opened_root() as root:
                _sync_root(root, self._path)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """An exclusive flock on the store's lock file, which the system drops when the process dies."""
        path = self._in_root(LOCK)
        with holding() as held:
            with _explained("lock the store", path):
                try:
                    fd = open_held(held, path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
                except FileNotFoundError:
                    self._missing()
            try:
                with _explained("lock the store", path):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                # Not left to close(): a child forked meanwhile has the descriptor too.
                fcntl.flock(fd, fcntl.LOCK_UN)

    def now(self) -> int:
        """When the lock file was touched, by the clock of the file system, which may be another machine's."""
        path = self._in_root(LOCK)
        with _explained("ask the file system for the time", path):
            os.utime(path)
            return os.stat(path).st_mtime_ns // 1_000_000

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Rename to hidden names, or remove what cannot be renamed, and sync the root."""
        hidden = []
        with _explained("clean up the store", self._path):
            for folder in folders:
                name = temporary_name()
                try:
                    os.rename(self._in_root(folder), self._in_root(name))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    remove_in_place(self._in_root(folder), self._sync_folder)
                    continue
                hidden.append(name)
            self._sync_folder(self._path)
        return hidden

    def remove(self, name: str) -> None:
        """Unlink, sync the root."""
        path = self._in_root(name)
        with _explained("clean up the store", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
            self._sync_folder(self._path)

    def reclaim(self, hidden: Iterable[str]) -> None:
        """Unlink. What cannot be is left for a later vacuum."""
        for name in hidden:
            path = self._in_root(name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_tree(path)
            else:
                with suppress(OSError):
                    os.unlink(path)

    def abandoned(self, seconds: float) -> Sequence[str]:
        """Hidden entries of the root whose newest file, or they themselves, have not changed since."""
        limit = time.time() - seconds
        with self._scanned_root() as entries:
            hidden = [entry.name for entry in entries if is_temporary(entry.name)]
        return [name for name in sorted(hidden) if _last_change(self._in_root(name)) < limit]

    def _in_root(self, name: str) -> str:
        return os.path.join(self._path, check_component(name))

    def _missing(self) -> NoReturn:
        raise StoreNotFoundError(f"there is no store at {self._path!r}") from None

    def _sync_folder(self, path: str) -> None:
        if self._sync:
            sync_folder(path)

    @contextmanager
    def _opened_root(self) -> Iterator[int]:
        with holding() as held:
            with _explained("open the store", self._path):
                try:
                    fd = open_held(held, self._path, _FOLDER)
                except FileNotFoundError:
                    self._missing()
            yield fd

    @contextmanager
    def _scanned_root(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        with (
            self._opened_root() as root,
            _explained("list the store", self._path),
            scan(root) as entries,
        ):
            yield entries

    @contextmanager
    def _opened_folder(self, folder: str) -> Iterator[int]:
        path = self._in_root(folder)
        with holding() as held:
            with _explained("open the fragment", path):
                try:
                    fd = open_held(held, path, _FOLDER | os.O_NOFOLLOW)
                except OSError as error:
                    if error.errno in _IS_NO_FILE:
                        raise CorruptionError(folder, None, "it is not a folder") from None
                    raise
            yield fd


class LocalBuild:
    """A Build of a LocalStorage: a folder beside its place."""

    def __init__(self, path: str, target: str, sync: bool) -> None:
        self._path = path
        self.target = target
        self._sync = sync
        self._ours = True  # what is under the hidden name is for `abandon` to remove

    @property
    def uri(self) -> str:
        """The path of the hidden folder."""
        return self._path

    def commit(self, replace: bool) -> bool:
        """Rename, sync the parent.

        With `replace`, and where the system cannot swap two folders at once, a crash between two
        renames leaves the old store under the hidden name. Where it cannot rename a folder at all, a
        crash leaves a store without a schema, which can be replaced.
        """
        with _explained("create the store", self.target):
            if not _take_place(self._path, self.target) and not (replace and self._replace()):
                return False
            if self._sync:
                sync_folder(os.path.dirname(self.target))
        self._ours = True
        return True

    def _replace(self) -> bool:
        try:
            # Then it is the old store, which is still the one that a crash leaves: it stays if syncing fails.
            self._ours = not swap(self._path, self.target)
            return not self._ours
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        place = LocalStorage(self.target, self._sync)
        with place.lock() as held:
            if not held:
                raise StoreBusyError(f"a consolidation or vacuum of {place.uri} is under way")
            replace_in_place(self._path, self.target, place._sync_folder)
        return True

    def abandon(self) -> None:
        """Remove what could not be moved, or what was swapped out."""
        if self._ours:
            remove_tree(self._path)


class LocalDraft:
    """A Draft of a LocalStorage."""

    def __init__(self, path: str, root: str, sync: bool) -> None:
        self._path = path
        self._root = root
        self._sync = sync
        self._unsynced: set[str] = set()  # files with bytes that may not be durable
        self._new_names = False  # files may be missing from the folder after a crash
        self._lost = False  # a sync failed
        self._open = OrderedDict[str, int]()  # descriptors by path, the last used last

    def create(self, file: str) -> LocalWriter:
        """Begin a file."""
        path = os.path.join(self._path, check_component(file))
        with _explained("write into the store", path):
            _take(path, _CREATE, self._open)
        self._new_names = True
        return LocalWriter(path, self._open, self._unsynced if self._sync else None)

    def sync(self, *, names: bool = True) -> None:
        """Sync every file that was written since the last time, and with `names` the folder, at once."""
        if not self._sync:
            return
        with _explained("make the store durable", self._path):
            if self._lost:
                raise OSError(errno.EIO, "a sync of the same draft has failed before")
            paths = sorted(self._unsynced, key=lambda path: (path in self._open, path))
            if names and self._new_names:
                paths.append(self._path)
            while paths:
                # The folder and those that have a descriptor are taken first: without many attributes that is all.
                at_once = paths[-DRAFT_FILES - 1 :]
                del paths[-DRAFT_FILES - 1 :]
                self._sync_at_once(at_once)
            if names:
                self._new_names = False

    def _sync_at_once(self, paths: list[str]) -> None:
        with holding() as held:
            fds = [self._open.get(path) or open_held(held, path, _READ) for path in paths]
            errors = dict(zip(paths, sync_all(fds), strict=True))
        if errors.get(self._path) == errno.EINVAL:
            errors[self._path] = 0  # as in _sync_names
        for path, error in errors.items():
            if error:
                self._lost = True
                raise OSError(error, os.strerror(error), path)
        self._unsynced.difference_update(paths)

    def commit(self, name: str) -> None:
        """Sync what is not yet, rename, sync the root."""
        path = os.path.join(self._root, check_component(name))
        self.sync()
        with _explained("commit to the store", path):
            if not self._sync:
                move_new(self._path, path)
                return
            # First: no lack of descriptors comes between.
            with opening(self._root, _FOLDER) as root:
                move_new(self._path, path)
                _sync_root(root, path)

    def abandon(self) -> None:
        """Remove the folder; after a commit there is none of its hidden name."""
        for path in list(self._open):
            with suppress(OSError):
                _give_back(path, self._open)
        remove_tree(self._path)


class LocalWriter:
    """A FileWriter of a LocalDraft, unbuffered. Those used last have a descriptor; another gets one when it is written to."""

    def __init__(self, path: str, opened: OrderedDict[str, int], unsynced: set[str] | None) -> None:
        self._path = path
        self._open = opened  # the draft's
        self._unsynced = unsynced  # the draft's; None: nothing is synced
        self._size = 0
        self._begun = 0  # bytes that the disk was told to write
        self._closed = False
        if unsynced is not None:
            unsynced.add(path)

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        if self._closed:
            raise ValueError("the file is closed")
        with _explained("write into the store", self._path):
            fd = self._descriptor()
            self._size += _write_all(fd, data)
        if self._unsynced is not None:
            self._unsynced.add(self._path)
            if self._size - self._begun >= EARLY_WRITE:
                begin_writing(fd, self._begun, self._size - self._begun)
                self._begun = self._size

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        _give_back(self._path, self._open)

    def __del__(self) -> None:
        """Do not leak the descriptor of a draft that was abandoned after an error."""
        with suppress(AttributeError):  # when its making was interrupted
            self.close()

    def _descriptor(self) -> int:
        if self._path not in self._open:
            return _take(self._path, _APPEND, self._open)
        self._open.move_to_end(self._path)
        return self._open[self._path]


def _take(path: str, how: int, opened: OrderedDict[str, int]) -> int:
    """A descriptor of a file of a draft, which gives others back."""
    while len(opened) >= DRAFT_FILES:
        _give_back(next(iter(opened)), opened)
    open_into(lambda fds: opened.update(zip((path,), fds, strict=True)), path, how)
    return opened[path]


def _give_back(path: str, opened: OrderedDict[str, int]) -> None:
    if path in opened:
        # Without a sync this is where a network file system says that it could not write. No look for signals comes between
        # the two: see open_into.
        with _explained("write into the store", path):
            any(map(os.close, map(opened.pop, (path,))))


def _take_place(hidden: str, target: str) -> bool:
    """Rename; False when something is there. An empty folder is replaced by a rename."""
    try:
        os.rename(hidden, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _last_change(path: str) -> float:
    """The newest time of a file or folder and what is in it; the end of time when it is gone, or nobody may look."""
    try:
        newest = os.lstat(path).st_mtime
        if os.path.isdir(path) and not os.path.islink(path):
            with os.scandir(path) as entries:
                times = (entry.stat(follow_symlinks=False).st_mtime for entry in entries)
                newest = max(newest, *times, newest)
    except OSError:
        return math.inf
    return newest


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    with opening(path, _FOLDER) as fd:
        _sync_names(fd)


def _sync_names(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems have no such thing, and need none.
        if error.errno != errno.EINVAL:
            raise


def _sync_root(fd: int, path: str) -> None:
    """Make durable that `path` is visible."""
    try:
        _sync_names(fd)
    except OSError as error:
        raise NotDurableError.of(error, path) from error


def _write_all(fd: int, data: Buffer) -> int:
    """Bytes written: all of them."""
    left = memoryview(data).cast("B")
    size = len(left)
    while left:  # a write may take less: a signal came, the disk is nearly full, 2 GiB at most
        done = os.write(fd, left)
        if done == 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        left = left[done:]
    return size


def _write_file(path: str, data: bytes, sync: bool) -> None:
    with opening(path, _CREATE) as fd:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)


def _sizes(folder: int) -> Iterator[tuple[int, str]]:
    """The files of an open folder."""
    with scan(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield status.st_size, entry.name


@contextmanager
def _opened_file(name: str, place: str, parent: int, path: str) -> Iterator[tuple[int, int]]:
    """The descriptor and size of a regular file in the folder `parent`; `place` is for errors."""
    with _explained("read", path), holding() as held:
        try:
            fd = open_held(held, name, _READ, parent)
        except OSError as error:
            if error.errno in _IS_NO_FILE:
                raise CorruptionError(place, None, "it is not a file") from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptionError(place, None, "it is not a file")
        yield fd, status.st_size


@contextmanager
def _explained(what: str, path: str) -> Iterator[None]:
    """Turn what the system says into an error of the same kind that says what could not be done."""
    try:
        yield
    except TileKVError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        text = f"cannot {what}: {os.strerror(error.errno)}"
        raise OSError(error.errno, text, path) from error

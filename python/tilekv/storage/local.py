"""Stores in folders of a local, or locally mounted, file system."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import stat
import threading
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
from tilekv.kvcore.base.file import File, Holding
from tilekv.kvcore.base.writeback import begin_writing, sync_all
from tilekv.names import (
    ASIDE,
    FRAGMENT_METADATA,
    LOCK,
    MANIFEST,
    PAST,
    SERVER_LOCK,
    STAGED,
    is_temporary,
    record_file,
    record_number,
    temporary_name,
    temporary_owner,
)
from tilekv.storage.descriptors import (
    open_held,
    open_into,
    opening,
    remove_tree,
    scan,
)
from tilekv.storage.exchange import move_new, swap
from tilekv.storage.overlay import remove_in_place, replace_in_place
from tilekv.storage.process import has_ended, process_name
from tilekv.storage.protocol import DRAFT_S, SMALL_FILE, Listing, RecordFile, check_component

if TYPE_CHECKING:
    from types import TracebackType

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
_LOOKS: Final = 10
# What file systems say that have no hard links, or no more of one file.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
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
        try:
            if not folder:
                with self._opened_root() as fd, scan(fd) as entries:
                    return next(entries, None) is None
            with self._opened_folder(folder) as (fd, _), scan(fd) as entries:
                return next(entries, None) is None
        except FileNotFoundError:
            return True

    def list(self) -> Listing:
        """List the root."""
        folders, files = [], []
        with self._scanned_root() as entries:
            for entry in entries:
                if is_temporary(entry.name) or entry.name == ASIDE:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def files(self, folder: str) -> dict[str, int]:
        """Return sizes by name."""
        with (
            self._opened_folder(folder) as (fd, path),
            _explained("list the fragment", path),
        ):
            return {name: size for size, name in _sizes(fd)}

    def read(self, name: str) -> bytes:
        """Return a file of the root."""
        path = self._in_root(name)
        with self._opened_root() as root, _opened_file(name, name, root, path) as (fd, _):
            return _read_all(fd, name)

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Open a file of a folder."""
        check_component(file)
        place = f"{folder}/{file}"
        with (
            self._opened_folder(folder) as (parent, path),
            _opened_file(file, place, parent, os.path.join(path, file)) as (fd, size),
        ):
            inside = self._places(folder), os.fsencode(file)
            return File.open(fd, size, *inside, mmap, size <= SMALL_FRAGMENT)

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Open every file of a folder."""
        found = {}
        places = self._places(folder)
        with self._opened_folder(folder) as (parent, path), _explained("read", path):
            left = SMALL_FRAGMENT
            for size, name in sorted(_sizes(parent)):
                with Holding() as held:
                    try:
                        fd = open_held(held, name, _READ, parent)
                    except OSError as error:
                        if error.errno in _IS_NO_FILE:
                            continue
                        raise
                    left -= size
                    found[name] = File.open(
                        fd, os.fstat(fd).st_size, places, os.fsencode(name), mmap, left >= 0
                    )
        return found

    def distrust(self, name: str) -> bool:
        """No: it is what is stored."""
        return False

    def expect(self, folders: Iterable[str]) -> None:
        """Do nothing: files are opened as they are needed."""

    def spare(self, folders: Iterable[str], always: bool = False) -> int:
        """Do nothing: an open takes what it needs. `always`: write a manifest, which web servers have instead of a listing."""
        if not always:
            return 0
        from tilekv.storage.objectmanifest import manifest_of

        data = manifest_of(self, folders).to_bytes()
        folder = self._aside()
        hidden, path = (os.path.join(folder, name) for name in (temporary_name(), MANIFEST))
        with _explained("write the manifest", path):
            try:
                _write_file(hidden, data, self._sync)
                os.rename(hidden, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(hidden)
                raise
        return len(data)

    def ahead(self) -> None:
        """Do nothing: each takes some microseconds."""

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

    def build(self, uri: str = "") -> LocalBuild:
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
        return LocalBuild(uri or os.path.join(parent, temporary_name()), target, self._sync)

    def draft(self, staged: bool = False) -> LocalDraft:
        """Begin a folder, under a hidden name in the root, or where it is to be staged."""
        where = self._aside(STAGED) if staged else self._path
        path = os.path.join(where, temporary_name(process_name()))
        with _explained("write into the store", self._path):
            try:
                os.mkdir(path)
            except FileNotFoundError:
                self._missing()
        return LocalDraft(path, where, self._sync)

    def settled(self, folders: Iterable[str]) -> frozenset[str]:
        """By the times of the file system: when a folder was renamed, and when a draft got its metadata."""
        with self._scanned_root() as entries:
            hidden = [entry.name for entry in entries if is_temporary(entry.name)]
        drafts = [name for name in hidden if not has_ended(temporary_owner(name))]
        begun = {
            name: self._time_of(name, False)
            for name in drafts
            if os.path.lexists(os.path.join(self._in_root(name), FRAGMENT_METADATA))
        }
        if not begun:
            return frozenset(folders)
        limit = self.now() * 1_000_000 - DRAFT_S * 10**9
        oldest = math.inf
        for name, moment in begun.items():
            if moment is None:
                continue
            if moment > limit:
                oldest = min(oldest, moment)
            else:
                # It has chosen its time, and slept since: it must not appear any more.
                with suppress(FileNotFoundError):
                    os.rename(self._in_root(name), self._in_root(temporary_name()))
        return frozenset(
            folder
            for folder in folders
            if (moment := self._time_of(folder, True)) is None or moment < oldest
        )

    def _time_of(self, folder: str, renamed: bool) -> int | None:
        """When a folder of the root was renamed, or got its last file, in ns; None when it is not there or no folder."""
        try:
            status = os.lstat(self._in_root(folder))
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        return status.st_ctime_ns if renamed else status.st_mtime_ns

    def record(self) -> RecordFile | None:
        """The file of the greatest number. One that is replaced meanwhile is looked for again."""
        while seq := self.record_seq():
            name = record_file(seq)
            path = os.path.join(self._path, ASIDE, name)
            try:
                with (
                    opening(os.path.dirname(path), _FOLDER | os.O_NOFOLLOW) as folder,
                    _opened_file(name, f"{ASIDE}/{name}", folder, path) as (fd, _),
                ):
                    return RecordFile(seq, _read_all(fd, f"{ASIDE}/{name}"))
            except FileNotFoundError:
                continue
        return None

    def record_seq(self) -> int:
        """The greatest number."""
        for _ in range(_LOOKS):
            numbers = self._record_numbers()
            # A listing may miss both the one that has gone meanwhile and the one that has come.
            others = {*self._names_in(os.path.join(self._path, ASIDE))} - {SERVER_LOCK, MANIFEST}
            if numbers or not others:
                break
        return max(numbers, default=0)

    def _record_numbers(self) -> Sequence[int]:
        numbers = (record_number(name) for name in self._names_in(os.path.join(self._path, ASIDE)))
        return [number for number in numbers if number is not None]

    def replace_record(self, seq: int, data: bytes) -> bool:
        """Give a synced file the number by a link, which fails where one has it: of several writers one succeeds."""
        folder = self._aside()
        hidden = os.path.join(folder, temporary_name())
        path = os.path.join(folder, record_file(seq))
        with _explained("write the record", path):
            numbers = self._record_numbers()
            if max(numbers, default=0) >= seq:
                return False
            try:
                _write_file(hidden, data, self._sync)
                try:
                    os.link(hidden, path)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    move_new(hidden, path)
            except FileExistsError:
                return False
            finally:
                with suppress(OSError):
                    os.unlink(hidden)
            self._sync_folder(folder)
            # The last one stays: who has seen its name is about to read it.
            for number in sorted(numbers)[:-1]:
                with suppress(OSError):
                    os.unlink(os.path.join(folder, record_file(number)))
        return True

    def staged(self, seconds: float = 0) -> tuple[str, ...]:
        """What is in its folder."""
        found = self._folders_in(STAGED)
        if not seconds:
            return found
        limit = time.time() - seconds
        place = os.path.join(self._path, ASIDE, STAGED)
        return tuple(name for name in found if _last_change(os.path.join(place, name)) < limit)

    def past(self) -> tuple[str, ...]:
        """What is in its folder."""
        return self._folders_in(PAST)

    def show(self, folders: Iterable[str]) -> None:
        """Rename into the root, and sync it."""
        moved = [self._move(os.path.join(ASIDE, STAGED, name), name) for name in folders]
        if any(moved):
            with _explained("commit to the store", self._path):
                self._sync_folder(self._path)

    def set_aside(self, folders: Iterable[str]) -> None:
        """Rename. What cannot be renamed stays: the record says what counts."""
        folder = self._aside(PAST)
        moved = [
            self._move(os.path.join(ASIDE, STAGED, name), os.path.join(ASIDE, PAST, name))
            or self._move(name, os.path.join(ASIDE, PAST, name))
            for name in folders
        ]
        if any(moved):
            with _explained("clean up the store", self._path):
                self._sync_folder(folder)
                self._sync_folder(self._path)

    def _move(self, old: str, new: str) -> bool:
        """Rename a folder of the store; False where it is not there any more, or was moved already, or cannot be renamed."""
        check_component(os.path.basename(old))
        path = os.path.join(self._path, old)
        with _explained("clean up the store", path):
            try:
                move_new(path, os.path.join(self._path, new))
            except (FileNotFoundError, FileExistsError):
                return False
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return False
        return True

    def _aside(self, *inside: str) -> str:
        """The folder of what is not listed, or one in it; made where it is missing."""
        path = self._path
        for name in (ASIDE, *inside):
            parent, path = path, os.path.join(path, name)
            with _explained("write into the store", path):
                try:
                    os.mkdir(path)
                except FileExistsError:
                    continue
                except FileNotFoundError:
                    self._missing()
                self._sync_folder(parent)
        return path

    def _names_in(self, path: str) -> Sequence[str]:
        """What is in a folder of the store; nothing where there is none. No link is followed."""
        with _explained("list the store", path):
            try:
                if not os.path.islink(path):
                    return os.listdir(path)
            except FileNotFoundError:
                return []
            except OSError as error:
                if error.errno not in _IS_NO_FILE:
                    raise
        raise CorruptionError(os.path.relpath(path, self._path), None, "it is not a folder")

    def _folders_in(self, place: str) -> tuple[str, ...]:
        names = self._names_in(os.path.join(self._path, ASIDE, place))
        return tuple(sorted(name for name in names if not is_temporary(name)))

    def sync(self) -> None:
        """Sync the root, and where the record is, and the stage."""
        if not self._sync:
            return
        with self._opened_root() as root:
            _sync_root(root, self._path)
        aside = os.path.join(self._path, ASIDE)
        for path in (aside, os.path.join(aside, STAGED)):
            with suppress(FileNotFoundError), opening(path, _FOLDER | os.O_NOFOLLOW) as folder:
                _sync_root(folder, path)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """An exclusive flock on the store's lock file, which the system drops when the process dies."""
        path = self._in_root(LOCK)
        with Holding() as held:
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
            _locked[fd] = threading.get_ident()
            try:
                yield True
            finally:
                del _locked[fd]
                # Not left to close(): a child forked meanwhile has the descriptor too.
                fcntl.flock(fd, fcntl.LOCK_UN)

    def room(self) -> int | None:
        """What the file system has for who is not root."""
        with _explained("look for room", self._path):
            status = os.statvfs(self._path)
        return status.f_bavail * status.f_frsize

    def now(self) -> int:
        """When the lock file was touched, by the clock of the file system, which may be another machine's."""
        path = self._in_root(LOCK)
        with _explained("ask the file system for the time", path):
            try:
                os.utime(path)
            except FileNotFoundError:
                with opening(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW):
                    pass
            return os.stat(path).st_mtime_ns // 1_000_000

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Rename to hidden names, or remove what cannot be renamed, and sync the root."""
        hidden = []
        # In the root it would seem to be a draft that is under way.
        where = ASIDE if os.path.isdir(os.path.join(self._path, ASIDE)) else ""
        changed = {os.path.join(self._path, where).rstrip("/")}
        with _explained("clean up the store", self._path):
            for folder in folders:
                name = os.path.join(where, temporary_name())
                for place in self._where(folder):
                    try:
                        os.rename(place, os.path.join(self._path, name))
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        if error.errno != errno.EXDEV:
                            raise
                        remove_in_place(place, self._sync_folder)
                    else:
                        hidden.append(name)
                    changed.add(os.path.dirname(place))
                    break
            for path in sorted(changed):
                self._sync_folder(path)
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
            path = os.path.join(self._path, name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_tree(path)
            else:
                with suppress(OSError):
                    os.unlink(path)

    def abandoned(self, seconds: float) -> Sequence[str]:
        """Hidden entries whose newest file, or they themselves, have not changed since, or whose process has ended."""
        limit = time.time() - seconds
        with self._scanned_root() as entries:
            hidden = [entry.name for entry in entries if is_temporary(entry.name)]
        for place in (ASIDE, os.path.join(ASIDE, STAGED)):
            inside = self._names_in(os.path.join(self._path, place))
            hidden += [os.path.join(place, name) for name in inside if is_temporary(name)]
        return [
            name
            for name in sorted(hidden)
            if has_ended(temporary_owner(os.path.basename(name)))
            or _last_change(os.path.join(self._path, name)) < limit
        ]

    def _in_root(self, name: str) -> str:
        return os.path.join(self._path, check_component(name))

    def _where(self, folder: str) -> tuple[str, ...]:
        """Where a folder can be. It goes from the stage to the root and to the past: who looks in this order does not miss it."""
        root = self._in_root(folder)
        staged, past = (os.path.join(self._path, ASIDE, place, folder) for place in (STAGED, PAST))
        return root, staged, root, past

    def _places(self, folder: str) -> bytes:
        """The same, as `File.open` takes it."""
        return b"\0".join(map(os.fsencode, self._where(folder)))

    def _missing(self) -> NoReturn:
        raise StoreNotFoundError(f"there is no store at {self._path!r}") from None

    def _sync_folder(self, path: str) -> None:
        if self._sync:
            sync_folder(path)

    @contextmanager
    def _opened_root(self) -> Iterator[int]:
        with Holding() as held:
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
    def _opened_folder(self, folder: str) -> Iterator[tuple[int, str]]:
        """Its descriptor and path."""
        places = self._where(folder)
        with Holding() as held:
            for path in places:
                with _explained("open the fragment", path):
                    try:
                        fd = open_held(held, path, _FOLDER | os.O_NOFOLLOW)
                        break
                    except FileNotFoundError:
                        if path is places[-1]:
                            raise
                    except OSError as error:
                        if error.errno in _IS_NO_FILE:
                            raise CorruptionError(folder, None, "it is not a folder") from None
                        raise
            yield fd, path


_locked: dict[int, int] = {}  # descriptors that hold a lock, with their threads


def _leave_locks() -> None:
    """In a forked child: a lock belongs to a thread of the parent, and would outlive that for as long as the child has it."""
    for fd, thread in list(_locked.items()):
        if thread != threading.get_ident():
            del _locked[fd]
            with suppress(OSError):
                os.close(fd)


os.register_at_fork(after_in_child=_leave_locks)


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
        self._shown = False
        self._open = OrderedDict[str, int]()  # descriptors by path, the last used last

    def create(self, file: str) -> LocalWriter:
        """Begin a file."""
        path = os.path.join(self._path, check_component(file))
        with _explained("write into the store", path):
            _take(path, _CREATE, self._open)
        self._new_names = True
        return LocalWriter(path, self._open, self._unsynced if self._sync else None)

    def discard(self, file: str) -> None:
        """Unlink."""
        path = os.path.join(self._path, check_component(file))
        with _explained("write into the store", path):
            os.unlink(path)
        self._unsynced.discard(path)

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
        with Holding() as held:
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
                self._shown = True
                return
            # First: no lack of descriptors comes between.
            with opening(self._root, _FOLDER) as root:
                move_new(self._path, path)
                self._shown = True
                _sync_root(root, path)

    def abandon(self) -> None:
        """Remove the folder, unless it was committed."""
        for path in list(self._open):
            with suppress(OSError):
                _give_back(path, self._open)
        if not self._shown:
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

    def replace_start(self, data: bytes) -> None:
        """Put `data` in the place of the first bytes."""
        if self._closed:
            raise ValueError("the file is closed")
        # Through a descriptor of its own: what is written through one that appends goes to the end, wherever it is to go.
        with (
            _explained("write into the store", self._path),
            opening(self._path, os.O_WRONLY | os.O_NOFOLLOW) as fd,
        ):
            _write_all(fd, data)

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


def _read_all(fd: int, name: str) -> bytes:
    """All of a small file."""
    size = os.fstat(fd).st_size
    if size > SMALL_FILE:
        raise CorruptionError(name, 0, f"it has {size} bytes, over {SMALL_FILE}")
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


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
    with _explained("read", path), Holding() as held:
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


class _explained:
    """Turn what the system says into an error of the same kind that says what could not be done."""

    __slots__ = ("_path", "_what")

    def __init__(self, what: str, path: str) -> None:
        self._what = what
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            if isinstance(error, TileKVError):
                return
            text = f"cannot {self._what}: {os.strerror(error.errno)}"
            raise OSError(error.errno, text, self._path) from error

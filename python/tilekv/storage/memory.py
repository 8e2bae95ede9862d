"""Stores in the memory of this process, by name: for tests, and for data that need not last."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tilekv.clock import milliseconds
from tilekv.errors import StoreNotFoundError
from tilekv.kvcore.base.file import File
from tilekv.names import FRAGMENT_METADATA, temporary_name
from tilekv.storage.protocol import Listing, RecordFile, check_component

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Root:
    """One store: the files of its root, and its folders' files. Guarded by _lock."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.folders: dict[str, dict[str, bytes]] = {}
        self.staged: dict[str, dict[str, bytes]] = {}
        self.past: dict[str, dict[str, bytes]] = {}
        self.record: RecordFile | None = None
        self.locked = False  # by who makes the first record
        self.events = 0  # what has happened to folders and drafts, to tell what came first
        self.appeared: dict[str, int] = {}  # the event, by folder
        self.drafts: dict[MemoryDraft, int] = {}  # the event of the metadata of those that have it

    def is_empty(self) -> bool:
        return not (self.files or self.folders)

    def event(self) -> int:
        self.events += 1
        return self.events


_lock = threading.Lock()
_roots: dict[str, _Root] = {}  # guarded by _lock


def _renew_lock() -> None:
    # Another thread may have held the lock at the fork; it does not exist in the child.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class MemoryStorage:
    """A Storage under a name that all of the process share. It is gone when the process ends."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def uri(self) -> str:
        """``memory://`` and the name."""
        return f"memory://{self.name}"

    def exists(self) -> bool:
        """Tell whether a store of this name was created."""
        with _lock:
            return self.name in _roots

    def is_empty(self, folder: str = "") -> bool:
        """Tell whether there is nothing."""
        if folder:
            check_component(folder)
        with _lock:
            root = _roots.get(self.name)
            if root is None:
                return True
            return not root.folders.get(folder) if folder else root.is_empty()

    def list(self) -> Listing:
        """List the root."""
        with _lock:
            root = self._root()
            return Listing(tuple(sorted(root.folders)), tuple(sorted(root.files)))

    def files(self, folder: str) -> dict[str, int]:
        """Return sizes by name."""
        check_component(folder)
        with _lock:
            return {name: len(data) for name, data in self._folder(folder).items()}

    def read(self, name: str) -> bytes:
        """Return a file of the root."""
        check_component(name)
        with _lock:
            return self._file(self._root().files, name)

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Show a file of a folder; `mmap` makes no difference."""
        check_component(folder)
        check_component(file)
        with _lock:
            return File.memory(self._file(self._folder(folder), file))

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Show every file of a folder; `mmap` makes no difference."""
        check_component(folder)
        with _lock:
            return {name: File.memory(data) for name, data in self._folder(folder).items()}

    def distrust(self, name: str) -> bool:
        """No: it is what is stored."""
        return False

    def expect(self, folders: Iterable[str]) -> None:
        """Do nothing: there is nothing to wait for."""

    def spare(self, folders: Iterable[str], always: bool = False) -> int:
        """Do nothing: there is nothing to spare."""
        return 0

    def ahead(self) -> None:
        """Do nothing: there is nothing to wait for."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the root."""
        check_component(name)
        with _lock:
            self._root().files[name] = bytes(data)

    def create(self, files: Mapping[str, bytes], replace: bool) -> bool:
        """Make the root."""
        for name in files:
            check_component(name)
        with _lock:
            root = _roots.get(self.name)
            if root is not None and not root.is_empty() and not replace:
                return False
            _roots[self.name] = _Root(files)
            return True

    def build(self, uri: str = "") -> MemoryBuild:
        """Begin a root under a hidden name."""
        return MemoryBuild(uri.removeprefix("memory://") or temporary_name(), self.name)

    def draft(self, staged: bool = False) -> MemoryDraft:
        """Begin a folder."""
        with _lock:
            return MemoryDraft(self, self._root(), staged)

    def settled(self, folders: Iterable[str]) -> frozenset[str]:
        """Those that appeared before the oldest draft began its metadata."""
        with _lock:
            root = self._root()
            oldest = min(root.drafts.values(), default=root.events + 1)
            return frozenset(f for f in folders if root.appeared.get(f, 0) < oldest)

    def record(self) -> RecordFile | None:
        """The record."""
        with _lock:
            return self._root().record

    def record_seq(self) -> int:
        """Its number."""
        record = self.record()
        return record.seq if record else 0

    def replace_record(self, seq: int, data: bytes) -> bool:
        """Keep it, unless there is one as new."""
        with _lock:
            root = self._root()
            if root.record and root.record.seq >= seq:
                return False
            root.record = RecordFile(seq, bytes(data))
            return True

    def staged(self, seconds: float = 0) -> tuple[str, ...]:
        """What is not shown yet; nobody knows since when, and nothing dies here that could leave it behind."""
        with _lock:
            return () if seconds else tuple(sorted(self._root().staged))

    def past(self) -> tuple[str, ...]:
        """What was set aside."""
        with _lock:
            return tuple(sorted(self._root().past))

    def show(self, folders: Iterable[str]) -> None:
        """List them."""
        with _lock:
            root = self._root()
            for folder in folders:
                if files := root.staged.pop(check_component(folder), None):
                    root.folders[folder] = files
                    root.appeared[folder] = root.event()

    def set_aside(self, folders: Iterable[str]) -> None:
        """List them no longer."""
        with _lock:
            root = self._root()
            for folder in folders:
                for place in (root.staged, root.folders):
                    if files := place.pop(check_component(folder), None):
                        root.past[folder] = files

    def sync(self) -> None:
        """Do nothing: memory is as durable as it gets."""

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """A lock of the store, shared by all of the process."""
        with _lock:
            root = self._root()
            held = not root.locked
            root.locked = True
        try:
            yield held
        finally:
            if held:
                root.locked = False

    def room(self) -> int | None:
        """Nobody knows."""
        return None

    def now(self) -> int:
        """The time of this machine."""
        return milliseconds()

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Forget the folders: nothing is left to erase."""
        with _lock:
            root = self._root()
            for folder in folders:
                for place in (root.folders, root.staged, root.past):
                    place.pop(check_component(folder), None)
                root.appeared.pop(folder, None)
        return []

    def remove(self, name: str) -> None:
        """Forget a file."""
        with _lock:
            self._root().files.pop(check_component(name), None)

    def reclaim(self, hidden: Iterable[str]) -> None:
        """Do nothing: nothing was hidden."""

    def abandoned(self, seconds: float) -> Sequence[str]:
        """Nothing: drafts are no part of the store."""
        return []

    def _root(self) -> _Root:
        root = _roots.get(self.name)
        if root is None:
            raise StoreNotFoundError(f"there is no store at {self.uri!r}")
        return root

    def _folder(self, folder: str) -> dict[str, bytes]:
        root = self._root()
        for place in (root.folders, root.staged, root.past):
            if folder in place:
                return place[folder]
        raise FileNotFoundError(f"there is no folder {folder!r} in {self.uri!r}")

    def _file(self, files: dict[str, bytes], name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(f"there is no file {name!r} in {self.uri!r}")
        return files[name]


class MemoryBuild:
    """A Build of a MemoryStorage: a root of another name."""

    def __init__(self, hidden: str, name: str) -> None:
        self._hidden = hidden
        self._name = name

    @property
    def uri(self) -> str:
        """The hidden name."""
        return f"memory://{self._hidden}"

    def commit(self, replace: bool) -> bool:
        """Give it its name."""
        with _lock:
            there = _roots.get(self._name)
            if there is not None and not there.is_empty() and not replace:
                return False
            _roots[self._name] = _roots.pop(self._hidden)
            return True

    def abandon(self) -> None:
        """Forget it."""
        with _lock:
            _roots.pop(self._hidden, None)


class MemoryDraft:
    """A Draft of a MemoryStorage."""

    def __init__(self, storage: MemoryStorage, root: _Root, staged: bool) -> None:
        self._storage = storage
        self._root = root
        self._staged = staged
        self._files: dict[str, bytearray] | None = {}  # None once it is committed or abandoned

    def create(self, file: str) -> MemoryWriter:
        """Begin a file."""
        files = self._open()
        if check_component(file) in files:
            raise FileExistsError(f"the draft has a file {file!r}")
        files[file] = bytearray()
        if file == FRAGMENT_METADATA and not self._staged:
            with _lock:
                self._root.drafts[self] = self._root.event()
        return MemoryWriter(files[file])

    def discard(self, file: str) -> None:
        """Forget a file."""
        self._open().pop(check_component(file), None)

    def sync(self, *, names: bool = True) -> None:
        """Do nothing: memory is as durable as it gets."""
        self._open()

    def commit(self, name: str) -> None:
        """Show the folder under `name`."""
        files = self._open()
        check_component(name)
        with _lock:
            if _roots.get(self._storage.name) is not self._root:
                raise FileNotFoundError(f"the store at {self._storage.uri!r} was replaced")
            root = self._root
            if name in root.folders or name in root.files or name in root.staged:
                raise FileExistsError(f"{name!r} exists in {self._storage.uri!r}")
            place = root.staged if self._staged else root.folders
            place[name] = {file: bytes(data) for file, data in files.items()}
            root.appeared[name] = root.event()
            root.drafts.pop(self, None)
        self._files = None

    def abandon(self) -> None:
        """Forget the draft."""
        self._files = None
        with _lock:
            self._root.drafts.pop(self, None)

    def _open(self) -> dict[str, bytearray]:
        if self._files is None:
            raise FileNotFoundError("the draft was committed or abandoned")
        return self._files


class MemoryWriter:
    """A FileWriter of a MemoryDraft."""

    def __init__(self, data: bytearray) -> None:
        self._data = data
        self._closed = False

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        if self._closed:
            raise ValueError("the file is closed")
        self._data += memoryview(data).cast("B")

    def replace_start(self, data: bytes) -> None:
        """Put `data` in the place of the first bytes."""
        if self._closed:
            raise ValueError("the file is closed")
        self._data[: len(data)] = data

    def close(self) -> None:
        """End the file."""
        self._closed = True

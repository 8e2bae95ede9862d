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
from tilekv.names import temporary_name
from tilekv.storage.protocol import Listing, check_component

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Root:
    """One store: the files of its root, and its folders' files. Guarded by _lock."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.folders: dict[str, dict[str, bytes]] = {}
        self.locked = False  # by a consolidation or a vacuum

    def is_empty(self) -> bool:
        return not (self.files or self.folders)


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

    def build(self) -> MemoryBuild:
        """Begin a root under a hidden name."""
        return MemoryBuild(temporary_name(), self.name)

    def draft(self) -> MemoryDraft:
        """Begin a folder."""
        with _lock:
            return MemoryDraft(self, self._root())

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

    def now(self) -> int:
        """The time of this machine."""
        return milliseconds()

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Forget the folders: nothing is left to erase."""
        with _lock:
            for folder in folders:
                self._root().folders.pop(check_component(folder), None)
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
        folders = self._root().folders
        if folder not in folders:
            raise FileNotFoundError(f"there is no folder {folder!r} in {self.uri!r}")
        return folders[folder]

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

    def __init__(self, storage: MemoryStorage, root: _Root) -> None:
        self._storage = storage
        self._root = root
        self._files: dict[str, bytearray] | None = {}  # None once it is committed or abandoned

    def create(self, file: str) -> MemoryWriter:
        """Begin a file."""
        files = self._open()
        if check_component(file) in files:
            raise FileExistsError(f"the draft has a file {file!r}")
        files[file] = bytearray()
        return MemoryWriter(files[file])

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
            if name in self._root.folders or name in self._root.files:
                raise FileExistsError(f"{name!r} exists in {self._storage.uri!r}")
            self._root.folders[name] = {file: bytes(data) for file, data in files.items()}
        self._files = None

    def abandon(self) -> None:
        """Forget the draft."""
        self._files = None

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

    def close(self) -> None:
        """End the file."""
        self._closed = True

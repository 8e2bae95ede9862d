"""A disk that forgets: what was not synced may be lost, in any order, when the power is cut.

`Disk` stands between tilekv's local storage and the real files below a folder. It carries out every call and keeps, beside it,
what a disk would have: of a file the bytes of its last sync, of a folder the names of its last sync. `outcomes` gives what a cut
at this moment may leave. The rules are those of POSIX, and a little worse than any file system in use:

* bytes written since a file's last sync may be kept, lost, zeroed or torn;
* names made, renamed, swapped and removed since their folder's last sync may each be there or not, in any order;
* a rename is one change of its folder: it happens or it does not; from one folder to another, what it moves is in the new one
  before it has left the old one, and a sync of the old one keeps both.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tilekv.storage import descriptors, exchange, local, overlay

Tree = Mapping[str, bytes | None]  # by path below the disk's folder; None: a folder
EXCHANGE = 2


@dataclass(eq=False)
class File:
    data: bytes = b""
    synced: bytes = b""

    def after(self, how: str) -> bytes:
        """What is read after the cut."""
        if not self.data.startswith(
            self.synced
        ):  # written over since: each of its blocks may be old or new
            return self.data if how in ("kept", "torn") else self.synced
        tail = len(self.data) - len(self.synced)
        if how == "kept" or tail <= 0:
            return self.data if how == "kept" else self.synced
        return (
            self.synced
            + {
                "lost": b"",
                "zeroed": bytes(tail),
                "torn": self.data[len(self.synced) :][: tail // 2],
            }[how]
        )


class Change(dict[str, "File | Folder | None"]):
    """Names set or taken away by one call; None: taken away."""

    after: tuple[Folder, Change] | None = None  # it happens only if this has, in that folder

    def happens(self, kept: Callable[[Change], bool]) -> bool:
        if not kept(self):
            return False
        if self.after is None:
            return True
        folder, other = self.after
        return other.happens(kept) or not any(each is other for each in folder.pending)


@dataclass(eq=False)
class Folder:
    now: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)  # since

    def change(self, names: Mapping[str, File | Folder | None]) -> Change:
        change = Change(names)
        self.pending.append(change)
        _apply(self.now, change)
        return change


def _apply(entries: dict[str, File | Folder], names: Mapping[str, File | Folder | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


CUTS = ("lost", "kept", "zeroed", "torn")


class Disk:
    """All below a folder, as the disk has it.

    Parameters
    ----------
    folder : Path
        What is there now is durable.
    changed : callable, optional
        Called after every call that changes anything, with its name.
    layered : bool
        What is there now lies in a lower layer of overlayfs: its folders cannot be renamed.
    """

    def __init__(
        self,
        folder: Path,
        changed: Callable[[str], object] = lambda call: None,
        layered: bool = False,
    ) -> None:
        self.folder = folder
        self.changed = changed
        self.log: list[str] = []  # what was changed and synced, in order, without hidden names
        self._root = _loaded(folder)
        self._lower = set(_folders(self._root)) if layered else set()
        self.opened: dict[int, tuple[File | Folder, str]] = {}  # by descriptor
        self._places: dict[int, int] = {}  # where those that do not append write next

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Local storages write through this disk meanwhile. Nothing is really synced."""
        recorder = _Recorder(self)
        with pytest.MonkeyPatch.context() as patch:
            for module in (local, exchange, overlay, descriptors):
                patch.setattr(module, "os", recorder)
            for module in (local, descriptors):
                patch.setattr(module, "Holding", recorder.holding)
            patch.setattr(exchange, "_rename", self.renamed)
            patch.setattr(local, "sync_all", self.synced_at_once)
            yield

    def outcomes(self, seed: int) -> Iterator[Tree]:
        """What a cut now may leave: of the changes all, none, each alone, all but each, some at random; of the bytes likewise."""
        pending = list(_pending(self._root))
        n = len(pending)
        choices = [frozenset(), frozenset(range(n))]
        choices += [frozenset([i]) for i in range(n)]
        choices += [frozenset(range(n)) - {i} for i in range(n)]
        rng = random.Random(seed)
        choices += [frozenset(i for i in range(n) if rng.random() < 0.5) for _ in range(4)]
        for kept in dict.fromkeys(choices):
            durable = {id(pending[i]) for i in kept}
            for how in CUTS:
                yield _survivors(self._root, durable, lambda: how)  # noqa: B023 - used at once
            yield _survivors(self._root, durable, lambda: rng.choice(CUTS))

    # --- what the recorder tells -----------------------------------------------------------------

    def holds(self, path: str) -> bool:
        return Path(path).is_relative_to(self.folder)

    def _parent(self, path: str) -> tuple[Folder, str]:
        *folders, name = Path(path).relative_to(self.folder).parts
        node = self._root
        for part in folders:
            child = node.now[part]
            assert isinstance(child, Folder)
            node = child
        return node, name

    def _node(self, path: str) -> File | Folder:
        if Path(path) == self.folder:
            return self._root
        parent, name = self._parent(path)
        return parent.now[name]

    def _done(self, *words: str) -> None:
        shown = [
            "hidden" if ".tmp-" in os.path.basename(word) else os.path.basename(word)
            for word in words[1:]
        ]
        self.log.append(" ".join([words[0], *shown]))
        self.changed(self.log[-1])

    def begun(self, fd: int, path: str, new: bool, appends: bool) -> None:
        if not appends:
            self._places[fd] = 0
        if new:
            parent, name = self._parent(path)
            parent.change({name: File()})
        self.opened[fd] = self._node(path), path
        if new:
            self._done("create", path)

    def closed(self, fd: int) -> None:
        self.opened.pop(fd, None)
        self._places.pop(fd, None)

    def written(self, fd: int, data: bytes) -> None:
        file, path = self.opened[fd]
        assert isinstance(file, File)
        at = self._places.get(fd, len(file.data))
        file.data = file.data[:at] + data + file.data[at + len(data) :]
        if fd in self._places:
            self._places[fd] = at + len(data)
        self._done("write", path)

    def synced(self, fd: int) -> None:
        node, path = self.opened[fd]
        _synced_now(node)
        self._done("sync", path)

    def synced_at_once(self, fds: list[int]) -> list[int]:
        """In the place of `local.sync_all`. The power may be cut when any of them are done: none, all, each alone, all but each,
        and some at random.
        """
        nodes = [self.opened[fd][0] for fd in fds]
        everything = frozenset(range(len(nodes)))
        rng = random.Random(len(self.log))
        done = [frozenset(), *({i} for i in everything), *(everything - {i} for i in everything)]
        done += [frozenset(i for i in everything if rng.random() < 0.5) for _ in range(20)]
        for some in dict.fromkeys(map(frozenset, done)):
            before = [_synced_now(nodes[i]) for i in sorted(some)]
            self.changed(f"{len(some)} of {len(nodes)} syncs")
            for restore_ in before:
                restore_()
        for fd in fds:
            self.synced(fd)
        return [0] * len(fds)

    def made(self, path: str) -> None:
        parent, name = self._parent(path)
        parent.change({name: Folder()})
        self._done("mkdir", path)

    def removed(self, path: str) -> None:
        parent, name = self._parent(path)
        parent.change({name: None})
        self._done("unlink", path)

    def moved(self, old: str, new: str) -> None:
        parent, name = self._parent(old)
        other, target = self._parent(new)
        node = parent.now[name]
        if parent is other:
            parent.change({name: None, target: node})
        else:
            arrival = other.change({target: node})
            parent.change({name: None}).after = (other, arrival)
        self._done("rename", old, new)

    def linked(self, old: str, new: str) -> None:
        parent, name = self._parent(new)
        parent.change({name: self._node(old)})
        self._done("link", old, new)

    def check_layer(self, path: str) -> None:
        """As overlayfs does before a rename."""
        if self.holds(path) and os.path.lexists(path) and self._node(path) in self._lower:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)

    def renamed(self, old: str, new: str, flag: int) -> bool:
        """In the place of `exchange._rename`."""
        self.check_layer(old)
        if flag == EXCHANGE:
            self.check_layer(new)
        done = _real_rename(old, new, flag)
        if done and self.holds(old):
            if flag == EXCHANGE:
                parent, name = self._parent(old)
                _, target = self._parent(new)
                parent.change({name: parent.now[target], target: parent.now[name]})
                self._done("exchange", old, new)
            else:
                self.moved(old, new)
        return done


_real_rename = exchange._rename


class _Recorder:
    """In the place of the module os: does what they do, and tells the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        if dir_fd is None and self._disk.holds(path):
            self._disk.begun(fd, path, new, bool(flags & os.O_APPEND))
        return fd

    def close(self, fd: int) -> None:
        self._disk.closed(fd)
        os.close(fd)

    @contextmanager
    def holding(self) -> Iterator[list[int]]:
        fds: list[int] = []
        try:
            yield fds
        finally:
            for fd in fds:
                self.close(fd)

    def write(self, fd: int, data: Any) -> int:
        done = os.write(fd, data)
        if fd in self._disk.opened:
            self._disk.written(fd, bytes(data[:done]))
        return done

    def fsync(self, fd: int) -> None:
        if fd in self._disk.opened:
            self._disk.synced(fd)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)
        if self._disk.holds(path):
            self._disk.made(path)

    def rename(self, old: str, new: str) -> None:
        self._disk.check_layer(old)
        os.rename(old, new)
        if self._disk.holds(old):
            self._disk.moved(old, new)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        path = _whole(path, dir_fd)
        os.unlink(path)
        if self._disk.holds(path):
            self._disk.removed(path)

    def link(self, old: str, new: str) -> None:
        os.link(old, new)
        if self._disk.holds(new):
            self._disk.linked(old, new)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        path = _whole(path, dir_fd)
        os.rmdir(path)
        if self._disk.holds(path):
            self._disk.removed(path)


def _synced_now(node: File | Folder) -> Callable[[], None]:
    """Sync it; the result undoes that."""
    kept = [(node, vars(node).copy())]
    if isinstance(node, File):
        node.synced = node.data
    else:
        for change in node.pending:
            if change.after:
                folder, other = change.after
                kept.append((folder, vars(folder).copy()))
                if any(each is other for each in folder.pending):
                    folder.synced = dict(folder.synced)
                    _apply(folder.synced, other)
                    folder.pending = [each for each in folder.pending if each is not other]
        node.synced, node.pending = dict(node.now), []

    def undo() -> None:
        for each, before in reversed(kept):
            vars(each).update(before)

    return undo


def _whole(path: str, folder: int | None) -> str:
    return path if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


def _folders(folder: Folder) -> Iterator[Folder]:
    """A folder and all below it."""
    yield folder
    for node in folder.now.values():
        if isinstance(node, Folder):
            yield from _folders(node)


def _loaded(path: Path) -> Folder:
    folder = Folder()
    for each in path.iterdir():
        if each.is_dir():
            folder.now[each.name] = _loaded(each)
        else:
            data = each.read_bytes()
            folder.now[each.name] = File(data, data)
    folder.synced = dict(folder.now)
    return folder


def _pending(folder: Folder) -> Iterator[Change]:
    """The changes that are not durable, of all folders that may still be reached."""
    seen: set[int] = set()
    stack = [folder]
    while stack:
        each = stack.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield from each.pending
        nodes = itertools.chain(
            each.now.values(), each.synced.values(), *(change.values() for change in each.pending)
        )
        stack.extend(node for node in nodes if isinstance(node, Folder))


def _survivors(root: Folder, durable: set[int], fate: Callable[[], str]) -> Tree:
    tree: dict[str, bytes | None] = {}

    def walk(folder: Folder, prefix: str) -> None:
        entries = dict(folder.synced)
        for change in folder.pending:
            if change.happens(lambda each: id(each) in durable):
                _apply(entries, change)
        for name, node in sorted(entries.items()):
            if isinstance(node, Folder):
                tree[prefix + name] = None
                walk(node, f"{prefix}{name}/")
            else:
                tree[prefix + name] = node.after(fate())

    walk(root, "")
    return tree


def restore(tree: Tree, folder: Path) -> None:
    """Make a folder of what a cut has left."""
    folder.mkdir()
    for name, data in tree.items():
        if data is None:
            folder.joinpath(name).mkdir()
        else:
            folder.joinpath(name).write_bytes(data)


def seen(tree: Tree) -> list[tuple[str, bytes | None]]:
    """Without what is in hidden folders, of which nothing is ever read."""
    found = []
    for path, data in tree.items():
        hidden = path.find(".tmp-")
        if hidden < 0 or "/" not in path[hidden:]:
            found.append((path, None if hidden >= 0 else data))
    return found

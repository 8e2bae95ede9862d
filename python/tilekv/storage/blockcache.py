"""Blocks of the files of stores in buckets, kept in a folder of this machine for whoever reads the same next (docs/cloud.md).

A block is a file, named by a digest of whose it is, which has a digest of both and the data. What is damaged, cut, or lies under
another's name is not found, and is asked for again. Files appear by a rename, so that any number of processes may share a folder;
each counts what it has put there, and looks at all of it after every fiftieth of what the folder may have. So four of them stay
within a tenth above that. No file here is synced: what a crash of the machine leaves of one is damaged, or right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from tilekv.clock import seconds
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.storage.objectclient import Entry, Stored, number_of
from tilekv.storage.ranges import Range, joined

BLOCK: Final = 64 << 10
MOST: Final = 1 << 30  # bytes of a folder, unless `cache_bytes` says otherwise
LEAST: Final = 16 << 20
FOLDER: Final = "tilekv-blocks"  # in the folder that is given: nothing else of that is touched
_DIGEST: Final = 16  # bytes
_PAGE: Final = 4096  # a file takes whole ones of a disk
_PARTS: Final = 50  # after so much of what the folder may have all of it is looked at
_LEFT: Final = 0.9  # of that which stays when something has to go
_PAUSE_S: Final = 60  # nothing is kept for so long after the disk was full
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class BlockCache:
    """Data by names, which are any str. Any number of threads, and of processes.

    Parameters
    ----------
    folder : str
        What the blocks lie in; made if it is missing.
    most : int
        Bytes that their files take of the disk, about.
    """

    def __init__(self, folder: str, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()
        self._put = most  # bytes since all was looked at, which nobody has done yet
        self._paused = 0.0  # until when

    def get(self, name: str, n: int) -> memoryview | None:
        """The n bytes that were put under a name; None when they are not here as they were."""
        path, key = self._place(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = memoryview(os.read(fd, _DIGEST + n + 1))
            os.utime(fd)  # whose time is the oldest goes first
        except OSError:
            return None
        finally:
            os.close(fd)
        data = found[_DIGEST:]
        if len(data) == n and found[:_DIGEST] == _digest(key, data):
            return data
        with suppress(OSError):
            os.unlink(path)
        return None

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Keep data under a name. When the disk does not take it, nothing is kept for a minute."""
        path, key = self._place(name)
        digest = _digest(key, data)
        with self._lock:  # until it is written, or else what is counted were not what is there
            if seconds() < self._paused:
                return
            try:
                self._count(_room(_DIGEST + len(data)))
                self._write(path, digest, data)
            except OSError:
                self._paused = seconds() + _PAUSE_S

    def forget(self, names: Iterable[str]) -> None:
        """Remove what is under these names."""
        for name in names:
            with suppress(OSError):
                os.unlink(self._place(name)[0])

    def get_object(self, place: str, entry: Entry) -> Stored | None:
        """An object of that version, if all of it is here."""
        found: list[memoryview] = []
        for block, n in _blocks(0, entry.size, entry.size):
            data = self.get(f"{place}\0{entry.version['e_tag']}\0{block}", n)
            if data is None:
                return None
            found.append(data)
        return Stored(b"".join(found), entry.moment, entry.version)

    def put_object(self, place: str, found: Stored) -> None:
        """Keep an object, if its version is its MD5, as most servers have it: what came wrong would come from here for good."""
        tag = str(found.version["e_tag"])
        if hashlib.md5(found.data, usedforsecurity=False).hexdigest() != tag.strip('"'):
            return
        data = memoryview(found.data)
        for block, n in _blocks(0, len(data), len(data)):
            self.put(f"{place}\0{tag}\0{block}", data[block * BLOCK : block * BLOCK + n])

    def _place(self, name: str) -> tuple[str, bytes]:
        """Its file, and what that is named by."""
        key = hashlib.blake2b(name.encode(), digest_size=_DIGEST).digest()
        return os.path.join(self._folder, key.hex()), key

    def _count(self, n: int) -> None:
        self._put += n
        if self._put < self._most // _PARTS:
            return
        self._put = n
        files = []
        total = n
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # others do the same
                    stat = entry.stat(follow_symlinks=False)
                    files.append((stat.st_mtime_ns, entry.path, _room(stat.st_size)))
                    total += files[-1][2]
        if total <= self._most:
            return
        for _, path, size in sorted(files):
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
            if total <= self._most * _LEFT:
                break

    def _write(self, path: str, digest: bytes, data: bytes | memoryview) -> None:
        new = f"{path}.{os.urandom(8).hex()}"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if os.writev(fd, [digest, data]) != len(digest) + len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            finally:
                os.close(fd)
            os.replace(new, path)
        except OSError:
            with suppress(OSError):
                os.unlink(new)
            raise


class CachedFiles:
    """What a RangeReader fetches by: blocks that are kept, and of the others as few ranges as are worth a request.

    Parameters
    ----------
    cache : BlockCache
    ask : callable
        Given a Range, returns its bytes: a request.
    at_once : callable
        As `Client.at_once`.
    """

    def __init__(
        self,
        cache: BlockCache,
        ask: Callable[[Range], bytes],
        at_once: Callable[[Callable[[Range], bytes], Sequence[Range]], list[bytes]],
    ) -> None:
        self.cache = cache
        self._ask = ask
        self._at_once = at_once
        self._files: dict[Hashable, tuple[str, int]] = {}

    def know(self, files: Mapping[Hashable, tuple[str, int]]) -> None:
        """Told which files' blocks are kept: each under a name that no other file ever has, and its size."""
        self._files |= files

    def forget(self, files: Iterable[Hashable]) -> None:
        """Told that nobody will read these any more: what is kept of them stays until others need its room."""
        for file in files:
            self._files.pop(file, None)

    def distrust(self, part: Range) -> None:
        """Told that what came of these bytes is damaged: it is not kept."""
        if (known := self._files.get(part.file)) is not None:
            name, size = known
            blocks = _blocks(part.offset, part.offset + part.n, size)
            self.cache.forget(f"{name}\0{block}" for block, _ in blocks)

    def fetch(self, wanted: Sequence[Range]) -> Sequence[bytes]:
        """The bytes of each, in one round."""
        here: dict[tuple[Hashable, int], memoryview] = {}
        missing: dict[Range, None] = {}
        whole = []
        for part in wanted:
            known = self._files.get(part.file)
            if known is None:
                whole.append(part)
                continue
            name, size = known
            for block, n in _blocks(part.offset, part.offset + part.n, size):
                if (part.file, block) in here:
                    continue
                data = self.cache.get(f"{name}\0{block}", n)
                if data is None:
                    missing[Range(part.file, block * BLOCK, n)] = None
                else:
                    here[part.file, block] = data
        asked = [*whole, *joined([*missing])]
        found = dict(zip(asked, self._at_once(self._asked, asked), strict=True))
        for part, came in found.items():
            here |= {(part.file, block): each for block, each in _blocks_of(part, came)}
        return [found[part] if part in whole else _joined(part, here) for part in wanted]

    def _asked(self, part: Range) -> bytes:
        """What was asked for, each block of it kept."""
        data = self._ask(part)
        if (known := self._files.get(part.file)) is not None:
            for block, each in _blocks_of(part, data):
                self.cache.put(f"{known[0]}\0{block}", each)
        return data


def cache_of(options: Mapping[str, object]) -> BlockCache:
    """The cache that storage options ask for, one in a process for each folder.

    Raises
    ------
    WrongTypeError, InvalidValueError
        For values that do not fit, and a folder that others may write to.
    OSError
        When the folder cannot be made.
    """
    folder, most = options.get("cache_dir"), number_of(options.get("cache_bytes", MOST))
    if isinstance(most, bool) or not isinstance(most, int):
        raise WrongTypeError(f"the storage option cache_bytes is an int, not {shown(most)}")
    if most < LEAST:
        raise InvalidValueError(f"the storage option cache_bytes is {LEAST} at least, not {most}")
    if folder is None:
        raise InvalidValueError(
            "the storage option cache_bytes is of a cache_dir, and none is given"
        )
    if not isinstance(folder, (str, os.PathLike)):
        raise WrongTypeError(f"the storage option cache_dir is a path, not {shown(folder)}")
    text = os.fspath(folder)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidValueError(
            f"the storage option cache_dir is the path of a folder, not {shown(text)}"
        )
    path = os.path.join(os.path.abspath(text), FOLDER)
    with _caches_lock:
        if (path, most) not in _caches:
            _make_private(path)
            _caches[path, most] = BlockCache(path, most)
        return _caches[path, most]


_caches: dict[tuple[str, int], BlockCache] = {}
_caches_lock = threading.Lock()


def _renew_locks() -> None:
    # Another thread may have held them at the fork.
    global _caches_lock
    _caches_lock = threading.Lock()
    for cache in _caches.values():
        cache._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


def _make_private(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except OSError as error:
        if error.errno in _FULL:  # then nothing is kept
            return
        raise
    stat = os.stat(path)
    if stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
        raise InvalidValueError(
            f"the storage option cache_dir: others may change what is in {path}: it must be yours, and of mode 0700"
        )


def _blocks(start: int, end: int, size: int) -> Iterable[tuple[int, int]]:
    """The blocks of a file of that size that have bytes from `start` to `end`, and how many each has."""
    for block in range(start // BLOCK, -(-end // BLOCK)):
        yield block, min(BLOCK, size - block * BLOCK)


def _blocks_of(part: Range, data: bytes) -> Iterable[tuple[int, memoryview]]:
    """The blocks that a range is of, which begins with one."""
    for at in range(0, len(data), BLOCK):
        yield (part.offset + at) // BLOCK, memoryview(data)[at : at + BLOCK]


def _joined(part: Range, here: Mapping[tuple[Hashable, int], memoryview]) -> bytes:
    """A range's bytes, of the blocks that they are in."""
    first = part.offset // BLOCK
    blocks = range(first, -(-(part.offset + part.n) // BLOCK))
    data = b"".join(here[part.file, block] for block in blocks)
    at = part.offset - first * BLOCK
    return data[at : at + part.n]


def _digest(key: bytes, data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=_DIGEST).digest()


def _room(n: int) -> int:
    return -(-n // _PAGE) * _PAGE

"""A fragment on its way to a bucket: spooled here, put there by its commit (docs/design.md 6.12)."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final, Protocol

from tilekv.clock import seconds
from tilekv.kvcore.base.file import File
from tilekv.names import FRAGMENT_METADATA, STAGED, FragmentName
from tilekv.storage.objectclient import LARGE, Client
from tilekv.storage.objectlayout import ALIVE, CHOOSING, PENDING
from tilekv.storage.process import process_name
from tilekv.storage.protocol import Offer, check_component

if TYPE_CHECKING:
    from typing_extensions import Buffer

SPOOLED: Final = 8 << 20  # bytes of a file in memory; more go to a temporary file
# What is left of a write that was broken off goes after a day: one that took half of that does not commit any more.
UPLOAD_S: Final = 12 * 3600
TOGETHER: Final = (
    1 << 20
)  # bytes that go up in less time than it takes until a draft counts as asleep
RENEW_S: Final = 15  # one whose upload may take longer shows that it is alive so often


class Home(Protocol):
    """What a draft needs of its storage."""

    client: Client
    data: str  # prefixes of keys
    root: str
    aside: str

    def look_for(self, draft: str, identity: str | None) -> Offer | None:
        """What is there now; None when the mark of a draft is not, or the store has not this id any more."""

    def taken(self, name: str) -> bool:
        """Whether there is something of a name that no fragment has."""

    def committed(self, name: str, files: dict[str, File], staged: bool) -> None:
        """Told what was put there."""


class ObjectDraft:
    """A Draft of an ObjectStorage.

    One that is no output of a merge has a mark in the bucket while its time is chosen: see `Storage.settled`.
    """

    def __init__(self, place: Home, identity: str | None, staged: bool) -> None:
        self._place = place
        self._identity = identity
        self._staged = staged
        self._files: dict[str, ObjectWriter] | None = {}  # None once it is committed or abandoned
        self._token = ""
        self._marked = False
        self._name = ""  # under which its data was put

    def create(self, file: str) -> ObjectWriter:
        """Begin a file."""
        files = self._open()
        if check_component(file) in files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file)
        if file == FRAGMENT_METADATA and not self._staged:
            self._mark()
        files[file] = ObjectWriter()
        return files[file]

    def discard(self, file: str) -> None:
        """Forget a file."""
        writer = self._open().pop(check_component(file), None)
        if writer is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
        writer.free()

    def sync(self, *, names: bool = True) -> None:
        """Do nothing: what a server has taken is durable."""
        self._open()

    def look(self) -> Offer:
        """Put the mark, then look."""
        self._open()
        if not self._marked:
            self._mark()
        return self._look("")

    def offer(self, name: str, metadata: bytes) -> Offer:
        """Put the data, the mark, and the metadata aside; then look."""
        files = self._open()
        check_component(name)
        self._remove_data()
        client, self._name = self._place.client, name
        data = [
            (f"{self._place.data}{name}/{f}", w) for f, w in files.items() if f != FRAGMENT_METADATA
        ]
        begun = seconds()
        jobs: list[Callable[[], None]] = [partial(w.put, client, key) for key, w in data]
        if not self._marked:
            jobs.append(self._mark)
        self._token = self._token or new_token()
        jobs.append(partial(client.put, self._mark_key() + PENDING, metadata))
        with _Alive(self._place, self._token, sum(writer.size for _, writer in data)):
            client.together(*jobs)
        if seconds() - begun > UPLOAD_S:
            raise OSError(
                errno.ETIMEDOUT, "the upload took so long that a vacuum may have removed it", name
            )
        there = self._look(name)
        if metadata:
            self._keep(metadata)
        return there

    def _look(self, name: str) -> Offer:
        there = self._place.look_for(self._token, self._identity)
        if there is None:
            with suppress(OSError):
                self._remove_data()
            raise FileNotFoundError(
                errno.ENOENT, "the draft has vanished: it slept, or the store was replaced", name
            )
        return there

    def commit(self, name: str) -> None:
        """Show what was offered, unless somebody has found that this draft sleeps.

        They delete the mark first and the pending metadata then. So a draft that has seen its mark after it has put that, copies
        it before it is deleted, or finds nothing to copy.
        """
        files = self._open()
        check_component(name)
        place, client = self._place, self._place.client
        if FragmentName.parse(name) is None and place.taken(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        # Of a folder without one an empty object says that it is there.
        metadata = files[FRAGMENT_METADATA].bytes() if FRAGMENT_METADATA in files else b""
        if self._staged:
            self._name = name
            data = [(f, w) for f, w in files.items() if f != FRAGMENT_METADATA]
            client.together(*(partial(w.put, client, f"{place.data}{name}/{f}") for f, w in data))
            client.put(f"{place.aside}{STAGED}/{name}/{FRAGMENT_METADATA}", metadata)
        else:
            if self._name != name:
                self.offer(name, metadata)
            pending = self._mark_key() + PENDING
            client.copy(pending, f"{place.root}{name}/{FRAGMENT_METADATA}")
            with suppress(OSError):  # they count for a minute only
                client.delete([self._mark_key(), pending, self._mark_key() + ALIVE])
            self._token = ""
        kept = {
            file: writer.file()
            for file, writer in files.items()
            if file != FRAGMENT_METADATA or metadata
        }
        self._files = None
        place.committed(name, kept, self._staged)

    def _keep(self, metadata: bytes) -> None:
        """What was offered is a file of the draft."""
        files = self._open()
        if (old := files.pop(FRAGMENT_METADATA, None)) is not None:
            old.free()
        files[FRAGMENT_METADATA] = ObjectWriter()
        files[FRAGMENT_METADATA].write(metadata)

    def _remove_data(self) -> None:
        """Delete what was put under a name that it will not have."""
        if self._name:
            prefix, files = f"{self._place.data}{self._name}/", self._files or {}
            self._place.client.delete(
                [prefix + file for file in files if file != FRAGMENT_METADATA]
            )
            self._name = ""

    def abandon(self) -> None:
        """Forget it; what was put is no part of the store, and goes with a later vacuum."""
        files, self._files = self._files, None
        for writer in (files or {}).values():
            writer.free()
        token, self._token = self._token, ""
        if token:
            key = f"{self._place.aside}{CHOOSING}/{token}"
            with suppress(OSError):
                self._place.client.delete([key, key + PENDING, key + ALIVE])

    # --- the mark ---

    def _mark(self) -> None:
        self._token = self._token or new_token()
        self._place.client.put(self._mark_key(), b"")
        self._marked = True

    def _mark_key(self) -> str:
        return f"{self._place.aside}{CHOOSING}/{self._token}"

    def _open(self) -> dict[str, ObjectWriter]:
        if self._files is None:
            raise FileNotFoundError(errno.ENOENT, "the draft was committed or abandoned")
        return self._files


class ObjectWriter:
    """A FileWriter of an ObjectDraft: memory, and a temporary file when that is too much."""

    def __init__(self) -> None:
        self._spool: IO[bytes] = SpooledTemporaryFile(SPOOLED)  # noqa: SIM115 - freed by the draft
        self._closed = False
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        self._check_open()
        self.size += self._spool.write(memoryview(data).cast("B"))

    def replace_start(self, data: bytes) -> None:
        """Put `data` in the place of the first bytes."""
        self._check_open()
        self._spool.seek(0)
        self._spool.write(data)
        self._spool.seek(self.size)

    def close(self) -> None:
        """End the file."""
        self._closed = True

    def bytes(self) -> bytes:
        """All of it."""
        self._spool.seek(0)
        data = self._spool.read()
        self._spool.seek(self.size)
        return data

    def put(self, client: Client, key: str) -> None:
        """Put it there."""
        if self.size > LARGE:
            client.put_file(key, self._spool)
        else:
            client.put(key, self.bytes())

    def file(self) -> File:
        """What a reader needs of it; it ends here."""
        try:
            if self.size > SPOOLED:
                self._spool.flush()
                return mapped(self._spool, self.size)
            return File.memory(self.bytes())
        finally:
            self.free()

    def free(self) -> None:
        """Let go of it."""
        self._closed = True
        self._spool.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the file is closed")


def mapped(file: IO[bytes], size: int) -> File:
    """A temporary file, which may be closed then: its map keeps it."""
    return File.open(file.fileno(), size, b"", b"", True, False)


def new_token() -> str:
    """What a draft's mark is called: it tells the process."""
    owner = process_name()
    return f"{uuid.uuid4().hex}{'-' if owner else ''}{owner}"


class _Alive:
    """While an upload takes long, a sign of life beside the draft's mark."""

    def __init__(self, place: Home, token: str, size: int) -> None:
        self._place = place
        self._key = f"{place.aside}{CHOOSING}/{token}{ALIVE}" if size > TOGETHER else ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._key:
            thread = threading.Thread(target=self._renew, name="tilekv upload", daemon=True)
            with suppress(RuntimeError):  # at the interpreter's end
                thread.start()
                self._thread = thread

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(OSError):
                self._place.client.put(self._key, b"")

"""How a handle flushes: what was written is frozen and becomes a fragment, while others go on writing (docs/design.md 4.10)."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from tilekv.commit import StreamedCell, write_fragment
from tilekv.engine import Engine
from tilekv.errors import NotDurableError, ReadOnlyError, TileKVError
from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.handle import Handle
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.write.memtable import Buffer
from tilekv.kvcore.write.sorted_buffer import sort_buffer
from tilekv.names import FragmentName
from tilekv.workers import Workers


class Flusher(Handle):
    """A handle that flushes: `flush` in its caller's thread, and behind who writes when the buffer is full.

    The thread behind the writers lives for one flush. Whoever holds the lock flushes, so it does not matter who comes first: the
    thread, or a `flush` that finds frozen what the thread was to write.
    """

    _uri: str
    _engine: Engine
    _attempt: _Attempt | None = None
    _unsynced = False  # what is visible may not be durable
    _thread: threading.Thread | None = None  # behind the writers

    def flush(self) -> None:
        """Write what is buffered as one fragment; it is durable when this returns.

        Other threads write on meanwhile; what they write is for the next flush. Once others can see it, it has been flushed,
        whatever is raised: it is not written again.

        Raises
        ------
        OSError
            When writing fails: the buffer is kept, and flushing again is safe. Also when a flush that a full buffer had begun
            has failed since; what it was to write is still there, and flushing again writes it, as a fragment of its own.
        NotDurableError
            When it was flushed, and nothing is buffered any more, but the last sync failed: flush again, which syncs first.
        StoreReplacedError
            When another store has taken this one's place.
        """
        self._open_snapshot()  # first: in a forked child the lock may be held by a thread that is not there
        self._join()
        with self._lock:
            self._open_snapshot()
            if not self._writable:
                raise ReadOnlyError(
                    "this store is open for reading only: there is nothing to flush"
                )
            self._check_idle()
            self._raise_failure()
            # No context manager: a signal between its two halves would leave it busy.
            self._busy = True
            try:
                self._flush_all()
            finally:
                self._busy = False
        self._flushed()

    def _flushed(self) -> None:
        """After a flush of the handle, not of its end: nobody holds the lock."""

    def _check_idle(self) -> None:
        if self._busy:
            raise TileKVError("flush was called from within a flush of the same handle")

    def _raise_failure(self) -> None:
        """What a flush behind the writers met. Once: the next call goes on, with all that was kept."""
        failure = self._failure
        if failure is not None:
            self._failure = None
            try:
                raise failure
            finally:
                del failure  # it holds this frame

    def _put_streamed(self, cell: CellSource | StreamedCell) -> None:
        """Write one key as a fragment of its own, after all that was written before. Others write and flush meanwhile.

        Raises as `flush` does, and what the parts raise: nothing is there of it then.
        """
        known: list[str] = []
        shown: list[FragmentName] = []

        def choosing() -> None:
            # As a flush begins. From here on the lock is held until the fragment is there, or nothing is.
            self._join()
            stack.enter_context(self._lock)
            self._open_snapshot()
            self._check_idle()
            self._raise_failure()
            stack.callback(setattr, self, "_busy", False)
            self._busy = True
            self._flush_all()
            self._engine.check_identity()
            known.extend(self._open_snapshot().names)

        def showing(name: FragmentName) -> None:
            shown.append(name)
            self._unsynced = True
            self._attempt = _Attempt(name, None)

        self._open_snapshot()
        self._engine.check_identity()
        with ExitStack() as stack, Workers(self._engine.config.usable_threads) as workers:
            engine = self._engine
            try:
                write_fragment(
                    engine.storage,
                    engine.layout,
                    engine.opener.codecs,
                    [cell],
                    workers,
                    known=known,
                    choosing=choosing,
                    showing=showing,
                )
                self._unsynced = False
                self._settle(True)
            except BaseException as error:
                if not shown:
                    raise
                with suppress(Exception):  # as in _write_frozen()
                    self._settle(not self._unsynced or isinstance(error, NotDurableError))
                appeared = str(shown[-1]) in self._open_snapshot().names
                if not appeared or not isinstance(error, (OSError, MemoryError)):
                    raise
                if isinstance(error, NotDurableError):
                    raise
                if self._unsynced:
                    raise NotDurableError.of(error, self._uri) from error
        self._flushed()

    # --- behind the writers ---

    def _flush_behind(self) -> None:
        """Freeze the full buffer and have a thread write it, unless a flush is under way: the buffer may fill once more then.
        What a flush that failed has left is written first."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._busy or self._closing or self._snapshot is None:
                return
            if self._frozen is not None and not self._failed:
                return  # who froze it will have the lock next
            self._failed = False
            if self._frozen is None and not self._freeze():
                return
            thread = threading.Thread(target=_flush_frozen, args=(self,), name="tilekv flush")
            self._thread = thread
            _behind[thread] = self._lock
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # at the interpreter's end there are none any more
                self._thread = None
                del _behind[thread]
                self._flush_here()
        finally:
            self._lock.release()

    def _flush_here(self) -> None:
        """What is frozen, in this thread. The caller holds the lock."""
        self._busy = True
        try:
            self._write_frozen()
        finally:
            self._busy = False

    def _before_write(self) -> None:
        """Raise what a flush has met, wait for a close, or make room where both buffers are full: nothing was taken yet."""
        with self._lock:
            self._raise_failure()
            if self._busy:
                raise ReadOnlyError("a write from within a flush or close of the same handle")
            if self._frozen is not None and self._snapshot is not None:
                self._flush_here()

    def _join(self) -> None:
        """Until the thread behind the writers has ended. Not from within a flush: it may be waiting for that one."""
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self._lock._is_owned():  # type: ignore[attr-defined]
            return
        if thread.is_alive():  # not one whose start was interrupted
            thread.join()
        self._thread = None

    # --- one flush; the caller holds the lock and has set `_busy` ---

    def _flush_all(self) -> None:
        """All that was written before: what an earlier flush has left first, as a fragment of its own."""
        self._write_frozen()
        if self._freeze():
            self._write_frozen()

    def _write_frozen(self) -> None:
        self._settle(False)
        if self._unsynced:
            self._engine.storage.sync()
            self._unsynced = False
        self._failed = False
        frozen = self._frozen
        if frozen is None:
            return

        def showing(name: FragmentName) -> None:
            self._unsynced = True
            self._attempt = _Attempt(name, frozen)

        try:
            with Workers(self._engine.config.usable_threads) as workers:
                source = sort_buffer(frozen, workers)
                self._engine.flush(source, self._open_snapshot(), workers, showing)
            self._unsynced = False
            self._settle(True)
        except BaseException as error:
            with suppress(Exception):  # then nobody knows yet: the next flush looks again
                self._settle(not self._unsynced or isinstance(error, NotDurableError))
            self._failed = self._frozen is frozen
            if self._failed or not isinstance(error, (OSError, MemoryError)):
                raise
            # It has been flushed: all that may be wanting is that it is durable.
            if isinstance(error, NotDurableError):
                raise
            if self._unsynced:
                raise NotDurableError.of(error, self._uri) from error

    def _settle(self, appeared: bool) -> None:
        """Go on from an attempt to flush, without what it has written if that has `appeared` or, where nobody knows, is found."""
        attempt = self._attempt
        if attempt is not None and (attempt.buffer is None or attempt.buffer is self._frozen):
            if appeared or self._engine.has_appeared(attempt.name):
                self._install(self._with_flushed(attempt.name), attempt.buffer is not None)
            else:
                self._unsynced = False
        self._attempt = None

    def _with_flushed(self, name: FragmentName) -> Snapshot:
        """What the handle sees from now on: a fragment more."""
        return self._engine.in_front(self._open_snapshot(), name)


class _Attempt(NamedTuple):
    """A fragment that may be there: a flush was about to show it, and was interrupted or told of an error."""

    name: FragmentName
    buffer: Buffer | None  # frozen; the fragment holds all of it. None: of a stream


def _flush_frozen(store: Flusher) -> None:
    """What the thread behind the writers does. Somebody else may have flushed before it had the lock, or closed."""
    try:
        with store._lock:
            try:
                if store._snapshot is not None:
                    store._flush_here()
            except BaseException as error:  # noqa: BLE001 - the next call raises it
                store._failure = error
        store._flushed()
    finally:
        _behind.pop(threading.current_thread(), None)


# The threads behind writers, and the locks that they may wait for.
_behind: dict[threading.Thread, Any] = {}


def _join_before_fork() -> None:
    """A child has the forking thread alone: what others hold then is held there for ever."""
    for thread, lock in list(_behind.items()):
        if not lock._is_owned() and thread.is_alive():
            thread.join()


os.register_at_fork(before=_join_before_fork, after_in_child=_behind.clear)

"""What a server does behind its clients: it flushes, merges, follows what others write, and keeps within a bound of bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from tilekv import consolidation, vacuuming
from tilekv.culling import CULL_S, next_to_expire, stored_bytes
from tilekv.errors import StoreBusyError, StoreReplacedError, TileKVError
from tilekv.keeper import MANY_VISIBLE, WAIT_S
from tilekv.kvcore.format.tile import CellSource
from tilekv.maintenance import Maintenance
from tilekv.serve.database import Database
from tilekv.serve.options import Options
from tilekv.tiers import FAN
from tilekv.upkeeping import Upkeep as StoreUpkeep

EVERY_S: Final = 1.0  # of everysec
LOOK_S: Final = 0.05  # between two looks whether a flush is due
SELDOM_S: Final = 900.0  # of no: also when the buffer is full
WAITING_S: Final = (
    2.0  # what was written so long ago and is not flushed stops what else is to be written
)
FAILURES: Final = 2  # flushes in a row that fail before writes are refused
MERGE_S: Final = 1.0  # between two looks at what there is to merge
LONGEST_PAUSE_S: Final = 60.0  # after upkeep upon upkeep has failed

log = logging.getLogger("tilekv.serve")


class Owner(Protocol):
    """Whose upkeep it is: a `Server`."""

    options: Options

    def all_databases(self) -> list[Database]:
        """Those that are open."""

    def soon(self, call: Callable[[], object]) -> None:
        """Have the loop call something."""

    def unstall(self) -> None:
        """See whether writes have to wait."""


class Upkeep:
    """The two threads behind a server: one flushes, the other merges."""

    def __init__(self, server: Owner) -> None:
        self.server = server
        self.saved_at = time.time()
        self.flush_seconds = 0.0
        self.flushes = 0
        self.flushing = False
        self._flushing_since = 0.0
        self.failing = 0
        self.failure = ""
        self.culled = 0
        self._culled_at = time.monotonic()
        self._asked = threading.Event()
        self._merge_asked = threading.Event()
        self._merged = threading.Event()
        self._stop = threading.Event()
        self._flush_lock = threading.Lock()
        self._merge_lock = threading.Lock()
        self._upkeeps: dict[int, StoreUpkeep] = {}
        self._left: dict[int, int] = {}
        self._since: dict[int, float] = {}  # what is being flushed was written since
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        todo: list[Callable[[], None]] = [self._merge_often]
        if not self.server.options.readonly:
            todo.append(self._flush_often)
        for run in todo:
            thread = threading.Thread(target=run, name=f"tilekv serve{run.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Withdraw the merge under way, and end both threads."""
        self._stop.set()
        self._asked.set()
        self._merge_asked.set()
        for thread in self._threads:
            thread.join()

    # --- flushing ---

    def flush_soon(self) -> None:
        """Have what was written flushed, and do not wait."""
        self._asked.set()

    def flush_all(self) -> None:
        """Flush what was written to all databases. Raises what the first that fails has met."""
        failed: BaseException | None = None
        for database in self.server.all_databases():
            if not database.store._unflushed():
                continue
            try:
                self.flush(database)
            except (TileKVError, OSError, MemoryError) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        self.saved_at = time.time()

    def flush(self, database: Database) -> None:
        """Flush one; when that fails writes are refused from then on, until it does not."""
        with self._flush_lock:
            since = database.dirty_since
            if since:
                self._since[database.number] = since
            database.dirty_since = 0.0
            begun = self._flushing_since = time.monotonic()
            self.flushing = True
            try:
                database.store.flush()
            except BaseException as error:
                database.dirty_since = since or begun
                self._failed(database, error)
                raise
            finally:
                self.flushing = False
                self._since.pop(database.number, None)
            self.flush_seconds = time.monotonic() - begun
            self.flushes += 1
            self.saved_at = time.time()
            if database.refusal is not None:
                log.warning("%s: flushing again: writes are taken", database.store.uri)
            database.refusal = None
            self.failing = 0
            self.failure = ""
        self._flushed(database)

    def _flushed(self, database: Database) -> None:
        """Have it merged when there is enough; where merges do not keep up, whoever flushes waits a moment."""
        visible = len(database.store._open_snapshot().names)
        if visible >= self._left.get(database.number, 0) + FAN:
            self._merged.clear()
            self._merge_asked.set()
            if visible > MANY_VISIBLE and not self._stop.is_set():
                self._merged.wait(WAIT_S)

    def _failed(self, database: Database, error: BaseException) -> None:
        self.failing += 1
        self.failure = f"{type(error).__name__}: {error}".replace("\n", " ")
        log.warning("%s: a flush has failed: %s", database.store.uri, error)
        now = isinstance(error, StoreReplacedError) or self.server.options.appendfsync == "always"
        if now or self.failing >= FAILURES:
            database.refusal = (
                "MISCONF what is written cannot be flushed to disk, and writes are refused until it can be. "
                f"The error is: {self.failure}"
            ).encode()
            self.server.soon(self.server.unstall)

    def _flush_often(self) -> None:
        """The thread that flushes."""
        while not self._stop.is_set():
            asked = self._asked.wait(LOOK_S)
            self._asked.clear()
            self.flush_due(time.monotonic(), asked)

    def flush_due(self, now: float, asked: bool = False) -> None:
        """Flush what was written long enough before a moment of the monotonic clock, or all of it."""
        every = SELDOM_S if self.server.options.appendfsync == "no" else EVERY_S
        for database in self.server.all_databases():
            since = database.dirty_since
            pause = min(every * 2**self.failing, LONGEST_PAUSE_S) if self.failing else every
            if not since or (now - since < pause and not asked) or self._stop.is_set():
                continue
            with suppress(TileKVError, OSError, MemoryError):
                self.flush(database)
            self.server.soon(self.server.unstall)

    def waits(self, database: Database) -> bool:
        """Whether writes have to wait: what was written before is not flushed for too long."""
        if database.refusal is not None:
            return False
        store = database.store
        if store._frozen is not None and store._buffer.size > store._budget:
            return True
        if self.server.options.appendfsync == "no":
            return False
        since = self._since.get(database.number) or database.dirty_since
        return bool(since) and time.monotonic() - since > WAITING_S + EVERY_S

    def flushing_seconds(self) -> int:
        """For how long a flush has been under way; -1: none is."""
        return int(time.monotonic() - self._flushing_since) if self.flushing else -1

    def may_be_lost_ms(self) -> int:
        """How much of what was written last the death of the process may lose: a second and twice the last flush."""
        kind = self.server.options.appendfsync
        if kind == "always":
            return 0
        seconds = SELDOM_S if kind == "no" else EVERY_S
        return round(1000 * (seconds + 2 * self.flush_seconds))

    # --- merging ---

    def _merge_often(self) -> None:
        """The thread that merges, and follows what others do."""
        pause = MERGE_S
        while True:
            self._merge_asked.wait(pause)
            self._merge_asked.clear()
            if self._stop.is_set():
                return
            try:
                failures = self.merge_due()
            except _Stopped:
                return
            pause = min(MERGE_S * 2**failures, LONGEST_PAUSE_S)
            self._merged.set()

    def merge_due(self) -> int:
        """Follow what others do, and merge what pays; how many databases have failed. _Stopped when the server ends."""
        failures = 0
        for database in self.server.all_databases():
            try:
                if database.has_changed():
                    database.refresh()
                if not self.server.options.readonly:
                    self._merge(database)
                    if (
                        self.server.options.max_bytes
                        and time.monotonic() - self._culled_at > CULL_S
                    ):
                        self._culled_at = time.monotonic()
                        self._cull(database)
            except StoreBusyError as error:
                log.info("%s: %s", database.store.uri, error)
            except (TileKVError, OSError, MemoryError) as error:
                self.failure = f"{type(error).__name__}: {error}".replace("\n", " ")
                log.warning(
                    "%s: upkeep has failed, and is tried again: %s", database.store.uri, error
                )
                failures += 1
        return failures

    def _check(self, *progress: object) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _merge(self, database: Database) -> None:
        """Merge what pays, once there are enough fragments more."""
        number, store = database.number, database.store
        names = store._open_snapshot().names
        if len(names) < self._left.get(number, 0) + FAN:
            return
        with self._merge_lock:
            if number not in self._upkeeps:
                self._upkeeps[number] = StoreUpkeep(store._engine, behind=True)
            upkeep = self._upkeeps[number]
            database.counter.move()
            done = upkeep.run(dict(store._open_snapshot().opened), self._check, self._check)
            self._left[number] = upkeep.seen
            if done.merges:
                database.refresh()
                database.counter.move()
                log.info("%s: %s", store.uri, done)

    def set_history(self, database: Database) -> None:
        """Have merges leave what they supersede for as long as the server's history says."""
        text = self.server.options.history
        if text == "store":
            return
        history = vacuuming.history_ms("all" if text == "all" else int(text))
        maintenance = Maintenance(database.store._engine)
        maintenance.change(
            lambda record: None if record.history == history else record.keeping(history)
        )

    def clear(self, database: Database, cells: CellSource | None = None, n: int = 1) -> None:
        """Delete every key, at once, however many: one delete takes the place of all fragments, or `n` cells do."""
        self.flush(database)
        with self._merge_lock:
            store = database.store
            with database.counter.changing():
                consolidation.clear(store._engine, cells or store._sorted_delete(""), n)
                database.refresh()
            database.writes += 1
            self._left.pop(database.number, None)

    def stored_bytes(self) -> int:
        """Bytes of all fragments that are visible."""
        return sum(stored_bytes(database.store) for database in self.server.all_databases())

    # --- a bound of bytes ---

    def _cull(self, database: Database) -> None:
        """Delete what would expire next, until what is left fits."""
        store, most = database.store, self.server.options.max_bytes
        gone = next_to_expire(store, most, self._check)
        if gone:
            store.delete_many(gone)
            database.written()
            for key in gone:
                database.touched(key if isinstance(key, bytes) else str(key).encode())
            self.culled += len(gone)
            self.flush(database)
            with self._merge_lock:
                consolidation.consolidate(store._engine)
                database.refresh()
            log.info(
                "%s: %d entries that would have expired next are deleted", store.uri, len(gone)
            )
        elif database.expires and stored_bytes(store) > most and store:
            log.warning("%s: %d bytes, and nothing in it expires", store.uri, stored_bytes(store))


class _Stopped(Exception):
    """The server ends."""

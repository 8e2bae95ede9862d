"""The thread in which a handle that flushes keeps its store (docs/design.md 6.9)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tilekv.engine import Engine
from tilekv.errors import StoreBusyError
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.tiers import FAN
from tilekv.upkeeping import Upkeep

MANY_VISIBLE: Final = 32  # fragments; with more a flush waits for the merge under way
MOST_VISIBLE: Final = 40  # that a store has whose one writer keeps it
WAIT_S: Final = 1.0
LOOK_S: Final = 0.02  # between two looks at what others merge
FIRST_PAUSE_S: Final = 1.0  # after an upkeep that failed; it doubles
LONGEST_PAUSE_S: Final = 3600.0


class Handle(Protocol):
    """What is kept: a `Store`."""

    _uri: str
    _engine: Engine

    @property
    def _lock(self) -> Any: ...

    @property
    def _snapshot(self) -> Snapshot | None: ...

    def _follow(self) -> None:
        """Move the snapshot to the newest state."""


class _Stopped(Exception):
    """The handle is being closed, or the program ends."""


# Is given the handle, and what it calls now and then: that raises when it has to end.
Work = Callable[[Any, Callable[..., None]], object]


@dataclass
class Chore:
    """What is done beside merges.

    Attributes
    ----------
    every : float
        Seconds between two times.
    work : callable
    begun : float
        When it was done last, by the monotonic clock.
    """

    every: float
    work: Work
    begun: float


class Keeper:
    """Keeps the store of one handle, behind who writes. What goes wrong never reaches them: it is logged, and tried again later.

    Attributes
    ----------
    failure : BaseException or None
        What the last upkeep has met.
    chores : list of Chore
        What else is done after merges, of who has `also` asked for it.
    """

    def __init__(self, chores: Iterable[Chore] = ()) -> None:
        self.failure: Exception | None = None
        self.chores = list(chores)
        self._upkeep: Upkeep | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._left = 0  # visible fragments after the last upkeep
        self._shared = False  # whether others were merging some of them
        self._pause = FIRST_PAUSE_S
        self._not_before = 0.0

    def also(self, every: float, work: Work) -> None:
        """Have something else done after a flush, where upkeep is, if the last time was so many seconds ago or this begins."""
        self.chores.append(Chore(every, work, time.monotonic()))

    def flushed(self, store: Handle) -> None:
        """After a flush: begin an upkeep if there may be something to do, and wait a moment where merges do not keep up."""
        snapshot = store._snapshot
        if snapshot is None or self._stopping or self._thread is threading.current_thread():
            return
        visible = len(snapshot.names)
        many = visible > MANY_VISIBLE
        more = visible >= self._left + FAN or (many and self._left <= MANY_VISIBLE)
        if not more and not (many and self._shared) and not self._due():
            return
        thread = self._thread
        if thread is not None and thread.is_alive():
            if many:
                thread.join(WAIT_S)
            return
        if time.monotonic() < self._not_before:
            return
        _watch_forks()
        thread = threading.Thread(target=self._keep, args=(store,), name="tilekv upkeep")
        self._thread = thread
        _keeping[thread] = self, store._lock
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # at the interpreter's end there are none any more
            self._thread = None
            del _keeping[thread]
            return
        if many:  # several write: none of them may run away from who merges
            thread.join(WAIT_S)

    def stop(self) -> None:
        """Withdraw the merge under way, and wait until its thread has ended. No other is begun until `go_on`."""
        self._stopping = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join()
        self._thread = None

    def go_on(self) -> None:
        """After `stop`."""
        self._stopping = False

    def _keep(self, store: Handle) -> None:
        try:
            snapshot = store._snapshot
            if self._upkeep is None:
                self._upkeep = Upkeep(store._engine, behind=True)
            waiting = time.monotonic() + WAIT_S
            while snapshot is not None and not self._stopping:
                done = self._upkeep.run(dict(snapshot.opened), self._check, self._check)
                if done.merges or done.removed:
                    _log("info", "%s: %s", store._uri, done)
                self._left, self._shared = self._upkeep.seen, self._upkeep.shared
                if done.merges or self._left < len(snapshot.names):  # others have merged, too
                    store._follow()
                self.failure, self._pause = None, FIRST_PAUSE_S
                snapshot = store._snapshot
                if snapshot is None:
                    break
                if len(snapshot.names) >= self._left + FAN:
                    continue  # many were flushed meanwhile
                if not self._shared or self._left <= MANY_VISIBLE or time.monotonic() > waiting:
                    break
                time.sleep(LOOK_S)  # who flushes waits for what others merge, too
            for chore in self._due():
                chore.begun = time.monotonic()
                chore.work(store, self._check)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - never raised where somebody flushes
            self.failure = error
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
            # That others are at it is no reason to worry anybody.
            level = "info" if isinstance(error, StoreBusyError) else "warning"
            _log(level, "%s: upkeep failed, and will be tried again: %s", store._uri, error)
        finally:
            _keeping.pop(threading.current_thread(), None)

    def _due(self) -> list[Chore]:
        now = time.monotonic()
        return [chore for chore in self.chores if now - chore.begun >= chore.every]

    def _check(self, *progress: object) -> None:
        if self._stopping or not threading.main_thread().is_alive():
            raise _Stopped


def _log(level: str, *what: Any) -> None:
    import logging

    getattr(logging.getLogger("tilekv"), level)(*what)


# The threads that keep stores.
_keeping: dict[threading.Thread, tuple[Keeper, Any]] = {}
_watched: list[bool] = []  # whether forks are


def _stop_before_fork() -> None:
    """A child has the forking thread alone: what others hold then is held there for ever."""
    found = list(_keeping.items())
    for _, (keeper, _) in found:
        keeper._stopping = True
    for thread, (keeper, lock) in found:
        # Not one that may wait for who forks.
        if thread is not threading.current_thread() and not lock._is_owned():
            thread.join()
        keeper._stopping = False


def _watch_forks() -> None:
    """Once there is a thread. What is registered last is called first, and logging holds its lock over a fork."""
    import logging  # noqa: F401

    if not _watched:
        _watched.append(True)
        os.register_at_fork(before=_stop_before_fork, after_in_child=_keeping.clear)

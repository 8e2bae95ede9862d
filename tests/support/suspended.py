"""A process that is suspended before one call to the storage after another, and what others do meanwhile."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import tilekv
from faulty import Call, Faults, meet


class Suspension:
    """Suspends this process, the `n`th time before the `n`th call that an open handle makes to its storage.

    Parameters
    ----------
    passed_over : collection of str
        Calls that do not count.
    """

    def __init__(self, db: tilekv.Store, passed_over: Collection[str] = ()) -> None:
        self._db = db
        self._passed_over = passed_over
        self._left = 0

    def turns(self) -> Iterator[int]:
        """1, 2 and so on: the call of each turn that the process is suspended before. The last turn has fewer calls."""
        for turn in itertools.count(1):
            self._left = turn
            yield turn
            if self._left > 0:
                return

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Calls that are made meanwhile count."""
        sound = self._db._engine.storage
        meet(self._db, Faults(self._suspend))
        try:
            yield
        finally:
            self._db._engine.storage = sound

    def _suspend(self, call: Call) -> None:
        if call.name in self._passed_over:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def suspended(work: Callable[[], object]) -> Iterator[Iterator[int]]:
    """Have `work` done by a child process, which suspends itself again and again.

    The value counts from 1 how often it has: it gives a number once the child is suspended, and has it go on when it is asked
    for the next. The child is killed if the parent's work fails.
    """
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = False

    def suspensions() -> Iterator[int]:
        nonlocal ended
        for number in itertools.count(1):
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                ended = True
                assert os.waitstatus_to_exitcode(status) == 0
                return
            yield number
            os.kill(pid, signal.SIGCONT)

    try:
        yield suspensions()
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

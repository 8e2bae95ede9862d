"""The threads of one flush or merge."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
R = TypeVar("R")

# Results beyond those that are being made, of which the caller has one: what others go on with meanwhile. With 1 two threads took
# 8 % longer to flush 1,500,000 keys, with 4 as long as three did.
AHEAD: Final = 4


class Workers:
    """Up to `most` threads at work, which one flush or merge shares, its caller among them: a context manager, at whose end all
    others have ended, after an error or an interrupt too.

    Who waits for a result does what nobody has begun meanwhile, so no more threads want a core than `most`: one more, and the
    system would take the core from one that has the interpreter's lock. Each piece of work after the first starts a thread until
    there are enough; where none can be started, as while the interpreter ends, the caller does it all. What is under way when the
    context ends is finished, and what nobody has begun is left out: results are taken within.
    """

    def __init__(self, most: int) -> None:
        self.most: Final = most
        self._room = most - 1  # threads that may still be started
        self._begun = False
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        interrupt: BaseException | None = None
        for thread in self._threads:
            while thread.is_alive():
                try:
                    thread.join()
                except BaseException as raised:  # noqa: BLE001  it is raised when all have ended
                    interrupt = raised
        if interrupt is not None:
            raise interrupt

    def __del__(self) -> None:
        self._end()  # after an interrupt that came before anything else could

    def map_all(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`map` with all results under way."""
        if not self._room and not self._threads:
            return map(work, items)
        tasks = [self._begin(work, item) for item in items]
        return map(self._result, tasks)

    def map_in_order(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`map` with at most `most` + AHEAD results under way."""
        under_way: deque[_Task[R]] = deque()
        for item in items:
            under_way.append(self._begin(work, item))
            if len(under_way) == self.most + AHEAD or not (self._room or self._threads):
                yield self._result(under_way.popleft())
        while under_way:
            yield self._result(under_way.popleft())

    def _begin(self, work: Callable[[T], R], item: T) -> _Task[R]:
        task: _Task[R] = _Task(lambda: work(item))
        if self._room and self._begun:
            self._start()
        self._begun = True
        self._jobs.put(task.do)
        return task

    def _result(self, task: _Task[R]) -> R:
        """What comes of a task; while it does not, this thread does others."""
        with suppress(Empty):
            while not task.ended:
                self._jobs.get_nowait()()  # type: ignore[misc]  # None comes at the end
        return task.result()

    def _start(self) -> None:
        self._room -= 1
        thread = threading.Thread(target=_work, args=(self._jobs,), name="tilekv")
        self._threads.append(thread)  # first: an interrupt may come when it has been started
        try:
            if sys.is_finalizing():  # it would be waited for for ever
                raise RuntimeError
            thread.start()
        except (RuntimeError, MemoryError):
            self._threads.remove(thread)
            self._room = 0

    def _end(self) -> None:
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)
        self._room = 0


_Job = Callable[[], None]


class _Task(Generic[R]):
    """A call, and what comes of it, which is taken once."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._result: list[R] = []
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def do(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error
        finally:
            self._ended.release()

    @property
    def ended(self) -> bool:
        return not self._ended.locked()

    def result(self) -> R:
        self._ended.acquire()
        if self._error is None:
            return self._result.pop()
        try:
            raise self._error
        finally:
            self._error = None  # it holds the frames, and they this


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # with all that it holds, while the next is waited for

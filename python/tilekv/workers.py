"""What threads do, as far as they can be had."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def begun(pool: Executor, work: Callable[[T], R], item: T) -> Future[R]:
    """What a thread does, or, when none can be started, what is done already.

    None can when the interpreter is ending, which is when a handle that nobody closed is flushed. What submit() refuses so is in
    the queue all the same, and a thread that was started before may take it: it is done once, by whoever comes first.
    """
    once = threading.Lock()
    future: Future[R] = Future()

    def do() -> None:
        if not once.acquire(blocking=False) or not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work(item))
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    try:
        pool.submit(do)
    except RuntimeError:
        do()
    return future


def all_begun(pool: Executor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` with all results under way."""
    futures = [begun(pool, work, item) for item in items]
    return (future.result() for future in futures)

"""Work that an executor of concurrent.futures has done elsewhere: by processes, or by machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import suppress
from multiprocessing import get_context
from typing import Final, TypeVar

from tilekv.errors import WrongTypeError

WAIT_S: Final = 10.0

T = TypeVar("T")
R = TypeVar("R")


def checked_executor(executor: object) -> Executor | None:
    """WrongTypeError for what is none."""
    if executor is None or isinstance(executor, Executor):
        return executor
    raise WrongTypeError(
        f"executor is one of concurrent.futures, such as a ProcessPoolExecutor, not {type(executor).__name__}"
    )


def processes(count: int) -> Executor:
    """Processes of this machine that begin anew, with nothing of this one's threads; a context manager, at whose end they end."""
    return ProcessPoolExecutor(count, get_context("spawn"))


def run(
    executor: Executor | None,
    work: Callable[[T], R],
    tasks: Iterable[T],
    done: Callable[[R], object],
    *,
    here: Callable[[T], R],
    waiting: Callable[[], object] = lambda: None,
) -> None:
    """Have every task done, in any order.

    Parameters
    ----------
    executor : Executor, optional
        Without one this process does all of it.
    work : callable
        What others call; it and the tasks are pickled.
    done : callable
        Told each result, also those that come in after an error, before that is raised.
    here : callable
        What does a task in this process: without an executor, and where the process that had the task has died.
    waiting : callable, optional
        Called after every result, and every ten seconds.
    """
    futures: dict[Future[R], T] = {}
    left: list[T] = []
    try:
        for task in tasks:
            if executor is None:
                left.append(task)
                continue
            try:
                futures[executor.submit(work, task)] = task
            except BrokenExecutor:
                left.append(task)
        while futures:
            for future in wait(futures, WAIT_S, FIRST_COMPLETED).done:
                task = futures.pop(future)
                try:
                    done(future.result())
                except BrokenExecutor:
                    left.append(task)
            waiting()
        for task in left:
            done(here(task))
            waiting()
    except BaseException:
        for future in futures:
            future.cancel()
        for future in wait(futures).done:  # what is under way cannot be stopped
            with suppress(Exception):
                done(future.result())
        raise

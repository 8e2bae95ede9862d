"""tilekv.workers: what the threads of one operation do, in order, and that all have ended with it."""

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from tilekv.workers import AHEAD, Workers


def started(before: set[threading.Thread]) -> int:
    """How many threads run that did not run then. Those of other tests may end meanwhile."""
    return len({*threading.enumerate()} - before)


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    before = {*threading.enumerate()}
    yield
    assert started(before) == 0


def double(n: int) -> int:
    return 2 * n


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("name", ["map_all", "map_in_order"])
def test_results_come_in_order(most: int, name: str) -> None:
    pauses = [0.01, 0, 0.005, 0] * 4

    def work(n: int) -> int:
        time.sleep(pauses[n])
        return 2 * n

    with Workers(most) as workers:
        mapped: Callable[..., Iterator[int]] = getattr(workers, name)
        assert list(mapped(work, range(16))) == list(map(double, range(16)))
        assert list(mapped(double, [])) == []
        assert list(mapped(double, [5])) == [10]


def test_threads_are_started_for_work_only() -> None:
    before = {*threading.enumerate()}
    with Workers(4) as workers:
        assert started(before) == 0
        assert list(workers.map_all(double, [1])) == [2]
        assert started(before) == 0  # there is a caller
        assert list(workers.map_all(double, [1, 2])) == [2, 4]
        assert started(before) == 2
        assert list(workers.map_in_order(double, range(100))) == list(map(double, range(100)))
        assert started(before) == 3
    with Workers(1) as alone:
        me = threading.get_ident()
        assert set(alone.map_all(lambda _: threading.get_ident(), range(9))) == {me}
        assert set(alone.map_in_order(lambda _: threading.get_ident(), range(9))) == {me}


@pytest.mark.parametrize("name", ["map_all", "map_in_order"])
def test_the_caller_works_while_it_waits(name: str) -> None:
    """Two at work are the caller and one thread."""
    together = threading.Barrier(2)
    before = {*threading.enumerate()}

    def work(_: int) -> int:
        together.wait(60)
        return threading.get_ident()

    with Workers(2) as workers:
        mapped: Callable[..., Iterator[int]] = getattr(workers, name)
        assert set(mapped(work, range(2))) > {threading.get_ident()}
        assert started(before) == 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_results_are_under_way(most: int) -> None:
    """Whoever takes them slowly has no more than these in memory."""
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        while asked < 50:
            asked += 1
            yield asked

    with Workers(most) as workers:
        for taken, result in enumerate(workers.map_in_order(double, items()), 1):
            assert result == 2 * taken
            assert asked < taken + most + AHEAD


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("name", ["map_all", "map_in_order"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_is_raised_where_its_result_is_taken(
    most: int, name: str, error: type[BaseException]
) -> None:
    class Item:
        pass

    items = [Item() for _ in range(50)]
    done: list[Item] = []

    def work(item: Item) -> None:
        if item is items[2]:
            raise error("two")
        time.sleep(0.001)
        done.append(item)

    taken = 0
    with pytest.raises(error, match="two"), Workers(most) as workers:  # noqa: PT012
        for _ in getattr(workers, name)(work, items):
            taken += 1
    assert taken == 2
    assert len(done) < 50  # what nobody had begun is left out
    watched = weakref.ref(items[-1])
    done.clear()
    items.clear()
    del workers
    gc.collect()
    assert watched() is None


def test_an_interrupt_waits_for_what_is_under_way() -> None:
    """While it is waited for, another comes: it is raised when all have ended."""
    started = threading.Semaphore(0)
    ended: list[int] = []

    def work(n: int) -> None:
        started.release()
        time.sleep(0.05)
        ended.append(n)

    join = threading.Thread.join
    interrupts = 2

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        nonlocal interrupts
        if interrupts:
            interrupts -= 1
            raise KeyboardInterrupt
        join(thread, timeout)

    def two_under_way() -> None:
        with Workers(3) as workers:
            workers.map_all(work, [1, 2, 3])
            assert started.acquire(timeout=60)
            assert started.acquire(timeout=60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two_under_way()
    assert interrupts == 0
    assert len(ended) == 2


@pytest.mark.parametrize("most", [0, 1])
def test_without_threads_the_caller_works(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    begin = threading.Thread.start
    begun: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(begun) == most:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Workers(4) as workers:
        assert list(workers.map_all(double, range(9))) == list(map(double, range(9)))
        assert list(workers.map_in_order(double, range(9))) == list(map(double, range(9)))
    assert len(begun) == most


def test_none_is_started_while_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread cannot run then, and start() waits for it to."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    before = {*threading.enumerate()}
    with Workers(4) as workers:
        assert list(workers.map_all(double, range(9))) == list(map(double, range(9)))
        assert started(before) == 0

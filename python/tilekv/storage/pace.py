"""How many requests to a server are under way at once, and which of those that failed are made again (docs/design.md 6.12)."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from tilekv.clock import seconds

# What servers answer who ask too much: S3's SlowDown is a 503, Google's and Azure's are both.
_TOO_MUCH: Final = re.compile(r"status code: (503|429)\b")
# What is wrong with the request itself, and what a server does not do.
_LASTING: Final = re.compile(r"status code: 4(?!08|29)\d\d\b|partial")


class Width:
    """So many requests may be under way: half as many once the server says that it is asked too much, and then, for as many
    answers as there may be requests, one more. Any number of threads.

    A context manager: a request, which waits until there is room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = float(most)
        self._under_way = 0
        self._narrowed = 0.0  # when, in seconds
        self._changed = threading.Condition()

    @property
    def now(self) -> int:
        """Requests."""
        return int(self._now)

    def __enter__(self) -> float:
        with self._changed:
            while self._under_way >= self.now:
                self._changed.wait()
            self._under_way += 1
        return seconds()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def widen(self) -> None:
        """Told that a request was answered."""
        with self._changed:
            if self._now < self._most:
                self._now = min(self._now + 1 / self._now, self._most)
                self._changed.notify()

    def narrow(self, begun: float) -> None:
        """Told that a request was turned away that was begun then: those that were under way together count as one."""
        with self._changed:
            if begun >= self._narrowed:
                self._now = max(self._now / 2, 1.0)
                self._narrowed = seconds()


class Retries(NamedTuple):
    """How often, and for how many seconds, a request is made again, and the pauses between, which double."""

    most: int
    timeout: float
    first_pause: float
    longest_pause: float

    def pauses(self, begun: float) -> Iterator[float]:
        """Sleeps before each further try of a request that was begun then, and gives how long."""
        pause = self.first_pause
        for _ in range(self.most):
            if seconds() - begun > self.timeout:
                return
            slept = pause * random.uniform(0.5, 1)  # what failed together is not to come together
            time.sleep(slept)
            yield slept
            pause = min(2 * pause, self.longest_pause)


def is_too_much(error: BaseException) -> bool:
    """Whether a server says that it is asked too much."""
    return _TOO_MUCH.search(str(error)) is not None


def may_pass(error: BaseException | None) -> bool:
    """Whether what obstore raises may be gone when the request is made again."""
    from obstore.exceptions import GenericError

    return isinstance(error, GenericError) and _LASTING.search(str(error)) is None

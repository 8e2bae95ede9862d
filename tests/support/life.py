"""What tests of a store's life share: a clock they set, a storage that breaks where they want, and how a store reads."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv import Attr, Schema

SMALL = Schema([Attr("value", bytes)], capacity=4)


class Clock:
    """Stands for the module `time` where fragments get their timestamps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: int = 1_700_000_000_000) -> None:
        self.now = now  # ms
        monkeypatch.setattr("tilekv.commit.time", self)

    def time_ns(self) -> int:
        return self.now * 1_000_000

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def contents(path: Path, timestamp: Any = None, **config: Any) -> dict[Any, Any]:
    """What a fresh handle reads, the same in every way of reading; nothing of it is damaged."""
    config = {f"kv.{name}": value for name, value in config.items()}
    with tilekv.open(path, timestamp=timestamp, config=config) as db:
        found = dict(db.items())
        assert len(db) == len(found)
        assert db.get_many(list(found)) == list(found.values())
        assert all(db[key] == value for key, value in found.items())
        assert db.verify() == []
    return found


def folders(path: Path) -> set[str]:
    """The committed fragments, superseded ones too."""
    return {each.name for each in path.glob("__*_*_*/")}


def everything(path: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


def age(path: Path, days: float) -> None:
    """Set back the times of a file or folder and of all in it."""
    then = time.time() - days * 86400
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))


class Killed(BaseException):
    """The process is gone: nothing it would still have done is done."""


class Breaker:
    """Counts the calls of a storage, and does something at one of them.

    `kind`: "error" and "error after" raise an OSError before and after the call is done, "killed" and "killed after" let nothing
    more happen, and a callable is called before the call, which then goes on.
    """

    def __init__(self, storage: Any, at: int, kind: str | Callable[[], object]) -> None:
        self.storage = storage
        self.at = at
        self.kind = kind
        self.calls = 0
        self.dead = False

    @property
    def hit(self) -> bool:
        """Whether it came to that call."""
        return self.calls >= self.at

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.dead:
            raise Killed
        self.calls += 1
        if self.calls != self.at:
            return function(*arguments)
        if callable(self.kind):
            self.kind()
            return function(*arguments)
        if self.kind.endswith("after"):
            function(*arguments)
        self.dead = self.kind.startswith("killed")
        raise Killed if self.dead else OSError(errno.EIO, "the test's error")


class BreakingStorage:
    """A Storage whose calls, and those of what it makes, go through a Breaker."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    @property
    def uri(self) -> str:
        return self._breaker.storage.uri

    @contextmanager
    def lock(self) -> Iterator[bool]:
        # Not counted: the system drops the lock of who dies.
        with self._breaker.storage.lock() as held:
            yield held

    def draft(self) -> Any:
        return _Part(self._breaker, self._breaker(self._breaker.storage.draft))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._breaker.storage, name)
        return lambda *arguments: self._breaker(function, *arguments)


class _Part:
    """A Draft or a FileWriter."""

    def __init__(self, breaker: Breaker, inner: Any) -> None:
        self._breaker = breaker
        self._inner = inner

    def create(self, file: str) -> Any:
        return _Part(self._breaker, self._breaker(self._inner.create, file))

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        if not self._breaker.dead:
            self._inner.abandon()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._inner, name)
        return lambda *arguments: self._breaker(function, *arguments)


def break_at(db: tilekv.Store, at: int, kind: str | Callable[[], object]) -> Breaker:
    """Let a handle's consolidations and vacuums meet a Breaker; calls count from here."""
    breaker = Breaker(db._engine.storage, at, kind)
    db._engine.storage = BreakingStorage(breaker)
    return breaker


def every_call(make: Callable[[int], Breaker], step: int = 1) -> int:
    """Run `make` for call 1, 2, 3 (or every `step`th) until it does not come to that call; how many runs that were."""
    for at in range(1, 5000, step):
        if not make(at).hit:
            return at // step
    raise AssertionError("it never ends")

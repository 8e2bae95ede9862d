"""A Storage that fails where a test wants: errors before and after a call, half writes and reads, the end of the process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import pytest

import tilekv
from tilekv.kvcore.base.file import File
from tilekv.storage import RecordFile, Storage, open_storage


class Killed(BaseException):
    """The process is gone: nothing it would still have done is done."""


class Call(NamedTuple):
    """One call of a storage, or of a draft, build or file that came from it: `draft.commit`."""

    number: int  # from 1
    name: str


class Fault(NamedTuple):
    """What happens to a call.

    Attributes
    ----------
    code : int
        The errno of the OSError; 0: the process ends.
    when : str
        "before" nothing is done, "after" all of it, "half" of the bytes are written.
    error : type
        What is raised instead of an OSError.
    """

    code: int
    when: str = "before"
    error: type[BaseException] = OSError

    def __str__(self) -> str:
        other = "" if self.error is OSError else f" {self.error.__name__}"
        return f"{errno.errorcode.get(self.code, 'killed')}{other} {self.when}"


# A read that gives half of the bytes: no error, the file is shorter than it was.
SHORT_READ = Fault(0, "short")

READS = ("read", "open_file", "open_files", "record")
BEFORE = tuple(Fault(code) for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR))
AFTER = Fault(errno.EIO, "after")
KILLS = (Fault(0), Fault(0, "after"))


def faults_of(name: str) -> tuple[Fault, ...]:
    """Every fault that a call can meet."""
    if name.endswith(".abandon"):  # never raises
        return KILLS
    if name in READS:
        return (*BEFORE, AFTER, SHORT_READ, *KILLS)
    if name == "file.write":
        return (*BEFORE, AFTER, Fault(errno.ENOSPC, "half"), *KILLS, Fault(0, "half"))
    return (*BEFORE, AFTER, *KILLS)


class Faults:
    """Decides about every call of the storages that it wraps, and remembers them.

    Parameters
    ----------
    predicate : callable
        Given each Call before it is carried out: the Fault that it meets, or None. It may do anything else meanwhile.
    """

    def __init__(self, predicate: Callable[[Call], Fault | None] = lambda call: None) -> None:
        self.predicate = predicate
        self.calls: list[str] = []
        self.hit: Fault | None = None
        self.dead = False

    def storage(self, inner: Storage) -> Any:
        """The storage, with these faults."""
        return FaultyStorage(inner, self)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Carry out a call, or not."""
        if self.dead:
            raise Killed
        self.calls.append(name)
        fault = self.predicate(Call(len(self.calls), name))
        if fault is None:
            return function(*arguments, **options)
        self.hit = fault
        if fault == SHORT_READ:
            return _halved(function(*arguments, **options))
        if fault.when == "after":
            function(*arguments, **options)
        if fault.when == "half":
            function(memoryview(arguments[0]).cast("B")[: len(arguments[0]) // 2])
        self.dead = fault.code == 0
        if self.dead:
            raise Killed
        raise fault.error(fault.code, f"injected: {os.strerror(fault.code)}", name)


def _halved(found: bytes | File | RecordFile | Mapping[str, File] | None) -> Any:
    if found is None:
        return None
    if isinstance(found, RecordFile):
        return found._replace(data=_halved(found.data))
    if isinstance(found, bytes):
        return found[: len(found) // 2]
    if isinstance(found, File):
        return File.memory(found.read(0, found.size // 2))
    return {name: _halved(view) for name, view in found.items()}


class FaultyStorage:
    """A Storage whose calls go through Faults."""

    def __init__(self, inner: Storage, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    @property
    def uri(self) -> str:
        return self._inner.uri

    def draft(self, staged: bool = False) -> Any:
        return _Part("draft", self._faults.call("draft", self._inner.draft, staged), self._faults)

    def build(self, uri: str = "") -> Any:
        return _Part("build", self._faults.call("build", self._inner.build, uri), self._faults)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        # Let go of in any case: the system drops the lock of who dies.
        with self._faults.call("lock", self._inner.lock) as held:
            yield held

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._inner, name)
        return partial(self._faults.call, name, function)


class _Part:
    """A Draft, a Build or a FileWriter."""

    def __init__(self, kind: str, inner: Any, faults: Faults) -> None:
        self._kind = kind
        self._inner = inner
        self._faults = faults

    def create(self, file: str) -> Any:
        made = self._faults.call("draft.create", self._inner.create, file)
        return _Part("file", made, self._faults)

    def close(self) -> None:
        try:
            self._faults.call("file.close", lambda: None)
        finally:
            self._inner.close()  # as the system does, whatever it says

    def abandon(self) -> None:
        if not self._faults.dead:
            self._faults.call(f"{self._kind}.abandon", self._inner.abandon)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value
        return partial(self._faults.call, f"{self._kind}.{name}", value)


def fault_at(number: int, fault: Fault | Callable[[], object]) -> Faults:
    """Faults that meet one call: a callable is called before it, and the call goes on."""

    def predicate(call: Call) -> Fault | None:
        if call.number != number:
            return None
        if callable(fault):
            fault()
            return None
        return fault

    return Faults(predicate)


@contextmanager
def everywhere(faults: Faults) -> Iterator[None]:
    """Whatever is opened meanwhile meets the faults."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "tilekv.store",
            "tilekv.tools.atomic_build",
            "tilekv.tools.backups",
            "tilekv.tools.jobs",
            "tilekv.tools.verify",
            "tilekv.tools.salvage",
        ):
            patch.setattr(import_module(module), "open_storage", _opened_with(faults))
        yield


def _opened_with(faults: Faults) -> Callable[..., Any]:
    return lambda *arguments, **options: faults.storage(open_storage(*arguments, **options))


def meet(db: tilekv.Store, faults: Faults) -> Faults:
    """Let the flushes, consolidations and vacuums of an open handle meet the faults; calls count from here."""
    db._engine.storage = faults.storage(db._engine.storage)
    return faults


def every_call(attempt: Callable[[int], Faults]) -> int:
    """Run `attempt` for call 1, 2, 3 until it makes no such call; how many runs that were."""
    for number in range(1, 5000):
        if len(attempt(number).calls) < number:
            return number
    raise AssertionError("it never ends")

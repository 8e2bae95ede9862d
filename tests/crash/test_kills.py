"""A real process on a real file system is killed at every system call that writes, and every such call fails.

A kill loses nothing that the system was told, so what is tested here is the order of the calls; test_power_cuts has what syncing
is for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from grounds import LocalGround
from operations import OPERATIONS, Operation
from samples import NIGHTLY, some
from survival import check, go_on
from tracer import Run, Tracer

# Those that a system does not have are passed over.
CALLS = (
    "write", "fsync", "link", "linkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir",
)  # fmt: skip
TRACED = ",".join(f"?{call}" for call in CALLS)
REMOVING = ("unlink", "unlinkat", "rmdir")  # room that is not given back is no reason to fail
AGAIN = ("write", "fsync")  # Python calls them again after a signal
ERRORS = ("ENOSPC", "EIO", "EINTR")
AT_ONCE = 2


@pytest.fixture(scope="module")
def tracers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleQueue[Tracer]]:
    queue: SimpleQueue[Tracer] = SimpleQueue()
    folder = tmp_path_factory.mktemp("strace")
    with Tracer(folder) as first, Tracer(folder) as second:
        queue.put(first)
        queue.put(second)
        yield queue


class Traced:
    """One operation, run again and again."""

    def __init__(self, operation: Operation, folder: Path, tracers: SimpleQueue[Tracer]) -> None:
        self.operation = operation
        self.tracers = tracers
        self.ground = LocalGround(folder)
        self.template = folder / "template"
        self.template.mkdir()
        operation.prepare(self.template)
        self.states = operation.states(self.template)

    def run(self, inject: str | None, *, killed: bool = False) -> Run:
        """Do it, with a fault, and look at what is left."""
        with self.ground.world(self.template) as (uri, folder):
            tracer = self.tracers.get()
            try:
                run = tracer.run(self.operation.name, folder, TRACED, inject)
            finally:
                self.tracers.put(tracer)
            try:
                assert run.killed == killed
                assert not run.told.broken
                assert killed or run.told.acknowledged == len(self.states) - 1
                go_on(uri, check(uri, self.states, run.told.acknowledged), dead=True)
            except BaseException as error:
                error.add_note(f"{self.operation.name}, {inject}\n{run.log}")
                raise
        return run

    def points(self) -> list[tuple[str, int]]:
        """Every call, and which of its kind it is."""
        counts = self.run(None).counts()
        return [(call, number) for call in CALLS for number in range(1, counts[call] + 1)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_killed_at_every_call(
    operation: Operation, folder: Path, tracers: SimpleQueue[Tracer], tally: Any
) -> None:
    traced = Traced(operation, folder, tracers)

    def kill(point: tuple[str, int]) -> None:
        call, number = point
        traced.run(f"{call}:signal=SIGKILL:when={number}", killed=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        tally("kills", len(list(pool.map(kill, some(traced.points(), 2)))))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_call_fails(
    operation: Operation, folder: Path, tracers: SimpleQueue[Tracer], tally: Any
) -> None:
    """What failed raises, keeps its buffer and succeeds when it is called again."""
    traced = Traced(operation, folder, tracers)

    def fail(fault: tuple[tuple[str, int], str]) -> None:
        (call, number), code = fault
        run = traced.run(f"{call}:error={code}:when={number}")
        assert "INJECTED" in run.log
        makes_room = code == "ENOSPC" and operation.name.startswith("upkeep")  # and goes on
        if makes_room or call in REMOVING or (code == "EINTR" and call in AGAIN):
            assert run.told.errors <= 1
        else:
            assert run.told.errors == 1
            assert errno.errorcode[run.told.code] == code

    every = NIGHTLY or operation.name in ("create", "flush")
    # Which error it is makes no difference further up, but to upkeep.
    codes = ERRORS if every else ERRORS[:2] if operation.name == "upkeep" else ERRORS[:1]
    faults = [(point, code) for point in traced.points() for code in codes]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tally("failed system calls", len(list(pool.map(fail, some(faults, 3)))))

"""Every call of the storage fails, in every way, in everything that writes.

Nothing acknowledged is lost, and nothing else is there in part. Errors come to a process that goes on: its buffer is kept, and
the same step succeeds once the fault is gone. After a kill, another process finds what is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import BEFORE, KILLS, Fault, Faults, Killed, everywhere, fault_at, faults_of
from grounds import LocalGround, MemoryGround
from operations import OPERATIONS, Operation, State
from samples import NIGHTLY, some
from survival import check, go_on
from tilekv.names import ASIDE
from tilekv.record import Record
from tilekv.storage import open_storage

# In folders: another number of an error changes nothing that memory does not show, and test_kills kills at every system call.
ELSEWHERE = (*BEFORE[1:], *KILLS, Fault(0, "half"))


class FaultySteps:
    """Takes the steps of an operation; each that fails is checked, and taken again.

    Attributes
    ----------
    acknowledged : int
        How many steps were.
    """

    def __init__(
        self, uri: str, states: Sequence[State], faults: Faults, tidy: Callable[[str], None]
    ) -> None:
        self.uri = uri
        self.states = states
        self.faults = faults
        self.tidy = tidy
        self.acknowledged = 0
        self.handles: list[tilekv.Store] = []

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        options = {"kv.sync": False} | config

        def opened() -> None:
            self.handles.append(tilekv.open(uri, mode, config=options))

        self._again(opened, None)
        return self.handles[-1]

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        self._again(step, done)
        self.acknowledged += 1

    def _again(self, step: Callable[[], object], done: type[Exception] | None) -> None:
        kept = [db._unflushed() for db in self.handles]
        try:
            step()
            return
        except (OSError, tilekv.FormatError) as error:
            assert self.faults.hit, "it failed by itself"
            # The handle has what was not flushed, and the store is as it was or as it was to be.
            flushed = isinstance(error, tilekv.NotDurableError)
            left = [db._unflushed() for db in self.handles[: len(kept)]]
            assert left == ([0] * len(kept) if flushed else kept)
        check(self.uri, self.states, self.acknowledged)
        if self.faults.hit.when == "before":
            self.tidy(self.uri)
        try:
            step()
        except tilekv.TileKVError as error:
            if done is None or not isinstance(error, done):
                raise


class Runs:
    """Runs one operation with one fault after another; `went_on` has the layouts of stores that were used again."""

    def __init__(self, operation: Operation, template: Path, ground: Any) -> None:
        self.operation = operation
        self.template = template
        self.ground = ground
        operation.prepare(template)
        self.states = operation.states(template)
        store = template / "store"
        self.before = set(os.listdir(store)) if store.exists() else set()
        record = open_storage(store).record() if store.exists() else None
        self.commits = len(Record.from_file(record).commits) if record else 0
        self.went_on: set[object] = set()

    def calls(self) -> list[str]:
        """The calls of a run without a fault."""
        faults = Faults()
        self.run(faults)
        assert len(faults.calls) > 2
        return faults.calls

    def run(self, faults: Faults) -> None:
        with self.ground.world(self.template) as (uri, folder):
            steps = FaultySteps(uri, self.states, faults, self.tidy)
            with everywhere(faults):
                try:
                    self.operation.run(uri, folder, steps)
                except Killed:
                    assert faults.dead
                else:
                    assert steps.acknowledged == len(self.states) - 1
            for db in steps.handles:
                db.close(discard=True)
            now = check(uri, self.states, steps.acknowledged)
            layout = self.layout(uri)
            if NIGHTLY or layout not in self.went_on:
                self.went_on.add(layout)
                go_on(uri, now)

    def tidy(self, uri: str) -> None:
        """A full disk must not be left fuller: no drafts, no half store, no output of a consolidation that superseded nothing."""
        if self.ground.name == "memory" or self.operation.name in ("vacuum", "seed"):
            return
        new = set(os.listdir(uri) if os.path.exists(uri) else ()) - self.before - {ASIDE}
        beside = os.listdir(os.path.dirname(uri))
        assert not [name for name in [*new, *beside] if name.startswith(".tmp-")]
        merges = "consolidate" in self.operation.name or "upkeep" in self.operation.name
        if merges and os.path.exists(uri):
            assert self.made(uri) or not (new or open_storage(uri).staged())

    def made(self, uri: str) -> bool:
        """Whether a merge was committed since."""
        record = open_storage(uri).record()
        return record is not None and len(Record.from_file(record).commits) > self.commits

    def layout(self, uri: str) -> object:
        """What the listing shows: of what was there before, the names; of the rest, how many."""
        storage = open_storage(uri)
        if not storage.exists():
            return None
        names = {name for names in storage.list() for name in names}
        new = names - self.before
        record = storage.record()
        seen = record and Record.from_file(record)
        commits = len(seen.commits) if seen else 0
        return frozenset(names & self.before), len(new), commits, len(storage.staged())


@pytest.fixture(params=["local", "memory"])
def ground(request: pytest.FixtureRequest, folder: Path) -> Any:
    return LocalGround(folder) if request.param == "local" else MemoryGround()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_call_fails_in_every_way(
    operation: Operation, ground: Any, folder: Path, tally: Any
) -> None:
    template = folder / "template"
    template.mkdir()
    runs = Runs(operation, template, ground)
    cases = [
        (number, name, fault)
        for number, name in enumerate(runs.calls(), start=1)
        for fault in faults_of(name)
        if NIGHTLY or ground.name != "local" or fault not in ELSEWHERE
    ]
    for number, name, fault in some(cases, 2):
        faults = fault_at(number, fault)
        try:
            runs.run(faults)
        except BaseException as error:
            error.add_note(f"{operation.name}, call {number}, {name}: {fault}")
            raise
        assert faults.hit
        assert faults.calls[number - 1] == name
        tally("faults in storage calls")

"""The power is cut before and after every call that changes anything on disk, in everything that writes.

What a cut may leave is opened as a new machine would open it: nothing acknowledged is lost, nothing else is there in part.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tilekv
from operations import OPERATIONS, Operation, filled
from powercut import Disk, Tree, restore, seen
from samples import NIGHTLY, some
from survival import check, found, go_on
from tilekv import commit
from tilekv.storage import local, open_storage
from tilekv.storage.streams import PART_BYTES


class PowerCuts:
    """Takes the steps of an operation on a Disk, and collects what cuts may leave."""

    def __init__(self, world: Path) -> None:
        self.disk = Disk(world, self.cut)
        self.acknowledged = 0
        self.points = 0
        self.left: dict[object, tuple[Tree, int, str]] = {}

    def cut(self, after: str) -> None:
        self.points += 1
        for tree in self.disk.outcomes(self.points):
            key = self.acknowledged, frozenset(tree.items() if NIGHTLY else seen(tree))
            self.left.setdefault(key, (tree, self.acknowledged, after))

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        return tilekv.open(uri, mode, config=config)

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        step()
        self.acknowledged += 1
        self.cut("acknowledged")
        durable = {frozenset(_visible(tree)) for tree in self.disk.outcomes(self.points)}
        assert len(durable) == 1, "something that readers see was not synced"


def _visible(tree: Tree) -> list[tuple[str, bytes | None]]:
    """Without what no reader looks for as long as it finds the rest: older records, and fragments on their way."""
    records = [path for path in tree if "/.tilekv/record-" in path]
    older = {
        path for path in records if path != max(records, key=lambda path: int(path.split("-")[-1]))
    }
    return [
        (path, data)
        for path, data in tree.items()
        if ".tmp-" not in path and "/.tilekv/past" not in path and "/.tilekv/staged" not in path
        if path not in older
    ]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_power_is_cut_anywhere(operation: Operation, folder: Path, tally: Any) -> None:
    world = folder / "world"
    world.mkdir()
    operation.prepare(world)
    states = operation.states(world)
    cuts = PowerCuts(world)
    cuts.cut("nothing")
    with cuts.disk.recording():
        operation.run(str(world / "store"), world, cuts)
    assert cuts.acknowledged == len(states) - 1
    left_by_cuts = some(cuts.left.values(), 2)
    for number, (tree, acknowledged, after) in enumerate(left_by_cuts):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            now = check(left / "store", states, acknowledged)
            go_on(left / "store", now)
        except BaseException as error:
            error.add_note(f"{operation.name}, cut after: {after}")
            raise
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(left_by_cuts))


@pytest.mark.parametrize("name", ["flush", "consolidate and split"])
def test_power_is_cut_anywhere_while_much_is_written(
    name: str, folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then data is synced before the metadata is made, and their folder after it."""
    monkeypatch.setattr(commit, "SYNC_FIRST", 0)
    (operation,) = (each for each in OPERATIONS if each.name == name)
    test_power_is_cut_anywhere(operation, folder, tally)


BUFFERED = {3: b"buffered", "text": b"", "streamed": b"older"}
STREAM = random.Random(7).randbytes(2 * PART_BYTES + 100)


@pytest.mark.parametrize("size", [None, len(STREAM)])
@pytest.mark.parametrize("sync_first", [commit.SYNC_FIRST, 0])
def test_power_is_cut_anywhere_in_a_stream(
    size: int | None, sync_first: int, folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the value is there or nothing. What was buffered before is in the fragment before it, and there without it, or it
    with that."""
    monkeypatch.setattr(commit, "SYNC_FIRST", sync_first)
    world = folder / "world"
    world.mkdir()
    before = filled(world)
    states = [before, before | BUFFERED, before | BUFFERED | {"streamed": STREAM}]
    cuts = PowerCuts(world)
    cuts.cut("nothing")
    with cuts.disk.recording(), cuts.open(str(world / "store"), "a", {}) as db:
        db.put_many(BUFFERED)
        cuts.take(lambda: db.put_stream("streamed", io.BytesIO(STREAM), size))
    met = set()
    for number, (tree, acknowledged, after) in enumerate(cuts.left.values()):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            now = found(left / "store")
            assert now in (states[2:] if acknowledged else states)
            new = states.index(now)
            with tilekv.open(left / "store") as db:
                cells = [fragment.cells for fragment in db.fragments]
            assert cells[:new] == [1, len(BUFFERED)][2 - new :]
            met.add(new)
            go_on(left / "store", now)
        except BaseException as error:
            error.add_note(f"cut after: {after}")
            raise
    assert met == {0, 1, 2}
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(cuts.left))


def test_power_is_cut_after_a_sync_that_failed(
    folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next backup goes on with what one has staged that could not tell whether it was durable."""
    (backup,) = (each for each in OPERATIONS if each.name == "backup again")
    sync_root = local._sync_root
    staged: list[str] = []

    def fail_at_the_last(fd: int, path: str) -> None:
        staged.append(path)
        if len(staged) == 3:
            raise tilekv.NotDurableError.of(OSError(errno.EIO, "injected"), path)
        sync_root(fd, path)

    def run(uri: str, world: Path, steps: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(local, "_sync_root", fail_at_the_last)
            with pytest.raises(tilekv.NotDurableError):
                tilekv.backup(world / "source", uri)
        assert open_storage(uri).staged() == tuple(sorted(map(os.path.basename, staged)))
        backup.run(uri, world, steps)

    test_power_is_cut_anywhere(backup._replace(run=run), folder, tally)

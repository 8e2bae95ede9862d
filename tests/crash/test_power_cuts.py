"""The power is cut before and after every call that changes anything on disk, in everything that writes.

What a cut may leave is opened as a new machine would open it: nothing acknowledged is lost, nothing else is there in part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tilekv
from operations import OPERATIONS, Operation
from powercut import Disk, Tree, restore, seen
from survival import check, go_on
from tilekv import commit

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))


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
    return [(path, data) for path, data in tree.items() if ".tmp-" not in path]


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
    for number, (tree, acknowledged, after) in enumerate(cuts.left.values()):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            now = check(left / "store", states, acknowledged)
            go_on(left / "store", now)
        except BaseException as error:
            error.add_note(f"{operation.name}, cut after: {after}")
            raise
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(cuts.left))


@pytest.mark.parametrize("name", ["flush", "consolidate and split"])
def test_power_is_cut_anywhere_while_much_is_written(
    name: str, folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then data is synced before the metadata is made, and their folder after it."""
    monkeypatch.setattr(commit, "SYNC_FIRST", 0)
    (operation,) = (each for each in OPERATIONS if each.name == name)
    test_power_is_cut_anywhere(operation, folder, tally)

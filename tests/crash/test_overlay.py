"""A store that lies in a lower layer of overlayfs, as in a container image: its folders cannot be renamed.

It is written to, merged, vacuumed and replaced as any other, and power may be cut anywhere meanwhile.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, age, contents, folders
from operations import OPERATIONS
from powercut import Disk, restore, seen
from survival import check, found, go_on

OTHER = tilekv.Schema([tilekv.Attr("number", "int64")])
BEFORE = {i: b"%d" % i for i in range(3)}
OPERATION = {operation.name: operation for operation in OPERATIONS}


def written(path: Path) -> Path:
    with tilekv.open(path, "x", schema=SMALL) as db:
        for key, value in BEFORE.items():
            db[key] = value
            db.flush()
    return path


def mount(*arguments: str | Path) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def layered(folder: Path) -> Iterator[Path]:
    """The folder seen through an overlay, in which it is the lower layer. Skips where that cannot be mounted."""
    place = folder.parent
    for name in ("upper", "merged"):
        (place / name).mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "tmpfs", place / "upper"):
        pytest.skip("may not mount")
    try:
        for name in ("up", "work"):
            (place / "upper" / name).mkdir()
        options = f"lowerdir={folder},upperdir={place}/upper/up,workdir={place}/upper/work"
        if not mount("-t", "overlay", "overlay", "-o", options, place / "merged"):
            pytest.skip("no overlayfs")
        try:
            yield place / "merged"
        finally:
            subprocess.run(["umount", "--lazy", place / "merged"], check=True)
    finally:
        subprocess.run(["umount", "--lazy", place / "upper"], check=True)


@contextmanager
def renames_refused(folder: Path) -> Iterator[Path]:
    """The same by a faulty rename: of a folder that is there now."""
    (folder.parent / "world").mkdir()
    folder.rename(folder.parent / "world" / "merged")
    disk = Disk(folder.parent / "world", layered=True)
    with disk.recording():
        yield folder.parent / "world" / "merged"


@pytest.mark.parametrize("layer", [layered, renames_refused])
def test_a_store_in_a_lower_layer(folder: Path, layer: Any) -> None:
    lower = folder / "lower"
    lower.mkdir()
    written(lower / "store")
    written(lower / "replaced")
    (lower / "empty").mkdir()
    with layer(lower) as merged:
        path = merged / "store"
        reader = tilekv.open(path)
        first = next(iter(folders(path)))
        with pytest.raises(OSError, match="cross-device") as caught:
            tilekv.storage.local.os.rename(path / first, path / ".tmp-else")
        assert caught.value.errno == errno.EXDEV
        with tilekv.open(path, "a") as db:
            db["new"] = b"v"
            db.consolidate()
            assert db.info().superseded > 1
            db.vacuum()
            assert db.info().superseded == 0
            assert dict(db) == contents(path) == BEFORE | {"new": b"v"}
            db["more"] = b"v"
            db.consolidate(vacuum=True)
        assert len(folders(path)) == 1
        assert [name for name in os.listdir(path) if name.startswith(".tmp-")] == []
        assert tilekv.verify(path) == []
        assert dict(reader) == BEFORE  # what was open stays

        old = tilekv.open(merged / "replaced", "a")
        old["buffered"] = b"1"
        with tilekv.open(merged / "replaced", "w", schema=OTHER) as db:
            db["k"] = 1
        assert tilekv.verify(merged / "replaced") == []
        with tilekv.open(merged / "replaced") as db:
            assert (dict(db), db.schema) == ({"k": 1}, OTHER)
        for use in (old.flush, old.reopen):
            with pytest.raises(tilekv.StoreReplacedError):
                use()
        assert dict(old) == BEFORE | {"buffered": b"1"}
        old.close(discard=True)
        written(merged / "empty")
        assert sorted(os.listdir(merged)) == ["empty", "replaced", "store"]


def test_a_vacuum_or_replacement_at_a_time(folder: Path) -> None:
    lower = folder / "lower"
    lower.mkdir()
    written(lower / "store")
    with renames_refused(lower) as merged:
        place = tilekv.storage.open_storage(merged / "store")
        with place.lock() as held:
            assert held
            with pytest.raises(tilekv.StoreBusyError):
                tilekv.open(merged / "store", "w")
        assert contents(merged / "store") == BEFORE
        assert os.listdir(merged) == ["store"]


class PowerCuts:
    """Takes the steps of an operation on a Disk of which nothing can be renamed, and keeps what cuts may leave."""

    def __init__(self, world: Path) -> None:
        self.disk = Disk(world, self.cut, layered=True)
        self.acknowledged = 0
        self.points = 0
        self.left: dict[object, Any] = {}

    def cut(self, after: str) -> None:
        self.points += 1
        for tree in self.disk.outcomes(self.points):
            key = self.acknowledged, frozenset(seen(tree))
            self.left.setdefault(key, (tree, self.acknowledged, after))

    def open(self, uri: str, mode: Any, config: Any) -> tilekv.Store:
        return tilekv.open(uri, mode, config=config)

    def take(self, step: Any, done: Any = None) -> None:
        step()
        self.acknowledged += 1
        self.cut("acknowledged")


def cuts_of(name: str, folder: Path) -> tuple[PowerCuts, Any]:
    world = folder / "world"
    world.mkdir()
    OPERATION[name].prepare(world)
    states = OPERATION[name].states(world)
    cuts = PowerCuts(world)
    with cuts.disk.recording():
        OPERATION[name].run(str(world / "store"), world, cuts)
    assert cuts.acknowledged == 1
    return cuts, states


def test_power_is_cut_in_a_vacuum(folder: Path, tally: Any) -> None:
    cuts, states = cuts_of("vacuum", folder)
    for number, (tree, acknowledged, after) in enumerate(cuts.left.values()):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            now = check(left / "store", states, acknowledged)
            assert tilekv.verify(left / "store") == []
            for hidden in (left / "store").glob(".tmp-*"):
                age(hidden, 2)
            go_on(left / "store", now)
            assert len(folders(left / "store")) == 1
        except BaseException as error:
            error.add_note(f"cut after: {after}")
            raise
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(cuts.left))


def test_power_is_cut_in_a_backup(folder: Path, tally: Any) -> None:
    """The last one lies in the lower layer."""
    cuts, states = cuts_of("backup again", folder)
    for number, (tree, acknowledged, after) in enumerate(cuts.left.values()):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            assert found(left / "store") in states[acknowledged : acknowledged + 2]
            tilekv.backup(folder / "world" / "source", left / "store")
            assert tilekv.verify(left / "store") == []
            assert found(left / "store") == states[1]
        except BaseException as error:
            error.add_note(f"cut after: {after}")
            raise
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(cuts.left))


def test_power_is_cut_in_a_replacement(folder: Path, tally: Any) -> None:
    """The old store, the new one, or one that says it has no schema; that is replaced by whoever tries again."""
    cuts, states = cuts_of("replace", folder)
    halves = 0
    for number, (tree, acknowledged, after) in enumerate(cuts.left.values()):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            assert found(left / "store") in states[acknowledged:]
        except tilekv.CorruptionError as error:
            assert not acknowledged
            assert "__kv_schema.tdb: it is missing" in str(error)  # noqa: PT017
            halves += 1
            tilekv.open(left / "store", "w", config={"kv.sync": False}).close()
            assert found(left / "store") == {}
        except BaseException as error:
            error.add_note(f"cut after: {after}")
            raise
        assert tilekv.verify(left / "store") == []
        go_on(left / "store", found(left / "store"))
    assert 0 < halves < len(cuts.left)
    tally("power cuts", cuts.points)
    tally("disks that a cut left", len(cuts.left))

"""Vacuum: what is superseded or abandoned goes, and nothing else (docs/design.md 6.5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import tilekv
from faulty import fault_at, meet
from life import age, contents, folders, past, write


def test_vacuum_removes_what_is_superseded_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {2: b"2"})
    with tilekv.open(path, "a") as db:
        db.vacuum()
        assert len(folders(path)) == 2
        db.consolidate()
        assert (len(folders(path)), len(past(path))) == (1, 2)
        db[3] = b"3"
        db.flush()
        kept = {fragment.name for fragment in db.fragments}
        db.vacuum()
        assert folders(path) == kept
        assert past(path) == set()
        assert list(path.glob(".tmp-*")) == []
    assert contents(path) == {1: b"1", 2: b"2", 3: b"3"}


@pytest.mark.parametrize("eager", [1000, 0])
def test_vacuum_opens_all_that_stays(tmp_path: Path, eager: int) -> None:
    """What was superseded may be all there is: also when files are opened late."""
    path = tmp_path / "store"
    config = {"kv.max_mapped_fragments": eager}
    write(path, {1: b"1"}, {1: b"2", 3: b"3"}, config=config)
    with tilekv.open(path, "a", config=config) as db:
        db.consolidate()
        (merged,) = (each.name for each in db.fragments)
        assert dict(db) == {1: b"2", 3: b"3"}
        before = past(path)
        metadata = path / merged / "__fragment_metadata.tdb"
        data = metadata.read_bytes()
        metadata.write_bytes(data[:-1] + b"\xff")
        with pytest.raises(tilekv.CorruptionError):
            db.vacuum()
        assert past(path) == before
        metadata.write_bytes(data)
        db.vacuum()
    assert len(folders(path)) == 1
    assert past(path) == set()


def test_orphan_lists_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    (name,) = folders(path)
    orphan = path / f"__1_1_{'a' * 32}.vac"
    orphan.write_text(f"/{name}\n")
    with tilekv.open(path, "a") as db:
        db.vacuum()
    assert not orphan.exists()
    assert contents(path) == {1: b"1"}


def test_abandoned_writes_are_removed_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    (name,) = folders(path)
    for hidden in ("old", "young", "growing", "young-empty", "old-empty"):
        if hidden.endswith("empty"):
            path.joinpath(f".tmp-{hidden}").mkdir()
        else:
            shutil.copytree(path / name, path / f".tmp-{hidden}")
    path.joinpath(".tmp-old-file").write_bytes(b"half a list")
    path.joinpath(".tmp-young-file").write_bytes(b"half a list")
    for hidden in ("old", "growing", "old-empty", "old-file"):
        age(path / f".tmp-{hidden}", 1.01)
    for hidden in ("young", "young-empty", "young-file"):
        age(path / f".tmp-{hidden}", 0.99)
    os.utime(path / ".tmp-growing" / "value_var.tdb")  # a slow writer's newest file counts
    with tilekv.open(path, "a") as db:
        db.vacuum()
    left = {each.name.removeprefix(".tmp-") for each in path.glob(".tmp-*")}
    assert left == {"young", "growing", "young-empty", "young-file"}
    assert contents(path) == {1: b"1"}


def test_flush_whose_folder_vanished_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with tilekv.open(path, "a") as db:
        db[2] = b"2"

        def lose() -> None:
            for hidden in path.glob(".tmp-*"):
                shutil.rmtree(hidden)

        storage = db._engine.storage
        meet(db, fault_at(6, lose))
        with pytest.raises(FileNotFoundError):
            db.flush()
        db._engine.storage = storage
        assert db[2] == b"2"
        db.flush()
    assert contents(path) == {1: b"1", 2: b"2"}

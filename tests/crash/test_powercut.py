"""The disk that forgets: what was synced is kept whatever happens, and of the rest every loss comes up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from powercut import Disk, Tree, restore
from tilekv.storage import exchange, local


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep").write_bytes(b"deep")
    return Disk(tmp_path)


START: Tree = {"old": b"old", "sub": None, "sub/deep": b"deep"}


def left(disk: Disk, use: Callable[[str], None]) -> set[frozenset[tuple[str, bytes | None]]]:
    """What a cut may leave after `use` of the modules that local storage uses."""
    with disk.recording():
        use(str(disk.folder))
    return {frozenset(tree.items()) for seed in range(5) for tree in disk.outcomes(seed)}


def states(*trees: dict[str, bytes | None]) -> set[frozenset[tuple[str, bytes | None]]]:
    return {frozenset((START | tree).items()) for tree in trees}


def write(path: str, data: bytes, *, sync: bool) -> None:
    local._write_file(path, data, sync)


def test_what_was_there_is_durable(disk: Disk) -> None:
    assert left(disk, lambda root: None) == states({})


def test_a_file_is_kept_when_it_and_its_folder_are_synced(disk: Disk) -> None:
    def use(root: str) -> None:
        write(f"{root}/new", b"1234", sync=True)
        local.sync_folder(root)

    assert left(disk, use) == states({"new": b"1234"})


def test_a_file_alone_may_have_no_name(disk: Disk) -> None:
    assert left(disk, lambda root: write(f"{root}/new", b"1234", sync=True)) == states(
        {}, {"new": b"1234"}
    )


def test_a_name_alone_may_have_no_bytes(disk: Disk) -> None:
    def use(root: str) -> None:
        write(f"{root}/new", b"1234", sync=False)
        local.sync_folder(root)

    ends = (b"", b"12", b"1234", bytes(4))
    assert left(disk, use) == states(*({"new": end} for end in ends))


def test_the_tail_after_a_sync_is_lost_and_the_rest_is_not(disk: Disk) -> None:
    def use(root: str) -> None:
        fd = local.os.open(f"{root}/new", os.O_CREAT | os.O_WRONLY)
        local.os.write(fd, b"12")
        local.os.fsync(fd)
        local.os.write(fd, b"3456")
        local.os.close(fd)
        local.sync_folder(root)

    ends = (b"12", b"1234", b"123456", b"12" + bytes(4))
    assert left(disk, use) == states(*({"new": end} for end in ends))


def test_what_is_written_over_is_old_or_new(disk: Disk) -> None:
    def use(root: str) -> None:
        fd = local.os.open(f"{root}/old", os.O_WRONLY)
        local.os.write(fd, b"n")
        local.os.write(fd, b"e")
        local.os.close(fd)

    assert left(disk, use) == states({}, {"old": b"ned"})


def test_changes_of_a_folder_come_in_any_order(disk: Disk) -> None:
    def use(root: str) -> None:
        for name in "ab":
            local.os.mkdir(f"{root}/{name}")
        local.os.unlink(f"{root}/sub/deep")

    found = left(disk, use)
    a: dict[str, bytes | None] = {"a": None}
    b: dict[str, bytes | None] = {"b": None}
    assert states({}, a, b, a | b) <= found
    assert {"sub/deep" in dict(tree) for tree in found} == {True, False}
    assert len(found) == 8


def test_a_rename_happens_or_does_not(disk: Disk) -> None:
    moved = frozenset({"new": b"old", "sub": None, "sub/deep": b"deep"}.items())
    found = left(disk, lambda root: local.os.rename(f"{root}/old", f"{root}/new"))
    assert found == states({}) | {moved}


def test_a_folder_moved_before_it_was_synced_may_be_empty(disk: Disk) -> None:
    def use(root: str) -> None:
        local.os.mkdir(f"{root}/.tmp-1")
        write(f"{root}/.tmp-1/file", b"1", sync=True)
        exchange.move_new(f"{root}/.tmp-1", f"{root}/folder")
        local.sync_folder(root)

    assert left(disk, use) == states({"folder": None}, {"folder": None, "folder/file": b"1"})


def test_a_swap_happens_or_does_not(disk: Disk) -> None:
    def use(root: str) -> None:
        local.os.mkdir(f"{root}/other")
        local.sync_folder(root)
        assert exchange.swap(f"{root}/other", f"{root}/sub")

    swapped = {"old": b"old", "other": None, "other/deep": b"deep", "sub": None}
    assert left(disk, use) == states({"other": None}) | {frozenset(swapped.items())}


def test_a_restored_disk_is_what_was_left(disk: Disk, tmp_path: Path) -> None:
    (tree,) = set(map(frozenset, (tree.items() for tree in disk.outcomes(0))))
    restore(dict(sorted(tree)), tmp_path / "restored")
    assert dict(START) == {
        str(each.relative_to(tmp_path / "restored")): each.read_bytes() if each.is_file() else None
        for each in (tmp_path / "restored").rglob("*")
    }


def test_nothing_is_recorded_elsewhere_or_later(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    with disk.recording():
        local.os.mkdir(str(tmp_path / "disk" / "seen"))
        local.os.mkdir(str(tmp_path / "elsewhere"))
        write(str(tmp_path / "file"), b"1", sync=True)
        local.os.unlink(str(tmp_path / "file"))
        local.os.rename(str(tmp_path / "elsewhere"), str(tmp_path / "moved"))
    os.mkdir(tmp_path / "disk" / "later")
    assert disk.log == ["mkdir seen"]

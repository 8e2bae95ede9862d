"""The lists of a store without a record, read as the record that they stand for (docs/design.md 6.3)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tilekv
from life import contents, folders, write
from lists import merge_by_list, vac
from tilekv.record import Record, parsed, shorts


def seeded(path: Path) -> Record:
    with tilekv.open(path) as db:
        opener = db._engine.opener
        return opener.seed(opener.storage.list())


def test_a_store_of_flushes_has_an_empty_record(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {2: b"2"})
    assert seeded(path).commits == ()


def test_lists_are_commits_inner_ones_first(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    flushes = folders(path)
    first = merge_by_list(path)
    write(path, {3: b"3"})
    others = folders(path) - flushes
    second = merge_by_list(path)
    one, two = seeded(path).commits
    assert [str(name) for name in (*one.outputs, *two.outputs)] == [first, second]
    assert one.sources == shorts(parsed(flushes))
    assert two.sources == shorts(parsed(others))


def test_a_consolidation_without_its_list_supersedes_nothing(tmp_path: Path) -> None:
    """It was killed before it wrote one: all that it holds is shown beside it."""
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    vac(path, merge_by_list(path)).unlink()
    assert seeded(path).commits == ()
    assert contents(path) == {1: b"2"}


def test_a_vacuum_that_had_removed_the_list(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"}, {1: b"3"})
    oldest, *others = sorted(folders(path))
    merged = merge_by_list(path)
    vac(path, merged).unlink()
    shutil.rmtree(path / oldest)
    (commit,) = seeded(path).commits
    assert commit.sources >= shorts(parsed(others))
    assert contents(path) == {1: b"3"}


def test_a_lost_list_of_what_is_superseded_itself(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    first = merge_by_list(path)
    write(path, {3: b"3"})
    merge_by_list(path)
    vac(path, first).unlink()
    with pytest.raises(tilekv.CorruptionError, match="which would be seen again"):
        tilekv.open(path)


def test_a_damaged_list(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    list_ = vac(path, merge_by_list(path))
    list_.write_bytes(list_.read_bytes()[:-2])
    with pytest.raises(tilekv.CorruptionError, match=r"\.vac"):
        tilekv.open(path)

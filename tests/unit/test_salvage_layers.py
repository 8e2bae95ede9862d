"""salvage_layers: what the fragments of a damaged store say of a key, and which of their entries are current."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tilekv
from life import SMALL, folders, past, write
from lists import merge_by_list
from tilekv.arguments import NO_VALUE
from tilekv.engine import layout_of
from tilekv.kvcore.check.recovery import ABSENT, DELETED, SET, UNKNOWN
from tilekv.opener import Opener
from tilekv.storage import open_storage
from tilekv.tools.problem import Problem
from tilekv.tools.salvage_layers import Layer, judge, layers_of

KEYS = ["a", "b", "c", "d"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """a is set twice, b is deleted, c is in the oldest fragment alone, d nowhere."""
    path = tmp_path / "store"
    write(path, {"a": b"old", "b": b"b", "c": b"c"}, {"a": b"new"}, {"b": None})
    return path


def layers(path: Path) -> tuple[list[Layer], list[Problem]]:
    storage = open_storage(path, False)
    opener = Opener(storage, layout_of(SMALL, True), 1 << 20, True, 1000)
    problems: list[Problem] = []
    return layers_of(opener, storage.list(), SMALL, problems), problems


def blank(path: Path, folder: str, file: str) -> None:
    """Other bytes in place of those of a file."""
    (place,) = path.rglob(f"{folder}/{file}")
    place.write_bytes(b"\xee" * place.stat().st_size)


def test_newest_first(root: Path) -> None:
    found, problems = layers(root)
    assert [layer.name for layer in found] == sorted(folders(root), reverse=True)
    assert [layer.own(KEYS) for layer in found] == [
        [ABSENT, DELETED, ABSENT, ABSENT],
        [SET, ABSENT, ABSENT, ABSENT],
        [SET, SET, SET, ABSENT],
    ]
    assert all(layer.sound and not layer.doubtful for layer in found)
    assert found[2].values(KEYS) == [b"old", b"b", b"c", NO_VALUE]
    assert problems == []


def test_what_nothing_newer_has_is_current(root: Path) -> None:
    found, _ = layers(root)
    newest, certain = judge(found[2], ["a", "b", "c"], found[:2], [])
    assert newest == [False, False, True]
    assert certain[2]
    assert judge(found[1], ["a"], found[:1], []) == ([True], [True])


def test_below_what_cannot_tell_nothing_is_certain(root: Path) -> None:
    """The newest fragment's metadata is gone: all that is known of it is that it was there."""
    name = max(folders(root))
    blank(root, name, "__fragment_metadata.tdb")
    found, problems = layers(root)
    assert found[0].fragment is None
    assert found[0].own(KEYS) == [UNKNOWN] * 4
    assert [problem.fragment for problem in problems] == [name]
    assert judge(found[2], ["b", "c"], found[:2], []) == ([True, True], [False, False])


def test_a_value_that_is_lost_hides_nothing(root: Path) -> None:
    """Its key is there: what is older is the newest that is proven, and certainly not current."""
    blank(root, sorted(folders(root))[1], "value_var.tdb")
    found, _ = layers(root)
    assert not found[1].sound
    assert found[1].own(["a"]) == [SET]
    assert found[1].values(["a"]) == [NO_VALUE]
    assert judge(found[2], ["a"], found[:2], []) == ([False], [True])
    found[1].valueless.add((4, b"a"))  # who has tried to read it notes that
    assert judge(found[2], ["a"], found[:2], []) == ([True], [False])


def test_sources_say_what_a_consolidation_cannot(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        db.consolidate()
        (merged,) = (fragment.name for fragment in db.fragments)
    (layer,), _ = layers(root)
    assert (layer.name, layer.covered) == (merged, True)
    assert [source.name for source in layer.sources] == sorted(past(root), reverse=True)
    blank(root, merged, "__fragment_metadata.tdb")
    (layer,), _ = layers(root)
    assert layer.own(KEYS) == [UNKNOWN] * 4
    assert layer.says(KEYS) == [SET, ABSENT, SET, ABSENT]  # it leaves deletes out
    assert layer.values(["a", "c"]) == [b"new", b"c"]
    assert judge(layer.sources[2], ["c"], layer.sources[:2], [layer]) == ([True], [True])


def test_sources_of_which_one_is_gone_say_nothing(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        db.consolidate()
        (merged,) = (fragment.name for fragment in db.fragments)
    blank(root, merged, "__fragment_metadata.tdb")
    shutil.rmtree(root / ".tilekv" / "past" / min(past(root)))
    (layer,), _ = layers(root)
    assert not layer.covered
    assert layer.says(KEYS) == [UNKNOWN] * 4
    assert layer.values(["a"]) == [NO_VALUE]


def test_a_consolidation_whose_sources_were_vacuumed(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        db.consolidate(vacuum=True)
        (merged,) = (fragment.name for fragment in db.fragments)
    blank(root, merged, "__fragment_metadata.tdb")
    (layer,), _ = layers(root)
    assert not layer.covered
    assert layer.says(KEYS) == [UNKNOWN] * 4


def test_fragments_within_the_time_of_a_lost_consolidation_are_doubtful(root: Path) -> None:
    """It was superseded, and what it had superseded itself seems newer than what came after."""
    sources = folders(root)
    first = merge_by_list(root)
    write(root, {"e": b"e"})
    merge_by_list(root)
    (last,), _ = layers(root)
    assert not any(source.doubtful for source in last.sources)
    blank(root, first, "__fragment_metadata.tdb")
    root.joinpath(f"{first}.vac").unlink()
    found, _ = layers(root)
    assert {layer.name for layer in found if layer.doubtful} == sources
    (oldest,) = (layer for layer in found if layer.name == min(sources))
    assert judge(oldest, ["c"], [], []) == ([True], [False])

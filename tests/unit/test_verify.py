"""verify: all that is wrong, of a handle's fragments and of a whole store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from lists import merge_by_list, vac
from tilekv.cli.command import main
from tilekv.storage import Storage, open_storage
from tilekv.tools.problem import Problem
from tilekv.tools.verify import examine, verify_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "s", "x") as db:
        for i in range(3):
            db[i] = b"value"
            db.flush()
    return tmp_path / "s"


def flip(path: Path, at: int = 30) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def fragments(root: Path) -> list[Path]:
    return sorted(root.glob("__*_*_*/"))


def test_problems_of_several_fragments(root: Path) -> None:
    with tilekv.open(root) as db:
        names = [fragment.name for fragment in db.fragments]
        assert db.verify() == verify_store(db.fragments) == []
    for name in names[:2]:
        flip(root / name / "value_var.tdb")
    with tilekv.open(root) as db:
        found = db.verify()
        assert [(problem.fragment, problem.file) for problem in found] == [
            (name, "value_var.tdb") for name in names[:2]
        ]
        assert str(found[0]).startswith(f"{names[0]}/value_var.tdb, byte ")
        assert db[0] == b"value"  # the third is whole, and the damage does not spread


def test_everything_is_listed_of_a_store_that_does_not_open(root: Path) -> None:
    one, two, three = fragments(root)
    flip(root / "__array_schema.tdb")
    flip(one / "__fragment_metadata.tdb", -30)
    flip(two / "__key_var.tdb", 10)
    flip(three / "value_var.tdb")
    (three / "__key_type.tdb").unlink()
    root.joinpath("copy_of_it").mkdir()
    root.joinpath("copy_of_it", "__fragment_metadata.tdb").write_bytes(b"")
    with pytest.raises(tilekv.CorruptionError):
        tilekv.open(root)
    found = {(problem.fragment, problem.file) for problem in tilekv.verify(root)}
    assert found == {
        ("", "__array_schema.tdb"),
        (one.name, "__fragment_metadata.tdb"),
        (two.name, "__key_var.tdb"),
        (three.name, "value_var.tdb"),
        (three.name, "__key_type.tdb"),
        ("copy_of_it", "__fragment_metadata.tdb"),
    }


def test_replaced_fragments_and_the_record_are_checked(root: Path) -> None:
    sources = fragments(root)
    with tilekv.open(root, "a") as db:
        db.consolidate()
    assert tilekv.verify(root) == []
    flip(root / ".tilekv" / "past" / sources[1].name / "__coords.tdb")
    [problem] = tilekv.verify(root)
    assert (problem.fragment, problem.file) == (sources[1].name, "__coords.tdb")
    flip(max(root.glob(".tilekv/record-*")), 5)
    assert {problem.file for problem in tilekv.verify(root)} == {"__coords.tdb", "record-3"}


def test_lists_of_a_store_without_a_record_are_checked(root: Path) -> None:
    sources = fragments(root)
    list_ = vac(root, merge_by_list(root))
    assert tilekv.verify(root) == []
    flip(sources[1] / "__coords.tdb")
    flip(list_, 5)
    assert {problem.file for problem in tilekv.verify(root)} == {"__coords.tdb", list_.name}


class Vacuumed:
    """A storage in which a vacuum does its work just before a fragment is looked at."""

    def __init__(self, storage: Storage, name: str, vacuum: Callable[[], None]) -> None:
        self._storage = storage
        self._name = name
        self._vacuum: Callable[[], None] | None = vacuum

    def __getattr__(self, call: str) -> Any:
        def asked(*arguments: Any) -> Any:
            if self._vacuum and self._name in arguments:
                vacuum, self._vacuum = self._vacuum, None
                vacuum()
            return getattr(self._storage, call)(*arguments)

        return self._storage.uri if call == "uri" else asked


@pytest.mark.parametrize("of", ["superseded", "merged"])
def test_a_vacuum_meanwhile_is_no_damage(root: Path, of: str) -> None:
    def vacuum() -> None:
        with tilekv.open(root, "a") as db:
            db["new"] = b"flushed"
            db.consolidate(vacuum=True)  # what was not listed
            assert len(fragments(root)) == 1

    names = [path.name for path in fragments(root)]
    with tilekv.open(root, "a") as db:
        db[0] = b"changed"
        db.consolidate()
        merged = db.fragments[0].name
    name = merged if of == "merged" else names[1]
    found = examine(Vacuumed(open_storage(root), name, vacuum))  # type: ignore[arg-type]
    assert found.problems == []
    assert found.cells >= 4


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.verify(tmp_path / "nothing")
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.verify(tmp_path)


def test_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", str(root)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "uri": str(root),
        "sound": True,
        "fragments": 3,
        "cells": 3,
        "problems": [],
    }
    flip(fragments(root)[0] / "__fragment_metadata.tdb", -30)
    flip(root / "__kv_schema.tdb")
    assert main(["verify", "--json", str(root)]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sound"], facts["fragments"]) == (False, 2)
    assert [problem["file"] for problem in facts["problems"]] == [
        "__kv_schema.tdb",
        "__fragment_metadata.tdb",
    ]
    assert set(facts["problems"][0]) == {"fragment", "file", "offset", "message"}


def test_text() -> None:
    assert str(Problem("f", "a.tdb", 5, "bad")) == "f/a.tdb, byte 5: bad"
    assert str(Problem("f", "a.tdb", None, "bad")) == "f/a.tdb: bad"
    assert str(Problem("", "a.tdb", 0, "bad")) == "a.tdb, byte 0: bad"

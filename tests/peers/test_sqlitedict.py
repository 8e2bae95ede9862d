"""What sqlitedict's tests ask (README.md): "c" of its flags is "a" here, "n" and "w" are "w", and commit() is flush()."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zict import Func

import tilekv

TEXT = tilekv.Schema([tilekv.Attr("v", str)])


@pytest.fixture(params=["memory", "folder", "anew"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tilekv.Store]:
    """An empty store of text: of no folder, of a new one, of one where another store was."""
    uri = f"memory://{tmp_path.name}" if request.param == "memory" else str(tmp_path / "store")
    if request.param == "anew":
        with tilekv.open(uri, "w", schema=TEXT) as old:
            old["old"] = "older"
    with tilekv.open(uri, "w", schema=TEXT) as store:
        yield store


@pytest.fixture
def made(tmp_path: Path) -> str:
    """Where a store with two keys is."""
    uri = str(tmp_path / "store")
    with tilekv.open(uri, "w", schema=TEXT) as store:
        store.update(key="value", key_two="2")
    return uri


def test_empty(db: tilekv.Store) -> None:
    assert isinstance(db, tilekv.Store)
    assert (dict(db), list(db), len(db)) == ({}, [], 0)


def test_assign_and_clear(db: tilekv.Store) -> None:
    db["abc"] = "edf"
    assert db["abc"] == "edf"
    assert len(db) == 1
    db.update(a="1", b="2", c="3")
    assert len(db) == 4
    db.clear()
    assert len(db) == 0


def test_one_record(db: tilekv.Store) -> None:
    db["abc"] = "rsvp" * 100
    assert db["abc"] == "rsvp" * 100
    db["abc"] = "lmno"
    assert db["abc"] == "lmno"
    assert len(db) == 1
    del db["abc"]
    assert len(db) == 0
    assert not db


def test_few_records(db: tilekv.Store) -> None:
    db["abc"] = "lmno"
    db["xyz"] = "pdq"
    assert len(db) == 2
    assert set(db.items()) == {("abc", "lmno"), ("xyz", "pdq")}
    assert set(db.values()) == {"lmno", "pdq"}
    assert set(db.keys()) == set(db) == {"abc", "xyz"}


def test_update_records(db: tilekv.Store) -> None:
    db.update([("v", "w")], p="x", q="y", r="z")
    assert len(db) == 4
    assert dict(db) == {"v": "w", "p": "x", "q": "y", "r": "z"}
    assert sorted(db) == ["p", "q", "r", "v"]


def test_missing(db: tilekv.Store) -> None:
    with pytest.raises(KeyError):
        del db["abc"]
    with pytest.raises(KeyError):
        db["abc"]


def test_with_twice(made: str) -> None:
    for _ in range(2):
        with tilekv.open(made, "a") as db:
            db["key"] = "value"
            db.flush()
    assert len(tilekv.open(made)) == 2


def test_as_text(made: str) -> None:
    db = tilekv.open(made)
    assert made in str(db)
    db.close()
    assert "closed" in repr(db)


def test_no_folder_to_be_in(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tilekv.open(tmp_path / "missing" / "store", "a")


def test_reused(made: str) -> None:
    with tilekv.open(made, "a") as db:
        assert "key" in db.keys()  # noqa: SIM118 - the view is asked
        assert db["key"] == "value"


def test_overwritten(made: str) -> None:
    with tilekv.open(made, "w") as db:
        assert "key" not in db.keys()  # noqa: SIM118 - the view is asked


def test_only_the_one_that_is_named_is_overwritten(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with tilekv.open(tmp_path / name, "a") as db:
            db["key"] = b"value"
    tilekv.open(tmp_path / "one", "w").close()
    assert "key" not in tilekv.open(tmp_path / "one")
    assert "key" in tilekv.open(tmp_path / "two")


def test_unknown_mode(made: str) -> None:
    with pytest.raises(tilekv.InvalidValueError, match="FOO"):
        tilekv.open(made, "FOO")  # type: ignore[arg-type]


def test_read_only(made: str) -> None:
    with tilekv.open(made, "r") as db:
        assert (db["key"], db["key_two"]) == ("value", "2")
        for call in (
            lambda: db.__setitem__("key", "new_value"),
            lambda: db.update(key="value2", key_two="2.1"),
            lambda: db.__delitem__("key"),
            db.clear,
        ):
            with pytest.raises(tilekv.ReadOnlyError):
                call()
        assert dict(db) == {"key": "value", "key_two": "2"}


def test_reading_what_is_not_there_makes_nothing(made: str) -> None:
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.open(made + "404", "r")
    assert not os.path.lexists(made + "404")


@pytest.mark.parametrize(
    "name", ["9nine", "outer space", 'a "quoted" name', 'a "quoted \xe1cute" name']
)
@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_irregular_names(tmp_path: Path, scheme: str, name: str) -> None:
    uri = f"memory://{tmp_path.name} {name}" if scheme else str(tmp_path / name)
    with tilekv.open(uri, "a") as db:
        db["key"] = b"value"
        db.flush()
        assert db["key"] == b"value"
        assert name in db.uri


def test_many_integers(tmp_path: Path) -> None:
    schema = tilekv.Schema([tilekv.Attr("v", int)])
    with tilekv.open(f"memory://{tmp_path.name}", "x", schema=schema) as db:
        for i in range(1000):
            db[i] = i + 100_000
        assert sorted(db.keys()) == list(range(1000))
        assert sorted(db.values()) == list(range(100_000, 101_000))
        assert sorted(db.items()) == [(i, i + 100_000) for i in range(1000)]


def test_an_iterator_that_is_left_reads_no_more(made: str) -> None:
    with tilekv.open(made, "a") as db:
        db.update({str(i): "x" for i in range(100_000)})
        db.flush()
        keys = iter(db)
        for _ in range(100):
            next(keys)
        db.clear()
        assert len(db) == 0
    assert sum(1 for _ in keys) == 100_002 - 100


@pytest.mark.parametrize(
    "value",
    [-42, "Test \u30c6\u30b9\u30c8", False, None, {"version": 2.5, "items": ["one", "two"]}],
)
def test_values_of_json(tmp_path: Path, value: Any) -> None:
    """It has encode= and decode=; zict's Func does that for any mapping."""
    with tilekv.open(tmp_path / "store", "x", schema=TEXT) as db:
        values = Func(json.dumps, json.loads, db)
        values["test"] = value
        assert values["test"] == value
        assert db["test"] == json.dumps(value)
        db.flush()
        assert values["test"] == value


def test_what_is_written_before_the_program_ends(tmp_path: Path) -> None:
    """Its autocommit; here `with` or close() does it, and when nobody does, the end of the program, with a warning."""
    program = """
import sys, tilekv
db = tilekv.open(sys.argv[1], "a", schema=tilekv.Schema([tilekv.Attr("v", int)]))
for i in range(1000):
    db[i] = i
"""
    uri = str(tmp_path / "store")
    ended = subprocess.run(
        [sys.executable, "-P", "-W", "always", "-c", program, uri],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "was never closed" in ended.stderr
    assert dict(tilekv.open(uri)) == {i: i for i in range(1000)}

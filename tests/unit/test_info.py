"""tools.info: what a store holds, and what of its upkeep nobody does by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tilekv
from faulty import Call, Fault, Faults, meet
from life import SMALL, folders
from tilekv import keeper
from tilekv.storage.local import LocalStorage
from tilekv.tiers import FAN
from tilekv.tools import info as tools_info

OFF = {"kv.upkeep": "off", "kv.sync": False}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """As many small fragments as make a tier."""
    place = tmp_path / "store"
    with tilekv.open(place, "x", schema=SMALL, config=OFF) as db:
        for number in range(FAN):
            db[number] = b"x"
            db.flush()
    return place


def test_what_flushes_merge_is_no_advice(path: Path) -> None:
    with tilekv.open(path) as db:
        info = db.info()
    assert (info.fragments, info.mergeable, info.advice) == (FAN, 0, "")


def test_with_upkeep_off_it_is(path: Path) -> None:
    with tilekv.open(path, "a", config=OFF) as db:
        info = db.info()
        assert (info.mergeable, info.mergeable_bytes) == (FAN, info.stored_bytes)
        assert info.advice == f"upkeep would merge {FAN} fragments, {info.stored_bytes:,} bytes"
        db.upkeep()
        assert db.info().advice == ""


def test_and_what_is_larger_than_flushes_merge(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open(path) as db:
        less = db.info().stored_bytes - 1
        monkeypatch.setattr(tools_info, "most_behind", lambda stored: less)
        assert db.info().mergeable == FAN
    with tilekv.open(path, config={"kv.max_fragment_bytes": 1}) as db:
        assert db.info().mergeable == 0


def test_and_when_there_are_more_than_there_should_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools_info, "MOST_VISIBLE", FAN - 1)
    with tilekv.open(path) as db:
        assert db.info().mergeable == FAN


def test_the_past_has_no_advice(path: Path) -> None:
    with tilekv.open(path, config=OFF) as db:
        moment = db.fragments[0].t2
    with tilekv.open(path, timestamp=moment, config=OFF) as db:
        assert db.info().advice == ""


def test_the_newest_of_the_tier_are_not_the_oldest(path: Path) -> None:
    """What is large and older is not counted."""
    with tilekv.open(path, "a", config=OFF) as db:
        db.upkeep()
        db.put_many({key: os.urandom(3000) for key in range(200)})
        db.flush()
        for number in range(FAN):
            db[number] = b"x"
            db.flush()
        info = db.info()
        assert info.mergeable == FAN
        assert info.mergeable_bytes == sum(f.stored_bytes for f in db.fragments[:FAN])


def test_dead_bytes(path: Path) -> None:
    with tilekv.open(path, "a", config=OFF) as db:
        db.consolidate(vacuum=True)
        db.put_many(dict.fromkeys(range(FAN), b"y"))
        db.flush()
        info = db.info()
        assert info.advice == f"consolidate would leave about {info.dead_bytes:,} bytes behind"


def test_history_and_what_it_no_longer_needs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open(path) as db:
        assert db.info().history == 24 * 3600
    with tilekv.open(path, "a", config=OFF | {"kv.history": 10}) as db:
        assert db.info().history == 10  # as the first record will say
        db.upkeep()
        info = db.info()
        assert (info.superseded, info.outlived, info.advice) == (FAN, 0, "")
        later = tools_info.milliseconds() + 11_000
        monkeypatch.setattr(tools_info, "milliseconds", lambda: later)
        info = db.info()
        assert (info.outlived, info.outlived_bytes) == (FAN, info.superseded_bytes)
        assert info.advice == (
            f"upkeep would remove {FAN} superseded fragments, {info.superseded_bytes:,} bytes"
        )
    with tilekv.open(path, "a", config=OFF | {"kv.history": "all"}) as db:
        db.upkeep()
        assert (db.info().history, db.info().outlived) == (None, 0)


def test_a_reader_asks_nothing_that_is_a_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open(path, "a", config=OFF) as db:
        db.upkeep()
    monkeypatch.delattr(LocalStorage, "now")
    monkeypatch.delattr(LocalStorage, "lock")
    with tilekv.open(path) as db:
        assert db.info().superseded == FAN


def test_what_the_upkeep_of_this_handle_has_met(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 1000.0)

    def broken(call: Call) -> Fault | None:
        return Fault(5) if call.name == "replace_record" else None

    with tilekv.open(path, "a", config={"kv.sync": False}) as db:
        assert db.info().failure == ""
        sound = db._engine.storage
        meet(db, Faults(broken))
        db["new"] = b"x"
        db.flush()
        assert db._keeper
        assert db._keeper._thread
        db._keeper._thread.join()
        db._engine.storage = sound
        assert "Input/output error" in db.info().failure
    assert len(folders(path)) == FAN + 1

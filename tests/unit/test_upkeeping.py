"""Upkeep: tiers are merged, history is kept for as long as it says, and a disk may be full (docs/design.md 6.9, 6.10)."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Call, Fault, Faults, every_call, fault_at, meet
from life import SMALL, contents, folders, past, record_of
from tilekv import upkeeping
from tilekv.errors import InvalidValueError, StoreReplacedError, WrongTypeError
from tilekv.maintenance import Maintenance
from tilekv.storage.local import LocalStorage
from tilekv.tiers import FAN
from tilekv.upkeeping import Upkeep, Upkept

OFF = {"kv.upkeep": "off", "kv.sync": False}


@pytest.fixture
def tmp_path(folder: Path) -> Path:
    """Where nothing waits for a disk."""
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fragment that is larger, then as many small ones as make a tier."""
    place = tmp_path / "store"
    with tilekv.open(place, "x", schema=SMALL, config=OFF) as db:
        db.put_many({key: os.urandom(2000) for key in range(200)})
        db.flush()
        flush(db, FAN)
    return place


def flush(db: tilekv.Store, n: int) -> None:
    """Fragments that overwrite one key and set another; the last one deletes."""
    for number in range(n):
        db["all"] = db[f"only {number}"] = b"%d" % number
        if number == n - 1:
            db.delete_many([0])
        db.flush()


def upkeep(path: Path, **config: Any) -> Upkept:
    with tilekv.open(path, "a", config=OFF | config) as db:
        before = dict(db)
        done = db.upkeep()
        assert dict(db) == before
    assert contents(path) == before
    return done


def test_a_tier_is_merged_and_the_large_one_left_alone(path: Path) -> None:
    done = upkeep(path)
    assert (done.merges, done.merged, done.made, done.removed) == (1, FAN, 1, 0)
    assert len(folders(path)) == 2
    assert len(past(path)) == FAN
    assert str(done).startswith(f"merged {FAN} fragments into 1, ")
    assert upkeep(path) == Upkept()
    assert str(Upkept()) == "nothing to do"


def test_deletes_are_kept_while_something_is_older(path: Path) -> None:
    upkeep(path)
    with tilekv.open(path) as db:
        newest, _ = db.fragments
        assert newest.tombstones == 1
        assert 0 not in db
    with tilekv.open(path, "a") as db:
        db.consolidate()
        assert 0 not in db


def test_dry_run_only_says_it(path: Path) -> None:
    with tilekv.open(path, config=OFF) as db:
        said = db.upkeep(dry_run=True)
    assert (said.merges, said.merged, said.removed) == (1, FAN, 0)
    assert len(folders(path)) == FAN + 1
    assert not (path / ".tilekv").exists()


def test_several_merges_in_one_call(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=OFF) as db:
        for _ in range(FAN):
            db.put_many({os.urandom(8): os.urandom(500) for _ in range(40)})
            db.flush()
        for number in range(FAN):
            db[number] = b"x"
            db.flush()
    done = upkeep(path)
    assert (done.merges, done.merged) == (
        2,
        2 * FAN + 1,
    )  # what the first has made is small for the second
    assert len(folders(path)) == 1


def test_merges_stop_at_full_size(path: Path) -> None:
    with tilekv.open(path) as db:
        small = min(fragment.stored_bytes for fragment in db.fragments)
    assert upkeep(path, **{"kv.max_fragment_bytes": small // 2}) == Upkept()


def test_what_others_merge_is_left_to_them(path: Path) -> None:
    with tilekv.open(path, "a", config=OFF) as db:
        claimed = Maintenance(db._engine).claim(lambda state: state.visible[3:5])
        assert claimed
        assert db.upkeep() == Upkept()
        Maintenance(db._engine).release(claimed.owner)
        assert db.upkeep().merges == 1


def test_a_replaced_store_is_left_alone(path: Path) -> None:
    with tilekv.open(path, "a", config=OFF) as db:
        tilekv.open(path, "w", schema=SMALL).close()
        with pytest.raises(StoreReplacedError):
            db.upkeep()
    assert contents(path) == {}


# --- history ---


class Time:
    """The clock of whatever keeps the files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000_000
        monkeypatch.setattr(LocalStorage, "now", lambda storage: self.now)
        monkeypatch.setattr("tilekv.commit.later_time", lambda storage, known: self.tick())

    def tick(self) -> int:
        self.now += 1
        return self.now


def test_history_ends_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(monkeypatch)
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=OFF) as db:
        flush(db, FAN)
        moment = clock.now - 3
        shown = contents(path, moment)
        assert db.upkeep().merges == 1
        clock.now += 24 * 3600 * 1000 - 10
        assert db.upkeep() == Upkept()
        assert contents(path, moment) == shown
        clock.now += 1000
        assert db.upkeep().removed == FAN
        assert past(path) == set()
        with pytest.raises(tilekv.HistoryVacuumed, match=r"kv\.history"):
            tilekv.open(path, timestamp=moment)


def test_a_handle_makes_history_longer_and_vacuum_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time(monkeypatch)
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=OFF | {"kv.history": 60}) as db:
        flush(db, FAN)
        db.upkeep()
        assert record_of(path).history == 60_000
        with tilekv.open(path, "a", config=OFF | {"kv.history": 30}) as other:
            other.upkeep()
        assert record_of(path).history == 60_000
        with tilekv.open(path, "a", config=OFF | {"kv.history": "100"}) as other:
            other.upkeep()
        assert record_of(path).history == 100_000
        clock.now += 90_000
        assert db.upkeep().removed == 0
        db.vacuum(history=dt.timedelta(seconds=80))
        assert record_of(path).history == 80_000
        assert past(path) == set()
        with tilekv.open(path, "a", config=OFF | {"kv.history": "all"}) as other:
            other.upkeep()
        assert record_of(path).history is None
        flush(db, FAN)
        db.upkeep()
        clock.now += 10**12
        assert db.upkeep().removed == 0


def test_vacuum_by_hand_leaves_history_as_it_is(path: Path) -> None:
    upkeep(path, **{"kv.history": 50})
    with tilekv.open(path, "a", config=OFF) as db:
        db.vacuum()
    assert past(path) == set()
    assert record_of(path).history == 50_000


@pytest.mark.parametrize(
    ("history", "error"),
    [
        (-1, InvalidValueError),
        (float("nan"), InvalidValueError),
        (10**11, InvalidValueError),
        ("long", WrongTypeError),
        (True, WrongTypeError),
        (None, WrongTypeError),
    ],
)
def test_what_is_no_history(path: Path, history: Any, error: type[Exception]) -> None:
    with tilekv.open(path, "a", config=OFF) as db, pytest.raises(error, match="history"):
        db.vacuum(history=history)


def test_history_is_bounded_by_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeeping, "MOST_SUPERSEDED", FAN + 2)
    assert upkeep(path).removed == 0
    with tilekv.open(path, "a", config=OFF) as db:
        flush(db, FAN)
        done = db.upkeep()
    assert (done.merged, done.removed) == (FAN + 1, FAN)  # whole merges, the oldest first
    assert len(past(path)) == FAN + 1


def test_history_is_bounded_by_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeeping, "LITTLE", 0)
    monkeypatch.setattr(upkeeping, "MOST_TIMES_LIVE", 0)
    assert upkeep(path).removed == FAN
    assert past(path) == set()


def test_a_folder_never_has_more_than_three_times_what_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while a merge writes either: the past makes room for it before. What is kept is as much as may be."""
    monkeypatch.setattr(upkeeping, "LITTLE", 0)
    place = tmp_path / "store"
    ratios: list[float] = []

    def look(call: Call) -> None:
        if call.name in ("draft.commit", "replace_record"):
            sizes = (
                os.lstat(os.path.join(at, f)) for at, _, files in os.walk(place) for f in files
            )
            ratios.append(sum(each.st_size for each in sizes) / live)

    with tilekv.open(place, "x", schema=SMALL, config=OFF) as db:
        removed = 0
        for turn in range(24):
            for number in range(FAN):
                db.put_many({f"{turn} {number} {i}": os.urandom(500) for i in range(20)})
                db.flush()
            live = sum(fragment.stored_bytes for fragment in db.fragments)
            sound = db._engine.storage
            meet(db, Faults(look))
            removed += Upkeep(db._engine).run().removed
            db._engine.storage = sound
            db.reopen()
    assert removed > 3 * FAN
    assert 2.5 < max(ratios) <= 3, max(ratios)


# --- faults ---


def test_a_disk_without_room_is_foreseen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "room", lambda storage: 10)
    done = upkeep(path)
    assert done.merges == 0
    (skipped,) = done.skipped
    assert skipped.startswith(f"a merge of {FAN} fragments needs ")
    assert str(done) == skipped


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_past_goes_first(path: Path, code: int) -> None:
    upkeep(path)
    full = True

    def written(call: Call) -> Fault | None:
        nonlocal full
        if call.name == "retire":
            full = False
        return Fault(code) if full and call.name == "file.write" else None

    with tilekv.open(path, "a", config=OFF) as db:
        flush(db, FAN)
        before = dict(db)
        storage = db._engine.storage
        meet(db, Faults(written))
        done = Upkeep(db._engine).run()
        db._engine.storage = storage
        assert done.merges == 1
        db.reopen()
        assert dict(db) == before
    assert len(past(path)) == FAN + 1  # what this merge has superseded


def test_every_call_of_an_upkeep_may_fail(path: Path, tmp_path: Path) -> None:
    before = contents(path)

    def attempt(number: int) -> Faults:
        place = tmp_path / f"attempt {number}"
        shutil.copytree(path, place)
        with tilekv.open(place, "a", config=OFF) as db:
            storage = db._engine.storage
            faults = meet(db, fault_at(number, Fault(errno.EIO)))
            try:
                Upkeep(db._engine).run()
            except OSError:
                assert faults.hit
            db._engine.storage = storage
            assert contents(place) == before
            done = db.upkeep()
            assert done.merges == 1 or len(folders(place)) == 2, faults.calls[-1]
        assert contents(place) == before
        shutil.rmtree(place)
        return faults

    assert every_call(attempt) > 20

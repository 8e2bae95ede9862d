"""Clocks that differ, that are set back, and flushes faster than they tick: the newest write of a handle wins over all it saw."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import tilekv
from faulty import Call, Fault, Faults, meet
from life import SMALL, Clock, contents
from tilekv.names import FragmentName
from tilekv.storage import Listing

HOUR = 3_600_000  # ms
FAST = {"kv.sync": False}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def times(path: Path) -> list[int]:
    """The timestamps of the fragments that are visible, oldest first."""
    with tilekv.open(path) as db:
        return [fragment.t2 for fragment in reversed(db.fragments)]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
@pytest.mark.parametrize("tidy", [False, True])
def test_two_writers_an_hour_apart(tmp_path: Path, clock: Clock, ahead: int, tidy: bool) -> None:
    """They take turns on one key, each after it has seen the other's; somebody may merge and remove in between."""
    path = tmp_path / "store"
    now = clock.now
    with (
        tilekv.open(path, "x", schema=SMALL, config=FAST) as first,
        tilekv.open(path, "a", config=FAST) as second,
    ):
        for turn in range(40):
            db = (first, second)[turn % 2]
            now += 700
            clock.now = now + (ahead if turn % 2 else 0)
            db.reopen()
            if turn:
                assert db["shared"] == b"%d" % (turn - 1)
            db["shared"] = b"%d" % turn
            db[turn] = b"own"
            del db[turn]
            db[f"kept {turn}"] = b""
            db.flush()
            assert db["shared"] == b"%d" % turn
            if tidy and turn % 5 == 4:
                db.consolidate(vacuum=turn % 2 == 0)
            assert contents(path) == {"shared": b"%d" % turn} | {
                f"kept {i}": b"" for i in range(turn + 1)
            }


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_two_writers_that_see_nothing_of_each_other(
    tmp_path: Path, clock: Clock, ahead: int
) -> None:
    """Neither reopens: what is flushed later is newer all the same."""
    path = tmp_path / "store"
    with (
        tilekv.open(path, "x", schema=SMALL, config=FAST) as first,
        tilekv.open(path, "a", config=FAST) as second,
    ):
        now = clock.now
        for turn in range(40):
            clock.now = now + turn + (ahead if turn % 2 else 0)
            db = (first, second)[turn % 2]
            db["shared"] = b"%d" % turn
            db.flush()
            assert db["shared"] == contents(path)["shared"] == b"%d" % turn
    assert times(path) == sorted(set(times(path)))


def test_a_clock_set_back_between_sessions(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    for session in range(8):
        with tilekv.open(path, "a", schema=SMALL, config=FAST) as db:
            assert db.get("last") == (b"%d" % (session - 1) if session else None)
            db["last"] = b"%d" % session
            db[session] = b"x"
            if session:
                del db[session - 1]
            db.flush()
            if session == 4:
                db.consolidate(vacuum=True)
        clock.now -= 6 * HOUR
    assert contents(path) == {"last": b"7", 7: b"x"}
    assert times(path) == sorted(set(times(path)))


def test_flushes_as_fast_as_they_go(tmp_path: Path) -> None:
    """Each takes a millisecond of its own. By the real clock, which they outrun where syncing costs nothing."""
    path = tmp_path / "store"
    flushes = 500
    with tilekv.open(path, "x", schema=SMALL, config=FAST | {"kv.mmap": False}) as db:
        for i in range(flushes):
            db["key"] = b"%d" % i
            db.flush()
            if i % 100 == 99:
                db.consolidate(vacuum=True)
        assert db["key"] == b"%d" % (flushes - 1)
    assert contents(path) == {"key": b"%d" % (flushes - 1)}


def test_two_thousand_flushes_in_memory() -> None:
    path = "memory://two thousand flushes"
    flushes = 2000
    seen = set()
    with tilekv.open(path, "w", schema=SMALL) as db:
        for i in range(flushes):
            db[i % 7] = b"%d" % i
            db.flush()
            seen.add(db.fragments[0].t2)
            if len(db.fragments) > 50:
                db.consolidate(vacuum=True)
        assert len(seen) == flushes
        db.reopen()
        assert {key: int(value) for key, value in db.items()} == {
            i % 7: i for i in range(flushes - 7, flushes)
        }


def test_a_clock_that_stands_still(tmp_path: Path, clock: Clock) -> None:
    """A flush that is a little ahead of the clock waits; one that is far ahead does not."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST | {"kv.upkeep": "off"}) as db:
        started = clock.now
        for i in range(20):
            db["key"] = b"%d" % i
            db.flush()
        assert clock.now == started + 19
        clock.now -= HOUR
        for i in range(20, 40):
            db["key"] = b"%d" % i
            db.flush()
        assert clock.now == started + 19 - HOUR
    assert times(path) == [started + i for i in range(40)]
    assert contents(path) == {"key": b"39"}


def test_a_listing_that_misses_what_the_handle_has_seen(tmp_path: Path, clock: Clock) -> None:
    """While others consolidate and vacuum, one pass over the folder may meet neither a fragment nor what replaced it."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        db["key"] = b"1"
        db.flush()
        clock.now -= HOUR
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(db._engine.storage, "list", lambda: Listing((), ()))
            db["key"] = b"2"
            db.flush()
    assert contents(path) == {"key": b"2"}
    one, two = times(path)
    assert one < two


def test_a_flush_that_commits_into_a_consolidated_range(tmp_path: Path, clock: Clock) -> None:
    """A writer chose its time, and slept while others wrote and would have merged: its draft tells them to leave that alone."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        db["first"] = b"1"
        db.flush()
    clock.now += 1000

    def others() -> None:
        clock.now += 1000
        with tilekv.open(path, "a", config=FAST) as other:
            other["other"] = b"2"
            other.flush()
            other.consolidate(vacuum=True)

    def slept(call: Call) -> Fault | None:
        if call.name == "draft.commit" and next(calls) == 0:
            others()
        return None

    calls = itertools.count()
    with tilekv.open(path, "a", config=FAST) as slow:
        meet(slow, Faults(slept))
        slow["slow"] = b"3"
        slow.flush()
    assert contents(path) == {"first": b"1", "other": b"2", "slow": b"3"}
    names = sorted(filter(None, map(FragmentName.parse, (each.name for each in path.iterdir()))))
    assert [name.t2 - name.t1 for name in names] == [0, 0, 0]
    assert names[0].t1 < names[1].t1 < names[2].t1
    with tilekv.open(path, "a", config=FAST) as db:
        db["slow"] = b"4"
        db.flush()
        db.consolidate(vacuum=True)
    assert contents(path) == {"first": b"1", "other": b"2", "slow": b"4"}

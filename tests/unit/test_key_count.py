"""A count that is moved by what was written since is the one that looking at everything gives."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.serve import counting
from tilekv.serve.counting import KeyCount, Stopped

OFF = {"kv.upkeep": "off"}


def changed(db: tilekv.Store, pick: random.Random) -> None:
    """Some keys are written, some deleted; some of these are new, and some are not there."""
    keys = [pick.randrange(400) for _ in range(pick.randrange(1, 60))]
    db.put_many([k if k % 3 else f"{k}" for k in keys], [b"v"] * len(keys))
    db.delete_many([k if k % 3 else f"{k}" for k in range(pick.randrange(400), 400, 3)])


@pytest.mark.parametrize("expires", [False, True])
def test_it_follows_writes_flushes_and_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expires: bool
) -> None:
    """All are counted once, and then only what was written."""
    counted: list[int] = []
    real = KeyCount._count_all

    def count_all(self: KeyCount, snapshot: object) -> None:
        counted.append(1)
        real(self, snapshot)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyCount, "_count_all", count_all)
    monkeypatch.setattr(counting, "PART_CELLS", 50)
    pick = random.Random(3)
    with tilekv.open(tmp_path / "s", "x", expires=expires, config=OFF) as db:
        changed(db, pick)
        db.flush()
        changed(db, pick)
        count = KeyCount(db)
        for _ in range(100):
            what = pick.randrange(6)
            if what == 0:
                db.flush()
            elif what == 1:
                db.flush()
                count.move()
                db.consolidate()
                count.move()
            else:
                changed(db, pick)
            if pick.randrange(2):
                assert count.exact() == len(db)
        assert count.exact() == len(db)
        assert len(counted) == 1


def test_what_cannot_be_told_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that nobody has told of, another program's among them, and the end of all keys."""
    pick = random.Random(4)
    with tilekv.open(tmp_path / "s", "x", config=OFF) as db:
        changed(db, pick)
        db.flush()
        count = KeyCount(db)
        assert count.exact() == len(db)
        for _ in range(3):
            changed(db, pick)
            db.flush()
        db.consolidate()
        assert count.exact() == len(db)
        with tilekv.open(tmp_path / "s", "a", config=OFF) as other:
            changed(other, pick)
        db.reopen()
        assert count.exact() == len(db)
        with count.changing():
            db.clear()
            db.flush()
        assert count.exact() == 0


def test_nobody_looks_before_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open(tmp_path / "s", "x", config=OFF) as db:
        db["a"] = b"1"
        db.flush()
        count = KeyCount(db)
        count.begin()
        db["b"] = b"1"
        db.flush()
        with monkeypatch.context() as patch:
            patch.setattr(counting, "count_change", None)
            count.move()
        assert not count.wanted
        assert count.estimate() == 1  # as many as were counted
        assert count.exact() == 2


def test_where_entries_expire_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tilekv.open(tmp_path / "s", "x", expires=True, config=OFF) as db:
        db.set("a", b"1", expire=0.3)
        db["b"] = b"2"
        db.flush()
        count = KeyCount(db)
        assert count.exact() == 2
        monkeypatch.setattr(counting, "ANEW_S", 0.03)
        monkeypatch.setattr(counting, "ANEW", 0)
        while len(db) == 2 or not count.is_old():
            pass
        assert (count.exact(anew=False), count.exact()) == (2, 1)


def test_a_count_under_way_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what takes all keys away: nobody waits for millions to be counted that go."""
    monkeypatch.setattr(counting, "PART_CELLS", 1)
    with tilekv.open(tmp_path / "s", "x", config=OFF) as db:
        for _ in range(2):
            db.put_many({f"{i}": b"1" for i in range(100)})
            db.flush()
        count = KeyCount(db)
        changing = count.changing()
        begun = threading.Event()
        real = counting.Merge
        ranges = []

        def merge(*arguments: Any) -> Any:
            ranges.append(1)
            begun.set()
            time.sleep(0.001)
            return real(*arguments)

        monkeypatch.setattr(counting, "Merge", merge)
        found: list[int] = []
        threads = [
            threading.Thread(target=count.begin),
            threading.Thread(target=lambda: found.append(count.exact())),
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(10)
        with changing:
            assert len(ranges) < 150
            db["new"] = b"1"
            db.flush()
        for thread in threads:
            thread.join()
        assert found == [101]


def test_it_ends_when_the_server_does(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x", config=OFF) as db:
        for i in range(2):
            db[i] = b"1"
            db.flush()
        count = KeyCount(db)
        count.stop()
        with pytest.raises(Stopped):
            count.begin()
        assert not count.is_ready()

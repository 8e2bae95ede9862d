"""keeper: a handle that flushes keeps its store, behind who writes; what goes wrong reaches nobody (docs/design.md 6.9)."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tilekv
from faulty import Call, Fault, Faults, meet
from life import SMALL, contents, folders, past
from tilekv import keeper
from tilekv.maintenance import Maintenance
from tilekv.tiers import FAN

HANG = 60.0
FAST = {"kv.sync": False}


def flush(db: tilekv.Store, n: int, first: int = 0) -> dict[object, bytes]:
    for number in range(first, first + n):
        db["all"] = db[number] = b"%d" % number
        db.flush()
    return {"all": b"%d" % (first + n - 1)} | {i: b"%d" % i for i in range(first, first + n)}


def until(there: Callable[[], object]) -> None:
    start = time.monotonic()
    while not there():
        assert time.monotonic() - start < HANG
        time.sleep(0.005)


def test_small_fragments_are_merged_behind_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        model = flush(db, FAN)
        until(lambda: len(db.fragments) == 1)
        assert dict(db) == model
    assert contents(path) == model
    assert len(folders(path)) == 1


@pytest.mark.parametrize("word", ["off", "auto", "on"])
def test_only_where_it_is_asked_for(tmp_path: Path, word: str) -> None:
    config = FAST | {"kv.upkeep": word}
    with tilekv.open(tmp_path / "store", "x", schema=SMALL, config=config) as db:
        flush(db, 3 * FAN)
        if word != "off":
            until(lambda: len(db.fragments) < 2 * FAN)
        else:
            assert len(db.fragments) == 3 * FAN
        assert (db._keeper is None) == (word == "off")


def test_tiledbs_faces_merge_nothing_by_themselves(tmp_path: Path) -> None:
    tilekv.KV.create(str(tmp_path / "kv"), tilekv.KVSchema(attrs=(tilekv.Attr(dtype=bytes),)))
    with tilekv.KV(str(tmp_path / "kv")) as kv:
        assert kv._store._keeper is None


def test_a_flush_follows_what_others_have_done(tmp_path: Path) -> None:
    """Iterators keep what they had."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        db[1] = b"1"
        db.flush()
        begun = iter(db.items())
        with tilekv.open(path, "a", config=FAST) as other:
            other[2] = b"2"
        assert 2 not in db
        db[3] = b"3"
        db.flush()
        assert dict(db) == {1: b"1", 2: b"2", 3: b"3"}
        assert dict(begun) == {1: b"1"}


def test_without_upkeep_a_flush_follows_nobody(tmp_path: Path) -> None:
    path = tmp_path / "store"
    config = FAST | {"kv.upkeep": "off"}
    with tilekv.open(path, "x", schema=SMALL, config=config) as db:
        with tilekv.open(path, "a", config=config) as other:
            other[2] = b"2"
        db[3] = b"3"
        db.flush()
        assert dict(db) == {3: b"3"}


def test_what_goes_wrong_is_logged_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.05)
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST) as db:
        sound = db._engine.storage

        def broken(call: Call) -> Fault | None:
            return Fault(errno.EIO) if call.name == "replace_record" else None

        assert db._keeper
        meet(db, Faults(broken))
        with caplog.at_level(logging.INFO, "tilekv"):
            model = flush(db, FAN)
            until(lambda: db._keeper and db._keeper.failure)
            assert "upkeep failed, and will be tried again" in caplog.text
            model |= flush(db, 1, FAN)  # nobody is told
            db._engine.storage = sound
            db._keeper.stop()
            db._keeper.go_on()
            db._keeper._upkeep = None
            time.sleep(0.3)
            model |= flush(db, 1, FAN + 1)
            until(lambda: len(db.fragments) < FAN)
            assert db._keeper.failure is None
            assert "merged" in caplog.text
        assert dict(db) == model
    assert contents(path) == model


def held(db: tilekv.Store, before: str = "draft.commit") -> tuple[threading.Event, threading.Event]:
    """Upkeeps of a handle stand before a call, merges before their outputs: whether one does, and what lets it go on."""
    reached, go = threading.Event(), threading.Event()

    def hold(call: Call) -> None:
        if call.name == before and threading.current_thread().name == "tilekv upkeep":
            reached.set()
            assert go.wait(HANG)

    meet(db, Faults(hold))
    return reached, go


def test_close_withdraws_the_merge_under_way(tmp_path: Path) -> None:
    path = tmp_path / "store"
    db = tilekv.open(path, "x", schema=SMALL, config=FAST)
    reached, go = held(db)
    model = flush(db, FAN)
    assert reached.wait(HANG)
    closing = threading.Thread(target=db.close)
    closing.start()
    until(lambda: db._keeper and db._keeper._stopping)
    go.set()
    closing.join(HANG)
    assert not closing.is_alive()
    assert db.closed
    assert contents(path) == model
    assert not list(path.glob(".tilekv/staged/*"))


def test_close_waits_for_no_more_than_a_few_removals(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=SMALL, config=FAST | {"kv.upkeep": "off"}) as other:
        model = {}
        for tier in range(6):
            model |= flush(other, FAN, tier * FAN)
            other.upkeep()
        Maintenance(other._engine).change(lambda record: record.keeping(0))
    before = past(path)
    db = tilekv.open(path, "a", config=FAST)
    reached, go = held(db, "retire")
    model |= flush(db, FAN, 6 * FAN)
    assert reached.wait(HANG)
    closing = threading.Thread(target=db.close)
    closing.start()
    until(lambda: db._keeper and db._keeper._stopping)
    go.set()
    closing.join(HANG)
    assert not closing.is_alive()
    assert {*before} > past(path) > set()
    assert contents(path) == model
    with tilekv.open(path, "a", config=FAST) as db:
        db.upkeep()
    assert past(path) == set()
    assert contents(path) == model


def test_puts_and_flushes_go_on_meanwhile(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "store", "x", schema=SMALL, config=FAST) as db:
        reached, go = held(db)
        model = flush(db, FAN)
        assert reached.wait(HANG)
        model |= flush(db, FAN, FAN)
        assert len(db.fragments) == 2 * FAN
        go.set()
        until(lambda: len(db.fragments) < 2 * FAN)
        assert dict(db) == model


def test_what_others_have_merged_is_not_looked_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "store"
    off = FAST | {"kv.upkeep": "off"}
    with tilekv.open(path, "x", schema=SMALL, config=off) as other:
        model = flush(other, 3 * FAN)
        with tilekv.open(path, "a", config=FAST) as db:
            other.upkeep()
            assert len(db.fragments) == 3 * FAN
            keeping = threading.Thread(target=db._keeper._keep, args=(db,), daemon=True)
            keeping.start()
            keeping.join(5.0)
            assert not keeping.is_alive()
            assert len(db.fragments) == len(other.fragments) < FAN
            assert dict(db) == model


def test_a_flush_waits_where_merges_do_not_keep_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MANY_VISIBLE", FAN)
    waited: list[float] = []
    with tilekv.open(tmp_path / "store", "x", schema=SMALL, config=FAST) as db:
        reached, go = held(db)
        flush(db, FAN)
        assert reached.wait(HANG)
        monkeypatch.setattr(
            threading.Thread, "join", lambda thread, seconds=None: waited.append(seconds)
        )
        flush(db, 1, FAN)
        assert waited == [keeper.WAIT_S]
        monkeypatch.undo()
        go.set()


def test_a_flush_waits_for_what_others_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is nothing that it could merge itself: else several writers run away from who merges."""
    monkeypatch.setattr(keeper, "MANY_VISIBLE", FAN)
    monkeypatch.setattr(keeper, "WAIT_S", 0.05)
    path = tmp_path / "store"
    waited: list[float] = []
    join = threading.Thread.join

    def joined(thread: threading.Thread, seconds: float | None = None) -> None:
        if thread.name == "tilekv upkeep" and seconds is not None:
            waited.append(seconds)
        join(thread, seconds)

    with tilekv.open(path, "x", schema=SMALL, config=FAST | {"kv.upkeep": "off"}) as other:
        model = flush(other, 2 * FAN)
        merging = Maintenance(other._engine)
        merging.claim(lambda state: state.visible, "another")
        with tilekv.open(path, "a", config=FAST) as db:
            monkeypatch.setattr(threading.Thread, "join", joined)
            for number in range(2 * FAN, 2 * FAN + 3):
                model |= flush(db, 1, number)
                assert len(waited) == number - 2 * FAN + 1
            assert len(db.fragments) == 2 * FAN + 3
            merging.release("another")
            model |= flush(db, 1, 2 * FAN + 3)
            until(lambda: len(db.fragments) < FAN)
            assert dict(db) == model
    assert contents(path) == model


FORK = """
import os, sys, tilekv
db = tilekv.open(sys.argv[1], "a", config={"kv.sync": False})
for number in range(30):
    db[number] = b"x"
    db.flush()
    if number % 5 == 0:
        pid = os.fork()
        if pid == 0:
            db[f"child {number}"] = b"c"
            db.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
db.close()
"""
END = """
import sys, tilekv
db = tilekv.open(sys.argv[1], "a", config={"kv.sync": False})
for number in range(40):
    db[number] = b"x"
    db.flush()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forks(tmp_path: Path) -> None:
    path = tmp_path / "store"
    subprocess.run([sys.executable, "-P", "-c", FORK, path], check=True, timeout=HANG)
    expected = dict.fromkeys(range(30), b"x")
    assert contents(path) == expected | {f"child {n}": b"c" for n in range(0, 30, 5)}


def test_the_end_of_a_program(tmp_path: Path) -> None:
    path = tmp_path / "store"
    subprocess.run([sys.executable, "-P", "-c", END, path], check=True, timeout=HANG)
    assert contents(path) == dict.fromkeys(range(40), b"x")


def test_five_processes_keep_one_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    code = """
import sys, tilekv
with tilekv.open(sys.argv[1], "a", config={"kv.sync": False}) as db:
    for number in range(60):
        db[f"{sys.argv[2]} {number}"] = b"x"
        db["all"] = b"x"
        db.flush()
"""
    writers = [subprocess.Popen([sys.executable, "-P", "-c", code, path, str(n)]) for n in range(5)]
    most = 0
    while any(writer.poll() is None for writer in writers):
        most = max(most, len(folders(path)))
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0] * 5
    assert contents(path) == {f"{n} {i}": b"x" for n in range(5) for i in range(60)} | {"all": b"x"}
    assert most <= 100  # of 300; how many there are at once is up to who has the processor

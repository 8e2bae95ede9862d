"""A flush whose fragment others can see has happened: whatever fails or interrupts it then, nothing of it is written twice.

Written twice it would be newer than what others have written meanwhile, and undo that.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Call, Fault, Faults, fault_at
from life import SMALL, contents, folders
from looks import interrupt
from powercut import Disk
from tilekv import Attr, Schema
from tilekv.storage import local

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
FAST = {"kv.sync": False}
FAULTS = (
    Fault(errno.EMFILE),
    Fault(errno.EIO),
    Fault(errno.ENOMEM, error=MemoryError),
    Fault(errno.EINTR, error=KeyboardInterrupt),
)


@contextmanager
def meeting(db: tilekv.Store, faults: Faults) -> Iterator[None]:
    """Whatever a handle does meets the faults meanwhile, opening fragments too."""
    sound = db._engine.storage
    db._engine.storage = db._engine.opener.storage = faults.storage(sound)
    try:
        yield
    finally:
        db._engine.storage = db._engine.opener.storage = sound


def blind(code: int, error: type[BaseException] = OSError) -> Faults:
    """The commit is done, and fails like everything after it: nobody knows whether it was."""

    def from_the_commit_on(call: Call) -> Fault | None:
        blind = "draft.commit" in faults.calls and call.name != "draft.abandon"
        return Fault(code, "after", error) if blind else None

    faults = Faults(from_the_commit_on)
    return faults


class Pair:
    """Two writers of one store: `a`, whose flush fails, and `b`, which is always newer."""

    def __init__(self, path: Path, **config: object) -> None:
        self.path = path
        # What is counted are fragments, and calls of flushes that follow nobody.
        off = FAST | {"kv.upkeep": "off"}
        self.a = tilekv.open(path, "a", schema=SMALL, config=off | config)
        self.b = tilekv.open(path, "a", config=off)
        self.model: dict[Any, bytes] = {}
        self.turn = 0
        self.flushes = 0

    def flush(self, faults: Faults) -> BaseException | None:
        """What a flush of `a` that meets faults raises."""
        self.turn += 1
        self.model |= {"both": b"a %d" % self.turn, self.turn: b"a"}
        self.a.put_many({"both": self.model["both"], self.turn: b"a"})
        self.flushes += 1
        with meeting(self.a, faults):
            try:
                self.a.flush()
            except BaseException as error:  # noqa: BLE001 - it is what the test is about
                return error
        return None

    def overwrite(self) -> None:
        """What `a` has flushed is there; `b` writes something newer."""
        assert dict(self.a) == self.model
        self.b.reopen()
        assert dict(self.b) == self.model
        self.b["both"] = self.model["both"] = b"b %d" % self.turn
        self.b.flush()
        self.flushes += 1

    def check(self) -> None:
        """Flushing again writes nothing twice and undoes nothing."""
        self.a.flush()
        assert self.a.info().buffered == 0
        self.a.reopen()
        assert dict(self.a) == contents(self.path) == self.model
        assert len(folders(self.path)) == self.flushes


def calls_of_a_flush(path: Path) -> list[str]:
    faults = Faults()
    assert Pair(path).flush(faults) is None
    return faults.calls


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("mmap", [True, False])
def test_every_call_from_the_commit_on(folder: Path, fault: Fault, mmap: bool) -> None:
    calls = calls_of_a_flush(folder / "first")
    commit = calls.index("draft.commit")
    assert calls[commit:] == ["draft.commit", "draft.abandon", "spare", "open_files"]
    pair = Pair(folder / "store", **{"kv.mmap": mmap})
    for number, when in itertools.product(range(commit + 1, len(calls) + 1), ("before", "after")):
        if number == commit + 1 and when == "before":
            continue
        faults = fault_at(number, fault._replace(when=when))
        error = pair.flush(faults)
        assert faults.hit
        assert pair.a.info().buffered == 0
        if fault.error is KeyboardInterrupt:
            assert type(error) is KeyboardInterrupt
        elif calls[number - 1] in ("spare", "open_files"):
            assert error is None  # opened when it is next needed
        elif number == commit + 1:
            assert isinstance(error, tilekv.NotDurableError)
            assert error.errno == fault.code
        pair.overwrite()
        pair.check()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("since", [False, True])
def test_nobody_knows_whether_it_has_appeared(folder: Path, fault: Fault, since: bool) -> None:
    """The commit fails when it was done, and so does all that could tell: it is found out before anything is written again."""
    pair = Pair(folder / "store")
    error = pair.flush(blind(fault.code, fault.error))
    assert isinstance(error, fault.error)
    assert not isinstance(error, tilekv.NotDurableError)
    assert pair.a._unflushed() == 2
    for use in (pair.a.flush, pair.a.reopen, pair.a.close):
        no_lists = Faults(lambda call: fault if call.name == "list" else None)
        with meeting(pair.a, no_lists), pytest.raises(fault.error):
            use()
        assert dict(pair.a) == pair.model
    pair.overwrite()
    if since:
        pair.a["since"] = pair.model["since"] = b"x"
        pair.flushes += 1
    pair.check()


@pytest.mark.parametrize("fault", FAULTS[:3], ids=str)
def test_it_cannot_be_opened_for_a_while(folder: Path, fault: Fault) -> None:
    """The flush has happened; who needs the fragment before it can be opened is told why."""
    pair = Pair(folder / "store")
    looks = Faults(lambda call: fault if call.name == "open_files" else None)
    assert pair.flush(looks) is None
    with meeting(pair.a, looks):
        for read in (lambda: pair.a["both"], lambda: dict(pair.a), lambda: pair.a.read([1])):
            with pytest.raises(fault.error):
                read()
        pair.a["more"] = pair.model["more"] = b"1"
        pair.a.flush()
        pair.flushes += 1
    pair.overwrite()
    pair.check()


def test_it_was_merged_and_vacuumed_meanwhile(folder: Path) -> None:
    pair = Pair(folder / "store")
    pair.b["old"] = pair.model["old"] = b"1"
    pair.b.flush()
    assert isinstance(pair.flush(blind(errno.EIO)), OSError)
    assert pair.a.info().buffered == 2
    pair.b["both"] = pair.model["both"] = b"b"
    pair.b.consolidate(vacuum=True)
    pair.flushes = 1
    pair.check()


def test_what_came_since_is_kept(folder: Path) -> None:
    """Of every kind: deletes, and rows of no, one and several fields of variable length."""
    schema = Schema([Attr("n", "int32"), Attr("text", str), Attr("blob", bytes)])
    for kind, attrs in enumerate([schema, Schema([Attr("n", "int64", (3,))]), SMALL]):
        rows: list[Any] = [(i, "é" * i, b"x" * (5000 * i)) for i in range(6)]
        if kind:
            rows = [[i, i, i] for i in range(6)] if kind == 1 else [b"v" * i for i in range(6)]
        with tilekv.open(folder / str(kind), "x", schema=attrs, config=FAST) as db:
            db.put_many({i: rows[i] for i in range(3)})
            with meeting(db, blind(errno.EIO)), pytest.raises(OSError, match="injected"):
                db.flush()
            db.put_many({i: rows[i] for i in (2, 4, 5)})
            del db[1]
            db[""] = rows[0]
            expected = [*map(repr, db.items())]
            db.flush()
            assert [*map(repr, db.items())] == expected
            assert [(f.cells, f.tombstones) for f in db.fragments] == [(5, 1), (3, 0)]
        with tilekv.open(folder / str(kind)) as db:
            assert [*map(repr, db.items())] == expected


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # raised in a __del__
def test_interrupted_anywhere(folder: Path, tally: Any) -> None:
    """At every look for signals that a flush makes: one fragment for each, and what others wrote after it stays."""
    stopped = shown = ended = 0
    for after in range(0, 1 << 20, 1 if NIGHTLY else 3):
        if after % 24 == 0:  # the more fragments, the more looks
            pair = Pair(folder / str(after), **{"kv.threads": 1})
        pair.turn += 1
        pair.a["both"] = pair.model["both"] = b"a %d" % after
        pair.flushes += 1
        before = len(folders(pair.path))
        if interrupt(pair.a.flush, after):
            stopped += 1
            ended = 0
        else:
            ended += 1  # or Python has swallowed it, in a __del__
        assert dict(pair.a) == pair.model
        if len(folders(pair.path)) > before:
            shown += 1
            pair.overwrite()
        pair.check()
        if ended > 5:
            break
    shown -= ended
    assert stopped > shown > 2  # 5 to 21, as the folders happen to be
    tally("interrupts of a flush", stopped)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Lets syncs of a folder fail so often."""
    real = local._sync_names
    left: dict[str, int] = {}

    def sync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if left.get(path, 0) > 0:
            left[path] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(local, "_sync_names", sync)

    def fail(path: Path, times: int) -> None:
        left[str(path)] = times

    return fail


@pytest.mark.parametrize("use", ["flush", "close"])
def test_a_last_sync_that_fails(
    folder: Path, no_sync: Callable[[Path, int], None], use: str
) -> None:
    """What is visible is no longer buffered, and the next flush makes it durable before it writes, or has nothing to write."""
    path = folder / "store"
    db = tilekv.open(path, "x", schema=SMALL)
    call = getattr(db, use)
    db["k"] = b"v"
    no_sync(path, 2)
    said = "cannot make durable what was committed to the store: Input/output error"
    for _ in range(2):
        with pytest.raises(tilekv.NotDurableError, match=said) as caught:
            call()
        assert caught.value.errno == errno.EIO
        assert not db.closed
        assert db.info().buffered == 0
        assert contents(path) == dict(db) == {"k": b"v"}
    db["next"] = b"1"
    disk = Disk(folder)
    with disk.recording():
        call()
    assert disk.log[0] == "sync store"
    assert "rename" in " ".join(disk.log)
    assert contents(path) == {"k": b"v", "next": b"1"}
    assert len(folders(path)) == 2
    if use == "flush":
        with disk.recording():
            disk.log.clear()
            db.flush()
        assert disk.log == []
        db.close()


def test_a_merge_that_is_not_durable_is_taken_back(
    folder: Path, no_sync: Callable[[Path, int], None]
) -> None:
    path = folder / "store"
    with tilekv.open(path, "x", schema=SMALL) as db:
        for i in range(3):
            db[i] = b"v"
            db.flush()
        names = folders(path)
        no_sync(path, 1)
        with pytest.raises(OSError, match="Input/output error") as caught:
            db.consolidate()
        assert not isinstance(caught.value, tilekv.TileKVError)
        assert folders(path) == names
        db.consolidate(vacuum=True)
        assert len(folders(path)) == 1

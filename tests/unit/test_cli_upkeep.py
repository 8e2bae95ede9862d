"""python -m tilekv upkeep and vacuum: once, again and again, until it is told to end."""

from __future__ import annotations

import errno
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import SMALL, Clock, contents, folders, past, record_of
from tilekv.cli.command import main
from tilekv.cli.upkeep import BY_HAND, LONGEST_PAUSE_S, watch
from tilekv.storage.memory import MemoryStorage
from tilekv.tiers import FAN

OFF = {"kv.upkeep": "off", "kv.sync": False}
HANG = 60.0
MOST_VISIBLE = 40


def small_fragments(path: Path, n: int, first: int = 0) -> dict[Any, bytes]:
    with tilekv.open(path, "a", schema=None if path.exists() else SMALL, config=OFF) as db:
        for number in range(first, first + n):
            db[number] = b"x"
            db.flush()
    return dict.fromkeys(range(first, first + n), b"x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """As many small fragments as make a tier."""
    small_fragments(tmp_path / "store", FAN)
    return tmp_path / "store"


def out(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([str(each) for each in argv]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


# --- once ---


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_once(path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert out(capsys, "upkeep", *options, path).startswith(f"merged {FAN} fragments into 1, ")
    assert len(folders(path)) == 1
    assert out(capsys, "upkeep", *options, path) == "nothing to do\n"
    assert contents(path) == dict.fromkeys(range(FAN), b"x")


def test_dry_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = out(capsys, "upkeep", "--dry-run", path)
    assert said.startswith(f"merged {FAN} fragments into 1, ")
    assert len(folders(path)) == FAN
    assert out(capsys, "upkeep", path) == said


@pytest.mark.parametrize(
    "options",
    [["--watch", "0"], ["--watch", "never"], ["--watch", "5", "--dry-run"], ["--watch", "often"]],
)
def test_wrong_usage(path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["upkeep", *options, str(path)])
    assert ended.value.code == 2


def test_vacuum_keeps_what_it_is_told_to(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["upkeep", str(path)])
    capsys.readouterr()
    for time, history in (("2h", 7_200_000), ("never", None)):
        assert out(capsys, "vacuum", "--history", time, path) == "removed 0 fragments, 0 bytes\n"
        assert record_of(path).history == history
    assert len(past(path)) == FAN
    assert out(capsys, "vacuum", path).startswith(f"removed {FAN} fragments, ")
    assert record_of(path).history is None
    assert past(path) == set()
    with pytest.raises(SystemExit):
        main(["vacuum", "--history", "long", str(path)])


# --- again and again ---


class FakeTime(threading.Event):
    """What `watch` waits for: time goes on at once, and something happens meanwhile; what it has waited for and said is kept."""

    def __init__(self, meanwhile: Callable[[int], object], cycles: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.said: list[str] = []
        self._meanwhile = meanwhile
        self._cycles = cycles

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self._meanwhile(len(self.pauses))
        return len(self.pauses) == self._cycles


def test_ten_thousand_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute each; in every fifth an entry is flushed, and what was superseded a quarter of a day ago goes."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(MemoryStorage, "now", lambda storage: clock.now)
    uri = "memory://ten thousand cycles"
    config = {"kv.upkeep": "off", "kv.history": 6 * 3600}
    most = 0
    superseded = []
    with tilekv.open(uri, "x", schema=SMALL, config=config) as db:

        def meanwhile(cycle: int) -> None:
            nonlocal most
            clock.now += 60_000
            if cycle % 5 == 0:
                db[cycle % 100] = b"%d" % cycle
                db.flush()
            if cycle % 500 == 0:
                db.reopen()
                most = max(most, len(db.fragments))
                superseded.append(db.info().superseded)

        time = FakeTime(meanwhile, 10_000)
        opened = 0

        def open_once() -> tilekv.Store:
            nonlocal opened
            opened += 1
            return tilekv.open(uri, "a", config=config)

        watch(open_once, 60, time, time.said.append)
        assert opened == 1
        assert time.pauses == [60] * 10_000
        assert most <= MOST_VISIBLE
        assert max(superseded) < 200  # of 2,000
        assert 200 < len(time.said) < 2000
        db.reopen()
        last = {cycle % 100: b"%d" % cycle for cycle in range(5, 10_001, 5)}
        assert dict(db) == last
        assert db.verify() == []


class FakeStore:
    """Its upkeeps have these results, one after the other."""

    def __init__(self, results: Iterator[Exception | None], closed: list[object]) -> None:
        self._results = results
        self._closed = closed

    def upkeep(self, *, progress: object) -> Any:
        result = next(self._results)
        if result is not None:
            raise result
        return tilekv.upkeeping.Upkept()

    def close(self, *, discard: bool) -> None:
        assert discard
        self._closed.append(self)


def test_pauses_double_while_it_fails() -> None:
    """Whatever fails: an upkeep, or opening. Each time the store is opened anew."""
    full = OSError(errno.ENOSPC, "no room", "there")
    results = iter([None, full, *[full] * 3, None, full, None])
    gone = iter([None, None, tilekv.StoreNotFoundError("gone"), *[None] * 9])
    closed: list[object] = []
    made: list[object] = []

    def opened() -> Any:
        error = next(gone)
        if error is not None:
            raise error
        made.append(FakeStore(results, closed))
        return made[-1]

    time = FakeTime(lambda cycle: None, 9)
    watch(opened, 10, time, time.said.append)
    assert time.pauses == [10, 20, 40, 80, 160, 320, 10, 20, 10]
    assert time.said[0] == "there: no room; trying again in 20 s"
    assert time.said[2] == "gone; trying again in 80 s"
    assert len(time.said) == 6
    assert closed == made  # the last at the end
    assert len(made) == 6


@pytest.mark.parametrize("every", [60.0, 7200.0])
def test_pauses_end_somewhere(every: float) -> None:
    def opened() -> Any:
        raise MemoryError

    time = FakeTime(lambda cycle: None, 100)
    watch(opened, every, time, time.said.append)
    assert time.pauses[-1] == max(every, LONGEST_PAUSE_S)
    assert all(math.isfinite(pause) for pause in time.pauses)


def test_a_store_that_another_takes_the_place_of(path: Path) -> None:
    def meanwhile(cycle: int) -> None:
        if cycle == 1:
            tilekv.open(path, "w", schema=SMALL).close()
            small_fragments(path, FAN)

    time = FakeTime(meanwhile, 3)
    watch(lambda: tilekv.open(path, "a", config=BY_HAND), 5, time, time.said.append)
    first, replaced, last = time.said
    assert first.startswith(f"merged {FAN} fragments")
    assert replaced.endswith("; trying again in 10 s")
    assert last.startswith(f"merged {FAN} fragments")
    assert time.pauses == [5, 10, 5]
    assert len(folders(path)) == 1


def test_what_is_no_error_of_a_store_ends_it(path: Path) -> None:
    time = FakeTime(lambda cycle: None, 3)
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 // 0, 5, time, time.said.append)  # type: ignore[arg-type,return-value]


def test_it_ends_within_a_merge(path: Path) -> None:
    stop = threading.Event()
    stop.set()
    said: list[str] = []
    watch(lambda: tilekv.open(path, "a", config=BY_HAND), 5, stop, said.append)
    assert said == []
    assert len(folders(path)) == FAN
    assert not list(path.glob(".tilekv/staged/*"))
    assert record_of(path).claims == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_watches_ends_cleanly(path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-P", "-m", "tilekv", "upkeep", "--watch", "0.05", str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout
            expected = dict.fromkeys(range(FAN), b"x")
            for merged in ({FAN}, {FAN, FAN + 1}):  # it may come before the last has been flushed
                moment, _, said = process.stdout.readline().partition(" ")
                assert len(moment) == len("2026-01-02T03:04:05+0000")
                assert any(said.startswith(f"merged {n} fragments into 1, ") for n in merged)
                if len(expected) == FAN:
                    expected |= small_fragments(path, FAN, FAN)
            process.send_signal(number)
            said, err = process.communicate(timeout=HANG)
        except BaseException:
            process.kill()  # nobody else ends it
            raise
    assert (process.returncode, said, err) == (0, "", "")
    assert contents(path) == expected

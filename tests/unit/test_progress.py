"""What a long call tells of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tilekv
from life import SMALL
from tilekv.progress import reporter


def merge(path: Path, monkeypatch: pytest.MonkeyPatch, **config: int) -> list[tuple[int, int]]:
    """The reports of a consolidation of 3 times 500 cells."""
    monkeypatch.setattr("tilekv.consolidation.PORTION_CELLS", 50)
    told: list[tuple[int, int]] = []
    config = {f"kv.{name}": value for name, value in config.items()}
    with tilekv.open(path, "a", schema=SMALL, config=config) as db:
        for _ in range(3):
            db.put_many(dict.fromkeys(range(500), b"x"))
            db.flush()
        db.consolidate(progress=lambda *report: told.append(report))
        db.vacuum()
    return told


@pytest.mark.parametrize("most", [1 << 30, 2000])
def test_consolidation_rises_to_its_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    told = merge(tmp_path / "store", monkeypatch, max_fragment_bytes=most)
    done = [report[0] for report in told]
    assert {report[1] for report in told} == {1500}
    assert done == sorted(done)
    assert len(set(done)) >= 10
    assert done[-1] == 1500
    assert done.count(1500) == 1


def test_vacuum_rises_to_its_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with tilekv.open(tmp_path / "store", "a") as db:
        for flush in range(3):
            db.put_many({flush: b"x", "k": b"%d" % flush})
            db.flush()
            db.consolidate()
        db.vacuum(progress=lambda *report: told.append(report))
        done = [report[0] for report in told]
        assert done == sorted(done)
        assert {report[1] for report in told} == {4}
        assert done[-1] == 4
        told.clear()
        db.vacuum(progress=lambda *report: told.append(report))
        assert told == [(0, 0)]


def test_callable_is_called_as_it_is() -> None:
    def function(done: int, total: int) -> None:
        pass

    assert reporter(function, "merging") is function


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_is_shown_unless_asked(
    progress: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reporter(progress, "merging")
    report(1, 2)
    report(2, 2)
    assert capsys.readouterr() == ("", "")


def test_lines_for_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    report = reporter(True, "merging")
    for done in range(1001):
        report(done, 1000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"merging: {percent}%" for percent in range(0, 101, 10)]


def test_one_line_for_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = reporter(True, "merging")
    for done in range(1001):
        report(done, 1000)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.endswith("\rmerging: 100%\n")
    assert err.count("\r") == 101


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    reporter(True, "vacuuming")(0, 0)
    assert capsys.readouterr().err == "vacuuming: 100%\n"

"""What rich draws of the command line on a terminal, and that it draws nothing anywhere else."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tilekv
from tilekv import drawing
from tilekv.cli.progress import Progress
from tilekv.progress import reporter

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WITHOUT = """import sys
sys.modules["rich"] = None
from tilekv.cli.command import main
sys.exit(main(sys.argv[1:]))
"""


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with tilekv.open(tmp_path / "s", "x", config={"kv.upkeep": "off"}) as db:
        for i in range(3):
            db.update({f"{i}/[bold]cat.jpg": b"miau", f"{i}/dog.jpg": b"wuff"})
            db.flush()
    return tmp_path / "s"


def run(*words: object) -> tuple[bytes, bytes]:
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, timeout=60, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "words", [["info"], ["du"], ["ls", "-l"], ["consolidate", "--progress"], ["verify"]]
)
def test_a_file_gets_the_same_with_and_without_it(place: Path, words: list[str]) -> None:
    out, err = run("-m", "tilekv", *words, place)
    if words[0] == "consolidate":  # the second time there is nothing to merge
        assert err == b"consolidating: 100%\n"
        return
    assert (out, err) == run("-c", WITHOUT, *words, place)
    assert b"\x1b" not in out


def seen(*words: object, code: str | None = None) -> str:
    """What a terminal is sent by a command."""
    ours, its = os.openpty()
    start = ["-m", "tilekv"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, words)]
    environment = {**os.environ, "COLUMNS": "60"}
    with subprocess.Popen(command, stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        told = b""
        try:
            while part := os.read(ours, 1 << 16):
                told += part
        except OSError:  # how a terminal ends
            pass
    os.close(ours)
    assert process.returncode == 0
    return told.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", ["info", "du"])
def test_tables_on_a_terminal(place: Path, command: str) -> None:
    text = seen(command, place)
    plain = seen(command, place, code=WITHOUT)
    assert "─" * 10 in text
    assert "─" not in plain
    assert "\x1b" not in plain
    words = set(re.findall(r"[\w/.,]+", ESCAPE.sub("", text)))
    assert set(re.findall(r"[\w/.,]+", plain)) - words == set()
    if command == "du":
        rows = [line.split() for line in ESCAPE.sub("", text).splitlines() if "/" in line]
        assert rows == [["8", "2", "entries", f"{i}/"] for i in range(3)]


def test_progress_on_a_terminal(place: Path) -> None:
    text = seen("consolidate", place)
    lines = ESCAPE.sub("", text).split("\n")[0].split("\r")
    assert lines[-1] == f"consolidating: {'━' * 30}  100%"
    assert "\x1b[" in text


def test_a_bar_is_as_wide_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for fraction in (0.0, 0.3, 0.5, 1.0):
        drawn = drawing.bar(Screen(), 20, fraction)
        assert drawn is not None
        assert len(ESCAPE.sub("", drawn)) == 20
    monkeypatch.setattr(sys, "stderr", Screen())
    report = reporter(True, "merging")
    report(1, 2)
    report(2, 2)
    assert ESCAPE.sub("", sys.stderr.getvalue()).endswith(f"merging: {'━' * 30}  100%\n")


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_an_import_stays_on_its_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen()
    with Progress(10, 100, screen) as bar:
        for _ in range(10):
            bar.advance(1, 10)
    pictures = [ESCAPE.sub("", picture) for picture in screen.getvalue().strip().split("\r")[1:]]
    assert all(len(picture) < columns for picture in pictures)
    assert pictures[-1].startswith("100%")

"""What argcomplete tells a shell of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def completions(line: str, folder: Path) -> list[str]:
    """What could end the last word of a line, asked as argcomplete's function of bash asks."""
    told = folder / "told"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "IFS": "\013",
    }
    script = Path(sys.executable).with_name("tilekv")
    run = subprocess.run(
        [script], check=False, env=os.environ | asked, cwd=folder, capture_output=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, b"")
    return [word.strip() for word in told.read_text().split("\013")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tilekv br", ["browse"]),
        ("tilekv ba", ["backup"]),
        ("tilekv browse --o", ["--open"]),
        ("tilekv get --type b", ["bytes"]),
    ],
)
def test_what_can_come_next(tmp_path: Path, line: str, words: list[str]) -> None:
    assert completions(line, tmp_path) == words


def test_stores_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "photos.kv").mkdir()
    assert completions("tilekv info pho", tmp_path) == ["photos.kv/"]

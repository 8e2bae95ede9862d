"""What today's TileDB adds to a store: said by name, and left out by who asks for it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tilekv
from tilekv.__main__ import main

ADDER = Path(__file__).parents[1] / "support" / "tiledb_adder.py"
EXPECTED = {0: b"v0", 1: b"v1", "last": b"v1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "store", "x") as db:
        for i in range(2):
            db[i] = db["last"] = b"v%d" % i
            db.flush()
    return tmp_path / "store"


def tiledb_does(root: Path, *steps: str) -> None:
    command = [sys.executable, "-P", ADDER, root, *steps]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def fragments(root: Path) -> list[str]:
    return sorted(os.listdir(root / "__fragments"))


@pytest.mark.parametrize(
    "steps", [("write",), ("write", "write"), ("write", "commits"), ("write", "consolidate")]
)
def test_a_row_that_tiledb_added(root: Path, steps: tuple[str, ...]) -> None:
    """A consolidation that has not been vacuumed has removed nothing."""
    tiledb_does(root, *steps)
    added = fragments(root)
    assert added
    with pytest.raises(tilekv.FormatError) as info:
        tilekv.open(root)
    said = str(info.value)
    assert [name for name in added if name not in said] == []
    assert "ignore_newer=True" in said
    assert "untouched" in said
    with tilekv.open(root, ignore_newer=True) as db:
        assert dict(db) == EXPECTED
        db.reopen()
        assert dict(db) == dict(pickle.loads(pickle.dumps(db))) == EXPECTED
        moment = db.fragments[0].t2
    with tilekv.open(root, timestamp=moment, ignore_newer=True) as db:
        assert dict(db) == EXPECTED


def test_it_goes_with_reading(root: Path) -> None:
    for mode in ("a", "x", "w"):
        with pytest.raises(tilekv.InvalidValueError, match="mode 'r'"):
            tilekv.open(root, mode, ignore_newer=True)  # type: ignore[arg-type]
    with tilekv.open(root, ignore_newer=True) as db:  # nothing was added
        assert dict(db) == EXPECTED


@pytest.mark.parametrize("steps", [(), ("write",), ("write", "commits")])
def test_what_tiledb_merged_away_is_refused(root: Path, steps: tuple[str, ...]) -> None:
    tiledb_does(root, "write", "consolidate", "vacuum", *steps)
    merged = next(name for name in fragments(root) if name.split("_")[2] != name.split("_")[3])
    for ignore in (False, True):
        with pytest.raises(tilekv.FormatError, match=f"removed them .{re.escape(merged)}"):
            tilekv.open(root, ignore_newer=ignore)


def test_merged_away_in_part(root: Path) -> None:
    """A vacuum of TileDB's that was interrupted."""
    tiledb_does(root, "write", "consolidate")
    mine = next(path for path in root.iterdir() if path.name.startswith("__1"))
    mine.rename(root / ".tmp-gone")
    with pytest.raises(tilekv.FormatError, match="removed them"):
        tilekv.open(root, ignore_newer=True)


def test_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiledb_does(root, "write")
    for arguments in (
        ["ls", str(root)],
        ["get", str(root), "last"],
        ["info", str(root)],
        ["export", str(root), str(tmp_path / "out")],
    ):
        assert main(arguments) != 0
        assert "--ignore-newer" in capsys.readouterr().err
        if arguments[0] != "export":  # some keys are no paths
            assert main([*arguments, "--ignore-newer"]) == 0
            assert capsys.readouterr().out

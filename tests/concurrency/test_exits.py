"""A process that ends with a handle open: what it had not flushed is flushed where Python collects the handle, lost where the
process just ends, and never harms what is there."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import contents
from life_workers import leave

BEGIN = """
import os, signal, sys
import tilekv

def fill(n):
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=16)
    db = tilekv.open(sys.argv[1], "a", schema=schema, config={"kv.sync": False, "kv.threads": 4})
    db["flushed"] = b""
    db.flush()
    db.put_many({i: b"%d" % i for i in range(n)})
    return db

n = int(sys.argv[2])
"""
FEW, MANY, MOST = 10, 10_000, 70_000  # of many threads encode, of most they sort too


def run(path: Path, n: int, program: str, *options: str) -> tuple[int, str]:
    """Exit status and stderr."""
    code = BEGIN + textwrap.dedent(program)
    command = [sys.executable, "-P", *options, "-c", code, str(path), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


ENDS = {
    "a global": "db = fill(n)",
    "a function returns": """
        def main():
            db = fill(n)
            db.get(1)
        main()
        """,
    "a cycle": """
        db = fill(n)
        cycle = [db]
        cycle.append(cycle)
        del db, cycle
        """,
    "an exception": """
        def main():
            db = fill(n)
            raise SystemExit("an error")
        main()
        """,
    "sys.exit": "db = fill(n)\nsys.exit('an error')",
}


@pytest.mark.parametrize(
    ("end", "n"), [*((end, MANY) for end in ENDS), ("a global", FEW), ("a cycle", MOST)]
)
def test_a_program_that_never_closes(tmp_path: Path, end: str, n: int) -> None:
    """It is flushed, and warned."""
    path = tmp_path / "store"
    status, told = run(path, n, ENDS[end], "-W", "always")
    assert status == ("an error" in ENDS[end])
    assert "was never closed: flushing" in told
    assert contents(path) == {"flushed": b""} | {i: b"%d" % i for i in range(n)}


def test_warnings_are_errors(tmp_path: Path) -> None:
    """It is flushed all the same."""
    path = tmp_path / "store"
    _, told = run(path, FEW, ENDS["a function returns"], "-W", "error")
    assert "ResourceWarning" in told
    assert len(contents(path)) == FEW + 1


def test_what_cannot_be_flushed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store"
    program = """
        import shutil
        def main():
            db = fill(n)
            shutil.rmtree(sys.argv[1])
        main()
        """
    _, told = run(path, FEW, program)
    assert "Exception ignored" in told
    assert "StoreNotFoundError" in told


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_program_that_dies(tmp_path: Path, end: str) -> None:
    """What it had flushed is there."""
    path = tmp_path / "store"
    status, _ = run(path, MANY, f"db = fill(n)\n{end}")
    assert status == (3 if "_exit" in end else -signal.SIGKILL)
    assert contents(path) == {"flushed": b""}


@pytest.mark.parametrize("how", ["exits", "returns", "raises"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_that_never_closes(tmp_path: Path, method: str, how: str) -> None:
    """What the child has flushed is there; of its parent's it writes nothing, and neither of the two is in the other's way."""
    path = tmp_path / "store"
    context: Any = multiprocessing.get_context(method)
    config = {"kv.sync": False, "kv.upkeep": "off"}  # a flush follows nobody
    with tilekv.open(path, "a", config=config) as db:
        db["before"] = b"1"
        db.flush()
        if method == "fork":
            db["parent"] = b"2"  # a handle with a buffer does not travel
        child = context.Process(target=leave, args=(db, how))
        child.start()
        child.join(60)
        assert child.exitcode == {"exits": 3, "returns": 0, "raises": 1}[how]
        flushed = {"before": b"1", "child": b"3", "own": b"4"}
        found = contents(path)
        assert {key: found.get(key) for key in flushed} == flushed
        assert found.keys() - flushed.keys() <= {"left", "left in its own"}
        if (
            how == "returns"
        ):  # after an exception its traceback holds the handle, and multiprocessing ends by os._exit
            assert found["left in its own"] == b"6"
        db["parent"] = b"2"
        db.flush()
        assert contents(path) == found | {"parent": b"2"}
        assert dict(db.items()) == {"before": b"1", "parent": b"2"}

"""TileDB's tutorial: both programs print the tutorial's lines, and leave on disk what it lists."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tilekv
from tilekv.names import FragmentName

DEMO = Path(__file__).parents[2] / "demo"

# The lines of the tutorial. Iteration is "in random order" there, so lines are compared sorted.
PYTHON = """\
key_1: 1
key_2: 2
key_3: 3
key: 'key_1', value: '1'
key: 'key_3', value: '3'
key: 'key_2', value: '2'
"""
CPP = """\
Simple read
key_1, a1: 1
key_1, a2: 1.1
key_2: a1: 2
key_3: a2: 3.1

Iterating over map items
key: key_3, a1: 3, a2: 3.1
key: key_2, a1: 2, a2: 2.1
key: key_1, a1: 1, a2: 1.1
"""
FILES = [
    "__coords.tdb",
    "__fragment_metadata.tdb",
    "__key.tdb",
    "__key_type.tdb",
    "__key_var.tdb",
    "a1.tdb",
    "a2.tdb",
]


def run(program: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", str(DEMO / program)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def fragments(store: Path) -> list[str]:
    return sorted(name for name in os.listdir(store) if FragmentName.parse(name))


@pytest.mark.parametrize(
    ("program", "expected", "iterated"),
    [("tutorial_py.py", PYTHON, 3), ("tutorial_cpp.py", CPP, 3)],
    ids=["python", "cpp"],
)
def test_programs(program: str, expected: str, iterated: int, tmp_path: Path) -> None:
    lines = run(program, tmp_path)
    wanted = expected.splitlines()
    assert lines[:-iterated] == wanted[:-iterated]
    assert sorted(lines[-iterated:]) == sorted(wanted[-iterated:])


def test_python_program_on_disk(tmp_path: Path) -> None:
    run("tutorial_py.py", tmp_path)
    assert len(fragments(tmp_path / "my_kv")) == 1
    with tilekv.KV(str(tmp_path / "my_kv"), ctx=tilekv.Ctx()) as A:
        A.consolidate()  # the tutorial's line that its program leaves out
        assert dict(A) == {"key_1": "1", "key_2": "2", "key_3": "3"}


def test_cpp_program_on_disk(tmp_path: Path) -> None:
    run("tutorial_cpp.py", tmp_path)
    store = tmp_path / "my_map"
    both = fragments(store)
    assert len(both) == 2  # one a flush
    assert sorted(os.listdir(store / both[0])) == FILES
    assert {"__kv_schema.tdb", "__lock.tdb"} < set(os.listdir(store))
    tilekv.Map.consolidate(tilekv.Context(), str(store))
    assert len(fragments(store)) == 1
    with tilekv.open(store) as db:
        assert db["key_3"] == {"a1": 3, "a2": 3.1}
        assert len(db) == 3


def test_show_tutorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("demo_tutorial", DEMO / "tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.show_tutorial(tmp_path)
    out = capsys.readouterr().out
    for line in (PYTHON + CPP).splitlines():
        assert f"  {line}".rstrip() in out.splitlines()
    first = fragments(tmp_path / "my_map")[0]
    prompts = re.findall(r"^  \$ (.*)$", out, re.MULTILINE)
    assert prompts == [
        "python tutorial_py.py",
        "python tutorial_cpp.py",
        "ls -l my_map",
        f"ls -l my_map/{first}",
    ]
    listed = re.findall(r"^  [-d][-rwx]{9}.* (\S+)$", out, re.MULTILINE)
    assert sorted(listed) == sorted(os.listdir(tmp_path / "my_map") + FILES)

"""Stores of many flushes and of many files, within what a process may hold of descriptors and maps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import limited
import tilekv

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
KEPT = 100 << 10  # what is read into memory of a fragment, usually


@pytest.mark.parametrize(
    ("flushes", "nightly", "attributes", "descriptors", "maps", "kept", "mmap"),
    [
        (8, 1000, 62, 64, 0, KEPT, True),
        (8, 1000, 62, 64, 0, KEPT, False),
        (8, 100, 62, 64, 0, 0, False),  # as of large fragments: every file has a descriptor or none
        (8, 100, 62, 64, 300, 0, True),  # every file has a map or none
        (180, 5000, 1, 1024, 0, KEPT, False),
        (180, 1000, 1, 1024, 0, 0, False),
        (180, 1000, 1, 64, 500, 0, True),
    ],
)
def test_all_works_within_limits(
    tmp_path: Path,
    flushes: int,
    nightly: int,
    attributes: int,
    descriptors: int,
    maps: int,
    kept: int,
    mmap: bool,
) -> None:
    """Write, read, info, verify, salvage, consolidate, vacuum."""
    numbers = [nightly if NIGHTLY else flushes, attributes, descriptors, maps, kept, int(mmap)]
    command = [sys.executable, "-P", limited.__file__, str(tmp_path), *map(str, numbers)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("held at the end: (0, 0, 0)\n")


HANDLES = """
import sys, tilekv
from tilekv.storage import local
local.SMALL_FRAGMENT = int(sys.argv[2])
handles = [tilekv.open(sys.argv[1]) for _ in range(30)]
assert all(db.get(i) == b"v" for db in handles for i in (0, 399))
assert len(handles[0]) == len(handles[29]) == 400
"""


@pytest.mark.parametrize("kept", [KEPT, 0])
def test_thirty_handles_on_a_store_of_400_flushes(tmp_path: Path, kept: int) -> None:
    """A map for each of 84,000 files is more than Linux lets a process have."""
    with tilekv.open(tmp_path / "store", "x", config={"kv.sync": False}) as db:
        for i in range(400):
            db[i] = b"v"
            db.flush()
    command = [sys.executable, "-P", "-c", HANDLES, str(tmp_path / "store"), str(kept)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

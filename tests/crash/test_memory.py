"""Memory that is refused, and reads that fail: a call raises that and has done nothing, or does what it should."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samples import NIGHTLY, some

SUPPORT = Path(__file__).parents[1] / "support"
SEEDS = range(200) if NIGHTLY else some(range(4), 4)

pytestmark = [
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="stands before glibc's allocator"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer has its own allocator"),
]


@pytest.fixture(scope="module")
def refuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """refuse.c, compiled."""
    library = tmp_path_factory.mktemp("refuse") / "refuse.so"
    source = SUPPORT / "refuse.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_refused_once(
    refuse: Path, folder: Path, tally: Callable[..., None], seed: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", SUPPORT / "starved.py", str(seed), folder / "store"],
        env=os.environ | {"LD_PRELOAD": str(refuse), "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused = int(done.stdout)
    assert refused > 100
    tally("requests for memory and reads refused", refused)

"""A value that is larger than what its writer and its reader have of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SIZE = 3_000_000_000 if os.environ.get("TILEKV_NIGHTLY") else 150_000_000
MOST_MIB = 100  # that a process may grow by, with a cache of 8 MiB
PROGRAM = """
import resource, sys, tilekv

BLOCK = bytes(range(256)) * 256

class Made:
    def __init__(self, size):
        self.left = size

    def read(self, n):
        n = min(n, self.left, len(BLOCK))
        self.left -= n
        return BLOCK[:n]

path, size = sys.argv[1], int(sys.argv[2])
with tilekv.open(path, "w", config={"kv.cache_bytes": "8 MiB"}) as db:
    db.put_stream("short", Made(8 << 20))
    with db.open_value("short") as file:
        file.read(1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A read gives whole blocks but the last, so byte i is i % 256.
    db.put_stream("long", Made(size))
    with db.open_value("long") as file:
        at = 0
        while some := file.read(1 << 20):
            assert some == (BLOCK * 17)[at % 256 :][: len(some)]
            at += len(some)
    assert at == size
    assert db.get_range("long", -2) == bytes([(size - 2) % 256, (size - 1) % 256])
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_long_value_takes_little_memory(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "s"), str(SIZE)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=3000)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < MOST_MIB

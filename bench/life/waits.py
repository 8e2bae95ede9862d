"""How often a flush waits for the disk: rounds of syncs, one after the other, counted under strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.life.figures import goal

ENTRIES = (1, 1000, 100_000)
MOST_WAITS = 3
# The calls of getppid stand in strace's log where the flush begins and where it ends.
PROGRAM = """
import os, random, sys, tilekv
path, count = sys.argv[1], int(sys.argv[2])
db = tilekv.open(path, "x")
db.put_many([b"%020d" % i for i in range(count)], [random.randbytes(100) for _ in range(count)])
os.getppid()
db.flush()
os.getppid()
"""


def count(strace: str, folder: Path, entries: int) -> tuple[int, int]:
    """Waits and syncs of a flush. Every sync is made slow, so that those of several threads overlap: they are one wait."""
    log = folder / "strace.log"
    calls = [
        "-e",
        "trace=fsync,fdatasync,getppid",
        "-e",
        "inject=fsync,fdatasync:delay_enter=100ms",
    ]
    program = [sys.executable, "-P", "-c", PROGRAM, str(folder / f"waits {entries}"), str(entries)]
    subprocess.run([strace, "-f", "-o", str(log), *calls, *program], check=True)
    waits = syncs = under_way = 0
    for line in log.read_text().split("getppid()")[1].splitlines():
        if "sync(" in line:
            syncs += 1
            waits += under_way == 0
            under_way += 1
        if "sync" in line and "unfinished" not in line:
            under_way -= 1
    return waits, syncs


def show(folder: Path) -> None:
    """Count and print."""
    strace = shutil.which("strace")
    if strace is None:
        print("waits of a flush for the disk: not counted: strace is not installed")
        return
    found = {entries: count(strace, folder, entries) for entries in ENTRIES}
    for entries, (waits, syncs) in found.items():
        print(f"a flush of {entries:,}: {syncs} syncs, {waits} waits one after the other")
    print(
        goal("waits of a flush for the disk", max(waits for waits, _ in found.values()), MOST_WAITS)
    )

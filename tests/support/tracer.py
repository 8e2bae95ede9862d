"""Operations in another process, under strace: killed, or failed, at any system call."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

import tracee
from tracee import Told

STRACE = shutil.which("strace")
INSTALL = "apt-get install -y --no-install-recommends strace"


class Run(NamedTuple):
    """What became of one operation.

    Attributes
    ----------
    killed : bool
    told : Told
    log : str
        Strace's.
    """

    killed: bool
    told: Told
    log: str

    def counts(self) -> Counter[str]:
        """How often each system call was made."""
        return Counter(re.findall(r"^(\w+)\(", self.log, re.MULTILINE))


class Tracer:
    """Starts a tracee; a context manager. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        assert STRACE, f"these tests need strace; as root: {INSTALL}"
        self._strace = STRACE
        self._log = folder / f"strace {id(self)}"
        support = str(Path(tracee.__file__).parent)
        # No thread but Python's own, and nothing written that is not the store's.
        alone = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": support}
        self._process = subprocess.Popen(
            [sys.executable, "-P", tracee.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | alone,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, operation: str, folder: Path, calls: str, inject: str | None = None) -> Run:
        """Do an operation in a folder, with `calls` traced, and perhaps one injected: `write:signal=SIGKILL:when=3`."""
        pid = int(self._ask(json.dumps([operation, str(folder)])))
        injected = [] if inject is None else ["-e", f"inject={inject}"]
        command = [self._strace, "-y", "-p", str(pid), "-o", str(self._log), "-e", f"trace={calls}"]
        with subprocess.Popen([*command, *injected], stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            said = strace.stderr.readline()
            if "attached" not in said:
                strace.kill()
                self._process.kill()
                raise OSError(f"strace cannot attach: {said}{strace.stderr.read()}")
            status, told = json.loads(self._ask("go"))
            strace.stderr.read()
        return Run(os.WIFSIGNALED(status), Told(*told), self._log.read_text())

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

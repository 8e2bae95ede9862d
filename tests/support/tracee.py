"""A process that does operations, each in a child that waits until strace is attached to it: only the store's calls are counted.

Files are synced one by one there: strace counts the calls of each thread by itself, and no thread of many could be singled out.

For each line [operation, folder] it prints the child's pid; after another line, and the child's end, its wait status and Told.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tilekv
from operations import OPERATIONS
from tilekv import consolidation
from tilekv.storage import local

_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1 & (1 << 64) - 1)


class Told(NamedTuple):
    """What a child has told, in memory that outlives it: telling takes no system call.

    Attributes
    ----------
    acknowledged : int
        Steps that were.
    errors : int
        Steps that failed, and were taken again.
    code : int
        The last error's errno.
    broken : int
        1 when something was not as it should be; the traceback is on stderr.
    """

    acknowledged: int
    errors: int
    code: int
    broken: int


class _Steps:
    def __init__(self, told: mmap.mmap) -> None:
        self._told = told
        self._handles: list[tilekv.Store] = []

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        def opened() -> None:
            self._handles.append(tilekv.open(uri, mode, config=config))

        self._again(opened, None)
        return self._handles[-1]

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        self._again(step, done)
        self._told[0] += 1

    def _again(self, step: Callable[[], object], done: type[Exception] | None) -> None:
        kept = [db._unflushed() for db in self._handles]
        try:
            step()
        except OSError as error:
            self._told[1] += 1
            self._told[2] = error.errno or 0
            flushed = isinstance(error, tilekv.NotDurableError)
            left = [db._unflushed() for db in self._handles[: len(kept)]]
            assert left == ([0] * len(kept) if flushed else kept)
        else:
            return
        try:
            step()
        except tilekv.TileKVError as error:
            if done is None or not isinstance(error, done):
                raise


def _one_by_one(fds: list[int]) -> list[int]:
    """In the place of `local.sync_all`."""
    errors = []
    for fd in fds:
        try:
            os.fsync(fd)
            errors.append(0)
        except OSError as error:
            errors.append(error.errno or 0)
    return errors


def _child(name: str, folder: Path, told: mmap.mmap) -> None:
    operation = next(each for each in OPERATIONS if each.name == name)
    local.sync_all = _one_by_one
    consolidation.DRAFTS_S = 0  # nobody is about to commit what an error has left
    try:
        operation.run(str(folder / "store"), folder, _Steps(told))
    except BaseException:  # noqa: BLE001 - told to the test
        told[3] = 1
        traceback.print_exc()


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        name, folder = json.loads(line)
        told = mmap.mmap(-1, mmap.PAGESIZE)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            # Where only descendants may be traced, whoever asks may trace this one.
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
            os.read(reader, 1)
            _child(name, Path(folder), told)
            os._exit(0)
        print(pid, flush=True)
        sys.stdin.readline()
        os.write(writer, b"x")
        _, status = os.waitpid(pid, 0)
        print(json.dumps([status, list(told[: len(Told._fields)])]), flush=True)
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    main()

"""What is synced, and in which order: data and folder, rename, parent, before `flush` returns. With kv.sync=False, nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tilekv
from grounds import LocalGround
from operations import OPERATIONS, Operation
from powercut import Disk
from tilekv import commit
from tracer import STRACE, Tracer

OPERATION = {operation.name: operation for operation in OPERATIONS}


def assert_order_of_a_commit(log: list[str]) -> None:
    """Of calls such as `write value.tdb`, `sync hidden` and `rename hidden __1_1_...`."""
    renamed = next(i for i, line in enumerate(log) if line.startswith("rename hidden __"))
    written = {line.removeprefix("write ") for line in log if line.startswith("write ")}
    assert len(written) == 7
    assert "__fragment_metadata.tdb" in written
    assert not any(line.startswith("write") for line in log[renamed:])
    (folder,) = (i for i, line in enumerate(log[:renamed]) if line == "sync hidden")
    for file in written:
        (synced,) = (i for i, line in enumerate(log) if line == f"sync {file}")
        assert max(i for i, line in enumerate(log) if line == f"write {file}") < synced < renamed
        assert log.index(f"create {file}") < folder
    assert log[renamed + 1 :] == ["sync store"]


class Plain:
    """Takes the steps of an operation, with some options."""

    def __init__(self, **options: object) -> None:
        self.options = {f"kv.{name}": value for name, value in options.items()}

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        return tilekv.open(uri, mode, config=self.options | config)

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        step()


def recorded(operation: Operation, folder: Path, **options: object) -> list[str]:
    operation.prepare(folder)
    disk = Disk(folder)
    with disk.recording():
        operation.run(str(folder / "store"), folder, Plain(**options))
    return disk.log


def test_a_flush_on_a_recorded_disk(folder: Path) -> None:
    assert_order_of_a_commit(recorded(OPERATION["flush"], folder))


def test_a_large_flush_on_a_recorded_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data is synced before the metadata is made; their folder waits for both."""
    monkeypatch.setattr(commit, "SYNC_FIRST", 0)
    log = recorded(OPERATION["flush"], folder)
    assert_order_of_a_commit(log)
    metadata = log.index("create __fragment_metadata.tdb")
    assert sum(line.startswith("sync ") for line in log[:metadata]) == 6
    assert log.index("sync hidden") > metadata


def test_a_flush_under_strace(folder: Path) -> None:
    template = folder / "template"
    template.mkdir()
    OPERATION["flush"].prepare(template)
    with LocalGround(folder).world(template) as (_, world), Tracer(folder) as tracer:
        run = tracer.run("flush", world, "openat,write,fsync,?rename,?renameat,?renameat2")
    assert_order_of_a_commit(_calls(run.log))


WAITING = """
import os, random, sys, tilekv
db = tilekv.open(sys.argv[1], "a")
for i in range(int(sys.argv[2])):
    db[i] = random.randbytes(10_000)
os.getppid()
db.flush()
os.getppid()
"""


@pytest.mark.parametrize(("entries", "most"), [(1, 2), (300, 3)])
def test_how_often_a_flush_waits_for_the_disk(folder: Path, entries: int, most: int) -> None:
    """For files and their folder, where these have many bytes also for the metadata, and for the root. On a slow disk, by strace,
    waits of several threads overlap. However many waits, each of the seven files is synced once, and so are both folders.
    """
    log = folder / "log"
    trace = ["-f", "-o", str(log), "-e", "fsync,getppid", "-e", "inject=fsync:delay_enter=100ms"]
    program = [sys.executable, "-P", "-c", WAITING, str(folder / "store"), str(entries)]
    subprocess.run([STRACE or "strace", *trace, *program], check=True, timeout=120)
    syncs = waits = under_way = 0
    for line in log.read_text().split("getppid()")[1].splitlines():
        if "fsync(" in line:
            syncs += 1
            waits += under_way == 0
            under_way += 1
        if "fsync" in line and "unfinished" not in line:
            under_way -= 1
    assert under_way == 0
    assert waits == most
    assert syncs == 9


def _calls(log: str) -> list[str]:
    """Strace's lines in the words of Disk.log."""
    found = []
    for line in log.splitlines():
        name = line.partition("(")[0]
        if name == "openat":
            if "O_CREAT" in line:
                found.append("create " + os.path.basename(line.split('"')[1]))
            continue
        is_rename = name.startswith("rename")
        paths = re.findall(r'"(/[^"]*)"' if is_rename else r"<(/[^>]*)>", line)
        words = [os.path.basename(path) for path in paths]
        words = ["hidden" if word.startswith(".tmp-") else word for word in words]
        if is_rename:
            found.append(f"rename {words[0]} {words[1]}")
        elif words:
            found.append(f"{name.replace('fsync', 'sync')} {words[0]}")
    return found


@pytest.mark.parametrize(
    "operation",
    [
        each for each in OPERATIONS if each.name != "convert" and "backup" not in each.name
    ],  # which have no options
    ids=lambda operation: operation.name,
)
def test_without_sync_nothing_is_synced(operation: Operation, folder: Path) -> None:
    log = recorded(operation, folder, sync=False)
    assert log
    assert not [line for line in log if line.startswith("sync")]

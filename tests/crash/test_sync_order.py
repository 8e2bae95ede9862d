"""What is synced, and in which order: data, folder, rename, parent, before `flush` returns. With kv.sync=False, nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tilekv
from grounds import LocalGround
from operations import OPERATIONS, Operation
from powercut import Disk
from tracer import Tracer

OPERATION = {operation.name: operation for operation in OPERATIONS}


def assert_order_of_a_commit(log: list[str]) -> None:
    """Of calls such as `write value.tdb`, `sync hidden` and `rename hidden __1_1_...`."""
    renamed = next(i for i, line in enumerate(log) if line.startswith("rename hidden __"))
    written = {line.removeprefix("write ") for line in log if line.startswith("write ")}
    assert len(written) == 7
    assert "__fragment_metadata.tdb" in written
    assert not any(line.startswith("write") for line in log[renamed:])
    folder = max(i for i, line in enumerate(log[:renamed]) if line == "sync hidden")
    for file in written:
        (synced,) = (i for i, line in enumerate(log) if line == f"sync {file}")
        assert max(i for i, line in enumerate(log) if line == f"write {file}") < synced
        assert synced < folder
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


def test_a_flush_under_strace(folder: Path) -> None:
    template = folder / "template"
    template.mkdir()
    OPERATION["flush"].prepare(template)
    with LocalGround(folder).world(template) as (_, world), Tracer(folder) as tracer:
        run = tracer.run("flush", world, "write,fsync,?rename,?renameat,?renameat2")
    assert_order_of_a_commit(_calls(run.log))


def _calls(log: str) -> list[str]:
    """Strace's lines in the words of Disk.log."""
    found = []
    for line in log.splitlines():
        name = line.partition("(")[0]
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
    [each for each in OPERATIONS if each.name != "convert"],  # which has no options
    ids=lambda operation: operation.name,
)
def test_without_sync_nothing_is_synced(operation: Operation, folder: Path) -> None:
    log = recorded(operation, folder, sync=False)
    assert log
    assert not [line for line in log if line.startswith("sync")]

"""What tests of a store's life share: a clock they set, and how a store reads."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv import Attr, Schema
from tilekv.names import ASIDE, DESCRIPTOR
from tilekv.record import Record
from tilekv.storage import open_storage

SMALL = Schema([Attr("value", bytes)], capacity=4)


class Clock:
    """Stands for the module `time` where fragments get their timestamps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: int = 1_700_000_000_000) -> None:
        self.now = now  # ms
        monkeypatch.setattr("tilekv.commit.time", self)

    def time_ns(self) -> int:
        return self.now * 1_000_000

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def write(path: Path, *flushes: dict[object, bytes | None], config: object = None) -> None:
    """Each mapping becomes a fragment; None deletes."""
    with tilekv.open(path, "a", schema=None if path.exists() else SMALL, config=config) as db:
        for flush in flushes:
            for key, value in flush.items():
                if value is None:
                    db.delete_many([key])
                else:
                    db[key] = value
            db.flush()


def contents(path: Path, timestamp: Any = None, **config: Any) -> dict[Any, Any]:
    """What a fresh handle reads, the same in every way of reading; nothing of it is damaged."""
    config = {f"kv.{name}": value for name, value in config.items()}
    with tilekv.open(path, timestamp=timestamp, config=config) as db:
        found = dict(db.items())
        assert len(db) == len(found)
        assert db.get_many(list(found)) == list(found.values())
        assert all(db[key] == value for key, value in found.items())
        assert db.verify() == []
    return found


def folders(path: Path) -> set[str]:
    """The fragments in the root."""
    return {each.name for each in path.glob("__*_*_*/")}


def past(path: Path) -> set[str]:
    """The fragments that merges have superseded and set aside."""
    return {each.name for each in path.glob(".tilekv/past/*/")}


def record_of(path: Path) -> Record:
    """The record of merges."""
    file = open_storage(path).record()
    assert file
    return Record.from_file(file)


def everything(path: Path, *, record: bool = True) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too; the record, and what the descriptor says of it, only if they are asked for."""
    found = {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }
    if record:
        return found
    return {
        name: data
        for name, data in found.items()
        if name != DESCRIPTOR and not name.startswith(f"{ASIDE}/record-")
    }


def age(path: Path, days: float) -> None:
    """Set back the times of a file or folder and of all in it."""
    then = time.time() - days * 86400
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))

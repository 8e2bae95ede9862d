"""put_stream, with every call to the storage failing or interrupted in turn: the value is there or it is not, once."""

from __future__ import annotations

import errno
import io
import itertools
from pathlib import Path

import pytest

import tilekv
from faulty import Fault, fault_at

DATA = bytes(range(256)) * 8000  # two megabytes: several chunks


@pytest.mark.parametrize(
    "fault",
    [
        Fault(errno.ENOSPC),
        Fault(errno.EIO, "after"),
        Fault(errno.ENOMEM, error=MemoryError),
        Fault(errno.EINTR, error=KeyboardInterrupt),
        Fault(errno.EINTR, "after", error=KeyboardInterrupt),
    ],
    ids=str,
)
def test_every_call_fails_once(fault: Fault, folder: Path) -> None:
    shown = missing = 0
    config = {"kv.sync": False, "kv.upkeep": "off"}
    for number in itertools.count(1):
        path = folder / str(number)
        with tilekv.open(path, "w", config=config) as db:
            db["a"] = b"old"
            db.flush()
            db["a"], db["b"] = b"buffered", b"1"
            faults = fault_at(number, fault)
            sound = db._engine.storage
            db._engine.storage = db._engine.opener.storage = faults.storage(sound)
            try:
                db.put_stream("a", io.BytesIO(DATA))
                failed = False
            except (OSError, MemoryError, KeyboardInterrupt):
                failed = True
            finally:
                db._engine.storage = db._engine.opener.storage = sound
            assert not db._busy
            there = db["a"] == DATA
            assert there or db["a"] == b"buffered"
            assert there or failed
            shown += there and failed
            missing += not there
            with tilekv.open(path, "a", config=config) as other:
                seen = other.get("a")
                assert seen == DATA if there else seen in (b"old", b"buffered")
                other["a"] = b"newer"
            db.flush()
            db.reopen()
            assert db["b"] == b"1"
            # Whatever was flushed since: what the stream wrote is not written a second time.
            assert db["a"] in ((b"newer",) if there else (b"newer", b"buffered"))
            db.put_stream("a", io.BytesIO(DATA))
            assert db["a"] == DATA
            assert db.verify() == []
        if faults.hit is None:
            break
    assert shown
    assert missing > 5

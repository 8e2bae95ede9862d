"""A day of `everysec`, by a clock of the test's own: what a flush a second leaves in the folder and in memory."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import tilekv
from redis_model import encoded
from redis_server import Stepped
from tilekv.storage.local import LocalStorage
from tilekv.storage.serving import resident_bytes

FLUSHES = 86_400 if os.environ.get("TILEKV_NIGHTLY") else 600
KEYS = 20_000
WRITTEN = 20  # of them, a second


def test_a_day_of_flushes(folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server's own history of a minute fewer than 60 fragments are visible, and fewer than 1,000 folders are there."""
    moment = 1_700_000_000_000
    monkeypatch.setattr(LocalStorage, "now", lambda storage: moment)
    monkeypatch.setattr("tilekv.commit.later_time", lambda storage, known: moment)
    pick = random.Random(1)
    model: dict[bytes, bytes] = {}
    served = Stepped(folder, 1)
    upkeep, store = served.server.upkeep, served.server.database(0).store
    most = names = 0
    settled = 0
    for second in range(FLUSHES):
        moment += 1000
        words = [b"MSET"]
        for _ in range(WRITTEN):
            words += [b"k%d" % pick.randrange(KEYS), pick.randbytes(30).hex().encode()]
        gone = b"k%d" % pick.randrange(KEYS)
        model.update(zip(words[1::2], words[2::2], strict=True))
        model.pop(gone, None)
        served.ends[0].send(encoded(words) + encoded([b"DEL", gone]))
        assert served.step()[0][0] == "OK"
        upkeep.flush_due(0, asked=True)
        upkeep.merge_due()
        most = max(most, len(store.fragments))
        if second % 100 == 99:
            names = max(names, sum(1 for _ in (folder / "store.kv").rglob("*/")))
        if second == FLUSHES // 10:
            settled = resident_bytes()
    grown = resident_bytes() - settled
    assert upkeep.flushes == FLUSHES
    served.close()
    with tilekv.open(folder / "store.kv") as db:
        assert {key.encode(): value for key, value in db.items()} == model
    assert tilekv.verify(folder / "store.kv") == []
    assert (most < 60, names < 1000, grown < 64 << 20) == (True, True, True), (most, names, grown)
    tally("flushes of a served day", FLUSHES)
    print(f"{FLUSHES:,} flushes: {most} fragments, {names} names, {grown >> 20} MiB more")

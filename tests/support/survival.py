"""What must hold after an interruption: the store opens and is sound, holds all that was acknowledged, and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import tilekv
from life import contents
from operations import State

FAST = {"kv.sync": False}


def found(uri: Any) -> State:
    """What a store reads as, in every way of reading; None when there is none. Damage is an error."""
    try:
        return contents(uri, sync=False)
    except tilekv.StoreNotFoundError:
        return None


def check(uri: Any, states: Sequence[State], acknowledged: int) -> State:
    """The store holds every acknowledged step, and the one under way whole or not at all."""
    now = found(uri)
    allowed = states[acknowledged : acknowledged + 2]
    assert now in allowed, (now, "instead of", allowed)
    return now


def go_on(uri: Any, now: State, *, dead: bool = False) -> None:
    """Put, flush, consolidate, vacuum: nothing of what was found is lost, and nothing comes back. `dead`: the system knows that
    who was interrupted has ended; else this process stands for it, and its claims are still alive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tilekv.consolidation.DRAFTS_S", 0
        )  # nobody is about to commit what was interrupted
        if not dead:
            patch.setattr("tilekv.maintenance._is_over", lambda claim, now: True)
        _go_on(uri, now)


def _go_on(uri: Any, now: State) -> None:
    expected = dict(now or {}) | {"gone on": b"1"}
    with tilekv.open(uri, "a", config=FAST) as db:
        if len(db.schema.attrs) > 1:
            row: Any = {
                attr.name: b"1" if attr.type_name == "bytes" else 1 for attr in db.schema.attrs
            }
            expected["gone on"] = row
        db["gone on"] = expected["gone on"]
        db.flush()
        db.consolidate(vacuum=True)
        assert dict(db.items()) == expected
        assert db.verify() == []

"""A job of two parts, one of them written twice, whose commit fails at every call: it is done or not, and a second does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tilekv
from faulty import BEFORE, KILLS, Fault, Faults, Killed, every_call, everywhere, fault_at
from tilekv.tools.jobs import Job, begin_job, commit_job, write_part

OLD = dict.fromkeys(range(20), b"old")
NEW = {0: b"0", 1: b"1", 60: b"1"}
FAULTS = [BEFORE[1], Fault(BEFORE[1].code, "after"), *KILLS]


def begin_twice(place: Any, mode: str) -> tuple[Job, list[str]]:
    """A job whose parts were written, and the names that it is to commit; those of the first attempt are lost."""
    job = begin_job(place, mode)
    write_part(job, 0, lambda store: store.put_many([1], [b"lost"]))
    names = []
    for part in range(2):
        rows = {part: b"%d" % part, 60: b"%d" % part}
        names += write_part(job, part, lambda store, rows=rows: store.update(rows))
    return job, names


def wanted(mode: str) -> dict[int, bytes]:
    """What is in a store of OLD after the commit."""
    return OLD | NEW if mode == "append" else NEW


def fail_everywhere(new_place: Callable[[], str], mode: str, fault: Fault) -> int:
    """How many calls there were."""

    def attempt(number: int) -> Faults:
        place = new_place()
        with tilekv.open(place, "w") as db:
            db.update(OLD)
        job, names = begin_twice(place, mode)
        faults = fault_at(number, fault)
        try:
            with everywhere(faults):
                commit_job(job, names)
        except (OSError, Killed):
            pass
        with tilekv.open(place) as db:
            assert dict(db.items()) in (OLD, wanted(mode))
        commit_job(job, names)
        with tilekv.open(place) as db:
            assert dict(db.items()) == wanted(mode)
            assert db.verify() == []
        return faults

    return every_call(attempt)

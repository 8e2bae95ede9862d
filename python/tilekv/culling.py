"""What has to go from a store that is to have no more than so many bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tilekv import consolidation
from tilekv.expiry import NEVER
from tilekv.kvcore.format.datatypes import CODES
from tilekv.kvcore.values.values import Column
from tilekv.store import Store

CULL_S: Final = 10.0  # between two looks whether something has to go
CULLED: Final = 0.1  # of the bound, that a cull frees at least


def stored_bytes(store: Store) -> int:
    """The bytes of the fragments that a handle sees."""
    return sum(fragment.stored_bytes for fragment in store.fragments)


def next_to_expire(store: Store, most: int, check: Callable[[], object]) -> list[Any]:
    """The keys whose entries would expire next, as many as have to be deleted for the others to fit into `most` bytes.

    All entries are taken to be of one size; those that never expire are left. None where the store keeps no moments of expiry.

    Parameters
    ----------
    check : callable
        Called now and then; what it raises ends the search.
    """
    stored = stored_bytes(store)
    if stored <= most or not store.schema.expires:
        return []
    column = Column("__expires", store._layout.expires, CODES["<i8"], np.dtype("<i8"), ())
    entries = store.scan([])._of((column,))
    parts: list[Any] = []
    for batch in entries:
        check()
        parts.append(batch["__expires"])
    moments = np.concatenate([np.empty(0, np.int64), *parts])
    ending = moments[moments != NEVER]
    if not len(ending):
        return []
    n = min(int((stored - most + CULLED * most) / (stored / len(moments))) + 1, len(ending))
    last = np.partition(ending, n - 1)[n - 1]
    before = int(np.count_nonzero(ending < last))
    keys: list[Any] = []
    ties: list[Any] = []
    for batch in entries:  # the same ones: no list of all keys is made
        check()
        part = batch["__expires"]
        if part.min(initial=NEVER) <= last:
            there = batch.keys
            keys += [there[int(i)] for i in np.flatnonzero(part < last)]
            ties += [there[int(i)] for i in np.flatnonzero(part == last)[: n - before]]
    return keys + ties[: n - before]


def cull(store: Store, most: int, report: Callable[..., object]) -> int:
    """Delete the entries that expire next, as many as bring a store within `most` bytes, and merge what is left; how many.

    Parameters
    ----------
    report : callable
        Called now and then, of merges with (cells done, cells in all); what it raises ends it.

    Raises
    ------
    StoreBusyError, CorruptionError, OSError
        As `Store.flush` and `Store.consolidate`. What is deleted stays so.
    """
    gone = next_to_expire(store, most, report)
    if gone:
        store.delete_many(gone)
        store.flush()
        consolidation.consolidate(store._engine, report)
        store._follow()
    return len(gone)

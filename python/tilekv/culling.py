"""What has to go from a store that is to have no more than so many bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

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
    moments: list[Any] = []
    keys: list[Any] = []
    total = 0
    for batch in store.scan([])._of((column,)):
        check()
        words = batch["__expires"]
        total += len(words)
        ends = np.flatnonzero(words != NEVER)
        moments.append(words[ends])
        there = batch.keys
        keys += [there[int(i)] for i in ends]
    if not keys:
        return []
    n = min(int((stored - most + CULLED * most) / (stored / total)) + 1, len(keys))
    order = np.argsort(np.concatenate(moments), kind="stable")[:n]
    return [keys[int(i)] for i in order]

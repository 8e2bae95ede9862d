"""How many keys a database has: all are counted once, behind the loop, and from then on only what was written since."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Final

from tilekv.errors import TileKVError
from tilekv.kvcore.batch.key_count import count_change
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.store import Store

PART_CELLS: Final = (
    1 << 20
)  # of a count, between two looks whether it is to go on: a tenth of a second
ANEW_S: Final = 60.0  # where entries expire, all are counted again after so long,
ANEW: Final = 100  # or after so many times as long as that takes, if that is longer


class Stopped(Exception):
    """The server ends."""


class _Interrupted(Exception):
    """What was being counted is about to change."""


class KeyCount:
    """The keys of one store, by its handle. Any number of threads; a count that is under way is waited for, but by `told`.

    What counts is a snapshot, so many keys and a moment: what the handle shows beside that was written since, and is looked up in
    the snapshot. Whoever merges has the count moved to what is there before and after: a merge changes no count, but what it has
    merged cannot be told from the rest any more. Where that was not done, all are counted again.

    Attributes
    ----------
    wanted : bool
        Whether anybody has asked. Until then nothing that is written is looked up.
    """

    def __init__(self, store: Store) -> None:
        self.wanted = False
        self._store = store
        self._lock = threading.Lock()
        self._base: Snapshot | None = None
        self._count = 0
        self._then = 0  # what had expired by then, in ms since 1970, is not counted
        self._counted = 0.0  # when, by the monotonic clock
        self._took = 0.0
        self._stopped = False
        self._hurried = False

    def begin(self) -> None:
        """Count all, unless that was done a moment ago. Stopped when it is to end."""
        with self._lock, suppress(_Interrupted):
            if self._base is None or self.is_old():
                self._count_all(self._store._open_snapshot())

    def stop(self) -> None:
        """Have counts end."""
        self._stopped = True

    def exact(self, anew: bool = True) -> int:
        """How many there are, but for what has expired since: in the last minute, if they may be counted `anew`. Raises what
        reading meets, and Stopped."""
        while True:
            with self._lock, suppress(_Interrupted):
                self.wanted = True
                snapshot, buffers = self._store._layers()
                if (anew and self.is_old()) or not self._move(snapshot):
                    self._count_all(snapshot)
                assert self._base is not None
                nothing = self._store._engine.opener.assemble([])
                return self._count + count_change(self._base, self._then, nothing, buffers)

    @property
    def busy(self) -> bool:
        """Whether a count is under way."""
        return self._lock.locked()

    def is_ready(self) -> bool:
        """Whether `exact` is quick unless it counts anew, as far as is known."""
        return self._base is not None and not self.busy

    def is_old(self) -> bool:
        """Whether too much may have expired since all were counted."""
        age = time.monotonic() - self._counted
        return self._store._layout.expires >= 0 and age > max(ANEW_S, ANEW * self._took)

    def estimate(self) -> int:
        """About how many there are: as many as were counted, or cells, of which some may be of one key."""
        self.wanted = True
        if self._base is not None:
            return self._count
        fragments = self._store._open_snapshot().fragments
        return max(sum(each.cells - 2 * each.tombstones for each in fragments), 0)

    def move(self) -> None:
        """Have what was written so far in the count, before or after a merge, if anybody wants to know."""
        if not self.wanted:
            return
        with self._lock:
            if self._base is not None and not self._move(self._store._open_snapshot()):
                self._base = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While something else than writes changes what is there: all are counted anew then. A count under way ends."""
        self._hurried = True
        with self._lock:
            self._hurried = False
            self._base = None
            yield

    def _count_all(self, snapshot: Snapshot) -> None:
        begun = time.monotonic()
        now = self._store._clock() or 0
        fragments = snapshot.fragments
        if len(fragments) == 1 and not now:
            count = fragments[0].cells - fragments[0].tombstones
        else:
            parts = sum(each.cells for each in fragments) // PART_CELLS + 1
            bounds = [(i << 128) // parts for i in range(parts + 1)]
            count = 0
            for low, high in pairwise(bounds):
                if self._stopped:
                    raise Stopped
                if self._hurried:
                    raise _Interrupted
                count += Merge(snapshot, (), False, now, low, high).count()
        self._base, self._count, self._then = snapshot, count, now
        self._counted = time.monotonic()
        self._took = self._counted - begun

    def _move(self, snapshot: Snapshot) -> bool:
        """Count what is in a newer snapshot and not in the counted one; False when nobody can tell what that is."""
        base = self._base
        if base is None:
            return False
        known = {*base.names}
        names = {*snapshot.names}
        if known == names:
            return True
        young, older = [], []
        merged: set[str] = set()
        try:
            for fragment in snapshot.fragments:
                sources = {*fragment.sources}
                if fragment.name in known or (sources and sources <= known):
                    older.append(fragment)
                    merged |= sources
                elif older or sources:
                    return False
                else:
                    young.append(fragment)
            if not known - names <= merged:
                return False
            assemble = self._store._engine.opener.assemble
            base = assemble(older)
            if young:
                self._count += count_change(base, self._then, assemble(young), ())
        except (TileKVError, OSError):  # what it was counted from is gone
            return False
        self._base = snapshot
        return True

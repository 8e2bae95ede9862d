"""A store that keeps itself: tiers are merged, and what history no longer needs is removed (docs/design.md 6.9, 6.10)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from tilekv.consolidation import merge, settled_prefix
from tilekv.engine import Engine
from tilekv.kvcore.read.fragment import Fragment
from tilekv.maintenance import Claimed, Maintenance, State
from tilekv.names import FragmentName
from tilekv.record import Record
from tilekv.tiers import choose, most_behind
from tilekv.vacuuming import clear, outlived, remove_superseded, superseded

# Whatever history says, no more is kept of what is superseded, but for "all": a folder is listed by every open.
MOST_SUPERSEDED: Final = 1000
# Bytes, over those that are live: with these, the record and what is being written, a folder has three times as many at most.
MOST_TIMES_LIVE: Final = 1.75
# Bytes that never matter: about what a thousand fragments of a few entries have.
LITTLE: Final = 4 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

Report = Callable[[int, int], object]


@dataclass(frozen=True)
class Upkept:
    """What an upkeep has done.

    Attributes
    ----------
    merges : int
    merged, made : int
        Fragments that were merged, and made of them.
    read_bytes : int
        Bytes of the merged ones.
    removed : int
        Superseded fragments that are gone.
    skipped : tuple of str
        What it has not done, and why.
    """

    merges: int = 0
    merged: int = 0
    made: int = 0
    read_bytes: int = 0
    removed: int = 0
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.merges:
            parts.append(
                f"merged {self.merged} fragments into {self.made}, {self.read_bytes:,} bytes"
            )
        if self.removed:
            parts.append(f"removed {self.removed} superseded fragments")
        return "; ".join([*parts, *self.skipped]) or "nothing to do"


class Upkeep:
    """Keeps one store: each `run` does what there is to do.

    Parameters
    ----------
    behind : bool
        It is done behind who writes: no merge reads more than `most_behind` says.

    Attributes
    ----------
    seen : int
        Visible fragments when it last looked for neighbours.
    shared : bool
        Whether others were merging some of them.
    """

    def __init__(self, engine: Engine, behind: bool = False) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._full = engine.max_fragment_bytes
        self._behind = behind
        self._skipped: list[str] = []
        self.seen = 0
        self.shared = False

    def run(
        self,
        opened: dict[str, Fragment] | None = None,
        report: Report = lambda done, total: None,
        check: Callable[[], object] = lambda: None,
    ) -> Upkept:
        """Merge tiers, the smallest first, each committed by itself; then remove what history no longer needs.

        Parameters
        ----------
        opened : dict, optional
            Fragments that are open, by name.
        report : callable
            Told how far a merge has come, (done, total) in cells; what it raises ends the upkeep, and nothing is left of the
            merge under way.
        check : callable
            Called before every few fragments that are removed; what it raises ends the upkeep, too.

        Raises
        ------
        StoreBusyError, CorruptionError, OSError
            As `consolidate` and `vacuum`. What was done before stays.
        """
        self._skipped.clear()
        self._engine.check_identity()
        maintenance = Maintenance(self._engine, opened)
        done = Upkept()
        while claimed := maintenance.claim(lambda state: self._neighbours(maintenance, state)):
            try:
                size = sum(self._size(maintenance, name) for name in claimed.sources)
                removed = self._forget(maintenance, check, size)
            except BaseException:
                maintenance.release(claimed.owner)
                raise
            made = self._merged(maintenance, claimed, report)
            done = replace(done, removed=done.removed + removed)
            if not made:
                break
            done = replace(
                done,
                merges=done.merges + 1,
                merged=done.merged + len(claimed.sources),
                made=done.made + len(made),
                read_bytes=done.read_bytes + size,
            )
        if maintenance.opener.record() is not None:
            maintenance.lengthen()
            done = replace(done, removed=done.removed + self._forget(maintenance, check))
        clear(maintenance)
        return replace(done, skipped=tuple(self._skipped))

    def _forget(
        self, maintenance: Maintenance, check: Callable[[], object], coming: int = 0
    ) -> int:
        """Remove what history no longer needs; how much. Before a merge that is to supersede so many bytes: what it writes, and
        then what it has read, is within the bounds, too."""

        def going(record: Record, names: list[FragmentName]) -> list[FragmentName]:
            return self._outlived(record, names, coming)

        record = maintenance.record()
        if not going(record, superseded(self._storage, record)):
            return 0
        return remove_superseded(maintenance, going, lambda done, total: check())

    def foresee(self) -> Upkept:
        """What the next `run` would begin with: its first merge, and what it would remove before that."""
        self._skipped.clear()
        maintenance = Maintenance(self._engine)
        record = maintenance.opener.record() or maintenance.opener.seed(self._storage.list())
        state = maintenance.state(record)
        chosen = self._neighbours(maintenance, state) if state else ()
        once = int(bool(chosen))
        size = sum(self._size(maintenance, name) for name in chosen)
        going = self._outlived(record, superseded(self._storage, record), size)
        return Upkept(once, len(chosen), once, size, len(going), tuple(self._skipped))

    # --- merges ---

    def _merged(
        self, maintenance: Maintenance, claimed: Claimed, report: Report
    ) -> Sequence[FragmentName]:
        """What was made; nothing when it did not fit any more. On a full disk what is superseded goes first."""
        try:
            return merge(maintenance, claimed, report)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            if not remove_superseded(maintenance, lambda record, names: names):
                raise
        again = maintenance.claim(
            lambda state: claimed.sources if {*claimed.sources} <= state.settled else ()
        )
        return merge(maintenance, again, report) if again else ()

    def _neighbours(self, maintenance: Maintenance, state: State) -> Sequence[FragmentName]:
        """What to merge next, oldest first. Fragments of one first time are one."""
        self.seen = len(state.visible)
        self.shared = bool(state.busy)
        groups = [tuple(group) for _, group in groupby(settled_prefix(state), lambda n: n.t1)]
        sizes = []
        most, stored = self._full, 0
        for group in groups:
            size = sum(self._size(maintenance, name) for name in group)
            busy = any(name.short in state.busy for name in group)
            sizes.append(0 if busy or size >= self._full else size)
            stored += size
        if self._behind:
            most = min(most, most_behind(stored))
        chosen = choose(sizes, most)
        if chosen is None:
            return ()
        first, last = chosen
        needed = sum(sizes[first:last])
        room = self._storage.room()
        if room is not None and room < needed:
            self._skipped.append(
                f"a merge of {last - first} fragments needs {needed:,} bytes, and the disk has {room:,}"
            )
            return ()
        return [name for group in groups[first:last] for name in group]

    def _size(self, maintenance: Maintenance, name: FragmentName) -> int:
        text, sizes = str(name), self._engine.sizes
        if text not in sizes:
            sizes[text] = maintenance.fragment(name).stored_bytes
        return sizes[text]

    # --- history ---

    def _outlived(
        self, record: Record, names: list[FragmentName], coming: int = 0
    ) -> list[FragmentName]:
        """What has been kept for as long as history says, and what is beyond its bounds, less what is coming: whole merges, the
        oldest first."""
        history, storage = record.history, self._storage
        if history is None or not names:
            return []
        going = outlived(record, names, history, storage.now())
        visible = record.visible(storage.list().folders)
        allowed = max(MOST_TIMES_LIVE * sum(map(self._stored, visible)), LITTLE) - coming
        gone = {*going}
        kept = [name for name in names if name not in gone]
        count, size = len(kept), sum(map(self._stored, kept))
        most = MOST_SUPERSEDED
        if count > most or size > allowed:
            # Some room more: else each merge removes, and changes the record.
            most, allowed = most - most // 8, allowed - allowed // 8
        for commit in record.commits:
            if count <= most and size <= allowed:
                break
            oldest = [name for name in kept if name.short in commit.sources]
            going += oldest
            count -= len(oldest)
            size -= sum(map(self._stored, oldest))
        known = {*map(str, names), *map(str, visible)}
        self._engine.sizes = {n: size for n, size in self._engine.sizes.items() if n in known}
        return going

    def _stored(self, name: FragmentName) -> int:
        text, sizes = str(name), self._engine.sizes
        if text not in sizes:
            try:
                sizes[text] = sum(self._storage.files(text).values())
            except FileNotFoundError:
                return 0  # somebody else was faster
        return sizes[text]

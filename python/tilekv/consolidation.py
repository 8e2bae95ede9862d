"""Merging fragments into fewer (docs/design.md 6). Interrupted anywhere, it leaves a store that reads as before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final, NamedTuple

from tilekv.clock import milliseconds
from tilekv.commit import NO_KEYS, Expected, write_fragment
from tilekv.engine import Engine
from tilekv.errors import NotDurableError, StoreBusyError
from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.merge.merge_source import MergedCells
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.maintenance import CLAIM_MS, Claimed, Maintenance, State, new_owner
from tilekv.names import FragmentName
from tilekv.progress import Progress, reporter
from tilekv.workers import Workers

PORTION_BYTES: Final = 16 << 20  # of the sources' files behind the cells that are merged at a time
PORTION_CELLS: Final = 1 << 18  # 48 bytes each while they wait
# What is under way is waited for, no longer: flushes, and the merges of who keeps the store.
DRAFTS_S: Final = 1.0
BUSY_S: Final = 5.0

DIGESTS: Final = 1 << 128  # how many there are

Report = Callable[[int, int], object]
# Told how many cells were read so far.
Tick = Callable[[int], object]


def digest_ranges(count: int) -> list[tuple[int, int]]:
    """All digests as so many ranges, [low, high): digests are uniform, so each has about as many keys."""
    edges = [DIGESTS * i // count for i in range(count + 1)]
    return list(pairwise(edges))


class Part(NamedTuple):
    """The digests from `low` on and below `high` of a merge: what one process writes, and all that another needs to know.

    Attributes
    ----------
    sources : tuple of FragmentName
        What is merged, oldest first.
    keep_deletes : bool
        Whether a delete may still hide something older.
    expired : int
        What expired by this moment (ms) is left out; 0: nothing is.
    """

    sources: tuple[FragmentName, ...]
    keep_deletes: bool
    expired: int
    low: int = 0
    high: int = DIGESTS

    @property
    def is_whole(self) -> bool:
        """Whether it is of all digests."""
        return (self.low, self.high) == (0, DIGESTS)


# Writes a whole merge, and tells by the list what is on the stage of it, after an error too.
Write = Callable[[Maintenance, Part, Tick, list[FragmentName]], object]


def consolidate(engine: Engine, progress: Progress = None, write: Write | None = None) -> bool:
    """Merge all visible fragments into one, or into several that split the digests where one would exceed
    kv.max_fragment_bytes. What is flushed meanwhile stays as it is.

    Parameters
    ----------
    write : callable, optional
        Who writes the outputs; `write_part` otherwise.

    Returns
    -------
    bool
        False when there was nothing to merge.

    Raises
    ------
    StoreBusyError
        When another merge is under way, and takes more than a moment.
    CorruptionError
        When a source is damaged; nothing has changed then.
    """
    maintenance = Maintenance(engine)
    engine.check_identity()
    _ = maintenance.opener.snapshot().fragments  # says what is wrong, if anything is
    expired = expired_by(maintenance)
    claimed = _claim_all(maintenance, lambda names: _worth(maintenance.snapshot(names), expired))
    return claimed is not None and bool(merge(maintenance, claimed, progress, write or write_part))


def clear(engine: Engine, cells: CellSource, n: int = 1) -> bool:
    """Let a few cells take the place of all that is visible, however much that is. What is flushed meanwhile stays. False, and
    nothing is done, when there was nothing. In the past it is so since the last flush, whose moment the cells have: a later one
    could hide what others flush at this moment.

    Parameters
    ----------
    cells : CellSource
        At least one, since there are no empty fragments: a delete, of whatever key, leaves the store empty.
    n : int
        How many.

    Raises
    ------
    StoreBusyError
        When a merge is under way, and takes more than a moment.
    """
    maintenance = Maintenance(engine)
    engine.check_identity()
    claimed = _claim_all(maintenance, bool)
    if claimed is None:
        return False
    written: list[FragmentName] = []
    committed = False
    try:
        with Workers(engine.config.usable_threads) as workers:
            write_fragment(
                maintenance.storage,
                engine.layout,
                maintenance.opener.codecs,
                [cells],
                workers,
                span=(
                    min(name.t1 for name in claimed.sources),
                    max(name.t2 for name in claimed.sources),
                ),
                sources=tuple(map(str, reversed(claimed.sources))),
                keys=Expected(n),
                filters=engine.config.filters,
                showing=written.append,
            )
        committed = maintenance.commit(claimed, written, 0)
    except NotDurableError as error:  # as in merge()
        raise OSError(error.errno, error.strerror, error.filename) from error
    finally:
        if not committed:
            _withdraw(maintenance, claimed, written)
    if not committed:
        raise StoreBusyError(f"others write to {engine.storage.uri}: nothing was deleted")
    return True


def _claim_all(
    maintenance: Maintenance, worth: Callable[[list[FragmentName]], bool]
) -> Claimed | None:
    """Claim all that is visible, after what others merge and write at this moment; None when that is not worth it."""
    begun = time.monotonic()
    owner = new_owner()
    reserved = False
    newest: list[FragmentName] = []  # when it began: what comes later may stay

    def everything(state: State) -> Sequence[FragmentName]:
        newest[:] = newest or state.visible[-1:]
        waited = time.monotonic() - begun
        names = settled_prefix(state)
        free = next((i for i, n in enumerate(names) if n.short in state.busy), len(names))
        if any(n.short in state.busy and n.order <= newest[0].order for n in state.visible):
            if waited < BUSY_S:
                raise _Busy
            raise StoreBusyError(
                f"another consolidation of {maintenance.storage.uri} is under way: nothing was done"
            )
        reached = bool(names) and names[-1].order >= newest[0].order
        if not reached and len(names) < len(state.visible) and waited < DRAFTS_S:
            raise _NotYet
        names = whole_groups(state.visible, free)
        return names if worth(names) else ()

    try:
        while True:
            try:
                claimed = maintenance.claim(everything, owner)
                break
            except _Busy:
                if not reserved:  # so that no merge that has not begun by now comes between
                    reserved = True
                    maintenance.claim(
                        lambda s: [n for n in s.visible if n.short not in s.busy], owner
                    )
            except _NotYet:
                pass
            time.sleep(0.01)
    except BaseException:
        maintenance.release(owner)
        raise
    if claimed is None:
        maintenance.release(owner)
    return claimed


class _NotYet(Exception):
    """What is under way takes a moment."""


class _Busy(_NotYet):
    """Others merge a part of it."""


def settled_prefix(state: State) -> list[FragmentName]:
    """The oldest of what is visible, as far as nothing can appear among them any more, whole groups of one first time."""
    visible = state.visible
    end = next((i for i, n in enumerate(visible) if n not in state.settled), len(visible))
    return whole_groups(visible, end)


def whole_groups(visible: list[FragmentName], end: int) -> list[FragmentName]:
    """The first of what is visible, without the last of one first time if some of it would be left: what has the same is never
    parted, since a merge of some would seem newer or older than the others."""
    while 0 < end < len(visible) and visible[end - 1].t1 == visible[end].t1:
        end -= 1
    return visible[:end]


def merge(
    maintenance: Maintenance,
    claimed: Claimed,
    progress: Progress = None,
    write: Write | None = None,
) -> Sequence[FragmentName]:
    """Merge what was claimed, and let the result count in its place: what was made, nothing when that does not fit any more.

    What had expired when history began is left out, where nothing older is left for it to hide. write: as of `consolidate`.
    """
    report = reporter(progress, "consolidating")
    written: list[FragmentName] = []
    committed = False
    renewed = time.monotonic()
    total = 0

    def tick(done: int) -> None:
        nonlocal renewed
        if time.monotonic() - renewed > CLAIM_MS / 3000:
            maintenance.renew(claimed)
            renewed = time.monotonic()
        report(min(done, total - 1), total)

    try:
        expired = 0 if claimed.keep_deletes else expired_by(maintenance)
        total = sum(f.cells for f in maintenance.snapshot(claimed.sources).fragments)
        part = Part(claimed.sources, claimed.keep_deletes, expired)
        (write or write_part)(maintenance, part, tick, written)
        committed = maintenance.commit(claimed, written, expired)
        if committed:
            report(total, total)
    except NotDurableError as error:  # of what nobody has seen: nothing has changed
        raise OSError(error.errno, error.strerror, error.filename) from error
    finally:
        if not committed:
            _withdraw(maintenance, claimed, written)
    return written if committed else ()


def write_part(
    maintenance: Maintenance, part: Part, tick: Tick, written: list[FragmentName]
) -> None:
    """Put a part of a merge on the stage: nothing, where nothing is left of it, unless it is the whole. written: told the name of
    each output before it is there; an error leaves them to the caller."""
    engine = maintenance.engine
    snapshot = maintenance.snapshot(part.sources)
    first = ""
    with Workers(engine.config.usable_threads) as workers:
        merged = _MergedFragments(maintenance, part, snapshot, tick)
        while len(merged.portion):
            name = write_fragment(
                maintenance.storage,
                engine.layout,
                maintenance.opener.codecs,
                merged.portions(),
                workers,
                span=(
                    min(source.t1 for source in part.sources),
                    max(source.t2 for source in part.sources),
                ),
                sources=() if first else snapshot.names,
                first_output=first,
                expired=part.expired,
                keys=merged.expected(),
                filters=engine.config.filters,
                showing=written.append,
                written=merged.count,
            )
            first = first or str(name)


def _withdraw(maintenance: Maintenance, claimed: Claimed, written: list[FragmentName]) -> None:
    """Give up a merge. After an error a record may name its outputs."""
    with suppress(Exception):
        if written and not maintenance.is_committed(written):
            unstage(maintenance, written)
    maintenance.release(claimed.owner)


def unstage(maintenance: Maintenance, written: Sequence[FragmentName]) -> None:
    """Remove outputs that no record names: all they hold is in their sources."""
    storage = maintenance.storage
    storage.reclaim(storage.retire(map(str, written)))


def expired_by(maintenance: Maintenance) -> int:
    """What expired by this moment (ms) a merge leaves out; 0 where nothing expires, or history keeps everything.

    As long ago as history reaches, by the clock of whoever merges and by that of whatever keeps the files: one host whose clock
    is ahead must not take from others what they still see.
    """
    history = maintenance.history()
    if maintenance.engine.layout.expires < 0 or history is None:
        return 0
    return max(min(milliseconds(), maintenance.storage.now()) - history, 0)


def _worth(snapshot: Snapshot, expired: int) -> bool:
    """Whether there is anything to merge or to drop; what a merge that left nothing wrote stays as it is."""
    fragments = snapshot.fragments
    if len(fragments) > 1 and not _are_one_merge(fragments):
        return True
    cells = sum(fragment.cells for fragment in fragments)
    tombstones = sum(fragment.tombstones for fragment in fragments)
    if cells < 2:
        return False
    return tombstones > 0 or (expired > 0 and Merge(snapshot, now=expired).count() < cells)


def _are_one_merge(fragments: Sequence[Fragment]) -> bool:
    """Whether one consolidation has made them all: they are as they should be."""
    names = {fragment.name for fragment in fragments}
    if not names.issuperset(fragment.first_output or fragment.name for fragment in fragments):
        return False
    # The first output of each part has the list.
    lists = {fragment.sources for fragment in fragments if not fragment.first_output}
    return len(lists) == 1 and lists != {()}


class _MergedFragments:
    """The merged cells of a part, cut into portions, and those into the fragments that are written."""

    def __init__(
        self, maintenance: Maintenance, part: Part, snapshot: Snapshot, tick: Tick
    ) -> None:
        engine = maintenance.engine
        self._maintenance = maintenance
        self._snapshot = snapshot
        self._tick = tick
        # Digests are uniform: a part has its share of the cells.
        cells = sum(fragment.cells for fragment in snapshot.fragments)
        self._total = -(-cells * (part.high - part.low) // DIGESTS)
        self._begin, self._end = part.low >> 64, part.high >> 64
        self._most = engine.max_fragment_bytes
        self._left = self._most  # bytes that the fragment being written may still take
        stored = sum(fragment.stored_bytes for fragment in snapshot.fragments)
        self._stored = max(stored * self._total // max(cells, 1), 1)
        self._written = False  # whether a fragment was begun
        room = min(PORTION_CELLS, min(PORTION_BYTES, self._most) * self._total // self._stored)
        capacity = engine.layout.capacity
        self._room = max(room // capacity, 1) * capacity  # cells of a portion
        # Where nothing older is left for a tombstone to hide, the merge leaves them out.
        self._merge = Merge(
            snapshot,
            tombstones=part.keep_deletes,
            now=part.expired,
            low=part.low,
            high=None if part.high == DIGESTS else part.high,
        )
        self.portion = MergedCells(self._merge, self._room)  # the next to be written
        if not len(self.portion) and part.is_whole:
            # There are no empty fragments: one of the tombstones stays, or of the expired.
            self._merge = Merge(snapshot, tombstones=True)
            self.portion = MergedCells(self._merge, 1)
            self._merge.stop()

    def portions(self) -> Iterator[MergedCells]:
        """Those of the next fragment, to the end of the digest at which it is full; `portion` follows them, empty at last."""
        self._left = self._most
        while True:
            portion = self.portion
            yield portion
            self._maintenance.opener.drop_pages(self._snapshot)
            self._tick(self._merge.consumed)
            self.portion = MergedCells(self._merge, self._room)
            if not len(self.portion) or (self._left <= 0 and self.portion.begins_after(portion)):
                return

    def expected(self) -> Expected:
        """What the next fragment will hold, if all keys are about as large and nothing is left out."""
        left = max(self._total - self._merge.consumed, 0) + len(self.portion)
        # A fragment ends with the portion that fills it.
        cells = min(left, self._most * self._total // self._stored + self._room)
        if cells * self._stored // max(self._total, 1) > self._maintenance.engine.config.filters:
            return NO_KEYS
        low = self.portion.low if self._written else self._begin
        self._written = True
        width = (self._end - low) * cells // left
        return Expected(cells, low, width if width < 1 << 64 else 0)

    def count(self, size: int) -> None:
        """Note that so many bytes of the fragment were written."""
        self._left -= size

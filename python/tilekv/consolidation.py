"""Merging fragments into fewer, and giving back the room of what they held (docs/design.md 6).

Both hold the store's one lock from before they list it until their last file is durable: overlapping consolidations
could let an older value win. Writers and readers never take it. Interrupted anywhere, both leave a store that reads as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from tilekv.clock import milliseconds
from tilekv.commit import write_fragment
from tilekv.engine import Engine
from tilekv.errors import NotDurableError, StoreBusyError
from tilekv.history import History, read_history, vac_bytes
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.merge.merge_source import MergedCells
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.names import FragmentName, vac_file
from tilekv.opener import Opener
from tilekv.progress import Progress, reporter
from tilekv.storage import Storage
from tilekv.workers import Workers

CACHE_BYTES: Final = 16 << 20  # decoded chunks of the sources
PORTION_BYTES: Final = 16 << 20  # of the sources' files behind the cells that are merged at a time
PORTION_CELLS: Final = 1 << 18  # 48 bytes each while they wait
# What has not been expired for longer stays in a merge: hosts whose clocks are behind still see it.
EXPIRED_MS: Final = 24 * 3600 * 1000
ABANDONED_S: Final = (
    24 * 3600
)  # a temporary folder that nobody has written to for so long is nobody's

Report = Callable[[int, int], object]


def consolidate(engine: Engine, progress: Progress = None) -> bool:
    """Merge all visible fragments into one, or into several that split the digests where one would exceed
    kv.max_fragment_bytes.

    Returns
    -------
    bool
        False when there was nothing to merge.

    Raises
    ------
    StoreBusyError
        When another consolidation or vacuum is under way.
    CorruptionError
        When a source is damaged; nothing has changed then.
    """
    storage = engine.storage
    with storage.lock() as held:
        _check(held, storage)
        engine.check_identity()
        opener = _opener(engine)
        snapshot = opener.snapshot()
        expired = _expired(engine)
        if not _worth(snapshot, expired):
            return False
        report = reporter(progress, "consolidating")
        written: list[str] = []
        try:
            with Workers(engine.config.usable_threads) as workers:
                _write(
                    engine,
                    opener,
                    snapshot,
                    expired,
                    workers,
                    report,
                    lambda name: written.append(str(name)),
                )
            storage.put(vac_file(written[-1]), vac_bytes(written[-1], snapshot.names))
        except BaseException as error:
            _withdraw(storage, written)
            if isinstance(error, NotDurableError):  # of what was withdrawn: nothing has changed
                raise OSError(error.errno, error.strerror, error.filename) from error
            raise
    return True


def _opener(engine: Engine) -> Opener:
    """Opens fragments for a merge."""
    config = engine.config
    reading = config.mmap, config.max_mapped_fragments
    return Opener(engine.storage, engine.layout, CACHE_BYTES, *reading)


def _withdraw(storage: Storage, written: list[str]) -> None:
    """Remove outputs that supersede nothing yet: all they hold is in their sources. A list may be there in spite of an error."""
    with suppress(OSError):
        if written and vac_file(written[-1]) not in storage.list().files:
            storage.reclaim(storage.retire(written))


def _check(held: bool, storage: Storage) -> None:
    if not held:
        raise StoreBusyError(
            f"another consolidation or vacuum of {storage.uri} is under way: nothing was done"
        )


def _expired(engine: Engine) -> int:
    """What expired by this moment (ms) a merge leaves out; 0 where nothing expires.

    No later than a day ago by the clock of whoever merges, and by that of whatever keeps the files: one host whose clock is ahead
    must not take from others what they still see.
    """
    if engine.layout.expires < 0:
        return 0
    return max(min(milliseconds(), engine.storage.now()) - EXPIRED_MS, 0)


def _worth(snapshot: Snapshot, expired: int) -> bool:
    """Whether there is anything to merge or to drop; what a merge that left nothing wrote stays as it is."""
    fragments = snapshot.fragments
    if len(fragments) > 1 and (
        len({fragment.sources for fragment in fragments}) > 1 or not fragments[0].sources
    ):
        return True  # else: the outputs of one consolidation, which are as they should be
    cells = sum(fragment.cells for fragment in fragments)
    tombstones = sum(fragment.tombstones for fragment in fragments)
    if cells < 2:
        return False
    return tombstones > 0 or (expired > 0 and Merge(snapshot, now=expired).count() < cells)


def _write(
    engine: Engine,
    opener: Opener,
    snapshot: Snapshot,
    expired: int,
    workers: Workers,
    report: Report,
    showing: Callable[[FragmentName], object],
) -> None:
    """Write the merged cells; `showing` is told the name of every new fragment before anybody can see it."""
    names = [name for name in map(FragmentName.parse, snapshot.names) if name is not None]
    merged = _MergedFragments(engine, opener, snapshot, expired, report)
    while len(merged.portion):
        write_fragment(
            engine.storage,
            engine.layout,
            opener.codecs,
            merged.portions(),
            workers,
            span=(min(name.t1 for name in names), max(name.t2 for name in names)),
            sources=snapshot.names,
            expired=expired,
            showing=showing,
            written=merged.count,
        )
    report(merged.total, merged.total)


class _MergedFragments:
    """The merged cells, cut into portions, and those into the fragments that are written."""

    def __init__(
        self, engine: Engine, opener: Opener, snapshot: Snapshot, expired: int, report: Report
    ) -> None:
        self.total = sum(fragment.cells for fragment in snapshot.fragments)
        self._opener = opener
        self._snapshot = snapshot
        self._report = report
        self._most = engine.config.max_fragment_bytes
        self._left = self._most  # bytes that the fragment being written may still take
        stored = sum(fragment.stored_bytes for fragment in snapshot.fragments)
        room = min(PORTION_CELLS, min(PORTION_BYTES, self._most) * self.total // max(stored, 1))
        capacity = engine.layout.capacity
        self._room = max(room // capacity, 1) * capacity  # cells of a portion
        # Nothing older than all fragments is left for a tombstone to hide, so the merge leaves them out.
        self._merge = Merge(snapshot, now=expired)
        self.portion = MergedCells(self._merge, self._room)  # the next to be written
        if not len(self.portion):
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
            self._opener.drop_pages(self._snapshot)
            self._report(min(self._merge.consumed, self.total - 1), self.total)
            self.portion = MergedCells(self._merge, self._room)
            if not len(self.portion) or (self._left <= 0 and self.portion.begins_after(portion)):
                return

    def count(self, size: int) -> None:
        """Note that so many bytes of the fragment were written."""
        self._left -= size


def vacuum(engine: Engine, progress: Progress = None) -> int:
    """Remove superseded fragments, and what crashed writers have left behind. The past that they held is gone.

    Returns
    -------
    int
        How many fragments were removed.

    Raises
    ------
    StoreBusyError
        When another consolidation or vacuum is under way.
    CorruptionError
        When a fragment that stays cannot be opened, or a list is damaged or lost: what was superseded may be all there is.
    """
    storage = engine.storage
    report = reporter(progress, "vacuuming")
    with storage.lock() as held:
        _check(held, storage)
        _ = _opener(engine).snapshot().fragments  # all that stay can be opened
        listing = storage.list()
        history = read_history(storage, listing)
        total = len(history.superseded)
        done = 0
        for file in history.orphans:
            storage.remove(file)
        # Without its list a subsumed one would no longer be known as such. What it supersedes, the larger list has too.
        hidden = storage.retire(sorted(history.subsumed))
        for owner in sorted(history.subsumed):
            storage.remove(vac_file(owner))
        storage.reclaim(hidden)
        done += len(history.subsumed)
        for owner in _inner_first(history):
            gone = [name for name in sorted(history.lists[owner]) if name in listing.folders]
            hidden = storage.retire(gone)
            storage.remove(vac_file(owner))
            storage.reclaim(hidden)
            done += len(gone)
            report(min(done, total), total)
        storage.reclaim(storage.abandoned(ABANDONED_S))
        report(total, total)
    return total


def _inner_first(history: History) -> list[str]:
    """The owners of lists, so that a list goes before the fragment that owns it: without its list, what it had superseded
    would be seen again."""
    ordered: list[str] = []
    waiting = {owner: history.lists[owner] for owner in history.lists.keys() - history.subsumed}
    while waiting:
        # An owner may go once nothing in its list owns a list that is still there. There are no circles.
        ready = sorted(
            owner for owner, names in waiting.items() if not any(name in waiting for name in names)
        )
        ordered += ready
        for owner in ready:
            del waiting[owner]
    return ordered

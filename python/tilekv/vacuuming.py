"""Giving back the room of what merges have superseded (docs/design.md 6.5). Interrupted anywhere, it leaves a store that reads
as before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tilekv.arguments import is_one_of
from tilekv.engine import Engine
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.maintenance import Maintenance
from tilekv.names import FragmentName, vac_owner
from tilekv.progress import Progress, reporter
from tilekv.record import Commit, Record, parsed, shorts
from tilekv.storage import Listing, Storage

# A draft or a staged fragment that nobody has written to for so long is nobody's.
ABANDONED_S: Final = 24 * 3600
MOST_HISTORY_S: Final = 10**10
_AT_ONCE: Final = 16  # fragments between two looks at the record

Going = Callable[[Record, list[FragmentName]], Sequence[FragmentName]]  # of what is superseded
Report = Callable[[int, int], object]


def vacuum(engine: Engine, progress: Progress = None, history: int | None = 0) -> int:
    """Remove superseded fragments, and what crashed writers have left behind. The past that they held is gone.

    Parameters
    ----------
    history : int, optional
        Keep what was superseded since so many ms; None: all of it.

    Returns
    -------
    int
        How many fragments were removed.

    Raises
    ------
    StoreBusyError
        When another process makes the store's first record at this moment.
    CorruptionError
        When a fragment that stays cannot be opened, or the record is damaged or lost: what was superseded may be all there is.
    """
    report = reporter(progress, "vacuuming")
    maintenance = Maintenance(engine)
    engine.check_identity()
    _ = maintenance.opener.snapshot().fragments  # all that stay can be opened
    done = 0
    if history != 0:
        maintenance.change(
            lambda record: None if record.history == history else record.keeping(history)
        )
    listing = engine.storage.list()
    if maintenance.opener.record() is not None or _has_lists(listing):

        def going(record: Record, names: list[FragmentName]) -> Sequence[FragmentName]:
            return outlived(record, names, history, engine.storage.now() if history else 0)

        done = remove_superseded(maintenance, going, report)
    for file in engine.storage.list().files:
        owner = vac_owner(file)
        if owner and owner not in listing.folders:
            engine.storage.remove(file)
    clear(maintenance)
    return done


def history_ms(history: object) -> int | None:
    """What a user says that history is: seconds, a span of time, or "all", which is None here."""
    if is_one_of(history, ("all",)):
        return None
    if isinstance(history, dt.timedelta):
        history = history.total_seconds()
    if isinstance(history, bool) or not isinstance(history, (int, float)):
        raise WrongTypeError(
            f'history is seconds, a timedelta or "all", not {type(history).__name__}'
        )
    if not 0 <= history <= MOST_HISTORY_S:  # not a NaN
        raise InvalidValueError(f"history is 0 to {MOST_HISTORY_S} seconds, not {shown(history)}")
    return round(history * 1000)


def outlived(
    record: Record, names: Iterable[FragmentName], history: int | None, now: int
) -> list[FragmentName]:
    """What of the superseded fragments history (ms) no longer needs. A merge's sources go together."""
    if history is None:
        return []
    gone = frozenset[str]().union(
        *(c.sources for c in record.commits if history == 0 or max(c.time, c.t2) + history < now)
    )
    return [name for name in names if name.short in gone]


def _has_lists(listing: Listing) -> bool:
    return any(map(vac_owner, listing.files))


def remove_superseded(
    maintenance: Maintenance, going: Going, report: Report = lambda done, total: None
) -> int:
    """Remove what is superseded and `going`, oldest merges first, and let the record forget it; how many that were."""
    storage = maintenance.storage
    record = maintenance.record()
    maintenance.complete(record)
    storage.sync()  # what supersedes them is there after a crash, too
    chosen = going(record, superseded(storage, record))
    for first in range(0, len(chosen), _AT_ONCE):
        report(first, len(chosen))
        record = maintenance.record()
        still = record.superseded()
        some = [name for name in chosen[first : first + _AT_ONCE] if name.short in still]
        storage.reclaim(storage.retire(map(str, some)))

    def forgotten(record: Record) -> Record | None:
        gone = record.superseded() - shorts(parsed(_everywhere(storage)))
        return record.without(gone) if gone else None

    maintenance.change(forgotten)
    report(len(chosen), len(chosen))
    return len(chosen)


def superseded(storage: Storage, record: Record) -> list[FragmentName]:
    """What a record says is superseded and is still there, by its merges, the oldest first."""
    there = {name.short: name for name in parsed(_everywhere(storage))}
    return [there[s] for commit in record.commits for s in sorted(commit.sources) if s in there]


def _everywhere(storage: Storage) -> list[str]:
    """In the order in which they move: none is missed on its way."""
    return [*storage.staged(), *storage.list().folders, *storage.past()]


def clear(maintenance: Maintenance) -> None:
    """Remove what crashed writers and merges have left behind."""
    storage = maintenance.storage
    storage.reclaim(storage.abandoned(ABANDONED_S))
    if not (strays := storage.staged(ABANDONED_S)):
        return

    def superseding(record: Record) -> Record | None:
        """So that a merge which slept does not commit them after all."""
        made = {name for commit in record.commits for name in commit.outputs}
        lost = shorts(parsed(strays)) - shorts(made) - record.superseded()
        return record.committed(Commit((), lost, storage.now()), "") if lost else None

    maintenance.change(superseding)
    record = maintenance.record()
    storage.reclaim(
        storage.retire(str(n) for n in parsed(strays) if n.short in record.superseded())
    )

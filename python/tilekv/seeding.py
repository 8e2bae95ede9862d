"""What the first record of a store says: what its lists of superseded fragments mean (docs/design.md 6.3).

Until a store has a record its `.vac` files tell what consolidations have superseded (`history`). They are read as the record that
they stand for, and the first merge makes that the store's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping

from tilekv.errors import CorruptionError
from tilekv.history import History, history_of, inner_first, owners, read_list
from tilekv.kvcore.read.fragment import Fragment
from tilekv.names import vac_file
from tilekv.record import Commit, Record, parsed, shorts
from tilekv.storage import Listing, Storage

Open = Callable[[str], Fragment]  # FileNotFoundError when it is gone


def record_of_lists(
    storage: Storage, listing: Listing, store: str, open_: Open, expires: bool
) -> Record:
    """The record that the lists of a store stand for, numbered 0.

    Raises
    ------
    CorruptionError
        When a list is damaged, or lost while what it superseded would be seen again.
    FileNotFoundError
        When the store has changed since the listing.
    """
    lists = {owner: read_list(storage, owner) for owner in owners(listing)}
    vacuumed: dict[str, frozenset[str]] = {}
    while True:
        gone = frozenset[str]().union(*vacuumed.values())
        history = history_of(listing, lists, gone=gone)
        found = _without_list(history, {*lists, *vacuumed}, {*listing.folders}, open_)
        if not found:
            break
        vacuumed |= found
    commits = []
    for owner in [*sorted(history.subsumed), *inner_first(history)]:
        expired = open_(owner).expired if expires else 0
        commits.append(_commit(owner, history.lists[owner], expired))
    commits += [_commit(owner, sources, 0) for owner, sources in vacuumed.items()]
    return Record(store, commits=tuple(commits))


def _commit(owner: str, sources: frozenset[str], expired: int) -> Commit:
    return Commit(tuple(parsed([owner])), shorts(parsed(sources)), 0, expired)


def _without_list(
    history: History, known: set[str], there: set[str], open_: Open
) -> Mapping[str, frozenset[str]]:
    """Consolidated fragments that a vacuum had begun to leave without a list: by name what is left of what they superseded.

    One whose sources are all there has no list yet, and is shown beside them; one that is superseded itself must have its list.
    """
    visible = sorted(history.visible)
    starts = [name.t1 for name in visible]
    shown = {str(name) for name in visible}
    found = {}
    for name in (*visible, *parsed(history.superseded)):
        if str(name) in known:
            continue
        within = visible[bisect_left(starts, name.t1) : bisect_right(starts, name.t2)]
        if not any(other != name and other.t2 <= name.t2 for other in within):
            continue
        sources = frozenset(map(str, parsed(open_(str(name)).sources)))
        again = shown & sources
        if not again or (str(name) in shown and sources <= there):
            continue
        if sources <= there:
            reason = f"it is missing: {name} holds all of {min(again)}, which would be seen again"
            raise CorruptionError(vac_file(str(name)), None, reason)
        found[str(name)] = sources
    return found

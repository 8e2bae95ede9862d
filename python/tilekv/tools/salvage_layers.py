"""The fragments of a damaged store, one above the other, and which of their entries are current.

An entry is proven when its key's chunk and its values' chunks hold their checksums, and the coordinates beside the key are its
digest. It is *current* when, besides, no newer fragment may have overwritten or deleted it: every newer fragment either shows
that it does not have the key, which whole coordinates and keys do, or has it itself. Where a newer fragment cannot tell, because
the part of it that could hold the key is damaged, the entry may be stale, and is never passed off as current.

A consolidation whose sources are still there adds nothing to them: what it cannot tell, they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tilekv.arguments import NO_VALUE
from tilekv.history import check_circles, listed, subsumed
from tilekv.kvcore.check.recovery import ABSENT, DELETED, SET, UNKNOWN, states
from tilekv.kvcore.handle import Handle
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.values.keys import key_bytes
from tilekv.names import FragmentName, vac_owner
from tilekv.opener import Opener
from tilekv.record import Record, parsed
from tilekv.schema import Schema
from tilekv.storage import Listing, Storage
from tilekv.store import columns_of
from tilekv.tools.problem import DAMAGE, Problem
from tilekv.tools.recover_schema import half_removed, open_partial
from tilekv.tools.verify import verify_store


class _Reader(Handle):
    """Reads one fragment as if it were a store."""

    def __init__(self, schema: Schema, opener: Opener, fragment: Fragment) -> None:
        self.snapshot: Final[Snapshot] = opener.assemble([fragment])
        self._attach(opener.layout, columns_of(schema), False, 0, 1, 0)
        self._install(self.snapshot, False)


@dataclass
class Layer:
    """A fragment; if it is a consolidation, with those of its sources that are there, newest first."""

    name: str
    fragment: Fragment | None  # None: its metadata is damaged
    sound: bool
    reader: _Reader | None
    sources: list[Layer] = field(default_factory=list)
    covered: bool = False  # all its sources are there
    doubtful: bool = (
        False  # it may have been replaced, by a consolidation of which nothing can be read
    )
    valueless: set[tuple[int, bytes]] = field(default_factory=set)  # keys whose value is lost
    stale: set[tuple[int, bytes]] = field(default_factory=set)  # keys that sources have set aside

    def own(self, keys: list[Any]) -> list[int]:
        """What the fragment itself says of each key: ABSENT, SET, DELETED or UNKNOWN."""
        if self.reader is None:  # it is a mapping: one of nothing but deletes is false
            return [UNKNOWN] * len(keys)
        return list(states(self.reader.snapshot, keys))

    def says(self, keys: list[Any]) -> list[int]:
        """The same; what a consolidation cannot tell, its sources do."""
        found = self.own(keys)
        if self.covered:
            for i, state in enumerate(found):
                if state == UNKNOWN:
                    found[i] = self._sources_say(keys[i])
        return found

    def _sources_say(self, key: Any) -> int:
        for source in self.sources:
            state = source.says([key])[0]
            if state != ABSENT:
                return ABSENT if state == DELETED else state  # a consolidation leaves deletes out
        return ABSENT

    def lost(self, key: Any) -> bool:
        """Whether a key is known to be in here, and its value is not."""
        return bool(self.valueless) and key_bytes(key, False) in self.valueless

    def told(self, key: Any) -> bool:
        """Whether a source has set a key aside: what is older than that is not the newest that is proven."""
        return bool(self.stale) and not self.doubtful and key_bytes(key, False) in self.stale

    def values(self, keys: list[Any]) -> list[Any]:
        """Of keys that are SET; NO_VALUE where the value cannot be read."""
        if self.reader is not None and self.sound:
            return self.reader.get_many(keys, NO_VALUE)
        return [self._value(key) for key in keys]

    def moment(self, key: Any) -> int | None:
        """When a key whose value can be read expires; None where that cannot be read."""
        if self.reader is not None and self.own([key]) == [SET]:
            with suppress(*DAMAGE):
                return self.reader._expires(key)
        for source in self.sources if self.covered else ():
            if source.says([key]) != [ABSENT]:
                return source.moment(key)
        return None

    def _value(self, key: Any) -> Any:
        if self.reader is not None and self.own([key]) == [SET]:
            with suppress(*DAMAGE):
                return self.reader.get(key, NO_VALUE)
        for source in self.sources if self.covered else ():
            if source.says([key]) != [ABSENT]:
                return source._value(key)
        return NO_VALUE


def layers_of(
    opener: Opener, listing: Listing, schema: Schema, problems: list[Problem]
) -> list[Layer]:
    """The fragments that count, newest first; what is wrong with them is added to `problems`."""
    found: dict[str, Layer] = {}
    gone = half_removed(opener)
    record = _record(opener, problems)
    made = {str(name) for commit in record.commits for name in commit.outputs} if record else set()
    staged = made.intersection(opener.storage.staged())
    for folder in sorted({*listing.folders, *opener.storage.past(), *staged}):
        if FragmentName.parse(folder) is None or folder in gone:
            continue
        fragment = open_partial(opener, folder, problems)
        wrong = verify_store([fragment]) if fragment else []
        problems += wrong
        reader = _Reader(schema, opener, fragment) if fragment else None
        found[folder] = Layer(folder, fragment, fragment is not None and not wrong, reader)
    if record:
        lists = _lists_of_record(record, found)
    else:
        lists = _lists(opener.storage, listing, found, problems)
    for owner, names in lists.items():
        found[owner].covered = names <= found.keys()
        found[owner].sources = _newest_first(found, names & found.keys(), lists)
    superseded = frozenset[str]().union(*lists.values())
    for unknown in superseded & found.keys() - lists.keys():
        if found[unknown].fragment is None:
            _doubt(found, unknown)
    return _newest_first(found, found.keys() - superseded, lists)


def _record(opener: Opener, problems: list[Problem]) -> Record | None:
    """The record; None, and a problem, when it cannot be read."""
    try:
        return opener.record()
    except DAMAGE as error:
        problems.append(Problem._of(error))
    return None


def _lists_of_record(record: Record, found: Mapping[str, Layer]) -> dict[str, frozenset[str]]:
    """What each merge has superseded, under the name of the last of what it has made; what is not there, by its short name. One
    whose sources a vacuum has removed has no list."""
    names = {name.short: str(name) for name in parsed(found)}
    return {
        str(commit.outputs[-1]): frozenset(names.get(short, short) for short in commit.sources)
        for commit in record.commits
        if commit.outputs and commit.sources and str(commit.outputs[-1]) in found
    }


def _lists(
    storage: Storage, listing: Listing, found: Mapping[str, Layer], problems: list[Problem]
) -> dict[str, frozenset[str]]:
    """What each consolidation has superseded. Where its list is damaged or lost, its own metadata tells."""
    lists: dict[str, frozenset[str]] = {}
    for file in listing.files:
        owner = vac_owner(file)
        if owner is None or owner not in found:
            continue
        try:
            lists[owner] = listed(storage.read(file), owner)
        except DAMAGE as error:
            problems.append(Problem._of(error))
            lists |= _sources_of(found[owner])
    for merged in (name for name in parsed(found) if name.merged):  # the record of it is lost
        lists |= _sources_of(found[str(merged)])
    for name in frozenset[str]().union(*lists.values()) & found.keys() - lists.keys():
        # Superseded itself, it would have its list unless a vacuum had removed all its sources.
        lists |= {
            name: names for name, names in _sources_of(found[name]).items() if names & found.keys()
        }
    inner = {owner: subsumed(owner, lists) for owner in lists}
    lists = {owner: names | inner[owner] for owner, names in lists.items()}
    check_circles(lists)
    return lists


def _doubt(found: Mapping[str, Layer], consolidation: str) -> None:
    """Of a consolidation that was superseded itself neither metadata nor list is left: what lies in its time may be its sources,
    which are seen again and seem newer than what came after."""
    outer = FragmentName.parse(consolidation)
    for name in parsed(found):
        if outer and name != outer and outer.t1 <= name.t1 and name.t2 <= outer.t2:
            found[str(name)].doubtful = True


def _sources_of(layer: Layer) -> dict[str, frozenset[str]]:
    """Its list by its metadata, if that is whole and has one."""
    sources = layer.fragment.sources if layer.fragment else ()
    return {layer.name: frozenset(sources)} if sources else {}


def _newest_first(
    found: Mapping[str, Layer], names: Iterable[str], lists: Mapping[str, frozenset[str]]
) -> list[Layer]:
    """By age, as a handle orders them. A consolidation that is unreadable and has no list may have superseded any fragment that
    began before its end, and so comes before all of those."""

    def order(name: FragmentName) -> tuple[int, int, str]:
        unknown = found[str(name)].fragment is None and str(name) not in lists
        return (name.t2, 1, name.uuid) if unknown and name.t1 < name.t2 else name.order

    return [found[str(name)] for name in sorted(parsed(names), key=order, reverse=True)]


def judge(
    layer: Layer, keys: list[Any], newer: Sequence[Layer], owners: Sequence[Layer]
) -> tuple[list[bool], list[bool]]:
    """Which entries of a layer are the newest that are proven, and which of them are current. The keys are SET there.

    Parameters
    ----------
    newer : sequence of Layer
        The layers above it, newest first.
    owners : sequence of Layer
        The consolidations that have superseded it: only what none of them can tell counts.

    Returns
    -------
    (list of bool, list of bool)
        Of each key whether nothing newer is proven, and whether nothing newer can be among what is lost.
    """
    newest = [True] * len(keys)
    certain = [not layer.doubtful] * len(keys)
    for owner in owners:
        for i, state in enumerate(owner.own(keys)):
            lost = owner.lost(keys[i])
            newest[i] &= state == UNKNOWN or lost
            certain[i] &= owner.covered and not lost
    for other in newer:
        for i, state in enumerate(other.says(keys)):
            open_ = other.lost(keys[i]) or (other.doubtful and state != ABSENT)
            newest[i] &= (state in (ABSENT, UNKNOWN) or open_) and not other.told(keys[i])
            certain[i] &= state != UNKNOWN and not open_
    return newest, certain

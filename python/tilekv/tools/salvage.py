"""Copying out of a damaged store what can still be proven right.

An entry is proven when its key's chunk and its values' chunks hold their checksums, and the coordinates beside the key are its
digest. It is *current* when, besides, no newer fragment may have overwritten or deleted it: every newer fragment either shows
that it does not have the key, which whole coordinates and keys do, or has it itself. Where a newer fragment cannot tell, because
the part of it that could hold the key is damaged, the entry may be stale, and is never passed off as current.

A consolidation whose sources are still there adds nothing to them: what it cannot tell, they do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from tilekv.arguments import NO_VALUE
from tilekv.engine import layout_of
from tilekv.errors import FormatError, StoreNotFoundError
from tilekv.expiry import NEVER, put_expiring
from tilekv.history import check_circles, listed, subsumed
from tilekv.kvcore.check.recovery import ABSENT, DELETED, SET, UNKNOWN, proven_keys, states
from tilekv.kvcore.handle import Handle
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.values.keys import key_bytes
from tilekv.names import FragmentName, vac_owner
from tilekv.newer import check_newer
from tilekv.opener import Opener
from tilekv.probe import Kind, probe
from tilekv.progress import Progress, reporter
from tilekv.schema import Schema
from tilekv.storage import Listing, Storage, open_storage
from tilekv.store import Store, columns_of
from tilekv.tools.atomic_build import whole_store
from tilekv.tools.problem import DAMAGE, Problem
from tilekv.tools.recover_schema import half_removed, open_partial, recover_schema, tiles_of
from tilekv.tools.verify import verify_store

_CACHE: Final = 16 << 20  # bytes of decoded chunks
_AT_ONCE: Final = 128  # entries, as in a conversion


@dataclass(frozen=True)
class Salvage:
    """What became of a damaged store.

    Attributes
    ----------
    copied : int
        Entries in the new store: proven right, and current.
    stale : int
        Entries that are proven, and perhaps or certainly older than one that is lost. They are not in the new store.
    lost : int
        Entries that are known to have been in the store, and cannot be read. Those of unreadable fragments are not counted.
    unreadable : tuple of str
        Fragments of which nothing can be read, and nothing else holds what they held.
    problems : tuple of Problem
        All that is wrong with the store, place by place.
    rebuilt : tuple of str
        What of the schema was had from elsewhere than its own place.
    """

    copied: int
    stale: int
    lost: int
    unreadable: tuple[str, ...]
    problems: tuple[Problem, ...]
    rebuilt: tuple[str, ...]


def salvage(
    damaged: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    stale: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Salvage:
    """Copy every entry of a damaged store that is proven right and current into a new one, and say what could not be.

    The new store appears when it is whole: until then it has a hidden name beside its place.

    The damaged store is only read; nobody should write into it meanwhile. From a disk that fails, copy the files first: they
    are mapped, and a page that cannot be read is a signal that ends the process.

    Parameters
    ----------
    damaged, new : str or os.PathLike
        URIs; nothing may be at `new`.
    stale : str or os.PathLike, optional
        Where to make a store of the entries that may be stale: an older value whose newer one may be among what is lost, or a
        key whose delete may be. Of each key the newest that is proven. Left out unless given.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (cells done, cells in all).

    Returns
    -------
    Salvage

    Raises
    ------
    StoreExistsError
        When there is something at `new` or `stale`.
    CorruptionError
        When nothing proves the schema: neither file of it is whole, or the descriptor and one of them are not.
    StoreNotFoundError, FormatError
        When there is no store, or one that tilekv did not write: TileDB 1.x wrote no checksums, so that nothing is proven.
    OSError, MemoryError
        When the system gives no descriptor, no memory, no permission or no answer: that tells nothing of the store.
    """
    storage = open_storage(damaged, False)
    found = probe(storage)
    if found.kind is Kind.NOTHING:
        raise StoreNotFoundError(f"there is no store at {storage.uri!r}")
    listing = found.listing
    check_newer(storage, listing)
    if found.kind is Kind.OLD:
        raise FormatError(
            f"{storage.uri} was written by TileDB 1.x, without checksums, and nothing in it can be proven"
        ).advised("tilekv.convert copies what can be read", "convert copies what can be read")
    recovered = recover_schema(storage, listing)
    schema = recovered.schema
    opener = Opener(storage, layout_of(schema, recovered.numbers), _CACHE, True, 1 << 31)
    problems = list(recovered.problems)
    layers = _layers(opener, listing, schema, problems)
    cells = sum(layer.fragment.cells for layer in layers if layer.fragment)
    with ExitStack() as closing:
        target = closing.enter_context(whole_store(new, schema, recovered.numbers))
        aside = (
            closing.enter_context(whole_store(stale, schema, recovered.numbers))
            if stale is not None
            else None
        )
        report = reporter(progress, "salvaging")
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            report(min(done, cells - 1), cells)

        copier = _Copier(target, aside, schema.capacity, count)
        lost = sum(copier.copy(layer, layers[:i])[1] for i, layer in enumerate(layers))
        target.flush()
        copied = len(target)
        report(cells, cells)
    unreadable = tuple(layer.name for layer in layers if not (layer.fragment or layer.covered))
    return Salvage(copied, copier.stale, lost, unreadable, tuple(problems), recovered.rebuilt)


# --- which fragments count -------------------------------------------------------------------------


class _Reader(Handle):
    """Reads one fragment as if it were a store."""

    def __init__(self, schema: Schema, opener: Opener, fragment: Fragment) -> None:
        self.snapshot: Final[Snapshot] = opener.assemble([fragment])
        self._attach(opener.layout, columns_of(schema), False, 0, 1, 0)
        self._install(self.snapshot, False)


@dataclass
class _Layer:
    """A fragment; if it is a consolidation, with those of its sources that are there, newest first."""

    name: str
    fragment: Fragment | None  # None: its metadata is damaged
    sound: bool
    reader: _Reader | None
    sources: list[_Layer] = field(default_factory=list)
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


def _layers(
    opener: Opener, listing: Listing, schema: Schema, problems: list[Problem]
) -> list[_Layer]:
    """The fragments that count, newest first."""
    found: dict[str, _Layer] = {}
    gone = half_removed(opener.storage, listing)
    for folder in listing.folders:
        if FragmentName.parse(folder) is None or folder in gone:
            continue
        fragment = open_partial(opener, folder, problems)
        wrong = verify_store([fragment]) if fragment else []
        problems += wrong
        reader = _Reader(schema, opener, fragment) if fragment else None
        found[folder] = _Layer(folder, fragment, fragment is not None and not wrong, reader)
    lists = _lists(opener.storage, listing, found, problems)
    for owner, names in lists.items():
        found[owner].covered = names <= found.keys()
        found[owner].sources = _newest_first(found, names & found.keys(), lists)
    superseded = frozenset[str]().union(*lists.values())
    for unknown in superseded & found.keys() - lists.keys():
        if found[unknown].fragment is None:
            _doubt(found, unknown)
    return _newest_first(found, found.keys() - superseded, lists)


def _lists(
    storage: Storage, listing: Listing, found: Mapping[str, _Layer], problems: list[Problem]
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
    for name in frozenset[str]().union(*lists.values()) & found.keys() - lists.keys():
        # Superseded itself, it would have its list unless a vacuum had removed all its sources.
        lists |= {
            name: names for name, names in _sources_of(found[name]).items() if names & found.keys()
        }
    inner = {owner: subsumed(owner, lists) for owner in lists}
    lists = {owner: names | inner[owner] for owner, names in lists.items()}
    check_circles(lists)
    return lists


def _doubt(found: Mapping[str, _Layer], consolidation: str) -> None:
    """Of a consolidation that was superseded itself neither metadata nor list is left: what lies in its time may be its sources,
    which are seen again and seem newer than what came after."""
    outer = FragmentName.parse(consolidation)
    for name in filter(None, map(FragmentName.parse, found)):
        if outer and name != outer and outer.t1 <= name.t1 and name.t2 <= outer.t2:
            found[str(name)].doubtful = True


def _sources_of(layer: _Layer) -> dict[str, frozenset[str]]:
    """Its list by its metadata, if that is whole and has one."""
    sources = layer.fragment.sources if layer.fragment else ()
    return {layer.name: frozenset(sources)} if sources else {}


def _newest_first(
    found: Mapping[str, _Layer], names: Iterable[str], lists: Mapping[str, frozenset[str]]
) -> list[_Layer]:
    """By age, as a handle orders them. A consolidation that is unreadable and has no list may have superseded any fragment that
    began before its end, and so comes before all of those."""

    def order(name: FragmentName) -> tuple[int, int, str]:
        unknown = found[str(name)].fragment is None and str(name) not in lists
        return (name.t2, 1, name.uuid) if unknown and name.t1 < name.t2 else name.order

    parsed = sorted(filter(None, map(FragmentName.parse, names)), key=order, reverse=True)
    return [found[str(name)] for name in parsed]


# --- copying ---------------------------------------------------------------------------------------


def _put(store: Store, entries: list[tuple[Any, Any, int]]) -> None:
    if store.schema.expires:
        put_expiring(store, [entry[:2] for entry in entries], [entry[2] for entry in entries])
    else:
        store.put_many([entry[:2] for entry in entries])


class _Copier:
    """Copies entries, and counts those that it cannot."""

    def __init__(
        self, target: Store, aside: Store | None, capacity: int, report: Callable[[int], object]
    ) -> None:
        self._target = target
        self._aside = aside
        self._capacity = capacity
        self._report = report
        self.stale = 0
        self._set_aside: set[tuple[int, bytes]] = set()  # keys that may be met again

    def copy(
        self, layer: _Layer, newer: Sequence[_Layer], owners: Sequence[_Layer] = ()
    ) -> tuple[int, int]:
        """Copy what is current of a layer, and of its sources what it cannot tell itself.

        Parameters
        ----------
        newer : sequence of _Layer
            Newest first.
        owners : sequence of _Layer
            The consolidations that have superseded it: only what none of them can tell is copied.

        Returns
        -------
        (int, int)
            How many entries were copied, and how many cells neither key nor value could be had of.
        """
        copied = lost = 0
        if layer.fragment:
            for tile in range(tiles_of(layer.fragment, self._capacity)):
                present, deleted, unread = proven_keys(layer.fragment, tile)
                lost += unread
                keys = iter(present)
                while batch := list(islice(keys, _AT_ONCE)):
                    done, failed = self._entries(layer, batch, newer, owners)
                    copied += done
                    lost += failed
                self._report(len(present) + len(deleted) + unread)
        missing = 0
        for i, source in enumerate([] if layer.sound else layer.sources):
            before = [*newer, *layer.sources[:i]]
            done, failed = self.copy(source, before, [*owners, layer])
            copied += done
            missing += failed
        if layer.covered:
            lost = min(lost, missing) if layer.fragment else missing
        return copied, lost

    def _entries(
        self,
        layer: _Layer,
        keys: list[Any],
        newer: Sequence[_Layer],
        owners: Sequence[_Layer],
    ) -> tuple[int, int]:
        certain = [not layer.doubtful] * len(keys)
        shown = [True] * len(keys)
        for owner in owners:
            for i, state in enumerate(owner.own(keys)):
                lost = owner.lost(keys[i])
                shown[i] &= state == UNKNOWN or lost
                certain[i] &= owner.covered and not lost
        for other in newer:
            for i, state in enumerate(other.says(keys)):
                open_ = other.lost(keys[i]) or (other.doubtful and state != ABSENT)
                shown[i] &= (state in (ABSENT, UNKNOWN) or open_) and not other.told(keys[i])
                certain[i] &= state != UNKNOWN and not open_
        chosen = [i for i in range(len(keys)) if shown[i]]
        values = layer.values([keys[i] for i in chosen])
        current: list[tuple[Any, Any, int]] = []
        doubtful: list[tuple[Any, Any, int]] = []
        for i, value in zip(chosen, values, strict=True):
            moment: int | None = NEVER
            if self._target.schema.expires and value is not NO_VALUE:
                moment = layer.moment(keys[i])
            if value is NO_VALUE or moment is None:
                layer.valueless.add(key_bytes(keys[i], False))
            else:
                (current if certain[i] else doubtful).append((keys[i], value, moment))
        _put(self._target, current)
        for owner in owners:
            owner.stale |= {key_bytes(key, False) for key, _, _ in doubtful}
        self.stale += len(doubtful)
        if any(other.doubtful for other in newer) or layer.doubtful:
            again = {key_bytes(key, False) for key, _, _ in doubtful}
            self.stale -= len(again & self._set_aside)
            self._set_aside |= again
        if self._aside is not None:
            _put(self._aside, doubtful)
        return len(current), len(chosen) - len(current) - len(doubtful)

"""Copying out of a damaged store what can still be proven right. What is current of it, `salvage_layers` tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from tilekv.arguments import NO_VALUE
from tilekv.engine import layout_of
from tilekv.errors import FormatError, StoreNotFoundError
from tilekv.expiry import NEVER, put_expiring
from tilekv.kvcore.check.recovery import proven_keys
from tilekv.kvcore.values.keys import key_bytes
from tilekv.newer import check_newer
from tilekv.opener import Opener
from tilekv.probe import Kind, probe
from tilekv.progress import Progress, reporter
from tilekv.storage import open_storage
from tilekv.store import Store
from tilekv.tools.atomic_build import whole_store
from tilekv.tools.problem import Problem
from tilekv.tools.recover_schema import recover_schema, tiles_of
from tilekv.tools.salvage_layers import Layer, judge, layers_of

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
    storage_options: Mapping[str, object] | None = None,
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
    storage_options : mapping, optional
        As of `open`.

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
    storage = open_storage(damaged, False, storage_options)
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
    layers = layers_of(opener, listing, schema, problems)
    cells = sum(layer.fragment.cells for layer in layers if layer.fragment)
    with ExitStack() as closing:
        target = closing.enter_context(
            whole_store(new, schema, recovered.numbers, None, storage_options)
        )
        aside = (
            closing.enter_context(
                whole_store(stale, schema, recovered.numbers, None, storage_options)
            )
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
        self, layer: Layer, newer: Sequence[Layer], owners: Sequence[Layer] = ()
    ) -> tuple[int, int]:
        """Copy what is current of a layer, and of its sources what it cannot tell itself.

        Parameters
        ----------
        newer, owners : sequence of Layer
            See judge().

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
        layer: Layer,
        keys: list[Any],
        newer: Sequence[Layer],
        owners: Sequence[Layer],
    ) -> tuple[int, int]:
        newest, certain = judge(layer, keys, newer, owners)
        chosen = [i for i in range(len(keys)) if newest[i]]
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

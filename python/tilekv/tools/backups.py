"""Copying a store while others write, merge and remove in it (docs/design.md 6.8).

The record of a backup names every fragment that it has, those of flushes too: it is the list of what the last backup has
brought, and one replacement of it shows the next state instead of the last.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tilekv.config import Config
from tilekv.descriptor import Descriptor
from tilekv.engine import open_engine
from tilekv.errors import (
    CorruptionError,
    FormatError,
    SnapshotGone,
    StoreBusyError,
    StoreExistsError,
)
from tilekv.kvcore.base.file import File
from tilekv.names import ARRAY_SCHEMA, DESCRIPTOR, KV_SCHEMA, LOCK, FragmentName
from tilekv.newer import check_newer
from tilekv.opener import MOST_LISTINGS, Opener
from tilekv.probe import Kind, Probe, probe
from tilekv.progress import Progress, reporter
from tilekv.record import DAY_MS, Commit, Record, new_token, parsed, shorts
from tilekv.storage import Storage, open_storage
from tilekv.vacuuming import ABANDONED_S

_AT_ONCE: Final = 1 << 20  # bytes that are copied at once
_CACHE: Final = 1 << 20  # bytes: nothing is decoded
# What a file says whose descriptor was given back, and one that another machine has removed from a network file system.
_GONE: Final = (errno.ENOENT, errno.ESTALE)

Report = Callable[[int, int], object]


@dataclass(frozen=True)
class Backup:
    """What a backup has done.

    Attributes
    ----------
    fragments : int
        That the store had, and the destination has now.
    copied, copied_bytes : int
        How many of them were copied, and the bytes of their files. The others were there.
    removed : int
        Fragments of the last backup that the store had no more, and that were removed.
    """

    fragments: int
    copied: int
    copied_bytes: int
    removed: int


def backup(
    store: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> Backup:
    """Copy a store as it is at one moment, while others write, merge and vacuum.

    What handles have buffered and not flushed is no part of it, nor is the past. The destination is a store: it opens, and it can
    be verified. The first time it appears when it is whole. Again onto the same destination only what is new is copied, and what
    the store has no more is removed; whoever reads the destination meanwhile sees the last backup or this one. A backup that was
    killed is started again.

    Parameters
    ----------
    store : str or os.PathLike
        The URI of a store of tilekv; it is only read.
    destination : str or os.PathLike
        The URI of a new place, of an empty folder, or of the last backup of the same store.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (bytes copied, bytes in all).
    storage_options : mapping, optional
        As of `open`, for whichever of the two is on object storage.

    Returns
    -------
    Backup
        How much that was.

    Raises
    ------
    StoreExistsError
        When something else is at the destination: another store or its backup, or a backup that was written to since.
    StoreBusyError
        When another backup onto the same destination is under way.
    StoreReplacedError
        When another store took the place of this one meanwhile.
    StoreNotFoundError, CorruptionError
        When there is no store, or a fragment of it cannot be opened; when the last backup is damaged.
    FormatError
        When TileDB wrote the store, or has added to it.
    """
    report = reporter(progress, "backing up")
    source = _Source(open_storage(store, options=storage_options))
    place = open_storage(destination, options=storage_options)
    found = probe(place)
    if found.kind in (Kind.NOTHING, Kind.EMPTY):
        done = _first(source, place, report, storage_options)
    else:
        done = _again(source, found, report)
    report(done.copied_bytes, done.copied_bytes)
    return done


class _State(NamedTuple):
    """What a store has at one moment.

    Attributes
    ----------
    files : dict of FragmentName to mapping of str to File
        Its visible fragments, oldest first, open.
    expired : mapping of FragmentName to int
        The moment (ms) by which each has left out what had expired.
    history : int or None
        As in the record.
    """

    files: dict[FragmentName, Mapping[str, File]]
    expired: Mapping[FragmentName, int]
    history: int | None

    def commits(self, moment: int) -> list[Commit]:
        """Each by itself: so it counts at every moment at which it would count without a record."""
        return [Commit((name,), frozenset(), moment, self.expired[name]) for name in self.files]


class _Source:
    """The store that is copied."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._engine = open_engine(probe(storage), "r", None, Config())
        if self._engine.id is None:
            raise FormatError(
                f"{storage.uri} was written by TileDB 1.x: nothing changes it, and any copy of its folder is a backup"
            )
        self.id = self._engine.id

    def root(self) -> dict[str, bytes]:
        """The files of a copy's root."""
        descriptor = Descriptor.from_bytes(self.storage.read(DESCRIPTOR))
        schema = self.storage.read(KV_SCHEMA)
        descriptor.check_schema(schema, KV_SCHEMA)
        self._engine.check_identity()
        return {
            KV_SCHEMA: schema,
            ARRAY_SCHEMA: schema,
            LOCK: b"",
            DESCRIPTOR: descriptor.recorded().to_bytes(),
        }

    def look(self) -> _State:
        """Open all that is visible now. What is open can be read to its end: see `File`."""
        # By pread: a disk that fails is an error and no signal, and other threads go on meanwhile.
        opener = Opener(self.storage, self._engine.layout, _CACHE, False, sys.maxsize, self.id)
        opener.recorded = self._engine.opener.recorded
        opener.files = {}
        try:
            snapshot = opener.snapshot()
            record = opener.record()
        except CorruptionError:
            self._engine.check_identity()
            raise
        self._engine.check_identity()
        oldest_first = snapshot.fragments[::-1]
        names = parsed(fragment.name for fragment in oldest_first)
        return _State(
            {name: opener.files[str(name)] for name in names},
            {name: each.expired for name, each in zip(names, oldest_first, strict=True)},
            record.history if record else DAY_MS,
        )


def _first(
    source: _Source,
    place: Storage,
    report: Report,
    storage_options: Mapping[str, object] | None,
) -> Backup:
    build = place.build()
    try:
        target = open_storage(build.uri, options=storage_options)
        target.create(source.root(), replace=False)
        done = _Target(target, Record(source.id, token=new_token())).bring(source, report)
        if not build.commit(replace=False):
            raise StoreExistsError(f"there is something at {place.uri} by now: name a new place")
        return done
    finally:
        build.abandon()


def _again(source: _Source, found: Probe, report: Report) -> Backup:
    place = found.storage
    if found.damage:
        raise found.damage
    if found.kind is not Kind.TILEKV:
        raise StoreExistsError(f"{place.uri} is not empty and no backup: name a new place")
    engine = open_engine(found, "r", None, Config())
    if engine.id != source.id:
        raise StoreExistsError(f"{place.uri} is another store, or its backup: name a new place")
    with place.lock() as held:
        if not held:
            raise StoreBusyError(f"another backup to {place.uri} is under way: nothing was done")
        last = engine.opener.record()
        if last is None or not last.backup:
            raise StoreExistsError(
                f"{place.uri} is the store itself, a copy of it, or a backup that somebody has worked in: name a new place"
            )
        return _Target(place, last).bring(source, report)


class _Target:
    """What a backup is made in: a store with the record of the last one, or a new one that nobody sees."""

    def __init__(self, storage: Storage, last: Record) -> None:
        self._storage = storage
        self._last = last
        self._copied: dict[FragmentName, int] = {}  # bytes

    def bring(self, source: _Source, report: Report) -> Backup:
        """Make it what the source is now."""
        storage = self._storage
        self._known()
        storage.reclaim(storage.abandoned(ABANDONED_S))
        state = self._copy_all(source, report)
        storage.sync()  # what an interrupted backup has left, too
        known = self._known()
        gone = [name for name in known if name not in state.files]
        self._show(state, shorts(gone))
        storage.show(map(str, state.files))
        strays = [name for name in parsed(storage.staged()) if name not in state.files]
        storage.reclaim(storage.retire(map(str, [*gone, *strays])))
        if gone:
            self._show(state, frozenset())
        copied = self._copied.keys() & state.files.keys()
        size = sum(self._copied[name] for name in copied)
        return Backup(len(state.files), len(copied), size, len(gone))

    def _known(self) -> list[FragmentName]:
        """The fragments in the root, in their order, all of which a backup has brought."""
        listing = self._storage.list()
        check_newer(self._storage, listing)
        found = sorted(parsed(listing.folders), key=lambda name: name.order)
        brought = {name for commit in self._last.commits for name in commit.outputs}
        gone = self._last.superseded()
        for name in found:
            if name not in brought and name.short not in gone:
                raise StoreExistsError(
                    f"somebody has written {name} into the backup {self._storage.uri}: name a new place"
                )
        return found

    def _copy_all(self, source: _Source, report: Report) -> _State:
        """Copy what is not there; look again when something has gone that was not open any more."""
        for _ in range(MOST_LISTINGS - 1):
            state = source.look()
            try:
                self._copy(state, report)
            except SnapshotGone:
                continue
            return state
        state = source.look()
        self._copy(state, report)
        return state

    def _copy(self, state: _State, report: Report) -> None:
        storage = self._storage
        there = {*storage.list().folders, *storage.staged()}
        missing = {}
        for name, files in state.files.items():
            sizes = {file: data.size for file, data in files.items()}
            if str(name) not in there:
                missing[name] = sum(sizes.values())
            elif storage.files(str(name)) != sizes:
                reason = f"it is not what the store has: the backup {storage.uri} is damaged, make a new one"
                raise CorruptionError(str(name), None, reason)
        done = sum(self._copied.values())
        total = done + sum(missing.values())

        def written(n: int) -> None:
            nonlocal done
            done += n
            report(min(done, total - 1), total)

        for name, size in missing.items():
            self._copy_fragment(name, state.files[name], written)
            self._copied[name] = size

    def _copy_fragment(
        self, name: FragmentName, files: Mapping[str, File], written: Callable[[int], object]
    ) -> None:
        """To the stage, where nobody looks for it before the record names it."""
        draft = self._storage.draft(staged=True)
        try:
            for file, data in files.items():
                writer = draft.create(file)
                try:
                    for at in range(0, data.size, _AT_ONCE):
                        n = min(_AT_ONCE, data.size - at)
                        writer.write(_read(name, data, at, n))
                        written(n)
                finally:
                    writer.close()
            draft.commit(str(name))
        finally:
            draft.abandon()

    def _show(self, state: _State, gone: frozenset[str]) -> None:
        """The one step by which readers see this state instead of the last."""
        moment = self._storage.now()
        new = self._last.backed_up(state.commits(moment), gone, state.history, moment)
        done = self._storage.replace_record(new.seq, new.to_bytes())
        file = self._storage.record()
        if not done or file is None or not Record.from_file(file).follows(new):
            raise StoreBusyError(
                f"somebody works in the backup {self._storage.uri}: name a new place"
            )
        self._last = new


def _read(name: FragmentName, file: File, at: int, n: int) -> bytes:
    try:
        return file.read(at, n)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        raise SnapshotGone(f"fragment {name} was vacuumed before it was copied") from None

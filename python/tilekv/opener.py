"""Which fragments a handle sees, opened and mapped before it reads the first key (docs/design.md 5)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Final

from tilekv.clock import milliseconds
from tilekv.errors import CorruptionError, HistoryVacuumed, SnapshotGone
from tilekv.history import History, history_of, owners, read_history, read_list
from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.base.file import File
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.names import (
    FRAGMENT_METADATA,
    FragmentName,
    data_file,
    vac_file,
)
from tilekv.newer import check_newer
from tilekv.probe import Probe
from tilekv.storage import Listing, Storage

# Two do while others write; each consolidation that is vacuumed meanwhile takes one more. Nothing makes so many in a moment.
MOST_LISTINGS: Final = 64


class Opener:
    """Opens fragments of one store with one cache.

    Parameters
    ----------
    mmap : bool
        Map files; False reads them with pread.
    eager : int
        With more fragments than this, each is opened when it is first needed. It may be gone by then.
    ignore_newer : bool
        Show the store without what TileDB 2 has added to it.
    found : Probe, optional
        What was found just now: the first look begins with its listing.

    Attributes
    ----------
    looked : int
        The moment of the last look, in ms since 1970: all that had been flushed by then was shown.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        cache_bytes: int,
        mmap: bool,
        eager: int,
        ignore_newer: bool = False,
        found: Probe | None = None,
    ) -> None:
        self.storage = storage
        self.layout = layout
        self.cache = ChunkCache(cache_bytes)
        self.codecs = CodecPool()
        self.mmap = mmap
        self.eager = eager
        self.ignore_newer = ignore_newer
        self.looked = 0
        self._found = found

    def snapshot(self, timestamp: int | None = None, known: Snapshot | None = None) -> Snapshot:
        """The fragments that are visible now, newest first.

        Parameters
        ----------
        timestamp : int, optional
            Only fragments whose last write is not after this many ms since 1970.
        known : Snapshot, optional
            Its fragments are used again, with what has been verified and decoded of them.

        Raises
        ------
        CorruptionError
            When a fragment is damaged.
        FormatError
            When TileDB 2 has added to the store in a format that tilekv does not read.
        SnapshotGone
            When fragments were consolidated and vacuumed again and again while they were being opened.
        """
        opened: dict[str, Fragment] = known.opened if known else {}
        found, self._found = self._found, None
        self.looked = found.moment if found else milliseconds()
        names = self._names(timestamp, opened, found.listing if found else None)
        return self.assemble(opened.get(name, name) for name in names)

    def _names(
        self, timestamp: int | None, opened: dict[str, Fragment], first: Listing | None = None
    ) -> list[str]:
        """The visible fragments, newest first; those that are to be open are added to `opened`. `first`: a new listing."""
        return _Look(self, timestamp, opened).names(first or self.storage.list())

    def superseded(self) -> frozenset[str]:
        """Fragments whose cells consolidated ones hold, and that are still there. FileNotFoundError when a vacuum is at work."""
        return read_history(self.storage, self.storage.list()).superseded

    def assemble(self, fragments: Iterable[Fragment | str]) -> Snapshot:
        """A Snapshot of these fragments, newest first; those given by name are opened when first needed."""
        return Snapshot(self.layout, self.cache, self.codecs, fragments, self._late)

    def _late(self, name: str) -> Fragment:
        try:
            return self.open_listed(name)
        except FileNotFoundError:
            raise SnapshotGone(
                f"fragment {name} was vacuumed before this handle first needed it: reopen(), or raise "
                "kv.max_mapped_fragments"
            ) from None

    def fragment(self, name: str, partial: bool = False) -> Fragment:
        """Open one fragment. FileNotFoundError when it, or a file of it, is not there.

        With `partial` it opens as long as its metadata is whole: of a data file that is short or missing there is what there is.
        """
        opened = self.storage.open_files(name, self.mmap)
        files = [data_file(stem, is_bytes) for _, stem, is_bytes in self.layout.files]
        if partial:
            opened = dict.fromkeys(files, File.memory(b"")) | opened
        try:
            metadata = opened[FRAGMENT_METADATA]
            data = [opened[file] for file in files]
        except KeyError as error:
            raise FileNotFoundError(f"{name}/{error.args[0]}") from None
        return Fragment(self.layout, name, metadata, data, self.cache, self.codecs, partial)

    def open_listed(self, name: str) -> Fragment:
        """Open a fragment that was listed. FileNotFoundError when it is gone, CorruptionError when only a file of it is."""
        try:
            return self.fragment(name)
        except FileNotFoundError:
            missing = self.missing(name)
            if not missing:
                raise  # it was gone for a moment: a vacuum is at work
            raise CorruptionError(f"{name}/{missing[0]}", None, "the file is missing") from None

    def is_there(self, name: str) -> bool:
        """Whether a fragment is still in the store: a vacuum hides all of it at once."""
        try:
            self.storage.files(name)
        except FileNotFoundError:
            return False
        return True

    def missing(self, name: str) -> list[str]:
        """The files that a fragment lacks. FileNotFoundError when all of it is gone."""
        files = {data_file(stem, is_bytes) for _, stem, is_bytes in self.layout.files}
        return sorted((files | {FRAGMENT_METADATA}) - self.storage.files(name).keys())

    def drop_pages(self, snapshot: Snapshot) -> None:
        """Let the system forget which pages of the fragments' maps were touched: they count as this process's memory."""
        for fragment in snapshot.opened.values():
            fragment.drop_pages()


class _Look:
    """One look at what is visible, with the fragments held open that it shows.

    A listing is no snapshot: of what appears and goes meanwhile it can show the later and miss the earlier. Two, one after the
    other, are enough to show what was committed at a moment between them, however many write:

    * All that had been committed by then is in one of them, but for what a consolidation holds by now.
    * A flush chooses a time that is later than all it can see. So what began after the second listing did is later than all
      that is in the first, and is left out; what took its time earlier and is in neither was under way all along.
    * A consolidated fragment holds what its sources hold: either it or all of them are shown. Vacuums hide sources only once it
      has its list, and remove the list last: whether it counts is told by its list, and where the listings have missed that,
      by its sources, asked for by name.

    What vanished and is in nothing that was listed is in a fragment that appeared meanwhile: that takes a listing more.
    """

    def __init__(self, opener: Opener, timestamp: int | None, opened: dict[str, Fragment]) -> None:
        self._opener = opener
        self._storage = opener.storage
        self._timestamp = timestamp
        self._opened = opened
        self._lists: dict[str, frozenset[str]] = {}  # by consolidated fragment; they never change
        self._vacuumed: dict[
            str, frozenset[str]
        ] = {}  # the same, of those whose lists were removed
        self._lost: CorruptionError | None = None  # a list, if nothing has changed meanwhile

    def names(self, first: Listing) -> list[str]:
        """See `Opener._names`."""
        for _ in range(MOST_LISTINGS - 1):
            shown = self._shown(first, first, self._timestamp)
            second = self._storage.list()
            if second != first:
                shown = self._between(first, second)
            elif self._lost:
                break
            if shown is not None:
                return shown
            first = second
        raise self._lost or SnapshotGone(
            f"the fragments of {self._storage.uri} were consolidated and vacuumed again and again while they were being opened"
        )

    def _between(self, first: Listing, second: Listing) -> list[str] | None:
        """What was visible between two listings; None when they do not tell."""
        both = Listing(
            tuple(sorted({*first.folders, *second.folders})),
            tuple(sorted({*first.files, *second.files})),
        )
        latest = max((name.t2 for name in _parsed(first.folders)), default=-1)
        try:
            for name in _parsed({*second.folders}.difference(first.folders)):
                # One that is left out holds nothing that is not listed, or that was there before.
                if name.t2 > latest and not {*both.folders}.issuperset(self._open(name).sources):
                    return None
        except FileNotFoundError:
            return None
        asked = self._timestamp
        shown = self._shown(both, second, latest if asked is None else min(asked, latest))
        if shown is None or not {*second.folders}.issuperset(shown):
            return None
        return shown

    def _shown(self, listing: Listing, newest: Listing, moment: int | None) -> list[str] | None:
        """The visible fragments by a listing, opened if they are to be; None when some have vanished.

        `newest` is the part of it that was listed last.
        """
        check_newer(self._storage, listing, self._opener.ignore_newer)
        self._lost = None
        everything = listing
        try:
            if self._timestamp is not None and self._opener.layout.expires >= 0:
                listing = self._without_later(listing, self._timestamp)
            for owner in owners(listing, moment):
                if owner not in self._lists:
                    self._lists[owner] = self._list_of(owner)
            there: Callable[[str], bool] = {*newest.folders}.__contains__
            while True:
                gone = frozenset[str]().union(*self._vacuumed.values())
                history = history_of(listing, self._lists, moment, gone)
                if self._find_lists(history, there):
                    continue
                try:
                    if len(history.visible) <= self._opener.eager:
                        for name in history.visible:
                            self._open(name)
                except FileNotFoundError:
                    there = self._opener.is_there
                    if not self._find_lists(history, there):
                        raise
                else:
                    break
            if self._timestamp is not None:
                self._check_past(everything, self._timestamp)
        except FileNotFoundError:
            return None
        return [str(name) for name in history.visible]

    def _without_later(self, listing: Listing, timestamp: int) -> Listing:
        """Without what lacks cells that had not expired yet at that moment: their sources show it."""
        later = {
            str(name)
            for name in _parsed(listing.folders)
            if name.t2 <= timestamp < self._open(name).expired
        }
        return listing._replace(folders=tuple(f for f in listing.folders if f not in later))

    def _list_of(self, owner: str) -> frozenset[str]:
        """FileNotFoundError when the fragment itself is gone."""
        try:
            return read_list(self._storage, owner)
        except FileNotFoundError:  # a vacuum has removed all that it lists
            return frozenset(self._open(owner).sources)

    def _find_lists(self, history: History, there: Callable[[str], bool]) -> bool:
        """Add lists that the listing has missed: False when there are none. FileNotFoundError when it takes another listing.

        A consolidated fragment without one does not supersede anything yet, and is shown beside all of its sources; or a vacuum
        is at work, or done; or one that another has superseded has lost its list, without which its sources would be seen again.
        """
        visible = sorted(history.visible)
        starts = [name.t1 for name in visible]
        shown = {str(name) for name in visible}
        found = False
        for name in (*visible, *_parsed(history.superseded)):
            if str(name) in self._lists or str(name) in self._vacuumed:
                continue
            within = visible[bisect_left(starts, name.t1) : bisect_right(starts, name.t2)]
            if not any(other != name and other.t2 <= name.t2 for other in within):
                continue
            sources = [str(source) for source in _parsed(self._open(name).sources)]
            again = shown.intersection(sources)
            if not again or (str(name) in shown and all(map(there, sources))):
                continue
            try:
                self._lists[str(name)] = read_list(self._storage, str(name))
            except FileNotFoundError:
                if all(map(self._opener.is_there, sources)):
                    if str(name) not in shown:
                        reason = f"it is missing: {name} holds all of {min(again)}, which would be seen again"
                        self._lost = CorruptionError(vac_file(str(name)), None, reason)
                    raise  # else the listing has missed a source
                # Not a list of its own: of several fragments of one consolidation only the last has one.
                self._vacuumed[str(name)] = frozenset(sources)
            found = True
        return found

    def _check_past(self, listing: Listing, timestamp: int) -> None:
        """A moment inside a consolidated range needs the sources of that time; vacuum removes them."""
        for name in _parsed(listing.folders):
            if not name.t1 <= timestamp:
                continue
            if timestamp >= name.t2 and (
                self._opener.layout.expires < 0 or timestamp >= self._open(name).expired
            ):
                continue
            for source in _parsed(self._open(name).sources):
                if source.t1 > timestamp or str(source) in listing.folders:
                    continue
                if self._opener.is_there(str(source)):
                    raise FileNotFoundError(str(source))  # in the listing
                oldest = max(name.t2, self._open(name).expired)
                raise HistoryVacuumed(
                    f"the state at {timestamp} ms was consolidated into {name} and vacuumed: "
                    f"the oldest that can be shown is {oldest}, the newest before it {name.t1 - 1}"
                )

    def _open(self, name: FragmentName | str) -> Fragment:
        """FileNotFoundError when it is gone."""
        text = str(name)
        if text not in self._opened:
            self._opened[text] = self._opener.open_listed(text)
        return self._opened[text]


def _parsed(names: Iterable[str]) -> list[FragmentName]:
    return [name for name in map(FragmentName.parse, names) if name]

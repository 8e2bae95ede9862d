"""Which fragments a handle sees, opened and mapped before it reads the first key (docs/design.md 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tilekv.clock import milliseconds
from tilekv.errors import CorruptionError, HistoryVacuumed, SnapshotGone
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
)
from tilekv.newer import check_newer
from tilekv.probe import Probe
from tilekv.record import RECORD, Record, parsed
from tilekv.seeding import record_of_lists
from tilekv.storage import Listing, RecordFile, Storage

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
    store : str
        The id of the store, which its record repeats; empty when nobody knows.
    ignore_newer : bool
        Show the store without what TileDB 2 has added to it.
    found : Probe, optional
        What was found just now: the first look begins with its listing.

    Attributes
    ----------
    recorded : bool
        Whether the descriptor says that the store has a record.
    seq : int
        The number of the record at the last look; 0: there was none.
    looked : int
        The moment of the last look, in ms since 1970: all that had been flushed by then was shown.
    files : dict of str to mapping of str to File, or None
        The files of each fragment that is opened, for who sets it to a dict.
    index_behind : callable, or None
        Given a snapshot whose digest index pays, has another thread make it. None: who looks up makes it.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        cache_bytes: int,
        mmap: bool,
        eager: int,
        store: str = "",
        ignore_newer: bool = False,
        found: Probe | None = None,
    ) -> None:
        self.storage = storage
        self.store = store
        self.layout = layout
        self.cache = ChunkCache(cache_bytes)
        self.codecs = CodecPool()
        self.mmap = mmap
        self.eager = eager
        self.ignore_newer = ignore_newer
        self.recorded = False
        self.seq = 0
        self.looked = 0
        self._last: tuple[RecordFile, Record] | None = None
        self.files: dict[str, Mapping[str, File]] | None = None
        self.index_behind: Callable[[Snapshot], object] | None = None
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

    def record(self) -> Record | None:
        """The record of the store's merges; see `newest_record`."""
        return self.newest_record()[1]

    def newest_record(self) -> tuple[int, Record | None]:
        """The number of the newest record, 0 if there is none, and what is in it: None when the store has none of its own yet.

        Raises
        ------
        CorruptionError
            When it is damaged, or missing from a store that has had one.
        """
        # Asked before looking: meanwhile another thread of this handle may make the first one.
        recorded = self.recorded
        file = self.storage.record()
        record = self._parsed(file) if file else None
        if record is not None and self.store not in (record.store, ""):
            record = None
        if record is None and recorded:
            raise CorruptionError(RECORD, None, f"it is missing from the store {self.storage.uri}")
        return file.seq if file else 0, record

    def _parsed(self, file: RecordFile) -> Record:
        """The record in a file, or the last one if that was the same: parsing is what an upkeep spends most of its time with."""
        last = self._last
        if last is None or last[0] != file:
            last = self._last = file, Record.from_file(file)
        return last[1]

    def seed(self, listing: Listing) -> Record:
        """The record that stands for what is listed of a store that has none; see `record_of_lists`."""
        opened: dict[str, Fragment] = {}

        def open_(name: str) -> Fragment:
            if name not in opened:
                opened[name] = self.open_listed(name)
            return opened[name]

        expires = self.layout.expires >= 0
        return record_of_lists(self.storage, listing, self.store, open_, expires)

    def superseded(self) -> frozenset[str]:
        """Fragments whose cells merged ones hold, and that are still there. FileNotFoundError when a vacuum is at work."""
        listing = self.storage.list()
        record = self.record() or self.seed(listing)
        gone = record.superseded()
        there = parsed({*listing.folders, *self.storage.past()})
        return frozenset(str(name) for name in there if name.short in gone)

    def assemble(self, fragments: Iterable[Fragment | str]) -> Snapshot:
        """A Snapshot of these fragments, newest first; those given by name are opened when first needed."""
        return Snapshot(
            self.layout, self.cache, self.codecs, fragments, self._late, self.index_behind
        )

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
        try:
            return self._fragment(name, partial)
        except CorruptionError:
            if not self.storage.distrust(name):
                raise
            return self._fragment(name, partial)

    def _fragment(self, name: str, partial: bool) -> Fragment:
        opened = self.storage.open_files(name, self.mmap)
        if self.files is not None:
            self.files[name] = opened
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
    other, with the same record around the second, are enough to show what was committed at a moment between them, however many
    write:

    * The record tells what merges have made and superseded. While it stays the same no merge commits, and what it does not
      supersede does not leave the root.
    * All that had been flushed before the second listing is in one of them. A flush chooses a time that is later than all it can
      see. So what began after the second listing did is later than all that is in the first, and is left out; what took its
      time earlier and is in neither was under way all along.
    """

    def __init__(self, opener: Opener, timestamp: int | None, opened: dict[str, Fragment]) -> None:
        self._opener = opener
        self._storage = opener.storage
        self._timestamp = timestamp
        self._opened = opened

    def names(self, first: Listing) -> list[str]:
        """See `Opener._names`."""
        before: CorruptionError | None = None
        for _ in range(MOST_LISTINGS - 1):
            past = self._storage.past() if self._timestamp is not None else ()
            seq, record = self._opener.newest_record()
            second = self._storage.list()
            if self._storage.record_seq() == seq:
                shown = self._shown(record, first, second, past)
                if isinstance(shown, list):
                    self._opener.seq = seq
                    return shown
                if before and shown and second == first:
                    raise shown
                before = shown
            first = second
        raise SnapshotGone(
            f"the fragments of {self._storage.uri} were consolidated and vacuumed again and again while they were being opened"
        )

    def _shown(
        self, record: Record | None, first: Listing, second: Listing, past: tuple[str, ...]
    ) -> list[str] | CorruptionError | None:
        """The visible fragments, opened if they are to be; None when something has changed meanwhile, and damage when either that
        is so or the record is wrong."""
        check_newer(self._storage, second, self._opener.ignore_newer)
        latest = max((name.t2 for name in parsed(first.folders)), default=-1)
        listed = {
            str(name)
            for name in parsed(second.folders)
            if name.t2 <= latest or str(name) in first.folders
        }
        try:
            if record is None:
                if first.files != second.files:
                    return None
                record = self._opener.seed(second)
            gone = record.superseded()
            vanished = {*parsed(first.folders)}.difference(parsed(second.folders))
            if any(not name.merged and name.short not in gone for name in vanished):
                return None
            made = {name for commit in record.commits for name in commit.outputs}
            for name in parsed(second.folders):
                if name.merged and name not in made and name.short not in gone:
                    reason = "a merge has shown it, and the record does not know it: that is an older one, or another store's"
                    return CorruptionError(str(name), None, reason)
            there = {*listed, *past}
            visible = record.visible(there, self._timestamp)
            if lost := self._find_unlisted(visible, there):
                return lost
            if len(visible) <= self._opener.eager:
                self._storage.expect(str(n) for n in visible if str(n) not in self._opened)
                for name in visible:
                    self._open(name)
            if self._timestamp is not None:
                self._check_past(record, there, self._timestamp)
        except FileNotFoundError:
            return None
        return [str(name) for name in visible]

    def _find_unlisted(
        self, visible: list[FragmentName], there: set[str]
    ) -> CorruptionError | None:
        """What the record names and no listing has must be on the stage."""
        for name in visible:
            if str(name) not in there and not self._opener.is_there(str(name)):
                reason = "the record of merges names it, and it is missing"
                return CorruptionError(str(name), None, reason)
        return None

    def _check_past(self, record: Record, there: set[str], timestamp: int) -> None:
        """A moment inside a merged range needs the sources of that time; vacuum removes them."""
        made = {name for commit in record.commits for name in commit.outputs}
        dropped = record.superseded(0)  # at every moment, by a backup that removes it
        kept = {name for name in (*parsed(there), *made) if name.short not in dropped}
        for name in kept:
            if name.t1 > timestamp or (name.t1 == name.t2 and not name.merged):
                continue
            if timestamp >= name.t2 and (
                self._opener.layout.expires < 0 or timestamp >= self._open(name).expired
            ):
                continue
            for source in self._sources(name):
                if source.t1 > timestamp or source in kept:
                    continue
                if source.short not in dropped and self._opener.is_there(str(source)):
                    raise FileNotFoundError(str(source))  # in the listings
                oldest = max(name.t2, self._open(name).expired)
                raise HistoryVacuumed(
                    f"the state at {timestamp} ms was consolidated into {name} and vacuumed: "
                    f"the oldest that can be shown is {oldest}, the newest before it {name.t1 - 1}; "
                    "kv.history keeps more"
                )

    def _sources(self, name: FragmentName) -> Iterable[FragmentName]:
        """What a merge has made a fragment of. FileNotFoundError when it, or what lists them, is gone: they go together."""
        first = FragmentName.parse(self._open(name).first_output)
        listed = self._open(first or name).sources
        if first is not None and not listed:
            raise CorruptionError(str(name), None, f"{first} does not list what it was made from")
        return parsed(listed)

    def _open(self, name: FragmentName) -> Fragment:
        """FileNotFoundError when it is gone."""
        text = str(name)
        if text not in self._opened:
            self._opened[text] = self._opener.open_listed(text)
        return self._opened[text]

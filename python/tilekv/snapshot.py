"""Which fragments a handle sees, opened and mapped before it reads the first key (docs/design.md 5)."""

from __future__ import annotations

from collections.abc import Iterable

from tilekv.errors import CorruptionError, FormatError, HistoryVacuumed, SnapshotGone
from tilekv.history import History, read_history
from tilekv.kvcore.cache import ChunkCache
from tilekv.kvcore.codec import CodecPool
from tilekv.kvcore.fragment import Fragment
from tilekv.kvcore.layout import Layout
from tilekv.kvcore.search import View
from tilekv.kvcore.view import FileView
from tilekv.names import (
    FRAGMENT_METADATA,
    FragmentName,
    data_file,
    newer_tiledb,
    vac_file,
)
from tilekv.storage import Listing, Storage


class Opener:
    """Opens fragments of one store with one cache.

    Parameters
    ----------
    mmap : bool
        Map files; False reads them with pread.
    eager : int
        With more fragments than this, each is opened when it is first needed. It may be gone by then.
    """

    def __init__(
        self, storage: Storage, layout: Layout, cache_bytes: int, mmap: bool, eager: int
    ) -> None:
        self.storage = storage
        self.layout = layout
        self.cache = ChunkCache(cache_bytes)
        self.codecs = CodecPool()
        self.mmap = mmap
        self.eager = eager

    def view(self, timestamp: int | None = None, known: View | None = None) -> View:
        """The fragments that are visible now, newest first.

        A listing is no snapshot: it can miss both a new fragment and those that it replaced. So the
        store is listed again until nothing has changed while the fragments were being opened.

        Parameters
        ----------
        timestamp : int, optional
            Only fragments whose last write is not after this many ms since 1970.
        known : View, optional
            Its fragments are used again, with what has been verified and decoded of them.

        Raises
        ------
        CorruptionError
            When a fragment is damaged.
        FormatError
            When a newer TileDB has moved data where tilekv cannot read it.
        """
        opened: dict[str, Fragment] = known.opened if known else {}
        while (names := self._names(self.storage.list(), timestamp, opened)) is None:
            pass
        return self.assemble(opened.get(name, name) for name in names)

    def _names(
        self, listing: Listing, timestamp: int | None, opened: dict[str, Fragment]
    ) -> list[str] | None:
        """The visible fragments by a listing, newest first, opened; None when it is no longer what is there."""
        check_writer(self.storage, listing)
        try:
            history = read_history(self.storage, listing, timestamp)
            if len(history.visible) <= self.eager:
                self._open_all(map(str, history.visible), opened)
            if timestamp is not None:
                self._check_past(listing, timestamp, opened)
        except FileNotFoundError:
            return None
        if self.storage.list() != listing or not self._lists_are_whole(history, opened):
            return None
        return [str(name) for name in history.visible]

    def _lists_are_whole(self, history: History, opened: dict[str, Fragment]) -> bool:
        """Whether no list of a consolidation is missing; False when a vacuum is at work, CorruptionError when one is lost.

        A consolidation that another has superseded goes on hiding its sources, by its own list, until a vacuum has removed
        them. Were that list lost, they would be seen again, and be newer than the consolidation that came last.
        """
        for name in filter(None, map(FragmentName.parse, history.superseded)):
            inside = {str(o) for o in history.visible if name.t1 <= o.t1 and o.t2 <= name.t2}
            if not inside or str(name) in history.lists:
                continue
            try:
                self._open_all([str(name)], opened)
            except FileNotFoundError:
                return False
            for source in inside.intersection(opened[str(name)].sources):
                reason = f"it is missing: {name} holds all of {source}, which would be seen again"
                raise CorruptionError(vac_file(str(name)), None, reason)
        return True

    def superseded(self) -> frozenset[str]:
        """Fragments whose cells consolidated ones hold, and that are still there. FileNotFoundError when a vacuum is at work."""
        return read_history(self.storage, self.storage.list()).superseded

    def _check_past(self, listing: Listing, timestamp: int, opened: dict[str, Fragment]) -> None:
        """A moment inside a consolidated range needs the sources of that time; vacuum removes them."""
        for name in filter(None, map(FragmentName.parse, listing.folders)):
            if not name.t1 <= timestamp < name.t2:
                continue
            self._open_all([str(name)], opened)
            for source in opened[str(name)].sources:
                parsed = FragmentName.parse(source)
                if parsed and parsed.t1 <= timestamp and source not in listing.folders:
                    raise HistoryVacuumed(
                        f"the state at {timestamp} ms was consolidated into {name} and vacuumed: "
                        f"the oldest that can be shown is {name.t2}, the newest before it {name.t1 - 1}"
                    )

    def assemble(self, fragments: Iterable[Fragment | str]) -> View:
        """A View of these fragments, newest first; those given by name are opened when first needed."""
        return View(self.layout, self.cache, self.codecs, fragments, self._late)

    def _late(self, name: str) -> Fragment:
        try:
            return self._open(name)
        except FileNotFoundError:
            raise SnapshotGone(
                f"fragment {name} was vacuumed before this handle first needed it: reopen(), or raise "
                "kv.max_mapped_fragments"
            ) from None

    def fragment(self, name: str, partial: bool = False) -> Fragment:
        """Open one fragment. FileNotFoundError when it, or a file of it, is not there.

        With `partial` it opens as long as its metadata is whole: of a data file that is short or missing there is what there is.
        """
        views = self.storage.views(name, self.mmap)
        files = [data_file(stem, is_bytes) for _, stem, is_bytes in self.layout.files]
        if partial:
            views = dict.fromkeys(files, FileView.memory(b"")) | views
        try:
            metadata = views[FRAGMENT_METADATA]
            data = [views[file] for file in files]
        except KeyError as error:
            raise FileNotFoundError(f"{name}/{error.args[0]}") from None
        return Fragment(self.layout, name, metadata, data, self.cache, self.codecs, partial)

    def _open_all(self, names: Iterable[str], opened: dict[str, Fragment]) -> None:
        """Open those that are not. FileNotFoundError when one is gone."""
        for name in names:
            if name in opened:
                continue
            opened[name] = self._open(name)

    def _open(self, name: str) -> Fragment:
        """Open a fragment that was listed. FileNotFoundError when it is gone, CorruptionError when only a file of it is."""
        try:
            return self.fragment(name)
        except FileNotFoundError:
            missing = self.missing(name)
            if not missing:
                raise  # it was gone for a moment: a vacuum is at work
            raise CorruptionError(f"{name}/{missing[0]}", None, "the file is missing") from None

    def missing(self, name: str) -> list[str]:
        """The files that a fragment lacks. FileNotFoundError when all of it is gone."""
        files = {data_file(stem, is_bytes) for _, stem, is_bytes in self.layout.files}
        return sorted((files | {FRAGMENT_METADATA}) - self.storage.files(name).keys())

    def relax(self, view: View) -> None:
        """Let the system forget which pages of the fragments' maps were touched: they count as this process's memory."""
        for fragment in view.opened.values():
            fragment.relax()


def check_writer(storage: Storage, listing: Listing) -> None:
    """FormatError when a newer TileDB has moved data where tilekv cannot read it."""
    newer = newer_tiledb(listing.folders, listing.files, storage.is_empty)
    if newer is not None:
        raise FormatError(
            f"{storage.uri}: TileDB 2 has rewritten this store in its own newer format ({newer}); "
            "tilekv would not see that data"
        )

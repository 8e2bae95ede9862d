"""Changing the record of a store: what consolidation, upkeep and vacuum share (docs/design.md 6.3).

Nobody holds a lock while data is copied. A merge claims its sources, so that others look for other work; its commit alone,
which is a new record or nothing, decides whether it counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from tilekv.clock import seconds
from tilekv.config import UNSET
from tilekv.descriptor import Descriptor
from tilekv.engine import Engine
from tilekv.errors import StoreBusyError, TileKVError
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.names import DESCRIPTOR, FragmentName, vac_file
from tilekv.opener import Opener
from tilekv.record import DAY_MS, Claim, Commit, Record, new_token, parsed, shorts
from tilekv.storage import Listing
from tilekv.storage.process import has_ended, process_name

CACHE_BYTES: Final = 16 << 20  # decoded chunks of the fragments that are merged
# A claim counts for so long since it was last renewed: a merge that was killed or suspended stops nobody for longer.
CLAIM_MS: Final = 60_000
STALE_S: Final = 30
_RECORDS: Final = 1000  # times that others may be faster before that is an error


class State(NamedTuple):
    """What is visible at a moment, for who chooses what to merge.

    Attributes
    ----------
    visible : list of FragmentName
        Oldest first.
    settled : frozenset of FragmentName
        Those of them that are in the root and that everything is later than that appears from now on.
    busy : frozenset of str
        What others are merging, by `FragmentName.short`.
    """

    record: Record
    visible: list[FragmentName]
    settled: frozenset[FragmentName]
    busy: frozenset[str]


Choose = Callable[[State], Sequence[FragmentName]]


class Claimed(NamedTuple):
    """Sources of a merge that is under way, oldest first, and whether a delete among them may still hide something older."""

    owner: str
    sources: tuple[FragmentName, ...]
    keep_deletes: bool


class Maintenance:
    """Changes the record of one store.

    Parameters
    ----------
    opened : dict, optional
        Fragments that are open already, by name.
    """

    def __init__(self, engine: Engine, opened: dict[str, Fragment] | None = None) -> None:
        self.engine = engine
        self.storage = engine.storage
        config = engine.config
        reading = CACHE_BYTES, config.mmap, config.max_mapped_fragments
        self.opener = Opener(engine.storage, engine.layout, *reading, engine.opener.store)
        self.opener.recorded = engine.opener.recorded
        self._opened = {} if opened is None else dict(opened)

    def fragment(self, name: FragmentName) -> Fragment:
        """Open one, or the one that was opened before. FileNotFoundError when it is gone."""
        text = str(name)
        if text not in self._opened:
            self._opened[text] = self.opener.open_listed(text)
        return self._opened[text]

    def snapshot(self, names: Sequence[FragmentName]) -> Snapshot:
        """A Snapshot of some fragments, which are given oldest first."""
        return self.opener.assemble([self.fragment(name) for name in reversed(names)])

    # --- the record ---

    def record(self) -> Record:
        """The newest; the first is made where there is none.

        Raises
        ------
        StoreBusyError
            When another process is making the first, or an older tilekv consolidates.
        """
        record = self.opener.record()
        if record is None:
            record = self._seed()
        if not self.opener.recorded:
            self._raise_format()
        return record

    def _seed(self) -> Record:
        storage = self.storage
        with storage.lock() as held:
            if not held:
                raise StoreBusyError(
                    f"another consolidation or vacuum of {storage.uri} is under way: nothing was done"
                )
            record = self.opener.record()
            if record is None:
                self.engine.check_identity()
                first = self._seeded()
                storage.replace_record(first.seq, first.to_bytes())
                record = self.opener.record()
        if record is None:
            raise StoreBusyError(f"{storage.uri} was replaced: nothing was done")
        return record

    def _seeded(self) -> Record:
        """A record of what the lists of the store say, all of it superseded now."""
        moment = self.storage.now()
        while True:
            try:
                old = self.opener.seed(self.storage.list())
                break
            except FileNotFoundError:
                continue  # a fragment appeared or went meanwhile
        commits = tuple(
            Commit(each.outputs, each.sources, moment, each.expired) for each in old.commits
        )
        # A record of another store may be there, in whose place this one came.
        seq = self.storage.record_seq() + 1
        return Record(self.opener.store, seq, commits, (), self.history(), new_token())

    def _raise_format(self) -> None:
        """From here on programs that do not know of records refuse the store."""
        self.engine.check_identity()
        descriptor = Descriptor.from_bytes(self.storage.read(DESCRIPTOR))
        if not descriptor.record:
            self.storage.put(DESCRIPTOR, descriptor.recorded().to_bytes())
        self.opener.recorded = self.engine.opener.recorded = True

    def history(self) -> int | None:
        """For how long what is superseded is kept, in ms; None for ever. Without a record, what the first one will say."""
        record = self.opener.record()
        asked = self.engine.config.history_ms
        if record is None:
            return DAY_MS if asked == UNSET else asked
        return record.history

    def lengthen(self) -> None:
        """Keep history for as long as the handle asks, if that is longer."""
        asked = self.engine.config.history_ms

        def longer(record: Record) -> Record | None:
            if record.history is None or asked == UNSET:
                return None
            if asked is not None and asked <= record.history:
                return None
            return record.keeping(asked)

        self.change(longer)

    def change(self, how: Callable[[Record], Record | None]) -> Record | None:
        """Make the record that `how` makes of the newest one; None when it makes none. It is asked again after others."""
        for _ in range(_RECORDS):
            begun = seconds()
            new = how(self.record())
            if new is None or self._replaced(new, begun):
                return new
        raise self._crowded()

    def _replaced(self, new: Record, begun: float) -> bool:
        """Whether a record that was made since `begun` is the next one now."""
        if seconds() - begun > STALE_S:  # it has old moments in it
            return False
        # The number may be one that others have given before, and removed: then what is read has nothing of it.
        return self.storage.replace_record(new.seq, new.to_bytes()) and self.record().follows(new)

    def _crowded(self) -> StoreBusyError:
        return StoreBusyError(f"others change the record of {self.storage.uri} all the time")

    def state_now(self, owner: str = "") -> State:
        """What is visible by the newest record; see `state`."""
        while True:
            state = self.state(self.record(), owner)
            if state is not None:
                return state

    def state(self, record: Record, owner: str = "") -> State | None:
        """What is visible by a record; None when it is not the newest any more. Number 0: that of a store without one."""
        listing = self.storage.list()
        if self.storage.record_seq() != record.seq:
            return None
        visible = record.visible(listing.folders)[::-1]
        in_root = {*listing.folders}.intersection(map(str, visible))
        settled = frozenset(parsed(self.storage.settled(in_root)))
        claims = [
            claim
            for claim in record.claims
            if claim.owner != owner and not _is_over(claim, self.storage.now())
        ]
        busy = frozenset[str]().union(*(claim.sources for claim in claims))
        return State(record, visible, settled, busy)

    # --- a merge ---

    def claim(self, choose: Choose, owner: str = "") -> Claimed | None:
        """Claim what `choose` takes of what is visible; None when it takes nothing. It is asked again when others were faster.

        With the owner of an earlier claim this one takes its place, and what that has claimed is not busy.
        """
        owner = owner or new_owner()
        tried = False
        try:
            for _ in range(_RECORDS):
                begun = seconds()
                state, sources = self._chosen(choose, owner)
                if sources:
                    until = self.storage.now() + CLAIM_MS
                    claim = Claim(owner, shorts(sources), until)
                    tried = True
                    if not self._replaced(state.record.claimed(claim), begun):
                        continue
                self.complete(state.record)
                if not sources:
                    return None
                return Claimed(owner, sources, state.visible[0] != sources[0])
        except BaseException:
            if tried:  # it may be there in spite of the error; an earlier one of this owner stays
                self.release(owner)
            raise
        raise self._crowded()

    def _chosen(self, choose: Choose, owner: str) -> tuple[State, tuple[FragmentName, ...]]:
        """What is visible, and what is taken of it."""
        while True:
            state = self.state_now(owner)
            try:
                return state, tuple(choose(state))
            except FileNotFoundError:  # merged and vacuumed since
                if self.storage.record_seq() == state.record.seq:
                    raise

    def renew(self, claimed: Claimed) -> None:
        """Let a claim count on. Where the record cannot be changed the merge goes on: its commit decides."""
        with suppress(OSError):
            until = self.storage.now() + CLAIM_MS
            claim = Claim(claimed.owner, shorts(claimed.sources), until)
            self.change(lambda record: record.claimed(claim))

    def release(self, owner: str) -> None:
        """Give up a claim; never raises, since it ends by itself."""

        def releasing(record: Record) -> Record | None:
            there = any(claim.owner == owner for claim in record.claims)
            return record.released(owner) if there else None

        with suppress(Exception):
            self.change(releasing)

    def commit(self, claimed: Claimed, outputs: Sequence[FragmentName], expired: int) -> bool:
        """Let outputs count in the place of the sources; False when they do not fit into what is visible by now.

        Nobody has seen the outputs if it raises or is False, unless the record names them: see `is_committed`.
        """
        sources = shorts(claimed.sources)

        def committing(_: Record) -> Record | None:
            state = self.state_now()
            staged = self.storage.staged()
            if not _fits(state.visible, claimed, outputs):
                return None
            if not all(str(name) in staged for name in outputs):
                return None  # they were taken for what a crash has left
            commit = Commit(tuple(outputs), sources, self.storage.now(), expired)
            return state.record.committed(commit, claimed.owner)

        self.engine.check_identity()
        record = self.change(committing)
        if record is None:
            return False
        self.complete(record)
        return True

    def add(self, outputs: Sequence[FragmentName]) -> None:
        """Let what a job has staged count, all of it at once, beside what does; again is harmless.

        Raises TileKVError when some of it is gone, and StoreReplacedError when the store is: nothing of it counts then.
        """

        def adding(record: Record) -> Record | None:
            # A merge may have taken it since; without outputs a commit is a vacuum's, of what it took for left behind.
            counted = (c.sources.union(shorts(c.outputs)) for c in record.commits if c.outputs)
            if not shorts(outputs).isdisjoint(frozenset().union(*counted)):
                return None
            staged = {*self.storage.staged()}
            gone = [str(name) for name in outputs if str(name) not in staged]
            if gone:
                raise TileKVError(
                    f"{len(gone)} of {len(outputs)} fragments of the job are not there any more, such as {gone[0]}: what is not "
                    "committed within a day is taken for what a crash has left. Nothing was committed"
                )
            commit = Commit(tuple(outputs), frozenset(), self.storage.now())
            return record.committed(commit, "")

        self.engine.check_identity()
        self.change(adding)
        self.complete(self.record())

    def is_committed(self, outputs: Iterable[FragmentName]) -> bool:
        """Whether the record names outputs whose commit has raised."""
        record = self.opener.record()
        made = {name for commit in record.commits for name in commit.outputs} if record else set()
        return not made.isdisjoint(outputs)

    def complete(self, record: Record) -> None:
        """Show what merges have made and set aside what they supersede, as whoever commits does, unless it was killed.

        Readers go by the record and see no difference. TileDB, which sees the root alone, reads right at each step: outputs are
        older than all their sources, and as long as it sees any of these it sees the newest.
        """
        storage = self.storage
        staged = frozenset(storage.staged())
        gone = record.superseded()
        if staged:
            made = [name for commit in record.commits for name in commit.outputs]
            made = [name for name in made if str(name) in staged]
            storage.show([str(name) for name in made if name.short not in gone])
            storage.set_aside([str(name) for name in made if name.short in gone])
        listing = storage.list()
        names = {name.short: name for name in parsed(listing.folders)}
        if gone.isdisjoint(names):
            return
        for commit in record.commits:
            there = sorted(
                (names[short] for short in commit.sources if short in names),
                key=lambda name: name.order,
            )
            storage.set_aside(map(str, there))
            self._remove_lists(listing, commit)

    def _remove_lists(self, listing: Listing, commit: Commit) -> None:
        """Those of what the commit has made: all that they name is gone from where TileDB looks."""
        for name in commit.outputs:
            if vac_file(str(name)) in listing.files:
                self.storage.remove(vac_file(str(name)))


def _fits(visible: list[FragmentName], claimed: Claimed, outputs: Sequence[FragmentName]) -> bool:
    """Whether outputs may take the place of the sources among what is visible, oldest first.

    The sources are all there; nothing else lies between them in order, has the outputs' first time, or, where deletes were left
    out, is older: it has come since, late, and would seem newer or older than it is.
    """
    sources = {*claimed.sources}
    if not sources.issubset(visible):
        return False
    others = [name for name in visible if name not in sources]
    first, last = claimed.sources[0].order, claimed.sources[-1].order
    if not claimed.keep_deletes and any(name.order < first for name in others):
        return False
    return not any(first < name.order < last or name.t1 == outputs[0].t1 for name in others)


def new_owner() -> str:
    """A name for who claims: one that no other merge has, and its process."""
    return f"{uuid.uuid4().hex} {process_name()}"


def _is_over(claim: Claim, now: int) -> bool:
    return claim.until <= now or has_ended(claim.owner.partition(" ")[2])

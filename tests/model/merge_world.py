"""The store of the model: what lies where, what the record says, and what everybody must see of it.

Time is counted in units that no clock of the model divides: the file system's is `World.now`, that of a writer is off by its skew
and stands still for `Setting.tick` units at a time, as milliseconds do. The bounds keep the proportions of the real ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

CHOOSE_AGAIN: Final = 30  # between the choice of a time and the commit
MARK_COUNTS: Final = 60
CLAIM_LASTS: Final = 60
LOOKS: Final = 64
NEVER: Final = 1 << 40
KEYS: Final = 4

# A value, which no other cell has, and the moment it expires; None is a delete.
Cell = tuple[int, int] | None
Cells = dict[int, Cell]

# What keeps the view right: each is needed, and a test takes each out.
RULES: Final = frozenset({
    "groups",  # a merge never separates fragments of equal t1
    "marks",  # it takes only what had appeared before the oldest mark of a writer that is choosing
    "marks last",  # and looks for marks after it has listed fragments
    "looks again",  # at its commit nothing visible lies between its sources
    "sources there",  # at its commit its sources are visible
    "outputs there",  # at its commit its own outputs are there, and not given up for strays
    "deletes kept",  # by a merge that lacks the oldest fragment
    "compares",  # the record is replaced only by who has read what it replaces
    "chooses again",  # a flush that slept between its choice and its commit
    "breaks old marks",  # a mark that is too old to count is taken from its writer first, whose commit then fails
    "choice reads the record",  # after its listing, which moves can have passed by
    "record twice",  # a reader reads it again after its listings
    "lists twice",
    "left out",  # a reader leaves out what only its second listing has and is later than all of the first
    "in the order of moves",  # who looks for a fragment looks where it comes from before where it goes
    "one way",  # what is superseded goes to a folder of its own, never back to where outputs wait
    "oldest first",  # sources leave the root in that order
    "outputs first",  # and after the outputs are there
    "finishes others",  # whoever moves does so for every commit in the record
    "takes what is shown",  # a merge takes no output that is not yet in the root
    "removes what was moved",  # and no more: a source is in the root until its output is
    "reads before removing",  # a vacuum reads the record before each removal
    "strays by the record",  # are named as superseded before they are removed
    "history from commit",
    "history from t2",
    "stamps again",  # a commit whose time is older than half of the history when it is made
    "expiry by both clocks",  # the merge's own and the file system's, whichever is earlier
    "expiry after history",
    "moment kept",  # an output says by which moment it dropped what had expired; the past before it is read from its sources
})  # fmt: skip
# Claims spare work and are no rule: half of the schedules go without.


class Wrong(Exception):
    """Somebody saw what must not be seen."""


class Fragment:
    """One fragment, wherever it lies: its identity is its name.

    Attributes
    ----------
    order : tuple
        As tilekv and TileDB order fragments: the greatest is the newest.
    flushes : int
        Whose cells it holds, a bit for each by the order of their commits.
    half : bool
        In which half of a listing it comes.
    born : int
        When it appeared where it lies, by the file system.
    moment : int
        What had expired by it was dropped.
    """

    __slots__ = (
        "born",
        "cells",
        "flushes",
        "half",
        "label",
        "merged",
        "moment",
        "order",
        "sources",
        "t1",
        "t2",
    )

    def __init__(self, label: str, rank: float, t1: int, t2: int, cells: Cells, born: int) -> None:
        self.label = label
        self.t1 = t1
        self.t2 = t2
        self.order = (t1, -t2, rank)
        self.cells = cells
        self.half = int(rank * 1024) & 1
        self.born = born
        self.flushes = 0
        self.merged = False
        self.moment = -1
        self.sources: tuple[Fragment, ...] = ()

    def __repr__(self) -> str:
        span = str(self.t1) if self.t1 == self.t2 else f"{self.t1} to {self.t2}"
        return f"{self.label} (t {span})"


ORDER: Final = attrgetter("order")
Place = dict[Fragment, None]


class Commit(NamedTuple):
    outputs: tuple[Fragment, ...]
    sources: frozenset[Fragment]
    time: int


class Claim(NamedTuple):
    sources: frozenset[Fragment]
    until: int


class Record:
    """One state of the record; it never changes, and is compared by identity as its number would be."""

    __slots__ = ("claims", "commits", "history", "live", "superseded")

    def __init__(
        self, history: int, commits: tuple[Commit, ...] = (), claims: tuple[Claim, ...] = ()
    ) -> None:
        self.history = history
        self.commits = commits
        self.claims = claims
        self.superseded: frozenset[Fragment] = frozenset().union(*(c.sources for c in commits))
        self.live = [o for c in commits for o in c.outputs if o not in self.superseded]

    def names(self, fragment: Fragment) -> bool:
        return fragment in self.superseded or fragment in self.live


class Flush(NamedTuple):
    t: int
    rank: float
    cells: Cells
    saw: int  # the flushes that had been committed when it began to choose


class Setting(NamedTuple):
    """What a schedule is about.

    Attributes
    ----------
    local : bool
        A disk; else object storage, where nothing moves, and marks and outputs are objects beside the others.
    tick : int
        For how long clocks stand still.
    skews : tuple of int
        By how much those of writers are off.
    by_hand : bool
        Some vacuums take all that is superseded, and nothing is promised of the past.
    stray_after : int
        When what no record names is taken for a stray. Nothing depends on it but the work of merges.
    history : int
        As long as that, readers' clocks may be behind, too.
    """

    local: bool
    claims: bool
    tick: int
    skews: tuple[int, ...]
    by_hand: bool
    stray_after: int
    history: int


def random_setting(rng: random.Random) -> Setting:
    return Setting(
        local=rng.random() < 0.6,
        claims=rng.random() < 0.5,
        tick=rng.choice((1, 4, 8)),
        skews=rng.choice(((0,), (0, 0, -20, 20), (-3, 0, 5))),
        by_hand=rng.random() < 0.5,
        stray_after=rng.choice((5, 20, 240)),
        history=rng.choice((0, 20, 60, 200)),
    )


class World:
    """A store, its clocks, and what has been committed to it."""

    def __init__(
        self, seed: int, rules: frozenset[str], fixed: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.rng = rng = random.Random(seed)
        self.rules = rules
        self.setting = setting = random_setting(rng)._replace(**fixed)
        self.local = setting.local
        self.by_hand = setting.by_hand
        self.now = 100
        self.root: Place = {}
        self.made: Place = self.root
        self.past: Place = self.root
        if self.local:
            self.made = {}
            self.past = {} if "one way" in rules else self.made
        self.record = Record(setting.history)
        self.reaches = 0  # what had passed when the history became longer does not come back
        self.opened: list[tuple[frozenset[Fragment], int]] = []  # by readers, and until when
        self.marks: dict[int, int] = {}
        self.flushes: list[Flush] = []
        self.truth: Cells = {}
        self.changed = False
        self.count = 0
        self.mixed = 0  # moments that readers showed and that never were, by flushes under way at the same time

    def number(self) -> int:
        self.count += 1
        return self.count

    def clock(self, skew: int) -> int:
        return (self.now + skew) // self.setting.tick * self.setting.tick

    def fragment(self, kind: str, t1: int, t2: int, cells: Cells) -> Fragment:
        return Fragment(f"{kind} {self.number()}", self.rng.random(), t1, t2, cells, self.now)

    def random_cells(self) -> Cells:
        rng = self.rng
        cells: Cells = {}
        for _ in range(rng.randrange(1, 3)):
            x = rng.random()
            expires = NEVER if x < 0.8 else self.now + rng.randrange(60)
            cells[rng.randrange(KEYS)] = None if x < 0.25 else (self.number(), expires)
        return cells

    def commit_flush(self, t: int, cells: Cells, saw: int) -> Fragment:
        made = self.fragment("flush", t, t, cells)
        made.flushes = 1 << len(self.flushes)
        self.flushes.append(Flush(t, made.order[2], cells, (1 << saw) - 1))
        self.truth = self.folded(-1)
        self.root[made] = None
        self.changed = True
        return made

    def folded(self, flushes: int) -> Cells:
        """What these flushes say together, by the contract: the newer time wins, and of equal ones the greater name."""
        got: Cells = {}
        shown = [f for i, f in enumerate(self.flushes) if flushes >> i & 1]
        shown.sort()
        for flush in shown:
            got.update(flush.cells)
        return got

    def swap(self, read: Record, new: Record) -> bool:
        """Compare-and-swap."""
        if self.record is not read and "compares" in self.rules:
            return False
        self.record = new
        self.changed = True
        return True

    def anywhere(self, fragment: Fragment) -> bool:
        return fragment in self.root or fragment in self.made or fragment in self.past

    def remove(self, fragment: Fragment) -> None:
        for place in (self.root, self.made, self.past):
            place.pop(fragment, None)
        self.changed = True

    def check(self) -> None:
        """What everybody who looked now would see."""
        self.changed = False
        record = self.record
        gone = record.superseded
        visible = [f for f in self.root if not f.merged and f not in gone]
        visible += record.live
        for output in record.live:
            if not self.anywhere(output):
                raise Wrong(f"{output}, which the record names, is nowhere")
        self.compare("the view", fold(visible))
        if self.local:
            self.compare("what TileDB sees", fold(self.root))

    def compare(self, what: str, cells: Cells) -> None:
        truth = self.truth
        if cells == truth:
            return
        for moment in (self.now, self.now - self.setting.history):
            seen, right = living(cells, moment), living(truth, moment)
            if seen != right:
                back = [key for key in seen if key not in right]
                raise Wrong(
                    f"{what} is {words(seen)}, and should be {words(right)}"
                    + (f": of deleted keys {back} came back" if back else "")
                )


def fold(fragments: Iterable[Fragment]) -> Cells:
    got: Cells = {}
    for fragment in sorted(fragments, key=ORDER):
        got.update(fragment.cells)
    return got


def living(cells: Mapping[int, Cell], moment: int) -> dict[int, int]:
    return {key: cell[0] for key, cell in cells.items() if cell is not None and cell[1] > moment}


def words(values: Mapping[int, int]) -> str:
    return "{" + ", ".join(f"key {key}: {values[key]}" for key in sorted(values)) + "}"

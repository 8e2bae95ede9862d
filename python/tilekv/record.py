"""The record: what merges have made, and what that supersedes (docs/format.md 2.3, docs/design.md 6.2).

It is the one truth about merges, for every storage: a fragment that a merge has made counts only if the record names it, and what
a commit of the record lists does not count any more. Each change is a new record of the next number, which the storage takes only
if nobody was faster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tilekv.errors import CorruptionError, FormatError
from tilekv.names import ASIDE, FragmentName, record_file
from tilekv.sealed import as_json, seal, unseal
from tilekv.storage import RecordFile

RECORD: Final = f"{ASIDE}/record"  # where messages say that it is missing
FORMAT: Final = 1
DAY_MS: Final = 24 * 3600 * 1000
_BEFORE: Final = 32  # changes that others can make in the moment between a change and a look at it


@dataclass(frozen=True, slots=True)
class Commit:
    """One merge that counts.

    Attributes
    ----------
    outputs : tuple of FragmentName
        What it has made, as long as that is there.
    sources : frozenset of str
        What it supersedes and is still there, by `FragmentName.short`.
    time : int
        When, in ms since 1970, by whatever keeps the files.
    expired : int
        The moment (ms) by which it has left out what had expired; 0: it has not.
    """

    outputs: tuple[FragmentName, ...]
    sources: frozenset[str]
    time: int
    expired: int = 0

    @property
    def t2(self) -> int:
        """The last moment of writes in it, in ms since 1970."""
        return max((name.t2 for name in self.outputs), default=0)

    def counts_at(self, timestamp: int | None) -> bool:
        """Whether a moment shows it rather than its sources; None is now."""
        return timestamp is None or max(self.t2, self.expired) <= timestamp


@dataclass(frozen=True, slots=True)
class Claim:
    """A merge that is under way, so that others look for other work. Nothing depends on it but time.

    Attributes
    ----------
    owner : str
        A name that no other merge has, and the process: see `maintenance`.
    sources : frozenset of str
        By `FragmentName.short`.
    until : int
        It counts for nothing after this moment, in ms since 1970.
    """

    owner: str
    sources: frozenset[str]
    until: int


@dataclass(frozen=True, slots=True)
class Record:
    """What is in a record; see the top of this file.

    Attributes
    ----------
    store : str
        The id of the store: a record of another one counts for nothing.
    seq : int
        Its number; 0 for that of a store which has none yet.
    commits : tuple of Commit
        In the order in which they were made.
    claims : tuple of Claim
    history : int or None
        For how long what is superseded is kept, in ms; None for ever.
    token : str
        What no other record has.
    before : tuple of str
        The tokens of those that it was made from, the last of them first; not of all.
    backup : bool
        Whether a backup has made it, and nobody has changed anything since: then it names every fragment.
    """

    store: str
    seq: int = 0
    commits: tuple[Commit, ...] = ()
    claims: tuple[Claim, ...] = ()
    history: int | None = DAY_MS
    token: str = ""
    before: tuple[str, ...] = ()
    backup: bool = False

    def follows(self, other: Record) -> bool:
        """Whether it is that record, or was made from it. Of one that was made long ago it does not know."""
        return other.token in (self.token, *self.before)

    def superseded(self, timestamp: int | None = None) -> frozenset[str]:
        """By `FragmentName.short`, now or as a moment shows it."""
        counting = (commit for commit in self.commits if commit.counts_at(timestamp))
        return frozenset().union(*(commit.sources for commit in counting))

    def visible(self, folders: Iterable[str], timestamp: int | None = None) -> list[FragmentName]:
        """What counts of the folders that are there, and of what merges have made, newest first."""
        gone = self.superseded(timestamp)
        found = {
            name
            for name in map(FragmentName.parse, folders)
            if name and not name.merged and (timestamp is None or name.t2 <= timestamp)
        }
        for commit in self.commits:
            if commit.counts_at(timestamp):
                found.update(commit.outputs)
        return sorted(
            (name for name in found if name.short not in gone),
            key=lambda name: name.order,
            reverse=True,
        )

    # --- the next one ---

    def claimed(self, claim: Claim) -> Record:
        """With this claim, in the place of an earlier one of the same owner."""
        others = tuple(other for other in self.claims if other.owner != claim.owner)
        return self._next(claims=(*others, claim))

    def released(self, owner: str) -> Record:
        """Without the claim of this owner."""
        return self._next(claims=tuple(c for c in self.claims if c.owner != owner))

    def committed(self, commit: Commit, owner: str) -> Record:
        """With this commit, and without the claim of its owner and those that are over."""
        claims = tuple(c for c in self.claims if c.owner != owner and c.until > commit.time)
        return self._next(commits=(*self.commits, commit), claims=claims)

    def without(self, gone: frozenset[str]) -> Record:
        """Without what is not there any more, by `FragmentName.short`."""
        left = []
        for commit in self.commits:
            outputs = tuple(name for name in commit.outputs if name.short not in gone)
            sources = commit.sources - gone
            if outputs or sources:
                left.append(replace(commit, outputs=outputs, sources=sources))
        return self._next(commits=tuple(left))

    def keeping(self, history: int | None) -> Record:
        """With another history."""
        return self._next(history=history)

    def backed_up(
        self, shown: Iterable[Commit], gone: frozenset[str], history: int | None, time: int
    ) -> Record:
        """With what a backup shows, a commit each, and without what it lets go of, by `FragmentName.short`, at every moment."""
        commits = (*([Commit((), gone, time)] if gone else []), *shown)
        return self._next(commits=commits, claims=(), history=history, backup=True)

    def _next(self, backup: bool = False, **changed: Any) -> Record:
        before = (self.token, *self.before)[:_BEFORE]
        seq, token = self.seq + 1, new_token()
        return replace(self, seq=seq, token=token, before=before, backup=backup, **changed)

    # --- its file ---

    def to_bytes(self) -> bytes:
        """The file: a member a line, and a commit a line."""
        members = seal(
            {
                "format": FORMAT,
                "store": self.store,
                "seq": self.seq,
                "history": self.history,
                "token": self.token,
                "before": list(self.before),
                **({"backup": True} if self.backup else {}),
                "claims": [
                    {"owner": c.owner, "sources": sorted(c.sources), "until": c.until}
                    for c in self.claims
                ],
                "commits": [
                    {
                        "outputs": [str(name) for name in c.outputs],
                        "sources": sorted(c.sources),
                        "time": c.time,
                        **({"expired": c.expired} if c.expired else {}),
                    }
                    for c in self.commits
                ],
            }
        )
        lines = []
        for key, value in members.items():
            text = as_json(value)
            if key == "commits" and value:
                text = "[\n" + ",\n".join(f"  {as_json(each)}" for each in value) + "\n ]"
            lines.append(f' "{key}": {text}')
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    @classmethod
    def from_file(cls, file: RecordFile) -> Record:
        """Parse it.

        Raises
        ------
        CorruptionError
            When it is not what a tilekv wrote under this number.
        FormatError
            When a newer tilekv wrote it.
        """
        place = f"{ASIDE}/{record_file(file.seq)}"
        members = unseal(file.data, place)
        format_ = members.get("format")
        if type(format_) is not int or format_ < 1:
            raise CorruptionError(place, 0, "`format` is missing")
        if format_ > FORMAT:
            raise FormatError(
                f"the record of the store's merges has format {format_}; this tilekv reads {FORMAT}: update it"
            )
        try:
            found = cls(
                _text(members["store"]),
                _moment(members["seq"]),
                tuple(map(_commit, _list(members["commits"]))),
                tuple(map(_claim, _list(members["claims"]))),
                None if members["history"] is None else _moment(members["history"]),
                _text(members["token"]),
                tuple(map(_text, _list(members["before"]))),
                members.get("backup") is True,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(place, 0, f"it is no record: {error}") from None
        if found.seq != file.seq:
            raise CorruptionError(place, 0, f"it says that it is number {found.seq}")
        return found


def fragments_in(data: bytes) -> list[str]:
    """The names of fragments in a record's file, sound or not; for a flush, which has no time to parse it."""
    return [match.decode() for match in re.findall(rb"__[0-9]+_[0-9]+_[0-9a-f]{32}", data)]


def new_token() -> str:
    """One for a record."""
    return os.urandom(4).hex()


def shorts(names: Iterable[FragmentName]) -> frozenset[str]:
    """What a record calls them."""
    return frozenset(name.short for name in names)


def parsed(names: Iterable[str]) -> list[FragmentName]:
    """Those that are names of fragments."""
    return [name for name in map(FragmentName.parse, names) if name]


def _commit(value: Any) -> Commit:
    outputs: Sequence[str] = [_text(name) for name in _list(value["outputs"])]
    names = parsed(outputs)
    if len(names) != len(outputs):
        raise ValueError(f"{outputs!r} are not names of fragments")
    sources = frozenset(map(_text, _list(value["sources"])))
    return Commit(tuple(names), sources, _moment(value["time"]), _moment(value.get("expired", 0)))


def _claim(value: Any) -> Claim:
    sources = frozenset(map(_text, _list(value["sources"])))
    return Claim(_text(value["owner"]), sources, _moment(value["until"]))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _moment(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError(f"{value!r} is no moment")
    return value

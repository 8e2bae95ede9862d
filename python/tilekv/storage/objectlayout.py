"""Where the parts of a store lie in a bucket (docs/format.md 2.7).

Nothing is renamed there. The data of a fragment lies in one place for good, `<fragment>/`; what moves is its metadata, one
object, by a copy within the server and a delete of the old one. Whoever looks for it in the order of its way does not miss it:

    .tilekv/staged/<fragment>/    written by a merge, not shown yet
    <fragment>/                   shown
    .tilekv/past/<fragment>/      superseded

Whatever has its metadata nowhere is no fragment: a write that is under way, or was broken off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tilekv.names import ASIDE, PAST, STAGED, FragmentName, record_number
from tilekv.storage.objectclient import Entry

RECORD: Final = "record"
CREATING: Final = "creating"
GONE: Final = "gone"
CHOOSING: Final = "choosing"
LEASE: Final = "lock"
CLOCK: Final = "clock"
BUILD: Final = "build-"
# What of a draft that is about to be committed has its name and these endings: its metadata, and a sign of life.
PENDING: Final = ".commit"
ALIVE: Final = ".alive"
_BUILT: Final = re.compile(f"{BUILD}[0-9a-f]{{32}}")


@dataclass(frozen=True)
class Aside:
    """What lies under `.tilekv/`, by one listing.

    Attributes
    ----------
    staged, past : dict of str to int
        Fragments by name, and when their metadata got there, in ms since 1970.
    gone : dict of str to int
        Fragments that are being removed, or were: nobody sees them any more, whatever is left of them.
    choosing : dict of str to dict of str to int
        Drafts that are choosing a time: their objects, by ending.
    builds : dict of str to int
        Stores that are being made in this place, by the last moment that something was written to each.
    built : set of str
        Their fragments.
    numbered : bool
        Whether there are records as a local disk has them: the store was copied from one.
    """

    staged: dict[str, int] = field(default_factory=dict)
    past: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    choosing: dict[str, dict[str, int]] = field(default_factory=dict)
    builds: dict[str, int] = field(default_factory=dict)
    built: set[str] = field(default_factory=set)
    creating: bool = False
    numbered: bool = False

    def hides(self, name: str) -> bool:
        """Whether a prefix of the root is not shown, whatever is in it."""
        if name in self.built and FragmentName.parse(name) is None:
            return True  # a fragment shows itself by metadata in the root
        return any(name in each for each in (self.staged, self.past, self.gone))

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> Aside:
        """What a listing says."""
        found = cls(
            creating=CREATING in entries,
            numbered=any(record_number(key) is not None for key in entries),
        )
        for key, entry in entries.items():
            first, _, rest = key.partition("/")
            name = rest.partition("/")[0]
            if first == STAGED and name:
                found.staged[name] = max(found.staged.get(name, 0), entry.moment)
            elif first == PAST and name:
                found.past[name] = max(found.past.get(name, 0), entry.moment)
            elif first == GONE and name:
                found.gone[name] = entry.moment
            elif first == CHOOSING and name:
                token, ending = split_token(name)
                found.choosing.setdefault(token, {})[ending] = entry.moment
            elif _BUILT.fullmatch(first):
                found.builds[first] = max(found.builds.get(first, 0), entry.moment)
                found.built.update(_fragment_of(rest))
        return found


def split_token(name: str) -> tuple[str, str]:
    """The draft that an object is of, and the object's ending."""
    for ending in (PENDING, ALIVE):
        if name.endswith(ending):
            return name.removesuffix(ending), ending
    return name, ""


def owner_of(token: str) -> str:
    """The process of who has put a mark there, or holds the lock."""
    return token[33:]


def _fragment_of(key: str) -> set[str]:
    """The fragment whose metadata this is, in a store that is being made."""
    parts = key.split("/")
    if parts[0] == ASIDE:
        parts = parts[2:] if parts[1] in (STAGED, PAST) else []
    return {parts[0]} if len(parts) > 1 else set()


def split_build(prefix: str) -> tuple[str, str]:
    """A store's prefix, and the build in it, if that is what is meant."""
    rest, _, last = prefix.rpartition("/")
    if _BUILT.fullmatch(last) and (rest == ASIDE or rest.endswith(f"/{ASIDE}")):
        return rest.removesuffix(ASIDE).rstrip("/"), last
    return prefix, ""

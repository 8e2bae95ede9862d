"""Which fragments of an old store count (docs/format.md 2 and 9).

__<uuid>_<t>                TileDB 1.3 to 1.5: one flush
__<uuid>_<now>_<t last>     the same, consolidated
__<t first>_<t last>_<uuid> TileDB 1.6 and 1.7
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final, NamedTuple

from tilekv.errors import CorruptionError, HistoryVacuumed
from tilekv.names import FRAGMENT_METADATA, MAX_TIMESTAMP, FragmentName
from tilekv.newer import check_newer
from tilekv.storage import Listing, Storage

_OLD: Final = re.compile("__([0-9a-f]{32})(_[0-9]{1,20})?_([0-9]{1,20})")


class OldName(NamedTuple):
    """The name of a fragment's folder.

    Attributes
    ----------
    folder : str
    t1, t2 : int
        Its time, in ms since 1970; the same but for what TileDB 1.6 or 1.7 consolidated.
    uuid : str
    is_range : bool
        Whether the name is of the later kind, which says how the fragment's metadata is laid out.
    merged : bool
        Whether a consolidation wrote it.
    """

    folder: str
    t1: int
    t2: int
    uuid: str
    is_range: bool
    merged: bool

    @classmethod
    def parse(cls, folder: str) -> OldName | None:
        """Return the parts of a folder's name; None when it is no fragment of TileDB 1.x."""
        later = FragmentName.parse(folder)
        if later is not None:
            return cls(folder, *later, True, later.t1 < later.t2)
        match = _OLD.fullmatch(folder)
        if match is None or int(match[3]) > MAX_TIMESTAMP:
            return None
        t = int(match[3])
        return cls(folder, t, t, match[1], False, match[2] is not None)

    @property
    def shown(self) -> str:
        """The name of the fragment that tilekv makes of it in memory."""
        return str(FragmentName(self.t1, self.t2, self.uuid))

    @property
    def order(self) -> tuple[int, int, str]:
        """The sort key: the fragment with the greatest is the newest, as in tilekv's own stores."""
        return self.t1, -self.t2, self.folder


def committed(storage: Storage, listing: Listing) -> list[OldName]:
    """The fragments that are there; not those whose writing was broken off."""
    return [
        name
        for name in map(OldName.parse, listing.folders)
        if name is not None and FRAGMENT_METADATA in storage.files(name.folder)
    ]


def visible(
    storage: Storage, listing: Listing, timestamp: int | None, ignore_newer: bool = False
) -> list[OldName]:
    """The fragments that count, newest first; at a moment (ms since 1970, inclusive) if one is given.

    Raises
    ------
    CorruptionError
        When a `.vac` file is none, or such files supersede one another in a circle.
    FormatError
        When TileDB 2 has added to the store, and that is not ignored.
    HistoryVacuumed
        When the fragments of that moment were merged into a later one and are gone.
    FileNotFoundError
        When something was removed since the listing: list again.
    """
    check_newer(storage, listing, ignore_newer)
    there = committed(storage, listing)
    shown = [name for name in there if timestamp is None or name.t2 <= timestamp]
    if timestamp is not None:
        _check_past(there, timestamp)
    lists = _lists(storage, listing.files, {name.folder for name in shown})
    superseded = set().union(*lists.values())
    superseded |= _contained(shown, lists)
    found = [name for name in shown if name.folder not in superseded]
    return sorted(found, key=lambda name: name.order, reverse=True)


def _lists(storage: Storage, files: Iterable[str], shown: set[str]) -> Mapping[str, frozenset[str]]:
    """What the `.vac` files that TileDB 2 leaves say that each consolidated fragment supersedes."""
    lists = {}
    for file in files:
        owner = file.removesuffix(".vac")
        if owner == file or owner not in shown:
            continue
        lines = storage.read(file).decode("utf-8", "replace").splitlines()
        names = frozenset(line.rpartition("/")[2] for line in lines)
        for name in names:
            if OldName.parse(name) is None:
                raise CorruptionError(file, None, f"{name[:80]!r} is not the name of a fragment")
        lists[owner] = names
    try:
        TopologicalSorter(lists).prepare()
    except CycleError as error:
        raise CorruptionError(
            f"{error.args[1][0]}.vac", None, "fragments supersede one another in a circle"
        ) from None
    return lists


def _contained(names: Iterable[OldName], lists: Mapping[str, frozenset[str]]) -> set[str]:
    """Fragments inside the wider range of another: how TileDB 1.6 and 1.7 know what a consolidation has merged. One that
    has a `.vac` supersedes what that lists, and no more."""
    found = set()
    reach = -1  # the latest t2 among ranges that begin earlier, or begin here and end later
    last, last_reach = (-1, -1), -1
    for name in sorted((name for name in names if name.is_range), key=lambda name: name.order[:2]):
        if (name.t1, name.t2) != last:
            reach, last = max(reach, last_reach), (name.t1, name.t2)
        if name.t2 <= reach:
            found.add(name.folder)
        if name.folder not in lists:
            last_reach = max(last_reach, name.t2)
    return found


def _check_past(there: Sequence[OldName], timestamp: int) -> None:
    """A moment inside a merged range needs what was merged, and TileDB 1.x deletes that at once."""
    for name in there:
        begun = timestamp >= name.t1 if name.is_range else True
        if not name.merged or not begun or timestamp >= name.t2:
            continue
        if not any(
            name.is_range and other is not name and name.t1 <= other.t1 and other.t2 <= timestamp
            for other in there
        ):
            raise HistoryVacuumed(
                f"the state at {timestamp} ms was consolidated into {name.folder}, and what it was made of is gone: "
                f"the oldest that can be shown is {name.t2}"
            )

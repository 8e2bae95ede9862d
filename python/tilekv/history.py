"""Which fragments count in a store that has no record yet: what consolidations have superseded by their lists.

docs/format.md 2.2 and 2.4, docs/design.md 6.2.

A consolidated fragment supersedes exactly what its `<name>.vac` lists, never what its range of time contains: a slow writer
may still commit an older timestamp, and its data must not vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tilekv.errors import CorruptionError
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.names import FragmentName, vac_file, vac_owner
from tilekv.storage import Listing, Storage


class History(NamedTuple):
    """The fragments of a store.

    Attributes
    ----------
    visible : tuple of FragmentName
        Newest first.
    superseded : frozenset of str
        Fragments that are there and not visible, because consolidated ones hold their cells.
    lists : mapping of str to frozenset of str
        What each consolidated fragment supersedes, by name: its own list, and consolidated fragments whose lists are part of it.
    subsumed : frozenset of str
        Fragments whose list is part of another's list.
    """

    visible: tuple[FragmentName, ...]
    superseded: frozenset[str]
    lists: Mapping[str, frozenset[str]]
    subsumed: frozenset[str]


def history_of(
    listing: Listing, lists: Mapping[str, frozenset[str]], gone: Iterable[str] = ()
) -> History:
    """What counts by a listing and the lists of its consolidated fragments; others in `lists` change nothing.

    `gone` is superseded too, by a list that a vacuum has removed.
    """
    names = _names(listing)
    lists = {owner: lists[owner] for owner in names if owner in lists}
    inner = {owner: subsumed(owner, lists) for owner in lists}
    lists = {owner: listed | inner[owner] for owner, listed in lists.items()}
    superseded = set(gone).union(*lists.values())
    within = frozenset().union(*inner.values())
    check_circles(lists)
    visible = [name for text, name in names.items() if text not in superseded]
    visible.sort(key=lambda name: name.order, reverse=True)
    return History(tuple(visible), frozenset(superseded & names.keys()), lists, within)


def owners(listing: Listing) -> list[str]:
    """The fragments that have a list."""
    names = _names(listing)
    return [owner for file in listing.files if (owner := vac_owner(file)) and owner in names]


def _names(listing: Listing) -> dict[str, FragmentName]:
    return {str(name): name for name in map(FragmentName.parse, listing.folders) if name}


def read_list(storage: Storage, owner: str) -> frozenset[str]:
    """What a consolidated fragment supersedes by its list. FileNotFoundError when it has none."""
    return listed(storage.read(vac_file(owner)), owner)


def listed(data: bytes, owner: str) -> frozenset[str]:
    """The fragments that `data`, the `.vac` file of `owner`, lists. CorruptionError when no consolidation wrote that for it."""
    file = vac_file(owner)
    end = data.rfind(b"\n", 0, -1) + 1
    lines, check = data[:end], data[end:]
    if not lines or check != _check_line(owner, lines):
        raise CorruptionError(file, 0, "its checksum does not fit")
    found = set()
    for line in lines.split(b"\n")[:-1]:
        name = line[1:].decode("utf-8", "replace")
        if line[:1] != b"/" or FragmentName.parse(name) is None:
            raise CorruptionError(file, 0, f"{line[:80]!r} is not the name of a fragment")
        found.add(name)
    return frozenset(found)


def _check_line(owner: str, lines: bytes) -> bytes:
    """The last line: a folder that is never there, with the checksum of the owner's name and of all lines, so that a list says
    nothing under another name. To TileDB it is a fragment that is gone already."""
    return b"/.crc32c-%08x\n" % crc32c(owner.encode() + b"\n" + lines)


def subsumed(owner: str, lists: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Fragments whose list is part of the owner's: two consolidations ran at once, and the larger one holds all of it.

    Without this the older value of a key could win, since the smaller one may begin later. Of equal lists the greater name stays.
    """
    mine = lists[owner]
    return frozenset(
        other
        for other, theirs in lists.items()
        if theirs < mine or (theirs == mine and other < owner)
    )


def check_circles(lists: Mapping[str, frozenset[str]]) -> None:
    """Nothing supersedes itself, directly or through others: all of it would vanish."""
    done: set[str] = set()
    above: set[str] = set()
    for start in lists:
        stack = [(start, False)]
        while stack:
            name, left = stack.pop()
            if left:
                above.remove(name)
                done.add(name)
            elif name in above:
                raise CorruptionError(
                    vac_file(name), None, "fragments supersede one another in a circle"
                )
            elif name not in done and name in lists:
                above.add(name)
                stack.append((name, True))
                stack.extend((other, False) for other in lists[name])


def inner_first(history: History) -> list[str]:
    """The owners of lists, so that a list goes before the fragment that owns it: without its list, what it had superseded
    would be seen again."""
    ordered: list[str] = []
    waiting = {owner: history.lists[owner] for owner in history.lists.keys() - history.subsumed}
    while waiting:
        # An owner may go once nothing in its list owns a list that is still there. There are no circles.
        ready = sorted(
            owner for owner, names in waiting.items() if not any(name in waiting for name in names)
        )
        ordered += ready
        for owner in ready:
            del waiting[owner]
    return ordered

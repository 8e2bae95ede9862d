"""What a listing says of a store in a bucket.

Of most stores one request lists every object, and by that tells which fragments are there, and how large their files are. Where
there are too many objects the first level is listed, and what lies aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from tilekv.names import ASIDE, FRAGMENT_METADATA, MANIFEST, FragmentName
from tilekv.storage.objectclient import Client, Entry
from tilekv.storage.objectlayout import RECORD, Aside

# Objects that are listed one by one: a request lists a thousand, one after the other.
MOST: Final = 5000


class Seen(NamedTuple):
    """What lies under a prefix.

    Attributes
    ----------
    folders : sequence of str
        Prefixes of the first level, but for `.tilekv/`.
    files : mapping of str to Entry
        Objects of the first level.
    record : Entry or None
        The object that has the record of merges.
    drafts : frozenset of str
        What lies below `.tilekv/choosing/`.
    lies_aside : bool
        Whether anything lies below `.tilekv/`.
    manifest : Entry or None
        The object that spares requests.
    within : mapping of str to mapping of str to Entry, or None
        The objects of each folder; None when they were not listed one by one.
    """

    aside: Aside
    folders: Sequence[str]
    files: Mapping[str, Entry]
    record: Entry | None
    drafts: frozenset[str]
    lies_aside: bool
    manifest: Entry | None
    within: Mapping[str, Mapping[str, Entry]] | None

    def shows(self, name: str) -> bool:
        """Whether a folder that was listed one by one has all that makes it one."""
        found = (self.within or {}).get(name, {})
        return FRAGMENT_METADATA in found if FragmentName.parse(name) else bool(found)


def look(client: Client, root: str, many: bool) -> Seen:
    """List what is under a prefix; `many`: there were too many objects at the last time."""
    aside = f"{root}{ASIDE}/"
    if not many:

        def enough(found: Mapping[str, Entry]) -> bool:
            return len(found) >= MOST or f"{ASIDE}/{MANIFEST}" in found

        found, whole = client.list_some(root, enough)
        within: dict[str, dict[str, Entry]] = {}
        files: dict[str, Entry] = {}
        for key, entry in found.items():
            folder, slash, file = key.partition("/")
            if slash:
                within.setdefault(folder, {})[file] = entry
            else:
                files[key] = entry
        lies_aside = within.pop(ASIDE, {})
        if whole:
            return _seen(lies_aside, [*within], files, within)
        if within or files:  # what lies aside comes first
            folders, first = client.list_folder(root)
            return _seen(lies_aside, [name for name in folders if name != ASIDE], first, None)
    lies_aside, (folders, files) = client.together(
        partial(client.list_all, aside), partial(client.list_folder, root)
    )
    return _seen(lies_aside, [name for name in folders if name != ASIDE], files, None)


def _seen(
    aside: Mapping[str, Entry],
    folders: Sequence[str],
    files: Mapping[str, Entry],
    within: Mapping[str, Mapping[str, Entry]] | None,
) -> Seen:
    drafts = frozenset(key.partition("/")[2] for key in aside if key.startswith("choosing/"))
    files = {name: entry for name, entry in files.items() if FragmentName.parse(name) is None}
    return Seen(
        Aside.of(aside),
        folders,
        files,
        aside.get(RECORD),
        drafts,
        bool(aside),
        aside.get(MANIFEST),
        within,
    )

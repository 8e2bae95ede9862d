"""What TileDB 2 has added to a store in its own newer format, beside the fragments that tilekv reads.

It commits a fragment by a marker: `<name>.ok` in the root until 2.6, later `__commits/<name>.wrt` or a line of `__commits/*.con`.
What a consolidation of its has merged, a `.vac` beside the marker lists until a vacuum has removed both.
"""

from __future__ import annotations

import re
from typing import Final

from tilekv.errors import FormatError
from tilekv.names import newer_tiledb
from tilekv.storage import Listing, Storage

_COMMITS: Final = "__commits"
_FRAGMENT: Final = r"__([0-9]+)_([0-9]+)_[0-9a-f]{32}"
_MARKER: Final = re.compile(f"({_FRAGMENT}_[0-9]+)\\.(?:ok|wrt)")
_LISTED: Final = re.compile(
    f"{_FRAGMENT}(?=\r?$)", re.MULTILINE
)  # in a `.vac`: fragments that tilekv reads
_SHOWN: Final = 3  # names in a message


def check_newer(storage: Storage, listing: Listing, ignore: bool = False) -> None:
    """FormatError when TileDB 2 has added to a store; with `ignore`, only when it has merged fragments and removed them."""
    first = newer_tiledb(listing.folders, listing.files, storage.is_empty)
    if first is None:
        return
    added, lists = _added(storage, listing)
    merged = [
        name
        for name, t1, t2 in added
        if t1 < t2 and not (name in lists and lists[name] <= {*listing.folders})
    ]
    names = [name for name, _, _ in added] or [first]
    said = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if merged:
        raise FormatError(
            f"{storage.uri}: TileDB 2 has merged fragments of this store into its own newer format, which tilekv does not read, "
            f"and removed them ({merged[0]}): what they held, only TileDB 2 can read"
        )
    if not ignore:
        raise FormatError(
            f"{storage.uri}: TileDB 2 has added {said} to this store, in its own newer format, which tilekv does not read. The "
            "rest is untouched: tilekv.open(uri, ignore_newer=True), or --ignore-newer, reads it without what was added, and "
            "TileDB 2 reads all of it"
        )


def _added(
    storage: Storage, listing: Listing
) -> tuple[list[tuple[str, int, int]], dict[str, frozenset[str]]]:
    """The fragments that were added, with their times, and what of tilekv's they have merged, by those that say so."""
    texts = dict.fromkeys(listing.files, "")
    lists = {}
    for file in listing.files:
        if _owner(file):
            lists[_owner(file)] = storage.read(file)
    if _COMMITS in listing.folders:
        for file in storage.files(_COMMITS):
            texts[file] = ""
            if file.endswith((".con", ".vac")):
                commit = storage.open_file(_COMMITS, file, False)
                data = commit.read(0, commit.size)
                if file.endswith(".con"):
                    texts[file] = data.decode("latin-1")
                else:
                    lists[_owner(file)] = data
    found = {
        match[1]: (match[1], int(match[2]), int(match[3]))
        for file, text in texts.items()
        for match in _MARKER.finditer(f"{file}\n{text}")
    }
    mine = {
        owner: frozenset(match[0] for match in _LISTED.finditer(data.decode("latin-1")))
        for owner, data in lists.items()
    }
    return sorted(found.values(), key=lambda each: each[1:]), mine


def _owner(file: str) -> str:
    """The fragment whose `.vac` file this is, if TileDB 2 wrote it in its own format; else empty."""
    match = re.fullmatch(f"({_FRAGMENT}_[0-9]+)\\.vac", file)
    return match[1] if match else ""

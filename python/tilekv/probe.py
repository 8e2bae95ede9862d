"""What is at a place, told by one listing: asked once, and handed down to all that depends on it (docs/design.md 5.1)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from tilekv.clock import milliseconds
from tilekv.errors import CorruptionError
from tilekv.names import (
    ARRAY_SCHEMA,
    DESCRIPTOR,
    FRAGMENT_METADATA,
    KV_SCHEMA,
    NEWER_SCHEMAS,
    FragmentName,
)
from tilekv.storage import Listing, Storage

_TAIL: Final = 1 << 16  # bytes: the footer of a thousand attributes


class Kind(enum.Enum):
    """What can be at a place."""

    NOTHING = "nothing"  # there is no folder
    EMPTY = "empty"  # a folder, and nothing in it, not even what is hidden
    TILEKV = "tilekv"  # a store of tilekv's
    OLD = "old"  # an array or a key-value store of TileDB's
    LOST = "lost"  # a store of tilekv's whose descriptor is missing
    FOREIGN = "foreign"  # something else


class Probe(NamedTuple):
    """What was found at a place.

    Attributes
    ----------
    moment : int
        A time before the listing was begun, in ms since 1970.
    listing : Listing
        Of NOTHING an empty one.
    damage : CorruptionError, optional
        Of LOST: what is to be raised.
    files : mapping of str to bytes
        Of a store that this call has created: what it has written into the root.
    """

    storage: Storage
    moment: int
    listing: Listing
    kind: Kind
    damage: CorruptionError | None = None
    files: Mapping[str, bytes] = {}


def probe(storage: Storage) -> Probe:
    """Look at a place. NotADirectoryError when a file is there."""
    moment = milliseconds()
    listing = listed_root(storage)
    if listing is None:
        return Probe(storage, moment, Listing((), ()), Kind.NOTHING)
    damage = None
    if DESCRIPTOR in listing.files:
        kind = Kind.TILEKV
    elif damage := _lost_descriptor(storage, listing):
        kind = Kind.LOST
    elif {KV_SCHEMA, ARRAY_SCHEMA} & {*listing.files} or NEWER_SCHEMAS in listing.folders:
        kind = Kind.OLD
    elif not any(listing) and storage.is_empty():
        kind = Kind.EMPTY
    else:
        kind = Kind.FOREIGN
    return Probe(storage, moment, listing, kind, damage)


def listed_root(storage: Storage, of: Callable[[Storage], Listing] | None = None) -> Listing | None:
    """The listing of a place, None when nothing is there. NotADirectoryError when a file is there. `of`: what lists it."""
    try:
        return of(storage) if of else storage.list()
    except FileNotFoundError:
        return None
    except TimeoutError:  # whoever asks once more waits once more
        raise
    except OSError:
        storage.exists()  # which tells better what is wrong with the place itself
        raise


def _lost_descriptor(storage: Storage, listing: Listing) -> CorruptionError | None:
    """Damage when tilekv wrote a fragment: its descriptor was there, and without it deletes would be undone."""
    try:
        if any(_has_private_block(storage, folder) for folder in listing.folders):
            reason = f"it is missing from the store {storage.uri}"
            return CorruptionError(DESCRIPTOR, None, reason)
    except CorruptionError as error:
        return error
    return None


def _has_private_block(storage: Storage, folder: str) -> bool:
    """Whether tilekv wrote a fragment."""
    if FragmentName.parse(folder) is None:
        return False
    try:
        metadata = storage.open_file(folder, FRAGMENT_METADATA, False)
    except FileNotFoundError:
        return False
    tail = min(metadata.size, _TAIL)
    return b"TKVB" in metadata.read(metadata.size - tail, tail)

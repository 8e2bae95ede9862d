"""The manifest of a store, which is what web servers have in the place of a listing (docs/cloud.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from tilekv.config import Config
from tilekv.engine import open_engine
from tilekv.errors import FormatError, InvalidValueError, StoreBusyError
from tilekv.probe import probe
from tilekv.storage import check_writable, open_storage
from tilekv.storage.memory import MemoryStorage

_TRIES: Final = 5


def write_manifest(
    uri: str | os.PathLike[str], *, storage_options: Mapping[str, object] | None = None
) -> tuple[int, int]:
    """Write what is visible now into `.tilekv/manifest`: by that readers over http:// and https:// open the store.

    They see this state until the next manifest, as long as no merge on a disk, and no vacuum anywhere, has taken from it.

    Returns
    -------
    (int, int)
        How many fragments it names, and its bytes.

    Raises
    ------
    InvalidValueError
        For a store in memory.
    FormatError
        When TileDB wrote the store.
    ReadOnlyError
        For one that is on a web server already.
    StoreBusyError
        When others merge all the time.
    """
    storage = open_storage(uri, options=storage_options)
    check_writable(storage)
    for _ in range(_TRIES):
        engine = open_engine(probe(storage), "r", None, Config())
        if engine.id is None:
            raise FormatError(f"{storage.uri} was written by TileDB 1.x: convert it first")
        names = engine.opener.snapshot().names
        size = storage.spare(names, always=True)
        if size and storage.record_seq() == engine.opener.seq:
            return len(names), size
        if not size and isinstance(storage, MemoryStorage):
            raise InvalidValueError(f"{storage.uri}: no web server shows what is in memory")
    raise StoreBusyError(f"others merge {storage.uri} all the time: no manifest was written")

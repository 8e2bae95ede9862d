"""What `import` does with the files of other programs."""

from __future__ import annotations

import pickle
import time

from tilekv.cli.options import Opening
from tilekv.cli.text import counted
from tilekv.moving.importing import import_from
from tilekv.storage.foreign import is_folder, kind_of


def is_tree(place: str) -> bool:
    """Whether a place is a folder of files, and no database that is kept in one."""
    return is_folder(place) and kind_of(place) == "folder"


def import_database(
    source: str,
    uri: str,
    kind: str | None,
    table: str | None,
    key: str | None,
    text_keys: bool,
    pickles: bool,
    expires: bool,
    shown: bool,
    opening: Opening,
) -> int:
    """Store all that is in a database or an archive; `pickles` loads those that are values, and runs what is in them.

    Returns
    -------
    int
        The exit code, 0.
    """
    started = time.monotonic()
    done = import_from(
        source,
        uri,
        kind=kind,
        table=table,
        key=key,
        text_keys=text_keys,
        loads=pickle.loads if pickles else None,
        expires=expires,
        progress=shown,
        config=opening.config,
        storage_options=opening.storage_options,
    )
    entries = counted(done.entries, "entry", "entries")
    print(f"{entries} in {time.monotonic() - started:.1f} s, {done.equal:,} as stored before")
    return 0

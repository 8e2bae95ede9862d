"""What another program has stored at a path, told by its files; docs/moving.md has the kinds."""

from __future__ import annotations

import dbm
import os
import tarfile
from typing import Final

from tilekv.names import DESCRIPTOR

_SQLITE: Final = b"SQLite format 3\0"
_LMDB: Final = (0xBEEFC0DE).to_bytes(
    4, "little"
)  # in the first page, behind its header of 16 bytes
_TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_folder(path: str) -> bool:
    """Whether a path is a folder."""
    return os.path.isdir(path)


def kind_of(path: str) -> str | None:
    """ "lmdb", "leveldb", "diskcache", "tilekv", "sqlite", "tar", "dbm", "folder" for any other one, or None.

    Raises
    ------
    OSError
        When there is nothing, or it cannot be read.
    """
    if os.path.isdir(path):
        return _kind_of_folder(set(os.listdir(path)))
    if not os.path.exists(path):
        if dbm.whichdb(path):  # of several files, none of which has this name
            return "dbm"
        os.stat(path)
    with open(path, "rb") as file:
        head = file.read(len(_SQLITE) + len(_LMDB))
    if head.startswith(_SQLITE):
        return "sqlite"
    if head[16:] == _LMDB:
        return "lmdb"
    if path.endswith(_TARS) and tarfile.is_tarfile(path):
        return "tar"
    return "dbm" if dbm.whichdb(path) else None


def _kind_of_folder(names: set[str]) -> str | None:
    if DESCRIPTOR in names:
        return "tilekv"
    if "data.mdb" in names:
        return "lmdb"
    if "cache.db" in names:
        return "diskcache"
    if "CURRENT" in names and any(name.startswith("MANIFEST-") for name in names):
        # Those of RocksDB have options beside them, and a format of their own.
        return None if any(name.startswith("OPTIONS-") for name in names) else "leveldb"
    return "folder"

"""What another program has stored at a path, told by its files; docs/moving.md has the kinds."""

from __future__ import annotations

import dbm
import errno
import glob
import os
import re
import tarfile
from contextlib import closing
from typing import Final
from urllib.parse import quote

from tilekv.names import DESCRIPTOR

_SQLITE: Final = b"SQLite format 3\0"
_LMDB: Final = (0xBEEFC0DE).to_bytes(
    4, "little"
)  # in the first page, behind its header of 16 bytes
_BRACES: Final = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<words>[^{}]*,[^{}]*))\}")
_TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_folder(path: str) -> bool:
    """Whether a path is a folder."""
    return os.path.isdir(path)


def files_of(name: str) -> list[str]:
    """The files that a name stands for: one of that name; else those that it has by braces, as WebDataset's names of shards have
    them, `shard-{000..127}.tar` and `{train,val}.tar`, and by the wildcards `*`, `?` and `[...]`, which are sorted.

    Raises
    ------
    FileNotFoundError
        When a wildcard finds none. What braces name is not looked for.
    """
    if os.path.exists(name):
        return [name]
    found: list[str] = []
    for each in _expanded(name):
        if glob.has_magic(each) and not os.path.exists(each):
            some = sorted(glob.glob(each))
            if not some:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), each)
            found += some
        else:
            found.append(each)
    return found


def _expanded(name: str) -> list[str]:
    """A name without braces for each that it stands for; a range counts in as many digits as its first number has."""
    braces = _BRACES.search(name)
    if braces is None:
        return [name]
    first, last = braces["first"], braces["last"]
    if first is None:
        words = braces["words"].split(",")
    else:
        words = [f"{i:0{len(first)}}" for i in range(int(first), int(last) + 1)]
    before, after = name[: braces.start()], name[braces.end() :]
    return [each for word in words for each in _expanded(before + word + after)]


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
        if (files := files_of(path)) != [path]:
            return "tar" if all(file.endswith(_TARS) for file in files) else None
        os.stat(path)
    if is_sqlite(path):
        return "dbm" if _is_table_of_dbm(path) else "sqlite"
    if _head(path)[16:] == _LMDB:
        return "lmdb"
    if path.endswith(_TARS) and tarfile.is_tarfile(path):
        return "tar"
    return "dbm" if dbm.whichdb(path) else None


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(_SQLITE) + len(_LMDB))


def is_sqlite(path: str) -> bool:
    """Whether a path is a file of SQLite, which one of dbm is, too, where Python 3.13 has made it."""
    return os.path.isfile(path) and _head(path).startswith(_SQLITE)


def _is_table_of_dbm(path: str) -> bool:
    """Whether a file of SQLite has the one table that Python's dbm.sqlite3 makes."""
    import sqlite3

    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db:
            tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            columns = db.execute("PRAGMA table_info('Dict')").fetchall()
    except sqlite3.Error:
        return False  # who opens it says what is wrong with it
    forms = [(name, kind, needed) for _, name, kind, needed, *_ in columns]
    return tables == [("Dict",)] and forms == [("key", "BLOB", 1), ("value", "BLOB", 1)]


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

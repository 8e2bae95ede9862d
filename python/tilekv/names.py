"""The names of folders and files in a store (docs/format.md 2).

store/
  __kv_schema.tdb __array_schema.tdb    the schema, twice the same
  __lock.tdb                            empty
  __tilekv.json                         the descriptor
  __<t1>_<t2>_<uuid>/                   a fragment, when __fragment_metadata.tdb is in it
    __fragment_metadata.tdb
    <stem>.tdb <stem>_var.tdb           a field, and its bytes if it has variable length
  .tmp-<uuid>[-<process>]               a fragment or file that is being written
  .tilekv/                              what readers of the format do not look at
    record-<seq>                        the record of merges; the greatest number counts
    staged/<fragment>                   what a merge has made and not shown yet
    past/<fragment>                     what a merge has superseded
    manifest                            what is visible, for who reads the store from a web server
    .tmp-<uuid>                         a fragment that is being removed, a record that is being written
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from tilekv.descriptor import DESCRIPTOR_FILE
from tilekv.errors import OutOfRangeError
from tilekv.schemafile import SCHEMA_FILE

KV_SCHEMA: Final = SCHEMA_FILE
ARRAY_SCHEMA: Final = "__array_schema.tdb"
LOCK: Final = "__lock.tdb"
DESCRIPTOR: Final = DESCRIPTOR_FILE
FRAGMENT_METADATA: Final = "__fragment_metadata.tdb"

ASIDE: Final = ".tilekv"
STAGED: Final = "staged"
PAST: Final = "past"
MANIFEST: Final = "manifest"
SERVER_LOCK: Final = "serve.lock"  # that the one server of a store holds
_RECORD: Final = re.compile("record-([1-9][0-9]{0,18})")

MAX_TIMESTAMP: Final = 2**64 - 1  # milliseconds since 1970; a u64 in the private block

_FRAGMENT: Final = re.compile("__(0|[1-9][0-9]{0,19})_(0|[1-9][0-9]{0,19})_([0-9a-f]{32})")
# What TileDB 2.0 to 2.6 commits in the root: a fragment named with its version, and a marker.
_NEWER_MARKER: Final = re.compile("__[0-9]+_[0-9]+_[0-9a-f]{32}_[0-9]+\\.ok")
NEWER_SCHEMAS: Final = "__schema"  # where TileDB 2.4 and later keep their schemas
_NEWER_FOLDERS: Final = ("__commits", "__fragments", NEWER_SCHEMAS)
# TileDB opens any other folder with '_' in its name as a fragment; only a leading dot is safe.
_TEMPORARY: Final = ".tmp-"
# Names that are parsed once: a flush looks at all that are there, and each takes 2 us.
_PARSED: Final = 1 << 12


class FragmentName(NamedTuple):
    """The name of a fragment: the range of its timestamps, in ms since 1970, and a uuid.

    A fragment of one flush has t1 == t2, a merged one the first and last of its sources, and a uuid of version 8.
    """

    t1: int
    t2: int
    uuid: str

    @property
    def merged(self) -> bool:
        """Whether a merge or a job made it: it counts only if the record names it. Those older than records do not show it
        here."""
        return self.uuid[12] == "8"

    @property
    def short(self) -> str:
        """What the record calls it as long as it is superseded: its times and eight bytes of its uuid."""
        times = f"{self.t1}" if self.t1 == self.t2 else f"{self.t1}_{self.t2}"
        return f"{times}_{self.uuid[:16]}"

    @classmethod
    def new(cls, t1: int, t2: int | None = None, unique: str | None = None) -> FragmentName:
        """Return a name that no other fragment has; `t2` is `t1` unless given, `unique` a new uuid.

        Raises OutOfRangeError unless 0 <= t1 <= t2 < 2**64.
        """
        last = t1 if t2 is None else t2
        if not 0 <= t1 <= last <= MAX_TIMESTAMP:
            raise OutOfRangeError(f"timestamps are 0 to 2^64-1, in order, not {t1} and {last}")
        return cls(t1, last, unique or uuid.uuid4().hex)

    @classmethod
    @lru_cache(_PARSED)
    def parse(cls, name: str) -> FragmentName | None:
        """Return the parts of a folder's name; None when it is not a fragment of format 3."""
        match = _FRAGMENT.fullmatch(name)
        if match is None:
            return None
        t1, t2 = int(match[1]), int(match[2])
        return cls(t1, t2, match[3]) if t1 <= t2 <= MAX_TIMESTAMP else None

    def __str__(self) -> str:
        """Return the folder's name."""
        return f"__{self.t1}_{self.t2}_{self.uuid}"

    @property
    def order(self) -> tuple[int, int, str]:
        """The sort key: the fragment with the greatest is the newest.

        The later first timestamp wins, so that a fragment committed inside a consolidated range
        counts as newer than that one; so does, from the same first timestamp, the shorter range.
        Of equal timestamps the greater name wins.
        """
        return self.t1, -self.t2, self.uuid


def merged_uuid() -> uuid.UUID:
    """A new uuid for what a merge makes: random, of version 8 (RFC 9562, 5.8), where a flush takes one of version 4."""
    return uuid.UUID(int=uuid.uuid4().int & ~(0xF << 76) | 8 << 76)


def job_uuid(part: int, flush: int, token: bytes) -> uuid.UUID:
    """A new uuid of version 8 for what a job writes: in the order of its parts, and of the flushes of each, with six bytes that
    are the job's."""
    raw = part.to_bytes(3, "big") + flush.to_bytes(2, "big") + os.urandom(5) + token
    return uuid.UUID(int=int.from_bytes(raw, "big") & ~(0xF << 76 | 0x3 << 62) | 8 << 76 | 2 << 62)


def is_of_job(name: FragmentName, token: bytes) -> bool:
    """Whether a job with this token wrote a fragment."""
    return name.merged and name.uuid.endswith(token.hex())


def record_file(seq: int) -> str:
    """The file of a record."""
    return f"record-{seq}"


def record_number(file: str) -> int | None:
    """The number of such a file; None for another."""
    match = _RECORD.fullmatch(file)
    return int(match[1]) if match else None


def temporary_name(owner: str = "") -> str:
    """Return a new name under which nothing is seen, by tilekv or TileDB, until it is renamed; and whose it is."""
    return f"{_TEMPORARY}{uuid.uuid4().hex}{'-' if owner else ''}{owner}"


def temporary_owner(name: str) -> str:
    """Whose a temporary name is; empty when it does not say."""
    return name.removeprefix(_TEMPORARY)[33:]


def is_temporary(name: str) -> bool:
    """Tell whether something under this name is not committed, and perhaps never will be."""
    return name.startswith(_TEMPORARY)


def data_file(stem: str, var_bytes: bool = False) -> str:
    """Return the file of a slot: of field `stem` or ``"__coords"``, or of its variable bytes."""
    return f"{stem}_var.tdb" if var_bytes else f"{stem}.tdb"


def vac_file(fragment: str) -> str:
    """Return the file that lists what a consolidated fragment supersedes."""
    return f"{fragment}.vac"


def vac_owner(file: str) -> str | None:
    """Return the fragment that such a file belongs to; None for another file."""
    stem, dot, ending = file.rpartition(".")
    return stem if dot and ending == "vac" and FragmentName.parse(stem) else None


def newer_tiledb(
    folders: Iterable[str], files: Iterable[str], is_empty: Callable[[str], bool]
) -> str | None:
    """Look in a store's root for data that TileDB 2.x has put there, where tilekv cannot read it.

    Its ``consolidate`` and ``vacuum`` move all cells into fragments of its own format: a reader
    that did not look would see an empty store.

    Parameters
    ----------
    folders, files : iterable of str
        The names in the root.
    is_empty : callable
        Tells whether the folder of that name is empty.

    Returns
    -------
    str or None
        The first name that shows it; None when there is none.
    """
    for name in folders:
        if name in _NEWER_FOLDERS and not is_empty(name):
            return name
    return next((name for name in files if _NEWER_MARKER.fullmatch(name)), None)

"""`tilekv.import_from`: the rows of another program's database into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from tilekv.arguments import NO_VALUE, is_one_of, truth
from tilekv.config import Config
from tilekv.equality import equal
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.expiry import put_expiring
from tilekv.moving import archives, databases, tables
from tilekv.moving.source import Loads, Request, Row, Source, Stream, schema_of_value
from tilekv.probe import Kind, probe
from tilekv.progress import Progress, reporter
from tilekv.schema import Schema
from tilekv.storage import open_storage
from tilekv.storage.foreign import kind_of
from tilekv.store import Store
from tilekv.store import open as open_store

KINDS: Final[Mapping[str, Callable[[str, Request], AbstractContextManager[Source]]]] = {
    "lmdb": databases.open_lmdb,
    "leveldb": databases.open_leveldb,
    "dbm": databases.open_dbm,
    "shelve": databases.open_dbm,
    "sqlite": tables.open_sqlite,
    "diskcache": databases.open_diskcache,
    "tar": archives.open_tar,
    "webdataset": archives.open_webdataset,
    "tilekv": databases.open_tilekv,
}
BATCH_BYTES: Final = 4 << 20  # of values that are handed to the store in one call
BATCH_ROWS: Final = 10_000
PART_BYTES: Final = 4 << 20  # of a stream that is compared


@dataclass(frozen=True)
class Imported:
    """What an import has found.

    Attributes
    ----------
    entries : int
        How many there were.
    equal : int
        How many of them were in the store already, with the same value.
    """

    entries: int
    equal: int


def import_from(
    source: str | os.PathLike[str],
    uri: str | os.PathLike[str],
    *,
    kind: str | None = None,
    table: str | None = None,
    key: str | None = None,
    text_keys: bool = False,
    loads: Loads | None = None,
    expires: bool = False,
    progress: Progress = None,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Imported:
    """Store all that another program has stored: databases of LMDB, LevelDB, dbm and shelve, tables of SQLite, caches
    of diskcache, tar archives, WebDataset's among them, and other stores.

    The source is only read, by its own library. What the store has already, with the same value, is not written again: an import
    that was killed is done again, and goes on from there. What else the store has stays.

    Parameters
    ----------
    source : str or os.PathLike
        A path; of another store any URI. Of archives also a name that stands for several, by wildcards or, as WebDataset's names
        of shards do, by braces: ``shards/train-{000..127}.tar``. They are read in that order, as one.
    uri : str or os.PathLike
        The store, created when it is missing.
    kind : str, optional
        "lmdb", "leveldb", "dbm", "shelve", "sqlite", "diskcache", "tar", "webdataset" or "tilekv". Unless given, the files tell;
        what they cannot tell is "shelve" from "dbm", and "webdataset" from "tar".
    table : str, optional
        Of SQLite, where there are several tables; of LMDB, a named database.
    key : str, optional
        Of SQLite: the column that has the keys, unless there is a primary key of one column.
    text_keys : bool
        Keys that are bytes become text, of UTF-8.
    loads : callable, optional
        What makes values of pickles, such as ``pickle.loads``, which runs whatever is in them. Without it none is loaded: those
        of diskcache are refused, and those of dbm and SQLite are bytes as any others.
    expires : bool
        A store that is created keeps moments of expiry, as one of diskcache's entries does.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (done, in all): entries, or bytes of an archive.
    config : mapping, optional
        Options of the store, as of `open`.
    storage_options : mapping, optional
        Of stores on object storage, as of `open`.

    Returns
    -------
    Imported

    Raises
    ------
    FormatError
        When the source's library cannot read it.
    InvalidValueError, WrongTypeError
        When it cannot be told what the source is, for a value that is a pickle, and for what the store's schema does not hold.
    MissingPackageError
        When the source's library is not installed.
    OSError
        When the source is not there.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise WrongTypeError(f"source is a str or a path, not {type(source).__name__}")
    if kind is not None and not is_one_of(kind, KINDS):
        raise InvalidValueError(f"kind is one of {', '.join(KINDS)}, not {shown(kind)}")
    for name, text in (("table", table), ("key", key)):
        if text is not None and not isinstance(text, str):
            raise WrongTypeError(f"{name} is a str, not {type(text).__name__}")
    if loads is not None and not callable(loads):
        raise WrongTypeError(f"loads is a function, not {type(loads).__name__}")
    if kind == "shelve" and loads is None:
        raise InvalidValueError("the values of a shelf are pickles").advised(
            "loads=pickle.loads loads them, and runs whatever is in them",
            "--pickle loads them, and runs whatever is in them",
        )
    text_keys, expires = truth("text_keys", text_keys), truth("expires", expires)
    place: object = os.fspath(source)
    if not isinstance(place, str) or not place or "\0" in place:
        raise InvalidValueError(f"{shown(place)} is no path")
    report = reporter(progress, "importing")
    asked = Request(table, key, loads, storage_options)
    with KINDS[kind or _told(place)](place, asked) as found:
        rows = _with_text(found.rows) if text_keys else found.rows
        return put_rows(found, rows, uri, expires, report, config, storage_options)


def put_rows(
    found: Source,
    rows: Iterator[Row],
    uri: str | os.PathLike[str],
    expires: bool,
    report: Callable[[int, int], object],
    config: Mapping[str, object] | Config | None,
    storage_options: Mapping[str, object] | None,
) -> Imported:
    """Put the rows of a source into a store that holds such, but for those that it has already."""
    first = next(rows, None)
    schema = found.schema
    if schema is None and first is not None:
        schema = schema_of_value(*first[:2])
    if schema is None:
        return Imported(0, 0)  # nothing tells what the store would hold
    if expires or found.expires:
        schema = Schema(schema.attrs, expires=True)._of_frame(schema._frame)
    with _opened(uri, schema, config, storage_options) as db:
        importing = _Importing(db)
        for row in rows if first is None else chain([first], rows):
            importing.add(*row)
            done = importing.entries if found.done is None else found.done()
            if done < found.total:
                report(done, found.total)
        importing.put()
        db.flush()
    report(found.total, found.total)
    return Imported(importing.entries, importing.equal)


def _told(place: str) -> str:
    kind = "tilekv" if "://" in place else kind_of(place)
    if kind is None or kind == "folder":
        raise InvalidValueError(
            f"{place} is none of {', '.join(KINDS)}, as far as its files tell"
        ).advised("kind= says what it is", "--from says what it is")
    return kind


def _with_text(rows: Iterator[Row]) -> Iterator[Row]:
    for key, value, moment in rows:
        if isinstance(key, bytes):
            try:
                key = key.decode()
            except UnicodeDecodeError:
                raise InvalidValueError(
                    f"key {shown(key)} is no UTF-8, and cannot be text"
                ) from None
        yield key, value, moment


def _opened(
    uri: str | os.PathLike[str],
    schema: Schema,
    config: Mapping[str, object] | Config | None,
    storage_options: Mapping[str, object] | None,
) -> Store:
    """The store, made with the schema when it is missing. One that is there may have filters of its own, and attributes that
    are nullable."""
    options = Config.of(config)
    if storage_options is None:
        storage_options = options.storage_options(uri)
    there = probe(open_storage(uri, options=storage_options)).kind is Kind.TILEKV
    db = open_store(
        uri, "a", schema=None if there else schema, config=options, storage_options=storage_options
    )
    held = {attr.name: (attr.type_name, attr.shape, attr.nullable) for attr in db.schema.attrs}
    wanted = {attr.name: (attr.type_name, attr.shape, attr.nullable) for attr in schema.attrs}
    if len(held) == len(wanted) == 1:
        held = dict(zip(wanted, held.values(), strict=True))  # its values are bare
    if held.keys() != wanted.keys() or any(
        held[name][:2] != form[:2] or form[2] > held[name][2] for name, form in wanted.items()
    ):
        db.close()
        raise InvalidValueError(
            f"{db.uri} has {db.schema.attrs}, and what is imported {schema.attrs}"
        )
    if schema.expires and not db.schema.expires:
        db.close()
        raise InvalidValueError(
            f"{db.uri} keeps no moments of expiry, and what is imported has such"
        )
    return db


class _Importing:
    """Puts rows into a store, some at a time, but for those that it has already."""

    def __init__(self, db: Store) -> None:
        self.entries = self.equal = 0
        self._db = db
        self._fresh = not db
        self._names = [attr.name for attr in db.schema.attrs]
        self._rows: list[Row] = []
        self._size = 0

    def add(self, key: Any, value: Any, moment: int) -> None:
        """Take a row; it is in the store after `put` at the latest."""
        self.entries += 1
        if isinstance(value, Stream):
            self.put()
            self.equal += not put_unless_equal(self._db, key, value.file)
            return
        if isinstance(value, Mapping):
            value = self._whole(key, value)
        self._rows.append((key, value, moment))
        self._size += _size(value)
        if self._size >= BATCH_BYTES or len(self._rows) >= BATCH_ROWS:
            self.put()

    def _whole(self, key: Any, value: Mapping[str, Any]) -> Any:
        """A row with all attributes, null where it has none."""
        unknown = value.keys() - set(self._names)
        if unknown:
            raise InvalidValueError(
                f"the value of key {shown(key)} has {', '.join(sorted(map(repr, unknown)))}, which the first had not"
            )
        if len(self._names) == 1:
            return value.get(self._names[0])
        return {name: value.get(name) for name in self._names}

    def put(self) -> None:
        """Hand over what was taken."""
        rows, db = self._rows, self._db
        self._rows, self._size = [], 0
        if not self._fresh:
            known = db.get_many([row[0] for row in rows], NO_VALUE)
            count = len(rows)
            rows = [row for row, old in zip(rows, known, strict=True) if not equal(old, row[1])]
            self.equal += count - len(rows)
        if not rows:
            return
        pairs = [(key, value) for key, value, _ in rows]
        if db.schema.expires:
            put_expiring(db, pairs, [moment for _, _, moment in rows])
        else:
            db.put_many(pairs)


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return len(value) if isinstance(value, (bytes, str)) else 8


def put_unless_equal(db: Store, key: Any, file: Any) -> bool:
    """Store what is in a file that can be sought in, some MiB of it in memory at a time; False when it is there with the same
    content already."""
    if key in db:
        with db.open_value(key) as stored:
            while (some := file.read(PART_BYTES)) == stored.read(PART_BYTES):
                if not some:
                    return False
        file.seek(0)
    db.put_stream(key, file)
    return True

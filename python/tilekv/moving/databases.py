"""LMDB, LevelDB, dbm and shelve, diskcache, and other stores, as sources."""

from __future__ import annotations

import dbm
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tilekv.errors import FormatError, InvalidValueError, KeyNotFoundError
from tilekv.expiry import NEVER
from tilekv.frames.giving import package
from tilekv.moving.source import Request, Row, Source, bytes_schema, pickled
from tilekv.moving.tables import open_sqlite
from tilekv.schema import Schema
from tilekv.storage.foreign import is_folder, is_sqlite
from tilekv.store import open as open_store

_PICKLE: Final = 4  # diskcache's mode of such a value


@contextmanager
def open_lmdb(path: str, asked: Request) -> Iterator[Source]:
    """A database of LMDB: the unnamed one, or `table`."""
    lmdb = package("lmdb", "moving in from LMDB")
    try:
        with lmdb.open(
            path,
            subdir=is_folder(path),
            readonly=True,
            create=False,
            max_dbs=0 if asked.table is None else 1,
        ) as env:
            name = None if asked.table is None else asked.table.encode()
            try:
                database = env.open_db(name, create=False)
            except lmdb.NotFoundError:
                raise InvalidValueError(f"{path} has no database {asked.table!r}") from None
            with env.begin(db=database) as txn:
                if database.flags(txn).get("dupsort"):
                    raise InvalidValueError(f"{path}: a key of this database has several values")
                rows = ((key, value, NEVER) for key, value in txn.cursor())
                yield Source(rows, txn.stat(database)["entries"], bytes_schema())
    except lmdb.Error as error:
        raise FormatError(f"{path}: {error}") from error


@contextmanager
def open_leveldb(path: str, asked: Request) -> Iterator[Source]:
    """A database of LevelDB, which nobody else may have open."""
    plyvel = package("plyvel", "moving in from LevelDB")
    try:
        db = plyvel.DB(path, create_if_missing=False)
        try:
            total = sum(1 for _ in db.iterator(include_value=False))
            yield Source(((key, value, NEVER) for key, value in db), total, bytes_schema())
        finally:
            db.close()
    except plyvel.Error as error:
        raise FormatError(f"{path}: {error}") from error


@contextmanager
def open_dbm(path: str, asked: Request) -> Iterator[Source]:
    """A file of dbm; that of a shelf, whose keys are text and whose values are pickles, when these are to be loaded."""
    if is_sqlite(path):  # Python 3.13 has made it, and this may be an older one
        with open_sqlite(path, Request("Dict", "key")) as found:
            pairs = ((key, value) for key, value, _ in found.rows)
            yield _of_dbm(pairs, found.total, asked)
        return
    try:
        with dbm.open(path, "r") as db:
            keys: list[Any] = list(db.keys())
            yield _of_dbm(((key, db[key]) for key in keys), len(keys), asked)
    except dbm.error as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(f"{path}: {error}") from error


def _of_dbm(pairs: Iterator[tuple[bytes, bytes]], total: int, asked: Request) -> Source:
    loads = asked.loads
    if loads is None:
        return Source(((key, value, NEVER) for key, value in pairs), total, bytes_schema())
    return Source(((key.decode(), loads(value), NEVER) for key, value in pairs), total)


@contextmanager
def open_diskcache(path: str, asked: Request) -> Iterator[Source]:
    """The entries of a diskcache.Cache that have not expired, with the moments at which they will."""
    library = package("diskcache", "moving in from diskcache")

    class Disk(library.Disk):  # type: ignore[misc, name-defined]
        """Loads no pickle but by what was given for it."""

        def get(self, key: Any, raw: bool) -> Any:
            if raw:
                return super().get(key, raw)
            if asked.loads is None:
                raise pickled("(the key itself)")
            return asked.loads(bytes(key))

        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode != _PICKLE:
                return super().fetch(mode, filename, value, read)
            if asked.loads is None:
                raise pickled(current)
            if value is None:
                with super().fetch(library.core.MODE_BINARY, filename, None, True) as file:
                    return asked.loads(file.read())
            return asked.loads(bytes(value))

    current: Any = None
    with library.Cache(path, disk=Disk) as cache:

        def rows() -> Iterator[Row]:
            nonlocal current
            for current in cache:
                value, expires = cache.get(current, default=cache, expire_time=True)
                if value is not cache:
                    yield current, value, NEVER if expires is None else int(expires * 1000)

        yield Source(rows(), len(cache), expires=True)


@contextmanager
def open_tilekv(path: str, asked: Request) -> Iterator[Source]:
    """Another store, as it is when it is opened."""
    with open_store(path, storage_options=asked.storage_options) as db:

        def moment(key: Any) -> int:
            try:
                return db._expires(key)
            except KeyNotFoundError:
                return 1  # since it was read

        expires = db.schema.expires
        rows = ((key, value, moment(key) if expires else NEVER) for key, value in db.items())
        schema = Schema(db.schema.attrs, expires=expires)._of_frame(db.schema._frame)
        yield Source(rows, len(db), schema, expires)

"""Tables of SQLite as sources: a key from one column, and an attribute of each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final
from urllib.parse import quote

from tilekv.errors import FormatError, InvalidValueError
from tilekv.expiry import NEVER
from tilekv.moving.source import Request, Row, Source
from tilekv.schema import Attr, Schema

_TYPES: Final = {
    frozenset({"integer"}): int,
    frozenset({"real"}): float,
    frozenset({"integer", "real"}): float,
    frozenset({"text"}): str,
    frozenset({"blob"}): bytes,
}


@contextmanager
def open_sqlite(path: str, asked: Request) -> Iterator[Source]:
    """A table: the only one, or `table`; by its primary key, or the column `key`. Types are those of the values that it has.

    Where `asked.loads` is given, the table has one column beside its key, of pickles, as those of sqlitedict.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db:
            table = _table(db, path, asked.table)
            columns = db.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
            names = [column[1] for column in columns]
            key = _key(path, table, columns, asked.key)
            rest = [name for name in names if name != key]
            total, different = db.execute(
                f"SELECT count(*), count(DISTINCT {_quoted(key)}) FROM {_quoted(table)}"
            ).fetchone()
            if total != different:
                raise InvalidValueError(
                    f"{path}: column {key!r} of table {table!r} is no key: it has nulls, or one value several times"
                )
            loads = asked.loads
            if loads is not None and len(rest) != 1:
                raise InvalidValueError(
                    f"{path}: table {table!r} has {len(rest)} columns beside its key: a column of pickles is the only one"
                )
            cells = ", ".join(map(_quoted, [key, *rest]))
            found = db.execute(f"SELECT {cells} FROM {_quoted(table)}")

            def rows() -> Iterator[Row]:
                for name, *values in found:
                    if loads is not None:
                        yield name, loads(values[0]), NEVER
                    elif len(rest) == 1:
                        yield name, values[0], NEVER
                    else:
                        yield name, dict(zip(rest, values, strict=True)), NEVER

            yield Source(rows(), total, None if loads else _schema(db, path, table, rest))
    except sqlite3.Error as error:
        raise FormatError(f"{path}: {error}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(db: sqlite3.Connection, path: str, asked: str | None) -> str:
    asking = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    tables = [name for (name,) in db.execute(asking)]
    if asked is not None and asked not in tables:
        raise InvalidValueError(f"{path} has no table {asked!r}; it has {', '.join(tables)}")
    if asked is None and len(tables) != 1:
        raise InvalidValueError(f"{path} has {len(tables)} tables: {', '.join(tables)}").advised(
            "choose one with table=", "choose one with --table"
        )
    return tables[0] if asked is None else asked


def _key(path: str, table: str, columns: list[tuple[object, ...]], asked: str | None) -> str:
    names = [str(column[1]) for column in columns]
    primary = [str(column[1]) for column in columns if column[5]]
    if asked is None and len(primary) == 1:
        asked = primary[0]
    if asked not in names or len(names) < 2:
        raise InvalidValueError(
            f"{path}: which column of table {table!r} has the keys? It has {', '.join(names)}"
        ).advised("choose one with key=", "choose one with --key")
    return asked


def _schema(db: sqlite3.Connection, path: str, table: str, columns: list[str]) -> Schema:
    """Of the types that the values have: SQLite's columns hold values of any."""
    kinds = ", ".join(f"group_concat(DISTINCT typeof({_quoted(name)}))" for name in columns)
    found = db.execute(f"SELECT {kinds} FROM {_quoted(table)}").fetchone()
    attrs = []
    for name, text in zip(columns, found, strict=True):
        types = set((text or "blob").split(","))
        nullable = "null" in types
        dtype = _TYPES.get(frozenset(types - {"null"} or {"blob"}))
        if dtype is None:
            raise InvalidValueError(
                f"{path}: column {name!r} of table {table!r} has values of several types: {', '.join(sorted(types))}; "
                "a view may cast them to one"
            )
        attrs.append(Attr(name, dtype, nullable=nullable))
    return Schema(attrs)

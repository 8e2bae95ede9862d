"""SQLite through the standard library's sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.rivals.rival import Block, Rival

BATCH = 500  # keys of one IN (...)
# SQLite's manual: WITHOUT ROWID pays while rows are smaller than about a twentieth of a page of 4 KiB.
SMALL_ROW = 4096 // 20


class SQLite(Rival):
    """One table; WAL, one transaction a call, synchronous=FULL."""

    name = "sqlite3"
    version = sqlite3.sqlite_version
    what = "WAL, executemany in one transaction, WITHOUT ROWID for rows under 205 bytes; 256 MiB cache, memory map"

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """executemany and a checkpoint."""
        self._create(path, keys, values)
        self.write(path, keys, values)

    def load_blocks(self, path: Path, blocks: Iterable[Block], keys: int) -> None:
        """A transaction a block, whose keys are sorted."""
        for number, (some, values) in enumerate(blocks):
            if number == 0:
                self._create(path, some, values)
                connection = self._connection(path)
            connection.execute("BEGIN IMMEDIATE")
            pairs = sorted(zip(some, values, strict=True))
            connection.executemany("INSERT INTO kv VALUES (?, ?)", pairs)
            connection.execute("COMMIT")
        self.connection.close()

    def _create(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        path.mkdir()
        row = (sum(map(len, keys)) + sum(map(len, values))) // len(keys)
        with self._connection(path) as connection:
            tail = "WITHOUT ROWID" if row < SMALL_ROW else ""
            connection.execute(f"CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) {tail}")
        self.connection.close()

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """substr."""
        query = "SELECT substr(v, ?, ?) FROM kv WHERE k = ?"
        (found,) = self.connection.execute(query, (start + 1, stop - start, key)).fetchone()
        return found or b""  # it makes NULL of an empty blob

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """A connection; the map would be a second cache beside a small one, and stays off then."""
        self._connection(path, cache_bytes)

    def close(self) -> None:
        """Close."""
        self.connection.close()

    def get(self, keys: list[bytes]) -> None:
        """SELECT ... WHERE k = ?."""
        execute = self.connection.execute
        for key in keys:
            execute("SELECT v FROM kv WHERE k = ?", (key,)).fetchone()

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """SELECT ... WHERE k IN (...), put into the order asked."""
        table = dict(self._in(keys, ["k", "v"]))
        return [table[key] for key in keys]

    def items(self) -> int:
        """SELECT k, v."""
        count = 0
        for _key, _value in self.connection.execute("SELECT k, v FROM kv"):
            count += 1
        return count

    def values(self) -> int:
        """SELECT v."""
        count = 0
        for _row in self.connection.execute("SELECT v FROM kv"):
            count += 1
        return count

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """executemany and a checkpoint."""
        with self._connection(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            pairs = zip(keys, values, strict=True)
            connection.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", pairs)
        self.connection.close()

    def open_to_write(self, path: Path) -> None:
        """A table, and a connection that stays open: a checkpoint comes every 1,000 pages of the log, as by default."""
        path.mkdir()
        self._connection(path).execute(
            "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"
        )

    def commit(self, keys: list[bytes], values: list[bytes]) -> None:
        """executemany in one transaction."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        pairs = zip(keys, values, strict=True)
        self.connection.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", pairs)
        execute("COMMIT")

    def close_written(self) -> None:
        """Close."""
        self.connection.close()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """executemany."""
        with self._connection(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = ((key,) for key in keys)
            connection.executemany("DELETE FROM kv WHERE k = ?", rows)
        self.connection.close()

    def load_rows(self, path: Path, keys: list[bytes], columns: dict[str, list[Any]]) -> None:
        """A table with a column an attribute."""
        path.mkdir()
        names = ",".join(f'"{name}"' for name in columns)
        marks = ",".join("?" * (len(columns) + 1))
        with self._connection(path) as connection:
            connection.execute(f"CREATE TABLE kv (k BLOB PRIMARY KEY, {names})")
            connection.execute("BEGIN IMMEDIATE")
            rows = zip(keys, *columns.values(), strict=True)
            connection.executemany(f"INSERT INTO kv VALUES ({marks})", rows)
        self.connection.close()

    def read_rows(self, keys: list[bytes], names: list[str]) -> list[list[Any]]:
        """SELECT of the columns, put into the order asked."""
        found = {row[0]: row[1:] for row in self._in(keys, ["k", *(f'"{name}"' for name in names)])}
        return [list(column) for column in zip(*(found[key] for key in keys), strict=True)]

    def _in(self, keys: list[bytes], names: list[str]) -> Iterator[Any]:
        for at in range(0, len(keys), BATCH):
            some = keys[at : at + BATCH]
            marks = ",".join("?" * len(some))
            query = f"SELECT {','.join(names)} FROM kv WHERE k IN ({marks})"
            yield from self.connection.execute(query, some)

    def many_writers(self) -> None:
        """One at a time: the others wait."""

    def _connection(self, path: Path, cache_bytes: int | None = None) -> sqlite3.Connection:
        self.connection = sqlite3.connect(
            path / "store.db", timeout=3600, isolation_level=None, cached_statements=16
        )
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"cache_size = -{(256 << 20 if cache_bytes is None else cache_bytes) >> 10}",
            f"mmap_size = {1 << 34 if cache_bytes is None else 0}",
        ):
            self.connection.execute(f"PRAGMA {pragma}")
        return self.connection


STORE = SQLite

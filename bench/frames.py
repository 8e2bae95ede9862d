"""A frame as a store, beside what else a data engineer would put it into: `python -m bench.frames`.

An index of 886,000 packages (name, version, month, rank, summary; nulls in three of them) is loaded, 100,000 of its names are
looked up in one call and 1,000 one by one, all of it is read back as an Arrow table, and the bytes on disk are counted:

* tilekv: `from_arrow`, `read`, `to_arrow`;
* Parquet, sorted by name, zstd: a reader that takes only row groups whose names may hold one that is asked for;
* DuckDB, a table with a primary key: a join with the names, and `where name = ?`;
* Lance, with a scalar index, when it is installed (`pip install pylance`): `name in (...)`;
* SQLite, a table with a primary key: a join with a table of the names, and `where name = ?`.

What is looked up is an Arrow table of all columns in the order asked, and is compared. Seconds of the clock, the least of the
rounds, in each of which all have their turn.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tilekv

ROWS, MANY, FEW = 886_000, 100_000, 1_000
GOAL = 5
MANY_OF_CLOCK = "look up many"
MANY_OF_PROCESSOR = "processor's time of it"
RANKED = 0.017
GROUP = 8192  # rows of a row group: small, or one name costs a large one
WORDS = [
    "a",
    "fast",
    "client",
    "for",
    "data",
    "library",
    "of",
    "tools",
    "python",
    "wrapper",
    "async",
    "parser",
]
WORDS += [
    "command",
    "line",
    "framework",
    "and",
    "the",
    "plugin",
    "api",
    "learning",
    "with",
    "support",
    "to",
    "web",
]
COLUMNS = ["name", "version", "month", "rank", "summary"]


def make_index(rows: int) -> pa.Table:
    """The packages, in no order."""
    rng = random.Random(20261129)
    months = [dt.date(2005 + i // 12, 1 + i % 12, 1) for i in range(262)]
    names = [f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{i:x}" for i in range(rows)]
    rng.shuffle(names)
    return pa.table(
        {
            "name": names,
            "version": [
                f"{rng.randrange(9)}.{rng.randrange(40)}.{rng.randrange(12)}" for _ in names
            ],
            "month": [rng.choice(months) if rng.random() < 0.9 else None for _ in names],
            "rank": pa.array(
                [i + 1 if rng.random() < RANKED else None for i in range(rows)], "int64"
            ),
            "summary": [
                " ".join(rng.choices(WORDS, k=rng.randrange(1, 14)))
                if rng.random() < 0.95
                else None
                for _ in names
            ],
        }
    )


def size_of(path: Path) -> int:
    """Bytes on disk of a file, or of all below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


class Side:
    """One way to keep the index. `path` is where it is."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / type(self).__name__.lower()

    def load(self, table: pa.Table) -> None:
        """Write all, durably, and open it."""
        raise NotImplementedError

    def find(self, names: pa.Array) -> pa.Table:
        """The rows of these names, in their order."""
        raise NotImplementedError

    def get(self, name: str) -> object:
        """One row."""
        raise NotImplementedError

    def scan(self) -> pa.Table:
        """All rows."""
        raise NotImplementedError


class Tilekv(Side):
    def load(self, table: pa.Table) -> None:
        tilekv.from_arrow(self.path, table, "name").close()
        self.db = tilekv.open(self.path)

    def find(self, names: pa.Array) -> pa.Table:
        return self.db.to_arrow(names)

    def get(self, name: str) -> object:
        return self.db[name]

    def scan(self) -> pa.Table:
        return self.db.to_arrow()


def in_order(table: pa.Table, names: pa.Array) -> pa.Table:
    return table.take(pc.index_in(names, table["name"].combine_chunks()))


class Parquet(Side):
    def load(self, table: pa.Table) -> None:
        pq.write_table(table.sort_by("name"), self.path, compression="zstd", row_group_size=GROUP)
        self.file = pq.ParquetFile(self.path)
        groups = [self.file.metadata.row_group(i) for i in range(self.file.num_row_groups)]
        self.last = np.array([group.column(0).statistics.max for group in groups], object)

    def find(self, names: pa.Array) -> pa.Table:
        asked = np.array(names.to_pylist(), object)
        groups = np.unique(np.searchsorted(self.last, asked))
        return in_order(self.file.read_row_groups(groups.tolist()), names)

    def get(self, name: str) -> object:
        group = int(np.searchsorted(self.last, name))
        table = self.file.read_row_group(group)
        return table.slice(pc.index(table["name"], name).as_py(), 1).to_pylist()[0]

    def scan(self) -> pa.Table:
        return self.file.read()


class DuckDB(Side):
    def load(self, table: pa.Table) -> None:
        rows = table  # noqa: F841 - duckdb finds it
        self.db = duckdb.connect(str(self.path))
        self.db.execute(
            "create table packages (name varchar primary key, version varchar, month date, rank bigint, summary varchar)"
        )
        self.db.execute("insert into packages select * from rows")
        self.db.execute("checkpoint")

    def find(self, names: pa.Array) -> pa.Table:
        asked = pa.table({"name": names, "place": np.arange(len(names))})  # noqa: F841 - duckdb finds it
        found = self.db.sql(
            "select packages.* from asked join packages using (name) order by place"
        )
        return pa.table(found)

    def get(self, name: str) -> object:
        return self.db.execute("select * from packages where name = ?", [name]).fetchall()[0]

    def scan(self) -> pa.Table:
        return pa.table(self.db.sql("from packages"))


class SQLite(Side):
    def load(self, table: pa.Table) -> None:
        self.db = sqlite3.connect(self.path)
        self.db.execute(
            "create table packages (name text primary key, version text, month text, rank integer, summary text) without rowid"
        )
        rows = zip(*(self._plain(table[name]) for name in COLUMNS), strict=True)
        with self.db:
            self.db.executemany("insert into packages values (?, ?, ?, ?, ?)", rows)
        self.db.execute("create temp table asked (place integer primary key, name text)")

    @staticmethod
    def _plain(column: pa.ChunkedArray) -> list[Any]:
        return (column.cast("string") if column.type == pa.date32() else column).to_pylist()

    @staticmethod
    def _table(rows: list[Any]) -> pa.Table:
        columns = list(zip(*rows, strict=True))
        types = {"month": pa.string(), "rank": pa.int64()}
        table = pa.table(
            {
                name: pa.array(column, types.get(name, pa.string()))
                for name, column in zip(COLUMNS, columns, strict=True)
            }
        )
        return table.set_column(2, "month", table["month"].cast(pa.date32()))

    def find(self, names: pa.Array) -> pa.Table:
        self.db.execute("delete from asked")
        self.db.executemany(
            "insert into asked (name) values (?)", [(n,) for n in names.to_pylist()]
        )
        query = "select packages.* from asked cross join packages using (name) order by place"
        return self._table(self.db.execute(query).fetchall())

    def get(self, name: str) -> object:
        return self.db.execute("select * from packages where name = ?", (name,)).fetchone()

    def scan(self) -> pa.Table:
        return self._table(self.db.execute("select * from packages").fetchall())


class Lance(Side):
    def load(self, table: pa.Table) -> None:
        import lance

        lance.write_dataset(table, str(self.path))
        dataset = lance.dataset(str(self.path))
        dataset.create_scalar_index("name", "BTREE")
        self.db = lance.dataset(str(self.path))

    def find(self, names: pa.Array) -> pa.Table:
        return in_order(self.db.to_table(filter=pc.field("name").isin(names)), names)

    def get(self, name: str) -> object:
        return self.db.to_table(filter=f"name = '{name}'").to_pylist()[0]

    def scan(self) -> pa.Table:
        return self.db.to_table()


SIDES: list[type[Side]] = [Tilekv, Parquet, DuckDB, SQLite]


def sides() -> tuple[list[type[Side]], str]:
    """Those that are installed, and why another is not."""
    try:
        import lance
    except ImportError:
        return SIDES, "Lance is left out: pip install pylance"
    return [*SIDES, Lance], f"Lance {lance.__version__}"


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def equal(found: pa.Table, wanted: pa.Table) -> bool:
    """Whether the rows are these, whatever texts and dates are called."""
    found = found.select(COLUMNS)
    return all(found[name].cast(wanted[name].type).equals(wanted[name]) for name in COLUMNS)


def measure(
    chosen: list[Side], table: pa.Table, asked: pa.Array, few: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds of each workload and bytes on disk, by side. All sides have their turn in each round."""
    wanted = in_order(table, asked)
    names = [type(side).__name__ for side in chosen]
    figures = {
        name: {"load": seconds(lambda side=side: side.load(table))[0]}
        for name, side in zip(names, chosen, strict=True)
    }
    for turn in range(rounds + 1):  # the first fills caches
        for name, side in zip(names, chosen, strict=True):
            mine = figures[name]
            start = time.process_time()
            second, found = seconds(lambda side=side: side.find(asked))
            times = {MANY_OF_CLOCK: second, MANY_OF_PROCESSOR: time.process_time() - start}
            if not equal(found, wanted):
                raise SystemExit(f"{name} did not find what was written")
            if turn == 0:
                mine["look up many, first time"] = second
            times["look up one by one"] = seconds(lambda side=side: [side.get(n) for n in few])[0]
            times["scan"], everything = seconds(side.scan)
            if everything.num_rows != table.num_rows:
                raise SystemExit(f"{name} did not scan what was written")
            del everything
            for workload, second in times.items() if turn else ():
                mine[workload] = min(second, mine.get(workload, second))
    for name, side in zip(names, chosen, strict=True):
        figures[name]["bytes"] = size_of(side.path)
    return figures


def asked_by_duckdb(ours: Side, rounds: int) -> dict[str, float]:
    """Seconds of one column's mean, asked by DuckDB of a store: by its stream, and by a Dataset."""
    store = ours.db  # type: ignore[attr-defined]
    data = store.to_dataset()  # noqa: F841 - duckdb finds it
    times = {}
    for name in ("store", "data"):
        found = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            duckdb.sql(
                f"select avg(rank) from {name}"
            ).fetchall()  # it looks for variables of this frame
            found.append(time.perf_counter() - start)
        times[name] = min(found)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frames", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--asked", type=int, default=MANY)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures there")
    options = parser.parse_args()
    table = make_index(options.rows)
    rng = random.Random(7)
    names = table["name"].to_pylist()
    asked = pa.array(rng.sample(names, min(options.asked, options.rows)))
    few = rng.sample(names, min(options.few, options.rows))
    chosen, note = sides()
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        made = [kind(Path(folder)) for kind in chosen]
        figures = measure(made, table, asked, few, options.rounds)
        queries = asked_by_duckdb(made[0], options.rounds)
    print(f"{options.rows:,} rows, {len(asked):,} names at once, {len(few):,} one by one; {note}\n")
    workloads = list(figures["Tilekv"])
    print(f"{'':24}" + "".join(f"{name:>12}" for name in figures))
    for workload in workloads:
        unit = 1e6 if workload == "bytes" else 1
        word = "MB" if workload == "bytes" else "s"
        row = "".join(f"{each[workload] / unit:12.3f}" for each in figures.values())
        print(f"{workload + ', ' + word:24}{row}")
    ours = figures["Tilekv"]
    print("\ntilekv's figure divided into each other's: above 1 tilekv is better")
    for workload in workloads:
        row = "".join(f"{each[workload] / ours[workload]:12.2f}" for each in figures.values())
        print(f"{workload:24}{row}")
    print()
    for workload in (MANY_OF_CLOCK, MANY_OF_PROCESSOR):
        ratio = figures["DuckDB"][workload] / ours[workload]
        told = "met" if ratio >= GOAL else "MISSED"
        print(f"goal  {workload}, at least {GOAL} times DuckDB's: {ratio:.1f}, {told}")
    print("select avg(rank), asked by DuckDB of the store: " + f"{queries['store']:.3f} s")
    print("the same of its to_dataset(), which reads one column: " + f"{queries['data']:.3f} s")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

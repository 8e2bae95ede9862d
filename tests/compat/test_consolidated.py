"""A store that was consolidated and vacuumed is the same to today's TileDB, and to a reader that shares no code with tilekv."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from oracle import read_store
from sample_stores import SAMPLES, Row, Sample, coords, key_of, rows_of
from tilekv import Attr, Schema
from tilekv.storage.local import LocalStorage

READER = Path(__file__).parents[1] / "support" / "tiledb_reader.py"
TOMBSTONE = 0x80


def tiledb_live(path: Path, scratch: Path) -> list[tuple[tuple[int, bytes], Row]]:
    """The live cells that TileDB shows, in its order."""
    out = scratch / "out.json"
    command = [sys.executable, READER, path, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    columns = json.loads(out.read_text())["columns"]
    cells = {
        name: [bytes.fromhex(cell) for cell in each["cells"]] for name, each in columns.items()
    }
    attrs = [name for name in cells if not name.startswith("__")]
    found = []
    for i, (kind, key) in enumerate(zip(cells["__key_type"], cells["__key"], strict=True)):
        if not kind[0] & TOMBSTONE:
            found.append(((kind[0], key), {name: cells[name][i] for name in attrs}))
    return found


def as_shown(row: Row) -> Row:
    """TileDB-Py takes a single NUL of bytes or str for its word for an empty cell; libtiledb itself keeps it."""
    return {name: b"" if cell == b"\0" else cell for name, cell in row.items()}


def check(
    path: Path, alive: dict[tuple[int, bytes], Row], scratch: Path, fragments: int = 0
) -> None:
    """TileDB, the oracle and tilekv see these cells, each once."""
    shown = tiledb_live(path, scratch)
    assert Counter(key for key, _ in shown) == Counter(list(alive))
    assert {key: as_shown(row) for key, row in shown} == {
        key: as_shown(row) for key, row in alive.items()
    }
    store = read_store(path)
    assert store.rows() == alive
    assert not fragments or len(store.fragments) == fragments
    with tilekv.open(path) as db:
        assert db.verify() == []
        assert sorted(map(key_of, db)) == sorted(alive)


def written(path: Path, sample: Sample, until: int | None = None) -> dict[tuple[int, bytes], Row]:
    part = Sample(sample.schema, sample.flushes[:until])
    part.write(path)
    return {key: row for key, row in part.rows().items() if row is not None}


NAMES = ["overwrites", "overwrites md5", "tiles of 16", "empty tiles", "scalars"]


@pytest.mark.parametrize("name", NAMES)
def test_before_after_and_vacuumed(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]()
    path = tmp_path / "store"
    alive = written(path, sample)
    with tilekv.open(path, "a") as db:  # a second fragment for all
        db.delete_many(["was never there"])
    check(path, alive, tmp_path)
    with tilekv.open(path, "a") as db:
        db.consolidate()
        check(path, alive, tmp_path, 1)
        assert list(path.glob(".tilekv/past/*"))
        db.vacuum()
    assert not list(path.glob(".tilekv/past/*"))
    check(path, alive, tmp_path, 1)


def test_two_consolidations_before_the_vacuum(tmp_path: Path) -> None:
    sample = SAMPLES["overwrites"]()
    path = tmp_path / "store"
    written(path, sample, 2)
    alive = {key: row for key, row in sample.rows().items() if row is not None}
    with tilekv.open(path, "a") as db:
        db.consolidate()
        for flush in sample.flushes[2:]:
            for key, row in flush:
                if isinstance(row, tuple):
                    db[key] = row
                else:
                    db.delete_many([key])
            db.flush()
        check(path, alive, tmp_path)
        db.consolidate()
        assert len(list(path.glob(".tilekv/past/*"))) > 2
        check(path, alive, tmp_path, 1)
        db.vacuum()
    check(path, alive, tmp_path, 1)


def test_outputs_that_split_the_digests(tmp_path: Path) -> None:
    sample = SAMPLES["overwrites"]()
    path = tmp_path / "store"
    alive = written(path, sample)
    config = {"kv.max_fragment_bytes": 2000}
    with tilekv.open(path, "a", config=config) as db:
        db.consolidate()
        n = len(db.fragments)
        assert n > 2
        check(path, alive, tmp_path, n)
        db.vacuum()
        check(path, alive, tmp_path, n)
        db.consolidate(vacuum=True)
        check(path, alive, tmp_path)


def test_only_a_tombstone_is_left(tmp_path: Path) -> None:
    path = tmp_path / "store"
    written(path, SAMPLES["only tombstones"]())
    with tilekv.open(path, "a") as db:
        db.consolidate()
        check(path, {}, tmp_path, 1)
        db.vacuum()
    check(path, {}, tmp_path, 1)


def test_tiledb_reads_right_after_every_step_of_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the root alone: sources, then beside what was made of them, then fewer and fewer, the oldest first."""
    path = tmp_path / "store"
    schema = Schema([Attr("value", bytes)], capacity=4)
    tilekv.open(path, "x", schema=schema).close()
    flushes: list[tuple[dict[object, bytes], list[object]]] = [
        ({"a": b"1", "b": b"1", "c": b"1"}, []),
        ({"a": b"2", "d": b"2"}, ["b"]),
        ({"b": b"3"}, ["c"]),
        ({"e": b"4"}, ["d"]),
    ]
    for puts, deletes in flushes:
        with tilekv.open(path, "a") as db:
            db.put_many(puts)
            db.delete_many(deletes)
    alive = {
        key_of(key): {"value": value} for key, value in (("a", b"2"), ("b", b"3"), ("e", b"4"))
    }
    seen: set[frozenset[str]] = set()
    move = LocalStorage._move

    def look() -> None:
        root = frozenset(each.name for each in path.glob("__*_*_*/"))
        if root not in seen:
            seen.add(root)
            assert sorted(tiledb_live(path, tmp_path)) == sorted(alive.items())

    def moved(storage: LocalStorage, old: str, new: str) -> bool:
        look()
        done = move(storage, old, new)
        look()
        return done

    look()
    monkeypatch.setattr(LocalStorage, "_move", moved)
    with tilekv.open(path, "a") as db:
        db.consolidate()
    look()
    assert len(seen) == 6  # four; with the output; three fewer, one by one; the output alone


def test_commit_within_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TileDB orders by first timestamps too: what was committed inside a consolidated range is newer than it."""
    schema = Schema([Attr("v", "int64")])
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=schema) as db:
        for moment, row in [(1000, {1: 1, 2: 1}), (3000, {1: 3, 3: 3}), (2000, {2: 2, 4: 2})]:
            if moment == 2000:
                db.consolidate()
            with monkeypatch.context() as patch:
                patch.setattr(
                    "tilekv.commit.later_time", lambda storage, known, moment=moment: moment
                )
                db.put_many(row)
                db.flush()
    alive = {
        key_of(key): {"v": value.to_bytes(8, "little")}
        for key, value in {1: 3, 2: 2, 3: 3, 4: 2}.items()
    }
    check(path, alive, tmp_path)


def test_collisions_in_one_fragment(tmp_path: Path) -> None:
    """TileDB tells equal digests apart only within a fragment: after a consolidation it sees both keys."""
    sample = SAMPLES["collisions"]()
    path = tmp_path / "store"
    (flush,) = sample.flushes
    split = Sample(sample.schema, [flush[::2], flush[1::2]])
    alive = written(path, split)
    assert any(
        coords(key_of(a), "md5") == coords(key_of(b), "md5")
        for (a, _), (b, _) in zip(flush[::2], flush[1::2], strict=False)
    )
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
    check(path, alive, tmp_path, 1)


CONSOLIDATE = """
import sys, tiledb
tiledb.consolidate(sys.argv[1])
if sys.argv[2] == "vacuum":
    tiledb.vacuum(sys.argv[1])
"""


@pytest.mark.parametrize("then", ["keep", "vacuum"])
def test_store_that_tiledb_has_consolidated(tmp_path: Path, then: str) -> None:
    """Its new fragments are in a format that tilekv does not read: refused, never shown as empty or as it was."""
    path = tmp_path / "store"
    schema = Schema([Attr("v", "int64")])
    with tilekv.open(path, "x", schema=schema) as db:
        for i in range(3):
            db.put_many(dict(rows_of_ints(schema, i)))
            db.flush()
    kept = tilekv.open(path, "a")
    kept[1] = 5
    command = [sys.executable, "-c", CONSOLIDATE, path, then]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    uses: list[Callable[[], Any]] = [
        lambda: tilekv.open(path),
        lambda: tilekv.open(path, "a"),
        kept.reopen,
        lambda: kept.consolidate(vacuum=True),
    ]
    for use in uses:
        with pytest.raises(tilekv.FormatError, match="TileDB"):
            use()
    kept.close(discard=True)
    shutil.rmtree(path)


def rows_of_ints(schema: Schema, seed: int) -> list[tuple[int, Any]]:
    return [(key, int(row[0])) for key, row in rows_of(schema, range(seed, 20), seed)]

"""Merged cells as the source of a new fragment: the same bytes that a flush of the merged mapping would write."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import tilekv
from sample_stores import SAMPLES, Sample, rows_of
from tilekv import Attr, Schema
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.merge.merge_source import MergedCells


def data_files(path: Path) -> dict[str, bytes]:
    """The data files of a store's one fragment, without the 20 bytes at their end that say which fragment it is. Metadata
    holds times and names."""
    (folder,) = path.glob("__*_*_*/")
    return {
        each.name: each.read_bytes()[:-20]
        for each in folder.iterdir()
        if each.name != "__fragment_metadata.tdb"
    }


def in_pieces(sample: Sample, path: Path, pieces: int) -> None:
    """Flush the sample in pieces, of which each later one overwrites some of those before."""
    rng = random.Random(pieces)
    (flush,) = sample.flushes
    single = len(sample.schema.attrs) == 1
    with tilekv.open(path, "x", schema=sample.schema, config={"kv.sync": False}) as db:
        for piece in range(pieces):
            for number, (key, row) in enumerate(flush):
                if number % pieces == piece:
                    db[key] = row[0] if single else row
                elif number % pieces > piece and rng.random() < 0.3:
                    other = rng.choice(flush)[1]
                    db[key] = other[0] if single else other
            db.flush()
        db.delete_many(["not there", -1, b"gone"])
        db.flush()
        db.consolidate(vacuum=True)


ONE_FLUSH = """scalars, shapes, arrays, empty values, empty tiles, tiles of 1, tiles of 16, tiles of 1024, sizes zstd,
sizes lz4, collisions, mixed filters, filters none, filters bits""".replace("\n", " ").split(", ")


@pytest.mark.parametrize("name", ONE_FLUSH)
def test_merge_writes_what_a_flush_writes(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]()
    sample.write(tmp_path / "flushed")
    in_pieces(sample, tmp_path / "merged", 3)
    assert data_files(tmp_path / "merged") == data_files(tmp_path / "flushed")


@pytest.mark.parametrize("threads", [1, 4])
def test_portions_and_threads_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    attrs = [Attr("b", bytes), Attr("n", "int32"), Attr("v", "float64", var=True)]
    schema = Schema(attrs, capacity=16)
    rows = list(rows_of(schema, range(3000), 1))
    config = {"kv.threads": threads, "kv.sync": False}
    found = []
    for number, cells in enumerate((16, 48, 1 << 18)):
        monkeypatch.setattr("tilekv.consolidation.PORTION_CELLS", cells)
        path = tmp_path / f"store {number}"
        with tilekv.open(path, "x", schema=schema, config=config) as db:
            for start in range(4):
                db.put_many(rows[start::2])
                db.flush()
            db.consolidate(vacuum=True)
            assert len(db.fragments) == 1
        found.append(data_files(path))
    assert found[0] == found[1] == found[2]


@pytest.fixture
def overlapping(tmp_path: Path) -> Any:
    with tilekv.open(tmp_path / "store", "x", schema=Schema([Attr("v", bytes)], capacity=4)) as db:
        for start in range(3):
            db.put_many(dict.fromkeys(range(start, 30, start + 1), b"%d" % start))
            db.delete_many(range(start, 30, 7))
            db.flush()
        yield db


def merged(db: tilekv.Store, tombstones: bool) -> Merge:
    return Merge(db._engine.opener.snapshot(), tombstones=tombstones)


@pytest.mark.parametrize("room", [1, 3, 1000])
def test_windows_hold_every_cell_once(overlapping: tilekv.Store, room: int) -> None:
    model = dict(overlapping.items())
    for tombstones in (False, True):
        merge = merged(overlapping, tombstones)
        sizes = []
        while len(portion := MergedCells(merge, room)):
            sizes.append(len(portion))
        assert set(sizes[:-1]) <= {room}
        assert sum(sizes) == (30 if tombstones else len(model)) > 10
        assert merge.consumed == sum(fragment.cells for fragment in overlapping.fragments)


def test_stopped_merge_is_at_its_end(overlapping: tilekv.Store) -> None:
    merge = merged(overlapping, True)
    assert len(MergedCells(merge, 1)) == 1
    merge.stop()
    assert len(MergedCells(merge, 1)) == 0

"""kvcore.read.batch_lookup: batches of several parts, looked up by one thread or two, wherever their cells are."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import Attr, CorruptionError, KeyNotFoundError, Schema

N = 30_000  # keys of a batch: more than the parts that are under way at once
Row = tuple[int, bytes, str, list[int]]
Filled = tuple[Path, dict[bytes, Row]]


def rows(first: int, n: int, name: str = "n") -> dict[bytes, Row]:
    """Large cells come first, and between small ones: a column that expects more of the same has too little room, or too much."""
    return {
        b"key %d" % i: (
            i,
            bytes([i % 251]) * (50_000 if i in (0, 7000, 15_001) else i % 40),
            name * (i % 9),
            [i, -i],
        )
        for i in range(first, first + n)
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Three fragments: the last of them overwrites and deletes."""
    path = tmp_path_factory.mktemp("batches") / "store"
    schema = Schema(
        [Attr("n", "int64"), Attr("data", bytes), Attr("name", str), Attr("pair", "int32", shape=2)]
    )
    known: dict[bytes, Row] = {}
    with tilekv.open(path, "x", schema=schema, config={"kv.sync": False}) as db:
        for part in (rows(0, 10_000), rows(10_000, N - 10_000), rows(5000, 100, "m")):
            db.put_many(list(part), list(part.values()))
            known.update(part)
            if len(part) == 100:
                gone = list(rows(20_000, 50))
                db.delete_many(gone)
                for key in gone:
                    del known[key]
            db.flush()
    return path, known


def check(db: tilekv.Store, known: dict[bytes, Row], keys: list[bytes]) -> None:
    """All ways to ask for many, against what is known."""
    names = ("n", "data", "name", "pair")
    answers = db.get_many(keys, default=False)
    for key, answer in zip(keys, answers, strict=True):
        if key not in known:
            assert answer is False
            continue
        assert answer["pair"].tolist() == known[key][3]
        assert tuple(answer[name] for name in names[:3]) == known[key][:3]
    batch = db.read(keys, missing="mask")
    assert batch.found.tolist() == [key in known for key in keys]
    empty: Row = (0, b"", "", [0, 0])
    expected = [known.get(key, empty) for key in keys]
    assert batch["n"].tolist() == [row[0] for row in expected]
    assert batch["data"].to_list() == [row[1] for row in expected]
    assert batch["name"].to_list() == [row[2] for row in expected]
    assert batch["pair"].tolist() == [row[3] for row in expected]
    there = [key for key in keys if key in known]
    assert db.read(there, ["name"])["name"].to_list() == [known[key][2] for key in there]
    absent = next(key for key in keys if key not in known)
    with pytest.raises(KeyNotFoundError):
        db.read([*there, absent])


@pytest.mark.parametrize(
    ("threads", "cache", "mmap"),
    [
        (1, 256 << 20, True),
        (4, 256 << 20, True),
        (4, 256 << 20, False),
        (4, 100_000, True),
        (1, 0, True),
    ],
)
def test_batches_of_many_parts(filled: Filled, threads: int, cache: int, mmap: bool) -> None:
    path, known = filled
    keys = [*known, *rows(20_000, 50), *(b"absent %d" % i for i in range(500))]
    random.Random(3).shuffle(keys)
    config = {"kv.threads": threads, "kv.cache_bytes": cache, "kv.mmap": mmap}
    with tilekv.open(path, "r", config=config) as db:
        for _ in range(2):  # what had to be decoded is in memory then
            check(db, known, keys)


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_of_what_is_not_flushed(filled: Filled, tmp_path: Path, threads: int) -> None:
    flushed, known = filled
    path = shutil.copytree(flushed, tmp_path / "store")
    keys = [*known, b"absent"]
    random.Random(4).shuffle(keys)
    changed = dict(known)
    with tilekv.open(path, "a", config={"kv.threads": threads}) as db:
        db.get_many(keys)
        for i, key in enumerate(list(known)[::3]):
            if i % 2:
                changed[key] = (1, b"new" * (i % 5), "", [i, i])
                db[key] = changed[key]
            else:
                del changed[key], db[key]
        check(db, changed, keys)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("method", ["get_many", "read"])
def test_damage_is_raised_and_the_handle_goes_on(tmp_path: Path, threads: int, method: str) -> None:
    path = tmp_path / "store"
    keys = [b"%d" % i for i in range(N)]
    with tilekv.open(path, "x", config={"kv.sync": False}) as db:
        db.put_many(keys, keys)
    file = max(path.rglob("*_var.tdb"), key=lambda each: each.stat().st_size)
    stored = bytearray(file.read_bytes())
    stored[len(stored) // 2] ^= 1
    file.write_bytes(stored)
    with tilekv.open(path, "r", config={"kv.threads": threads}) as db:
        for _ in range(2):
            with pytest.raises(CorruptionError) as caught:
                getattr(db, method)(keys)
            assert file.name in str(caught.value)
        assert sum(db.get(key) == key for key in keys[:10]) >= 9


def test_cells_of_one_size(tmp_path: Path) -> None:
    """Where each cell of a tile is, is computed then; the tiles beside have cells of several sizes, and keys of several types."""
    path = tmp_path / "store"
    known: dict[Any, bytes] = {b"%05d" % i: b"v%06d" % i for i in range(5000)}
    mixed: dict[Any, bytes] = {i: b"x" * (i % 3) for i in range(1500)} | {
        f"t{i}": b"" for i in range(1500)
    }
    with tilekv.open(path, "x", config={"kv.sync": False}) as db:
        db.put_many(known)
        db.flush()
        db.put_many(mixed)
    known |= mixed
    with tilekv.open(path, "r") as db:
        for _ in range(2):
            assert {key: db[key] for key in known} == known
            assert db.get_many(list(known)) == list(known.values())
            (name,) = db.read([])
            assert db.read(list(known))[name].to_list() == list(known.values())
            assert dict(db.items()) == known
            batches = list(db.scan(rows=700))
            scanned = [cell for batch in batches for cell in batch[name].to_list()]
            assert sorted(scanned) == sorted(known.values())
            assert np.unique([len(batch) for batch in batches]).size <= 2
        assert db.verify() == []

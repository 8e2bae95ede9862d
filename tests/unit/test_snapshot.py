"""kvcore.read.snapshot: the right cell, whatever stands beside it."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv.kvcore.values.keys import key_bytes

FIXTURE = Path(__file__).parents[1] / "fixtures/md5_collisions.json"


def collisions() -> list[list[Any]]:
    pairs = []
    for pair in json.loads(FIXTURE.read_text()):
        data = [bytes.fromhex(key) for key in pair["keys"]]
        pairs.append([tilekv.Key(pair["key_type_code"], key) for key in data])
    return pairs


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 1024])
@pytest.mark.parametrize("mmap", [True, False])
def test_equal_digests_across_tile_borders(capacity: int, mmap: bool, tmp_path: Path) -> None:
    """With tiles of one cell, both keys of every pair are in tiles of their own; with more, some pairs are."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest="md5", capacity=capacity)
    pairs = collisions()
    keys = [key for pair in pairs for key in pair]
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many([(f"key_{i}", b"other") for i in range(500)])
        db.put_many([(key, b"%d" % i) for i, key in enumerate(keys)])
    with tilekv.open(tmp_path / "s", "a", config={"kv.mmap": mmap}) as db:
        expected = [b"%d" % i for i in range(len(keys))]
        assert [db[key] for key in keys] == expected
        assert db.get_many(keys) == expected
        assert db.verify() == []
        # One of each pair goes, is hidden by a newer fragment, and its neighbour stays.
        for pair in pairs:
            del db[pair[0]]
        assert [db.get(key) for pair in pairs for key in pair] == [
            None if i % 2 == 0 else value for i, value in enumerate(expected)
        ]
        db.flush()
        assert db.get_many(keys) == [None if i % 2 == 0 else v for i, v in enumerate(expected)]
        assert len(db) == 500 + len(pairs)
        assert sum(1 for _ in db) == len(db)


def test_one_of_a_pair_only() -> None:
    """The other key has the same digest and is not there."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest="md5")
    with tilekv.open("memory://one", "w", schema=schema) as db:
        pairs = collisions()
        db.put_many([(pair[0], b"here") for pair in pairs])
        for _ in range(2):
            assert all(pair[0] in db and pair[1] not in db for pair in pairs)
            db.flush()


@pytest.mark.parametrize("digest", ["blake2b", "md5"])
@pytest.mark.parametrize("flush", [False, True])
def test_keys_that_differ_in_type_only(digest: str, flush: bool) -> None:
    keys: list[Any] = [1, 1.0, "1", b"1", 0.0, -0.0, "", b""]
    numbers = [np.int8(1), np.int16(1), np.int32(1), np.uint8(1)]
    numbers += [np.uint16(1), np.uint32(1), np.uint64(1), np.float32(1)]
    keys += [tilekv.Key(*key_bytes(number, False)) for number in numbers]
    keys += [
        np.array([], np.int32),
        np.array([], np.int64),
        tilekv.Key(11, b"1"),
        tilekv.Key(11, b""),
    ]
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest=digest)
    with tilekv.open("memory://types", "w", schema=schema) as db:
        for i, key in enumerate(keys):
            db[key] = b"%d" % i
        if flush:
            db.flush()
        assert len(db) == len(keys)
        assert db.get_many(keys) == [b"%d" % i for i in range(len(keys))]
        for i, key in enumerate(keys):
            assert db[key] == b"%d" % i
        back = {type(key) for key in db}
        assert {int, float, str, bytes, np.ndarray, tilekv.Key} == back
        for i, key in enumerate(keys):
            del db[key]
            assert key not in db
            assert [k in db for k in keys] == [j > i for j in range(len(keys))]


def test_newest_of_many_fragments() -> None:
    pick, model = random.Random(9), {}
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=8)
    off = {"kv.upkeep": "off"}
    with tilekv.open("memory://newest", "w", schema=schema, config=off) as db:
        for generation in range(30):
            for _ in range(20):
                key = pick.randrange(100)
                db[key] = model[key] = b"%d" % generation
            gone = [pick.randrange(100) for _ in range(5)]
            db.delete_many(gone)
            for key in gone:
                model.pop(key, None)
            db.flush()
        assert db.info().fragments == 30
        assert db.get_many(range(100)) == [model.get(key) for key in range(100)]
        assert [db.get(key) for key in range(100)] == [model.get(key) for key in range(100)]
        assert dict(db) == model
        assert len(db) == len(model)

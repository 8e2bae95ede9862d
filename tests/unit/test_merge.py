"""kvcore.merge: each key once, the newest cell of it, without what is deleted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilekv
from tilekv.kvcore.buffer import SortedBuffer
from tilekv.kvcore.merge import Merge

FIXTURE = Path(__file__).parents[1] / "fixtures/md5_collisions.json"


def merged(db: tilekv.Store, tombstones: bool = False) -> Merge:
    view = db._view
    assert view is not None
    return Merge(view, SortedBuffer(db._buffer), tombstones)


@pytest.fixture
def db() -> Iterator[tilekv.Store]:
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest="md5", capacity=2)
    with tilekv.open("memory://merge", "w", schema=schema) as store:
        yield store


def test_counts(db: tilekv.Store) -> None:
    assert merged(db).count() == 0
    assert not merged(db).any()
    db.put_many([(i, b"a") for i in range(100)])
    db.flush()
    db.put_many([(i, b"b") for i in range(50, 150)])
    db.delete_many(range(20))
    db.flush()
    db.delete_many(range(140, 200))
    assert merged(db).count() == len(db) == 120
    assert merged(db, tombstones=True).count() == 200
    assert merged(db).any()
    db.clear()
    assert merged(db).count() == 0
    assert not merged(db).any()
    assert merged(db, tombstones=True).any()
    assert list(db) == []


def test_collisions_over_fragments(db: tilekv.Store) -> None:
    """Cells of equal digests stand in any number of fragments: the newest of each key, in the order of keys."""
    pairs = [
        [tilekv.Key(pair["key_type_code"], bytes.fromhex(key)) for key in pair["keys"]]
        for pair in json.loads(FIXTURE.read_text())
    ]
    model: dict[tilekv.Key, bytes] = {}
    for generation in range(9):
        for i, pair in enumerate(pairs):
            key = pair[(generation + i) % 2]
            if (generation + i) % 5 == 4:
                db.delete_many([key])
                model.pop(key, None)
            else:
                db[key] = model[key] = b"%d" % generation
        if generation < 8:
            db.flush()
    assert {_as_key(key): value for key, value in db.items()} == model
    assert len(db) == len(model)
    both = [pair for pair in pairs if all(key in model for key in pair)]
    listed = [_as_key(key) for key in db]
    for pair in both:
        first, second = sorted(pair, key=lambda key: key.data)
        assert listed.index(second) == listed.index(first) + 1


def _as_key(key: object) -> tilekv.Key:
    if isinstance(key, str):
        return tilekv.Key(4, key.encode("utf-8", "surrogateescape"))
    if isinstance(key, bytes):
        return tilekv.Key(40, key)
    assert isinstance(key, tilekv.Key)
    return key

"""kvcore.read.digest_index: what the index of a snapshot says is what searching its fragments says."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates

FIXTURE = Path(__file__).parents[1] / "fixtures/md5_collisions.json"
N = 4000
BLOB = 40
CELLS = 400
BUCKETS = CELLS // 4 + 1  # of an index of so many
Make = Callable[..., tilekv.Store]


def tabled(db: tilekv.Store) -> bool:
    snapshot = db._snapshot
    assert snapshot is not None
    return snapshot.indexed


def colliding() -> list[Any]:
    return [
        tilekv.Key(pair["key_type_code"], bytes.fromhex(key))
        for pair in json.loads(FIXTURE.read_text())
        for key in pair["keys"]
    ]


def build(path: Path, digest: str, fragments: int) -> dict[Any, bytes]:
    """Keys set over and over and deleted, of several types, some of one digest, in fragments."""
    pick = random.Random(fragments)
    keys = [
        *range(N),
        *(f"key_{i}" for i in range(N)),
        *(b"%d" % i for i in range(N)),
        *colliding(),
    ]
    model: dict[Any, bytes] = {}
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest=digest, capacity=100)
    with tilekv.open(path, "x", schema=schema, config={"kv.sync": False}) as db:
        for _ in range(fragments):
            put = {
                key: pick.randbytes(pick.choice([0, 5, 60]))
                for key in pick.sample(keys, len(keys) // 3)
            }
            gone = pick.sample(keys, 500)
            db.put_many(put)
            db.delete_many(gone)
            db.flush()
            model.update(put)
            for key in gone:
                model.pop(key, None)
    return model


@pytest.mark.parametrize("digest", ["blake2b", "md5"])
@pytest.mark.parametrize("fragments", [1, 7])
@pytest.mark.parametrize("mmap", [True, False])
def test_same_answers(tmp_path: Path, digest: str, fragments: int, mmap: bool) -> None:
    model = build(tmp_path / "s", digest, fragments)
    probes = [
        *range(N + 500),
        *(f"key_{i}" for i in range(N + 500)),
        *(b"%d" % i for i in range(N)),
        *colliding(),
    ]
    random.Random(1).shuffle(probes)
    expected = [model.get(key) for key in probes]
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": 1 << 10, "kv.mmap": mmap}) as db:
        assert [db.get(key) for key in probes] == expected
        assert db.get_many(probes) == expected
        assert not tabled(db), "there is no room for one in this cache"
    ways: list[Callable[[tilekv.Store], list[Any]]] = [
        lambda db: [db.get(key) for key in probes],
        lambda db: db.get_many(probes),
        lambda db: [key in db for key in probes],
    ]
    for cache in (1 << 20, 64 << 20):
        for way in ways:
            with tilekv.open(
                tmp_path / "s", config={"kv.cache_bytes": cache, "kv.mmap": mmap}
            ) as db:
                found = way(db)
                assert tabled(db)
                assert found in (expected, [value is not None for value in expected])
                assert way(db) == found


def crowded(first: int, buckets: int, most: int) -> list[bytes]:
    """Keys whose digests are of a few buckets, `most` of each of them."""
    names = [b"key %d" % i for i in range(20_000)]
    places = coordinates(DIGESTS["blake2b"], [(BLOB, name) for name in names])
    kept: list[bytes] = []
    for bucket in range(first, first + buckets):
        found = [
            name
            for name, (c0, _) in zip(names, places, strict=True)
            if c0 * BUCKETS >> 64 == bucket
        ]
        kept += found[:most]
    assert len(kept) == buckets * most
    return kept


@pytest.mark.parametrize(
    ("first", "buckets", "most"),
    [(5, 1, 8), (5, 1, 9), (5, 1, 16), (5, 1, 17), (5, 3, 12), (BUCKETS - 1, 1, 12), (0, 2, 20)],
)
@pytest.mark.parametrize("fragments", [1, 3])
def test_buckets_that_are_too_small(
    store: Make, first: int, buckets: int, most: int, fragments: int
) -> None:
    """Their cells are in the next one, behind the last in the first, or in none: every key is found, and no other."""
    close = crowded(first, buckets, most)
    others = [b"other %d" % i for i in range(CELLS - fragments * len(close))]
    db = store(config={"kv.cache_bytes": "64 MiB", "kv.upkeep": "off"})
    for number in range(fragments):
        db.put_many({key: b"%d %s" % (number, key) for key in close})
        if number == 0:
            db.put_many(dict.fromkeys(others, b""))
        db.flush()
    known = {key: b"%d %s" % (fragments - 1, key) for key in close} | dict.fromkeys(others, b"")
    asked = [*close, *others, *(b"key %d" % i for i in range(3000))]
    expected = [known.get(key) for key in asked]
    db.get_many(asked)
    assert tabled(db)
    assert db.get_many(asked) == expected
    assert [db.get(key) for key in asked] == expected
    found = db.read(asked, missing="mask").found
    assert found is not None
    assert found.tolist() == [value is not None for value in expected]


def test_made_when_it_pays(tmp_path: Path) -> None:
    model = build(tmp_path / "s", "blake2b", 1)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": "8 MiB"}) as db:
        keys = list(model)
        for key in keys[: len(keys) // 20]:
            assert db[key] == model[key]
        assert not tabled(db)
        for key in keys[len(keys) // 20 : len(keys) // 8]:
            assert db[key] == model[key]
        assert tabled(db)
        used = db._engine.opener.cache.used
        assert used >= 16 * len(model)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": "8 MiB"}) as db:
        db.get_many(keys[: len(keys) // 10])
        assert tabled(db)


def test_fragments_with_filters_count_as_two(tmp_path: Path) -> None:
    model = build(tmp_path / "s", "blake2b", 7)
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": "8 MiB"}) as db:
        cells = sum(fragment.cells for fragment in db.fragments)
        keys = list(model)[: cells // 16]
        for key in keys[: cells // 40]:
            assert db[key] == model[key]
        assert not tabled(db), "each is searched in one of them, and seven filters are asked"
        for key in keys[cells // 40 : cells // 30]:
            assert db[key] == model[key]
        assert tabled(db)


def test_of_many_cells_a_part_is_made_at_a_time(store: Make) -> None:
    db = store(config={"kv.upkeep": "off", "kv.sync": False})
    model: dict[int, bytes] = {}
    for number, every in enumerate((1, 2, 3)):
        put = dict.fromkeys(range(0, 60_000, every), b"%d" % number)
        db.put_many(put)
        model.update(put)
        db.delete_many(range(number, 60_000, 1000))
        for key in range(number, 60_000, 1000):
            model.pop(key, None)
        db.flush()
    asked = range(0, 61_000, 3)
    assert db.get_many(asked) == [model.get(key) for key in asked]
    assert tabled(db)
    assert db.get_many(range(61_000)) == [model.get(key) for key in range(61_000)]


def test_another_thread_may_make_it(tmp_path: Path) -> None:
    model = build(tmp_path / "s", "blake2b", 2)
    asked = []
    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": "8 MiB"}) as db:
        db._engine.opener.index_behind = asked.append
        db.reopen()
        snapshot = db._open_snapshot()
        snapshot.behind = asked.append
        for _ in range(2):
            assert db.get_many(list(model)) == list(model.values())
        assert (asked, tabled(db)) == ([snapshot], False), "it is told once"
        snapshot.make_index()
        assert tabled(db)
        assert db.get_many(list(model)) == list(model.values())
        assert db._engine.opener.assemble(snapshot.fragments).behind is not None


def test_a_new_snapshot_begins_again(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many(dict.fromkeys(range(1000), b"old"))
        db.flush()
        assert db.get_many(range(1000)) == [b"old"] * 1000
        assert tabled(db)
        db.put_many(dict.fromkeys(range(500), b"new"))
        assert db.get_many(range(1000)) == [b"new"] * 500 + [b"old"] * 500
        db.flush()
        assert not tabled(db)
        assert db.get_many(range(1000)) == [b"new"] * 500 + [b"old"] * 500
        assert tabled(db)


def test_damaged_coordinates(tmp_path: Path) -> None:
    """No table is made of them, and the search that meets them says so."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many(dict.fromkeys(range(5000), b""))
    (file,) = (tmp_path / "s").glob("__*/__coords.tdb")
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with tilekv.open(tmp_path / "s") as db:
        answers = []
        for i in range(5000):
            with suppress(tilekv.CorruptionError):
                answers.append(db[i])
        assert not tabled(db)
        assert set(answers) == {b""}
        assert 2000 < len(answers) < 5000
        with pytest.raises(tilekv.CorruptionError, match="__coords"):
            db.get_many(range(5000))

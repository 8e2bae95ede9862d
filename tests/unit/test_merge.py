"""kvcore.merge.merge: each key once, the newest cell of it, without what is deleted."""

import hashlib
import itertools
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tilekv
from tilekv.commit import write_fragment
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.merge.merge_source import MergedCells
from tilekv.kvcore.values.keys import key_bytes
from tilekv.kvcore.write.memtable import Buffer
from tilekv.kvcore.write.sorted_buffer import SortedBuffer, sort_buffer
from tilekv.workers import Workers

FIXTURE = Path(__file__).parents[1] / "fixtures/md5_collisions.json"


def merged(db: tilekv.Store, tombstones: bool = False) -> Merge:
    snapshot = db._snapshot
    assert snapshot is not None
    return Merge(snapshot, (sort_buffer(db._buffer),), tombstones)


@pytest.fixture
def db(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest="md5", capacity=2)
    return store(schema=schema)


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


def place(key: int) -> tuple[int, ...]:
    """The coordinates of an int key."""
    data = struct.pack("<BQq", 1, 8, key)
    return struct.unpack("<QQ", hashlib.blake2b(data, digest_size=16).digest())


N = 12_000  # some rounds of 4,096 cells


def dealt(keys: list[int], parts: int) -> list[list[int]]:
    return [keys[part::parts] for part in range(parts)]


def in_blocks(keys: list[int], parts: int) -> list[list[int]]:
    """No two fragments overlap."""
    keys = sorted(keys, key=place)
    return [
        keys[part * len(keys) // parts : (part + 1) * len(keys) // parts] for part in range(parts)
    ]


def one_large(keys: list[int], parts: int) -> list[list[int]]:
    return [keys, *([key] for key in keys[: parts - 1])]


def overwritten(keys: list[int], parts: int) -> list[list[int]]:
    pick = random.Random(parts)
    return [keys, *(pick.sample(keys, len(keys) // 3) for _ in range(parts - 1))]


def growing(keys: list[int], parts: int) -> list[list[int]]:
    return [keys[: len(keys) >> part] for part in range(parts)]


@pytest.mark.parametrize("deal", [dealt, in_blocks, one_large, overwritten, growing])
@pytest.mark.parametrize(("parts", "capacity"), [(1, 1024), (2, 7), (3, 1024), (9, 100), (40, 16)])
@pytest.mark.parametrize("deletes", [False, True])
def test_rounds(deal: object, parts: int, capacity: int, deletes: bool) -> None:
    """However cells are spread over fragments and tiles, a merge is the newest of each in the order of digests."""
    assert callable(deal)
    schema = tilekv.Schema([tilekv.Attr("value", "int64")], capacity=capacity)
    model: dict[int, int] = {}
    with tilekv.open("memory://rounds", "w", schema=schema, config={"kv.threads": 1}) as db:
        for part, keys in enumerate(deal(list(range(N // (1 if parts < 9 else 4))), parts)):
            rows = {key: key + part for key in keys}
            gone = keys[::5] if deletes and part % 2 else []
            db.put_many(list(rows), list(rows.values()))
            db.delete_many(gone)
            model |= rows
            for key in gone:
                del model[key]
            if part % 9 != 8:
                db.flush()
        expected = sorted(model.items(), key=lambda item: place(item[0]))
        assert list(db.items()) == expected
        assert list(db.keys()) == [key for key, _ in expected]
        assert list(db.values()) == [value for _, value in expected]
        assert len(db) == len(expected)
        batches = list(db.scan(rows=1000))
        assert {len(batch) for batch in batches[:-1]} <= {1000}
        assert [key for batch in batches for key in batch.keys] == list(db)
        db.consolidate()
        assert list(db.items()) == expected


KEYS = 600


def change(db: tilekv.Store, model: dict[int, bytes], pick: random.Random, label: str) -> None:
    """Write to a third of the keys and delete a sixth, some of them twice."""
    written = pick.choices(range(KEYS), k=KEYS // 3)
    rows = [(key, b"%d %s %d" % (key, label.encode(), i)) for i, key in enumerate(written)]
    gone = pick.sample(range(KEYS), KEYS // 6)
    db.put_many(rows)
    db.delete_many(gone)
    model |= dict(rows)
    for key in gone:
        model.pop(key, None)


def rewritten(merge: Merge, like: tilekv.Store, room: int) -> dict[int, bytes]:
    """What a store holds that is made of the cells of a merge, so many at a time."""

    def portions() -> Iterator[MergedCells]:
        while len(portion := MergedCells(merge, room)):
            yield portion

    with tilekv.open("memory://rewritten", "w", schema=like.schema) as target:
        engine = target._engine
        write_fragment(engine.storage, engine.layout, engine.opener.codecs, portions(), Workers(1))
        target.reopen()
        assert target.verify() == []
        return dict(target.items())


@pytest.mark.parametrize("digest", ["blake2b", "colliding"])
@pytest.mark.parametrize("fragments", [0, 1, 3])
@pytest.mark.parametrize("buffers", [0, 1, 2, 3])
def test_buffers_over_fragments(
    monkeypatch: pytest.MonkeyPatch, digest: str, fragments: int, buffers: int
) -> None:
    """Of every key the newest layer's cell: the first buffer is newer than the others, and each newer than all fragments."""
    from tilekv.kvcore.hashing.digest import DIGESTS
    from tilekv.kvcore.testing import COLLIDING

    monkeypatch.setattr("tilekv.schema.DIGESTS", ("blake2b", "md5", "colliding"))
    monkeypatch.setitem(DIGESTS, "colliding", COLLIDING)
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest=digest, capacity=16)
    pick = random.Random(10 * fragments + buffers)
    model: dict[int, bytes] = {}
    with tilekv.open("memory://layers", "w", schema=schema) as db:
        for i in range(fragments):
            change(db, model, pick, f"fragment {i}")
            db.flush()
        snapshot = db._snapshot
        assert snapshot is not None
        layers: list[SortedBuffer] = []
        for i in range(buffers):
            change(db, model, pick, f"buffer {i}")
            if i == 1:
                layers.insert(0, sort_buffer(Buffer(db._layout)))  # one without a cell
            layers.insert(0, sort_buffer(db._buffer))
            if db._freeze():
                db._install(snapshot, True)
        newest = tuple(layers)
        assert Merge(snapshot, newest).count() == len(model)
        assert Merge(snapshot, newest).any() == bool(model)
        if fragments + buffers == 0:
            return
        total = Merge(snapshot, newest, tombstones=True).count()
        assert total > len(model)
        assert rewritten(Merge(snapshot, newest), db, 48) == model
        if buffers:
            with pytest.raises(ValueError, match="deletes of a buffer"):
                MergedCells(Merge(snapshot, newest, tombstones=True), 1)
        merge = Merge(snapshot, newest)
        live = merge.live()
        assert len(live) == fragments
        assert (sum(live) == len(model)) == (buffers == 0)
        assert merge.consumed == sum(fragment.cells for fragment in snapshot.fragments)


WORDS = {
    "descending": lambda word, i: 2**63 - i,
    "equal": lambda word, i: 7,
    "beyond": lambda word, i: 2**64 - 1,
    "mixed": lambda word, i: word if i % 3 else 2**64 - 1 - word,
}


def rewrite(
    file: Path, dimensions: tuple[int, ...], word_of: Callable[[int, int, int], int]
) -> None:
    """Give a coordinates file other words, word_of(word, i, n) for cell i of a tile of n, and checksums that hold."""
    stored = bytearray(file.read_bytes())
    at = 0
    while at < len(stored) - 20:
        n = struct.unpack_from("<I", stored, at + 8)[0] // 8
        for dimension in dimensions:
            chunk = at + 8 + dimension * (16 + 8 * n)
            words = struct.unpack_from(f"<{n}Q", stored, chunk + 16)
            words = [word_of(word, i, n) for i, word in enumerate(words)]
            struct.pack_into(f"<{n}Q", stored, chunk + 16, *words)
            sealed = stored[chunk : chunk + 12] + stored[chunk + 16 : chunk + 16 + 8 * n]
            struct.pack_into("<I", stored, chunk + 12, crc32c(bytes(sealed)))
        at += 40 + 16 * n
    file.write_bytes(stored)


def test_coordinates_beyond_the_last(tmp_path: Path) -> None:
    """Lists are merged up to a word that no coordinate reaches: one that does is a cell all the same."""
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        for part in range(6):
            db.put_many([(i, b"%d" % i) for i in range(part, 600, 6)])
            db.flush()
        expected = dict(db.items())
    for file in tmp_path.glob("s/__*_*_*/__coords.tdb"):
        rewrite(file, (0,), lambda word, i, n: word if i < n - 3 else 2**64 - 1)
    with tilekv.open(tmp_path / "s") as lying:
        assert sorted(lying.items()) == sorted(expected.items())
        assert len(lying) == 600


@pytest.mark.parametrize("which", WORDS)
@pytest.mark.parametrize("dimensions", [(0,), (1,), (0, 1)])
def test_coordinates_that_lie_end(tmp_path: Path, which: str, dimensions: tuple[int, ...]) -> None:
    """Right checksums over coordinates in no order: nobody can say what a merge should give, but it ends, with cells of the
    store. Lists are merged without looking where they end."""
    capacity, parts = 64, 6
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=capacity)
    with tilekv.open(tmp_path / "s", "x", schema=schema, config={"kv.sync": False}) as db:
        for part in range(parts):
            db.put_many([(i, b"%d" % i) for i in range(part, 5 * capacity, 2)])
            db.delete_many(range(part, 5 * capacity, 50))
            db.flush()
    for file in sorted(tmp_path.glob("s/__*_*_*/__coords.tdb"))[::2]:
        rewrite(file, dimensions, lambda word, i, n: WORDS[which](word, i))
    with tilekv.open(tmp_path / "s") as lying:
        cells = sum(fragment.cells for fragment in lying.fragments)
        for pairs in (
            list(lying.items()),
            [(k, b["value"][i]) for b in lying.scan() for i, k in enumerate(b.keys)],
        ):
            assert 0 < len(pairs) <= cells
            assert all(value == b"%d" % key for key, value in pairs)
        assert len(lying) <= cells


@pytest.mark.parametrize("capacity", [1, 3, 64])
def test_ranges_part_the_cells(capacity: int, store: Callable[..., tilekv.Store]) -> None:
    """Every cell is in one of any ranges that join: of several fragments and a buffer, with equal coordinates at a border too."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest="md5", capacity=capacity)
    db = store(schema=schema)
    colliding = [
        tilekv.Key(pair["key_type_code"], bytes.fromhex(key))
        for pair in json.loads(FIXTURE.read_text())
        for key in pair["keys"]
    ]
    for step in range(4):
        db.put_many([(i, b"%d" % step) for i in range(step, 300, 3)])
        db.put_many([(key, b"%d" % step) for key in colliding[step:]])
        db.delete_many(range(0, 50, 7))
        if step < 3:
            db.flush()
    places = sorted(
        int.from_bytes(digest[:8], "little") << 64 | int.from_bytes(digest[8:], "little")
        for digest in map(digest_of, db)
    )
    whole = [(key, value) for key, value in db.items()]
    pick = random.Random(1)
    for _ in range(60):
        cuts = [pick.choice([*places, pick.randrange(1 << 128)]) for _ in range(4)]
        cuts += [cut + 1 for cut in cuts[:2]]
        edges = [0, *sorted(cuts), None]
        found = []
        for low, high in itertools.pairwise(edges):
            part = [
                (key, value)
                for batch in db.scan(rows=5, low=low, high=high)
                for key, value in zip(batch.keys, batch["value"].to_list(), strict=True)
            ]
            last = 1 << 128 if high is None else high
            assert low is not None
            assert len(part) == sum(low <= place < last for place in places)
            found += part
        assert found == whole
    snapshot = db._snapshot
    assert snapshot is not None
    newest = (sort_buffer(db._buffer),)
    assert Merge(snapshot, newest, low=1 << 128).count() == 0
    assert Merge(snapshot, newest, low=5, high=5).count() == 0
    assert Merge(snapshot, newest, high=0).count() == 0


def digest_of(key: object) -> bytes:
    """The digest of a key, as docs/format.md 1 has it."""
    code, data = key_bytes(key)
    return hashlib.md5(struct.pack("<BQ", code, len(data)) + data).digest()


def test_ranges_by_digests() -> None:
    with tilekv.open("memory://ranges", "w") as db:
        db.put_many([(i, b"") for i in range(100)])
        db.flush()
        keys = list(db)
        code, data = key_bytes(keys[40])
        digest = hashlib.blake2b(
            struct.pack("<BQ", code, len(data)) + data, digest_size=16
        ).digest()
        assert [key for batch in db.scan(low=digest) for key in batch.keys] == keys[40:]
        assert [key for batch in db.scan(high=digest) for key in batch.keys] == keys[:40]
        parts = [
            key
            for i in range(7)
            for batch in db.scan([], low=i * 2**128 // 7, high=(i + 1) * 2**128 // 7)
            for key in batch.keys
        ]
        assert parts == keys
        for wrong in (b"short", -1, 2**128 + 1):
            with pytest.raises(tilekv.InvalidValueError, match="is a digest"):
                db.scan(low=wrong)
        with pytest.raises(tilekv.WrongTypeError, match="high is an int"):
            db.scan(high="x")  # type: ignore[arg-type]

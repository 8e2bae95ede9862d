"""Every way to read one store gives the same, and so does every way to store it."""

import itertools
import random
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilekv
from witness import account

N = 3000
Rows = dict[Any, tuple[int, str, bytes]]
ATTRS = [("n", "int64"), ("text", str), ("blob", bytes)]


def rows(seed: int) -> Rows:
    pick = random.Random(seed)
    found: Rows = {}
    for i in range(N):
        size = pick.choice([0, 3, 40, 700]) if i % 500 else 80_000
        found[pick.choice([i, f"key_{i}", b"%d" % i])] = (
            i,
            f"text {i % 7}" * (i % 5),
            pick.randbytes(size),
        )
    return found


def shown(db: tilekv.Store, probes: list[Any]) -> dict[str, Rows]:
    """The rows of the probes that are there, by every way to read."""

    def row(value: Any) -> tuple[int, str, bytes]:
        return value["n"], value["text"], value["blob"]

    masked = db.read(probes, missing="mask")
    assert masked.found is not None
    there = [probe for probe, found in zip(probes, masked.found.tolist(), strict=True) if found]
    whole = db.read(there)
    ways: dict[str, Rows] = {
        "getitem": {key: row(db[key]) for key in probes if key in db},
        "get": {key: row(value) for key in probes if (value := db.get(key)) is not None},
        "get_many": {
            key: row(value) for key, value in zip(probes, db.get_many(probes), strict=True) if value is not None
        },
        "read": {key: (int(whole["n"][i]), whole["text"][i], whole["blob"][i]) for i, key in enumerate(there)},
        "items": {key: row(value) for key, value in db.items()},
        "keys, values": dict(zip(db.keys(), map(row, db.values()), strict=True)),
        "scan": {
            key: (int(batch["n"][i]), batch["text"][i], batch["blob"][i])
            for batch in db.scan(rows=700)
            for i, key in enumerate(batch.keys)
        },
    }  # fmt: skip
    assert len(db) == len(ways["items"]) == sum(1 for _ in db)
    assert bool(db) == bool(ways["items"])
    return ways


CONFIGS = [
    {"kv.mmap": mmap, "kv.cache_bytes": cache}
    for mmap, cache in itertools.product([True, False], [0, 1000, 256 << 20])
]


@pytest.mark.parametrize(
    "offsets", [None, tilekv.FilterList(tilekv.ZstdFilter()), tilekv.FilterList()]
)
@pytest.mark.parametrize("capacity", [7, 1024])
def test_ways_to_read(tmp_path: Path, offsets: tilekv.FilterList | None, capacity: int) -> None:
    options = {} if offsets is None else {"offsets_filters": offsets}
    schema = tilekv.Schema([tilekv.Attr(*attr) for attr in ATTRS], capacity=capacity, **options)
    expected = rows(capacity)
    keys = list(expected)
    probes = [*keys, *range(N, N + 50), *(f"none_{i}" for i in range(50))]
    random.Random(1).shuffle(probes)
    with tilekv.open(tmp_path / "s", "x", schema=schema, config={"kv.sync": False}) as db:
        db.put_many(expected)
        for way, found in shown(db, probes).items():
            assert found == expected, account(db, f"buffered: {way}", found, expected)
    for config in CONFIGS:
        with tilekv.open(tmp_path / "s", config=config) as db:
            assert db.verify() == []
            for way, found in shown(db, probes).items():
                assert found == expected, account(db, f"one fragment: {way}", found, expected)
    with tilekv.open(tmp_path / "s", "a", config={"kv.sync": False}) as db:
        for part in range(3):
            db.delete_many(keys[part::9])
            db.put_many(dict.fromkeys(keys[part::11], (part, "new", b"")))
            db.flush()
            for key in keys[part::9]:
                expected.pop(key, None)
            expected |= dict.fromkeys(keys[part::11], (part, "new", b""))
    for config in CONFIGS:
        with tilekv.open(tmp_path / "s", config=config) as db:
            for way, found in shown(db, probes).items():
                assert found == expected, account(db, f"four fragments: {way}", found, expected)


def test_what_a_failure_tells(tmp_path: Path) -> None:
    """Were a value wrong, perhaps never again: which, where the two part, and how the store and the process stand."""
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.put_many({1: b"1", "a": b"x" * 1000})
        db.flush()
        told = account(db, "items", dict(db), {"a": b"x" * 999, 2: b""})
        assert "items: 3 of 2 keys are wrong, 1 missing, 1 more" in told
        assert "they part  (1000, 999, 999, b'x', b'')" in told
        assert db.fragments[0].name in told
        assert "load: (" in told


@settings(max_examples=40, deadline=None)
@given(
    deltas=st.lists(
        st.dictionaries(st.integers(0, 30), st.none() | st.binary(max_size=5), min_size=1),
        min_size=1,
        max_size=6,
    ),
    buffered=st.booleans(),
    capacity=st.sampled_from([1, 3, 100]),
)
def test_len_counts(deltas: list[dict[int, bytes | None]], buffered: bool, capacity: int) -> None:
    """Of one fragment it is known; of several, and with a buffer, the cells are merged."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=capacity)
    state: dict[int, bytes | None] = {}
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x", schema=schema) as db:
        for i, delta in enumerate(deltas):
            db.put_many({key: value for key, value in delta.items() if value is not None})
            db.delete_many([key for key, value in delta.items() if value is None])
            if not buffered or i + 1 < len(deltas):
                db.flush()
            state |= delta
            left = {key: value for key, value in state.items() if value is not None}
            assert len(db) == len(left)
            assert dict(db) == left
            assert bool(db) == bool(left)


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.binary(max_size=300), min_size=1, max_size=40),
    filters=st.lists(
        st.sampled_from(
            [tilekv.ZstdFilter(1), tilekv.ZstdFilter(9), tilekv.LZ4Filter(), tilekv.NoOpFilter()]
        ),
        max_size=2,
    ),
    keys=st.sampled_from([[], [tilekv.LZ4Filter()], [tilekv.ZstdFilter()]]),
    memory=st.booleans(),
)
def test_filters_change_nothing_that_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[bytes],
    filters: list[Any],
    keys: list[Any],
    memory: bool,
) -> None:
    attr = tilekv.Attr("value", bytes, filters=tilekv.FilterList(filters))
    schema = tilekv.Schema([attr], capacity=5, key_filters=tilekv.FilterList(keys))
    uri = (
        f"memory://{uuid.uuid4().hex}" if memory else str(tmp_path_factory.mktemp("filters") / "s")
    )
    with tilekv.open(uri, "x", schema=schema, config={"kv.sync": False}) as db:
        db.put_many(range(len(values)), values)
    with tilekv.open(uri) as db:
        assert db.schema == schema
        assert db.get_many(range(len(values))) == values
        assert [db[i] for i in range(len(values))] == values
        assert dict(db) == dict(enumerate(values))
        assert db.verify() == []


KEYS = st.one_of(
    st.text(max_size=30),
    st.characters(
        codec=None, min_codepoint=0xDC80, max_codepoint=0xDCFF
    ),  # a byte that is not UTF-8
    st.binary(max_size=30),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=3).map(bytearray).map(memoryview),
)


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(KEYS, max_size=60),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["bytes", "bytes of any kind", "text"]),
)
def test_ways_to_write(keys: list[Any], seed: int, kind: str) -> None:
    """Plain objects in lists are read ahead, all else one by one: the same cells, the last of equal keys."""
    pick = random.Random(seed)
    values: list[Any] = [pick.randbytes(pick.choice([0, 3, 200, 3000])) for _ in keys]
    if kind == "text":
        values = [value.decode("latin-1") for value in values]
    elif kind != "bytes":
        values = [bytearray(value) if pick.random() < 0.2 else value for value in values]
    schema = tilekv.Schema([tilekv.Attr("value", str if kind == "text" else bytes)])

    def written(*arguments: Any, **columns: Any) -> dict[Any, Any]:
        with tilekv.open(f"memory://{uuid.uuid4().hex}", "x", schema=schema) as db:
            db.put_many(*arguments, **columns)
            buffered = list(db.items())
            db.flush()
            assert list(db.items()) == buffered
            return dict(buffered)

    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x", schema=schema) as db:
        for key, value in zip(keys, values, strict=True):
            db[key] = value
        expected = dict(db)
    assert written(keys, values) == expected
    assert written(tuple(keys), tuple(values)) == expected
    assert written(iter(keys), values) == expected
    assert written(zip(keys, values, strict=True)) == expected
    assert written(keys, value=values) == expected


def test_a_wrong_row_among_many_is_refused_with_all_of_them() -> None:
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x") as db:
        keys: list[Any] = [b"%d" % i for i in range(100)]
        values: list[Any] = [b"value"] * 100
        for at in (0, 50, 99):
            for wrong_key, wrong_value in [(keys[at], "text"), ((1, 2), b"value")]:
                some_keys = [*keys[:at], wrong_key, *keys[at + 1 :]]
                some_values = [*values[:at], wrong_value, *values[at + 1 :]]
                with pytest.raises(tilekv.WrongTypeError):
                    db.put_many(some_keys, some_values)
                assert db.info().buffered == 0


@pytest.mark.parametrize("cache", [0, 20_000, 256 << 20])
@pytest.mark.parametrize("parts", [1, 4])
def test_columns_of_keys_in_any_order(tmp_path: Path, parts: int, cache: int) -> None:
    """Cells are read in the order in which they stand: repeated, missing, deleted and buffered keys all come out where they
    were asked for."""
    schema = tilekv.Schema([tilekv.Attr(*attr) for attr in ATTRS], capacity=64)
    expected = {key: row for key, row in rows(parts).items() if len(row[2]) < 1000}
    keys = list(expected)
    config = {"kv.sync": False, "kv.cache_bytes": cache}
    pick = random.Random(parts)
    with tilekv.open(tmp_path / "s", "x", schema=schema, config=config) as db:
        for part in range(parts):
            db.put_many({key: expected[key] for key in keys[part::parts]})
            db.delete_many(keys[:50])
            db.flush()
        db.put_many({key: expected[key] for key in keys[100:200]})
        db.delete_many(keys[50:100])
        asked = pick.choices([*keys, *range(N, N + 50)], k=5000)
        there = [key in expected and keys.index(key) >= 100 for key in asked]
        batch = db.read(asked, missing="mask")
        assert batch.found is not None
        assert batch.found.tolist() == there
        assert batch.keys == asked
        blank = 0, "", b""
        found = list(
            zip(batch["n"].tolist(), batch["text"].to_list(), batch["blob"].to_list(), strict=True)
        )
        assert found == [
            expected[key] if present else blank for key, present in zip(asked, there, strict=True)
        ]
        listed = db.get_many(asked)
        assert [row and tuple(row.values()) for row in listed] == [
            expected[key] if present else None for key, present in zip(asked, there, strict=True)
        ]


def test_scans_and_iterators_leave_the_cache_as_it_is(tmp_path: Path) -> None:
    """What the look-ups of a program keep warm is not driven out, and what they have decoded is used."""
    expected = {key: row[2] for key, row in rows(0).items()}
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.put_many(expected)
        db.flush()
        cache = db._engine.opener.cache
        for warm in (0, 5):
            db.get_many(list(expected)[:warm])
            used = cache.used
            assert bool(used) == bool(warm)
            assert dict(db.items()) == expected
            assert list(db.values()) == [expected[key] for key in db]
            assert sum(len(batch["value"].data) for batch in db.scan()) == sum(
                map(len, expected.values())
            )
            assert cache.used == used


def test_batches_are_bounded_in_bytes() -> None:
    """64 MiB of a column, however many rows are asked for."""
    size = 3 << 20
    with tilekv.open("memory://bounded", "w", config={"kv.cache_bytes": 0}) as db:
        db.put_many(range(50), [bytes([i]) * (size + i) for i in range(50)])
        db.flush()
        counts = []
        for batch in db.scan():
            counts.append(len(batch))
            assert len(batch["value"].data) <= 64 << 20
            for i, key in enumerate(batch.keys):
                first, last = batch["value"].offsets[i : i + 2].tolist()
                assert last - first == size + key
                assert set(batch["value"].data[first:last:4096].tolist()) == {key}
        assert counts == [21, 21, 8]
        for key, value in db.items():
            assert value == bytes([key]) * (size + key)

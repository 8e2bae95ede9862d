"""zict's own tests of mappings, which its package brings along (README.md), over `Store`, and zict's layers on top of one."""

import gc
import os
import random
import string
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from zict import LRU, Buffer, Cache, Func
from zict.tests import test_func, test_lmdb, test_zip, utils_test

import tilekv

Open = Callable[[Any], tilekv.Store]


@pytest.fixture
def opened() -> Iterator[Open]:
    """As zict's classes are called: with a folder. Their tests leave it to the garbage collector to close them."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    stores: list[tilekv.Store] = []

    def make(uri: Any) -> tilekv.Store:
        stores.append(tilekv.open(uri, "a"))
        return stores[-1]

    yield make
    for db in stores:
        db.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def db(opened: Open) -> tilekv.Store:
    return opened(f"memory://{uuid.uuid4()}")


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("LMDB", test_lmdb.test_mapping),
        ("LMDB", test_lmdb.test_bad_types),
        ("LMDB", test_lmdb.test_reuse),
        ("LMDB", test_lmdb.test_file_descriptors_dont_leak),
        ("Zip", test_zip.test_setitem_typeerror),
        ("Zip", test_zip.test_missing_key),
        ("Zip", test_zip.test_bytearray),
        ("Zip", test_zip.test_memoryview),
        ("Zip", test_zip.test_mapping),
        ("Zip", test_zip.test_bad_types),
    ],
)
def test_in_place_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Open, name: str, test: Any
) -> None:
    """zict's test, in which `name` opens a Store."""
    monkeypatch.setitem(test.__globals__, name, opened)
    test(*[tmp_path / "store", None][: test.__code__.co_argcount])


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns often: more may happen, and sooner."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("flushed", [False, True])
def test_threads(db: tilekv.Store, flushed: bool) -> None:
    """What its test_file asks of threads."""
    if flushed:
        db.update(x=b"456", y=b"123")
        db.flush()
        db.clear()
    utils_test.check_different_keys_threadsafe(db)
    utils_test.check_same_key_threadsafe(db)
    db.flush()
    utils_test.check_mapping(db)


@pytest.mark.parametrize("kind", [str, Path])
def test_folders(tmp_path: Path, opened: Open, kind: Any) -> None:
    db = opened(kind(tmp_path / "store"))
    db["x"] = b"123"
    assert db["x"] == b"123"
    assert (tmp_path / "store").is_dir()
    del db["x"]


def test_any_characters(tmp_path: Path, opened: Open) -> None:
    db, other = opened(tmp_path / "store"), opened(tmp_path / "store")
    for first in range(0, 256, 32):
        key = "foo_" + "".join(map(chr, range(first, first + 32)))
        with pytest.raises(KeyError):
            db[key]
        db[key] = b"foo"
        db.flush()
        other.reopen()
        for each in (db, other):
            assert each[key] == b"foo"
            assert list(each) == list(each.keys()) == [key]
            assert list(each.items()) == [(key, b"foo")]
            assert list(each.values()) == [b"foo"]
        del db[key]
        with pytest.raises(KeyError):
            db[key]


def test_closed(tmp_path: Path, opened: Open) -> None:
    db = opened(tmp_path / "store")
    db["x"] = b"123"
    db.close()
    with pytest.raises(tilekv.ClosedError):
        db["y"] = b"123"
    assert dict(opened(tmp_path / "store")) == {"x": b"123"}


# --- zict's layers ---

LAYERS: dict[str, Callable[[Any], Any]] = {
    "buffer": lambda db: Buffer({}, db, n=2),
    "buffer_upside_down": lambda db: Buffer(db, {}, n=2),
    "buffer_of_weights": lambda db: Buffer({}, db, n=1, weight=random_weight),
    "cache": lambda db: Cache(db, {}),
    "cache_of_what_is_read": lambda db: Cache(db, {}, update_on_set=False),
    "cache_upside_down": lambda db: Cache({}, db),
    "lru": lambda db: LRU(100, db),
    "func": lambda db: Func(test_func.rotl, test_func.rotr, db),
}


def random_weight(key: str, value: bytes) -> float:
    return random.choice([0.4, 0.9, 1.1])


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers(db: tilekv.Store, layer: Callable[[Any], Any]) -> None:
    stack = layer(db)
    utils_test.check_mapping(stack)
    assert len(stack) == 26
    stack.clear()
    utils_test.check_empty_mapping(stack)
    assert not db
    utils_test.check_different_keys_threadsafe(stack)
    utils_test.check_same_key_threadsafe(stack)
    assert not db


def test_a_buffer_over_a_store(db: tilekv.Store) -> None:
    """What zict's test_simple of Buffer asks, with values whose weight is their length."""
    fast: dict[str, bytes] = {}
    buffer = Buffer(fast, db, n=10, weight=lambda key, value: len(value))
    buffer["x"], buffer["y"] = b"1", b"22"
    assert (buffer["x"], buffer["y"], buffer.fast.total_weight) == (b"1", b"22", 3)
    buffer["z"] = b"88888888"
    assert (set(fast), dict(db)) == ({"y", "z"}, {"x": b"1"})
    assert buffer["x"] == b"1"
    assert (set(fast), dict(db)) == ({"x", "z"}, {"y": b"22"})
    assert "x" in buffer
    assert "y" in buffer
    assert "missing" not in buffer
    buffer["y"] = b"1"
    assert (buffer.fast.total_weight, dict(db)) == (10, {})
    buffer["b"] = b"1" * 1000  # too heavy: it goes to the slow side at once
    assert "b" in db
    assert buffer["b"] == b"1" * 1000
    db.flush()
    assert set(buffer) == {"x", "y", "z", "b"}
    assert not set(fast) & set(db)


def test_what_is_evicted_while_somebody_iterates(db: tilekv.Store) -> None:
    db["z"] = b"3"
    buffer = Buffer({"x": b"1", "y": b"2"}, db, n=5)
    steps = iter(buffer)
    assert next(steps) == "x"
    buffer.fast.evict("x")
    assert next(steps) == "y"
    assert buffer["x"] == b"1"
    assert list(steps) == ["z"]


def test_a_cache_before_a_store(db: tilekv.Store) -> None:
    cache: dict[str, bytes] = {}
    layer = Cache(db, cache)
    with pytest.raises(KeyError):
        layer["0"]
    layer["1"] = b"10"
    assert (dict(db), cache) == ({"1": b"10"}, {"1": b"10"})
    cache.clear()
    assert list(layer) == ["1"]
    assert "1" in layer
    assert layer.keys() == {"1"}
    assert cache == {}
    assert layer["1"] == b"10"
    assert cache == {"1": b"10"}
    with pytest.raises(TypeError):
        layer["1"] = object()
    assert layer["1"] == b"10"
    del layer["1"]
    assert (dict(db), cache) == ({}, {})
    with pytest.raises(KeyError):
        del layer["1"]


def test_evicted_after_three(db: tilekv.Store) -> None:
    evicted = []
    lru = LRU(3, db, on_evict=[lambda key, value: evicted.append((key, value))])
    for letter in string.ascii_lowercase[:5]:
        lru[letter] = letter.encode()
    assert evicted == [("a", b"a"), ("b", b"b")]
    assert set(db) == {"c", "d", "e"}

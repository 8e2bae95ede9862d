"""What the C tests of key-value stores in TileDB 1.3.2 and 1.6.3 ask (README.md), through `Map`."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilekv import (
    TILEDB_NO_ENCRYPTION,
    TILEDB_READ,
    TILEDB_WRITE,
    Attribute,
    Context,
    Map,
    MapIter,
    MapSchema,
    TileDBError,
)

ctx = Context()
# Strings of C end in a NUL, which belongs to the key or value.
ITEMS: list[tuple[Any, int, bytes, tuple[float, float]]] = [
    (100, 1, b"a\0", (1.1, 1.2)),
    (np.float32(200.0), 2, b"bb\0", (2.1, 2.2)),
    (np.array([300.0, 300.1]), 3, b"ccc\0", (3.1, 3.2)),
    ("key_4\0", 4, b"dddd\0", (4.1, 4.2)),
]
ABSENT = "invalid\0"


@pytest.fixture(params=["a1", ""], ids=["named", "anonymous"])
def first(request: pytest.FixtureRequest) -> str:
    """The name of the first attribute."""
    name: str = request.param
    return name


@pytest.fixture
def uri(tmp_path: Path, first: str) -> str:
    schema = MapSchema(ctx)
    schema.add_attribute(Attribute.create(ctx, first, np.int32).set_compressor(("lz4", -1)))
    schema.add_attribute(Attribute.create(ctx, "a2", bytes).set_compressor(("gzip", -1)))
    schema.add_attribute(
        Attribute.create(ctx, "a3", np.float32, shape=2).set_compressor(("zstd", -1))
    )
    schema.set_capacity(10)
    schema.check()
    made = str(tmp_path / "kv")
    Map.create(made, schema)
    assert Map.encryption_type(ctx, made) == TILEDB_NO_ENCRYPTION
    assert MapSchema(ctx, made).capacity() == 10
    return made


def item_of(first: str, key: Any, number: Any, text: bytes, pair: Any) -> Any:
    item = Map.create_item(ctx, key)
    item.set(first, number)
    item.set("a2", text)
    item.set("a3", pair)
    return item


def write(uri: str, first: str) -> None:
    """Four items in two fragments, and two that are refused; then one fragment."""
    map = Map(ctx, uri, TILEDB_WRITE)
    assert not map.is_dirty()
    for row in ITEMS[:2]:
        map.add_item(item_of(first, *row))
    assert map.is_dirty()
    map.flush()
    assert not map.is_dirty()
    for row in ITEMS[2:]:
        map.add_item(item_of(first, *row))
    wrong = Map.create_item(ctx, "key_4\0")
    wrong.set("foo", 4)
    with pytest.raises(TileDBError):
        map.add_item(wrong)
    with pytest.raises(TileDBError):
        map.add_item(item_of(first, "key_4\0", "4", b"dddd\0", (4.1, 4.2)))
    map.flush()
    map.close()
    Map.consolidate(ctx, uri)


def check(item: Any, first: str, number: int, text: bytes, pair: tuple[float, float]) -> None:
    numbers, n = item.get_ptr(first)
    assert (list(numbers), n, numbers.nbytes, numbers.format) == ([number], 1, 4, "i")
    chars, n = item.get_ptr("a2")
    assert (bytes(chars), n) == (text, len(text))
    floats, n = item.get_ptr("a3")
    assert (n, floats.nbytes, floats.format) == (2, 8, "f")
    assert bytes(floats) == np.array(pair, "float32").tobytes()


def test_an_item() -> None:
    item = Map.create_item(ctx, "key\0")
    assert item.key(str) == "key\0"
    assert item.key_info() == (4, 4)  # TILEDB_CHAR, bytes
    for attr, error in (("foo", KeyError | ValueError), (None, ValueError)):
        with pytest.raises(error.__args__ if attr else error):
            item.get(attr)
    item.set("attr", np.int32(5))
    assert item.get("attr") == 5
    numbers, n = item.get_ptr("attr")
    assert (list(numbers), n, numbers.nbytes) == ([5], 1, 4)


def test_looking_up(uri: str, first: str) -> None:
    write(uri, first)
    map = Map(ctx, uri, TILEDB_READ)
    map.close()
    with pytest.raises(TileDBError):
        map.reopen()
    map.open(TILEDB_READ)
    map.reopen()
    for key, *values in ITEMS:
        assert map.has_key(key)
        check(map.get_item(key), first, *values)
    assert not map.get_item(ABSENT).good()
    assert not map.has_key(ABSENT)
    map.close()


def test_some_attributes(uri: str, first: str) -> None:
    write(uri, first)
    map = Map(ctx, uri, [first])
    for key, number, *_ in ITEMS:
        item = map.get_item(key)
        assert list(item.get_ptr(first)[0]) == [number]
        with pytest.raises(TileDBError):
            item.get_ptr("a2")
    assert not map.get_item(ABSENT).good()
    with pytest.raises(TileDBError):
        map.add_item(item_of(first, *ITEMS[0]))
    map.close()


def test_iterating(uri: str, first: str) -> None:
    write(uri, first)
    map = Map(ctx, uri, TILEDB_READ)
    it = MapIter(map)
    found = []
    while not it.done():
        number = it[first]
        check(it.item, first, *ITEMS[number - 1][1:])
        assert np.all(it.key() == ITEMS[number - 1][0])
        found.append(number)
        it.advance()
    assert sorted(found) == [1, 2, 3, 4]
    it.reset()
    assert not it.done()
    map.close()


def test_reading_between_writes(uri: str, first: str) -> None:
    """What is not flushed is read by who wrote it, in look-ups and in iterations."""
    map = Map(ctx, uri)
    map.add_item(item_of(first, 123, *ITEMS[0][1:]))
    check(map.get_item(123), first, *ITEMS[0][1:])
    assert [item.key() for item in map] == [123]
    map.flush()
    check(map.get_item(123), first, *ITEMS[0][1:])
    map.add_item(item_of(first, 123, *ITEMS[1][1:]))
    check(map.get_item(123), first, *ITEMS[1][1:])
    map.close()


def test_modes(uri: str, first: str) -> None:
    map = Map(ctx, uri, TILEDB_WRITE)
    assert map.is_open()
    # TileDB 1.6 refuses all of these (README.md).
    assert not map.has_key("key")
    assert not map.get_item("key").good()
    map.reopen()
    assert MapIter(map).done()
    map.close()
    assert not map.is_open()
    map.open(TILEDB_READ)
    assert not map.is_dirty()
    with pytest.raises(TileDBError):
        map.flush()
    with pytest.raises(TileDBError):
        map.add_item(item_of(first, "key", *ITEMS[0][1:]))
    map.close()
    assert not map.is_open()


def test_the_schema_of_an_open_map(uri: str, first: str) -> None:
    with Map(ctx, uri, TILEDB_READ) as map:
        schema = map.schema()
        schema.check()
        assert schema.has_attribute(first)
        assert schema.has_attribute("") == (first == "")
        assert not schema.has_attribute("foo")
        assert schema.attribute_num() == 3


def test_moments(uri: str, first: str) -> None:
    row = ITEMS[0][1:]
    with pytest.raises(TileDBError):
        Map(ctx, uri, TILEDB_WRITE, 0)
    with Map(ctx, uri, TILEDB_WRITE) as map:
        map.add_item(item_of(first, "key", *row))
    written = time.time_ns() // 1_000_000
    with Map(ctx, uri, TILEDB_READ) as map:
        assert map.has_key("key")
        check(map.get_item("key"), first, *row)
    with Map(ctx, uri, TILEDB_READ, 0) as map:
        assert map.timestamp() == 0
        assert not map.has_key("key")
    now = time.time_ns() // 1_000_000
    with Map(ctx, uri, TILEDB_READ, now) as map:
        for moment in (now, written):
            assert map.timestamp() == moment
            assert map.has_key("key")
            check(map.get_item("key"), first, *row)
            map.reopen_at(written)

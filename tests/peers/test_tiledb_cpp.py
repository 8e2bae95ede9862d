"""What the C++ tests of Map in TileDB 1.3.2 and 1.6.3 ask (README.md)."""

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
    FilterList,
    LZ4Filter,
    Map,
    MapIter,
    MapSchema,
    TileDBError,
)

ctx = Context()
SIMPLE = 10
COMPOUND = np.array([2.43, 214.0])
ALL = ["a1", "a2", "a3"]


@pytest.fixture(params=["1.3.2", "1.6.3"])
def uri(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A map with an int, a string and a pair of doubles."""
    a1 = Attribute.create(ctx, "a1", np.int32)
    a2 = Attribute.create(ctx, "a2", str)
    a3 = Attribute.create(ctx, "a3", np.float64, shape=2)
    if request.param == "1.3.2":
        a1.set_compressor(("blosc-lz", -1))
    else:
        filters = FilterList(ctx)
        filters.add_filter(LZ4Filter(ctx))
        a1.set_filter_list(filters)
    schema = MapSchema(ctx)
    schema.add_attribute(a1).add_attribute(a2).add_attribute(a3)
    schema.set_capacity(10)
    made = str(tmp_path / "map")
    Map.create(made, schema)
    return made


def check(row: Any, number: int, text: str, first: float) -> None:
    assert row[:2] == (number, text)
    assert len(row[2]) == 2
    assert row[2][0] == first


def written(map: Map) -> None:
    """The item of SIMPLE, by an item that belongs to no map."""
    item = Map.create_item(ctx, SIMPLE)
    item.set("a1", 1.234)
    item["a2"] = "someval"
    item["a3"] = [3, 2.4]
    with pytest.raises(TileDBError):
        map.add_item(item)
    item["a1"] = 1
    map.add_item(item)


def test_a_map(uri: str) -> None:
    assert Map.encryption_type(ctx, uri) == TILEDB_NO_ENCRYPTION
    map = Map(ctx, uri, TILEDB_WRITE)
    assert map.is_open()
    assert not map.is_dirty()
    written(map)
    assert map.is_dirty()
    map.flush()
    assert not map.is_dirty()
    map.close()
    assert not map.is_open()

    map.open(TILEDB_READ)
    assert map.is_open()
    assert map.schema().capacity() == 10
    check(map[SIMPLE][ALL], 1, "someval", 3)
    map.close()

    map.open(TILEDB_WRITE)
    map[COMPOUND][ALL] = (2, "aaa", [4.2, 1])
    map.flush()
    map.close()

    map.open(TILEDB_READ)
    assert map.has_key(SIMPLE)
    assert map.has_key(COMPOUND)
    assert not map.has_key(3453463)
    assert int(map[SIMPLE]["a1"]) == 1
    assert map.get_item(SIMPLE).get("a2") == "someval"
    assert len(map[SIMPLE].get("a3")) == 2
    check(map[COMPOUND][ALL], 2, "aaa", 4.2)
    map.close()
    assert not map.is_open()


def test_a_map_of_1_3_reads_and_writes(uri: str) -> None:
    """Without a query type, and looking up in an empty map first (issue 606 of TileDB)."""
    map = Map(ctx, uri)
    assert not map.get_item(SIMPLE).good()
    written(map)
    map.flush()
    map.close()
    map.open()
    assert map.has_key(SIMPLE)
    item = map.get_item(SIMPLE)
    assert item.good()
    check((item.get("a1"), item.get("a2"), item.get("a3")), 1, "someval", 3)
    map[COMPOUND][ALL] = (2, "aaa", [4.2, 1])
    map.flush()
    map.close()
    map.open()
    check(map[COMPOUND][ALL], 2, "aaa", 4.2)
    map.close()


@pytest.mark.parametrize("modes", [(None, None), (TILEDB_WRITE, TILEDB_READ)])
def test_the_only_attribute_needs_no_name(tmp_path: Path, modes: tuple[Any, Any]) -> None:
    uri = str(tmp_path / "map")
    Map.create(uri, MapSchema(ctx).add_attribute(Attribute.create(ctx, "a1", np.int32)))
    map = Map(ctx, uri, modes[0])
    map[10] = 1
    map.flush()
    map.close()
    map.open(modes[1])
    assert int(map[10]) == 1
    map.close()


@pytest.fixture
def of_items(tmp_path: Path) -> str:
    made = str(tmp_path / "map")
    Map.create(ctx, made, {0: "0", 1: "12", 2: "123"}, "val")
    return made


def shows_all(map: Map) -> None:
    assert map[0]["val"] == "0"
    assert map[1]["val"] == "12"
    assert map[2].get() == "123"


@pytest.mark.parametrize("arguments", [(), (TILEDB_READ,), (["val"],)])
def test_a_map_of_items(of_items: str, arguments: tuple[Any, ...]) -> None:
    map = Map(ctx, of_items, *arguments)
    shows_all(map)
    map.close()
    map.open(*arguments)
    map.reopen()
    shows_all(map)
    with pytest.raises(TileDBError):
        map.open(*arguments)
    shows_all(map)
    map.close()


@pytest.mark.parametrize("arguments", [(), (TILEDB_READ,)])
def test_iterators(of_items: str, arguments: tuple[Any, ...]) -> None:
    map = Map(ctx, of_items, *arguments)
    map.close()
    map.open(*arguments)
    it, end = MapIter(map), MapIter(map, True)
    for _ in range(2):
        found = []
        while it != end:
            found.append(it.item.get())
            it.advance()
        assert sorted(found) == ["0", "12", "123"]
        it.reset()
    map.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_moments(tmp_path: Path, reopened: bool) -> None:
    uri = str(tmp_path / "map")
    Map.create(uri, MapSchema(ctx).add_attribute(Attribute.create(ctx, "a", np.int32)))
    with pytest.raises(TileDBError):
        Map(ctx, uri, TILEDB_WRITE, 0)
    map = Map(ctx, uri, TILEDB_WRITE)
    map["key"] = 10
    map.flush()
    map.close()
    first = time.time_ns() // 1_000_000

    map = Map(ctx, uri, TILEDB_READ)
    assert map.has_key("key")
    assert int(map["key"]["a"]) == 10
    map.close()

    map = Map(ctx, uri, TILEDB_READ, 0)
    assert map.timestamp() == 0
    if reopened:
        map.close()
        map.open(TILEDB_READ, 0)
    assert not map.has_key("key")
    map.close()

    now = time.time_ns() // 1_000_000
    map = Map(ctx, uri, TILEDB_READ, now)
    if reopened:
        map.close()
        map.open(TILEDB_READ, now)
    assert map.has_key("key")
    assert int(map["key"]["a"]) == 10
    map.reopen_at(first)
    assert map.timestamp() == first
    assert map.has_key("key")
    assert int(map["key"]["a"]) == 10
    map.close()

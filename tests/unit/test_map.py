"""TileDB's C++ face: Map, MapItem, MapIter, MapSchema, Attribute and Object."""

import io
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import (
    TILEDB_AES_256_GCM,
    TILEDB_NO_ENCRYPTION,
    TILEDB_READ,
    TILEDB_WRITE,
    Attr,
    Attribute,
    Context,
    Key,
    Map,
    MapIter,
    MapSchema,
    Object,
    Schema,
    TileDBError,
    ZstdFilter,
)

ctx = Context()


def numbered(calls: list[Any]) -> pytest.MarkDecorator:
    """Run a test with each of the calls."""
    return pytest.mark.parametrize("call", calls, ids=[f"call{i}" for i in range(len(calls))])


def two_attributes() -> MapSchema:
    a1 = Attribute.create(ctx, "a1", np.int32)
    a2 = Attribute.create(ctx, "a2", np.float32)
    return MapSchema(ctx).add_attributes(a1, a2)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A map with the attributes a1 (int32) and a2 (float32)."""
    made = str(tmp_path / "map")
    Map.create(made, two_attributes())
    return made


@pytest.fixture
def one(tmp_path: Path) -> str:
    """A map with one attribute, a (int64)."""
    made = str(tmp_path / "one")
    Map.create(made, MapSchema(ctx).add_attribute(Attribute.create(ctx, "a", int)))
    return made


def fragments(uri: str) -> int:
    with tilekv.open(uri) as db:
        return len(db.fragments)


# --- schema ---


def test_attribute() -> None:
    assert Attribute.create(ctx, "a", int) == Attr("a", "int64")
    assert Attribute.create(ctx, "a", float) == Attr("a", "float64")
    assert Attribute.create(ctx, "a", str, ZstdFilter(3)) == Attr("a", str, filters=ZstdFilter(3))
    assert Attribute.create(ctx, "a", "u1", shape=(2, 3)) == Attr("a", "u1", shape=(2, 3))
    assert Attribute.create(ctx, "a", "u1", var=True) == Attr("a", "u1", var=True)
    with pytest.raises(ValueError, match="begin with '__'"):
        Attribute.create(ctx, "__key", int)
    with pytest.raises(TypeError, match="context"):
        Attribute.create("a", int, None)  # type: ignore[arg-type]


def test_schema() -> None:
    schema = two_attributes()
    schema.check()
    assert schema.context() is ctx
    assert schema.attribute_num() == 2
    assert schema.attribute("a2") == schema.attribute(1) == Attr("a2", "float32")
    assert schema.attributes() == {"a1": Attr("a1", "int32"), "a2": Attr("a2", "float32")}
    assert schema.has_attribute("a1")
    assert not schema.has_attribute("__key")
    assert schema.capacity() == schema.schema.capacity
    assert schema.set_capacity(50) is schema
    assert schema.capacity() == 50
    assert schema.schema == Schema(schema.attributes().values(), capacity=50)
    assert "a1" in repr(schema)


def test_schema_of_a_map(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = MapSchema(ctx, uri)
    with Map(ctx, uri) as m:
        assert m.schema().schema == loaded.schema == two_attributes().schema
        m.schema().add_attribute(Attr("a3", int))
        assert m.schema().attribute_num() == 2
    into = io.StringIO()
    loaded.dump(into)
    loaded.dump()
    assert capsys.readouterr().out == into.getvalue() == f"{loaded}\n"
    assert "- Name: a2\n- Type: FLOAT32\n- Cell val num: 1\n" in into.getvalue()


def test_schema_keeps_what_it_was_loaded_from(tmp_path: Path) -> None:
    schema = Schema([Attr("a", int)], digest="md5", capacity=9, key_filters=ZstdFilter(2))
    uri = str(tmp_path / "store")
    tilekv.open(uri, "x", schema=schema).close()
    copy = str(tmp_path / "copy")
    Map.create(copy, MapSchema(ctx, uri))
    with tilekv.open(copy) as db:
        assert db.schema == schema


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (MapSchema(ctx), "at least one attribute"),
        (two_attributes().add_attribute(Attr("A1", bytes)), "'a1' and 'A1'"),
        (two_attributes().set_capacity(0), "capacity"),
    ],
    ids=["empty", "equal names", "no capacity"],
)
def test_schemas_that_are_refused(schema: MapSchema, text: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "map")
    for call in (schema.check, lambda: Map.create(uri, schema)):
        with pytest.raises(ValueError, match=text) as caught:
            call()
        assert isinstance(caught.value, TileDBError)
    assert not Path(uri).exists()


def test_schema_takes_only_attributes() -> None:
    with pytest.raises(TypeError, match=r"Attribute\.create, not str"):
        MapSchema(ctx).add_attributes(Attr("a", int), "b")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="context"):
        MapSchema("uri")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no attribute 7"):
        two_attributes().attribute(7)


# --- create ---


def test_create_never_overwrites(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"]["a1", "a2"] = (1, 2.0)
    with pytest.raises(FileExistsError):
        Map.create(uri, MapSchema(ctx).add_attribute(Attr("other", str)))
    with pytest.raises(FileExistsError):
        Map.create(ctx, uri, {"k": 1}, "other")
    assert Map(ctx, uri, TILEDB_READ)["k"]["a1"] == 1


@pytest.mark.parametrize(
    ("items", "attr"),
    [
        ({"a": 1, "b": 2}, Attr("v", "int64")),
        ({1: "x", 2: "y"}, Attr("v", str)),
        ({"a": b"x"}, Attr("v", bytes)),
        ({"a": True}, Attr("v", bool)),
        ({"a": np.uint16(3)}, Attr("v", "uint16")),
    ],
)
def test_create_with_items(tmp_path: Path, items: dict[Any, Any], attr: Attr) -> None:
    uri = str(tmp_path / "map")
    Map.create(ctx, uri, items, "v")
    with Map(ctx, uri, TILEDB_READ) as m:
        assert m.schema().attribute(0) == attr
        assert {item.key(): item.get() for item in m} == items
    assert fragments(uri) == 1


def test_create_with_arrays(tmp_path: Path) -> None:
    uri = str(tmp_path / "map")
    Map.create(ctx, uri, {"a": np.arange(3), "b": np.arange(2)}, "v")
    with Map(ctx, uri, TILEDB_READ) as m:
        assert m["b"]["v"].tolist() == [0, 1]


@pytest.mark.parametrize("items", [{}, {"a": 1, "b": "x"}, {"a": None}])
def test_create_with_items_of_no_type(tmp_path: Path, items: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Map.create(ctx, str(tmp_path / "map"), items, "v")
    assert not (tmp_path / "map").exists()


def test_create_takes_a_map_schema(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"tilekv\.MapSchema, or a mapping .*, not Schema"):
        Map.create(str(tmp_path / "map"), Schema([Attr("a", int)]))  # type: ignore[call-overload]


# --- items of a map ---


def test_write_and_read(uri: str) -> None:
    with Map(ctx, uri, TILEDB_WRITE) as m:
        m["key_1"]["a1", "a2"] = (1, 1.5)
        m["key_2"][["a2", "a1"]] = [2.5, 2]
        m["key_3"] = (3, 3.5)
        m["key_4"] = {"a2": 4.5, "a1": 4}
        item = Map.create_item(ctx, "key_5")
        item.set("a1", 5)
        item["a2"] = 5.5
        assert (item["a1"], item.get("a2"), item.good()) == (5, 5.5, True)
        assert not m.has_key("key_5")
        assert m.add_item(item) is m
        # What is buffered is there already.
        assert m["key_5"]["a1"] == 5
    with Map(ctx, uri, TILEDB_READ) as m:
        for n in range(1, 6):
            assert m[f"key_{n}"]["a1"] == n
            assert m[f"key_{n}"]["a2"] == n + 0.5
            assert m[f"key_{n}"][["a2", "a1"]] == m[f"key_{n}"]["a2", "a1"] == (n + 0.5, n)
    assert fragments(uri) == 1


def test_one_attribute_needs_no_name(one: str) -> None:
    with Map(ctx, one) as m:
        m["a"] = 1
        m["b"]["a"] = 2
        m["c"]["a",] = (3,)
        item = m["d"]
        item.set(4)
        m.add_item(item)
        assert [m[key].get() for key in "abcd"] == [1, 2, 3, 4]
        assert m["a"].get("a") == 1
        with pytest.raises(ValueError, match=r"'a'.*\['nope'\]"):
            m["e"]["nope"] = 1
        with pytest.raises(ValueError, match=r"'a', not \[\]"):
            m.add_item(Map.create_item(ctx, "e"))
        assert not m.has_key("e")


def test_several_attributes_need_names(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
        for call in (m["k"].get, lambda: m["k"].set(1), lambda: Map.create_item(ctx, "k").set(1)):
            with pytest.raises(ValueError, match="name the attribute"):
                call()
        with pytest.raises(TypeError, match="positional argument"):
            m["k"].set()


def test_signalling_nans_are_kept(uri: str) -> None:
    [nan] = np.array([0x7FA20207], "uint32").view("float32")
    with Map(ctx, uri) as m:
        item = Map.create_item(ctx, 1)
        item["a1"] = 1
        item["a2"] = nan
        m.add_item(item)
        m[2][["a1", "a2"]] = (1, nan)
        m.flush()
        assert [m[key]["a2"].tobytes() for key in (1, 2)] == [nan.tobytes()] * 2
        assert [item["a2"].tobytes() for item in MapIter(m)] == [nan.tobytes()] * 2


def test_missing_keys(uri: str) -> None:
    with Map(ctx, uri) as m:
        item = m.get_item("none")
        assert not item.good()
        assert not m["none"].good()
        assert not m.has_key("none")
        assert "none" not in m
        for get in (item.get, m["none"].get):
            with pytest.raises(KeyError) as caught:
                get("a1")
            assert isinstance(caught.value, TileDBError)
        item["a1", "a2"] = (1, 2.0)
        assert item.good()
        assert item["a1"] == m["none"]["a1"] == 1
        assert "none" in m


def test_an_item_of_get_item_is_changed_in_part(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
        item = m.get_item("k")
        assert item.good()
        item["a1"] = 7
        assert m["k"]["a1", "a2"] == item["a1", "a2"] == (7, 2.0)
        # Setting alone writes nothing.
        item.set("a2", 9.0)
        assert (item["a2"], m["k"]["a2"]) == (9.0, 2.0)
        m.add_item(item)
        assert m["k"]["a2"] == 9.0
        with pytest.raises(OverflowError):
            item["a1"] = 1 << 40
        assert item["a1"] == m["k"]["a1"] == 7


def test_an_item_of_the_brackets_looks_up_at_each_use(uri: str) -> None:
    with Map(ctx, uri) as m:
        item = m["k"]
        assert not item.good()
        m["k"] = (1, 2.0)
        assert item.good()
        assert item["a1"] == 1
        item["a1", "a2"] = (5, 6.0)
        m["k"] = (7, 8.0)
        assert item["a1"] == 7
        item.set("a1", 1)
        assert (item["a1"], m["k"]["a1"]) == (1, 7)
        item["a2"] = 9.0
        assert m["k"]["a1", "a2"] == (1, 9.0)
        m["k"] = (2, 2.0)
        assert item["a1"] == 2


@pytest.mark.parametrize(
    ("attrs", "values", "error", "text"),
    [
        ("a1", 1, ValueError, "missing: 'a2'"),
        (["a1", "a2", "x"], (1, 2.0, 3), ValueError, "unknown: 'x'"),
        (["a1", "a2"], (1,), ValueError, "2 attributes .* but 1 values"),
        (["a1", "a2"], 5, TypeError, "a tuple, not int"),
        (["a1", 2], (1, 2.0), TypeError, "list or tuple of them"),
        (5, 5, TypeError, "list or tuple of them"),
        (["a1", "a2"], (1.5, 2.0), TypeError, "'a1'"),
        (["a1", "a2"], ([1, 2], 2.0), TypeError, "'a1'"),
        (["a1", "a2"], (1 << 31, 2.0), OverflowError, "'a1'"),
    ],
)
def test_values_that_are_refused(
    uri: str, attrs: Any, values: Any, error: type[Exception], text: str
) -> None:
    with Map(ctx, uri) as m:
        with pytest.raises(error, match=text) as caught:
            m["k"][attrs] = values
        assert isinstance(caught.value, TileDBError)
        assert not m.has_key("k")
        assert not m.is_dirty()


def test_items_that_are_refused(uri: str) -> None:
    for values, error in (({"a1": 1}, ValueError), ({"a1": 1.5, "a2": 2.0}, TypeError)):
        item = Map.create_item(ctx, "k")
        for name, value in values.items():
            item[name] = value
        with Map(ctx, uri) as m:
            with pytest.raises(error, match=r"'a[12]'"):
                m.add_item(item)
            assert not m.is_dirty()


def test_attributes_that_are_not_there(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
        for item in (m["k"], m.get_item("k"), Map.create_item(ctx, "k"), next(iter(m))):
            with pytest.raises(ValueError, match="no attribute 'nope'"):
                item["nope"]
            with pytest.raises(TypeError, match="list or tuple"):
                item[5]  # type: ignore[index]
        with pytest.raises(TypeError, match="create_item, not tuple"):
            m.add_item(("k", 1))  # type: ignore[arg-type]


# --- keys ---


def test_keys_of_all_types(one: str) -> None:
    keys = ["s", b"s", 1, 1.0, np.int32(2), np.float32(2), 2**63, np.array([1, 2], "i4"), ""]
    with Map(ctx, one) as m:
        for n, key in enumerate(keys):
            m[key] = n
    with Map(ctx, one, TILEDB_READ) as m:
        assert [m[key].get() for key in keys] == list(range(len(keys)))
        infos = [(4, 1), (40, 1), (1, 8), (3, 8), (1, 8), (3, 8), (10, 8), (0, 8), (4, 0)]
        assert [m[key].key_info() for key in keys] == infos
        types = [str, bytes, int, float, np.int32, np.float32, int, np.ndarray, str]
        for key, type_ in zip(keys, types, strict=True):
            assert m[key].key(type_) is key
            assert m[key].key() is key
    for key in (True, None, ("a",)):
        with pytest.raises(TypeError, match="a key must be"):
            m[key]
        with pytest.raises(TypeError, match="a key must be"):
            Map.create_item(ctx, key)


@pytest.mark.parametrize(
    ("key", "type_"),
    [
        ("s", int),
        ("s", bytes),
        (2**31, np.int32),
        (-1, np.uint64),
        (1, float),
        (1, bool),
        (1.0, int),
        (0.1, np.float32),
        (np.timedelta64(1, "s"), int),
        (1, np.timedelta64),
        (np.array([1, 2], "i4"), np.int32),
        (np.array([1, 2], "i4"), np.int64),
        (Key(12, b"x"), str),
    ],
)
def test_keys_of_another_type(key: Any, type_: type) -> None:
    with pytest.raises(TypeError, match=f"is no {type_.__name__}"):
        Map.create_item(ctx, key).key(type_)


def test_types_of_keys() -> None:
    for key in (1, np.uint8(1)):
        for type_ in (int, np.int64, np.int8, np.uint64):
            found = Map.create_item(ctx, key).key(type_)
            assert found == 1
            assert type(found) is type_
    for key in (1.5, np.float32(1.5)):
        for type_ in (float, np.float64, np.float32, np.float16):
            found = Map.create_item(ctx, key).key(type_)
            assert found == 1.5
            assert type(found) is type_
    assert np.isnan(Map.create_item(ctx, np.nan).key(np.float32))
    assert Map.create_item(ctx, Key(12, b"x")).key(Key) == Key(12, b"x")
    with pytest.raises(TypeError, match="the type of a key"):
        Map.create_item(ctx, 1).key("int")  # type: ignore[arg-type]


# --- iteration ---


def test_iteration(uri: str) -> None:
    with Map(ctx, uri) as m:
        expected = {f"key_{n:03}": (n, n / 2) for n in range(100)}
        for key, values in expected.items():
            m[key] = values
        assert m.is_dirty()
        assert {item.key(): item["a1", "a2"] for item in m} == expected
        m.flush()
        found = {}
        it, end = MapIter(m), MapIter(m, True)
        while it != end:
            found[it.key(str)] = it["a1", "a2"]
            assert it.item["a1"] == it["a1"]
            assert it.advance() is it
        assert found == expected
        assert it == end
        assert it.done()
        it.reset()
        assert it != end
        assert [item.key() for item in it] == list(m.store)
        assert it.done()
        for use in (it.key, lambda: it["a1"], lambda: it.item):
            with pytest.raises(ValueError, match="behind the last item"):
                use()
        assert it != 5


def test_iterating_an_empty_map(uri: str) -> None:
    with Map(ctx, uri) as m:
        assert MapIter(m) == MapIter(m, True)
        assert list(m) == []


def test_limit_key_type(one: str) -> None:
    with Map(ctx, one) as m:
        for n, key in enumerate(["a", "b", 1, 2, np.int32(3), np.array([1, 2], "i4")]):
            m[key] = n
        it = MapIter(m)
        it.limit_key_type(str)
        it.reset()
        assert {item.key() for item in it} == {"a", "b"}
        it.limit_key_type(np.int32)
        it.reset()
        assert {item.key() for item in it} == {1, 2, 3}  # which all have that form
        it.all_keys()
        it.reset()
        assert len(list(it)) == 6
        with pytest.raises(TypeError, match="the type of a key"):
            it.limit_key_type("int")  # type: ignore[arg-type]


def test_an_iterator_is_of_a_map(one: str) -> None:
    with pytest.raises(TypeError, match="takes a Map, not str"):
        MapIter(one)  # type: ignore[arg-type]


def test_an_item_of_an_iterator_can_be_written(uri: str) -> None:
    with Map(ctx, uri) as m:
        for n in range(10):
            m[n] = (n, 0.0)
        for item in m:
            item["a2"] = item["a1"] + 0.5
        assert [m[n]["a2"] for n in range(10)] == [n + 0.5 for n in range(10)]


# --- an item as its value ---


def test_an_item_of_one_attribute_compares_and_converts(one: str, tmp_path: Path) -> None:
    with Map(ctx, one) as m:
        m[1] = 7
        for item in (m[1], m.get_item(1), next(iter(m))):
            assert item
            assert int(item) == 7
            assert float(item) == 7.0
            assert str(item) == "7"
            assert item == 7
            assert 7 == item  # noqa: SIM300 - that is what is tested
            assert item != 8
            assert 6 < item <= 7 <= item < 8
            assert item == m[1]
            with pytest.raises(TypeError, match="is int, not bytes"):
                bytes(item)
        m[2] = 7
        assert m[1] != m[2]  # another key
        m[3] = 0
        assert m[3]  # it is there
        assert m[3] == 0
        missing = m.get_item(4)
        assert not missing
        assert not m[4]
        assert missing == m[4]
        assert missing not in (0, None, 7)
        assert str(missing) == repr(missing)
        for use in (int, float, bytes, lambda item: item < 5):
            with pytest.raises(KeyError):
                use(missing)
        with pytest.raises(TypeError, match="unhashable"):
            hash(m[1])
    text = str(tmp_path / "text")
    Map.create(ctx, text, {"k": b"value"}, "b")
    with Map(ctx, text) as m:
        assert bytes(m["k"]) == b"value" == m["k"]


def test_an_item_of_several_attributes_is_no_value(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.5)
        m["l"] = (1, 2.5)
        assert m["k"]
        assert m["k"] == m.get_item("k")
        assert m["k"] != m["l"]
        assert m["k"] not in (1, (1, 2.5), {"a1": 1, "a2": 2.5})
        assert str(m["k"]) == repr(m["k"])
        for use in (int, float, bytes):
            with pytest.raises(ValueError, match="name the attribute"):
                use(m["k"])
        with pytest.raises(TypeError):
            _ = m["k"] < 3
        changed = m.get_item("k")
        changed.set("a1", 9)
        assert changed != m["k"]


def test_pointers_to_values(tmp_path: Path) -> None:
    schema = MapSchema(ctx).add_attributes(
        Attr("n", "int32"),
        Attr("pair", "float64", shape=(2, 2)),
        Attr("var", "uint16", var=True),
        Attr("b", bytes),
        Attr("s", str),
        Attr("when", "datetime64[ms]"),
    )
    uri = str(tmp_path / "map")
    Map.create(uri, schema)
    with Map(ctx, uri) as m:
        when = np.datetime64(5, "ms")
        m["k"] = (7, [[1.0, 2.0], [3.0, 4.0]], np.arange(3, dtype="uint16"), b"a\0b", "é", when)
        found = {name: m["k"].get_ptr(name) for name in schema.attributes()}
        assert {name: (list(view), n) for name, (view, n) in found.items()} == {
            "n": ([7], 1),
            "pair": ([1.0, 2.0, 3.0, 4.0], 4),
            "var": ([0, 1, 2], 3),
            "b": ([97, 0, 98], 3),
            "s": ([0xC3, 0xA9], 2),
            "when": ([5], 1),
        }
        assert all(view.readonly for view, _ in found.values())
        assert found["n"][0].nbytes == 4
        with pytest.raises(KeyError):
            m["l"].get_ptr("n")
        with pytest.raises(ValueError, match="no attribute 'nope'"):
            m["k"].get_ptr("nope")


# --- orders of arguments that TileDB's C++ had ---


def test_attributes_as_tiledb_1_3_had_them(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
    with Map(ctx, uri, ["a2"]) as m:
        assert m["k"] == 2.0
        m.close()
        m.open(["a1"])
        m.reopen()
        assert m["k"] == 1
        with pytest.raises(io.UnsupportedOperation):
            m["k"] = 2


def test_encryption_as_tiledb_1_6_had_it(uri: str, tmp_path: Path) -> None:
    key = "0123456789abcdeF0123456789abcdeF"
    assert Map.encryption_type(ctx, uri) is TILEDB_NO_ENCRYPTION
    assert (TILEDB_NO_ENCRYPTION, TILEDB_AES_256_GCM) == (0, 1)
    with pytest.raises(FileNotFoundError):
        Map.encryption_type(ctx, str(tmp_path / "none"))
    with Map(ctx, uri, TILEDB_READ, TILEDB_NO_ENCRYPTION, None, 0) as m:
        assert not m["k"]
    with pytest.raises(ValueError, match="is not encrypted"):
        Map(ctx, uri, TILEDB_READ, TILEDB_AES_256_GCM, key, 32)
    with pytest.raises(ValueError, match="of the length that is given, 31"):
        Map(ctx, uri, TILEDB_READ, TILEDB_AES_256_GCM, key, 31)
    with pytest.raises(TypeError, match="the key and its length"):
        Map(ctx, uri, TILEDB_READ, TILEDB_AES_256_GCM, key)
    with pytest.raises(ValueError, match="does not encrypt"):
        Map.create(str(tmp_path / "new"), two_attributes(), TILEDB_AES_256_GCM, key, 32)
    Map.create(str(tmp_path / "new"), two_attributes(), TILEDB_NO_ENCRYPTION, None, 0)


# --- a handle's life ---


def test_accessors(uri: str) -> None:
    before = time.time_ns() // 1_000_000
    m = Map(ctx, uri)
    after = time.time_ns() // 1_000_000
    assert m.context() is ctx
    assert (m.uri(), m.is_open()) == (uri, True)
    assert before <= m.timestamp() <= after
    assert repr(m) == f"<tilekv.Map {uri!r} attributes=['a1', 'a2']>"
    assert "'k'" in repr(m["k"])
    m.close()
    m.close()
    assert not m.is_open()
    assert not m.is_dirty()
    assert repr(m).endswith("closed>")


def test_opening_creates_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "none")
    for call in (
        lambda: Map(ctx, uri),
        lambda: Map(ctx, uri, TILEDB_READ),
        lambda: MapSchema(ctx, uri),
        lambda: Map.consolidate(ctx, uri),
    ):
        with pytest.raises(FileNotFoundError, match="no key-value store"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_close_gives_up_the_buffer_when_told_so(one: str) -> None:
    with Map(ctx, one) as m:
        m["k"] = 1
        m.close(discard=True)
    with Map(ctx, one) as m:
        assert not m.has_key("k")


def test_close_flushes_and_open_opens_again(uri: str) -> None:
    m = Map(ctx, uri)
    with pytest.raises(TileDBError, match="already open"):
        m.open()
    m["k"] = (1, 2.0)
    item = m["k"]
    assert m.is_dirty()
    m.close()
    m.open(TILEDB_READ)
    assert not m.is_dirty()
    assert m["k"]["a1"] == item["a1"] == 1
    with pytest.raises(io.UnsupportedOperation):
        m["k"] = (2, 2.0)


USES: list[Callable[[Map], Any]] = [
    lambda m: m["k"]["a1"],
    lambda m: m["k"].good(),
    lambda m: m["k"].__setitem__(["a1", "a2"], (1, 2.0)),
    lambda m: m.__setitem__("k", (1, 2.0)),
    lambda m: m.get_item("k"),
    lambda m: m.has_key("k"),
    lambda m: "k" in m,
    lambda m: m.add_item(Map.create_item(ctx, "k")),
    list,
    MapIter,
    lambda m: m.flush(),
    lambda m: m.reopen(),
    lambda m: m.reopen_at(5),
    lambda m: m.__enter__(),
]


@numbered(USES)
def test_use_after_close(uri: str, call: Callable[[Map], Any]) -> None:
    m = Map(ctx, uri)
    m.close()
    with pytest.raises(ValueError, match="closed"):
        call(m)


WRITES: list[Callable[[Map], Any]] = [
    lambda m: m["k"].__setitem__(["a1", "a2"], (1, 2.0)),
    lambda m: m.__setitem__("k", (1, 2.0)),
    lambda m: m.get_item("k").__setitem__("a1", 1),
    lambda m: m.add_item(m.get_item("k")),
    lambda m: m.flush(),
]


@numbered(WRITES)
def test_read_only(uri: str, call: Callable[[Map], Any]) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (0, 0.0)
    for handle in (Map(ctx, uri, TILEDB_READ), Map(ctx, uri, attributes=["a1", "a2"])):
        with handle as m, pytest.raises(io.UnsupportedOperation):
            call(m)


def test_some_attributes(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
    with Map(ctx, uri, attributes=["a2"]) as m:
        assert m["k"]["a2"] == m["k"].get() == m.get_item("k").get() == next(iter(m)).get() == 2.0
        with pytest.raises(ValueError, match="no attribute 'a1'"):
            m["k"]["a1"]
        m.close()
        m.open(attributes=["a1"])
        assert m["k"].get() == 1
    with pytest.raises(ValueError, match="there is no attribute 'nope'"):
        Map(ctx, uri, attributes=["nope"])
    with pytest.raises(TypeError, match="not str"):
        Map(ctx, uri, attributes="a1")
    with pytest.raises(ValueError, match="read only"):
        Map(ctx, uri, TILEDB_WRITE, attributes=["a1"])


@pytest.mark.parametrize("query_type", [2, "r"])
def test_query_types_that_are_none(uri: str, query_type: Any) -> None:
    with pytest.raises(ValueError, match="TILEDB_READ or TILEDB_WRITE"):
        Map(ctx, uri, query_type)


def test_max_buffered_items(one: str) -> None:
    with Map(ctx, one) as m:
        m.set_max_buffered_items(2)
        m[0] = 0
        m[1]["a"] = 1
        for n in range(2, 5):
            item = m[n]
            item.set(n)
            m.add_item(item)
        assert fragments(one) == 2
        assert m.is_dirty()
        with pytest.raises(ValueError, match="at least 1"):
            m.set_max_buffered_items(0)
        with pytest.raises(TypeError, match="an int, not str"):
            m.set_max_buffered_items("2")  # type: ignore[arg-type]
    with Map(ctx, one, TILEDB_READ) as m:
        assert [m[n].get() for n in range(5)] == list(range(5))


def test_reopen(uri: str) -> None:
    with Map(ctx, uri, TILEDB_READ) as reader, Map(ctx, uri) as writer:
        writer["k"] = (1, 2.0)
        writer.flush()
        item = reader["k"]
        assert not item.good()
        reader.reopen()
        assert item["a1"] == 1


def test_time_travel(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 1.0)
        m.flush()
        then = m.store.fragments[0].t2
        m["k"] = (2, 2.0)
    with Map(ctx, uri, TILEDB_READ) as m:
        assert m["k"]["a1"] == 2
        m.reopen_at(then)
        assert (m["k"]["a1"], m.timestamp()) == (1, then)
        m.reopen()
        assert m["k"]["a1"] == 2
        assert m.timestamp() >= m.store.fragments[0].t2 > then
    with Map(ctx, uri, TILEDB_READ, then) as m:
        assert (m["k"]["a1"], m.timestamp()) == (1, then)
        m.close()
        m.open(TILEDB_READ, then)
        assert m["k"]["a1"] == 1
    with Map(ctx, uri) as m, pytest.raises(ValueError, match="'r'"):
        m.reopen_at(then)
    with pytest.raises(ValueError, match="'r'"):
        Map(ctx, uri, TILEDB_WRITE, then)


def test_open_shows_another_map_that_took_its_place(uri: str) -> None:
    m = Map(ctx, uri)
    m.close()
    with tilekv.open(uri, "w", schema=Schema([Attr("only", str)])) as db:
        db["k"] = "v"
    m.open(TILEDB_READ)
    assert m["k"].get() == "v"
    m.close()


def test_reopen_at_in_another_map_that_took_its_place(uri: str) -> None:
    with Map(ctx, uri, TILEDB_READ) as m:
        tilekv.open(uri, "w", schema=Schema([Attr("only", str)])).close()
        with pytest.raises(tilekv.StoreReplacedError, match="was replaced"):
            m.reopen_at(1 << 60)


def test_consolidate_while_it_is_open(uri: str) -> None:
    with Map(ctx, uri) as m, Map(ctx, uri, TILEDB_READ) as reader:
        for n in range(3):
            m[n] = (n, 0.0)
            m.flush()
        m["buffered"] = (9, 0.0)
        reader.reopen()
        Map.consolidate(ctx, uri)
        assert fragments(uri) == 1
        assert len(list(Path(uri).glob("__[0-9]*_*"))) == 1  # the merged ones are gone
        assert [reader[n]["a1"] for n in range(3)] == [0, 1, 2]
        m.flush()
        m.reopen()
        assert len(list(m)) == 4
    Map.consolidate(ctx, uri, {"kv.threads": 1, "sm.consolidation.steps": 1})
    Map.consolidate(ctx, uri)
    assert fragments(uri) == 1
    with pytest.raises(ValueError, match="no config key"):
        Map.consolidate(ctx, uri, {"sm.consolidation.step": 1})


def test_consolidating_an_empty_map(uri: str) -> None:
    Map.consolidate(ctx, uri)
    assert fragments(uri) == 0


def test_pickle(uri: str) -> None:
    with Map(ctx, uri) as m:
        m["k"] = (1, 2.0)
        m.flush()
        with pickle.loads(pickle.dumps(m)) as other:
            assert other["k"]["a1"] == 1


def test_object(uri: str, tmp_path: Path) -> None:
    found = Object.object(ctx, uri)
    assert found.type() is Object.Type.KeyValue
    assert found.type().value == 3
    assert found.uri() == uri
    assert Object.object(ctx, str(tmp_path)).type() is Object.Type.Invalid

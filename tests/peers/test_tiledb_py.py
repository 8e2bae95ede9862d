"""What the KV tests of TileDB-Py 0.2.1, 0.3.1 and 0.4.4 ask (README.md), in the orders of arguments of each."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv as tiledb

ctx = tiledb.Ctx()
BYTES = {"dtype": bytes}

# (attribute, schema, create, load, open): by version, as its tests write them.
Calls = dict[str, Callable[..., Any]]
FIRST: Calls = {
    "attr": lambda name, **kw: tiledb.Attr(ctx, name, **kw),
    "schema": lambda **kw: tiledb.KVSchema(ctx, **kw),
    "create": lambda uri, schema: tiledb.KV.create(ctx, uri, schema),
    "load": lambda uri: tiledb.KVSchema.load(ctx, uri),
    "open": lambda uri, **kw: tiledb.KV(ctx, uri, **kw),
}
KEYWORD: Calls = {
    "attr": lambda name, **kw: tiledb.Attr(name, ctx=ctx, **kw),
    "schema": lambda **kw: tiledb.KVSchema(ctx=ctx, **kw),
    "create": lambda uri, schema: tiledb.KV.create(uri, schema, ctx=ctx),
    "load": lambda uri: tiledb.KVSchema.load(uri, ctx=ctx),
    "open": lambda uri, **kw: tiledb.KV(uri, ctx=ctx, **kw),
}


@pytest.fixture(params=[FIRST, KEYWORD], ids=["0.3.1", "0.4.4"])
def calls(request: pytest.FixtureRequest) -> Calls:
    found: Calls = request.param
    return found


@pytest.fixture
def foo(tmp_path: Path, calls: Calls) -> str:
    """An empty KV with one attribute of bytes."""
    uri = str(tmp_path / "foo")
    calls["create"](uri, calls["schema"](attrs=(calls["attr"]("value", **BYTES),)))
    return uri


def test_schema(tmp_path: Path, calls: Calls) -> None:
    a1 = calls["attr"]("a1", **BYTES)
    schema = calls["schema"](attrs=(a1,), capacity=10000)
    assert isinstance(schema, tiledb.KVSchema)
    assert schema.attr("a1") == schema.attr(0) == a1
    assert schema.capacity == 10000
    calls["create"](str(tmp_path / "kv"), schema)
    assert calls["load"](str(tmp_path / "kv")) == schema


def test_contains(foo: str, calls: Calls) -> None:
    with calls["open"](foo, mode="r") as kv:
        assert isinstance(kv.timestamp, int)
        assert kv.timestamp > 0
        assert "foo" not in kv
    with calls["open"](foo, mode="w") as kv:
        kv["foo"] = "bar"
    with calls["open"](foo, mode="r") as kv:
        assert "foo" in kv


def test_write_close_read(foo: str, calls: Calls) -> None:
    kv = calls["open"](foo, mode="w")
    kv["foo"] = "bar"
    kv.close()
    del kv
    with calls["open"](foo, mode="r") as kv:
        assert kv["foo"] == "bar"
        assert "foo" in kv
        assert "bar" not in kv
        with pytest.raises(KeyError):
            kv["not here"]


def test_handle_of_0_2(foo: str) -> None:
    """It has no mode, and nobody closes it."""
    kv = tiledb.KV(ctx, foo)
    assert "foo" not in kv
    kv["foo"] = "bar"
    assert "foo" in kv
    kv["foo"] = "baz"
    kv.reopen()
    assert kv["foo"] == "baz"
    assert "baz" not in kv
    kv["other"] = "foo"
    assert kv.dict() == dict(kv) == {"foo": "baz", "other": "foo"}
    with pytest.raises(KeyError):
        kv["not here"]
    with pytest.warns(ResourceWarning):
        del kv
    with tiledb.KV(ctx, foo) as kv:
        assert kv["foo"] == "baz"


@pytest.mark.parametrize("consolidated", [False, True])
def test_the_last_of_three_writers_wins(foo: str, calls: Calls, consolidated: bool) -> None:
    for value in ("bar", "baz", "bza"):
        kv = calls["open"](foo, mode="w")
        kv["foo"] = value
        kv.close()
    with calls["open"](foo, mode="w") as kv:
        if consolidated:
            kv.consolidate()
    assert calls["open"](foo, mode="r")["foo"] == "bza"


def test_reopening_shows_what_was_flushed_since(foo: str, calls: Calls) -> None:
    with calls["open"](foo, mode="w") as kv1:
        kv1["foo"] = "bar"
        kv1.flush()
        with calls["open"](foo, mode="r") as kv2:
            assert "foo" in kv2
            kv1["bar"] = "baz"
            kv1.flush()
            assert "bar" not in kv2
            kv2.reopen()
            assert "bar" in kv2


def test_dict(foo: str, calls: Calls) -> None:
    with calls["open"](foo, mode="w") as kv:
        kv["foo"] = "bar"
        kv["baz"] = "foo"
    with calls["open"](foo, mode="r") as kv:
        assert kv.dict() == dict(kv) == {"foo": "bar", "baz": "foo"}


def test_timestamps(foo: str, calls: Calls) -> None:
    with calls["open"](foo, mode="w") as kv:
        kv["foo"] = "bar"
    with calls["open"](foo, mode="r") as kv:
        assert kv["foo"] == "bar"
        first = kv.timestamp
    assert first > 0
    time.sleep(0.01)
    with calls["open"](foo, mode="r") as kv:
        assert kv.timestamp > first
        assert kv["foo"] == "bar"
    with calls["open"](foo, mode="w") as kv:
        kv["foo"] = "baz"
        kv["aaa"] = "bbb"
    with calls["open"](foo, mode="r") as kv:
        second = kv.timestamp
        assert second > first
        assert (kv["foo"], kv["aaa"]) == ("baz", "bbb")
    with calls["open"](foo, timestamp=first, mode="r") as kv:
        assert kv.timestamp == first
        assert kv["foo"] == "bar"
    with calls["open"](foo, timestamp=second, mode="r") as kv:
        assert kv.timestamp == second
        assert (kv["foo"], kv["aaa"]) == ("baz", "bbb")


def test_several_attributes(tmp_path: Path, calls: Calls) -> None:
    """The old tests stop at opening: what follows was a known failure there."""
    uri = str(tmp_path / "kv")
    attrs = (calls["attr"]("ints", dtype=int), calls["attr"]("floats", dtype=float))
    calls["create"](uri, calls["schema"](attrs=attrs))
    for options in ({"mode": "r"}, {"attrs": ("ints", "floats")}):
        with calls["open"](uri, **options) as kv:
            assert isinstance(kv, tiledb.KV)
    with calls["open"](uri, mode="w") as kv:
        kv["foo"] = {"ints": 1, "floats": 2.0}
        assert (kv["foo"]["ints"], kv["foo"]["floats"]) == (1, 2.0)
    with pytest.raises(tiledb.TileDBError, match="there is no attribute 'nope'"):
        calls["open"](uri, attrs=("nope",))


def test_encryption_is_refused(tmp_path: Path, calls: Calls) -> None:
    schema = calls["schema"](attrs=(calls["attr"]("value", **BYTES),))
    with pytest.raises(tiledb.TileDBError, match="does not encrypt"):
        tiledb.KV.create(str(tmp_path / "kv"), schema, key=b"0123456789abcdeF" * 2, ctx=ctx)


def test_contexts_and_configs() -> None:
    assert isinstance(tiledb.default_ctx(), tiledb.Ctx)
    assert isinstance(tiledb.default_ctx().config(), tiledb.Config)
    config = tiledb.Config()
    config["sm.tile_cache_size"] = 100
    for made in (
        tiledb.Ctx(config),
        tiledb.Ctx({"sm.tile_cache_size": 100}),
        tiledb.Ctx(config={"sm.tile_cache_size": "100"}),
    ):
        assert made.config()["sm.tile_cache_size"] == "100"
    assert list(config.items())
    del config["sm.tile_cache_size"]
    assert config["sm.tile_cache_size"] == tiledb.Config()["sm.tile_cache_size"]


def test_attributes_and_filters() -> None:
    anonymous = tiledb.Attr(ctx=ctx)
    assert anonymous.isanon
    assert (anonymous.name, anonymous.dtype) == ("", float)
    assert tiledb.Attr("foo", ctx=ctx).dtype == float
    assert tiledb.Attr("foo", ctx=ctx, dtype=bytes).isvar
    gzip = tiledb.GzipFilter(ctx=ctx, level=9)
    reduced = tiledb.BitWidthReductionFilter(ctx=ctx, window=10)
    filters = tiledb.FilterList([gzip, reduced], chunksize=1024, ctx=ctx)
    assert (filters.chunksize, len(filters), len(list(filters))) == (1024, 2, 2)
    assert (filters[0].level, filters[1].window) == (9, 10)
    attr = tiledb.Attr("foo", ctx=ctx, dtype="int64", filters=filters)
    assert (len(attr.filters), attr.filters.chunksize) == (2, 1024)
    grown = tiledb.FilterList(ctx=ctx)
    grown.append(tiledb.GzipFilter(ctx=ctx))
    assert len(grown) == 1


def test_groups(tmp_path: Path) -> None:
    top, below = str(tmp_path / "group1"), str(tmp_path / "group1" / "group2")
    tiledb.group_create(top, ctx=ctx)
    tiledb.group_create(below, ctx=ctx)
    assert tiledb.object_type(below, ctx=ctx) == "group"
    tiledb.move(below, below + "_moved", ctx=ctx)
    assert tiledb.object_type(below, ctx=ctx) is None
    assert tiledb.object_type(below + "_moved", ctx=ctx) == "group"
    tiledb.remove(top, ctx=ctx)
    assert tiledb.object_type(top, ctx=ctx) is None

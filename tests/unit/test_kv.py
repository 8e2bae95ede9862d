"""TileDB's Python face: KV, KVSchema, Ctx, object_type, and TileDB's config keys."""

import io
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import KV, Attr, Config, Ctx, KVSchema, Schema, TileDBError, object_type

TEXT = Schema([Attr("a1", bytes)])
MIXED = [Attr("tag", bytes), Attr("n", "int32"), Attr("word", str)]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A store with one bytes attribute, a1."""
    made = str(tmp_path / "store")
    KV.create(made, KVSchema(attrs=[Attr("a1", bytes)]))
    return made


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    made = str(tmp_path / "mixed")
    KV.create(made, KVSchema(attrs=MIXED))
    return made


def fragments(uri: str) -> int:
    with tilekv.open(uri) as db:
        return len(db.fragments)


# --- calls, with the context first, by keyword, and left out ---


def numbered(calls: list[Any]) -> pytest.MarkDecorator:
    """Run a test with each of the calls."""
    return pytest.mark.parametrize("call", calls, ids=[f"call{i}" for i in range(len(calls))])


CREATES: list[Callable[[Ctx, str], Any]] = [
    lambda ctx, uri: KV.create(ctx, uri, KVSchema(ctx, attrs=[Attr(ctx, name="a1", dtype=bytes)])),
    lambda ctx, uri: KV.create(
        uri, KVSchema(attrs=[Attr(name="a1", dtype=bytes, ctx=ctx)], ctx=ctx), ctx=ctx
    ),
    lambda ctx, uri: KV.create(uri, KVSchema(None, [Attr("a1", bytes)])),
    lambda ctx, uri: KV.create(uri=uri, schema=KVSchema(attrs=[Attr("a1", bytes)], capacity=None)),
]


@numbered(CREATES)
def test_create(tmp_path: Path, call: Callable[[Ctx, str], Any]) -> None:
    uri = str(tmp_path / "store")
    assert call(Ctx(), uri) is None
    with tilekv.open(uri) as db:
        assert db.schema == TEXT


OPENS: list[Callable[[Ctx, str], KV]] = [
    lambda ctx, uri: KV(ctx, uri, "a"),
    lambda ctx, uri: KV(ctx, uri, mode="w"),
    lambda ctx, uri: KV(uri, ctx=ctx),
    lambda ctx, uri: KV(uri, "w", ctx=ctx),
    lambda ctx, uri: KV(uri, "w", None, None, ctx),
    lambda ctx, uri: KV(uri, ctx, "w"),
    lambda _, uri: KV(uri),
    lambda _, uri: KV(Path(uri)),
    lambda _, uri: KV(uri=uri, mode="a", key=None, timestamp=None, encoding="utf-8"),
    KV,
]


@numbered(OPENS)
def test_open(uri: str, call: Callable[[Ctx, str], KV]) -> None:
    with call(Ctx({"kv.threads": 1}), uri) as kv:
        assert kv.mode == "a"
        kv["foo"] = "bar"
        assert kv["foo"] == "bar"
        assert kv.uri == uri


def test_the_context_has_the_options(uri: str) -> None:
    ctx = Ctx({"kv.buffer_bytes": 1})  # every write flushes itself
    for n, kv in enumerate([KV(ctx, uri), KV(uri, ctx=ctx)], 1):
        kv[f"key {n}"] = "value"
        kv.close(discard=True)
        assert not kv.isopen
        assert fragments(uri) == n


def test_close_gives_up_the_buffer_when_told_so(uri: str) -> None:
    with KV(uri) as kv:
        kv["foo"] = "bar"
        kv.close(discard=True)
    assert dict(KV(uri, "r")) == {}


def test_object_type(uri: str, tmp_path: Path) -> None:
    assert object_type(uri) == object_type(Ctx(), uri) == object_type(uri, ctx=Ctx()) == "kv"
    assert object_type(Ctx(), Path(uri)) == "kv"
    assert object_type(str(tmp_path)) is None
    assert object_type(str(tmp_path / "nothing")) is None
    (tmp_path / "file").write_bytes(b"")
    assert object_type(str(tmp_path / "file")) is None


def test_object_type_of_a_store_of_tiledb(tmp_path: Path) -> None:
    (tmp_path / "__kv_schema.tdb").write_bytes(b"")
    assert object_type(tmp_path) == "kv"


def test_contexts_that_are_none(uri: str) -> None:
    with pytest.raises(TypeError, match=r"a context is a tilekv\.Ctx, not dict"):
        KV(uri, ctx={})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="twice"):
        KV(Ctx(), uri, ctx=Ctx())
    with pytest.raises(TypeError, match="twice"):
        KV(Ctx(), uri, Ctx())


def test_calls_without_a_context_have_the_default_one() -> None:
    assert tilekv.default_ctx() is tilekv.default_ctx()
    assert tilekv.default_ctx().config() == Config()


# --- config ---


def test_keys_of_tiledb() -> None:
    config = Ctx(
        {
            "sm.tile_cache_size": "10000000",
            "sm.num_tbb_threads": "3",
            "sm.consolidation.max_fragment_size": 5,
            "kv.sync": "false",
        }
    ).config()
    assert config == Config(cache_bytes=10**7, threads=3, max_fragment_bytes=5, sync=False)
    assert Config({"sm.compute_concurrency_level": 2}) == Config(threads=2)
    assert Ctx(config).config() == config
    assert Config(config) == config
    assert Config({"kv.threads": 2}, threads=9, sync=False) == Config(threads=2, sync=False)
    assert repr(Ctx({"sm.num_tbb_threads": 2})) == "Ctx({'kv.threads': 2})"
    assert repr(Ctx()) == "Ctx()"


def test_tilekv_open_takes_them(uri: str) -> None:
    with tilekv.open(uri, config={"sm.tile_cache_size": 7}) as db:
        assert db._config.cache_bytes == 7


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("sm.tile_cache_sise", "sm.tile_cache_size"), ("kv.thread", "kv.threads")],
)
def test_unknown_keys(key: str, nearest: str) -> None:
    with pytest.raises(TileDBError, match=f"no config key '{key}'; the nearest is '{nearest}'"):
        Ctx({key: "1"})


def test_an_option_that_is_set_twice() -> None:
    with pytest.raises(ValueError, match=r"sm\.tile_cache_size and kv\.cache_bytes are the same"):
        Config({"sm.tile_cache_size": 1, "kv.cache_bytes": 2})


def test_a_source_that_is_no_mapping() -> None:
    with pytest.raises(TypeError, match="must be a mapping or a Config, not list"):
        Ctx([("kv.threads", 1)])  # type: ignore[arg-type]


# --- schema ---


def test_schema() -> None:
    schema = KVSchema(attrs=MIXED, capacity=7)
    assert (schema.capacity, schema.nattr) == (7, 3)
    assert schema.attr(0) == schema.attr("tag") == MIXED[0]
    assert schema == KVSchema(Ctx(), attrs=iter(MIXED), capacity=7)
    assert hash(schema) == hash(KVSchema(attrs=MIXED, capacity=7))
    assert schema != KVSchema(attrs=MIXED)
    assert schema != MIXED
    assert eval(repr(schema), {"KVSchema": KVSchema, "Attr": Attr}) == schema


def test_schema_dump(capsys: pytest.CaptureFixture[str]) -> None:
    schema = KVSchema(attrs=[Attr("a1", bytes), Attr("p", "float32", shape=(3,), filters=[])])
    into = io.StringIO()
    schema.dump()
    schema.dump(into)
    assert capsys.readouterr().out == into.getvalue()
    assert into.getvalue().splitlines()[-5:] == [
        "### Attribute ###",
        "- Name: p",
        "- Type: FLOAT32",
        "- Cell val num: (3,)",
        "- Filters: none",
    ]


def test_schema_load(uri: str) -> None:
    for loaded in (
        KVSchema.load(uri),
        KVSchema.load(Ctx(), uri),
        KVSchema.load(uri, None, ctx=Ctx()),
        KVSchema.load(uri, Ctx()),
        KVSchema.load(uri, Ctx(), None),
    ):
        assert loaded == KVSchema(attrs=[Attr("a1", bytes)])
    with pytest.raises(FileNotFoundError):
        KVSchema.load(uri + "x")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "at least one attribute"),
        ({"attrs": ["a1"]}, TypeError, "Attr objects"),
        ({"attrs": MIXED, "capacity": 0}, ValueError, "capacity"),
        ({"attrs": [MIXED[0], MIXED[0]]}, ValueError, "'tag' and 'tag'"),
        ({"attrs": MIXED, "domain": (0, 9)}, ValueError, "leave domain out"),
    ],
)
def test_schemas_that_are_refused(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        KVSchema(**arguments)
    assert isinstance(caught.value, TileDBError)


@pytest.mark.parametrize("which", [1, -1, "nope"])
def test_attributes_that_are_not_there(uri: str, which: Any) -> None:
    with KV(uri) as kv, pytest.raises(TileDBError, match="there is no attribute"):
        kv.attr(which)


@pytest.mark.parametrize("which", [1.5, None, True])
def test_attributes_asked_for_by_something_else(uri: str, which: Any) -> None:
    with KV(uri) as kv, pytest.raises(TypeError, match="by name or index"):
        kv.attr(which)


# --- create and open: what is refused ---


def test_create_never_overwrites(uri: str, tmp_path: Path) -> None:
    with KV(uri) as kv:
        kv["a"] = "1"
    with pytest.raises(FileExistsError):
        KV.create(uri, KVSchema(attrs=[Attr("other", "int32")]))
    assert KV(uri, "r")["a"] == "1"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter").write_bytes(b"dear")
    with pytest.raises(FileExistsError):
        KV.create(str(tmp_path / "folder"), KVSchema(attrs=[Attr("a1", bytes)]))


def test_create_without_a_schema(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"schema is a tilekv\.KVSchema, not Schema"):
        KV.create(str(tmp_path / "store"), TEXT)  # type: ignore[call-overload]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("mode", ["a", "r", "w"])
def test_opening_creates_nothing(tmp_path: Path, mode: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no key-value store") as caught:
        KV(str(tmp_path / "store"), mode)
    assert isinstance(caught.value, TileDBError)
    assert list(tmp_path.iterdir()) == []


def test_mode_w_truncates_nothing(uri: str) -> None:
    with KV(uri) as kv:
        kv["a"] = "1"
    with KV(uri, "w") as kv:
        kv["b"] = "2"
        assert kv.dict() == {"a": "1", "b": "2"}


@pytest.mark.parametrize("mode", ["x", "rw", ""])
def test_modes_that_are_not_there(uri: str, mode: Any) -> None:
    with pytest.raises(ValueError, match="mode is 'a', 'r' or 'w'"):
        KV(uri, mode)


def test_keys_of_encryption_are_refused(uri: str) -> None:
    """tilekv writes nothing encrypted; what TileDB 1.x encrypted is read in tests/compat."""
    with KV(uri) as kv:
        for call in (
            lambda: KV(uri, "r", b"k" * 32),
            lambda: KVSchema.load(uri, b"k" * 32),
            lambda: KV.create(uri + "2", KVSchema(attrs=[Attr("a1", bytes)]), b"k" * 32),
            lambda: kv.consolidate(key=b"k" * 32),  # type: ignore[arg-type]
        ):
            with pytest.raises(ValueError, match=r"does not encrypt|is not encrypted"):
                call()


# --- a dict of pairs ---


def test_like_a_dict(uri: str) -> None:
    with KV(uri) as kv:
        assert not kv
        kv.update({"foo": "bar", "é": "€"}, u1="1")
        kv.update([("foo", "baz"), ("empty", "")])
        kv[""] = "v\0v"
        expected = {"foo": "baz", "é": "€", "u1": "1", "empty": "", "": "v\0v"}
        assert kv.dict() == dict(kv) == dict(list(kv)) == expected
        assert kv == expected
        assert expected == kv
        assert kv != expected | {"foo": "bar"}
        assert kv != 5
        assert kv != {"foo": "baz", "é": "€", "u1": "1", "empty": "", b"": "v\0v"}
        assert len(kv) == len(kv.items()) == len(kv.values()) == 5
        assert kv
        assert set(kv.keys()) == set(expected)
        assert set(kv.items()) == set(expected.items())
        assert sorted(kv.values()) == sorted(expected.values())
        assert "baz" in kv.values()
        assert "bar" not in kv.values()
        assert ("foo", "baz") in kv.items()
        assert ("foo", "bar") not in kv.items()
        assert "foo" in kv.keys()  # noqa: SIM118 - that is what is tested
        assert kv.get("foo") == "baz"
        assert kv.get("zz") is None
        assert kv.get("zz", 7) == 7
        assert "zz" not in kv
        with pytest.raises(KeyError):
            kv["zz"]
        with pytest.raises(KeyError):
            del kv["zz"]
        del kv["foo"]
        assert "foo" not in kv
        with pytest.raises(TypeError, match="unhashable"):
            hash(kv)


def test_update_from_another(uri: str, mixed: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    KV.create(other, KVSchema(attrs=[Attr("b", bytes)]))

    class Keyed:
        def keys(self) -> list[str]:
            return ["k"]

        def __getitem__(self, key: str) -> str:
            return key * 3

    with KV(uri) as kv, KV(other) as second:
        second.update(Keyed(), x="y")
        kv.update(second)
        assert kv == second == {"k": "kkk", "x": "y"}


@pytest.mark.parametrize("other", [{"a": "1", "b": 2}, [("a", "1"), "b"], [("a", "1", 2)], 5])
def test_a_bad_update_writes_nothing(uri: str, other: Any) -> None:
    with KV(uri) as kv:
        with pytest.raises((TypeError, ValueError), match=r"takes str|pairs") as caught:
            kv.update(other)
        assert isinstance(caught.value, TileDBError)
        assert len(kv) == 0


@pytest.mark.parametrize("key", ["s", b"s", 1, 1.0, np.datetime64(1, "s"), 2**63], ids=repr)
def test_keys_keep_their_types(uri: str, key: Any) -> None:
    with KV(uri) as kv:
        kv[key] = "1"
        kv.flush()
        (found,) = kv.keys()
        assert found == key
        assert type(found) is type(key)


def test_one_fragment_a_flush(uri: str) -> None:
    with KV(uri) as kv:
        for i in range(5):
            kv[f"key {i}"] = str(i)
        assert fragments(uri) == 0
        kv.flush()
        assert fragments(uri) == 1
        kv["key 0"] = "x"
    assert fragments(uri) == 2
    with KV(uri, "r") as kv:
        assert kv["key 0"] == "x"


def test_no_key_is_lost(uri: str) -> None:
    items = {f"key_{i:04}": str(i) for i in range(1000)}  # of which TileDB 1.x lost some
    with KV(uri) as kv:
        kv.update(items)
    with KV(uri, "r") as kv:
        assert kv == items


# --- text and bytes ---


def test_text(uri: str) -> None:
    with KV(uri, encoding="latin-1") as kv:
        kv["a"] = "é"
        with pytest.raises(ValueError, match="'a1': 'latin-1' codec can't encode") as caught:
            kv["b"] = "€"
        assert isinstance(caught.value, TileDBError)
    with tilekv.open(uri) as db:
        assert dict(db) == {"a": b"\xe9"}


def test_bytes(uri: str) -> None:
    with KV(uri, encoding=None) as kv:
        kv["a"] = b"\xff\0"
        assert kv.dict() == {"a": b"\xff\0"}
        with pytest.raises(TypeError, match="takes bytes, not str"):
            kv["b"] = "text"
        assert "b" not in kv
    with KV(uri) as kv:
        with pytest.raises(
            UnicodeDecodeError, match=r"'a1' is not text: KV\(\.\.\., encoding=None"
        ):
            kv["a"]
        with pytest.raises(TileDBError, match="encoding=None"):
            kv.dict()
        with pytest.raises(
            TypeError, match=r"takes str, .* not bytes: KV\(\.\.\., encoding=None\)"
        ):
            kv["b"] = b"bytes"
        assert "b" not in kv


def test_several_attributes(mixed: str) -> None:
    row = {"tag": "é", "n": 1, "word": "€"}
    with KV(mixed) as kv:
        kv["dict"] = row
        kv["tuple"] = tuple(row.values())
        assert kv["dict"] == kv["tuple"] == kv.get("dict") == row
        kv.flush()
        assert kv.dict() == {"dict": row, "tuple": row}
        for bad in (
            {"tag": b"bytes", "n": 1, "word": ""},
            {"tag": "", "n": 1, "word": b"bytes"},
            (b"bytes", 1, ""),
            "bare",
        ):
            with pytest.raises(TypeError):
                kv["bad"] = bad
        for wrong in ({"tag": ""}, ("", 1), row | {"x": 1}):
            with pytest.raises(ValueError, match=r"attributes|values"):
                kv["bad"] = wrong
        with pytest.raises(OverflowError, match="'n'"):
            kv["bad"] = ("", 1 << 40, "")
        assert "bad" not in kv
    with KV(mixed, "r", encoding=None) as kv:
        assert kv["dict"] == row | {"tag": "é".encode()}


def test_values_of_any_type(tmp_path: Path) -> None:
    uri = str(tmp_path / "numbers")
    KV.create(uri, KVSchema(attrs=[Attr("v", "float64", var=True)]))
    with KV(uri) as kv:
        kv[1] = [1.5, 2.5]
        assert kv[1].tolist() == [1.5, 2.5]
        with pytest.raises(ValueError, match="1-d"):
            kv[2] = [[1.0]]


@pytest.mark.parametrize("encoding", ["", "hex", "no such", "a\0b"])
def test_encodings_that_are_none(uri: str, encoding: str) -> None:
    with pytest.raises(TileDBError, match="encoding="):
        KV(uri, encoding=encoding)
    with pytest.raises(TypeError, match="a str or None"):
        KV(uri, encoding=8)  # type: ignore[call-overload]


# --- a handle's life ---


def test_attributes_of_a_handle(uri: str) -> None:
    kv = KV(uri)
    assert kv.isopen
    assert (kv.mode, kv.nattr) == ("a", 1)
    assert kv.schema == KVSchema(attrs=[Attr("a1", bytes)])
    assert kv.attr(0) == kv.attr("a1") == Attr("a1", bytes)
    assert repr(kv) == f"<tilekv.KV {uri!r} mode='a' attrs=[a1]>"
    kv.close()
    kv.close()
    assert not kv.isopen
    assert repr(kv).endswith("closed>")


USES: list[Callable[[KV], Any]] = [
    lambda kv: kv["a"],
    lambda kv: kv.__setitem__("a", "1"),
    lambda kv: kv.__delitem__("a"),
    lambda kv: "a" in kv,
    len,
    bool,
    list,
    lambda kv: kv.get("a"),
    lambda kv: list(kv.keys()),
    lambda kv: list(kv.values()),
    lambda kv: list(kv.items()),
    lambda kv: kv.dict(),
    lambda kv: kv.update(a="1"),
    lambda kv: kv.flush(),
    lambda kv: kv.reopen(),
    lambda kv: kv.reopen(5),
    lambda kv: kv.consolidate(),
    lambda kv: kv.__enter__(),
]


@numbered(USES)
def test_use_after_close(uri: str, call: Callable[[KV], Any]) -> None:
    kv = KV(uri)
    kv.close()
    with pytest.raises(ValueError, match="closed"):
        call(kv)


WRITES: list[Callable[[KV], Any]] = [
    lambda kv: kv.__setitem__("b", "1"),
    lambda kv: kv.__delitem__("a"),
    lambda kv: kv.update(a="1"),
    lambda kv: kv.flush(),
    lambda kv: kv.consolidate(),
]


@numbered(WRITES)
def test_read_only(uri: str, call: Callable[[KV], Any]) -> None:
    with KV(uri) as kv:
        kv["a"] = "0"
    with KV(uri, "r") as kv:
        with pytest.raises(io.UnsupportedOperation) as caught:
            call(kv)
        assert isinstance(caught.value, TileDBError)
        assert kv == {"a": "0"}


def test_reopen_shows_what_others_wrote(uri: str) -> None:
    with KV(uri, "r") as reader, KV(uri) as writer:
        writer["a"] = "1"
        writer.flush()
        assert "a" not in reader
        reader.reopen()
        assert reader["a"] == "1"


def test_time_travel(uri: str) -> None:
    with KV(uri) as kv:
        kv["a"] = "1"
        kv.flush()
        then = kv.store.fragments[0].t2
        kv.update({"a": "2", "b": "2"})
    with KV(uri, timestamp=then) as kv:
        assert (kv.dict(), kv.timestamp, kv.mode) == ({"a": "1"}, then, "r")
        kv.reopen()
        assert kv.dict() == {"a": "2", "b": "2"}
        kv.reopen(timestamp=then)
        assert (kv.dict(), kv.timestamp) == ({"a": "1"}, then)
    with pytest.raises(ValueError, match="'r'"):
        KV(uri, "a", timestamp=then)
    with KV(uri) as kv:
        kv["c"] = "3"
        with pytest.raises(ValueError, match="'r'"):
            kv.reopen(then)
        assert kv["c"] == "3"


def test_the_timestamp_is_the_moment_of_opening(uri: str) -> None:
    before = time.time_ns() // 1_000_000
    with KV(uri) as kv:
        opened = kv.timestamp
        assert before <= opened <= time.time_ns() // 1_000_000
        kv["a"] = "1"
        kv.flush()
        shown = kv.timestamp  # its own flush belongs to what it shows
        assert kv.store.fragments[0].t2 <= shown
        with KV(uri, timestamp=shown) as then:
            assert (then.dict(), then.timestamp) == ({"a": "1"}, shown)
        with KV(uri, timestamp=opened - 1) as then:
            assert then.dict() == {}
        time.sleep(0.002)
        kv.reopen()
        assert kv.timestamp > shown
    assert kv.timestamp > shown


@pytest.mark.parametrize("config", [None, {"kv.threads": 1}])
def test_consolidate(uri: str, config: Any) -> None:
    with KV(uri) as kv, KV(uri, "r") as reader:
        for i in range(4):
            kv[f"key {i}"] = str(i)
            kv.flush()
        reader.reopen()
        kv["last"] = "4"
        kv.consolidate(config=config)
        assert len(kv) == len(kv.dict()) == 5
        assert len(kv.store.fragments) == fragments(uri) == 1
        assert len(list(Path(uri).glob("__[0-9]*_*"))) == 1  # the merged ones are gone
        assert len(reader.dict()) == 4  # and still there for who sees them


def test_consolidate_refuses_options_it_does_not_know(uri: str) -> None:
    with KV(uri) as kv, pytest.raises(ValueError, match="no config key"):
        kv.consolidate({"sm.consolidation.step": 2})


def test_pickle(uri: str) -> None:
    with KV(uri, encoding="latin-1") as kv:
        kv["a"] = "é"
        kv.flush()
        with pickle.loads(pickle.dumps(kv)) as other:
            assert other == {"a": "é"}


def test_one_engine(uri: str) -> None:
    with KV(uri) as kv:
        kv["kv"] = "1"
    with tilekv.open(uri, "a") as db:
        db["store"] = b"2"
    with tilekv.Map(Ctx(), uri) as m:
        m["map"]["a1"] = b"3"
    expected = {"kv": "1", "store": "2", "map": "3"}
    with KV(uri, "r") as kv, tilekv.open(uri) as db, tilekv.Map(Ctx(), uri) as m:
        assert kv == expected
        assert dict(db) == {key: value.encode() for key, value in expected.items()}
        assert {item.key(): item["a1"].decode() for item in m} == expected
        for key in expected:
            assert key in kv
            assert key in db
            assert m.has_key(key)

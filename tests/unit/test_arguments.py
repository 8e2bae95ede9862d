"""What is no whole number, bool, word or file is refused in words that name the argument, however odd it is."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import Attr, Ctx, InvalidValueError, KVSchema, MapSchema, Schema, WrongTypeError
from tilekv.arguments import is_one_of, truth, whole

ARRAY: Any = np.array([1, 2])
ATTR = Attr("a", bytes)
STRUCTURED: Any = np.zeros(2, [("a", "i4")])


class Own(Exception):
    pass


class Raises:
    def __index__(self) -> int:
        raise Own


def test_whole_numbers() -> None:
    for given in (3, np.int8(3), np.array(3)):
        assert whole("it", given) == 3
        assert type(whole("it", given)) is int
    for odd in (True, 3.0, "3", None, ARRAY, np.bool_(True), int, [3]):
        with pytest.raises(WrongTypeError, match=f"it is an int, not {type(odd).__name__}"):
            whole("it", odd)
    with pytest.raises(Own):  # the caller's, and it tells more
        whole("it", Raises())


def test_bools() -> None:
    assert truth("it", np.bool_(True)) is True
    assert truth("it", False) is False
    for odd in (1, 0, None, "true", ARRAY, np.array(True)):
        with pytest.raises(WrongTypeError, match="it is True or False"):
            truth("it", odd)


def test_words() -> None:
    assert is_one_of("r", ("r", "a"))
    assert is_one_of(1, {1: 2})
    for odd in ("x", None, ["r"], ARRAY, np.array(["r", "a"]), memoryview(bytearray(1))):
        assert not is_one_of(odd, ("r", "a"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tilekv.Config(threads=ARRAY), "kv.threads is an int, not ndarray"),
        (lambda: tilekv.Config({"kv.sync": ARRAY}), "kv.sync is True or False"),
        (lambda: Schema([ATTR], capacity=ARRAY), "capacity is an int, not ndarray"),
        (lambda: MapSchema(Ctx()).set_capacity([]), "capacity is an int, not list"),
        (lambda: tilekv.PositiveDeltaFilter(STRUCTURED), "window is an int, not ndarray"),
        (lambda: tilekv.FilterList()["a"], "the index of a filter is an int, not str"),
        (lambda: tilekv.ZstdFilter(ARRAY), "level is an int, not ndarray"),
        (lambda: ATTR.dump(5), "file is a text file that is open, not int"),
        (lambda: KVSchema(attrs=[ATTR]).dump("out"), "a text file that is open, not str"),
        (lambda: MapSchema(Ctx()).add_attribute(ATTR).dump(5), "a text file that is open, not int"),
        (lambda: KVSchema.of(ATTR), "schema is a tilekv.Schema, not Attr"),
        (lambda: MapSchema.of(Ctx(), b"k"), "schema is a tilekv.Schema, not bytes"),
        (lambda: tilekv.Key(4, 5), "the data of a key is bytes, not int"),
        (lambda: tilekv.open("memory://none", ignore_newer=ARRAY), "ignore_newer is True or False"),
    ],
)
def test_what_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(WrongTypeError, match=message):
        call()


def test_what_is_no_word_is_no_choice() -> None:
    for call in (
        lambda: Schema([ATTR], digest=ARRAY),
        lambda: tilekv.open("memory://none", ARRAY),
        lambda: tilekv.walk("memory://none", print, ARRAY),
        lambda: Attr("a", int, compressor=(ARRAY, 1)),
    ):
        with pytest.raises(InvalidValueError):
            call()
    assert not MapSchema(Ctx()).has_attribute(ARRAY)
    assert ARRAY not in tilekv.Config()
    assert tilekv.Config().get(ARRAY, 5) == 5


def test_handles() -> None:
    with tilekv.open("memory://arguments", "a") as db:
        for call in (
            lambda: db.close(discard=ARRAY),
            lambda: db.consolidate(vacuum=ARRAY),
            lambda: db.vacuum(progress=ARRAY),
            lambda: db.read([])[5],
            lambda: db.read([])["value"][:1],
            lambda: db.read([])["value"]["a"],
        ):
            with pytest.raises(WrongTypeError):
                call()
        assert not db.closed


def test_memory_that_was_released() -> None:
    """A memoryview says ValueError itself, of nothing in particular."""
    released = memoryview(b"gone")
    released.release()
    with tilekv.open("memory://released", "a") as db:
        for call in (
            lambda: db.get(released),
            lambda: db[released],
            lambda: released in db,
            lambda: db.pop(released, None),
            lambda: db.put_many([(released, b"")]),
            lambda: db.put_many([("a", released)]),
            lambda: tilekv.Key(4, released),
        ):
            with pytest.raises(InvalidValueError, match=r"cannot be read: .*released"):
                call()
        assert not len(db)


def test_arrays_without_a_dimension() -> None:
    """`Sized`, and without a length."""
    several = Schema([ATTR, Attr("b", bytes)])
    with tilekv.open("memory://dimensions", "a", schema=several) as db:
        odd: Any = np.array(5)
        with pytest.raises(WrongTypeError, match=r"values must be a list .* of no dimension"):
            db.put_many([], odd)
        with pytest.raises(WrongTypeError, match=r"keys must be a list .* of no dimension"):
            db.put_many(odd, [])


def test_memory_that_cannot_be_iterated() -> None:
    released = memoryview(b"gone")
    released.release()
    several = Schema([ATTR, Attr("b", bytes)])
    for schema in (None, several):
        with tilekv.open(f"memory://iterated{schema}", "a", schema=schema) as db:
            odd: Any
            for odd in (
                released,
                memoryview(np.array(5)),
                memoryview(np.zeros((2, 2))),
                memoryview(np.array([1], ">i4")),
            ):
                for call in (
                    lambda odd=odd: db.put_many([], odd),
                    lambda odd=odd: db.put_many(odd, []),
                    lambda odd=odd: db.get_many(odd),
                    lambda odd=odd: db.read(odd),
                    lambda odd=odd: db.delete_many(odd),
                ):
                    with pytest.raises(InvalidValueError, match=r"^(keys|values) cannot be read: "):
                        call()
            assert db.get_many(memoryview(b"ab")) == [None, None]


def test_records_are_no_values() -> None:
    """NumPy raises where one is compared with what is none."""
    records: Any = np.zeros(2, [("a", "i4")])
    with tilekv.open("memory://records", "a", schema=Schema([Attr("v", int, shape=2)])) as db:
        db["a"] = [0, 0]
        for odd in (np.void(b"ab"), records, records[0]):
            assert odd not in db.values()
            assert ("a", odd) not in db.items()
            assert db != {"a": odd}
    with tilekv.open("memory://bytes", "a") as db:
        db["a"] = b"ab"
        assert np.void(b"ab") not in db.values()


def test_items_of_a_map() -> None:
    ctx = Ctx()
    item = tilekv.MapItem("a")
    item.set("n", len)
    with pytest.raises(TypeError):
        tilekv.MapItem("a", 0)  # type: ignore[call-arg]
    schema = MapSchema(ctx).add_attribute(tilekv.Attr("n", int))
    tilekv.Map.create("memory://items", schema)
    with tilekv.Map(ctx, "memory://items") as m:
        m["a"] = 1
        item = m.get_item("a")
        for odd in (len, "\ud83d", [[1], [1, 2]]):
            item.set(odd)
            with pytest.raises(WrongTypeError, match="attribute 'n', not yet written, has no el"):
                item.get_ptr("n")
        item.set("no such", 5)
        assert item.get_ptr("no such")[1] == 1


def test_keys_that_no_dict_can_have() -> None:
    tilekv.KV.create("memory://array", KVSchema(attrs=[ATTR]))
    with tilekv.KV("memory://array") as kv:
        kv[np.array([1, 2])] = "x"
        with pytest.raises(WrongTypeError, match=r"is an array.*: use items\(\)"):
            kv.dict()
        assert len(list(kv.items())) == 1


def test_arguments_that_python_cannot_write_out() -> None:
    """An int of over 4,300 digits has no repr; other arguments have a long one."""
    huge: Any = 10**5000
    for call in (
        lambda: tilekv.verify(huge),
        lambda: Attr(huge, int),
        lambda: Attr("a", huge),
        lambda: Attr("a", int, shape=huge),
        lambda: Attr("a", int, shape=(-huge, 2)),
        lambda: Schema([huge]),
        lambda: Schema([ATTR], digest=huge),
        lambda: Schema([ATTR], capacity=huge),
        lambda: MapSchema(Ctx()).add_attribute(ATTR).set_capacity(huge).check(),
        lambda: MapSchema(Ctx()).attribute(huge),
        lambda: tilekv.ZstdFilter(huge),
        lambda: tilekv.FilterList([huge]),
        lambda: tilekv.Config(threads=huge),
        lambda: tilekv.Config()[huge],
        lambda: tilekv.open("memory://none", huge),
        lambda: tilekv.walk("memory://none", print, huge),
        lambda: tilekv.Key(huge, b""),
        lambda: tilekv.MapSchema(Ctx(), "a", tilekv.TILEDB_AES_256_GCM, b"", huge),
    ):
        with pytest.raises(tilekv.TileKVError) as error:
            call()
        str(error.value)
    assert "capacity=<int>" in repr(MapSchema(Ctx()).set_capacity(huge))
    with tilekv.open("memory://huge", "a") as db:
        for call in (
            lambda: db.close(discard=huge),
            lambda: db.scan(huge),
            lambda: db.scan(rows=-huge),
            lambda: db.read([], missing=huge),
            lambda: db.read([])[huge],
            lambda: db[huge],
        ):
            with pytest.raises(tilekv.TileKVError) as error:
                call()
            str(error.value)
    with pytest.raises(InvalidValueError, match=r"not \[0, 0, .{180,200}\.\.\.$"):
        tilekv.open("memory://none", [0] * 10**6)  # type: ignore[call-overload]


def test_a_context_in_the_place_of_a_uri() -> None:
    odd: Any = Ctx()
    for call in (lambda: MapSchema(Ctx(), odd), lambda: tilekv.Map(Ctx(), odd)):
        with pytest.raises(WrongTypeError, match="a store's URI is a str or a path"):
            call()


def test_where_salvage_puts_what_is_stale() -> None:
    tilekv.open("memory://sound", "x").close()
    odd: Any
    for odd, error in ((ARRAY, WrongTypeError), ("", InvalidValueError)):
        with pytest.raises(error, match="a store's URI"):
            tilekv.salvage("memory://sound", "memory://salvaged", stale=odd)
        assert tilekv.object_type("memory://salvaged") is None


def test_files_are_what_can_be_written_to() -> None:
    out = io.StringIO()
    ATTR.dump(out)
    KVSchema(attrs=[ATTR]).dump(out)
    MapSchema(Ctx()).add_attribute(ATTR).dump(out)
    assert out.getvalue().count("- Name: a\n") == 3

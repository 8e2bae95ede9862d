"""Store and KV answer as a dict does, whatever they are asked for."""

import copy
import os
import pickle
import shelve
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv.errors import InvalidValueError, KeyNotFoundError, OutOfRangeError, WrongTypeError

# What cannot be a key, and the class of the error for writing it.
NO_KEYS: list[tuple[Any, type[Exception]]] = [
    (None, WrongTypeError),
    ((1, 2), WrongTypeError),
    (True, WrongTypeError),
    (1j, WrongTypeError),
    (frozenset((1,)), WrongTypeError),
    (..., WrongTypeError),
    (np.complex128(1), WrongTypeError),
    (2**64, OutOfRangeError),
    (-(2**63) - 1, OutOfRangeError),
    ("lone \ud83d", InvalidValueError),
    ("spells \udcc3\udca9", InvalidValueError),
]
UNHASHABLE: list[Any] = [[1], {}, {1}, np.zeros((2, 2))]


@pytest.fixture(params=["empty", "buffered", "flushed", "both"])
def db(request: pytest.FixtureRequest, store: Callable[..., tilekv.Store]) -> tilekv.Store:
    made = store()
    if request.param in ("flushed", "both"):
        made.update({"a": b"1", 2: b"2", b"": b"3"})
        made.flush()
    if request.param in ("buffered", "both"):
        made["b"] = b"4"
    return made


@pytest.fixture
def kv() -> Iterator[tilekv.KV]:
    uri = f"memory://{uuid.uuid4().hex}"
    tilekv.KV.create(uri, tilekv.KVSchema(attrs=[tilekv.Attr("value", bytes)]))
    with tilekv.KV(uri) as opened:
        yield opened


@pytest.mark.parametrize(("key", "error"), NO_KEYS, ids=ascii)
def test_what_cannot_be_a_key_is_not_there(
    db: tilekv.Store, key: Any, error: type[Exception]
) -> None:
    before = dict(db)
    assert key not in db
    assert key not in db.keys()  # noqa: SIM118
    assert (key, b"1") not in db.items()
    assert db.get(key) is None
    assert db.get(key, 7) == 7
    assert db.pop(key, 5) == 5
    assert db != {key: b"1"}
    assert db != {**before, key: b"1"}
    asked = [*before, key, "a"]
    assert db.get_many(asked) == [db.get(each) for each in asked]
    batch = db.read([key, *before], missing="mask")
    assert batch.found is not None
    assert batch.found.tolist() == [False] + [True] * len(before)
    assert batch["value"].to_list() == [b"", *before.values()]
    assert batch.keys == [key, *before]
    missing: list[Callable[[], object]] = [
        lambda: db[key],
        lambda: db.pop(key),
        lambda: db.__delitem__(key),
        lambda: db.read([*before, key]),
    ]
    for call in missing:
        with pytest.raises(KeyNotFoundError, match="key") as caught:
            call()
        assert caught.value.args == (key,)
        assert caught.value.reason is not None
        assert caught.value.reason in str(caught.value)
    written: list[Callable[[], object]] = [
        lambda: db.__setitem__(key, b""),
        lambda: db.setdefault(key, b""),
        lambda: db.update({key: b""}),
        lambda: db.put_many([key], [b""]),
        lambda: db.put_many([key], value=[b""]),
        lambda: db.delete_many([key]),
    ]
    for call in written:
        with pytest.raises(error, match="key"):
            call()
    assert dict(db) == before


@pytest.mark.parametrize("key", UNHASHABLE, ids=repr)
def test_what_no_dict_can_be_asked_for(db: tilekv.Store, key: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: key in db,
        lambda: db[key],
        lambda: db.get(key),
        lambda: db.pop(key, 5),
        lambda: db.get_many([key]),
        lambda: db.read([key], missing="mask"),
        lambda: db.__setitem__(key, b""),
    ]
    for call in calls:
        with pytest.raises(WrongTypeError, match="a key must be"):
            call()


def test_the_error_of_a_callers_own_hash() -> None:
    class Odd:
        def __hash__(self) -> int:
            raise ZeroDivisionError

    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x") as db, pytest.raises(ZeroDivisionError):
        db.get(Odd())


def test_names_of_files_are_keys_and_their_escaped_bytes_are_no_second_one() -> None:
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x") as db:
        name = os.fsdecode(b"bad\xff\xc3\xa9")
        db[name] = b"1"
        assert (db[name], list(db), name in db) == (b"1", [name], True)
        db["\u00e9"] = b"2"
        assert db["\u00e9"] == b"2"
        assert db.get_many(["\u00e9", "\udcc3\udca9", "\ud83d"]) == [b"2", None, None]
        for text in ("\ud83d", "\udcc3\udca9", "x\udc80\ud800", "\udcff\udcc3\udca9"):
            with pytest.raises(InvalidValueError, match=r"lone surrogates .*\\ud") as caught:
                db[text] = b"3"
            str(caught.value).encode()  # can be printed


def test_not_found_keeps_its_reason() -> None:
    plain, refused = KeyNotFoundError("a"), KeyNotFoundError((1, 2), "a key must be str")
    assert (str(plain), plain.reason) == ("a", None)
    assert str(refused) == "(1, 2): a key must be str"
    for one in (plain, refused):
        again = pickle.loads(pickle.dumps(one))
        assert (again.args, again.reason, str(again)) == (one.args, one.reason, str(one))


def test_pairs_that_are_none(db: tilekv.Store, kv: tilekv.KV) -> None:
    for mapping in (db, kv):
        for pairs in ([(1, 2, 3)], [()], [["a"]]):
            with pytest.raises(ValueError, match=f"not of {len(pairs[0])} objects"):
                mapping.update(pairs)
        for no_pairs in ([1], [None], ["ab"]):
            with pytest.raises(TypeError, match="pairs"):
                mapping.update(no_pairs)


def test_values_are_equal_by_what_they_hold() -> None:
    attrs = [tilekv.Attr("n", "int32", shape=(2,)), tilekv.Attr("v", "float64", var=True)]
    row = {"n": np.array([1, 2], "int32"), "v": np.array([0.5])}
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x", schema=tilekv.Schema(attrs)) as db:
        db["a"] = row
        assert db == {"a": row}
        assert db == {"a": {"n": [1, 2], "v": (0.5,)}}
        assert ("a", row) in db.items()
        assert row in db.values()
        for other in (
            {"n": [1, 3], "v": [0.5]},
            {"n": [1, 2], "v": [0.5, 0.5]},
            {"n": [1, [2]], "v": [0.5]},
            {"n": [1, 2]},
            {"n": ["1", "2"], "v": [0.5]},
            5,
        ):
            assert db != {"a": other}
            assert ("a", other) not in db.items()
            assert other not in db.values()
        assert ("b", row) not in db.items()
        assert "a" not in db.items()
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x", schema=tilekv.Schema(attrs[1:])) as one:
        one.put_many({"a": [1.0, 2.0], "b": []})
        assert one == {"b": np.zeros(0), "a": np.array([1, 2])}
        assert one != {"a": np.array([1, 2]), "b": None}


def test_an_iterator_goes_on_to_its_end_after_close(tmp_path: Path) -> None:
    items = {i: b"%d" % i for i in range(5000)}
    db = tilekv.open(tmp_path / "s", "x")
    db.update(items)
    db.flush()
    db["late"] = b"buffered"
    keys, pairs, scan = iter(db), iter(db.items()), iter(db.scan(rows=1000))
    next(keys), next(pairs), next(scan)
    batch = db.read([1, 2])
    db.close()
    assert len(list(keys)) == len(list(pairs)) == 5000
    assert sum(map(len, scan)) == 4001
    assert batch["value"].to_list() == [b"1", b"2"]
    for call in (lambda: iter(db), lambda: list(db.items()), db.scan, db.sync):
        with pytest.raises(tilekv.ClosedError):
            call()


def test_a_handle_is_not_copied(db: tilekv.Store, kv: tilekv.KV) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    attr = tilekv.Attribute.create(tilekv.Ctx(), "a", int)
    tilekv.Map.create(uri, tilekv.MapSchema(tilekv.Ctx()).add_attribute(attr))
    with tilekv.Map(tilekv.Ctx(), uri) as opened:
        for handle in (db, kv, opened):
            for copied in (copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match=r"reopen.*pickle"):
                    copied(handle)


def test_a_shelf(tmp_path: Path) -> None:
    with shelve.Shelf(tilekv.open(tmp_path / "s", "x"), writeback=True) as shelf:
        shelf["list"] = [1]
        shelf["list"].append(2)
        shelf.sync()
        with tilekv.open(tmp_path / "s") as seen:
            assert list(seen) == [b"list"]
    with shelve.Shelf(tilekv.open(tmp_path / "s")) as shelf:
        assert dict(shelf) == {"list": [1, 2]}


def test_kv_as_a_dict(kv: tilekv.KV) -> None:
    model: dict[Any, Any] = {}
    for mapping in (kv, model):
        mapping.update(a="1", b="2")
    assert kv.pop("a") == model.pop("a") == "1"
    assert kv.pop("a", None) is None
    assert kv.pop((1, 2), default=5) == 5
    for call in (lambda: kv.pop("a"), lambda: kv.pop((1, 2)), lambda: kv[None]):
        with pytest.raises(KeyNotFoundError):
            call()
    assert kv.setdefault("b", "3") == model.setdefault("b", "3") == "2"
    assert kv.setdefault("c", "3") == model.setdefault("c", "3") == "3"
    assert kv == model
    with pytest.raises(TypeError, match="takes str"):
        kv.setdefault("d")
    taken = dict([kv.popitem(), kv.popitem()])
    assert taken == model
    with pytest.raises(KeyError, match="empty"):
        kv.popitem()
    kv.update(model)
    kv.clear()
    assert (len(kv), kv.dict()) == (0, {})


@pytest.mark.parametrize("odd", [None, 5, 2**70, 1j, np.zeros((2, 2)), [None]], ids=repr)
def test_odd_arguments_are_named(odd: Any) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    calls: list[tuple[str, Callable[[], object]]] = [
        ("mode", lambda: tilekv.open(uri, odd)),
        ("mode", lambda: tilekv.KV(uri, [odd])),  # type: ignore[arg-type]
        ("missing", lambda: tilekv.open(uri, "a").read([], missing=odd)),
        ("attrs", lambda: tilekv.open(uri, "a").read([], attrs=[odd])),
        ("URI", lambda: tilekv.open("\ud83d")),
    ]
    for word, call in calls:
        with pytest.raises(tilekv.TileKVError, match=f"{word}|attribute"):
            call()
    with pytest.raises(WrongTypeError, match="rows is an int"):
        tilekv.open(uri, "a").scan(rows="5")  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match="attrs is a list"):
        tilekv.Schema(5)  # type: ignore[arg-type]
    with pytest.raises(KeyNotFoundError, match="empty"):
        tilekv.open(uri, "a").popitem()

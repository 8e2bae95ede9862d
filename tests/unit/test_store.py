"""Store: a dict that is kept. Its contract is the list in docs/design.md 2.1."""

import datetime as dt
import gc
import io
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from faulty import Faults, meet
from tilekv.errors import (
    ClosedError,
    InvalidValueError,
    ReadOnlyError,
    WrongTypeError,
)


@pytest.fixture
def filled(db: tilekv.Store) -> tilekv.Store:
    db.put_many([(i, b"%d" % i) for i in range(10)])
    db.flush()
    db.put_many([(i, b"%d" % i) for i in range(10, 15)])
    return db


def model() -> dict[Any, bytes]:
    return {i: b"%d" % i for i in range(15)}


# --- a mapping ----------------------------------------------------------------------------------


def test_it_is_a_mapping(filled: tilekv.Store) -> None:
    assert isinstance(filled, MutableMapping)
    assert dict(filled) == model()
    assert filled == model()
    assert filled != {1: b"1"}
    assert filled != 1
    assert (len(filled), bool(filled)) == (15, True)
    with pytest.raises(TypeError, match="unhashable"):
        hash(filled)
    with pytest.raises(TypeError, match="reversible"):
        reversed(filled)  # type: ignore[call-overload]


def test_views(filled: tilekv.Store) -> None:
    keys, values, items = filled.keys(), filled.values(), filled.items()
    assert set(keys) == set(range(15))
    assert sorted(values) == sorted(model().values())
    assert dict(items) == model()
    assert list(zip(keys, values, strict=True)) == list(items)
    assert (len(keys), len(values), len(items)) == (15, 15, 15)
    assert 3 in keys
    assert b"3" in values
    assert (3, b"3") in items
    assert 99 not in keys
    assert b"99" not in values
    assert (3, b"4") not in items
    assert keys & {1, 99} == {1}
    assert items - set(list(model().items())[1:]) == {(0, b"0")}
    filled[99] = b"99"  # views are of the store, not of a moment
    assert 99 in keys
    assert len(items) == 16
    assert "Store" in repr(items)


def test_views_are_lazy(filled: tilekv.Store) -> None:
    iterator = iter(filled.items())
    before = dict(filled)
    filled.clear()
    filled.flush()
    assert dict(iterator) == before
    assert list(filled.items()) == []


def test_pop(filled: tilekv.Store) -> None:
    expected = model()
    assert filled.pop(3) == expected.pop(3)
    assert filled.pop(12) == expected.pop(12)
    assert filled.pop(3, b"default") == b"default"
    with pytest.raises(KeyError):
        filled.pop(3)
    while expected:
        key, value = filled.popitem()
        assert expected.pop(key) == value
        assert filled == expected
    with pytest.raises(KeyError):
        filled.popitem()
    assert not filled


def test_setdefault_and_update(db: tilekv.Store) -> None:
    assert db.setdefault("a", b"1") == b"1"
    assert db.setdefault("a", b"2") == b"1"
    db.update({"b": b"2"}, c=b"3")
    db.update([("d", b"4"), ("a", b"5")])
    db.update(e=b"6")
    db.update()
    db.update({})
    same = db
    same |= {"f": b"7"}
    same |= [("f", b"8"), ("g", b"9")]
    assert same is db
    assert (db.pop("f"), db.pop("g")) == (b"8", b"9")
    with pytest.raises(TypeError):
        same |= 5

    class Keyed:
        """All that dict.update asks for."""

        def keys(self) -> list[str]:
            return ["f", "g"]

        def __getitem__(self, key: str) -> bytes:
            return key.encode()

    db.update(Keyed())
    assert db == {"a": b"5", "b": b"2", "c": b"3", "d": b"4", "e": b"6", "f": b"f", "g": b"g"}
    with tilekv.open("memory://update", "w") as other:
        other.update(db)
        other.put_many(db)
        assert other == db
        assert db == other


def test_equality_tells_keys_of_different_types_apart(db: tilekv.Store) -> None:
    db[1], db[1.0] = b"int", b"float"
    assert db != {1: b"float"}
    assert db != {1: b"int"}


def test_delete(filled: tilekv.Store) -> None:
    del filled[3]
    with pytest.raises(KeyError):
        del filled[3]
    with pytest.raises(KeyError) as caught:
        filled["missing"]
    assert caught.value.args == ("missing",)
    filled.delete_many([4, "never there", 4])
    assert 4 not in filled
    filled.clear()
    assert len(filled) == 0
    assert not filled
    filled.flush()
    assert list(filled) == []
    assert (
        filled.info().tombstones == 16
    )  # a delete always buffers one: another writer may hold the key


def test_order_is_that_of_the_digests(filled: tilekv.Store) -> None:
    from tilekv.kvcore.hashing.digest import DIGESTS, coordinates

    cells = [(1, key.to_bytes(8, "little")) for key in filled]
    found = coordinates(DIGESTS["blake2b"], cells)
    assert found == sorted(found)
    first = list(filled)
    filled.flush()
    assert list(filled) == first


# --- modes, closing -----------------------------------------------------------------------------

WRITES: list[Callable[[tilekv.Store], object]] = [
    lambda db: db.__setitem__("k", b"v"),
    lambda db: db.__delitem__(1),
    lambda db: db.put_many([("k", b"v")]),
    lambda db: db.put_many(["k"], [b"v"]),
    lambda db: db.put_many(["k"], value=[b"v"]),
    lambda db: db.put_many([]),
    lambda db: db.delete_many([1]),
    lambda db: db.delete_many([]),
    lambda db: db.pop(1),
    lambda db: db.popitem(),
    lambda db: db.setdefault("k", b"v"),
    lambda db: db.update({"k": b"v"}),
    lambda db: db.update(k=b"v"),
    lambda db: db.clear(),
    lambda db: db.flush(),
]
READS: list[Callable[[tilekv.Store], object]] = [
    lambda db: db[1],
    lambda db: db.get(1),
    lambda db: 1 in db,
    len,
    bool,
    iter,
    lambda db: list(db.keys()),
    lambda db: list(db.values()),
    lambda db: list(db.items()),
    lambda db: 1 in db.keys(),  # noqa: SIM118 - the view is what is tested
    lambda db: db == {},
    lambda db: db.get_many([1]),
    lambda db: db.get_many([]),
    lambda db: db.read([1]),
    lambda db: db.scan(),
    lambda db: db.verify(),
    lambda db: db.reopen(),
    lambda db: db.info(),
    lambda db: db.fragments,
    pickle.dumps,
    lambda db: db.__enter__(),
]


def test_mode_r_refuses_every_write(filled: tilekv.Store) -> None:
    filled.flush()
    with tilekv.open(filled.uri) as reader:
        for write in WRITES:
            with pytest.raises(ReadOnlyError, match="reading only"):
                write(reader)
        assert issubclass(ReadOnlyError, io.UnsupportedOperation)
        for read in READS:
            read(reader)
        assert len(reader) == 15
        assert reader.info().buffered == 0


def test_every_method_after_close(filled: tilekv.Store) -> None:
    db = tilekv.open(filled.uri, "a")
    views = db.keys(), db.values(), db.items()
    db.close()
    db.close()
    assert db.closed
    for use in [*WRITES, *READS, lambda db: db.update(), lambda db: db.update({})]:
        with pytest.raises(ClosedError, match="closed") as caught:
            use(db)
        assert isinstance(caught.value, ValueError)
    for view in views:
        with pytest.raises(ClosedError):
            list(view)
    # What needs no store goes on.
    assert "closed" in repr(db)
    assert (db.uri, db.mode, db.timestamp) == (filled.uri, "a", None)
    assert db.schema == filled.schema


def test_close_gives_up_the_buffer_when_told_so(tmp_path: Path) -> None:
    faults = Faults()
    with tilekv.open(tmp_path / "s", "x") as db:
        db["kept"] = b"1"
        db.flush()
        db["given up"] = b"2"
        del db["kept"]
        meet(db, faults)
        db.close(discard=True)
        db.close(discard=True)
        assert db.closed
    assert faults.calls == []  # nothing is read or written, at the end of `with` neither
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"kept": b"1"}
        db.close(discard=True)


def test_with_flushes_what_was_assigned_before_an_exception(tmp_path: Path) -> None:
    def fail() -> None:
        with tilekv.open(tmp_path / "s", "a") as db:
            db["before"] = b"1"
            raise RuntimeError("the user's")

    with pytest.raises(RuntimeError, match="the user's"):
        fail()
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"before": b"1"}


def test_a_handle_sees_its_own_flushes_and_no_others(tmp_path: Path) -> None:
    one, two = (tilekv.open(tmp_path / "s", "a") for _ in range(2))
    one["key"] = b"one"
    one.flush()
    two["key"] = b"two"
    two.flush()
    assert (one["key"], two["key"]) == (b"one", b"two")
    one.reopen()
    two["buffered"] = b"stays"
    two.reopen()
    assert (one["key"], two["key"], two["buffered"]) == (b"two", b"two", b"stays")
    assert "buffered" not in one
    one.close()
    two.close()


def test_a_flush_of_nothing_writes_nothing(db: tilekv.Store) -> None:
    db.flush()
    db.close()
    with tilekv.open(db.uri) as again:
        assert again.info().fragments == 0


def test_a_handle_that_is_collected_with_a_buffer(tmp_path: Path) -> None:
    db = tilekv.open(tmp_path / "s", "x")
    db["key"] = b"value"
    held = [db]
    del db
    with pytest.warns(ResourceWarning, match="never closed"):
        held.clear()
    with tilekv.open(tmp_path / "s") as db:
        assert db["key"] == b"value"


def test_a_handle_that_is_collected_without_one(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tilekv.open(tmp_path / "s", "x")
        db = tilekv.open(tmp_path / "s", "a")
        db["key"] = b"value"
        db.flush()
        del db
        gc.collect()


def test_repr_does_no_input_or_output(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["k"] = b"v"
        db.flush()
        asked: list[str] = []

        class Untouchable:
            def __getattr__(self, name: str) -> None:
                asked.append(name)
                raise AssertionError(name)

        storage, db._engine.storage = db._engine.storage, Untouchable()  # type: ignore[assignment]
        text = repr(db)
        db._engine.storage = storage
        assert asked == []
        for part in ("Store", str(tmp_path / "s"), "mode='x'", "value"):
            assert part in text


def test_info(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many([(i, b"x" * 100) for i in range(10)])
        db.flush()
        db.delete_many([1, 2])
        db.flush()
        db["k"] = b"v"
        info = db.info()
        assert (info.fragments, info.cells, info.tombstones, info.buffered) == (2, 12, 2, 1)
        assert (info.uri, info.digest, info.attrs) == (
            str(tmp_path / "s"),
            "blake2b",
            ("value: bytes",),
        )
        stored = [path.stat().st_size for path in (tmp_path / "s").glob("*/*")]
        assert info.stored_bytes == sum(stored)


# --- pickling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "travels_as"), [("r", "r"), ("a", "a"), ("x", "a"), ("w", "a")])
def test_pickle(tmp_path: Path, mode: Any, travels_as: str) -> None:
    if mode in "ra":
        tilekv.open(tmp_path / "s", "x").close()
    config = {"kv.cache_bytes": 12345}
    with tilekv.open(tmp_path / "s", mode, config=config) as db:
        if mode != "r":
            db["k"] = b"v"
            with pytest.raises(InvalidValueError, match="flush it first"):
                pickle.dumps(db)
            db.flush()
        with pickle.loads(pickle.dumps(db)) as back:
            assert (back.mode, back.uri, dict(back)) == (travels_as, db.uri, dict(db))
            assert back._engine.opener.cache.budget == 12345
            if travels_as == "a":
                back["more"] = b"x"
                back.flush()


def test_pickle_keeps_the_timestamp(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        for i in range(2):
            db["k"] = b"%d" % i
            db.flush()
        moment = db.fragments[1].t2
    with (
        tilekv.open(tmp_path / "s", timestamp=moment) as db,
        pickle.loads(pickle.dumps(db)) as back,
    ):
        assert (back.timestamp, back["k"]) == (moment, b"0")


# --- timestamps ---------------------------------------------------------------------------------


def test_forms_of_a_timestamp(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["k"] = b"v"
        db.flush()
        t = db.fragments[0].t2
    at = dt.datetime.fromtimestamp(t / 1000, dt.UTC)
    ms = dt.timedelta(milliseconds=1)
    for moment, seen in [
        (t, 1),
        (t - 1, 0),
        (np.int64(t), 1),
        (at, 1),
        (at - ms, 0),
        (at.astimezone(dt.timezone(dt.timedelta(hours=5))), 1),
        (at.astimezone().replace(tzinfo=None), 1),  # naive: local time
        (np.datetime64(t, "ms"), 1),
        (np.datetime64(t - 1, "ms"), 0),
        (np.datetime64(t * 1000 + 999, "us"), 1),
        (np.datetime64("1970"), 0),
    ]:
        with tilekv.open(tmp_path / "s", timestamp=moment) as db:
            assert len(db) == seen
    with pytest.raises(InvalidValueError, match="not a time"):
        tilekv.open(tmp_path / "s", timestamp=np.datetime64("NaT", "ms"))
    with tilekv.open(tmp_path / "s", timestamp=dt.datetime.min) as db:  # noqa: DTZ901 - local time
        assert len(db) == 0
        assert abs(db.timestamp + 62_135_596_800_000) <= 86_400_000
    for last in (
        dt.datetime.max,  # noqa: DTZ901
        dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=23))),
    ):
        with tilekv.open(tmp_path / "s", timestamp=last) as db:
            assert len(db) == 1
            assert abs(db.timestamp - 253_402_300_799_999) <= 86_400_000
    for moment in (np.datetime64(2**62, "s"), np.datetime64(-(2**62), "Y")):
        with pytest.raises(OverflowError, match="64 bits of ms"):
            tilekv.open(tmp_path / "s", timestamp=moment)


def test_a_datetime_is_taken_to_the_millisecond(tmp_path: Path) -> None:
    tilekv.open(tmp_path / "s", "x").close()
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for i in range(0, 1000, 37):
        with tilekv.open(tmp_path / "s", timestamp=start + dt.timedelta(milliseconds=i)) as db:
            assert db.timestamp == 1_577_836_800_000 + i


# --- fork ---------------------------------------------------------------------------------------

FORK = """
import os, sys, tilekv
db = tilekv.open(sys.argv[1], "x")
db["flushed"] = b"1"
db.flush()
db["buffered"] = b"2"
iterator = iter(db)
child = os.fork()
if child == 0:
    try:
        assert dict(db) == {"flushed": b"1"}, dict(db)
        assert db.info().buffered == 0
        db["child"] = b"3"
        db.close()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert dict(db) == {"flushed": b"1", "buffered": b"2"}
db.reopen()
assert db["child"] == b"3"
db.close()
"""


def test_a_forked_child_has_a_handle_of_its_own(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", FORK, str(tmp_path / "s")], check=True
    )
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"flushed": b"1", "buffered": b"2", "child": b"3"}
        assert db.info().fragments == 3


# --- values -------------------------------------------------------------------------------------


def test_values_of_a_byte_to_a_hundred_megabytes(tmp_path: Path) -> None:
    sizes = [0, 1, 1000, 10**5, 10**6, 10**7, 10**8]
    block = os.urandom(1 << 16)
    values = {size: (block * (size // len(block) + 1))[:size] for size in sizes}
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        for size, value in values.items():
            db[size] = value
        for size, value in values.items():
            assert db[size] == value
    with tilekv.open(tmp_path / "s") as db:
        for size, value in values.items():
            assert db[size] == value
        assert db.get_many(sizes) == list(values.values())


def test_str_stores_refuse_bytes_and_the_other_way_round(db: tilekv.Store) -> None:
    with pytest.raises(WrongTypeError, match="encode it first"):
        db["k"] = "text"
    with tilekv.open("memory://text", "w", schema=tilekv.Schema([tilekv.Attr("t", str)])) as text:
        with pytest.raises(WrongTypeError, match="takes str"):
            text["k"] = b"bytes"
        text["k"] = "é"
        assert text["k"] == "é"

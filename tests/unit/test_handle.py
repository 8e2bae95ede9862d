"""kvcore.handle: batches, iterators and many threads on one handle."""

import gc
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv.errors import CorruptionError, InvalidValueError, KeyNotFoundError, WrongTypeError

SEVERAL = tilekv.Schema([tilekv.Attr("n", "int32"), tilekv.Attr("text", str)])


@pytest.fixture
def several(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    return store(schema=SEVERAL)


def put_one(store: tilekv.Store, rows: list[tuple[Any, Any]]) -> None:
    for key, value in rows:
        store[key] = value


# --- batches ------------------------------------------------------------------------------------

BAD = [(True, b"x"), (None, b"x"), ((1, 2), b"x"), (2**64, b"x"), ("k", "text"), ("k", None)]


@pytest.mark.parametrize(("key", "value"), BAD, ids=repr)
def test_one_bad_item_and_nothing_is_buffered(db: tilekv.Store, key: Any, value: Any) -> None:
    keys, values = ["a", "b", key, "c"], [b"1", b"2", value, b"3"]
    calls: list[Callable[[], None]] = [
        lambda: db.put_many(keys, values),
        lambda: db.put_many(zip(keys, values, strict=True)),
        lambda: db.put_many(keys, value=values),
        lambda: db.update(zip(keys, values, strict=True)),
    ]
    if value == b"x":
        calls.append(lambda: db.delete_many(keys))
    for call in calls:
        with pytest.raises((TypeError, OverflowError)):
            call()
        assert db.info().buffered == 0
        assert len(db) == 0


def test_lengths_that_differ(db: tilekv.Store) -> None:
    for keys, values in [([1, 2], [b"a"]), ([1], [b"a", b"b"]), ([], [b"a"])]:
        for some in (list, tuple):
            with pytest.raises(
                InvalidValueError, match=f"{len(keys)} keys, but {len(values)} values"
            ):
                db.put_many(some(keys), values)
        with pytest.raises(InvalidValueError, match=r"^\d+ keys, but|^\d+ values, but"):
            db.put_many(iter(keys), values)
        for given in (values, np.array(values), tuple(values)):
            with pytest.raises(
                InvalidValueError,
                match=f"{len(keys)} keys, but {len(values)} values in column 'value'",
            ):
                db.put_many(keys, value=given)
    assert db.info().buffered == 0


@pytest.mark.parametrize("n", [0, 2])
def test_lengths_that_are_found_out_on_the_way(db: tilekv.Store, n: int) -> None:
    for keys, values, says in (
        (iter(range(n)), itertools.repeat(b"a"), f"^{n} keys, but more values$"),
        (itertools.count(), [b"a"] * n, f"^{n} values, but more keys$"),
        (itertools.count(), (b"a" for _ in range(n)), f"^{n} values, but more keys$"),
    ):
        with pytest.raises(InvalidValueError, match=says):
            db.put_many(keys, values)
    assert db.info().buffered == 0
    db.put_many(iter(range(n)), iter([b"a"] * n))
    assert len(db) == n


def test_a_single_key_where_many_are_asked_for(db: tilekv.Store) -> None:
    calls: list[Callable[[], object]] = [
        lambda: db.put_many("ab", [b"1", b"2"]),
        lambda: db.put_many([1], b"a"),
        lambda: db.put_many([1], value=b"a"),
        lambda: db.put_many("ab"),
        lambda: db.put_many([b"xy"]),
        lambda: db.get_many("ab"),
        lambda: db.delete_many(b"ab"),
        lambda: db.read("ab"),
        lambda: db.read(["ab"], attrs="value"),
    ]
    for call in calls:
        with pytest.raises(WrongTypeError):
            call()
    assert db.info().buffered == 0


def test_duplicates_in_a_batch(db: tilekv.Store) -> None:
    db.put_many(["a", "b", "a"], [b"1", b"2", b"3"])
    assert dict(db) == {"a": b"3", "b": b"2"}
    assert db.get_many(["a", "a", "b", "a"]) == [b"3", b"3", b"2", b"3"]
    db.flush()
    assert db.read(["a", "a"])["value"].to_list() == [b"3", b"3"]


def test_several_attributes_in_and_out(several: tilekv.Store) -> None:
    several.put_many({1: {"n": 1, "text": "a"}, 2: (2, "b")})
    several.put_many([3, 4], [{"text": "c", "n": 3}, (4, "d")])
    several.put_many(np.array([5, 6]), n=np.array([5, 6], np.int8), text=["e", "f"])
    expected = [{"n": i, "text": chr(96 + i)} for i in range(1, 7)]
    for _ in range(2):
        assert several.get_many(range(1, 7)) == expected
        assert [several[i] for i in range(1, 7)] == expected
        assert list(several[1]) == ["n", "text"]
        only = several.read([6, 1], attrs=["text"])
        assert list(only) == ["text"]
        assert only["text"].to_list() == ["f", "a"]
        several.flush()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": 1}, "missing: 'text'"),
        ({}, "missing: 'n', 'text'"),
        ({"n": 1, "text": "a", "x": 0}, "unknown: 'x'"),
        ({"n": 1, "txt": "a"}, "missing: 'text'; attributes unknown: 'txt'"),
        ((1,), "2 values expected"),
        ((1, "a", 2), "2 values expected"),
    ],
    ids=repr,
)
def test_attributes_missing_or_unknown(several: tilekv.Store, value: Any, message: str) -> None:
    for call in (put_one, tilekv.Store.put_many):
        with pytest.raises(InvalidValueError, match=message):
            call(several, [("k", value)])
    assert several.info().buffered == 0


def test_names_that_are_no_text_are_unknown(several: tilekv.Store) -> None:
    with pytest.raises(InvalidValueError, match="unknown: <int>, 7"):
        several["k"] = {"n": 1, "text": "a", 10**5000: 0, 7: 0}  # Python writes no number so long


def test_columns_missing_or_unknown(several: tilekv.Store) -> None:
    with pytest.raises(InvalidValueError, match="missing: 'text'"):
        several.put_many([1], n=[1])
    with pytest.raises(InvalidValueError, match="unknown: 'x'"):
        several.put_many([1], n=[1], text=["a"], x=[1])
    with pytest.raises(WrongTypeError, match="not both"):
        several.put_many([1], [(1, "a")], n=[1], text=["a"])
    with pytest.raises(InvalidValueError, match="no attribute 'x'"):
        several.read([1], attrs=["x"])
    with pytest.raises(WrongTypeError, match="dict or a tuple"):
        several["k"] = 1
    assert several.info().buffered == 0


def test_numpy_keys_convert_one_by_one(db: tilekv.Store) -> None:
    for keys in (
        np.array([1, 2], np.int32),
        np.array([1, 2], np.int64),
        np.array([1, 2], np.float32),
        np.array(["a", "b"]),
        np.array([b"a", b"b"]),
        np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
    ):
        values = [str(keys.dtype).encode(), b"2"]
        db.put_many(keys, values)
        assert db.get_many(keys) == values
        assert db[keys[0]] == values[0]
        assert keys[1] in db
    assert db[1] == b"int64"
    assert db["a"] == b"<U1"
    assert db[b"a"] == b"|S1"
    assert len(db) == 10  # int32's are int64's


def test_a_batch_is_never_split_by_the_byte_budget(tmp_path: Path) -> None:
    """The buffer flushes itself between calls only."""
    config = {"kv.buffer_bytes": 10_000, "kv.upkeep": "off"}
    with tilekv.open(tmp_path / "s", "x", config=config) as db:
        for part in range(10):
            db.put_many([(f"{part}-{i}", b"x" * 100) for i in range(95)])
            db._join()
        assert db.info().fragments == 10
        assert all(fragment.cells == 95 for fragment in db.fragments)
        for i in range(300):
            db[i] = b"x" * 100
            db._join()
        assert [fragment.cells for fragment in db.fragments[:-10]] == [db.fragments[0].cells] * (
            len(db.fragments) - 10
        )
        assert len(db) == 1250


# --- columns ------------------------------------------------------------------------------------


def test_batches(several: tilekv.Store) -> None:
    several.put_many([1, 2], n=[1, 2], text=["a", "bc"])
    batch = several.read([2, 1])
    assert len(batch) == 2
    assert batch.keys == [2, 1]
    assert list(batch) == ["n", "text"]
    assert batch["text"].offsets.tolist() == [0, 2, 3]
    assert bytes(batch["text"].data) == b"bca"
    assert [batch["text"][i] for i in (0, 1, -1, -2)] == ["bc", "a", "a", "bc"]
    for i in (2, -3):
        with pytest.raises(IndexError):
            batch["text"][i]
    with pytest.raises(KeyNotFoundError, match="no column 'x'"):
        batch["x"]
    assert "2 rows" in repr(batch)
    with pytest.raises(KeyError, match="3"):
        several.read([1, 3])
    with pytest.raises(InvalidValueError, match="'raise' or 'mask'"):
        several.read([1], missing="ignore")


def test_empty_batches(several: tilekv.Store) -> None:
    assert several.get_many([]) == []
    several.put_many([])
    several.put_many({})
    several.put_many([], n=[], text=[])
    several.delete_many([])
    assert several.info().buffered == 0
    batch = several.read([])
    assert len(batch) == 0
    assert batch["n"].dtype == np.int32
    assert batch["n"].shape == (0,)
    assert batch["text"].to_list() == []
    assert batch["text"].offsets.tolist() == [0]
    assert list(several.scan()) == []
    with pytest.raises(InvalidValueError, match="at least 1"):
        several.scan(rows=0)


@pytest.mark.parametrize("rows", [2**30, 2**61, 2**63 - 1])
def test_a_scan_in_one_batch_whatever_its_rows(db: tilekv.Store, rows: int) -> None:
    """Memory is for what is there, not for what was asked: 2**61 places of 24 bytes are 0 in 64 bits."""
    db.put_many([(i, b"x") for i in range(100)])
    [batch] = db.scan(rows=rows)
    assert len(batch) == 100


def test_scan_is_a_snapshot_of_the_call(db: tilekv.Store) -> None:
    db.put_many([(i, b"old") for i in range(100)])
    scan = db.scan(rows=7)
    db.put_many([(i, b"new") for i in range(200)])
    db.flush()
    batches = list(scan)
    assert [len(batch) for batch in batches] == [7] * 14 + [2]
    assert sorted(key for batch in batches for key in batch.keys) == list(range(100))
    assert {v for batch in batches for v in batch["value"].to_list()} == {b"old"}


def test_batches_outlive_the_handle(tmp_path: Path) -> None:
    db = tilekv.open(tmp_path / "s", "x", schema=SEVERAL)
    db.put_many([1, 2], n=[1, 2], text=["a", "b"])
    db.flush()
    batch = db.read([1, 2])
    iterator = iter(db.items())
    db.close()
    del db
    gc.collect()
    assert batch["n"].tolist() == [1, 2]
    assert batch["text"].to_list() == ["a", "b"]
    assert dict(iterator) == {1: {"n": 1, "text": "a"}, 2: {"n": 2, "text": "b"}}


# --- iterators ----------------------------------------------------------------------------------


def damaged(folder: Path, stem: str, place: float, config: dict[str, object]) -> tilekv.Store:
    """A store of 2,000 keys in tiles of 64, one byte of one file flipped."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=64)
    with tilekv.open(folder / "s", "x", schema=schema) as db:
        db.put_many([(i, b"%d" % i * 100) for i in range(2000)])
        db.flush()
        path = folder / "s" / db.fragments[0].name / f"{stem}.tdb"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)
    return tilekv.open(folder / "s", config=config)


# Not `__key`: where all keys have one size the metadata says it.
@pytest.mark.parametrize("stem", ["__coords", "__key_var", "value", "value_var"])
@pytest.mark.parametrize(
    "config", [{}, {"kv.mmap": False, "kv.cache_bytes": 0}], ids=["map", "pread"]
)
@pytest.mark.parametrize("what", [0, 1, 2])
def test_an_iterator_after_damage_is_at_its_end(
    tmp_path: Path, stem: str, config: dict[str, object], what: int
) -> None:
    """It raises once and then stops, as a generator does: it reads no memory that is gone and mixes up nothing."""
    with damaged(tmp_path, stem, 0.6, config) as db:
        iterator = db._iterate(what)
        seen, errors = [], 0
        for _ in range(5000):
            try:
                seen.append(next(iterator))
            except CorruptionError:
                errors += 1
            except StopIteration:
                break
        reads_values = what > 0 or not stem.startswith("value")
        reads_keys = what != 1 or not stem.startswith("__key")
        assert errors == (reads_values and reads_keys)
        assert all(isinstance(item, (int, bytes, tuple)[what]) for item in seen)
        assert len(seen) < 2000 or errors == 0
        with pytest.raises(StopIteration):
            next(iterator)


def test_threads_that_share_an_iterator() -> None:
    """As with a generator, one at a time: the others are told so, and nothing crashes."""
    with tilekv.open("memory://shared", "w") as db:
        db.put_many([(i, b"x") for i in range(60_000)])
        db.flush()
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(5):
                iterator = iter(db)
                seen: list[list[Any]] = [[] for _ in range(6)]
                told: set[str] = set()

                def drain(
                    into: list[Any], iterator: Iterator[Any] = iterator, told: set[str] = told
                ) -> None:
                    while True:
                        try:
                            into.append(next(iterator))
                        except StopIteration:
                            return
                        except ValueError as error:
                            told.add(str(error))

                run_all([lambda into=into: drain(into) for into in seen])
                assert all("already executing" in text for text in told)
                together = [key for part in seen for key in part]
                assert len(together) == len(set(together)) == 60_000
        finally:
            sys.setswitchinterval(before)


class Cycle:
    pass


@pytest.mark.usefixtures("quick_collections")
def test_an_iterator_in_a_reference_cycle_is_collected(tmp_path: Path) -> None:
    """The collector may take fragments apart before the iterator that has chunks of theirs pinned."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many([(i, b"x" * 100) for i in range(5000)])
    for _ in range(20):
        db = tilekv.open(tmp_path / "s", config={"kv.mmap": False})
        cycle: Any = Cycle()
        cycle.iterator = iter(db.items())
        next(cycle.iterator)
        cycle.db, cycle.itself = db, cycle
        db.cycle = cycle  # type: ignore[attr-defined]
        del db, cycle
        gc.collect()


# --- threads ------------------------------------------------------------------------------------


def run_all(calls: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - all of it belongs to the main thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("config", [{}, {"kv.mmap": False}], ids=["map", "pread"])
def test_readers_while_another_thread_writes_and_flushes(
    tmp_path: Path, config: dict[str, object]
) -> None:
    """Values say which key they are of and never go back in time; the cache is smaller than a chunk or two."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=64)
    config = config | {"kv.cache_bytes": 10_000, "kv.sync": False}
    keys = 600
    with tilekv.open(tmp_path / "s", "x", schema=schema, config=config) as db:
        db.put_many([(i, b"%d 0 " % i + b"." * 200) for i in range(keys)])
        done = threading.Event()

        def write() -> None:
            pick = random.Random(0)
            try:
                for generation in range(1, 40):
                    some = pick.sample(range(keys), 150)
                    db.put_many(
                        [
                            (i, b"%d %d " % (i, generation) + b"." * pick.randrange(400))
                            for i in some
                        ]
                    )
                    db[some[0]] = b"%d %d " % (some[0], generation)
                    if generation % 2:
                        db.flush()
                    if generation % 13 == 0:
                        db.reopen()
            finally:
                done.set()

        def read(seed: int) -> None:
            pick, newest = random.Random(seed), [0] * keys

            def check(i: int, value: bytes) -> None:
                key, generation = value.split(b" ")[:2]
                assert int(key) == i
                assert int(generation) >= newest[i]
                newest[i] = int(generation)

            while not done.is_set():
                i = pick.randrange(keys)
                check(i, db[i])
                assert keys + 1 not in db
                some = [pick.randrange(keys) for _ in range(20)]
                for j, value in zip(some, db.get_many(some), strict=True):
                    check(j, value)
                if seed % 4 == 0:
                    assert len(db) == keys
                if seed % 4 == 1:
                    for j, value in db.items():
                        check(j, value)
                if seed % 4 == 2:
                    assert db.read(some).found.all()  # type: ignore[union-attr]
                if seed % 4 == 3:
                    assert sum(map(len, db.scan(rows=100))) == keys

        run_all([write, *(lambda seed=seed: read(seed) for seed in range(8))])
        assert db.verify() == []


def test_writers_from_many_threads_lose_nothing(tmp_path: Path) -> None:
    config = {"kv.buffer_bytes": 20_000, "kv.sync": False}
    with tilekv.open(tmp_path / "s", "x", config=config) as db:

        def write(thread: int) -> None:
            for i in range(200):
                db[f"{thread}-{i}"] = b"x" * 50
                if i % 50 == 0:
                    db.put_many([(f"{thread}-many-{i}-{j}", b"y") for j in range(50)])

        run_all([lambda thread=thread: write(thread) for thread in range(6)])
    with tilekv.open(tmp_path / "s") as db:
        assert len(db) == 6 * (200 + 200)
        assert db.verify() == []

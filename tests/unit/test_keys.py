"""kvcore.values.keys: keys between Python and bytes. One number is one key, whatever it comes in; stores of exact types keep
theirs."""

import contextlib
import datetime as dt
import json
import pickle
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilekv
from tilekv import Attr, FormatError, Key, OutOfRangeError, Schema, Store
from tilekv.descriptor import Descriptor
from tilekv.engine import create
from tilekv.kvcore.values.keys import key_bytes, key_object
from tilekv.probe import probe
from tilekv.storage import open_storage

Make = Callable[..., Store]

TABLE: list[tuple[Any, int, bytes]] = [
    ("", 4, b""),
    ("aä€😀", 4, "aä€😀".encode()),
    ("\udcff\udc80", 4, b"\xff\x80"),
    (b"", 40, b""),
    (b"\0a", 40, b"\0a"),
    (0, 1, bytes(8)),
    (-1, 1, b"\xff" * 8),
    (2**63 - 1, 1, b"\xff" * 7 + b"\x7f"),
    (-(2**63), 1, bytes(7) + b"\x80"),
    (2**63, 10, bytes(7) + b"\x80"),
    (2**64 - 1, 10, b"\xff" * 8),
    (1.5, 3, struct.pack("<d", 1.5)),
    (-0.0, 3, struct.pack("<d", -0.0)),
    (np.int8(-1), 5, b"\xff"),
    (np.int32(1), 0, b"\1\0\0\0"),
    (np.uint64(7), 10, b"\7" + bytes(7)),
    (np.float32(1), 2, struct.pack("<f", 1)),
    (np.array([1, 2], np.int16), 7, b"\1\0\2\0"),
    (np.array([], np.uint8), 6, b""),
    (np.datetime64("1970-01-02", "D"), 21, b"\1" + bytes(7)),
    (np.timedelta64(3, "ms"), 34, b"\3" + bytes(7)),
    (tilekv.Key(11, b"ascii"), 11, b"ascii"),
    (tilekv.Key(127, b""), 127, b""),
    (tilekv.Key(1, b"odd"), 1, b"odd"),
]


@pytest.mark.parametrize(("key", "type_", "data"), TABLE, ids=lambda value: repr(value)[:20])
def test_keys_by_the_table(key: Any, type_: int, data: bytes) -> None:
    assert key_bytes(key, False) == (type_, data)
    back = key_object(type_, data, False)
    assert type(back) is type(key)
    assert str(back) == str(key)


def test_other_forms_of_the_same_keys() -> None:
    for key, same in [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (np.int64(5), 5),
        (np.float64(5), 5.0),
        (np.array([5]), 5),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (np.array([1, 2], ">i4"), np.array([1, 2], "<i4")),
        (np.array([1, 9, 2, 9], "<i4")[::2], np.array([1, 2], "<i4")),
        (tilekv.Key(4, b"a"), "a"),
    ]:
        assert key_bytes(key) == key_bytes(same)


@given(st.integers(0, 127), st.binary(max_size=17), st.booleans())
def test_any_key_from_disk_has_a_form_that_comes_back(
    type_: int, data: bytes, numbers: bool
) -> None:
    assert key_bytes(key_object(type_, data, numbers), numbers) == (type_, data)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (True, "True and 1"),
        (None, "NoneType"),
        ((1, 2), "tuple"),
        ([1], "list"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.array([["a"]]), "shape"),
        (np.array(["a", "b"]), "NumPy type"),
        (np.array([object]), "NumPy type"),
        (np.zeros((2, 2)), "shape"),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "datetime"),
    ],
    ids=repr,
)
def test_no_keys(key: Any, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        key_bytes(key)


@pytest.mark.parametrize("key", [2**64, -(2**63) - 1, 10**30])
def test_ints_beyond_64_bits(key: int) -> None:
    with pytest.raises(OverflowError, match="64 bits"):
        key_bytes(key)


def test_key_objects() -> None:
    key = tilekv.Key(11, bytearray(b"a"))
    assert key == tilekv.Key(11, b"a") != tilekv.Key(12, b"a")
    assert {key: 1}[tilekv.Key(11, b"a")] == 1
    assert pickle.loads(pickle.dumps(key)) == key
    assert repr(key) == "Key(11, b'a')"
    with pytest.raises(AttributeError):
        key.type = 3
    for type_ in (-1, 128, True, "4"):
        with pytest.raises(ValueError, match="0 to 127"):
            tilekv.Key(type_, b"")  # type: ignore[arg-type]


# --- one number is one key ------------------------------------------------------------------------


@pytest.fixture
def integers() -> Iterator[Make]:
    """Makes stores of one integer attribute, of numbers or of exact types, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(numbers: bool = True) -> Store:
            uri = f"memory://{uuid.uuid4()}"
            create(probe(open_storage(uri)), Schema([Attr("n", "int64")]), numbers=numbers)
            return stack.enter_context(tilekv.open(uri, "a"))

        yield make


def containers(values: list[Any], dtype: str) -> dict[str, Any]:
    """The same numbers in everything that holds keys."""
    array = np.array(values, dtype)
    found: dict[str, Any] = {
        "list": values,
        "tuple": tuple(values),
        "generator": values,
        "array": array,
        "other order": array.astype(array.dtype.newbyteorder(">")),
        "strides": np.repeat(array, 2)[::2],
        "objects": np.array([*values, None], object)[:-1],
        "scalars": list(array),
        "no dimension": [np.array(value, dtype) for value in values],
        "Series": pd.Series(array),
        "object Series": pd.Series(values, dtype=object),
    }
    if dtype != "float16":  # which pandas has no Index of
        found["Index"] = pd.Index(array)
        found["nullable Series"] = pd.Series(array).convert_dtypes()
        found["nullable Index"] = pd.Index(pd.Series(array).convert_dtypes())
        found["pyarrow"] = pa.array(array)
        found["chunks"] = pa.chunked_array([pa.array(array[:1]), pa.array(array[1:])])
        found["dictionary"] = pa.array(array).dictionary_encode()
        found["polars"] = pl.Series(array)
    return found


NUMBERS = [
    *((dtype, [0, 1, int(np.iinfo(dtype).max)]) for dtype in ("uint8", "uint16", "uint32", "uint64")),
    *((dtype, [-1, 5, int(np.iinfo(dtype).min)]) for dtype in ("int8", "int16", "int32", "int64")),
    *((dtype, [0.0, -0.0, 1.5, np.inf]) for dtype in ("float16", "float32", "float64")),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "values"), NUMBERS, ids=[dtype for dtype, _ in NUMBERS])
def test_the_same_numbers_are_the_same_keys(dtype: str, values: list[Any], integers: Make) -> None:
    numbers = list(range(len(values)))
    for way, keys in containers(values, dtype).items():
        if way == "nullable Series" and dtype.startswith("float"):
            continue  # pandas makes integers of them
        db = integers()
        db.put_many(iter(keys) if way == "generator" else keys, numbers)
        for flushed in (False, True):
            if flushed:
                db.flush()
            assert len(db) == len(values)
            assert [db[value] for value in values] == numbers, way
            assert all(value in db for value in values)
            assert sorted(map(repr, db)) == sorted(map(repr, values)), way
            for other, asked in containers(values, dtype).items():
                if "nullable" in other and dtype.startswith("float"):
                    continue
                assert db.get_many(asked) == numbers, (way, other)
                assert db.read(asked)["n"].tolist() == numbers, (way, other)
        (batch,) = db.scan()
        kind = "f8" if dtype.startswith("f") else "u8" if max(values) >= 2**63 else "i8"
        if dtype != "uint64":  # which has keys of two types
            assert np.asarray(pa.table(batch)["key"]).dtype == kind
        db.delete_many(keys)
        assert list(db) == []


def test_tables_and_pairs(integers: Make) -> None:
    frames: list[Any] = [
        pd.DataFrame({"k": np.array([1, 2], "uint8"), "n": [3, 4]}),
        pl.DataFrame({"k": pl.Series([1, 2], dtype=pl.Int16), "n": [3, 4]}),
        pa.table({"k": pa.array([1, 2], "int8"), "n": [3, 4]}),
    ]
    for frame in frames:
        db = integers()
        db.put_many(frame, key="k")
        assert dict(db) == {1: 3, 2: 4}
    db = integers()
    db.put_many({np.int8(1): 3, 2: 4})
    db.update([(np.uint64(1), 5)])
    db[np.int16(2)] = 6
    assert dict(db) == {1: 5, 2: 6}
    del db[np.float64(1) // 1 == 1 and np.int32(1)]
    assert dict(db) == {2: 6}
    assert db.pop(np.uint32(2)) == 6
    assert not db


def test_what_stays_apart(integers: Make) -> None:
    db = integers()
    keys = [1, 1.0, "1", b"1", np.True_, np.datetime64(1, "s"), np.datetime64(1, "ms")]
    keys += [np.timedelta64(1, "s"), np.array([1, 2], "i4"), np.array([1, 2], "i8")]
    keys += [Key(0, b"\1\0\0\0"), Key(10, b"\1" + bytes(7)), Key(2, struct.pack("<f", 1))]
    db.put_many(keys, range(len(keys)))
    db.flush()
    assert len(db) == len(keys)
    assert [db[key] for key in keys] == list(range(len(keys)))
    assert db.get_many(keys) == list(range(len(keys)))
    found = list(db)
    assert sorted(db.get_many(found)) == list(range(len(keys)))  # a key gives itself back
    assert set(keys[-3:]) <= {key for key in found if isinstance(key, Key)}
    assert Key(1, b"\1" + bytes(7)) in db  # which 1 is
    assert np.array(1, "i4") in db


def test_integers_of_two_types(integers: Make) -> None:
    db = integers()
    array = np.array([5, 2**63, 7, 2**64 - 1], "u8")
    db.put_many(array, [0, 1, 2, 3])
    batch = db.read(array)
    array[:] = 0  # the batch keeps its keys
    assert batch.keys == [5, 2**63, 7, 2**64 - 1]
    assert db.get_many([5, 2**63, 7, 2**64 - 1]) == [0, 1, 2, 3]
    repeated = pa.DictionaryArray.from_arrays(
        [3, 0, 0, 1], pa.array([5, 2**63, 7, 2**64 - 1], "u8")
    )
    assert db.get_many(repeated) == [3, 0, 0, 1]
    assert db.get_many(repeated[1:]) == [0, 0, 1]
    assert db.read(np.array([7], "u8")).keys == [7]


def test_nans_are_their_bits(integers: Make) -> None:
    for size, dtype in ((2, "f2"), (4, "f4"), (8, "f8")):
        db = integers()
        least = {2: 0x7C01, 4: 0x7F800001, 8: 0x7FF0 << 48 | 1}[size]
        sign = 1 << (8 * size - 1)
        words = np.array(
            [least, least | sign, least + 1, np.array(np.nan, dtype).view(f"u{size}")], f"u{size}"
        )
        nans = words.view(dtype)
        db.put_many(nans, range(4))
        assert len(db) == 4
        assert db.get_many(nans) == [0, 1, 2, 3]
        assert [db[nan] for nan in nans] == [0, 1, 2, 3]  # NumPy keeps them in its scalars
        assert db[float("nan")] == 3
    wide = key_object(*key_bytes(np.uint32(0x7F800001).view("f4")))
    assert struct.pack("<d", wide) == struct.pack("<Q", 0x7FF0 << 48 | 1 << 29)


def test_floats_that_no_double_is(integers: Make) -> None:
    db = integers()
    third = np.longdouble(1) / 3
    assert key_bytes(np.longdouble(0.5)) == key_bytes(0.5)
    assert db.get(third, 5) == 5
    assert db.get_many(np.array([0.5, third])) == [None, None]
    for keys in ([third], np.array([0.5, third])):
        with pytest.raises(OutOfRangeError, match="float key"):
            db.put_many(keys, [1, 2][: len(keys)])
    assert not db


def test_the_descriptor_says_so(integers: Make) -> None:
    for numbers in (True, False):
        uri = integers(numbers).uri
        data = open_storage(uri).read("__tilekv.json")
        assert json.loads(data).get("keys") == ("numbers" if numbers else None)
        assert Descriptor.from_bytes(data).numbers is numbers
    members = json.loads(Descriptor("0" * 32, "md5", "9", (), 0, numbers=True).to_bytes())
    members["keys"] = "words"
    from tilekv.kvcore.base.crc32c import crc32c

    del members["crc32c"]
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError, match="'words'"):
        Descriptor.from_bytes(json.dumps(members | {"crc32c": crc32c(canonical)}).encode())


# --- stores of exact types ---


def test_exact_types_are_kept(integers: Make) -> None:
    db = integers(numbers=False)
    keys = [1, np.int32(1), np.uint8(1), 1.0, np.float32(1)]
    db.put_many(keys, range(5))
    db.flush()
    assert len(db) == 5
    assert [db[key] for key in keys] == db.get_many(keys) == [0, 1, 2, 3, 4]
    assert {key_bytes(key, False) for key in db} == {key_bytes(key, False) for key in keys}
    assert db.get_many(np.array([1], "int32")) == [1]
    assert np.int16(1) not in db  # what says its type means it


@pytest.mark.parametrize("dtype", [name for name, _ in NUMBERS if "int" in name])
def test_an_int_finds_an_integer_of_any_type(dtype: str, integers: Make) -> None:
    db = integers(numbers=False)
    values = [0, 5, int(np.iinfo(dtype).max), int(np.iinfo(dtype).min)]
    distinct = list(dict.fromkeys(values))
    db.put_many(np.array(distinct, dtype), distinct if max(values) < 2**63 else [0, 5, -1])
    for flushed in (False, True):
        if flushed:
            db.flush()
        wanted = [db[key] for key in map(np.dtype(dtype).type, values)]
        assert [db[key] for key in values] == [db.get(key) for key in values] == wanted
        assert db.get_many([*values, 77]) == [*wanted, None]
        assert all(key in db for key in values)
        assert 77 not in db
        batch = db.read([*values, 77], missing="mask")
        assert batch["n"].tolist() == [*wanted, 0]
        assert batch.keys == [*values, 77]
    del db[5]
    assert 5 not in db
    with pytest.raises(KeyError):
        del db[5]
    db.delete_many([77, values[2]])
    assert values[2] not in db
    assert db.pop(0) == wanted[0]


def test_an_int_means_itself_first(integers: Make) -> None:
    db = integers(numbers=False)
    db[np.int32(5)], db[5], db[np.int16(6)] = 1, 2, 3
    assert db[5] == 2
    db[6] = 4
    assert (db[6], db[np.int16(6)]) == (4, 3)
    del db[5]
    assert db[5] == 1  # the other key
    db.delete_many([5])
    assert 5 not in db

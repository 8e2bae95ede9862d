"""Keys and attributes of every type of the data model: there and back, in the buffer and on disk, and what is refused."""

import datetime as dt
import math
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tilekv
from sample_stores import CODES, some
from tilekv import Attr, Key, OutOfRangeError, Schema, WrongTypeError
from tilekv.engine import create
from tilekv.kvcore.values.keys import key_bytes, key_object
from tilekv.probe import probe
from tilekv.storage import open_storage

# A NaN with a payload.
NAN = struct.unpack("<d", bytes.fromhex("01000000deadf87f"))[0]

Make = Callable[..., tilekv.Store]


def same(a: Any, b: Any) -> bool:
    """Equal in type and to the bit: NaN and -0.0 too."""
    if isinstance(a, (np.generic, np.ndarray)) and isinstance(b, (np.generic, np.ndarray)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and bool(a == b)


def typed(name: str) -> Any:
    rng = random.Random(name)
    return [some(rng, name) for _ in range(30)]


# --- keys ------------------------------------------------------------------------------------------


PLAIN = [
    "", "a", "1", "\0", "中文", "\udcff\udc80",
    b"", b"a", b"1", b"\0",
    0, 1, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1,
    0.0, -0.0, 1.0, math.inf, -math.inf, NAN, math.nan,
]  # fmt: skip


def numpy_keys() -> Iterator[Any]:
    for name in CODES:
        dtype = np.dtype(name)
        if name not in ("int64", "float64", "uint64"):
            yield from (
                dtype.type(value) if dtype.kind not in "mM" else value for value in typed(name)[:3]
            )
        yield np.array(typed(name)[:2], dtype)
        yield np.array([], dtype)
    yield np.uint64(5)
    yield np.datetime64("NaT", "ms")
    yield np.timedelta64("NaT", "h")


ALL_KEYS = [
    *PLAIN,
    *numpy_keys(),
    *(Key(code, b"key") for code in (0, 4, 11, 12, 17, 40, 41, 100, 127)),
]


@pytest.mark.parametrize("numbers", [True, False])
def test_each_key_is_its_own(numbers: bool) -> None:
    """All of them in one store, found again before and after a flush."""
    identities = {key_bytes(key, numbers) for key in ALL_KEYS}
    values = [b"%d%s" % key_bytes(key, numbers) for key in ALL_KEYS]
    uri = f"memory://{uuid.uuid4()}"
    create(probe(open_storage(uri)), Schema([Attr("v", bytes)]), numbers=numbers)
    with tilekv.open(uri, "a") as db:
        for key, value in zip(ALL_KEYS, values, strict=True):
            db[key] = value
        for _ in range(2):
            assert len(db) == len(identities)
            for key, value in zip(ALL_KEYS, values, strict=True):
                assert db[key] == value, key
            assert db.get_many(ALL_KEYS) == values
            assert {key_bytes(key, numbers) for key in db} == identities
            db.flush()


@pytest.mark.parametrize("numbers", [True, False])
def test_keys_come_back(numbers: bool) -> None:
    for key in ALL_KEYS:
        found = key_object(*key_bytes(key, numbers), numbers)
        assert key_bytes(found, numbers) == key_bytes(key, numbers)
        number = numbers and isinstance(key, np.generic) and key.dtype.kind in "iuf"
        if not isinstance(key, Key) and not number:  # which may come back in another form
            assert same(found, key), key


def test_the_type_is_part_of_an_exact_key() -> None:
    keys = [
        1,
        1.0,
        np.int32(1),
        np.uint8(1),
        np.uint64(1),
        np.float32(1),
        "1",
        b"1",
        np.bool_(True),
    ]
    assert len({key_bytes(key, False) for key in keys}) == len(keys)
    assert key_bytes(0.0) != key_bytes(-0.0)
    assert key_bytes(np.int64(1)) == key_bytes(1)
    assert key_bytes(np.float64(1.5)) == key_bytes(1.5)
    assert (
        key_bytes(bytearray(b"x")) == key_bytes(memoryview(b"x")) == key_bytes(b"x") == (40, b"x")
    )
    assert key_bytes(np.str_("x")) == key_bytes("x") == (4, b"x")
    assert key_bytes(np.bytes_(b"x")) == (40, b"x")
    assert key_bytes(np.array([1, 2], ">i2")) == (7, b"\1\0\2\0")
    assert key_bytes(np.arange(6, dtype="i4")[::2]) == (0, b"\0\0\0\0\2\0\0\0\4\0\0\0")
    assert key_bytes(np.dtype(">i4").type(3)) == key_bytes(np.int32(3))
    assert len({key_bytes(np.datetime64(1, unit)) for unit in ("Y", "D", "s", "ns")}) == 4


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (True, "use an int"),
        (None, "NoneType"),
        (("a", 1), "encode it to one str or bytes"),
        ([1], "list"),
        (object(), "object"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.timedelta64(1, "D"), r"timedelta64\[D\]"),
        (np.datetime64(1, "10ms"), "10ms"),
        (np.zeros((2, 2)), "1-d"),
        (np.array(["a"]), "<U1"),
        (np.array([None]), "object"),
    ],
)
def test_refused_keys(key: Any, says: str, store: Make) -> None:
    db = store()
    with pytest.raises(WrongTypeError, match=says):
        db.put_many([(key, b"")])
    with pytest.raises(WrongTypeError, match=says):
        db[key] = b""
    assert len(db) == 0


@pytest.mark.parametrize("key", [2**64, -(2**63) - 1, 10**30])
def test_int_keys_beyond_64_bits(key: int, store: Make) -> None:
    with pytest.raises(OutOfRangeError, match="64 bits"):
        store()[key] = b""


def test_key_objects(store: Make) -> None:
    key = Key(12, b"x")
    assert key == Key(12, b"x") != Key(11, b"x")
    assert hash(key) == hash(Key(12, bytearray(b"x")))
    assert repr(key) == "Key(12, b'x')"
    with pytest.raises(AttributeError):
        key.type = 3  # type: ignore[misc]
    for code in (-1, 128, True, "x", None):
        with pytest.raises(tilekv.InvalidValueError, match="datatype code"):
            Key(code, b"")  # type: ignore[arg-type]
    db = store()
    db["x"] = b"str"
    assert db[Key(4, b"x")] == b"str"  # identity is type and bytes
    assert Key(40, b"x") not in db


# --- attributes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODES)
def test_attributes_of_every_number(name: str, store: Make) -> None:
    """Scalars, shapes and arrays of one dtype, by item and by column, from the buffer and from disk."""
    values = np.array(typed(name), name)
    n = len(values)
    pairs = np.stack([values, values[::-1]], axis=1)
    runs = [values[: i % 4] for i in range(n)]
    attrs = Attr("one", name), Attr("two", name, shape=2), Attr("var", name, var=True)
    items, columns = store(*attrs), store(*attrs)
    for i in range(n):
        items[i] = {"one": values[i], "two": pairs[i], "var": runs[i]}
    columns.put_many(np.arange(n), one=values, two=pairs, var=runs)
    for db in (items, columns):
        for _ in range(2):
            for i in range(n):
                row = db[i]
                assert np.asarray(row["one"], name).tobytes() == values[i].tobytes()
                assert same(row["two"], pairs[i])
                assert same(row["var"], runs[i])
            batch = db.read(range(n))
            assert same(batch["one"], values)
            assert same(batch["two"], pairs)
            assert all(same(a, b) for a, b in zip(batch["var"].to_list(), runs, strict=True))
            db.flush()
        db.close()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("int8", int),
        ("uint64", int),
        ("float64", float),
        ("bool", bool),
        ("float32", np.float32),
        ("datetime64[D]", np.datetime64),
        ("timedelta64[as]", np.timedelta64),
    ],
)
def test_the_form_of_scalars(name: str, form: type, store: Make) -> None:
    db = store(Attr("v", name))
    db[0] = np.ones(1, "int64").astype(name)[0]
    assert type(db[0]) is form
    db.flush()
    assert type(db[0]) is form


def test_nan_payloads_and_signed_zeros_are_kept(store: Make) -> None:
    db = store(Attr("v", "float64"))
    for i, value in enumerate((NAN, -0.0, 0.0, -math.nan)):
        db[i] = value
    db.put_many(np.arange(10, 12), np.array([NAN, -0.0]))
    db.flush()
    for i, value in [*enumerate((NAN, -0.0, 0.0, -math.nan)), (10, NAN), (11, -0.0)]:
        assert same(db[i], value)


@pytest.mark.parametrize("word", [0x7FA20207, 0xFF800001, 0x7FC00000, 0xFFFFFFFF])
def test_float32_nans_are_kept(word: int, store: Make) -> None:
    """Signalling ones too, of which a C double makes quiet ones; by every way in and out."""
    column = np.array([word], "uint32").view("float32")
    [nan] = column
    db = store(Attr("v", "float32"))
    db[0] = nan
    db.update({1: nan})
    db.put_many([2], [nan])
    db.put_many([3], column)
    db.put_many([4], v=[nan])
    db.put_many({5: nan})
    db.put_many(pa.table({"k": [6], "v": column}), key="k")
    db.put_many([7], np.array([nan], object))
    for _ in ("buffered", "flushed"):
        keys = list(range(8))
        for found in (
            db.get_many(keys),
            [db[key] for key in keys],
            db.read(keys)["v"],
            list(db.values()),
        ):
            assert [same(each, nan) for each in found] == [True] * 8
        assert pa.table(db.scan())["v"].to_numpy().tobytes() == column.tobytes() * 8
        db.flush()
    several = store(
        Attr("v", "float32"), Attr("pair", "float32", shape=2), Attr("more", "float32", var=True)
    )
    several["dict"] = {"v": nan, "pair": [1, nan], "more": [1.5, nan]}
    several["tuple"] = nan, (np.float64(1), nan), [1.5, nan]
    several["arrays"] = nan, np.array([1, nan], "float32"), np.array([1.5, nan], "float32")
    several["scalars"] = nan, [np.float32(1), nan], [np.float32(1.5), nan]
    for _ in ("buffered", "flushed"):
        for value in several.values():
            assert same(value["v"], nan)
            assert value["pair"].tobytes() == np.float32(1).tobytes() + nan.tobytes()
            assert value["more"].tobytes() == np.float32(1.5).tobytes() + nan.tobytes()
        several.flush()


def test_arrays_are_read_only_copies(store: Make) -> None:
    db = store(Attr("v", "int32", shape=(2, 3)))
    given = np.arange(6, dtype="i4").reshape(2, 3)
    db["k"] = given
    given[:] = 0
    found = db["k"]
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not found.flags.writeable


def test_python_times(store: Make) -> None:
    db = store(Attr("t", "datetime64[us]"), Attr("d", "timedelta64[ms]"))
    when, long = dt.datetime(2024, 2, 29, 12, 30, 1, 5), dt.timedelta(milliseconds=7)  # noqa: DTZ001 - as NumPy's
    db[0] = when, long
    assert db[0] == {"t": np.datetime64(when), "d": np.timedelta64(7, "ms")}
    with pytest.raises(OutOfRangeError, match="'d'"):
        db[0] = when, dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("attr", "value", "error"),
    [
        (Attr("v", bytes), "text", WrongTypeError),
        (Attr("v", bytes), None, WrongTypeError),
        (Attr("v", str), b"bytes", WrongTypeError),
        (Attr("v", str), "\udc80", tilekv.InvalidValueError),
        (Attr("v", "int32"), 1.0, WrongTypeError),
        (Attr("v", "int32"), True, WrongTypeError),
        (Attr("v", "int32"), "1", WrongTypeError),
        (Attr("v", "int32"), None, WrongTypeError),
        (Attr("v", "int8"), 128, OutOfRangeError),
        (Attr("v", "int8"), -129, OutOfRangeError),
        (Attr("v", "uint8"), -1, OutOfRangeError),
        (Attr("v", "uint64"), 2**64, OutOfRangeError),
        (Attr("v", "int64"), 2**63, OutOfRangeError),
        (Attr("v", "float32"), 1e39, OutOfRangeError),
        (Attr("v", "float64"), 10**400, OutOfRangeError),
        (Attr("v", "float64"), "1", WrongTypeError),
        (Attr("v", "float64"), 1j, WrongTypeError),
        (Attr("v", "bool"), 1, WrongTypeError),
        (Attr("v", "datetime64[s]"), 5, WrongTypeError),
        (Attr("v", "datetime64[s]"), np.datetime64(1, "ms"), OutOfRangeError),
        (Attr("v", "datetime64[s]"), np.timedelta64(1, "s"), WrongTypeError),
        (Attr("v", "int32", shape=3), np.zeros(2, "i4"), tilekv.InvalidValueError),
        (Attr("v", "int32", shape=3), np.zeros((1, 3), "i4"), tilekv.InvalidValueError),
        (Attr("v", "int32", shape=3), np.zeros(3), WrongTypeError),
        (Attr("v", "int32", var=True), np.zeros((1, 3), "i4"), tilekv.InvalidValueError),
        (Attr("v", "int32", var=True), 5, tilekv.InvalidValueError),
        (Attr("v", "uint8", var=True), [1, 256], OutOfRangeError),
        (Attr("v", "int32", var=True), ["a"], WrongTypeError),
    ],
)
def test_refused_values(attr: Attr, value: Any, error: type[Exception], store: Make) -> None:
    """By item, in pairs, as values and as a column: before anything is buffered, and the message names the attribute."""
    db = store(attr, Attr("other", "int32"))
    with pytest.raises(error, match="'v'"):
        db["k"] = value, 1
    with pytest.raises(error, match="'v'"):
        db.put_many([("a", (value, 1))])
    with pytest.raises(error, match="'v'"):
        db.put_many(["a"], v=[value], other=[1])
    if isinstance(value, np.ndarray):
        with pytest.raises(error, match="'v'"):
            db.put_many(["a", "b"], v=np.stack([value, value]), other=[1, 2])
    assert db.info().buffered == 0


@pytest.mark.parametrize(
    "dtype", ["float16", "longdouble", "complex64", "O", "V4", "S5", "U5", "M8", "m8[D]", "m8[Y]"]
)
def test_refused_attributes(dtype: str) -> None:
    with pytest.raises(WrongTypeError, match="'v'"):
        Attr("v", dtype)

"""Nulls: None by every way in and out of an attribute that is nullable, and an error where it is not."""

import datetime as dt
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import containers
import tilekv
from tilekv import Attr, InvalidValueError, KeyNotFoundError, Schema, TileKVError, WrongTypeError
from tilekv.cli.command import main
from tilekv.descriptor import AttrEntry, Descriptor
from tilekv.equality import equal
from tilekv.kvcore.base.crc32c import crc32c

Make = Callable[..., tilekv.Store]

VALID = np.array([True, False, True, True, False, True])
KEYS = list(range(len(VALID)))
SEVERAL = Schema(
    [
        Attr("n", "int32", nullable=True),
        Attr("text", str, nullable=True),
        Attr("pair", "float32", shape=2, nullable=True),
        Attr("plain", bytes),
    ],
    capacity=16,
)


def with_none(values: Any) -> list[Any]:
    return [value if there else None for value, there in zip(values, VALID, strict=True)]


def array_of(dtype: str) -> np.ndarray[Any, Any]:
    numbers = np.array([1, 7, 0, 100, 9, 3])
    return numbers.astype("m8" if dtype[0] == "t" else numbers.dtype).astype(dtype)


def made() -> list[Any]:
    """(attribute, container's name, container, the values) of every container."""
    texts = with_none(["one", "x", "", "four, longer than a view is", "y", "größe"])
    blobs = with_none([b"one", b"x", b"\0\xff", b"four", b"y", b"four, longer than a view is"])
    same = with_none([b"one", b"xxx", b"\0\xff\0", b"fou", b"yyy", b"six"])
    rows = np.arange(12, dtype="int16").reshape(6, 2)
    runs = with_none([rows[0], rows[1], rows[2][:0], rows[3], rows[4], np.arange(5, dtype="int16")])
    found = [
        ("str", Attr("v", str, nullable=True), containers.nulls_of_texts(texts), texts),
        ("bytes", Attr("v", bytes, nullable=True), containers.nulls_of_blobs(blobs), blobs),
        ("fixed", Attr("v", bytes, nullable=True), containers.nulls_of_blobs(same), same),
        ("shape", Attr("v", "int16", shape=2, nullable=True),
         containers.nulls_of_lists(with_none(rows)), with_none(rows)),
        ("var", Attr("v", "int16", var=True, nullable=True), containers.nulls_of_lists(runs), runs),
    ]  # fmt: skip
    names = ["int8", "uint16", "int32", "int64", "uint64", "float32", "float64", "bool"]
    for dtype in [*names, "datetime64[s]", "datetime64[ns]", "datetime64[D]", "timedelta64[us]"]:
        array = array_of(dtype)
        attr = Attr("v", dtype, nullable=True)
        found.append(
            (dtype, attr, containers.nulls_of_array(array, VALID), with_none(array.tolist()))
        )
        if array.dtype.kind in "mM":
            found[-1] = (*found[-1][:3], with_none(array))
    return [
        pytest.param(attr, make, values, id=f"{kind}-{name}")
        for kind, attr, each, values in found
        for name, make in each.items()
    ]


def check(db: tilekv.Store, wanted: dict[Any, Any]) -> None:
    """A store of one attribute shows these values, by every way of reading."""
    keys = list(wanted)
    values = list(wanted.values())
    assert all(equal(db[key], value) for key, value in wanted.items())
    assert all(equal(db.get(key, "missing"), value) for key, value in wanted.items())
    assert all(map(equal, db.get_many(keys), values))
    items = dict(db.items())
    assert len(items) == len(db) == len(list(db.values())) == len(wanted)
    assert all(equal(items[key], value) for key, value in wanted.items())
    (name,) = [attr.name for attr in db.schema.attrs]
    for batch in (db.read(keys), db.read([*keys, "not there"], missing="mask"), *db.scan(rows=4)):
        some = [wanted.get(key) for key in batch.keys]
        valid = batch.valid[name]
        assert valid.dtype == bool
        assert not valid.flags.writeable
        assert valid.tolist() == [value is not None for value in some]
        column = batch[name]
        listed = column.to_list() if isinstance(column, tilekv.VarColumn) else list(column)
        for value, cell, there in zip(some, listed, valid, strict=True):
            assert (
                equal(cell, value)
                if there
                else cell is None or not np.any(np.asarray(cell) != np.zeros_like(cell))
            )
        assert pa.array(pa.table(batch)[name].is_null()).to_pylist() == (~valid).tolist()
        assert pl.DataFrame(batch)[name].is_null().to_list() == (~valid).tolist()


# --- in and out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attr", "make", "values"), made())
def test_every_container(store: Make, attr: Attr, make: Callable[[], Any], values: Any) -> None:
    db = store(attr)
    wanted = dict(zip(KEYS, values, strict=True))
    db.put_many(KEYS, make())
    check(db, wanted)
    db.clear()
    db.put_many({"k": KEYS, "v": make()}, key="k")
    db.flush()
    check(db, wanted)
    refusing = store(Attr("v", attr.type_name, attr.shape, attr.var))
    with pytest.raises((InvalidValueError, WrongTypeError)) as refused:
        refusing.put_many(KEYS, v=make())
    assert "v" in str(refused.value)
    assert len(refusing) == 0


def test_what_is_not_null_stays_what_it_is(store: Make) -> None:
    db = store(Attr("v", "float64", nullable=True))
    nan = float("nan")
    db.put_many(["array"], np.array([nan]))
    db.put_many(["list", "none"], [nan, None])
    db.put_many(["polars"], pl.Series([nan]))
    db.put_many(["arrow"], pa.array([nan]))
    db.put_many(["pandas"], pd.Series([nan]))
    db["one"] = nan
    db.flush()
    null = {key for key, value in db.items() if value is None}
    assert null == {"none", "pandas"}
    assert all(value != value for value in db.values() if value is not None)
    times = store(Attr("v", "datetime64[s]", nullable=True))
    times.put_many(["a", "b"], np.array(["NaT", "2020"], "M8[s]"))
    assert np.isnat(times["a"])


def test_single_values_and_rows(store: Make) -> None:
    db = store(Attr("v", "int64", nullable=True))
    db["a"] = None
    db.set("b", None)
    db.update({"c": None, "d": 4})
    assert [db[key] for key in "abcd"] == [None, None, None, 4]
    assert "a" in db
    assert db.get("a", 1) is None
    db["a"] = 5
    assert db.pop("a") == 5
    assert db.setdefault("b", 9) is None
    rows = tilekv.open("memory://nulls-rows", "w", schema=SEVERAL)
    rows["t"] = (None, None, None, b"")
    rows["d"] = {"n": None, "text": "", "pair": [0, 0], "plain": b"p"}
    rows.put_many(["l"], [(1, None, None, b"")])
    for _ in range(2):
        assert rows["t"] == {"n": None, "text": None, "pair": None, "plain": b""}
        assert rows["d"]["text"] == ""
        assert rows["d"]["pair"].tolist() == [0, 0]
        assert rows["l"] == {"n": 1, "text": None, "pair": None, "plain": b""}
        rows.flush()
    for bad in ((1, "", [1, 2], None), {"n": 1, "text": "", "pair": [None, 1], "plain": b""}):
        with pytest.raises(TileKVError):
            rows["bad"] = bad
    with pytest.raises(InvalidValueError, match="missing: 'plain'"):
        rows["bad"] = {"n": 1, "text": "", "pair": None}
    assert "bad" not in rows
    assert list(rows.read(["t"]).valid) == ["n", "text", "pair"]
    assert rows.read(["t"], attrs=["plain"]).valid == {}
    with pytest.raises(TypeError):
        rows.read(["t"]).valid["n"] = None  # type: ignore[index]
    rows.close()


def test_what_pandas_makes_of_integers(store: Make) -> None:
    db = store(Attr("v", "int64", nullable=True))
    db.put_many(["a", "b"], pd.Series([2.0**53, np.nan]))
    assert db.get_many(["a", "b"]) == [2**53, None]
    for wrong in ([1.5, np.nan], [2.0**53 + 2, np.nan], [1.0, 2.0]):
        with pytest.raises(WrongTypeError):
            db.put_many(["a", "b"], pd.Series(wrong))
    with pytest.raises(WrongTypeError):
        db.put_many(["a", "b"], np.array([1.0, np.nan]))


def test_parts_of_a_value_are_not_null(store: Make) -> None:
    db = store(Attr("v", "int16", shape=2, nullable=True))
    half = np.ma.masked_array([[1, 2], [3, 4]], [[False, True], [True, True]])
    for wrong in (half, pa.array([[1, None], None]), [[1, None], None]):
        with pytest.raises(TileKVError):
            db.put_many(["a", "b"], wrong)
    assert len(db) == 0


def test_masked_arrays_of_every_form(store: Make) -> None:
    db = store(Attr("v", "int16", shape=2, nullable=True))
    masked = np.ma.masked_array(np.zeros((3, 2), "int16"), np.zeros((3, 2), bool))
    for rows in (masked, masked[:0], np.ma.masked_all((2, 2), "int16")):
        keys = list(range(len(rows)))
        db.put_many(keys, rows)
        values = [None if row.mask.any() else row.data for row in rows]
        assert all(map(equal, db.get_many(keys), values))
    numbers = store(Attr("v", "float64", nullable=True))
    numbers.put_many([], np.ma.masked_array(np.zeros(0), np.zeros(0, bool)))
    assert len(numbers) == 0
    records = np.ma.masked_array(np.zeros(2, [("a", "i4"), ("b", "i4")]), [(True, False)] * 2)
    for wrong in (records, [np.ma.masked, 1.0]):
        with pytest.raises(TileKVError):
            numbers.put_many([1, 2], wrong)
    for value in (records, records[0]):
        for each in (db, numbers):
            with pytest.raises(TileKVError):
                each["a"] = value
    with pytest.raises(TileKVError):
        numbers.put_many(records, [1.0, 2.0])
    with pytest.raises(WrongTypeError, match="takes float64, not MaskedConstant"):
        numbers["a"] = np.ma.masked


def test_what_a_null_hides_is_not_looked_at(store: Make) -> None:
    db = store(Attr("v", "int8", nullable=True))
    db.put_many(["a", "b"], np.ma.masked_array([1, 1000], [False, True]))
    db.put_many(["c", "d"], pa.array(np.array([3, 1000]), mask=np.array([False, True])))
    db.put_many(["e", "f"], pa.nulls(2))
    db.put_many(["g"], pl.Series([None]))
    assert [db[key] for key in "abcdefg"] == [1, None, 3, None, None, None, None]
    texts = store(Attr("v", str, nullable=True))
    hidden = pa.Array.from_buffers(
        pa.string(),
        2,
        [
            pa.py_buffer(b"\1"),
            pa.py_buffer(np.array([0, 1, 2], "i4")),
            pa.py_buffer(b"a\xff"),
        ],
    )
    texts.put_many(["a", "b"], hidden)
    assert dict(texts) == {"a": "a", "b": None}


def test_keys_are_never_null(store: Make) -> None:
    db = store(Attr("v", "int8", nullable=True))
    for keys in ([None, 1], pa.array([None, 1]), pd.Series([None, "a"], dtype=object)):
        with pytest.raises(TileKVError):
            db.put_many(keys, [1, 2])
    assert len(db) == 0


# --- some attributes ---------------------------------------------------------------------------------------------------


def test_update_many(tmp_path: Path) -> None:
    schema = Schema(SEVERAL.attrs, expires=True)
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        row = {"n": 1, "text": None, "pair": None, "plain": b"p"}
        db.put_many(["a", "b"], [row, {**row, "n": None, "text": "b"}], expire=[None, 1000])
        moment = db.expires("b")
        db.update_many(pa.array(["b", "a"]), plain=pa.array([b"B", b"A"]), n=[2, None])
        for _ in range(2):
            assert db["a"] == {**row, "n": None, "plain": b"A"}
            assert db["b"] == {"n": 2, "text": "b", "pair": None, "plain": b"B"}
            assert (db.expires("a"), db.expires("b")) == (None, moment)
            db.flush()
        with tilekv.open(tmp_path / "s", "a") as other:
            other["a"] = {**row, "text": "other's"}
        db.update_many(["a"], n=[5])  # reopens first
        assert db["a"] == {**row, "n": 5, "text": "other's"}
        for keys, columns, error in (
            (["a", "missing"], {"n": [1, 2]}, KeyNotFoundError),
            (["a"], {"n": [1, 2]}, InvalidValueError),
            (["a"], {"unknown": [1]}, InvalidValueError),
            (["a"], {}, InvalidValueError),
            (["a"], {"plain": [None]}, WrongTypeError),
            ("a", {"n": [1]}, WrongTypeError),
        ):
            with pytest.raises(error):
                db.update_many(keys, **columns)
        assert db["a"]["n"] == 5
        db.update_many([], n=[])
        db.update_many(["a", "a"], n=[6, 7])
        assert db["a"]["n"] == 7
        db.flush()
    with tilekv.open(tmp_path / "s") as db, pytest.raises(tilekv.ReadOnlyError):
        db.update_many(["a"], n=[1])


def test_some_attributes_of_many_keys(store: Make) -> None:
    db = store(*SEVERAL.attrs)
    db.put_many({k: (i, None, [i, i], b"") for i, k in enumerate("abc")})
    for _ in range(2):
        assert db.get_many(["c", "x", "a"], "no", ["n", "text"]) == [
            {"n": 2, "text": None}, "no", {"n": 0, "text": None},
        ]  # fmt: skip
        assert db.get_many(["b"], attrs=["n"]) == [{"n": 1}]
        assert db.get_many(["b", "x"], attrs=[]) == [{}, None]
        db.flush()
    with pytest.raises(InvalidValueError, match="no attribute 'm'"):
        db.get_many(["a"], attrs=["m"])
    single = store(Attr("v", bytes))
    single["a"] = b"1"
    assert single.get_many(["a"], attrs=["v"]) == [b"1"]


# --- the store ---------------------------------------------------------------------------------------------------------


def test_schema(tmp_path: Path) -> None:
    attr = Attr("n", "int32", nullable=True)
    assert attr != Attr("n", "int32")
    assert hash(attr) != hash(Attr("n", "int32"))
    assert repr(attr) == "Attr('n', 'int32', nullable=True)"
    assert eval(repr(SEVERAL), {"Attr": Attr, "Schema": Schema}) == Schema(
        SEVERAL.attrs, capacity=16
    )
    assert "- Nullable: true" in attr.described()
    with pytest.raises(WrongTypeError):
        Attr("n", "int32", nullable=1)  # type: ignore[arg-type]
    schema = Schema([Attr("", bytes, nullable=True), Attr("x" * 240, "int8", nullable=True)])
    names = [field.name for field in schema.fields]
    assert names[3:] == ["__valid___attr", "__valid_" + "x" * 240, "__key_type"]
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db["a"] = (None, None)
    members = json.loads((tmp_path / "s" / "__tilekv.json").read_text())
    assert members["format"] == 2
    assert members["attrs"][""] == {"dtype": "bytes", "shape": None, "nullable": True}
    with tilekv.open(tmp_path / "s") as db:
        assert db.schema == schema
        assert db["a"] == {"": None, "x" * 240: None}
        assert tilekv.verify(tmp_path / "s") == []
    with pytest.raises(InvalidValueError):
        tilekv.open(tmp_path / "s", "a", schema=Schema([Attr("", bytes), Attr("x" * 240, "int8")]))
    with tilekv.open(tmp_path / "t", "x", schema=Schema([Attr("n", "int32")])) as db:
        db["a"] = 1
    assert json.loads((tmp_path / "t" / "__tilekv.json").read_text())["format"] == 1


def filled(path: Path) -> dict[str, Any]:
    wanted = {}
    with tilekv.open(path, "x", schema=SEVERAL) as db:
        for part in range(3):
            rows = {
                f"k{i}": {
                    "n": i if i % 2 else None,
                    "text": None if i % 3 else str(i),
                    "pair": None if i % 5 else np.array([i, part], "float32"),
                    "plain": b"%d" % part,
                }
                for i in range(part * 30, part * 30 + 60)
            }
            db.put_many(rows)
            db.flush()
            wanted |= rows
    return wanted


def test_merges_and_copies_keep_nulls(tmp_path: Path) -> None:
    wanted = filled(tmp_path / "s")
    tilekv.salvage(tmp_path / "s", tmp_path / "salvaged")
    with tilekv.open(tmp_path / "s", "a") as db:
        assert db == wanted
        db.consolidate(vacuum=True)
        assert db == wanted
        assert len(db.fragments) == 1
    with tilekv.open(tmp_path / "salvaged") as db:
        assert db.schema == SEVERAL
        assert db == wanted


@pytest.mark.parametrize("lost", [["__tilekv.json"], ["__kv_schema.tdb", "__array_schema.tdb"]])
def test_a_lost_schema_is_recovered(tmp_path: Path, lost: list[str]) -> None:
    attrs = [Attr("n", "int32", nullable=True), Attr("", bytes, nullable=True), Attr("m", "int8")]
    schema = Schema(attrs, expires=True)
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many({"a": (None, b"", 1), "b": (2, None, 3)})
    for file in lost:
        (tmp_path / "s" / file).unlink()
    tilekv.salvage(tmp_path / "s", tmp_path / "t")
    with tilekv.open(tmp_path / "t") as db:
        assert db.schema == schema
        assert db == {"a": {"n": None, "": b"", "m": 1}, "b": {"n": 2, "": None, "m": 3}}


def test_a_damaged_file(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    with tilekv.open(tmp_path / "s", "a") as db:
        db.consolidate(vacuum=True)
        name = db.fragments[0].name
    path = tmp_path / "s" / name / "__valid_n.tdb"
    data = bytearray(path.read_bytes())
    data[30] ^= 1  # of a cell
    path.write_bytes(data)
    problems = tilekv.verify(tmp_path / "s")
    assert {problem.file for problem in problems} == {"__valid_n.tdb"}
    with tilekv.open(tmp_path / "s") as db:
        with pytest.raises(tilekv.CorruptionError, match="__valid_n"):
            dict(db.items())
        with pytest.raises(tilekv.CorruptionError, match="__valid_n"):
            db.read(list(db), attrs=["n"])
        assert len(db.read(list(db), attrs=["text"])) == len(db)


def test_descriptors_that_are_refused() -> None:
    attr = AttrEntry("n", "int32", None, True)
    whole = Descriptor("0" * 32, "md5", "9", (attr,), 0)
    assert Descriptor.from_bytes(whole.to_bytes()) == whole
    for old, new in (('"nullable": true', '"nullable": 1'), ('"format": 2', '"format": 1')):
        members = json.loads(whole.to_bytes().decode().replace(old, new))
        del members["crc32c"]
        plain = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
        members["crc32c"] = crc32c(plain)
        with pytest.raises(tilekv.CorruptionError, match="nullable"):
            Descriptor.from_bytes(json.dumps(members).encode())


def test_on_the_command_line(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "s"
    with tilekv.open(path, "x", schema=SEVERAL) as db:
        db["a"] = (None, None, None, b"plain")
    for attr, said in (("n", b""), ("text", b""), ("pair", b""), ("plain", b"plain")):
        assert main(["get", str(path), "a", "--attr", attr]) == 0
        assert capfdbinary.readouterr().out == said
    assert main(["ls", "-l", str(path)]) == 0
    assert capfdbinary.readouterr().out.split()[0] == b"5"
    assert main(["info", str(path)]) == 0
    assert b"attribute  pair: float32 (2,), nullable, " in capfdbinary.readouterr().out


def test_against_a_dict(tmp_path: Path) -> None:
    """Random writes, deletes, updates, flushes and merges; a handle and a dict show the same."""
    rng = random.Random(13)
    model: dict[str, Any] = {}
    db = tilekv.open(tmp_path / "s", "x", schema=SEVERAL)

    def row() -> dict[str, Any]:
        return {
            "n": rng.choice([None, 0, rng.randrange(1000)]),
            "text": rng.choice([None, "", "x" * rng.randrange(40)]),
            "pair": rng.choice([None, np.array([rng.random(), 1], "float32")]),
            "plain": rng.randbytes(rng.randrange(9)),
        }

    for step in range(400):
        keys = [f"k{rng.randrange(60)}" for _ in range(rng.randrange(1, 9))]
        rows = [row() for _ in keys]
        action = rng.randrange(6)
        if action == 0:
            db[keys[0]] = rows[0]
            model[keys[0]] = rows[0]
        elif action == 1:
            columns = {name: [each[name] for each in rows] for name in rows[0]}
            db.put_many(keys, **columns)
            model.update(zip(keys, rows, strict=True))
        elif action == 2:
            there = [key for key in keys if key in model]
            names = rng.sample([attr.name for attr in SEVERAL.attrs], rng.randrange(1, 4))
            columns = {name: [rows[i][name] for i in range(len(there))] for name in names}
            db.update_many(there, **columns)
            for i, key in enumerate(there):
                model[key] = model[key] | {name: columns[name][i] for name in names}
        elif action == 3:
            db.delete_many(keys[:2])
            for key in keys[:2]:
                model.pop(key, None)
        elif action == 4:
            db.flush()
        elif step % 5 == 0:
            db.consolidate(vacuum=True)
        some = db.get_many(keys)
        assert all(map(equal, some, map(model.get, keys)))
        assert equal(db.get(keys[0]), model.get(keys[0]))
        if step % 20 == 0:
            assert db == model
            for batch in db.scan(rows=7):
                for name, valid in batch.valid.items():
                    wanted = [model[key][name] is not None for key in batch.keys]
                    assert valid.tolist() == wanted
    db.close()
    with tilekv.open(tmp_path / "s") as db:
        assert db == model
    assert tilekv.verify(tmp_path / "s") == []


def test_expiry_beside_nulls(store: Make) -> None:
    db = store(schema=Schema([Attr("v", "int8", nullable=True)], expires=True))
    db.put_many(["a", "b"], [None, 1], expire=[dt.timedelta(hours=1), None])
    for _ in range(2):
        assert db.get_many(["a", "b"]) == [None, 1]
        assert db.expires("a") is not None
        db.flush()
    db.touch("a")
    assert db["a"] is None
    assert db.expires("a") is None

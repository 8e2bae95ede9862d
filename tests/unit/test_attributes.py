"""tools.attributes: an attribute more for a store that is there."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import Attr, InvalidValueError, Schema, StoreBusyError, WrongTypeError
from tilekv.equality import equal
from tilekv.tools import attributes

SCHEMA = Schema(
    [
        Attr("n", "int16", nullable=True),
        Attr("pair", "float32", shape=2, nullable=True),
        Attr("runs", "datetime64[h]", var=True, nullable=True),
        Attr("text", str, nullable=True),
        Attr("blob", bytes),
    ],
    capacity=16,
)


def rows() -> dict[Any, dict[str, Any]]:
    row: dict[str, Any] = {
        "n": 5,
        "pair": [1, 2],
        "runs": np.array(["2020", "2021"], "M8[h]"),
        "text": "ü",
        "blob": b"\xff",
    }
    nulls = {**dict.fromkeys(row), "blob": b""}
    return {"a": row, 7: nulls, b"c": {**row, "text": None}, np.datetime64("2020-01-01"): row}


@pytest.mark.parametrize("expires", [False, True])
def test_rows_and_moments_stay(tmp_path: Path, expires: bool) -> None:
    with tilekv.open(tmp_path / "s", "x", schema=SCHEMA.replace(expires=expires)) as db:
        db.update(rows())
        if expires:
            db.touch("a", 1000)
            db.set("gone", db["a"], -1)
            moment = db.expires("a")
        old = dict(db)
    said: list[tuple[int, int]] = []
    tilekv.append_attr(
        tmp_path / "s", Attr("more", "int8"), 3, progress=lambda *told: said.append(told)
    )
    assert said[-1] == (4, 4)
    assert tilekv.verify(tmp_path / "s") == []
    assert os.listdir(tmp_path) == ["s"]
    with tilekv.open(tmp_path / "s") as db:
        assert db.schema == Schema(
            [*SCHEMA.attrs, Attr("more", "int8")], capacity=16, expires=expires
        )
        assert len(db) == 4
        for key, value in old.items():
            assert equal(db[key], {**value, "more": 3})
        if expires:
            assert db.expires("a") == moment
            assert db.expires(7) is None


def test_nulls_for_what_is_there(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["a"] = b"1"
    tilekv.append_attr(tmp_path / "s", Attr("more", str, nullable=True))
    with tilekv.open(tmp_path / "s") as db:
        assert db["a"] == {"value": b"1", "more": None}


def test_keys_of_exact_types_stay(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db[5] = b"1"
    tilekv.convert(tmp_path / "s", tmp_path / "t")
    with tilekv.open(tmp_path / "t", "a") as db:
        db[np.int8(5)] = b"2"
        before = set(map(repr, db))
    tilekv.append_attr(tmp_path / "t", Attr("more", "int8"), 0)
    with tilekv.open(tmp_path / "t") as db:
        assert set(map(repr, db)) == before
        assert db[np.int8(5)]["value"] == b"2"


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["a"] = b"1"
    files = sorted((tmp_path / "s").rglob("*"))
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (Attr("more", "int8"), None, WrongTypeError, "more"),
        (Attr("more", "int8"), "x", WrongTypeError, "more"),
        (Attr("more", "int8"), 1000, tilekv.OutOfRangeError, "more"),
        (Attr("value", "int8"), 0, InvalidValueError, "value"),
        ("more", 0, WrongTypeError, "Attr"),
    ]
    for attr, value, error, said in wrong:
        with pytest.raises(error, match=said):
            tilekv.append_attr(tmp_path / "s", attr, value)
    with pytest.raises(InvalidValueError, match="value="):
        tilekv.append_attr(tmp_path / "s", Attr("more", "int8"))
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.append_attr(tmp_path / "none", Attr("more", "int8"), 0)
    assert sorted((tmp_path / "s").rglob("*")) == files
    assert os.listdir(tmp_path) == ["s"]


def test_other_writers_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["a"] = b"1"
    other = tilekv.open(tmp_path / "s", "a")
    reader = tilekv.open(tmp_path / "s")
    real = attributes._copy

    def copy(*given: Any) -> None:
        real(*given)
        other["b"] = b"2"
        other.flush()

    monkeypatch.setattr(attributes, "_copy", copy)
    with pytest.raises(StoreBusyError):
        tilekv.append_attr(tmp_path / "s", Attr("more", "int8"), 0)
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"a": b"1", "b": b"2"}
    monkeypatch.undo()
    tilekv.append_attr(tmp_path / "s", Attr("more", "int8"), 0)
    assert reader["a"] == b"1"  # what it sees is kept
    other["c"] = b"3"
    with pytest.raises(tilekv.StoreReplacedError):
        other.flush()
    other.close(discard=True)
    reader.close()


def test_a_frame_comes_back_with_it(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"k": ["a"], "v": [1]})
    tilekv.from_polars(tmp_path / "s", frame, "k").close()
    tilekv.append_attr(tmp_path / "s", Attr("w", "float64"), 0.5)
    with tilekv.open(tmp_path / "s") as db:
        assert db.to_polars().rows() == [("a", 1, 0.5)]

"""Batches as NumPy sees them: columns, keys, what is missing, nothing at all."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tilekv
from tilekv import Attr, KeyNotFoundError
from tilekv.kvcore.values.keys import key_bytes

Make = Callable[..., tilekv.Store]


def arrays_of(batch: tilekv.Batch) -> Iterator[np.ndarray]:
    for name in batch:
        column = batch[name]
        yield from (
            [column.offsets, column.data] if isinstance(column, tilekv.VarColumn) else [column]
        )
    if batch.found is not None:  # a scan misses nothing
        yield batch.found


def test_columns_have_dtype_and_shape(store: Make) -> None:
    db = store(
        Attr("n", "int16"),
        Attr("m", "float32", shape=(2, 3)),
        Attr("s", str),
        Attr("v", "int32", var=True),
    )
    db.put_many(
        range(5),
        [(i, np.full((2, 3), i, "f4"), "x" * i, np.arange(i, dtype="i4")) for i in range(5)],
    )
    for _ in range(2):
        batch = db.read([3, 0, 4, 4])
        assert list(batch) == ["n", "m", "s", "v"]
        assert len(batch) == 4
        assert batch.keys == [3, 0, 4, 4]
        assert batch["n"].dtype == np.int16
        assert batch["n"].tolist() == [3, 0, 4, 4]
        assert batch["m"].shape == (4, 2, 3)
        assert batch["m"].dtype == np.float32
        assert batch["s"].to_list() == ["xxx", "", "xxxx", "xxxx"]
        assert batch["s"].offsets.tolist() == [0, 3, 3, 7, 11]
        assert batch["s"].data.tobytes() == b"x" * 11
        assert [cell.tolist() for cell in batch["v"].to_list()] == [
            [0, 1, 2],
            [],
            [0, 1, 2, 3],
            [0, 1, 2, 3],
        ]
        assert batch["v"][-1].dtype == np.int32
        assert batch.found.tolist() == [True] * 4
        db.flush()
    with pytest.raises(IndexError):
        batch["s"][4]
    with pytest.raises(KeyNotFoundError, match="'n', 'm'"):
        batch["no"]


def test_nothing_handed_out_can_be_changed(store: Make) -> None:
    """Who took it through Arrow relies on its offsets, its text, and that it stays."""
    attrs = [Attr("n", "int32"), Attr("q", "bool"), Attr("m", "float64", shape=2)]
    db = store(*attrs, Attr("s", str), Attr("v", "int8", var=True))
    db.put_many(range(3), [(i, True, [i, i], "x" * i, [i] * i) for i in range(3)])
    for flushed in (False, True):
        asked = db.read(range(4), missing="mask")
        for batch in (asked, db.read([]), *db.scan(), db.read(range(3), attrs=["s", "n"])):
            for array in arrays_of(batch):
                base = array
                while isinstance(base, np.ndarray):
                    with pytest.raises(ValueError, match="WRITEABLE"):
                        base.flags.writeable = True
                    base = base.base
                assert memoryview(base).readonly
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
                assert array.copy().flags.writeable
        assert asked["s"].to_list() == ["", "x", "xx", ""], flushed
        db.flush()


def test_an_array_of_keys_may_be_used_again(store: Make) -> None:
    db = store(Attr("n", "int64"))
    db.put_many(range(9), n=range(9))
    keys = np.arange(3)
    batch = db.read(keys)
    keys[:] = 7
    assert batch.keys == [0, 1, 2]


def test_keys_of_arrays_are_what_a_scan_gives(store: Make) -> None:
    db = store(Attr("n", "int64"))
    asked = [np.array([1, 2], dtype) for dtype in ("i4", "i8", "f8", ">u2", "M8[s]")]
    for keys in asked:
        db.put_many(keys, n=keys.astype("i8"))
    for keys in asked:
        found = db.read(keys).keys
        assert found == list(keys)
        assert [key_bytes(key) for key in found] == [key_bytes(key) for key in keys]
    assert sorted(
        key for batch in db.scan(rows=3) for key in batch.keys if isinstance(key, int)
    ) == [1, 2]


def test_what_is_missing(store: Make) -> None:
    db = store(Attr("n", "int8"), Attr("s", str))
    db.put_many(["a", "c"], n=[1, 3], s=["A", "C"])
    batch = db.read(["a", "b", "c"], missing="mask")
    assert batch.found.tolist() == [True, False, True]
    assert batch["n"].tolist() == [1, 0, 3]
    assert batch["s"].to_list() == ["A", "", "C"]
    for keys in (["a", "b"], np.array(["a", "b"])):
        with pytest.raises(KeyNotFoundError, match="b"):
            db.read(keys)
    with pytest.raises(KeyNotFoundError, match="7"):
        db.read(np.array([7], "i4"))


def test_nothing_asked(store: Make) -> None:
    db = store(Attr("n", "int8", shape=(2, 2)), Attr("s", str), Attr("q", "bool"))
    for keys in ([], (), np.array([]), np.array([], "S3"), iter([])):
        batch = db.read(keys)
        assert len(batch) == 0
        assert batch.keys == []
        assert batch["n"].shape == (0, 2, 2)
        assert batch["s"].to_list() == []
        assert len(db.read(keys, attrs=[])) == 0
    assert list(db.scan()) == []


def test_attributes_that_are_not_asked_for(store: Make) -> None:
    db = store(Attr("n", "int8"), Attr("s", str))
    db.put_many(range(3), n=range(3), s=["a"] * 3)
    assert list(db.read(range(3), attrs=["s"])) == ["s"]
    assert [len(batch) for batch in db.scan(attrs=[], rows=2)] == [2, 1]
    assert sorted(key for batch in db.scan(attrs=[], rows=2) for key in batch.keys) == [0, 1, 2]

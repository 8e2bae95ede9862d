"""tilekv.dask in one process: what of each collection goes in, and what comes out."""

from pathlib import Path
from typing import Any

import dask
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pytest

import tilekv
import tilekv.dask
from tilekv import Attr, InvalidValueError, Schema, StoreExistsError, WrongTypeError

ROWS = 400


@pytest.fixture(autouse=True)
def threads() -> Any:
    with dask.config.set(scheduler="threads"):
        yield


def every_type() -> pd.DataFrame:
    n = np.arange(ROWS)
    return pd.DataFrame(
        {
            "key": n,
            "text": [None if i % 7 == 0 else f"t{i}" for i in range(ROWS)],
            "float": np.where(n % 5, n * 0.5, np.nan),
            "int": n.astype("int16"),
            "maybe": pd.array([None if i % 3 == 0 else i for i in range(ROWS)], dtype="Int32"),
            "bool": n % 2 == 0,
            "time": pd.date_range("2020", periods=ROWS, freq="h"),
            "category": pd.Categorical(["x", "y"] * (ROWS // 2)),
        }
    )


def test_every_type_comes_back(tmp_path: Path) -> None:
    frame = every_type()
    parts = dask.dataframe.from_pandas(frame, npartitions=8)
    tilekv.dask.to_store(parts, tmp_path / "s", key="key")
    back = tilekv.dask.from_store(tmp_path / "s", npartitions=5)
    found = back.compute().sort_values("key").reset_index(drop=True)
    wanted = parts.compute().reset_index(drop=True)
    pd.testing.assert_frame_equal(found[[*frame.columns]], wanted, check_categorical=False)
    assert dict(back.dtypes) == dict(found.dtypes) | {"category": back["category"].dtype}
    assert len(back) == ROWS
    assert back["int"].sum().compute() == frame["int"].sum()


def test_partitions_that_are_empty_or_null(tmp_path: Path) -> None:
    frame = pd.DataFrame({"key": range(20), "text": [None] * 10 + ["x"] * 10})
    parts = dask.dataframe.from_pandas(frame, npartitions=2)
    parts = dask.dataframe.concat([parts[parts["key"] < 0], parts])
    tilekv.dask.to_store(parts, tmp_path / "s", key="key")
    with tilekv.open(tmp_path / "s") as db:
        assert len(db.fragments) == 2
        assert db.schema.attrs == (Attr("text", str, nullable=True),)
        assert [db[3], db[13]] == [None, "x"]
    empty = parts[parts["key"] < 0]
    tilekv.dask.to_store(empty, tmp_path / "e", key="key")
    back = tilekv.dask.from_store(tmp_path / "e", npartitions=2)
    assert len(back) == 0
    assert list(back.columns) == ["key", "text"]


def test_the_index_is_the_key_or_a_column(tmp_path: Path) -> None:
    frame = every_type().set_index("key")[["text", "int"]]
    parts = dask.dataframe.from_pandas(frame, npartitions=3)
    tilekv.dask.to_store(parts, tmp_path / "i")
    back = tilekv.dask.from_store(tmp_path / "i", npartitions=2)
    assert back.index.name == "key"
    pd.testing.assert_frame_equal(back.compute().sort_index(), parts.compute())
    # Another key, then it is a column like the others.
    tilekv.dask.to_store(parts, tmp_path / "c", key="int")
    with tilekv.open(tmp_path / "c") as db:
        assert db[3] == {"text": "t3", "key": 3}
    tilekv.dask.to_store(parts, tmp_path / "n", columns=["int"])
    with tilekv.open(tmp_path / "n") as db:
        assert db[3] == 3
    unnamed = dask.dataframe.from_pandas(frame.reset_index(drop=True), npartitions=3)
    tilekv.dask.to_store(unnamed, tmp_path / "u")
    with tilekv.open(tmp_path / "u") as db:
        assert db[3] == {"text": "t3", "int": 3}


def test_bytes_and_arrays_stay_what_they_are(tmp_path: Path) -> None:
    schema = Schema([Attr("b", bytes), Attr("a", float, var=True), Attr("m", "int8", shape=(2, 2))])
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        for n in range(50):
            db[b"\xff%d" % n] = {"b": b"\xfe%d" % n, "a": [n, n], "m": [[n, 1], [2, 3]]}
    back = tilekv.dask.from_store(tmp_path / "s", npartitions=4)
    found = back.compute().set_index("key")
    assert found.loc[b"\xff7", "b"] == b"\xfe7"
    assert list(found.loc[b"\xff7", "a"]) == [7.0, 7.0]
    assert np.array_equal(np.stack(found.loc[b"\xff7", "m"]), [[7, 1], [2, 3]])
    bag = tilekv.dask.bag_from_store(tmp_path / "s", ["b"], npartitions=3)
    assert dict(bag.compute())[b"\xff7"] == {"b": b"\xfe7"}


def test_bags_and_delayed(tmp_path: Path) -> None:
    mixed: list[tuple[Any, bytes]] = [(1, b"a"), ("1", b"b"), (b"1", b"c"), (1.5, b"d")]
    tilekv.dask.to_store(dask.bag.from_sequence(mixed, npartitions=3), tmp_path / "s")
    assert dict(tilekv.dask.bag_from_store(tmp_path / "s", npartitions=2).compute()) == dict(mixed)
    with pytest.raises(InvalidValueError, match="of several types"):
        tilekv.dask.from_store(tmp_path / "s").compute()
    schema = Schema([Attr("n", int), Attr("t", str, nullable=True)])
    parts = [dask.delayed(lambda i=i: [(i, {"n": i, "t": None})])() for i in range(4)]
    frames = [dask.delayed(lambda: pd.DataFrame({"k": [9], "n": [9], "t": ["x"]}))()]
    tilekv.dask.to_store(parts, tmp_path / "d", schema=schema)
    tilekv.dask.to_store(frames, tmp_path / "d", key="k", mode="append")
    tilekv.dask.to_store(frames[0], tmp_path / "one", key="k", schema=schema)
    with tilekv.open(tmp_path / "d") as db:
        assert db[2] == {"n": 2, "t": None}
        assert db[9] == {"n": 9, "t": "x"}
    keys = dask.bag.from_sequence([9, 2, 77], npartitions=2)
    found = tilekv.dask.map_many(keys, tmp_path / "d", ["n"], default="none").compute()
    assert found == [{"n": 9}, {"n": 2}, "none"]


def test_later_partitions_win(tmp_path: Path) -> None:
    pairs = dask.bag.from_sequence([("k", b"%d" % n) for n in range(20)], npartitions=20)
    for place, more in (("driver", {}), ("wide", {"compute_kwargs": {"num_workers": 8}})):
        tilekv.dask.to_store(pairs, tmp_path / place, **more)
        with tilekv.open(tmp_path / place) as db:
            assert db["k"] == b"19"


@pytest.mark.parametrize("commit", ["driver", "each"])
def test_modes(tmp_path: Path, commit: str) -> None:
    def pairs(value: bytes) -> Any:
        return dask.bag.from_sequence([(n, value) for n in range(6)], npartitions=3)

    place = tmp_path / "s"
    for mode, value in (("append", b"1"), ("append", b"2"), ("overwrite", b"3")):
        later = tilekv.dask.to_store(pairs(value), place, mode=mode, commit=commit, compute=False)
        if value == b"1":
            assert not place.exists()
        later.compute()
        with tilekv.open(place) as db:
            assert set(db.values()) == {value}
            assert len(db.fragments) == (6 if value == b"2" else 3)
    with pytest.raises(StoreExistsError):
        tilekv.dask.to_store(pairs(b"4"), place, commit=commit)
    other = dask.dataframe.from_pandas(pd.DataFrame({"k": [1], "n": [2]}), npartitions=1)
    with pytest.raises(InvalidValueError, match="the store has the attributes value"):
        tilekv.dask.to_store(other, place, key="k", mode="append", commit=commit)
    with tilekv.open(place) as db:
        assert set(db.values()) == {b"3"}


def test_what_is_refused(tmp_path: Path) -> None:
    frame = dask.dataframe.from_pandas(pd.DataFrame({"k": [1, 2], "n": [3, 4]}), npartitions=1)
    place = tmp_path / "s"
    for wrong, message in (
        ({"mode": "a"}, "mode is one of error, append, overwrite"),
        ({"commit": True}, "commit is one of driver, each"),
        ({"key": "none"}, "no column 'none'"),
        ({"columns": ["none"]}, "no column 'none'"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            tilekv.dask.to_store(frame, place, **wrong)  # type: ignore[arg-type]
    for wrong_type in ({"schema": "int"}, {"key": 5}, {"compute": 1}):
        with pytest.raises(WrongTypeError):
            tilekv.dask.to_store(frame, place, **wrong_type)  # type: ignore[arg-type]
    for data in (frame["n"], [1], pd.DataFrame({"k": [1]}), dask.bag.from_sequence([1])):
        with pytest.raises(WrongTypeError):
            tilekv.dask.to_store(data, place)
    with pytest.raises(WrongTypeError, match="a bag of dask"):
        tilekv.dask.map_many([1, 2], place)
    extra = dask.delayed(lambda: pd.DataFrame({"k": [1], "value": [b"v"], "more": [1]}))()
    with pytest.raises(InvalidValueError, match="no attribute 'more'"):
        tilekv.dask.to_store([extra], place, key="k")
    assert list(tmp_path.iterdir()) == []
    tilekv.dask.to_store([extra], place, key="k", columns=["value"])
    with pytest.raises(InvalidValueError, match="npartitions is 1 to"):
        tilekv.dask.from_store(place, npartitions=0)
    with pytest.raises(InvalidValueError):
        tilekv.dask.from_store(place, ["none"])


def test_unused_columns_are_not_read(tmp_path: Path) -> None:
    tilekv.dask.to_store(
        dask.dataframe.from_pandas(every_type(), npartitions=2), tmp_path / "s", key="key"
    )
    for file in tmp_path.glob("s/__*/text_var.tdb"):
        file.write_bytes(bytes(file.stat().st_size))
    frame = tilekv.dask.from_store(tmp_path / "s", npartitions=2)
    assert frame["int"].sum().compute() == every_type()["int"].sum()
    with pytest.raises(tilekv.CorruptionError):
        frame["text"].compute()

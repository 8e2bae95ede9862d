"""tilekv.storage.streams, by Store.put_stream: what comes is stored as if it had been assigned, or nothing of it is."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv

MIB = 1 << 20
CUT = 1 << 17
TRAILER = 20  # bytes, which name the fragment
SIZES = [0, 1, CUT, MIB - 1, MIB, MIB + 1, MIB + CUT, 2 * MIB, 3 * MIB + 5, 5 * MIB]


class Dripping:
    """Gives at most so many bytes at a time, and then raises, if it is to."""

    def __init__(self, data: bytes, most: int, error: BaseException | None = None) -> None:
        self._file = io.BytesIO(data)
        self._most = most
        self._error = error

    def read(self, n: int) -> bytes:
        data = self._file.read(min(n, self._most))
        if not data and self._error is not None:
            raise self._error
        return data


def sample(size: int) -> bytes:
    return random.Random(size).randbytes(size // 2) + bytes(size - size // 2)


@pytest.mark.parametrize(
    "filters", [None, [], [tilekv.LZ4Filter()], [tilekv.ByteShuffleFilter(), tilekv.ZstdFilter()]]
)
@pytest.mark.parametrize("known", [True, False])
def test_any_size(filters: Any, known: bool, tmp_path: Path) -> None:
    schema = tilekv.Schema([tilekv.Attr("value", bytes, filters=filters)], capacity=4)
    with tilekv.open(tmp_path / "s", "w", schema=schema, config={"kv.upkeep": "off"}) as db:
        for size in SIZES:
            data = sample(size)
            most = random.Random(size).choice([1 << 16, 100_000, 10 * MIB])
            db.put_stream(size, Dripping(data, most), size if known else None)
            assert db[size] == data
            assert not db._unflushed()
        assert db.verify() == []
        assert len(db.fragments) == len(SIZES)
    with tilekv.open(tmp_path / "s", "a") as db:
        assert {size: db[size] for size in db} == {size: sample(size) for size in SIZES}
        db.consolidate(vacuum=True)
        assert {size: db[size] for size in db} == {size: sample(size) for size in SIZES}
        assert db.verify() == []
    assert tilekv.verify(tmp_path / "s") == []


def test_the_files_are_those_of_an_assignment(tmp_path: Path) -> None:
    """A value that was streamed stands as one that was assigned, byte for byte."""
    data = sample(3 * MIB + 5)
    files: list[dict[str, bytes]] = []
    for way in range(3):
        with tilekv.open(tmp_path / f"{way}", "w") as db:
            if way == 0:
                db["k"] = data
            else:
                db.put_stream("k", io.BytesIO(data), len(data) if way == 1 else None)
        (folder,) = tmp_path.glob(f"{way}/__1*")
        data_files = (file for file in folder.iterdir() if "metadata" not in file.name)
        files.append({file.name: file.read_bytes()[:-TRAILER] for file in data_files})
    assert files[0] == files[1] == files[2]


def test_memory_stores_and_paths(tmp_path: Path) -> None:
    data = sample(4 * MIB)
    (tmp_path / "file").write_bytes(data)
    with tilekv.open("memory://streams", "w") as db:
        db.put_stream("a", tmp_path / "file")
        db.put_stream("b", os.fspath(tmp_path / "file"), len(data))
        with open(tmp_path / "file", "rb") as file:
            db.put_stream("c", file)
        assert db.get_many(["a", "b", "c"]) == [data] * 3
        with pytest.raises(FileNotFoundError):
            db.put_stream("d", tmp_path / "gone")
        with db.open_value("a") as value:  # a value of one key as that of another
            db.put_stream("d", value)
        assert db["d"] == data


def test_a_pipe(tmp_path: Path) -> None:
    data = sample(4 * MIB)
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as end:
            end.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with tilekv.open(tmp_path / "s", "w") as db, open(reading, "rb", buffering=0) as end:
        db.put_stream("a", end)
        assert db["a"] == data
    thread.join()


def test_what_was_buffered_is_older(tmp_path: Path) -> None:
    data = sample(2 * MIB)
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"], db["b"] = b"before", b"kept"
        db.put_stream("a", io.BytesIO(data))
        assert db["a"] == data
        assert not db._unflushed()
        db["a"] = b"after"
        assert db["a"] == b"after"
        db.put_stream("a", io.BytesIO(b"short"))
        assert db["a"] == b"short"
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db.items()) == {"a": b"short", "b": b"kept"}


def failing(data: bytes) -> list[tuple[Callable[[tilekv.Store], None], type[BaseException], str]]:
    size = len(data)
    return [
        (
            lambda db: db.put_stream("a", io.BytesIO(data), size + 1),
            tilekv.InvalidValueError,
            "ended after",
        ),
        (
            lambda db: db.put_stream("a", io.BytesIO(data), size - 1),
            tilekv.InvalidValueError,
            "more than",
        ),
        (lambda db: db.put_stream("a", io.BytesIO(data), 0), tilekv.InvalidValueError, "more than"),
        (
            lambda db: db.put_stream("a", Dripping(data, MIB, ZeroDivisionError("odd"))),
            ZeroDivisionError,
            "odd",
        ),
        (
            lambda db: db.put_stream("a", Dripping(data, MIB, KeyboardInterrupt("stopped"))),
            KeyboardInterrupt,
            "stopped",
        ),
        (lambda db: db.put_stream("a", io.StringIO("text")), tilekv.WrongTypeError, "gave str"),  # type: ignore[arg-type]
        (lambda db: db.put_stream("a", 5), tilekv.WrongTypeError, "int has not"),  # type: ignore[arg-type]
        (lambda db: db.put_stream(None, io.BytesIO(data)), tilekv.WrongTypeError, "a key must be"),
        (
            lambda db: db.put_stream("a", io.BytesIO(data), 1.5),
            tilekv.WrongTypeError,
            "size is an int",
        ),  # type: ignore[arg-type]
        (
            lambda db: db.put_stream("a", io.BytesIO(data), other=1),
            tilekv.InvalidValueError,
            "all attributes but one",
        ),
    ]


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_nothing_is_left_of_a_stream_that_fails(number: int, size: int, tmp_path: Path) -> None:
    call, error, message = failing(sample(size))[number]
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"] = b"old"
        db.flush()
        db["b"] = b"buffered"
        before = sorted(os.listdir(tmp_path / "s"))
        with pytest.raises(error, match=message):
            call(db)
        assert sorted(os.listdir(tmp_path / "s")) == before
        assert db["a"] == b"old"
        assert db._unflushed() == 1
        db.put_stream("a", io.BytesIO(b"new"))
        assert dict(db.items()) == {"a": b"new", "b": b"buffered"}


def test_a_stream_that_does_not_block() -> None:
    class Waiting:
        def read(self, n: int) -> None:
            return None

    class Generous:
        def read(self, n: int) -> bytes:
            return bytes(n + 1)

    with tilekv.open("memory://streams", "w") as db:
        for source, message in ((Waiting(), "does not block"), (Generous(), "gave 1048577 bytes")):
            with pytest.raises(tilekv.InvalidValueError, match=message):
                db.put_stream("a", source)  # type: ignore[arg-type]
        assert len(db) == 0


def test_several_attributes(tmp_path: Path) -> None:
    schema = tilekv.Schema(
        [
            tilekv.Attr("n", "int32"),
            tilekv.Attr("image", bytes, nullable=True),
            tilekv.Attr("note", str, nullable=True),
            tilekv.Attr("small", bytes),
        ],
        expires=True,
    )
    data = sample(2 * MIB)
    with tilekv.open(tmp_path / "s", "w", schema=schema) as db:
        db.put_stream("a", io.BytesIO(data), n=5, note="x", small=b"1")
        db.put_stream("b", io.BytesIO(data[:9]), n=6, note=None, small=b"")
        assert db["a"] == {"n": 5, "image": data, "note": "x", "small": b"1"}
        assert db["b"] == {"n": 6, "image": data[:9], "note": None, "small": b""}
        assert db.expires("a") is None
        db.put_stream("c", io.BytesIO(data), n=5, image=None, note="x")
        assert db["c"] == {"n": 5, "image": None, "note": "x", "small": data}
        with pytest.raises(tilekv.WrongTypeError, match="'note' is text: a stream is of bytes"):
            db.put_stream("d", io.BytesIO(data), n=5, image=b"", small=b"")
        with pytest.raises(tilekv.WrongTypeError, match="'n' is int32: a stream is of bytes"):
            db.put_stream("d", io.BytesIO(data), image=b"", note="", small=b"")
        with pytest.raises(tilekv.OutOfRangeError):
            db.put_stream("d", io.BytesIO(data), n=2**40, note="", small=b"")
        with pytest.raises(tilekv.InvalidValueError, match="takes all attributes but one"):
            db.put_stream("d", io.BytesIO(data), n=1)
        assert "d" not in db
        assert db.verify() == []


def test_handles_that_cannot_be_written_to(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "w") as db:
        pass
    with pytest.raises(tilekv.ClosedError):
        db.put_stream("a", io.BytesIO(b""))
    with tilekv.open(tmp_path / "s") as db, pytest.raises(tilekv.ReadOnlyError):
        db.put_stream("a", io.BytesIO(b""))


def test_others_use_the_handle_meanwhile(tmp_path: Path) -> None:
    """They write, read and flush; a close in the middle is an error of the stream, and leaves nothing of it."""
    data = sample(3 * MIB)
    half, go_on = threading.Event(), threading.Event()

    class Halting(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if self.tell() == 2 * MIB:
                half.set()
                assert go_on.wait(60)
            return super().read(n)

    for closing in (False, True):
        half.clear()
        go_on.clear()
        wrong: list[BaseException] = []
        db = tilekv.open(tmp_path / f"{closing}", "w")

        def stream(db: tilekv.Store = db, wrong: list[BaseException] = wrong) -> None:
            try:
                db.put_stream("a", Halting(data))
            except tilekv.TileKVError as raised:
                wrong.append(raised)

        thread = threading.Thread(target=stream)
        thread.start()
        assert half.wait(60)
        db["a"], db["b"] = b"meanwhile", b"1"
        db.flush()
        db["c"] = b"2"
        if closing:
            db.close()
        go_on.set()
        thread.join()
        assert [type(error) for error in wrong] == [tilekv.ClosedError] * closing
        db.close()
        with tilekv.open(tmp_path / f"{closing}") as db:
            assert dict(db.items()) == {
                "a": b"meanwhile" if closing else data,
                "b": b"1",
                "c": b"2",
            }


def test_a_stream_that_writes_to_the_store_itself(tmp_path: Path) -> None:
    data = sample(3 * MIB)

    class Writing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            db[self.tell()] = b"x"
            return super().read(n)

    with tilekv.open(tmp_path / "s", "w") as db:
        db.put_stream("a", Writing(data))
        assert len(db) > 3
        assert db["a"] == data


def test_a_number_of_numpy(tmp_path: Path) -> None:
    with tilekv.open("memory://streams", "w") as db:
        db.put_stream(np.int8(5), io.BytesIO(b"x"), np.int64(1))  # type: ignore[arg-type]
        assert db[5] == b"x"


@pytest.mark.parametrize(
    ("source", "said"),
    [(io.BytesIO, "BytesIO is a class"), ("a\0b", "no path of a file"), (5, "which int has not")],
)
def test_what_is_no_stream(source: Any, said: str) -> None:
    with (
        tilekv.open("memory://odd", "w") as db,
        pytest.raises((tilekv.WrongTypeError, tilekv.InvalidValueError), match=said),
    ):
        db.put_stream("k", source)

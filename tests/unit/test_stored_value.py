"""kvcore.read.stored_value, by Store.get_range: a part of a value is what a slice of the whole is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import tilekv
from tilekv.engine import create
from tilekv.probe import probe
from tilekv.storage import open_storage

MIB = 1 << 20
CUT = 1 << 17  # a longer value than a MiB is stored in chunks of this size
SIZES = [0, 1, 100, 65_535, 65_536, CUT + 1, MIB - 1, MIB, MIB + 1, 3 * CUT + MIB + 5]
FILTERS = [None, tilekv.FilterList(), tilekv.FilterList(tilekv.LZ4Filter())]


def ranges(pick: random.Random, size: int) -> list[tuple[int | None, int | None]]:
    ends = [0, 1, size // 2, size - 1, size, size + 5, -1, -size, CUT, CUT - 1, 2 * CUT + 1]
    return [
        (None, None),
        *[(pick.choice([None, *ends]), pick.choice([None, *ends])) for _ in range(25)],
    ]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("config", [{}, {"kv.cache_bytes": 0}, {"kv.mmap": False}])
def test_a_part_is_what_a_slice_is(
    filters: tilekv.FilterList | None, config: dict[str, object], tmp_path: Path
) -> None:
    """In a fragment, in the write buffer, and while another buffer is frozen."""
    pick = random.Random(3)
    values = {size: pick.randbytes(size // 2) + bytes(size - size // 2) for size in SIZES}
    schema = tilekv.Schema([tilekv.Attr("value", bytes, filters=filters)], capacity=4)
    with tilekv.open(tmp_path / "s", "w", schema=schema, config=config) as db:
        for flushed in (False, True):
            db.put_many(values)
            if flushed:
                db.flush()
            for size, value in values.items():
                for start, stop in ranges(pick, size):
                    part = db.get_range(size, 0 if start is None else start, stop)
                    assert part == value[start:stop]
        db._freeze()  # nothing to freeze: what was flushed is what is read
        db[5] = b"frozen"
        assert db._freeze()
        assert db.get_range(5, 1, 3) == b"ro"


def test_every_kind_of_attribute() -> None:
    schema = tilekv.Schema(
        [
            tilekv.Attr("text", str, nullable=True),
            tilekv.Attr("data", bytes),
            tilekv.Attr("n", "int32"),
            tilekv.Attr("many", "int16", var=True),
        ]
    )
    with tilekv.open("memory://parts", "w", schema=schema) as db:
        db["a"] = ("grün", b"12345", 5, [1, 2])
        db["b"] = (None, b"", 5, [])
        for _ in range(2):
            assert db.get_range("a", 2, 4, "text") == "ü".encode()
            assert db.get_range("b", 0, 4, "text") is None
            assert db.get_range("a", 1, 3, attr="data") == b"23"
            assert db.get_range("b", attr="data") == b""
            for name, kind in (("n", "int32"), ("many", "1-d arrays of int16")):
                with pytest.raises(tilekv.WrongTypeError, match=f"{name}' is {kind}"):
                    db.get_range("a", 0, 1, name)
            db.flush()
        with pytest.raises(tilekv.InvalidValueError, match="choose one with attr=: 'text', 'data'"):
            db.get_range("a", 0, 1)
        with pytest.raises(tilekv.InvalidValueError, match="no attribute 'x'"):
            db.get_range("a", 0, 1, "x")
        with pytest.raises(tilekv.WrongTypeError, match="not int"):
            db.get_range("a", 0, 1, 5)  # type: ignore[arg-type]


def test_keys_that_are_not_there() -> None:
    with tilekv.open("memory://parts", "w", expires=True) as db:
        db.set("gone", b"x", -1)
        db.set("later", b"later", 1000)
        db["deleted"] = b"x"
        for _ in range(2):
            assert db.get_range("later", 1, 3) == b"at"
            db.flush()
        del db["deleted"]
        for key in ("gone", "deleted", "never", None):
            with pytest.raises(tilekv.KeyNotFoundError):
                db.get_range(key)


def test_arguments() -> None:
    with tilekv.open("memory://parts", "w") as db:
        db["a"] = b"12345"
        assert db.get_range("a", np.int8(1), np.int64(3)) == b"23"
        assert db.get_range("a", -(10**30), 10**30) == b"12345"
        for start, stop in ((1.5, 2), (0, "2"), (True, 2)):
            with pytest.raises(tilekv.WrongTypeError, match="is an int, not"):
                db.get_range("a", start, stop)  # type: ignore[arg-type]
    with pytest.raises(tilekv.ClosedError):
        db.get_range("a")


def test_keys_of_exact_types() -> None:
    """A look-up by an int finds that of another width, as `get` does."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)])
    storage = open_storage("memory://exact", True)
    assert create(probe(storage), schema, False, numbers=False)
    with tilekv.open("memory://exact", "a") as db:
        db[np.int16(7)] = b"short"
        assert db.get_range(7, 1) == b"hort"


def test_damage_is_found(tmp_path: Path) -> None:
    value = random.Random(1).randbytes(4 * MIB)
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"] = value
    (file,) = tmp_path.glob("s/__*/value_var.tdb")
    data = bytearray(file.read_bytes())
    data[2 * MIB] ^= 1
    file.write_bytes(data)
    with tilekv.open(tmp_path / "s") as db:
        assert db.get_range("a", 0, 100) == value[:100]
        assert db.get_range("a", 3 * MIB) == value[3 * MIB :]
        with pytest.raises(tilekv.CorruptionError):
            db.get_range("a", 2 * MIB - 10, 2 * MIB + 10)
        with db.open_value("a") as opened, pytest.raises(tilekv.CorruptionError):
            opened.read()


def test_bytes_that_a_part_reads(tmp_path: Path) -> None:
    """What is decoded for a small part is a chunk of 128 KiB, not a megabyte."""
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"] = random.Random(1).randbytes(8 * MIB)
    with tilekv.open(tmp_path / "s") as db:
        value = db._stored("a", None)
        assert value is not None
        assert value.size == 8 * MIB
        before = db._engine.opener.cache.used
        assert len(value.part(5 * MIB, 5 * MIB + 16_384)) == 16_384
        assert db._engine.opener.cache.used - before <= 2 * CUT
        with pytest.raises(ValueError, match="of a value of"):
            value.part(0, 8 * MIB + 1)

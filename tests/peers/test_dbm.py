"""What CPython's test.test_dbm asks (README.md): "c" of dbm is "a" here, "n" is "w"."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv

ITEMS = {
    b"a": b"Simple",
    b"b": b"things",
    b"c": b"should",
    b"d": b"be",
    b"f": b"simple",
    b"g": b"enough",
}
PAIRS = [(b"a", b"b"), (b"12345678910", b"019237410982340912840198242")]


class Named:
    """A path, of `str` or bytes, that is no pathlib.Path."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        return self.name


@pytest.fixture
def uri(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "dbm"


@pytest.fixture
def made(uri: Path) -> Path:
    """Where a store of ITEMS is."""
    with tilekv.open(uri, "w") as db:
        for key, value in ITEMS.items():
            db[key] = value
    return uri


def holds(db: Any, items: dict[bytes, bytes]) -> None:
    assert sorted(db.keys()) == sorted(items)
    for key, value in items.items():
        assert key in db
        assert db[key] == value


def test_what_is_not_there(uri: Path) -> None:
    with pytest.raises(OSError, match="dbm") as caught:
        tilekv.open(uri, "r")
    assert isinstance(caught.value, tilekv.TileKVError)
    assert not uri.exists()


def test_creation(uri: Path) -> None:
    with tilekv.open(uri, "a") as db:
        assert list(db.keys()) == []
        for key, value in ITEMS.items():
            db[key] = value
        holds(db, ITEMS)
    with tilekv.open(uri, "r") as db:
        holds(db, ITEMS)


def test_a_new_one_replaces_what_was_there(made: Path) -> None:
    with tilekv.open(made, "w") as db:
        assert len(db) == 0
        assert b"a" not in db
    with tilekv.open(made, "r") as db:
        assert len(db) == 0


def test_modification(made: Path) -> None:
    with tilekv.open(made, "a") as db:
        db[b"g"] = b"indented"
        holds(db, ITEMS | {b"g": b"indented"})
        assert db.setdefault(b"xxx", b"foo") == b"foo"
        assert db[b"xxx"] == b"foo"
    with tilekv.open(made, "r") as db:
        holds(db, ITEMS | {b"g": b"indented", b"xxx": b"foo"})


def test_read(made: Path) -> None:
    with tilekv.open(made, "r") as db:
        holds(db, ITEMS)
        assert db.get(b"a") == ITEMS[b"a"]
        assert db.get(b"xxx", b"foo") == b"foo"
        assert db.get(b"xxx") is None
        with pytest.raises(KeyError):
            db[b"xxx"]


def test_what_is_read_only(made: Path) -> None:
    with tilekv.open(made, "r") as db:
        for call in (
            lambda: db.__setitem__(b"a", b"b"),
            lambda: db.__delitem__(b"a"),
            lambda: db.setdefault(b"xxx", b"foo"),
            db.clear,
            db.vacuum,
        ):
            with pytest.raises(tilekv.ReadOnlyError):
                call()
        holds(db, ITEMS)


def test_empty_value(uri: Path) -> None:
    with tilekv.open(uri, "a") as db:
        assert list(db.keys()) == []
        db[b"empty"] = b""
        assert list(db.keys()) == [b"empty"]
        assert b"empty" in db
        assert db[b"empty"] == db.get(b"empty") == db.setdefault(b"empty") == b""


def test_keys_and_clear(uri: Path) -> None:
    with tilekv.open(uri, "a") as db:
        for key, value in PAIRS:
            db[key] = value
        holds(db, dict(PAIRS))
        assert b"xxx" not in db
        with pytest.raises(KeyError):
            db[b"xxx"]
        assert len(db) == 2
        db.clear()
        assert len(db) == 0
        for key, _ in PAIRS:
            assert key not in db


def test_vacuum_keeps_the_content_and_gives_back_room(uri: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in uri.rglob("*") if path.is_file())

    with tilekv.open(uri, "w") as db:
        for key, value in ITEMS.items():
            db[key] = np.random.default_rng(key[0]).bytes(10_000) + value
    before = size()
    with tilekv.open(uri, "a") as db:
        for key in sorted(ITEMS)[:3]:
            del db[key]
        kept = dict(db)
        db.consolidate(vacuum=True)
        assert dict(db) == kept
    assert size() < before * 2 / 3
    with tilekv.open(uri) as db:
        assert dict(db) == kept


@pytest.mark.parametrize("kind", [str, Path, Named])
def test_paths(tmp_path: Path, kind: Any) -> None:
    path = kind(str(tmp_path / "x"))
    with tilekv.open(path, "a") as db:
        db[b"1"] = b"1"
    with tilekv.open(path) as db:
        assert db[b"1"] == b"1"


@pytest.mark.parametrize("kind", [bytes, lambda path: Named(bytes(path))])
def test_no_path(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(tilekv.TileKVError, match="URI"):
        tilekv.open(kind(tmp_path / "x"), "a")


def test_a_file_in_the_way(uri: Path) -> None:
    """dbm's "n" overwrites it."""
    uri.write_bytes(b"precious")
    for mode in ("r", "a", "x", "w"):
        with pytest.raises(OSError, match="folder"):
            tilekv.open(uri, mode)
    assert uri.read_bytes() == b"precious"

"""kvcore.batch.key_scan, by Store.scan_keys: what a look at every key of the store finds."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import tilekv

MANY = 600_000  # keys: three parts of a scan


def expected(db: tilekv.Store, asked: dict[str, Any]) -> list[Any]:
    """The same by objects."""
    given = [asked[name] for name in ("prefix", "glob", "start", "stop") if name in asked]
    kinds = (type(given[0]),) if given else (str, bytes)
    found = [
        key
        for key in db
        if isinstance(key, kinds)
        and ("prefix" not in asked or key.startswith(asked["prefix"]))
        and ("glob" not in asked or fnmatchcase(key, asked["glob"]))  # type: ignore[type-var]
        and ("start" not in asked or key >= asked["start"])
        and ("stop" not in asked or key < asked["stop"])
    ]
    if asked.get("sorted"):
        found.sort(key=lambda key: (isinstance(key, bytes), key))
    return found[: asked.get("limit")]


ASKED: list[dict[str, Any]] = [
    {},
    {"prefix": "k1"},
    {"prefix": b"k1"},
    {"prefix": ""},
    {"glob": "*7"},
    {"glob": "k?[13]*"},
    {"glob": b"k*9"},
    {"start": "k2"},
    {"stop": "k2"},
    {"start": b"k10", "stop": b"k2", "glob": b"*5"},
    {"prefix": "none"},
    {"limit": 0},
    {"limit": 7},
    {"limit": 7, "prefix": "k1"},
]


@pytest.mark.parametrize("ordered", [False, True])
def test_it_finds_what_a_look_at_all_keys_finds(ordered: bool, tmp_path: Path) -> None:
    """In buffers and fragments, with deletes, expired entries and keys that were set again; in one part and in several."""
    pick = random.Random(4)
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=64, expires=True)
    with tilekv.open(tmp_path / "s", "w", schema=schema, config={"kv.upkeep": "off"}) as db:
        for step in range(5):
            for _ in range(400):
                name = f"k{pick.randrange(600)}"
                key = pick.choice([name, name.encode(), int(name[1:]), name + "ü"])
                if pick.random() < 0.2:
                    db.delete_many([key])
                else:
                    db.set(key, b"", pick.choice([None, None, -1, 1000]))
            if step < 3:
                db.flush()
            elif step == 3:
                assert db._freeze()
            for asked in ASKED:
                asked = {**asked, "sorted": ordered}
                assert db.scan_keys(**asked) == expected(db, asked), asked
        assert len(db.scan_keys()) > 100


def test_several_parts_by_several_threads(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "w") as db:
        db.put_many([f"{i % 10}/{i}" for i in range(MANY)], [b""] * MANY)
        db.flush()
        seven = [f"7/{i}" for i in range(7, MANY, 10)]
        assert db.scan_keys(prefix="7/", sorted=True) == sorted(seven)
        found = db.scan_keys(prefix="7/")
        assert len(found) == len(seven)
        assert set(found) == set(seven)
        assert db.scan_keys(prefix="7/", limit=100) == found[:100]
        assert db.scan_keys(prefix="7/", limit=3, sorted=True) == sorted(seven)[:3]
    with tilekv.open(tmp_path / "s", config={"kv.threads": 1}) as db:
        assert db.scan_keys(prefix="7/") == found


def test_long_keys(tmp_path: Path) -> None:
    keys = [b"a" * n for n in (0, 1, 4095, 1 << 20, (1 << 20) + 1, 3 << 20)]
    with tilekv.open(tmp_path / "s", "w") as db:
        db.update(dict.fromkeys(keys, b""))
        for _ in range(2):
            assert db.scan_keys(prefix=b"a", sorted=True) == keys[1:]
            assert db.scan_keys(glob=b"", sorted=True) == [b""]
            db.flush()


def test_arguments() -> None:
    with tilekv.open("memory://scans", "w") as db:
        assert db.scan_keys() == []
        with pytest.raises(tilekv.InvalidValueError, match="limit is at least 0, not -1"):
            db.scan_keys(limit=-1)
        with pytest.raises(tilekv.WrongTypeError, match="limit is an int"):
            db.scan_keys(limit=1.5)  # type: ignore[arg-type]
        with pytest.raises(tilekv.WrongTypeError, match="sorted is True or False"):
            db.scan_keys(sorted=1)  # type: ignore[arg-type]
        with pytest.raises(tilekv.WrongTypeError, match="prefix is str or bytes"):
            db.scan_keys(prefix=5)  # type: ignore[arg-type]
    with pytest.raises(tilekv.ClosedError):
        db.scan_keys()


def test_damage_is_found(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "w") as db:
        db.put_many([f"key {i}" for i in range(5000)], [b""] * 5000)
    (file,) = tmp_path.glob("s/__*/__key_var.tdb")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with tilekv.open(tmp_path / "s") as db, pytest.raises(tilekv.CorruptionError):
        db.scan_keys(prefix="x")

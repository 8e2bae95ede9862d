"""What other programs have stored arrives in a store, each entry once, however often the import is killed."""

from __future__ import annotations

import dbm.dumb
import io
import json
import os
import pickle
import shelve
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import lmdb
import numpy as np
import pytest
import sqlitedict

import tilekv
from samples import NIGHTLY
from tilekv.cli.command import main

ENTRIES = {b"key %d" % i: b"value %d" % i * (i % 50) for i in range(2000)}
TEXT_ENTRIES = {key.decode(): value for key, value in ENTRIES.items()}


class Bomb:
    """A pickle of it does something."""

    def __reduce__(self) -> Any:
        return os.abort, ()


def lmdb_at(place: Path) -> dict[Any, Any]:
    with lmdb.open(str(place), map_size=1 << 26) as env, env.begin(write=True) as txn:
        txn.cursor().putmulti(ENTRIES.items())
    return dict(ENTRIES)


def lmdb_in_a_file(place: Path) -> dict[Any, Any]:
    with lmdb.open(str(place), map_size=1 << 26, subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"1")
    return {b"a": b"1"}


def leveldb_at(place: Path) -> dict[Any, Any]:
    plyvel = pytest.importorskip("plyvel", reason="plyvel has no wheel for this Python")
    with plyvel.DB(str(place), create_if_missing=True) as db, db.write_batch() as batch:
        for key, value in ENTRIES.items():
            batch.put(key, value)
    return dict(ENTRIES)


def dbm_at(place: Path) -> dict[Any, Any]:
    with dbm.open(str(place), "n") as db:
        for key, value in ENTRIES.items():
            db[key] = value
    return dict(ENTRIES)


def dbm_of_several_files(place: Path) -> dict[Any, Any]:
    with dbm.dumb.open(str(place), "n") as db:
        db[b"a"] = b"1"
    return {b"a": b"1"}


def dbm_of_sqlite(place: Path) -> dict[Any, Any]:
    """As Python 3.13 makes it, whichever this one is."""
    with closing(sqlite3.connect(place)) as db, db:
        db.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        db.executemany("INSERT INTO Dict VALUES (?, ?)", ENTRIES.items())
    return dict(ENTRIES)


def sqlite_at(place: Path) -> dict[Any, Any]:
    db = sqlite3.connect(place)
    db.execute("CREATE TABLE t (name TEXT PRIMARY KEY, n INTEGER, x REAL, data BLOB, note TEXT)")
    rows = [(f"row {i}", i, i / 2, b"%d" % i, None if i % 3 else "n") for i in range(500)]
    db.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    return {row[0]: dict(zip(("n", "x", "data", "note"), row[1:], strict=True)) for row in rows}


def diskcache_at(place: Path) -> dict[Any, Any]:
    with diskcache.Cache(place) as cache, cache.transact():
        for key, value in TEXT_ENTRIES.items():
            cache[key] = value
        cache["large"] = bytes(100_000)
        cache.set("gone", b"1", expire=-1)
    return {**TEXT_ENTRIES, "large": bytes(100_000)}


def tar_at(place: Path) -> dict[Any, Any]:
    with tarfile.open(place, "w") as archive:
        for key, value in TEXT_ENTRIES.items():
            member = tarfile.TarInfo(f"./in/{key}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
        folder = tarfile.TarInfo("in/folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return {f"in/{key}": value for key, value in TEXT_ENTRIES.items()}


def tilekv_at(place: Path) -> dict[Any, Any]:
    mixed: dict[Any, Any] = {**TEXT_ENTRIES, 7: b"int", 2.5: b"float", b"b": b"bytes"}
    with tilekv.open(place, "x") as db:
        db.put_many(mixed)
    return mixed


MAKERS: list[Callable[[Path], dict[Any, Any]]] = [
    lmdb_at,
    lmdb_in_a_file,
    leveldb_at,
    dbm_at,
    dbm_of_several_files,
    dbm_of_sqlite,
    sqlite_at,
    diskcache_at,
    tilekv_at,
]


@pytest.mark.parametrize("make", [*MAKERS, tar_at], ids=lambda make: make.__name__)
def test_what_was_stored_arrives(tmp_path: Path, make: Callable[[Path], dict[Any, Any]]) -> None:
    source = tmp_path / ("source.tar" if make is tar_at else "source")
    entries = make(source)
    before = {path: path.stat().st_size for path in sorted(tmp_path.rglob("*.sqlite"))}
    told: list[tuple[int, int]] = []
    done = tilekv.import_from(source, tmp_path / "new.kv", progress=lambda *seen: told.append(seen))
    assert done == tilekv.Imported(len(entries), 0)
    assert told[-1][0] == told[-1][1] > 0
    assert all(done < total for done, total in told[:-1])
    assert before == {path: path.stat().st_size for path in before}
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db == entries
        fragments = len(db.fragments)
    # Again: nothing is written.
    assert tilekv.import_from(source, tmp_path / "new.kv").equal == len(entries)
    with tilekv.open(tmp_path / "new.kv", "a") as db:
        assert len(db.fragments) == fragments
        some = next(iter(entries))
        del db[some]
    assert tilekv.import_from(source, tmp_path / "new.kv").equal == len(entries) - 1
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db == entries


SLOWLY = """
import sys, time, tilekv
config = {"kv.buffer_bytes": 1 << 16, "kv.upkeep": "off"}
tilekv.import_from(*sys.argv[1:], config=config, progress=lambda done, total: time.sleep(0.0005))
"""


def test_killed_at_any_moment_and_done_again(tmp_path: Path) -> None:
    source, place = tmp_path / "source.tar", tmp_path / "new.kv"
    values = {str(i): np.random.default_rng(i).bytes(20_000) for i in range(2000)}
    with tarfile.open(source, "w") as archive:
        for key, value in values.items():
            member = tarfile.TarInfo(key)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    command = [sys.executable, "-P", "-c", SLOWLY, str(source), str(place)]
    rnd = np.random.default_rng()
    for _ in range(40 if NIGHTLY else 4):
        with subprocess.Popen(command) as process:
            time.sleep(0.4 + rnd.random() * 0.4)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    done = tilekv.import_from(source, place)
    assert done.entries == len(values)
    assert 0 < done.equal < len(values) or NIGHTLY  # after so many of them all may be there
    with tilekv.open(place) as db:
        assert db == values
        assert sum(fragment.cells for fragment in db.fragments) == len(values)  # nothing twice


# --- keys, tables, pickles ---


def test_keys_of_bytes_become_text_if_asked(tmp_path: Path) -> None:
    lmdb_at(tmp_path / "source")
    tilekv.import_from(tmp_path / "source", tmp_path / "new.kv", text_keys=True)
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db == TEXT_ENTRIES
    with lmdb.open(str(tmp_path / "source"), map_size=1 << 26) as env, env.begin(write=True) as txn:
        txn.put(b"\xff", b"")
    with pytest.raises(tilekv.InvalidValueError, match="no UTF-8"):
        tilekv.import_from(tmp_path / "source", tmp_path / "other.kv", text_keys=True)


def test_a_named_database_of_lmdb(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "source"), map_size=1 << 26, max_dbs=2) as env:
        named = env.open_db(b"named")
        several = env.open_db(b"several", dupsort=True)
        with env.begin(write=True) as txn:
            txn.put(b"a", b"1", db=named)
            txn.put(b"a", b"1", db=several)
    tilekv.import_from(tmp_path / "source", tmp_path / "new.kv", table="named")
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db == {b"a": b"1"}
    with pytest.raises(tilekv.InvalidValueError, match="several values"):
        tilekv.import_from(tmp_path / "source", tmp_path / "new.kv", table="several")
    with pytest.raises(tilekv.InvalidValueError, match="no database 'none'"):
        tilekv.import_from(tmp_path / "source", tmp_path / "new.kv", table="none")


def test_tables_of_sqlite(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    db = sqlite3.connect(source)
    db.execute('CREATE TABLE "odd "" name" (k, "v 1" INTEGER)')
    db.execute("CREATE TABLE mixed (k PRIMARY KEY, v)")
    db.executemany('INSERT INTO "odd "" name" VALUES (?, ?)', [("a", 1), ("b", 2)])
    db.executemany("INSERT INTO mixed VALUES (?, ?)", [(1, "a"), (2, b"b")])
    db.execute("CREATE VIEW twice AS SELECT k, v FROM mixed UNION ALL SELECT k, v FROM mixed")
    db.commit()
    db.close()
    new = tmp_path / "new.kv"
    tilekv.import_from(source, new, table='odd " name', key="k")
    with tilekv.open(new) as stored:
        assert stored == {"a": 1, "b": 2}
    for options, complaint in (
        ({}, "3 tables"),
        ({"table": "none"}, "no table 'none'"),
        ({"table": 'odd " name'}, "which column"),
        ({"table": "mixed"}, "several types: blob, text"),
        ({"table": "twice", "key": "k"}, "is no key"),
    ):
        with pytest.raises(tilekv.InvalidValueError, match=complaint):
            tilekv.import_from(source, tmp_path / "other.kv", **options)
    assert not (tmp_path / "other.kv").exists()


def test_pickles_are_loaded_only_by_name(tmp_path: Path) -> None:
    with shelve.open(tmp_path / "shelf", "n") as shelf:
        shelf["a"] = {"n": 1, "text": "x"}
        shelf["b"] = {"n": 2, "text": "y"}
    source, new = tmp_path / "shelf", tmp_path / "new.kv"
    with pytest.raises(tilekv.InvalidValueError, match="pickles: loads"):
        tilekv.import_from(source, new, kind="shelve")
    tilekv.import_from(source, new, kind="shelve", loads=pickle.loads)
    with tilekv.open(new) as db:
        assert db == {"a": {"n": 1, "text": "x"}, "b": {"n": 2, "text": "y"}}
    with sqlitedict.SqliteDict(tmp_path / "dict.sqlite", autocommit=True) as old:
        old["list"] = [1, 2]
    with pytest.raises(tilekv.WrongTypeError, match="'list' has a list"):
        tilekv.import_from(tmp_path / "dict.sqlite", tmp_path / "l.kv", loads=pickle.loads)
    tilekv.import_from(
        tmp_path / "dict.sqlite",
        tmp_path / "l.kv",
        loads=lambda data: json.dumps(pickle.loads(data)),
    )
    with tilekv.open(tmp_path / "l.kv") as db:
        assert db == {"list": "[1, 2]"}


def test_a_shelf_that_another_python_has_made(tmp_path: Path) -> None:
    dbm_of_sqlite(tmp_path / "shelf")
    with closing(sqlite3.connect(tmp_path / "shelf")) as db, db:
        db.execute("UPDATE Dict SET value = ?", [pickle.dumps({"n": 1})])
    for kind in (None, "shelve"):
        place = tmp_path / f"{kind}.kv"
        tilekv.import_from(tmp_path / "shelf", place, kind=kind, loads=pickle.loads)
        with tilekv.open(place) as new:
            assert set(new) == {key.decode() for key in ENTRIES}
            assert set(new.values()) == {1}


def test_no_pickle_runs_unasked(tmp_path: Path) -> None:
    """Or this process would end."""
    with shelve.open(tmp_path / "shelf", "n") as shelf:
        shelf["a"] = Bomb()
    tilekv.import_from(tmp_path / "shelf", tmp_path / "s.kv")
    with sqlitedict.SqliteDict(tmp_path / "dict.sqlite", autocommit=True) as old:
        old["a"] = Bomb()
    tilekv.import_from(tmp_path / "dict.sqlite", tmp_path / "d.kv")
    for name in ("s.kv", "d.kv"):
        with tilekv.open(tmp_path / name) as db:
            assert [value[:1] for value in db.values()] == [b"\x80"]  # what pickles begin with
    with diskcache.Cache(tmp_path / "values") as cache:
        cache["a"] = Bomb()
    with diskcache.Cache(tmp_path / "keys") as cache:
        cache.set((1, 2), b"")
    for name in ("values", "keys"):
        with pytest.raises(tilekv.InvalidValueError, match=r"is a pickle: loads=pickle\.loads"):
            tilekv.import_from(tmp_path / name, tmp_path / "c.kv")
    with diskcache.Cache(tmp_path / "long") as cache:
        cache["a"] = {"text": "x" * 100_000}
    tilekv.import_from(tmp_path / "long", tmp_path / "l.kv", loads=pickle.loads)
    with tilekv.open(tmp_path / "l.kv") as db:
        assert db["a"] == "x" * 100_000


def test_moments_of_expiry_move_in(tmp_path: Path) -> None:
    with diskcache.Cache(tmp_path / "source") as cache:
        cache.set("soon", b"1", expire=1000)
        cache["never"] = b"2"
    tilekv.import_from(tmp_path / "source", tmp_path / "new.kv")
    tilekv.import_from(tmp_path / "new.kv", tmp_path / "again.kv")
    for name in ("new.kv", "again.kv"):
        with tilekv.open(tmp_path / name) as db:
            soon = db.expires("soon")
            assert soon is not None
            assert 900 < soon.timestamp() - time.time() <= 1000
            assert db.expires("never") is None
    with tilekv.open(tmp_path / "plain.kv", "x") as db:
        db["a"] = b""
    with pytest.raises(tilekv.InvalidValueError, match="no moments of expiry"):
        tilekv.import_from(tmp_path / "source", tmp_path / "plain.kv")


# --- archives ---


def test_samples_of_webdataset(tmp_path: Path) -> None:
    files = {
        "train/0001.jpg": b"\xff\xd8 1",
        "train/0001.cls": b"3",
        "train/0002.jpg": b"\xff\xd8 2",
        "train/0002.CLS": b"5",
        "train/0003.jpg": b"\xff\xd8 3",
        "README": b"passed over",
    }
    with tarfile.open(tmp_path / "shard-000.tar", "w") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    tilekv.import_from(tmp_path / "shard-000.tar", tmp_path / "new.kv", kind="webdataset")
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db["train/0002"] == {"jpg": b"\xff\xd8 2", "cls": b"5"}
        assert db["train/0003"] == {"jpg": b"\xff\xd8 3", "cls": None}
        assert len(db) == 3


def shard_at(place: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(place, "w") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))


@pytest.mark.parametrize("name", ["shard-{000..011}.tar", "shard-*.tar", "shard-{00,01}?.tar"])
def test_several_shards_are_one_source(tmp_path: Path, name: str) -> None:
    """In their order, which makes one of a sample that is parted by the end of a shard."""
    for i in range(12):
        files = {f"{i:03}{n}.{kind}": b"%d %d" % (i, n) for n in range(3) for kind in ("a", "b")}
        parted = {f"{i - 1:03}9.b": b"second"} if i else {}
        shard_at(tmp_path / f"shard-{i:03}.tar", {**parted, **files, f"{i:03}9.a": b"first"})
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    for equal in (0, 48):
        done = tilekv.import_from(
            tmp_path / name, tmp_path / "new.kv", kind="webdataset", progress=tell
        )
        assert done == tilekv.Imported(48, equal)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told[: len(told) // 2]] == sorted(
        done for done, _ in told[: len(told) // 2]
    )
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db["0012"] == {"a": b"1 2", "b": b"1 2"}
        assert db["0009"] == {"a": b"first", "b": b"second"}
        assert db["0119"] == {"a": b"first", "b": None}
    assert tilekv.import_from(tmp_path / name, tmp_path / "files.kv").entries == 12 * 8 - 1


def test_an_import_of_shards_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    for i in range(4):
        shard_at(tmp_path / f"{i}.tar", {f"{i}{n}.a": b"1" * 1000 for n in range(10)})
    (tmp_path / "2.tar").rename(tmp_path / "aside")
    with pytest.raises(FileNotFoundError, match=r"2\.tar"):
        tilekv.import_from(tmp_path / "{0..3}.tar", tmp_path / "new.kv", kind="webdataset")
    (tmp_path / "2.tar").write_bytes((tmp_path / "aside").read_bytes()[:6000])
    with pytest.raises(tilekv.FormatError, match=r"2\.tar: "):
        tilekv.import_from(tmp_path / "{0..3}.tar", tmp_path / "new.kv", kind="webdataset")
    (tmp_path / "aside").rename(tmp_path / "2.tar")
    done = tilekv.import_from(tmp_path / "{0..3}.tar", tmp_path / "new.kv", kind="webdataset")
    assert done.entries == 40
    with tilekv.open(tmp_path / "new.kv") as db:
        assert len(db) == 40
        assert sum(fragment.cells for fragment in db.fragments) == 40  # nothing twice
    shard_at(tmp_path / "1.tar", {"09.a": b""})
    with pytest.raises(tilekv.InvalidValueError, match=r"1\.tar: sample '09' has two files \.a"):
        tilekv.import_from(tmp_path / "{0,1}.tar", tmp_path / "twice.kv", kind="webdataset")
    with pytest.raises(FileNotFoundError, match="none"):
        tilekv.import_from(tmp_path / "none-*.tar", tmp_path / "new.kv")


def test_a_file_whose_name_has_braces_is_itself(tmp_path: Path) -> None:
    shard_at(tmp_path / "{0..3}*.tar", {"a": b"1"})
    assert tilekv.import_from(tmp_path / "{0..3}*.tar", tmp_path / "new.kv").entries == 1


def test_large_files_of_an_archive_come_by_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilekv.moving.archives.LARGE_BYTES", 1000)
    large = np.random.default_rng(1).bytes(5 << 20)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name, value in (("small", b"1"), ("large", large), ("last", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    for equal in (0, 3):
        done = tilekv.import_from(tmp_path / "a.tar.gz", tmp_path / "new.kv")
        assert done == tilekv.Imported(3, equal)
    with tilekv.open(tmp_path / "new.kv") as db:
        assert db == {"small": b"1", "large": large, "last": b"2"}


# --- what cannot be ---


def test_sources_that_are_none(tmp_path: Path) -> None:
    new = tmp_path / "new.kv"
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    (tmp_path / "bad.tar").write_bytes(bytes(10) + b"x" * 1000)
    rocks = tmp_path / "rocks"
    rocks.mkdir()
    for name in ("CURRENT", "MANIFEST-000001", "OPTIONS-000007"):
        (rocks / name).write_bytes(b"")
    for name in ("text", "folder", "rocks", "bad.tar"):
        with pytest.raises(tilekv.InvalidValueError, match="as far as its files tell: kind="):
            tilekv.import_from(tmp_path / name, new)
    for name, kind in (("bad.db", None), ("text", "tar"), ("text", "lmdb"), ("text", "sqlite")):
        with pytest.raises(tilekv.FormatError, match=name):
            tilekv.import_from(tmp_path / name, new, kind=kind)
    with pytest.raises(FileNotFoundError):
        tilekv.import_from(tmp_path / "none", new)
    with pytest.raises(tilekv.InvalidValueError, match="kind is one of lmdb"):
        tilekv.import_from(tmp_path / "text", new, kind="csv")
    assert not new.exists()


def test_a_store_that_holds_something_else(tmp_path: Path) -> None:
    sqlite_at(tmp_path / "source")
    with tilekv.open(tmp_path / "new.kv", "x") as db:
        db["a"] = b"1"
    with pytest.raises(tilekv.InvalidValueError, match="what is imported"):
        tilekv.import_from(tmp_path / "source", tmp_path / "new.kv")


# --- on the command line ---


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new.kv")
    lmdb_at(tmp_path / "source")
    assert main(["import", str(tmp_path / "source"), new, "--text-keys", "--progress"]) == 0
    out, err = capsys.readouterr()
    assert "2,000 entries" in out
    assert "importing: 100%" in err
    assert main(["export", new, str(tmp_path / "out.tar.gz")]) == 0
    assert main(["import", str(tmp_path / "out.tar.gz"), new]) == 0
    assert "2,000 as stored before" in capsys.readouterr().out
    assert main(["export", new, str(tmp_path / "out.tar.gz")]) == 1
    assert "--force" in capsys.readouterr().err
    with shelve.open(tmp_path / "shelf", "n") as shelf:
        shelf["a"] = "text"
    shelf_command = ["import", str(tmp_path / "shelf"), str(tmp_path / "shelf.kv")]
    assert main([*shelf_command, "--from", "shelve"]) == 1
    assert "--pickle" in capsys.readouterr().err
    assert main([*shelf_command, "--from", "shelve", "--pickle"]) == 0
    with tilekv.open(tmp_path / "shelf.kv") as db:
        assert db == {"a": "text"}
    for shard in "01":
        shard_at(tmp_path / f"s-{shard}.tar", {f"{shard}.jpg": b"1"})
    samples = ["import", "--from", "webdataset", str(tmp_path / "s-{0..1}.tar")]
    assert main([*samples, str(tmp_path / "samples.kv")]) == 0
    assert "2 entries" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "none"), new]) == 1

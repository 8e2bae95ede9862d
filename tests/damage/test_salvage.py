"""salvage: what is proven right and current is copied, what may be stale is set aside, what is lost is told."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from damage import Image, Place, check_salvage, files_at, same
from life import Clock
from tilekv.__main__ import main
from tilekv.engine import create
from tilekv.errors import CorruptionError, FormatError, StoreExistsError
from tilekv.probe import probe
from tilekv.record import Record
from tilekv.storage import RecordFile, open_storage

METADATA = "__fragment_metadata.tdb"


@pytest.fixture
def three(place: Place) -> Image:
    """Three flushes: all keys, one of them overwritten, one of them deleted."""
    rows: dict[Any, Any] = {f"k{i}": b"%d" % i for i in range(20)}
    ever = {key: [value] for key, value in rows.items()}
    with tilekv.open(place.uri, "w") as db:
        db.put_many(rows)
        db.flush()
        db["k1"] = rows["k1"] = b"new"
        ever["k1"].append(b"new")
        db.flush()
        del db["k2"], rows["k2"]
    return place.image(rows, ever)


def salvaged(place: Place, image: Image) -> tuple[tilekv.Salvage, dict[Any, Any], dict[Any, Any]]:
    """The report, what was copied and what was set aside."""
    place.show(image)
    found = []
    new, aside = Place(), Place()
    report = tilekv.salvage(place.uri, new.uri, stale=aside.uri)
    for one in (new, aside):
        with tilekv.open(one.uri) as db:
            found.append(dict(db.items()))
        one.close()
    assert files_at(place.name) == image.files  # the damaged store is only read
    return report, *found


def test_sound_store(three: Image, place: Place) -> None:
    report, rows, aside = salvaged(place, three)
    assert report == tilekv.Salvage(len(three.rows), 0, 0, (), (), ())
    assert (rows, aside) == (three.rows, {})


def test_older_values_of_an_unreadable_fragment_may_be_stale(three: Image, place: Place) -> None:
    """The last flush deleted something: nobody can know what, so nothing older is passed off as current."""
    oldest, _, newest = three.folders()
    report, rows, aside = salvaged(place, three.with_file(f"{newest}/{METADATA}", b"junk"))
    assert rows == {}
    assert aside == three.rows | {"k2": b"2"}
    assert (report.copied, report.stale, report.unreadable) == (0, 20, (newest,))
    assert [problem.fragment for problem in report.problems] == [newest]
    report, rows, aside = salvaged(place, three.with_file(f"{oldest}/{METADATA}", b"junk"))
    assert (rows, aside) == ({"k1": b"new"}, {})
    assert report.unreadable == (oldest,)


def test_a_newer_value_that_is_lost_makes_the_older_one_stale(three: Image, place: Place) -> None:
    """Its key is there: the older value is certainly no longer the right one. All other keys are not concerned."""
    _, middle, _ = three.folders()
    data = three.files[f"{middle}/value_var.tdb"]
    broken = three.with_file(f"{middle}/value_var.tdb", data[:30] + b"!" + data[31:])
    report, rows, aside = salvaged(place, broken)
    assert rows == {key: value for key, value in three.rows.items() if key != "k1"}
    assert aside == {"k1": b"1"}
    assert (report.stale, report.lost) == (1, 1)


def test_coordinates_tell_which_keys_are_concerned(place: Place) -> None:
    """Of a newer fragment one tile is damaged: only keys whose digests lie in it may be stale."""
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=4)
    rows: dict[Any, Any] = dict.fromkeys(range(64), b"old")
    with tilekv.open(place.uri, "w", schema=schema) as db:
        db.put_many(rows)
        db.flush()
        db.put_many(dict.fromkeys(range(0, 64, 2), b"new"))
    rows |= dict.fromkeys(range(0, 64, 2), b"new")
    image = place.image(rows, {key: [b"old", b"new"] for key in rows})
    newest = image.folders()[-1]
    for file, most in (("__coords.tdb", 24), ("__key_var.tdb", 4)):
        data = image.files[f"{newest}/{file}"]
        at = len(data) // 2
        report, found, aside = salvaged(
            place,
            image.with_file(f"{newest}/{file}", data[: at - 4] + b"\xee" * 8 + data[at + 4 :]),
        )
        assert found.items() <= rows.items()
        assert set(aside.values()) == {b"old"}
        assert 0 < report.stale <= most
        assert report.lost in (4, 8)
        assert report.copied >= 64 - most


def owners(image: Image) -> list[str]:
    """What its merges have made, by the record or by lists."""
    for path, data in image.files.items():
        if path.startswith(".tilekv/record-"):
            record = Record.from_file(RecordFile(int(path.rpartition("-")[2]), data))
            return [str(name) for commit in record.commits for name in commit.outputs]
    return [path.removesuffix(".vac") for path in image.files if path.endswith(".vac")]


@pytest.mark.parametrize("by", ["consolidated", "listed"])
def test_sources_stand_in_for_a_consolidation(
    images: dict[str, Image], place: Place, by: str
) -> None:
    """Before a vacuum nothing of it is lost, however little of it can be read."""
    image = images[by]
    assert len(owners(image)) == 2
    for owner in owners(image):
        inside = [path for path in image.files if f"{owner}/" in path]
        for path in inside:
            for data in (b"", bytes(len(image.files[path])), None):
                report, rows, aside = salvaged(place, image.with_file(path, data))
                assert same(rows, image.rows)
                assert (report.stale, report.lost, report.unreadable) == (0, 0, ())
                assert aside == {}
        # Without its list the fragments that it has replaced may be anything.
        (metadata,) = (path for path in inside if path.endswith(METADATA))
        list_ = f"{owner}.vac" if by == "listed" else max(p for p in image.files if "/record-" in p)
        place.show(image.with_file(metadata, b"").with_file(list_, b""))
        check_salvage(image, place.uri)
        place.show(image.with_file(list_, b""))
        report = check_salvage(image, place.uri)
        assert report
        assert report.copied == len(image.rows)


def test_a_slow_writer_behind_a_damaged_consolidation(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fragment is older than the consolidation and was no part of it: of its keys the sources tell as much as that would."""
    clock = Clock(monkeypatch, 2_000_000_000_000)
    with tilekv.open(place.uri, "w") as db:
        empty = place.image({}, {})
        db.put_many({"a": b"newer", "b": b"b", "c": b"c"})
        db.flush()
        db.delete_many(["b", "d"])
        db.consolidate()
    image = place.image({}, {})
    clock.now -= 3_600_000
    place.show(empty)
    with tilekv.open(place.uri, "a") as db:
        db.put_many({"a": b"slow", "d": b"slow", "e": b"slow"})
    late = place.image({}, {})
    image.files |= {path: data for path, data in late.files.items() if "/" in path}
    place.show(image)
    with tilekv.open(place.uri) as db:
        rows = dict(db.items())
    assert rows == {"a": b"newer", "c": b"c", "d": b"slow", "e": b"slow"}
    [owner] = owners(image)
    for file in (METADATA, "__coords.tdb", "__key_var.tdb", "value_var.tdb"):
        report, found, aside = salvaged(place, image.with_file(f"{owner}/{file}", b""))
        assert (found, aside) == (rows, {})
        assert (report.stale, report.lost, report.unreadable) == (0, 0, ())
    # When the newer of its sources cannot tell either, what the older one holds may be stale, and is newer than the slow one's.
    newest = max(path for path in image.files if "/past/" in path and path.endswith(METADATA))
    broken = image.with_file(f"{owner}/{METADATA}", b"").with_file(newest, b"")
    report, found, aside = salvaged(place, broken)
    assert (found, report.stale) == ({}, 5)
    assert aside == {"a": b"newer", "b": b"b", "c": b"c", "d": b"slow", "e": b"slow"}


@pytest.mark.parametrize("digest", ["blake2b", "md5"])
def test_descriptor_lost(place: Place, digest: str) -> None:
    """Two equal copies of the schema prove each other, the cells prove the digest. Shapes are lost."""
    attrs = [
        tilekv.Attr("n", "int32"),
        tilekv.Attr("p", "float64", shape=(2, 3)),
        tilekv.Attr("s", str),
    ]
    with tilekv.open(place.uri, "w", schema=tilekv.Schema(attrs, digest)) as db:
        db.put_many([(i, (i, [[i] * 3] * 2, str(i))) for i in range(9)])
    image = place.image({}, {})
    for change in (None, b"", b"{}", b"\xff" * 300):
        report, rows, _ = salvaged(place, image.with_file("__tilekv.json", change))
        assert report.copied == 9
        assert rows[5]["p"].tolist() == [5.0] * 6
        assert (rows[5]["n"], rows[5]["s"]) == (5, "5")
        assert [problem.file for problem in report.problems] == ["__tilekv.json"]
        assert digest in report.rebuilt[0]
        assert "p" in report.rebuilt[1]


def test_schema_lost(three: Image, images: dict[str, Image], place: Place) -> None:
    names = ("__kv_schema.tdb", "__array_schema.tdb")
    for lost, left in (names, names[::-1]):
        report, rows, _ = salvaged(place, three.with_file(lost, b"junk"))
        assert rows == three.rows
        assert left in report.rebuilt[0]
    # A schema with the filters it has unless told otherwise is found by its checksum.
    both = three.with_file(names[0], None).with_file(names[1], b"junk")
    report, rows, _ = salvaged(place, both)
    assert rows == three.rows
    assert {problem.file for problem in report.problems} == set(names)
    other = images["filtered"]
    place.show(other.with_file(names[0], b"").with_file(names[1], b""))
    with pytest.raises(CorruptionError, match="neither it nor"):
        tilekv.salvage(place.uri, "memory://not-made")


def test_schema_that_nothing_proves(three: Image, place: Place) -> None:
    place.show(three.with_file("__tilekv.json", b"").with_file("__kv_schema.tdb", None))
    with pytest.raises(CorruptionError, match="nothing proves the schema"):
        tilekv.salvage(place.uri, "memory://not-made")
    # Two copies that differ: each may be the damaged one, though both can be read.
    data = bytearray(three.files["__kv_schema.tdb"])
    data[data.index(struct.pack("<Q", 1024))] ^= 1
    other = three.with_file("__tilekv.json", b"").with_file("__kv_schema.tdb", bytes(data))
    place.show(other)
    with pytest.raises(CorruptionError, match="nothing proves the schema"):
        tilekv.salvage(place.uri, "memory://not-made")
    assert [problem.file for problem in tilekv.verify(place.uri)] == ["__tilekv.json"]


def test_refused(three: Image, place: Place, tmp_path: Path) -> None:
    place.show(three)
    with pytest.raises(StoreExistsError):
        tilekv.salvage(place.uri, place.uri)
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.salvage(tmp_path / "nothing", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_old_store_is_refused(tmp_path: Path) -> None:
    """Nothing in it has a checksum."""
    tmp_path.joinpath("old").mkdir()
    tmp_path.joinpath("old", "__kv_schema.tdb").write_bytes(b"\3\0\0\0")
    with pytest.raises(FormatError, match="convert"):
        tilekv.salvage(tmp_path / "old", tmp_path / "new")


@pytest.mark.parametrize("numbers", [True, False])
def test_keys_of_every_kind(place: Place, numbers: bool) -> None:
    keys = ["", "\udc80", b"\0", 1, 2**63, 1.5, np.int32(7), np.float32(2), tilekv.Key(12, b"k")]
    create(
        probe(open_storage(place.uri)), tilekv.Schema([tilekv.Attr("v", bytes)]), numbers=numbers
    )
    with tilekv.open(place.uri, "a") as db:
        db.put_many([(key, b"%d" % i) for i, key in enumerate(keys)])
        db[np.arange(3)] = b"array"
        db.flush()
        db["more"] = b"more"
    new = Place()
    report = tilekv.salvage(place.uri, new.uri)
    with tilekv.open(new.uri) as db:
        assert [db[key] for key in keys] == [b"%d" % i for i in range(len(keys))]
        assert db[np.arange(3)] == b"array"
        assert len(db) == report.copied == len(keys) + 2
    new.close()


def test_command(three: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    for path, data in three.files.items():
        old.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        old.joinpath(path).write_bytes(data)
    assert main(["salvage", str(old), str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out == "copied 19 entries, proven and current\n"
    newest = three.folders()[-1]
    old.joinpath(newest, METADATA).write_bytes(b"junk")
    assert (
        main(["salvage", str(old), str(tmp_path / "new"), "--stale", str(tmp_path / "aside")]) == 1
    )
    text = capsys.readouterr().out
    assert f"{newest}/{METADATA}, byte 0" in text
    assert "20 entries may be out of date: they are in" in text
    assert "nothing of" in text
    with tilekv.open(tmp_path / "aside") as db:
        assert len(db) == 20
    assert main(["salvage", str(old), str(tmp_path / "more"), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["copied"], facts["stale"], facts["unreadable"]) == (0, 20, [newest])
    assert facts["problems"][0] == {
        "fragment": newest,
        "file": METADATA,
        "offset": 0,
        "message": facts["problems"][0]["message"],
    }

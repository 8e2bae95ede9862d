"""backup: one moment of a store, whatever others do meanwhile; what it brings the next time, and what it refuses."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Call, Fault, Faults, Killed, fault_at
from life import SMALL, age, contents, everything, folders, record_of, write
from lists import merge_by_list, vac
from old_stores import OldStoreWriter
from tilekv import Attr, Schema
from tilekv.cli.command import main
from tilekv.kvcore.base.file import give_back_descriptors
from tilekv.storage import local, open_storage

FIRST = {1: b"1", 2: b"2"}
SECOND = {1: b"1", 2: b"new", 3: b"3"}


@pytest.fixture
def tmp_path(folder: Path) -> Path:
    """Where nothing waits for a disk."""
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What FIRST says, of two flushes and a merge of others."""
    write(tmp_path / "source", {1: b"old"}, {1: b"1", 9: b"gone"})
    with tilekv.open(tmp_path / "source", "a") as db:
        db.consolidate()
    write(tmp_path / "source", {2: b"2"}, {9: None})
    return tmp_path / "source"


def go_on(path: Path) -> None:
    """What SECOND says: nothing of what was there is left."""
    write(path, {2: b"new"})
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
    write(path, {3: b"3"})


@contextmanager
def met_by(faults: Faults) -> Iterator[None]:
    """Both storages of a backup meet the faults; nobody else's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tilekv.tools.backups.open_storage",
            lambda uri, **_: faults.storage(open_storage(uri, False)),
        )
        yield


def files_of(path: Path) -> dict[str, bytes]:
    """All but the record and what the descriptor says of it."""
    return everything(path, record=False)


def test_it_has_what_the_store_has(source: Path, tmp_path: Path) -> None:
    before = everything(source)
    done = tilekv.backup(source, tmp_path / "copy")
    assert everything(source) == before
    with tilekv.open(source, "a") as db:
        db.vacuum()  # what is superseded is no part of the copy
    assert files_of(tmp_path / "copy") == files_of(source)
    size = sum(f.stored_bytes for f in tilekv.open(source).fragments)
    assert done == tilekv.Backup(fragments=3, copied=3, copied_bytes=size, removed=0)
    assert contents(tmp_path / "copy") == FIRST
    assert tilekv.verify(tmp_path / "copy") == []
    record = record_of(tmp_path / "copy")
    assert record.backup
    assert record.store == record_of(source).store
    assert {str(*commit.outputs) for commit in record.commits} == folders(source)


def test_hidden_fields_are_copied(tmp_path: Path) -> None:
    schema = Schema([Attr("value", bytes, nullable=True), Attr("n", "int32")], expires=True)
    with tilekv.open(tmp_path / "source", "x", schema=schema) as db:
        db.set("a", (None, 1), expire=3600)
        db["b"] = (b"b", 2)
        db.flush()
        tilekv.backup(db.uri, tmp_path / "copy")
        with tilekv.open(tmp_path / "copy") as copy:
            assert copy.schema == schema
            assert dict(copy) == dict(db)
            assert copy.expires("a") == db.expires("a")
            assert copy.expires("b") is None


def test_again_only_what_is_new(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    tilekv.backup(source, copy)
    assert tilekv.backup(source, copy) == tilekv.Backup(3, 0, 0, 0)
    write(source, {3: b"3"})
    kept = {name: (copy / name).stat().st_ino for name in folders(copy)}
    done = tilekv.backup(source, copy)
    assert (done.fragments, done.copied, done.removed) == (4, 1, 0)
    assert {name: (copy / name).stat().st_ino for name in kept} == kept
    assert contents(copy) == FIRST | {3: b"3"}
    go_on(source)
    done = tilekv.backup(source, copy)
    assert (done.fragments, done.copied, done.removed) == (2, 2, 4)
    assert contents(copy) == SECOND
    assert files_of(copy) == files_of(source)
    with tilekv.open(copy, "a") as db:
        db.vacuum()  # finds nothing to do, so that it stays a backup
    assert tilekv.backup(source, copy) == tilekv.Backup(2, 0, 0, 0)


def test_moments_by_which_merges_left_out_what_had_expired(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "source", "x", expires=True) as db:
        for key in "ab":
            db.set(key, b"1", expire=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
            db[key + key] = b"2"
            db.flush()
        db.consolidate()
    tilekv.backup(tmp_path / "source", tmp_path / "copy")
    (merge,) = record_of(tmp_path / "source").commits
    assert merge.expired > 0
    (copied,) = record_of(tmp_path / "copy").commits
    assert (copied.outputs, copied.expired) == (merge.outputs, merge.expired)
    assert contents(tmp_path / "copy") == {"aa": b"2", "bb": b"2"}


def test_what_was_left_behind_a_day_ago_is_removed(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    tilekv.backup(source, copy)
    old, new = (copy / ".tilekv" / "staged" / f".tmp-{name}" for name in ("old", "new"))
    for draft in (old, new):
        draft.mkdir()
        (draft / "value.tdb").write_bytes(b"half")
    age(old, 2)
    tilekv.backup(source, copy)
    assert not old.exists()
    assert new.exists()


def test_in_memory(source: Path, tmp_path: Path) -> None:
    with tilekv.open("memory://copy", "w"):
        pass
    for _ in range(2):
        tilekv.remove("memory://copy")
        tilekv.backup(source, "memory://copy")
        assert contents("memory://copy") == FIRST  # type: ignore[arg-type]
    go_on(source)
    tilekv.backup(source, "memory://copy")
    tilekv.backup("memory://copy", tmp_path / "back")
    assert contents(tmp_path / "back") == SECOND
    tilekv.remove("memory://copy")


def test_an_empty_store_and_an_empty_folder(tmp_path: Path) -> None:
    tilekv.open(tmp_path / "source", "x").close()
    (tmp_path / "copy").mkdir()
    told: list[tuple[int, int]] = []
    tilekv.backup(tmp_path / "source", tmp_path / "copy", progress=lambda *now: told.append(now))
    assert told == [(0, 0)]
    assert contents(tmp_path / "copy") == {}
    write(tmp_path / "source", FIRST)  # type: ignore[arg-type]
    tilekv.backup(tmp_path / "source", tmp_path / "copy")
    assert contents(tmp_path / "copy") == FIRST


def test_progress_ends_once_and_at_the_end(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def show(done: int, total: int) -> None:
        assert (done == total) == (tmp_path / "copy").exists()
        told.append((done, total))

    done = tilekv.backup(source, tmp_path / "copy", progress=show)
    assert told[-1] == (done.copied_bytes, done.copied_bytes)
    assert sorted(told) == told
    assert len(told) > 10


def test_a_store_of_lists(tmp_path: Path) -> None:
    """The copy has a record, without what the lists supersede."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    write(source, {1: b"1"}, {1: b"2"})
    owner = merge_by_list(source)
    assert vac(source, owner).exists()
    tilekv.backup(source, copy)
    assert folders(copy) == {owner}
    assert not vac(copy, owner).exists()
    assert contents(copy) == {1: b"2"}
    assert contents(source) == {1: b"2"}


def test_a_restored_store_goes_on(source: Path, tmp_path: Path) -> None:
    tilekv.backup(source, tmp_path / "copy")
    tilekv.backup(tmp_path / "copy", tmp_path / "restored")
    assert tilekv.verify(tmp_path / "restored") == []
    shutil.copytree(tmp_path / "copy", tmp_path / "by hand")
    for path in (tmp_path / "restored", tmp_path / "by hand"):
        go_on(path)
        assert contents(path) == SECOND
        assert tilekv.verify(path) == []
        assert not record_of(path).backup
        with pytest.raises(tilekv.StoreExistsError, match="the store itself"):
            tilekv.backup(tmp_path / "copy", path)


def test_the_past_of_flushes(source: Path, tmp_path: Path) -> None:
    with tilekv.open(source) as db:
        moments = [each.t2 for each in db.fragments]
    tilekv.backup(source, tmp_path / "copy")
    for moment in moments:
        assert contents(tmp_path / "copy", moment) == contents(source, moment)
    with pytest.raises(tilekv.HistoryVacuumed):
        contents(tmp_path / "copy", moments[-1] - 1)


# --- others meanwhile ----------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "copy")
        return
    yield "memory://backups"
    tilekv.remove("memory://backups")


def test_readers_see_the_last_or_this_one(source: Path, copy: str) -> None:
    """Before and after every call of a storage, now and at any moment; and what they hold open stays what it is."""
    tilekv.backup(source, copy)
    moments = [each.t2 for each in tilekv.open(source).fragments]
    go_on(source)
    moments += [each.t2 for each in tilekv.open(source).fragments]
    seen: list[dict[Any, Any]] = []
    held: list[tuple[tilekv.Store, dict[Any, Any]]] = []

    def shown(timestamp: int | None = None) -> dict[Any, Any] | None:
        try:
            with tilekv.open(copy, timestamp=timestamp) as db:
                return dict(db)
        except tilekv.HistoryVacuumed:
            return None

    before = {moment: shown(moment) for moment in moments}
    history: dict[int, list[Any]] = {moment: [] for moment in moments}

    def look(call: Call) -> Fault | None:
        seen.append(shown() or {})
        for moment in moments:
            history[moment].append(shown(moment))
        db = tilekv.open(copy)
        held.append((db, dict(db)))
        return None

    with met_by(Faults(look)):
        tilekv.backup(source, copy)
    assert len(seen) > 50
    changed = seen.index(SECOND)
    assert seen == [FIRST] * changed + [SECOND] * (len(seen) - changed)
    assert changed < len(seen) - 3
    for moment in moments:
        after = shown(moment)
        switched = [each for each in history[moment] if each != before[moment]]
        assert history[moment] == [before[moment]] * (len(seen) - len(switched)) + switched
        assert all(each == after for each in switched)
    for db, state in held:
        assert dict(db) == state
        db.close()


def test_merges_and_vacuums_at_any_call(source: Path, tmp_path: Path) -> None:
    """The copy is one state, of the many that come meanwhile."""
    rng = random.Random(8)
    written = 0

    def work() -> None:
        nonlocal written
        written += 1
        with tilekv.open(source, "a", config={"kv.sync": False}) as db:
            for key in range(3):
                db[key] = b"%d" % written
                if key == 1:
                    db.consolidate(vacuum=True)
            db.flush()

    work()
    for number in range(1, 1000):

        def at_some(call: Call, number: int = number) -> Fault | None:
            if call.number == number or rng.random() < 0.05:
                work()
            return None

        faults = Faults(at_some)
        target = tmp_path / f"copy {number}"
        least = written
        with met_by(faults):
            tilekv.backup(source, target)
        found = contents(target)
        assert tilekv.verify(target) == []
        # As far as any flush: each of the two that work() makes, of which the first merges its own.
        assert int(found[2]) >= least
        assert int(found[0]) == int(found[1]) in (int(found[2]), int(found[2]) + 1)
        if len(faults.calls) < number:
            break
    assert number > 30


def test_what_was_given_back_is_looked_for_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that the system could not keep open, of fragments that a vacuum has removed since."""
    monkeypatch.setattr(local, "SMALL_FRAGMENT", 0)
    monkeypatch.setattr("tilekv.tools.backups._AT_ONCE", 64)
    told: list[int] = []

    def vacuum(done: int, total: int) -> None:
        told.append(done)
        if len(told) == 20:
            go_on(source)
            while give_back_descriptors():
                pass

    done = tilekv.backup(source, tmp_path / "copy", progress=vacuum)
    assert contents(tmp_path / "copy") == SECOND
    assert (done.fragments, done.copied) == (2, 2)
    assert folders(tmp_path / "copy") == folders(source)
    assert not list((tmp_path / "copy" / ".tilekv" / "staged").iterdir())


@pytest.mark.parametrize("recorded", [True, False])
def test_another_store_in_its_place(recorded: bool, source: Path, tmp_path: Path) -> None:
    """The copy is one of the two, or there is none."""
    template = source.rename(tmp_path / "template")
    if not recorded:
        shutil.rmtree(template)
        write(template, FIRST)  # type: ignore[arg-type]
    with tilekv.open(template) as db:
        old = db._engine.id
    outcomes = set()
    for number in range(1, 1000):
        copy = tmp_path / f"copy {number}"
        shutil.copytree(template, source)
        faults = fault_at(number, lambda: tilekv.open(source, "w", schema=SMALL).close())
        with met_by(faults):
            try:
                tilekv.backup(source, copy)
                outcomes.add("new" if record_of(copy).store != old else "old")
                assert contents(copy) == (FIRST if record_of(copy).store == old else {})
            except tilekv.StoreReplacedError:
                assert not copy.exists()
                outcomes.add("neither")
        shutil.rmtree(source)
        if len(faults.calls) < number:
            break
    assert outcomes == {"old", "new", "neither"}


# --- interrupted ---------------------------------------------------------------------------------


def test_the_first_is_whole_or_not_at_all(source: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert not (tmp_path / "copy").exists()
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tilekv.backup(source, tmp_path / "copy", progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_a_store_that_appears_meanwhile_stays(source: Path, tmp_path: Path) -> None:
    def appear(done: int, total: int) -> None:
        if not (tmp_path / "copy").exists():
            write(tmp_path / "copy", {"mine": b"1"})

    with pytest.raises(tilekv.StoreExistsError, match="by now"):
        tilekv.backup(source, tmp_path / "copy", progress=appear)
    assert contents(tmp_path / "copy") == {"mine": b"1"}


def test_what_was_copied_is_not_copied_again(source: Path, tmp_path: Path) -> None:
    """Killed at any call, and started again, with and without something new in between."""
    template = tmp_path / "template"
    tilekv.backup(source, template)
    go_on(source)
    reused = 0
    for number in range(1, 1000):
        copy = tmp_path / f"copy {number}"
        shutil.copytree(template, copy)
        faults = fault_at(number, Fault(0, "after"))
        with met_by(faults):
            try:
                tilekv.backup(source, copy)
            except Killed:
                pass
            else:
                break
        if number % 2:
            go_on(source)
        assert contents(copy) in (FIRST, SECOND)
        reused += tilekv.backup(source, copy).copied < 2
        assert contents(copy) == contents(source)
        assert tilekv.verify(copy) == []
        assert folders(copy) == folders(source)
        assert not list((copy / ".tilekv" / "staged").glob("__*"))
    assert number > 50
    assert reused > 5


# --- what is refused -----------------------------------------------------------------------------


def refused(source: Path, copy: Path, match: str) -> None:
    before = everything(copy)
    with pytest.raises(tilekv.StoreExistsError, match=match):
        tilekv.backup(source, copy)
    assert everything(copy) == before


def merged(copy: Path) -> None:
    with tilekv.open(copy, "a") as db:
        db.consolidate()


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (lambda copy: write(copy, {4: b"4"}), "somebody has written __"),
        (merged, "has worked in"),
        (lambda copy: shutil.rmtree(copy / ".tilekv") or write(copy, {4: b"4"}), ""),
    ],
)
def test_a_backup_that_somebody_has_worked_in(
    work: Callable[[Path], object], match: str, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    tilekv.backup(source, copy)
    try:
        work(copy)
    except tilekv.CorruptionError:
        with pytest.raises(tilekv.CorruptionError, match="record"):
            tilekv.backup(source, copy)
        return
    refused(source, copy, match)


def test_somebody_writes_into_it_meanwhile(source: Path, tmp_path: Path) -> None:
    """It is seen in time, or the next time; what was written is not removed."""
    template = tmp_path / "template"
    tilekv.backup(source, template)
    go_on(source)
    outcomes = set()
    for number in range(1, 1000):
        copy = tmp_path / f"copy {number}"
        shutil.copytree(template, copy)
        faults = fault_at(number, lambda copy=copy: write(copy, {4: b"4"}))
        with met_by(faults):
            try:
                tilekv.backup(source, copy)
                outcomes.add("done")
            except tilekv.StoreExistsError:
                outcomes.add("refused")
        if len(faults.calls) < number:
            break
        assert contents(copy)[4] == b"4"
        refused(source, copy, "somebody has written")
    assert outcomes == {"done", "refused"}


def test_somebody_merges_in_it_meanwhile(source: Path, tmp_path: Path) -> None:
    template = tmp_path / "template"
    tilekv.backup(source, template)
    go_on(source)
    unnoticed = 0
    for number in range(1, 1000):
        copy = tmp_path / f"copy {number}"
        shutil.copytree(template, copy)
        faults = fault_at(number, lambda copy=copy: merged(copy))
        with met_by(faults):
            try:
                tilekv.backup(source, copy)
            except (tilekv.StoreBusyError, tilekv.StoreExistsError):
                assert contents(copy) in (FIRST, SECOND)
        if len(faults.calls) < number:
            break
        assert contents(copy) in (FIRST, SECOND)
        assert tilekv.verify(copy) == []
        if record_of(copy).backup:
            unnoticed += 1  # a merge takes only what is in the root: there was nothing to do
        else:
            refused(source, copy, "has worked in")
    assert number > 50
    assert unnoticed < 10


def test_what_is_no_backup_of_it(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", {1: b"1"})
    refused(source, tmp_path / "other", "another store")
    refused(source, source, "the store itself")
    tilekv.backup(tmp_path / "other", tmp_path / "copy of other")
    refused(source, tmp_path / "copy of other", "another store, or its backup")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"mine")
    refused(source, tmp_path / "folder", "no backup")
    with pytest.raises(NotADirectoryError):
        tilekv.backup(source, tmp_path / "folder" / "file")
    with pytest.raises(FileNotFoundError, match="no folder"):
        tilekv.backup(source, tmp_path / "nowhere" / "copy")
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.backup(tmp_path / "nowhere", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_old_stores_are_copied_by_hand(tmp_path: Path) -> None:
    OldStoreWriter(tmp_path / "old", 2, 64).flush([((4, b"key"), 1, b"v")], 1000)
    with pytest.raises(tilekv.FormatError, match="any copy"):
        tilekv.backup(tmp_path / "old", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_two_at_once(source: Path, tmp_path: Path) -> None:
    tilekv.backup(source, tmp_path / "copy")
    with (
        open_storage(tmp_path / "copy").lock(),
        pytest.raises(tilekv.StoreBusyError, match="another backup"),
    ):
        tilekv.backup(source, tmp_path / "copy")


def test_damage(source: Path, tmp_path: Path) -> None:
    """A backup that lost a fragment gets it back; other damage is told, and that of the store does not get into a backup."""
    copy = tmp_path / "copy"
    tilekv.backup(source, copy)
    name = min(folders(copy))
    shutil.rmtree(copy / name)
    assert [each.fragment or each.file for each in tilekv.verify(copy)] == [name]
    assert tilekv.backup(source, copy).copied == 1
    assert contents(copy) == FIRST
    with (copy / name / "value_var.tdb").open("ab") as file:
        file.write(b"x")
    with pytest.raises(tilekv.CorruptionError, match="make a new one"):
        tilekv.backup(source, copy)
    shutil.rmtree(copy)
    tilekv.backup(source, copy)
    shutil.rmtree(source / name)
    with pytest.raises(tilekv.CorruptionError, match=name):
        tilekv.backup(source, copy)
    assert contents(copy) == FIRST


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["backup", str(source), str(tmp_path / "copy")]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert told.out.startswith("copied 3 of 3 fragments, ")
    assert told.out.endswith(" bytes; removed 0\n")
    assert told.err == ""
    assert main([*arguments, "--progress"]) == 0
    told = capsys.readouterr()
    assert told.out == "copied 0 of 3 fragments, 0 bytes; removed 0\n"
    assert told.err == "backing up: 100%\n"
    assert main(["backup", str(source), str(source)]) == 1
    assert "the store itself" in capsys.readouterr().err

"""tools.jobs, tools.pinned: what many processes write appears at once, or not at all, and what many read is the same."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import job_survival
import tilekv
from faulty import Fault
from life import contents, folders, past, record_of
from tilekv import (
    Attr,
    InvalidValueError,
    Schema,
    SnapshotGone,
    StoreExistsError,
    StoreReplacedError,
    TileKVError,
)
from tilekv.engine import DEFAULT_SCHEMA
from tilekv.names import FragmentName, is_of_job
from tilekv.record import parsed
from tilekv.tools.jobs import Job, begin_job, commit_job, withdraw_job, write_part
from tilekv.tools.pinned import Pinned

OLD = dict.fromkeys(range(50), b"old")


def begin(place: Any, mode: str = "append", schema: Schema = DEFAULT_SCHEMA, **config: Any) -> Job:
    config = {f"kv.{name}": value for name, value in config.items()}
    return begin_job(place, mode, schema, config)


def part(job: Job, number: int, entries: Mapping[Any, Any]) -> list[str]:
    return write_part(job, number, lambda store: store.put_many([*entries], [*entries.values()]))


def pin(path: Path) -> Pinned:
    with tilekv.open(path) as db:
        return Pinned.of(db)


def staged(path: Path) -> set[str]:
    stage = path / ".tilekv" / "staged"
    return set(os.listdir(stage)) if stage.exists() else set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "s", "x") as db:
        db.update(OLD)
    return tmp_path / "s"


def test_all_of_it_appears_with_the_commit(path: Path) -> None:
    job = pickle.loads(pickle.dumps(begin(path)))
    names = part(job, 0, {1: b"a", 100: b"a"}) + part(job, 1, {2: b"b", 100: b"b"})
    assert len(folders(path)) == 1  # nor does TileDB see more
    assert contents(path) == OLD
    commit_job(job, names)
    wanted = OLD | {1: b"a", 2: b"b", 100: b"b"}
    assert contents(path) == wanted
    assert len(folders(path)) == 3
    assert staged(path) == set()
    assert record_of(path).commits[-1].sources == frozenset()
    commit_job(job, names)  # as who does not know whether it was done
    assert len(record_of(path).commits) == 1
    assert contents(path) == wanted
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1
    assert contents(path) == wanted
    commit_job(job, [])


@pytest.mark.parametrize("mode", ["error", "append", "overwrite"])
def test_a_new_store_appears_whole(tmp_path: Path, mode: str) -> None:
    place = tmp_path / "new"
    job = begin(place, mode)
    names = part(job, 0, {"k": b"v"})
    assert not place.exists()
    commit_job(job, names)
    assert contents(place) == {"k": b"v"}
    commit_job(job, names)
    assert os.listdir(tmp_path) == ["new"]


def test_a_store_that_is_there(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreExistsError, match="there is a store at"):
        begin(path, "error")
    schema = Schema([Attr("n", int)])
    job = begin(path, "overwrite", schema)
    names = part(job, 0, {"k": 7})
    assert contents(path) == OLD
    commit_job(job, names)
    assert contents(path) == {"k": 7}
    assert sorted(os.listdir(tmp_path)) == ["s"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for mode in ("error", "overwrite"):
        with pytest.raises(StoreExistsError, match="no tilekv store"):
            begin(tmp_path / "other", mode)
    with pytest.raises(InvalidValueError, match="mode is one of error, append, overwrite"):
        begin(path, "a")


def test_who_makes_a_store_meanwhile_keeps_it(tmp_path: Path) -> None:
    job = begin(tmp_path / "new", "error")
    names = part(job, 0, {"k": b"v"})
    with tilekv.open(tmp_path / "new", "x") as db:
        db["k"] = b"theirs"
    with pytest.raises(StoreExistsError, match="meanwhile"):
        commit_job(job, names)
    assert contents(tmp_path / "new") == {"k": b"theirs"}
    assert os.listdir(tmp_path) == ["new"]


def test_a_part_that_was_begun_twice_counts_once(path: Path) -> None:
    job = begin(path)
    lost = part(job, 0, {1: b"lost"})
    names = part(job, 0, {1: b"new"})
    assert staged(path) == {*lost, *names}
    other = begin(path)
    others = part(other, 0, {2: b"other"})
    commit_job(job, names)
    assert staged(path) == {*others}
    commit_job(other, others)
    assert contents(path) == OLD | {1: b"new", 2: b"other"}
    assert all(is_of_job(name, job.token) for name in parsed(names))


def test_what_is_too_much_for_a_buffer(path: Path) -> None:
    """A part of several fragments: the later ones are newer."""
    job = begin(path, buffer_bytes=20_000)
    entries = [(n % 40, b"%d" % n * 200) for n in range(500)]

    def fill(store: tilekv.Store) -> None:
        for key, value in entries:
            store[key] = value

    names = write_part(job, 3, fill)
    assert len(names) > 1
    assert names == sorted(names)
    commit_job(job, names[::-1])
    assert contents(path) == OLD | dict(entries)


def test_it_counts_as_written_when_it_began(path: Path) -> None:
    job = begin(path)
    names = part(job, 0, {1: b"job", 2: b"job"})
    with tilekv.open(path, "a") as db:
        db[2] = b"meanwhile"
    commit_job(job, names)
    assert contents(path) == OLD | {1: b"job", 2: b"meanwhile"}
    assert contents(path, timestamp=job.moment) == OLD | {1: b"job", 2: b"job"}
    assert contents(path, timestamp=job.moment - 1) == OLD


def test_a_merge_beside_it_does_not_hide_it(path: Path) -> None:
    job = begin(path)
    names = part(job, 0, {1: b"job"})
    with tilekv.open(path, "a") as db:
        db[2] = b"meanwhile"
        db.delete_many([3])
        db.consolidate()
    commit_job(job, names)
    wanted = {n: v for n, v in OLD.items() if n != 3} | {1: b"job", 2: b"meanwhile"}
    assert contents(path) == wanted
    assert tilekv.consolidate(path)
    assert contents(path) == wanted
    assert len(folders(path)) == 1


def test_an_error_in_a_part_leaves_nothing_of_it(path: Path) -> None:
    job = begin(path, buffer_bytes=1 << 20)

    def fill(store: tilekv.Store) -> None:
        for n in range(40):
            store[n] = bytes(100_000)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_part(job, 0, fill)
    assert staged(path) == set()
    with pytest.raises(InvalidValueError, match="at most 16777216 parts"):
        part(job, 1 << 24, {})


def test_withdrawn(path: Path, tmp_path: Path) -> None:
    job, new = begin(path), begin(tmp_path / "new", "error")
    for each in (job, new):
        part(each, 0, {1: b"never"})
        withdraw_job(each)
        withdraw_job(each)
    assert staged(path) == set()
    assert contents(path) == OLD
    assert os.listdir(tmp_path) == ["s"]


def test_what_a_vacuum_took_for_left_behind(path: Path) -> None:
    job = begin(path)
    names = part(job, 0, {1: b"a"}) + part(job, 1, {2: b"b"})
    for name in names:
        os.utime(path / ".tilekv" / "staged" / name, (0, 0))
        for file in os.listdir(path / ".tilekv" / "staged" / name):
            os.utime(path / ".tilekv" / "staged" / name / file, (0, 0))
    tilekv.open(path, "a").vacuum()
    assert staged(path) == set()
    with pytest.raises(TileKVError, match="2 of 2 fragments of the job are not there any more"):
        commit_job(job, names)
    assert contents(path) == OLD


def test_another_store_in_its_place(path: Path) -> None:
    job = begin(path)
    names = part(job, 0, {1: b"a"})
    with tilekv.open(path, "w") as db:
        db["k"] = b"v"
    with pytest.raises(StoreReplacedError):
        part(job, 1, {1: b"a"})
    with pytest.raises(StoreReplacedError):
        commit_job(job, names)
    withdraw_job(job)
    assert contents(path) == {"k": b"v"}


def test_names_of_parts_are_in_their_order(path: Path) -> None:
    job = begin(path)
    names = [part(job, number, {1: b"%d" % number})[0] for number in (2, 0, 1)]
    order = sorted(parsed(names), key=lambda name: name.order)
    assert [str(name) for name in order] == [names[1], names[2], names[0]]
    assert all(name.merged and name.uuid[16] in "89ab" for name in order)
    assert len({name.short for name in order}) == 3
    assert all(isinstance(name, FragmentName) for name in order)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("fault", job_survival.FAULTS, ids=str)
def test_a_commit_fails_at_every_call(mode: str, fault: Fault) -> None:
    assert job_survival.fail_everywhere(lambda: "memory://jobs", mode, fault) > 5


def test_a_view_shows_the_same_to_all(path: Path) -> None:
    pinned = pickle.loads(pickle.dumps(pin(path)))
    with tilekv.open(path, "a") as db:
        db[1] = b"new"
        del db[2]
        db.consolidate()
    with pinned.handle() as seen:
        assert dict(seen.items()) == OLD
        seen.reopen()
        assert seen[1] == b"old"
        ranges = [
            {k for b in seen.scan(low=lo, high=hi) for k in b.keys} for lo, hi in pinned.ranges(7)
        ]
    assert sum(map(len, ranges)) == len(OLD)
    assert set().union(*ranges) == {*OLD}
    assert pinned.ranges() == [(0, 1 << 128)]
    for count in (0, 1 << 21):
        with pytest.raises(InvalidValueError, match="npartitions is 1 to"):
            pinned.ranges(count)
    tilekv.open(path, "a").vacuum()
    assert past(path) == set()
    with pinned.handle() as seen, pytest.raises(SnapshotGone):
        list(seen)
    with tilekv.open(path, "w"):
        pass
    with pytest.raises(StoreReplacedError):
        pinned.handle()


def test_what_a_view_shows_does_not_expire_meanwhile(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "e", "x", expires=True) as db:
        db.set("k", b"v", expire=0.15)
    pinned = pin(tmp_path / "e")
    with pinned.handle() as seen:
        assert pinned.moment > 0
        assert seen.timestamp == pinned.moment
        assert seen["k"] == b"v"

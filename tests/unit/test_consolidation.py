"""Consolidation: what is read never changes, whatever happens meanwhile (docs/design.md 6)."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import Faults, every_call, fault_at, meet
from life import SMALL, Clock, contents, everything, folders, past, record_of, write
from tilekv import Attr, Schema
from tilekv.consolidation import clear
from tilekv.record import parsed, shorts

SPLIT = {"kv.max_fragment_bytes": 1500}


# --- what is read ----------------------------------------------------------------------------------

HISTORIES = list(
    itertools.product("sd-", repeat=4)
)  # a key is set, deleted or left alone, four times


@pytest.mark.parametrize("vacuum", [False, True])
@pytest.mark.parametrize("after", [(3,), (1, 3), (0, 1, 2, 3)])
def test_every_order_of_overwrites_and_deletes(
    tmp_path: Path, after: tuple[int, ...], vacuum: bool
) -> None:
    path = tmp_path / "store"
    model: dict[str, bytes] = {}
    with tilekv.open(path, "a", schema=SMALL) as db:
        for step in range(4):
            for history in HISTORIES:
                key = "".join(history)
                if history[step] == "s":
                    db[key] = model[key] = b"%s %d" % (key.encode(), step)
                elif history[step] == "d":
                    db.delete_many([key])
                    model.pop(key, None)
            db.flush()
            if step in after:
                db.consolidate(vacuum=vacuum)
                assert len(db.fragments) == 1
            assert dict(db.items()) == model
            assert db.get_many(["".join(each) for each in HISTORIES]) == [
                model.get("".join(each)) for each in HISTORIES
            ]
    assert contents(path) == model
    if vacuum:
        assert len(folders(path)) == 1
        assert past(path) == set()


def test_full_merge_drops_tombstones(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, dict.fromkeys(range(20), b"1"), dict.fromkeys(range(10)), {5: b"2"})
    with tilekv.open(path, "a") as db:
        db.consolidate()
        (fragment,) = db.fragments
        assert (fragment.cells, fragment.tombstones) == (11, 0)
    assert contents(path) == {5: b"2"} | dict.fromkeys(range(10, 20), b"1")


def test_one_fragment_is_merged_only_for_its_tombstones(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1", 2: None, 3: None})
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
        (fragment,) = db.fragments
        assert (fragment.cells, fragment.tombstones) == (1, 0)
        before = everything(path)
        db.consolidate(vacuum=True)
        assert everything(path) == before


def test_nothing_to_merge_in_an_empty_store(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "store", "a") as db:
        db.consolidate(vacuum=True)
        assert db.fragments == ()


@pytest.mark.parametrize("flushes", [1, 3])
def test_merge_that_leaves_nothing_keeps_one_tombstone(tmp_path: Path, flushes: int) -> None:
    """There are no empty fragments."""
    path = tmp_path / "store"
    write(path, *[dict.fromkeys(range(9), b"x")] * (flushes - 1), dict.fromkeys(range(9)))
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
        (fragment,) = db.fragments
        assert (fragment.cells, fragment.tombstones) == (1, 1)
        assert not db
        before = everything(path)
        db.consolidate(vacuum=True)
        assert everything(path) == before  # and that stays as it is
        db[3] = b"again"
    assert contents(path) == {3: b"again"}


def test_outputs_split_the_digests(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rng = random.Random(1)
    flushes = [{i: rng.randbytes(30) for i in range(0, 300, step)} for step in (1, 2, 3)]
    write(path, *flushes, dict.fromkeys(range(0, 300, 7)))
    model = {key: value for key, value in (flushes[0] | flushes[1] | flushes[2]).items() if key % 7}
    sources = folders(path)
    with tilekv.open(path, "a", config=SPLIT) as db:
        db.consolidate()
        outputs = db.fragments
        assert len(outputs) > 3
        assert sum(fragment.cells for fragment in outputs) == len(model)
        (commit,) = record_of(path).commits
        assert {str(name) for name in commit.outputs} == {fragment.name for fragment in outputs}
        assert commit.sources == shorts(parsed(sources))
        assert past(path) == sources
        by_name = {fragment.name: fragment for fragment in outputs}
        first = by_name.pop(str(commit.outputs[0]))
        assert ({*first.sources}, first.first_output) == (sources, "")
        assert {(f.sources, f.first_output) for f in by_name.values()} == {((), first.name)}
        spans = sorted(_digests(path / fragment.name) for fragment in outputs)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert contents(path) == model
    with tilekv.open(path, "a", config=SPLIT) as db:
        db.vacuum()
        assert folders(path) == {fragment.name for fragment in outputs}
        assert past(path) == set()
    assert contents(path) == model


def test_an_output_ends_with_the_portion_that_fills_it(tmp_path: Path) -> None:
    """Each of them: what was written before it does not count."""
    path = tmp_path / "store"
    rng = random.Random(1)
    write(path, *({i: rng.randbytes(30) for i in range(300)} for _ in range(2)))
    most = SPLIT["kv.max_fragment_bytes"]
    with tilekv.open(path, "a", config=SPLIT) as db:
        db.consolidate()
        sizes = [
            sum(
                file.stat().st_size
                for file in path.joinpath(fragment.name).iterdir()
                if file.name != "__fragment_metadata.tdb"
            )
            for fragment in db.fragments
        ]
    # The last one has what is left.
    assert all(most <= size < 2 * most for size in sorted(sizes)[1:])


def _digests(folder: Path) -> tuple[int, int]:
    """First and last first coordinate of a fragment, from its file's one chunk a tile and dimension."""
    data = folder.joinpath("__coords.tdb").read_bytes()
    tile = 40 + 16 * SMALL.capacity
    last = (len(data) - 1) // tile * tile
    n = int.from_bytes(data[last + 8 : last + 12], "little")
    words = data[24:32], data[last + 24 + n - 8 : last + 24 + n]
    return int.from_bytes(words[0], "little"), int.from_bytes(words[1], "little")


def test_split_store_that_did_not_change_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {i: os.urandom(30) for i in range(200)}, {i: os.urandom(30) for i in range(100)})
    with tilekv.open(path, "a", config=SPLIT) as db:
        db.consolidate(vacuum=True)
        before = folders(path)
        assert len(before) > 1
        db.consolidate(vacuum=True)
    assert folders(path) == before


def test_values_of_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rng = random.Random(2)
    one, two, three = (rng.randbytes(n) for n in (5 << 20, (1 << 20) + 1, 3 << 20))
    write(path, {1: one, 2: b"", 3: two}, {1: two, 4: three}, {3: one[: 1 << 20], 5: b"small"})
    model = {1: two, 2: b"", 3: one[: 1 << 20], 4: three, 5: b"small"}
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
        assert dict(db.items()) == model
    assert contents(path) == model


def test_all_types_of_attributes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    attrs = [Attr("n", "int32"), Attr("s", str), Attr("p", "float32", shape=(2,))]
    schema = Schema([*attrs, Attr("v", "uint16", var=True)], capacity=4)
    with tilekv.open(path, "a", schema=schema) as db:
        for flush in range(3):
            for key in range(flush, 30, flush + 1):
                db[key] = (key, str(flush), [key, flush], range(key % 4))
            db.flush()
        before = {key: [repr(v) for v in row.values()] for key, row in db.items()}
        db.consolidate(vacuum=True)
        assert {key: [repr(v) for v in row.values()] for key, row in db.items()} == before


def test_buffer_is_flushed_and_merged(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with tilekv.open(path, "a") as db:
        db[2] = b"2"
        db.consolidate()
        assert len(db.fragments) == 1
    assert contents(path) == {1: b"1", 2: b"2"}


def test_read_only_handle_refuses(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    before = everything(path)
    with tilekv.open(path) as db:
        with pytest.raises(tilekv.ReadOnlyError):
            db.consolidate(vacuum=True)
        with pytest.raises(tilekv.ReadOnlyError):
            db.vacuum()
    assert everything(path) == before


def test_closed_handle_refuses(tmp_path: Path) -> None:
    db = tilekv.open(tmp_path / "store", "a")
    db.close()
    with pytest.raises(tilekv.ClosedError):
        db.consolidate()
    with pytest.raises(tilekv.ClosedError):
        db.vacuum()


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [None, SPLIT], ids=["one output", "several"])
@pytest.mark.parametrize("place", [40, -1], ids=["first tile", "last tile"])
def test_damaged_source_changes_nothing(tmp_path: Path, place: int, config: object) -> None:
    path = tmp_path / "store"
    write(path, *({i: os.urandom(30) for i in range(200)} for _ in range(2)))
    with tilekv.open(path) as db:
        newest = path / db.fragments[0].name / "value_var.tdb"
    data = bytearray(newest.read_bytes())
    data[place] ^= 1
    newest.write_bytes(data)
    before = everything(path, record=False)
    with tilekv.open(path, "a", config=config) as db, pytest.raises(tilekv.CorruptionError) as info:
        db.consolidate(vacuum=True)
    assert newest.parent.name in info.value.file
    assert everything(path, record=False) == before
    assert not record_of(path).claims


# --- others at work --------------------------------------------------------------------------------


@pytest.mark.parametrize("older", [False, True])
def test_writer_commits_at_any_moment_of_a_consolidation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """`older`: a slow one, whose timestamp lies within those that are merged."""
    clock = Clock(monkeypatch)
    template = tmp_path / "template"
    with tilekv.open(template, "a", schema=SMALL) as db:
        for flush in range(3):
            clock.now += 100
            db.put_many(dict.fromkeys(range(flush, 12, flush + 1), b"%d" % flush) | {"all": b"x"})
            db.flush()
    model = contents(template)
    middle = clock.now - 50

    def attempt(at: int) -> Faults:
        path = tmp_path / f"store {at}"
        shutil.copytree(template, path)

        def commit() -> None:
            with monkeypatch.context() as patch:
                if older:
                    patch.setattr("tilekv.commit.later_time", lambda storage, known: middle)
                write(path, {1: b"late", 100: b"late", 4: None}, config={"kv.sync": False})

        with tilekv.open(path, "a", config={"kv.sync": False}) as db:
            faults = meet(db, fault_at(at, commit))
            db.consolidate(vacuum=True)
            hit = len(faults.calls) >= at
            # 1 and 4 are not in the newest fragment, so that a write of `middle` is newer in any order.
            expected = model | ({1: b"late", 100: b"late"} if hit else {})
            if hit:
                del expected[4]
            assert dict(db.items()) == expected
        assert contents(path) == expected
        with tilekv.open(path, "a", config={"kv.sync": False}) as db:
            db.consolidate(vacuum=True)
        assert contents(path) == expected
        shutil.rmtree(path)
        return faults

    assert model[1] == b"1"
    assert model[4] == b"0"
    assert every_call(attempt) > 10


def test_older_commit_during_a_consolidation_counts_as_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    clock = Clock(monkeypatch)
    write(path, {1: b"first"})
    middle = clock.now + 50
    clock.now += 100
    write(path, {1: b"second", 2: b"second"})

    def commit(done: int, total: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("tilekv.commit.later_time", lambda storage, known: middle)
            if done == total:
                write(path, {1: b"slow", 3: b"slow"})

    with tilekv.open(path, "a") as db:
        db.consolidate(progress=commit)
    model = {1: b"slow", 2: b"second", 3: b"slow"}
    assert contents(path) == model
    with tilekv.open(path, "a") as db:
        db.vacuum()
        assert contents(path) == model
        db.consolidate(vacuum=True)
    assert contents(path) == model


def test_flush_survives_a_vacuum_right_after_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may merge and remove a fragment before its writer has opened it."""
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with tilekv.open(path, "a") as db, tilekv.open(path, "a") as other:
        storage = db._engine.storage

        class Late:
            def __getattr__(self, name: str) -> object:
                return getattr(storage, name)

            def draft(self, staged: bool = False) -> object:
                draft = storage.draft(staged)
                commit = draft.commit

                def commit_and_lose(name: str) -> None:
                    commit(name)
                    other.consolidate(vacuum=True)

                monkeypatch.setattr(draft, "commit", commit_and_lose)
                return draft

        db._engine.storage = Late()
        db[2] = b"2"
        db.flush()
        db._engine.storage = storage
        assert db.info().buffered == 0
        assert dict(db.items()) == {1: b"1", 2: b"2"}
    assert contents(path) == {1: b"1", 2: b"2"}


def test_open_reader_keeps_reading(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, *(dict.fromkeys(range(50), b"%d" % flush) for flush in range(3)))
    handles = [tilekv.open(path, config={"kv.mmap": mmap}) for mmap in (True, False)]
    cursors = [iter(handle.items()) for handle in handles]
    model = dict.fromkeys(range(50), b"2")
    with tilekv.open(path, "a") as db:
        db[1] = b"newer"
        db.consolidate(vacuum=True)
    for handle, cursor in zip(handles, cursors, strict=True):
        assert dict(handle.items()) == dict(cursor) == model
        assert handle[1] == b"2"
        handle.reopen()
        assert dict(handle.items()) == model | {1: b"newer"}
        handle.close()


def test_late_opened_snapshot_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {2: b"2"})
    with tilekv.open(path, config={"kv.max_mapped_fragments": 1}) as reader:
        with tilekv.open(path, "a") as db:
            db.consolidate(vacuum=True)
        for read in (lambda: reader[1], lambda: reader.get_many([1]), lambda: list(reader)):
            with pytest.raises(tilekv.SnapshotGone, match="reopen"):
                read()
        reader.reopen()
        assert dict(reader.items()) == {1: b"1", 2: b"2"}


def test_fresh_readers_during_consolidations_and_vacuums(tmp_path: Path) -> None:
    path = tmp_path / "store"
    model = {i: b"%d" % i for i in range(40)}
    write(path, model)
    stop = threading.Event()
    errors: list[BaseException] = []
    opened = 0

    def read() -> None:
        nonlocal opened
        try:
            while not stop.is_set():
                assert contents(path) == model
                opened += 1
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    with tilekv.open(path, "a", config={"kv.sync": False}) as db:
        for _ in range(40):
            db.put_many({key: model[key] for key in range(0, 40, 3)})
            db.consolidate(vacuum=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert opened > 3


# --- interrupted -----------------------------------------------------------------------------------


def test_progress_that_raises_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    before = everything(path, record=False)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with tilekv.open(path, "a") as db, pytest.raises(KeyboardInterrupt):
        db.consolidate(progress=stop)
    assert contents(path) == {1: b"2"}
    assert everything(path, record=False) == before
    assert not record_of(path).claims


# --- memory ----------------------------------------------------------------------------------------


@pytest.mark.unsanitized
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Ten fragments of values of 100 KB, 300 MB in all: what is merged passes through and does not stay."""
    code = """
        import random, sys
        import tilekv
        rng = random.Random(1)
        config = {"kv.sync": False}
        # Not ru_maxrss: a child keeps the peak of the process that started it.
        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
        with tilekv.open(sys.argv[1], "a", config=config) as db:
            for flush in range(10):
                for i in range(300):
                    db[rng.randrange(3000)] = rng.randbytes(100_000)
                db.flush()
        before = peak()
        with tilekv.open(sys.argv[1], "a", config=config) as db:
            n = len(db)
            db.consolidate(vacuum=True)
            assert len(db) == n
        print(before, peak())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    before, peak = map(int, done.stdout.split())
    assert before < 220  # or else this says nothing
    assert peak < 256


def test_a_cleared_store_is_empty_and_its_past_is_there(store: Any) -> None:
    db = store()
    for i in range(3):
        db.put_many({f"k{i}-{j}": b"x" for j in range(100)})
        db.flush()
    before = db.fragments[0].t1 - 1
    assert clear(db._engine, db._sorted_delete(""))
    other = tilekv.open(db.uri)
    assert (len(other), other.get("k1-1"), len(other.fragments)) == (0, None, 1)
    assert other.verify() == []
    db["k1-1"] = b"y"  # a handle that has not seen it yet
    db.flush()
    other.reopen()
    assert dict(other.items()) == {"k1-1": b"y"}
    with tilekv.open(db.uri, timestamp=before) as past:
        assert len(past) == 200
    other.close()


def test_nothing_is_cleared_of_an_empty_store(store: Any) -> None:
    db = store()
    assert not clear(db._engine, db._sorted_delete(""))

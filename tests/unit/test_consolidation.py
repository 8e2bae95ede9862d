"""Consolidation and vacuum: what is read never changes, whatever happens meanwhile (docs/design.md 6)."""

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

import pytest

import tilekv
from faulty import Faults, every_call, fault_at, meet
from life import SMALL, Clock, age, contents, everything, folders
from tilekv import Attr, Schema
from tilekv.storage import open_storage

SPLIT = {"kv.max_fragment_bytes": 1500}


def write(path: Path, *flushes: dict[object, bytes | None], config: object = None) -> None:
    """Each mapping becomes a fragment; None deletes."""
    with tilekv.open(path, "a", schema=None if path.exists() else SMALL, config=config) as db:
        for flush in flushes:
            for key, value in flush.items():
                if value is None:
                    db.delete_many([key])
                else:
                    db[key] = value
            db.flush()


def vacs(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob("*.vac"))


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
        assert vacs(path) == []


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
    """There are no empty fragments, and the .vac needs an owner."""
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
        (vac,) = vacs(path)
        assert vac.removesuffix(".vac") in {fragment.name for fragment in outputs}
        listed = {line.strip("/") for line in (path / vac).read_text().split()}
        assert {name for name in listed if name.startswith("__")} == sources
        spans = sorted(_digests(path / fragment.name) for fragment in outputs)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert contents(path) == model
    with tilekv.open(path, "a", config=SPLIT) as db:
        db.vacuum()
        assert folders(path) == {fragment.name for fragment in outputs}
        assert vacs(path) == []
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


# --- the lock --------------------------------------------------------------------------------------


def refused(path: Path) -> None:
    before = everything(path)
    with tilekv.open(path, "a") as db:
        with pytest.raises(tilekv.StoreBusyError):
            db.consolidate(vacuum=True)
        with pytest.raises(tilekv.StoreBusyError):
            db.vacuum()
    assert everything(path) == before


def test_lock_held_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    code = """
        import sys
        from tilekv.storage import open_storage
        with open_storage(sys.argv[1]).lock() as held:
            print(held, flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "True\n"
        refused(path)
        write(path, {2: b"2"})  # writers and readers do not care
        assert contents(path) == {1: b"2", 2: b"2"}
        other.kill()
    with tilekv.open(path, "a") as db:  # the system has dropped the lock of the dead
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1


def test_lock_held_by_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with open_storage(path).lock() as free:
            assert free
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        refused(path)
    finally:
        done.set()
        thread.join()


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
    before = everything(path)
    with tilekv.open(path, "a", config=config) as db, pytest.raises(tilekv.CorruptionError) as info:
        db.consolidate(vacuum=True)
    assert newest.parent.name in info.value.file
    assert everything(path) == before


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
                    patch.setattr("tilekv.commit._timestamp", lambda storage, known: middle)
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
            patch.setattr("tilekv.commit._timestamp", lambda storage, known: middle)
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

            def draft(self) -> object:
                draft = storage.draft()
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
    before = everything(path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with tilekv.open(path, "a") as db, pytest.raises(KeyboardInterrupt):
        db.consolidate(progress=stop)
    assert contents(path) == {1: b"2"}
    assert everything(path) == before


# --- vacuum ----------------------------------------------------------------------------------------


def test_vacuum_removes_what_is_superseded_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {2: b"2"})
    with tilekv.open(path, "a") as db:
        db.vacuum()
        assert len(folders(path)) == 2
        db.consolidate()
        assert len(folders(path)) == 3
        db[3] = b"3"
        db.flush()
        kept = {fragment.name for fragment in db.fragments}
        db.vacuum()
        assert folders(path) == kept
        assert vacs(path) == []
        assert list(path.glob(".tmp-*")) == []
    assert contents(path) == {1: b"1", 2: b"2", 3: b"3"}


@pytest.mark.parametrize("eager", [1000, 0])
def test_vacuum_opens_all_that_stays(tmp_path: Path, eager: int) -> None:
    """What was superseded may be all there is: also when files are opened late."""
    path = tmp_path / "store"
    config = {"kv.max_mapped_fragments": eager}
    write(path, {1: b"1"}, {1: b"2", 3: b"3"}, config=config)
    with tilekv.open(path, "a", config=config) as db:
        db.consolidate()
        (merged,) = (each.name for each in db.fragments)
        assert dict(db) == {1: b"2", 3: b"3"}
        before = folders(path)
        metadata = path / merged / "__fragment_metadata.tdb"
        data = metadata.read_bytes()
        metadata.write_bytes(data[:-1] + b"\xff")
        with pytest.raises(tilekv.CorruptionError):
            db.vacuum()
        assert folders(path) == before
        metadata.write_bytes(data)
        db.vacuum()
    assert len(folders(path)) == 1


def test_orphan_lists_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    (name,) = folders(path)
    orphan = path / f"__1_1_{'a' * 32}.vac"
    orphan.write_text(f"/{name}\n")
    with tilekv.open(path, "a") as db:
        db.vacuum()
    assert not orphan.exists()
    assert contents(path) == {1: b"1"}


def test_abandoned_writes_are_removed_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    (name,) = folders(path)
    for hidden in ("old", "young", "growing", "young-empty", "old-empty"):
        if hidden.endswith("empty"):
            path.joinpath(f".tmp-{hidden}").mkdir()
        else:
            shutil.copytree(path / name, path / f".tmp-{hidden}")
    path.joinpath(".tmp-old-file").write_bytes(b"half a list")
    path.joinpath(".tmp-young-file").write_bytes(b"half a list")
    for hidden in ("old", "growing", "old-empty", "old-file"):
        age(path / f".tmp-{hidden}", 1.01)
    for hidden in ("young", "young-empty", "young-file"):
        age(path / f".tmp-{hidden}", 0.99)
    os.utime(path / ".tmp-growing" / "value_var.tdb")  # a slow writer's newest file counts
    with tilekv.open(path, "a") as db:
        db.vacuum()
    left = {each.name.removeprefix(".tmp-") for each in path.glob(".tmp-*")}
    assert left == {"young", "growing", "young-empty", "young-file"}
    assert contents(path) == {1: b"1"}


def test_flush_whose_folder_vanished_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with tilekv.open(path, "a") as db:
        db[2] = b"2"

        def lose() -> None:
            for hidden in path.glob(".tmp-*"):
                shutil.rmtree(hidden)

        storage = db._engine.storage
        meet(db, fault_at(6, lose))
        with pytest.raises(FileNotFoundError):
            db.flush()
        db._engine.storage = storage
        assert db[2] == b"2"
        db.flush()
    assert contents(path) == {1: b"1", 2: b"2"}


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

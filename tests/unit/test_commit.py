"""commit: a flush is whole or nothing, whatever fails, and needs little memory beside what it writes."""

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tilekv
from faulty import BEFORE, Faults, every_call, fault_at, meet
from tilekv import commit
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, ChunkPlan
from tilekv.kvcore.write.sorted_buffer import sort_buffer
from tilekv.names import FragmentName
from tilekv.storage import Draft, FileWriter, Storage, open_storage
from tilekv.workers import Workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many([(i, b"old") for i in range(10)])
    return tmp_path / "s"


def drafts(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".tmp-")}


@pytest.mark.usefixtures("quick_collections")
def test_an_exception_in_a_cycle_holds_a_failed_flush(folder: Path) -> None:
    """Its traceback holds the builder: the collector may take it apart in any order."""

    def fail(db: tilekv.Store) -> None:
        kept: list[OSError] = []  # an exception, whose frame holds the list, which holds it
        try:
            db.flush()
        except OSError as error:
            kept.append(error)

    with tilekv.open(folder, "a") as db:
        db["a"] = b"b"
        sound = db._engine.storage

        def attempt(number: int) -> Faults:
            db._engine.storage = sound
            faults = meet(db, fault_at(number, BEFORE[0]))
            fail(db)
            gc.collect()
            return faults

        assert every_call(attempt) > 20
        db._engine.storage = sound


def test_no_exception_leaves_a_draft_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> int:
        raise KeyboardInterrupt

    with tilekv.open(folder, "a") as db:
        db["a"] = b"b"
        with monkeypatch.context() as patch:
            patch.setattr(commit, "later_time", interrupted)
            with pytest.raises(KeyboardInterrupt):
                db.flush()
        assert drafts(folder) == set()
        assert db.info().buffered == 1


# --- timestamps ---------------------------------------------------------------------------------


def test_each_flush_is_newer_than_all_there_is(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    handles = [tilekv.open(tmp_path / "s", "a", config={"kv.sync": False}) for _ in range(3)]
    for i in range(60):
        handles[i % 3]["key"] = b"%d" % i
        handles[i % 3].flush()
    after = time.time_ns() // 1_000_000
    for db in handles:
        db.close()
    with tilekv.open(tmp_path / "s") as db:
        times = [fragment.t2 for fragment in db.fragments]
        assert times == sorted(set(times), reverse=True)
        assert db["key"] == b"59"
        assert before <= times[-1] < times[0] <= after


def test_a_fragment_from_the_future(tmp_path: Path) -> None:
    """Order beats visibility: what is written now is newer, and a minute ahead is not waited for."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db["key"] = b"future"
        ahead = time.time_ns() // 1_000_000 + 60_000
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commit.time, "time_ns", lambda: ahead * 1_000_000)
            db.flush()
        db["key"] = b"now"
        waits: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commit.time, "sleep", waits.append)
            db.flush()
        assert waits == []
        assert [fragment.t2 for fragment in db.fragments] == [ahead + 1, ahead]
    with tilekv.open(tmp_path / "s") as db:
        assert db["key"] == b"now"


# --- threads and memory ---------------------------------------------------------------------------


class KeptDraft:
    """A draft that keeps what it is given."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}

    def create(self, file: str) -> FileWriter:
        data = self.files[file] = bytearray()

        class Writer:
            def write(self, more: Any) -> None:
                data.extend(memoryview(more))

            def sync(self) -> None: ...

            def close(self) -> None: ...

        return Writer()

    def sync(self, *, names: bool = True) -> None: ...

    def commit(self, name: str) -> None: ...

    def abandon(self) -> None: ...


class KeptStorage:
    def __init__(self, storage: Storage) -> None:
        self.kept = KeptDraft()
        self._storage = storage

    def draft(self, staged: bool = False) -> Draft:
        return self.kept

    def list(self) -> object:
        return self._storage.list()

    def record(self) -> None:
        return None


def test_threads_write_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned by the caller and encoded by threads, or planned by them too."""
    pick = random.Random(5)
    written: list[Mapping[str, bytes]] = []
    with tilekv.open("memory://threads", "w") as db:
        db.put_many([(i, pick.randbytes(pick.randrange(2000))) for i in range(6000)])
        db.put_many([(f"long{i}", pick.randbytes(3_000_000)) for i in range(3)])
        source = sort_buffer(db._buffer)
        for threads, many in ((1, 1), (2, 1 << 16), (7, 1 << 16), (2, 1), (7, 1)):
            monkeypatch.setattr(commit, "MANY_CELLS", many)
            storage = KeptStorage(open_storage("memory://threads"))
            with Workers(threads) as workers:
                name = commit.write_fragment(storage, db._layout, CodecPool(), [source], workers)  # type: ignore[arg-type]
            assert FragmentName.parse(str(name)) == name
            # uuid and time differ, and each file ends in the uuid and its slot
            files = {file: bytes(data[:-20]) for file, data in storage.kept.files.items()}
            files.pop("__fragment_metadata.tdb")
            written.append(files)
        db.clear()
    assert all(files == written[0] for files in written)


@pytest.mark.parametrize("most", [0, 1])
def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """As at the end of the interpreter, or where no more are allowed: the flush does without, and nothing twice."""
    begin = threading.Thread.start
    begun = []
    encode = commit.encode
    encoded: list[tuple[int, int, int]] = []

    def recorded(
        layout: Layout,
        source: CellSource,
        plan: ChunkPlan,
        first: int,
        last: int,
        codecs: CodecPool,
    ) -> object:
        encoded.append((plan.slot, first, last))
        return encode(layout, source, plan, first, last, codecs)

    def start(thread: threading.Thread) -> None:
        if len(begun) == most:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    model = {i: b"%d" % i for i in range(10_000)}
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=16)
    with tilekv.open("memory://none", "w", schema=schema, config={"kv.threads": 4}) as db:
        db.put_many(model)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            patch.setattr(commit, "encode", recorded)
            db.flush()
        assert len(begun) == most
        assert len(encoded) == len(set(encoded)) > 0
        assert db.verify() == []
        assert dict(db.items()) == model


MEMORY = """
import random, sys
import tilekv
size, count, uri = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
value = random.Random(0).randbytes(1 << 20) * (size >> 20)
def peak():
    # Not ru_maxrss: a child keeps the peak of the process that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
with tilekv.open(uri, "x", config={"kv.buffer_bytes": "1 GiB", "kv.sync": False}) as db:
    before = peak()
    for i in range(count):
        db[i] = value
    filled = peak()
    db.flush()
    flushed = peak()
    del value
with tilekv.open(uri) as db:
    back = db[count - 1]
    assert len(back) == size
    del back
    assert len(list(db)) == count
read = peak()
print(before, filled, flushed, read)
"""


@pytest.mark.unsanitized
@pytest.mark.parametrize(("size", "count"), [(200 << 20, 1), (4 << 20, 64)])
def test_memory_of_long_values(tmp_path: Path, size: int, count: int) -> None:
    """The buffer holds one copy; a flush adds a few megabytes to it, and reading one value back no more than itself."""
    found = subprocess.run(
        [sys.executable, "-P", "-c", MEMORY, str(size), str(count), str(tmp_path / "s")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, filled, flushed, read = map(int, found.stdout.split())
    total = size * count
    assert filled - before < total + (50 << 20)
    assert flushed - filled < 100 << 20
    assert read - flushed < 100 << 20

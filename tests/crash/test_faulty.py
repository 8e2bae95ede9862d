"""The storage that fails where a test wants: every fault does what it says, and no call goes past it."""

from __future__ import annotations

import errno
import inspect
from pathlib import Path

import pytest

from faulty import AFTER, BEFORE, SHORT_READ, Call, Fault, Faults, Killed, every_call, fault_at
from tilekv.storage import Build, Draft, FileWriter, Storage, open_storage

FILES = {"a": b"0123456789"}


@pytest.fixture
def real(tmp_path: Path) -> Storage:
    storage = open_storage(tmp_path / "store")
    assert storage.create(FILES, replace=False)
    return storage


def commit(storage: Storage, name: str = "folder", *, staged: bool = False) -> None:
    draft = storage.draft(staged)
    other = draft.create("other")
    other.write(b"01")
    other.replace_start(b"2")
    other.close()
    draft.discard("other")
    writer = draft.create("file")
    writer.write(b"0123456789")
    writer.close()
    draft.sync()
    draft.commit(name)
    draft.abandon()


def use_everything(storage: Storage) -> None:
    storage.exists()
    storage.is_empty()
    commit(storage)
    storage.list()
    storage.files("folder")
    storage.read("a")
    storage.sync()
    commit(storage, "staged", staged=True)
    storage.staged()
    storage.show(["staged"])
    storage.settled(["folder"])
    storage.set_aside(["staged"])
    storage.past()
    storage.replace_record(1, b"x")
    storage.record()
    storage.record_seq()
    storage.room()
    storage.expect(["folder"])
    storage.distrust("a")
    storage.ahead()
    storage.spare(["folder"])
    storage.open_file("folder", "file", True)
    storage.open_files("folder", True)
    storage.put("b", b"")
    with storage.lock():
        storage.reclaim(storage.retire(["folder"]))
        storage.remove("b")
        storage.abandoned(0)
        storage.now()
    storage.create(FILES, replace=True)
    build = storage.build()
    open_storage(build.uri).create(FILES, replace=False)
    build.commit(replace=True)
    build.abandon()


def test_every_call_of_the_protocol_is_met(real: Storage) -> None:
    faults = Faults()
    use_everything(faults.storage(real))
    for prefix, protocol in (
        ("", Storage), ("draft.", Draft), ("build.", Build), ("file.", FileWriter)
    ):  # fmt: skip
        for name, _ in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                assert prefix + name in faults.calls


@pytest.mark.parametrize("fault", BEFORE, ids=str)
def test_before_nothing_is_done(real: Storage, fault: Fault) -> None:
    def attempt(number: int) -> Faults:
        faults = fault_at(number, fault)
        storage = faults.storage(real)
        if number == 1:
            with pytest.raises(OSError, match="injected") as caught:
                storage.put("a", b"new")
            assert caught.value.errno == fault.code
            assert real.read("a") == FILES["a"]
        storage.put("a", b"new")
        if number == 2:
            with pytest.raises(OSError, match="injected"):
                storage.remove("a")
            assert real.list().files == ("a",)
        return faults

    assert every_call(attempt) == 3


def test_eintr_is_an_interrupted_error(real: Storage) -> None:
    with pytest.raises(InterruptedError):
        fault_at(1, Fault(errno.EINTR)).storage(real).list()


def test_after_all_is_done(real: Storage) -> None:
    with pytest.raises(OSError, match="injected: Input/output error"):
        fault_at(1, AFTER).storage(real).put("b", b"1")
    assert real.read("b") == b"1"


def test_short_writes_and_reads(real: Storage) -> None:
    faults = fault_at(3, Fault(errno.ENOSPC, "half"))
    draft = faults.storage(real).draft()
    writer = draft.create("file")
    with pytest.raises(OSError, match="No space left"):
        writer.write(b"0123456789")
    writer.close()
    draft.commit("folder")
    assert real.files("folder") == {"file": 5}
    assert fault_at(1, SHORT_READ).storage(real).read("a") == b"01234"
    commit(real, "whole")
    assert fault_at(1, SHORT_READ).storage(real).open_file("whole", "file", True).size == 5
    assert fault_at(1, SHORT_READ).storage(real).open_files("whole", True)["file"].size == 5


def test_the_dead_do_nothing(real: Storage) -> None:
    def attempt(number: int) -> Faults:
        faults = fault_at(number, Fault(0))
        try:
            commit(faults.storage(real), f"folder {number}")
        except Killed:
            assert faults.dead
            with pytest.raises(Killed):
                faults.storage(real).list()
        return faults

    runs = every_call(attempt)
    assert runs == 13
    # Before the commit, and once by a run without a fault; the draft of who is killed after it has nothing to abandon.
    assert real.list().folders == ("folder 12", "folder 13")


def test_the_dead_hold_no_lock(real: Storage) -> None:
    faults = fault_at(2, Fault(0))
    with pytest.raises(Killed), faults.storage(real).lock():
        faults.storage(real).list()
    with real.lock() as held:
        assert held


def test_predicates(real: Storage) -> None:
    seen: list[Call] = []

    def no_lists(call: Call) -> Fault | None:
        seen.append(call)
        return BEFORE[0] if call.name == "list" else None

    storage = Faults(no_lists).storage(real)
    storage.put("b", b"1")
    for _ in range(2):
        with pytest.raises(OSError, match="injected"):
            storage.list()
    assert seen == [Call(1, "put"), Call(2, "list"), Call(3, "list")]

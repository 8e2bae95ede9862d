"""tools.parallel, executors: a store merged and checked in parts, by whatever executor there is."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import tilekv
from life import contents, folders, past, record_of, write
from tilekv import CorruptionError, InvalidValueError, StoreNotFoundError, WrongTypeError
from tilekv.record import parsed
from tilekv.tools import parallel

WRITTEN: list[dict[Any, Any]] = [
    {n: b"%d" % n for n in range(3000)},
    dict.fromkeys(range(100, 200)),
    {n: b"new %d" % n for n in range(150, 2000, 7)},
]
WANTED = {key: value for step in WRITTEN for key, value in step.items()}
WANTED = {key: value for key, value in WANTED.items() if value is not None}


class Serial(Executor):
    """Does each task when it is given; `deaths` of them were given to a process that dies when it has done them."""

    def __init__(self, deaths: int = 0, error: BaseException | None = None) -> None:
        self.deaths = deaths
        self.error = error
        self.tasks = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks += 1
        future: Future[Any] = Future()
        if self.error is not None and self.tasks > 2:
            future.set_exception(self.error)
            return future
        result = work(*args, **kwargs)
        if self.tasks <= self.deaths:
            future.set_exception(BrokenProcessPool("died"))
        else:
            future.set_result(result)
        return future


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "s", *WRITTEN)
    return tmp_path / "s"


def staged(path: Path) -> set[str]:
    stage = path / ".tilekv" / "staged"
    return set(os.listdir(stage)) if stage.exists() else set()


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_together_are_the_merge(path: Path, parts: int) -> None:
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as executor:
        assert tilekv.consolidate(
            path, executor=executor, parts=parts, progress=lambda *done: told.append(done)
        )
    assert contents(path) == WANTED
    assert len(folders(path)) == parts
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)
    (commit,) = record_of(path).commits
    assert len(commit.outputs) == parts
    with tilekv.open(path) as db:
        sizes = [fragment.cells for fragment in db.fragments]
        assert sum(sizes) == len(WANTED)
        assert max(sizes) < 2 * len(WANTED) / parts
        assert all(fragment.tombstones == 0 for fragment in db.fragments)
    assert tilekv.verify(path) == []
    # It is one merge: there is nothing more to do, for anybody.
    assert not tilekv.consolidate(path, parts=3)
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
        assert len(db.fragments) == parts
    assert past(path) == set()
    assert contents(path) == WANTED


def test_without_an_executor_and_split_again(path: Path) -> None:
    assert tilekv.consolidate(path, parts=2, config={"kv.max_fragment_bytes": 3000})
    assert len(folders(path)) > 4
    assert contents(path) == WANTED
    assert not tilekv.consolidate(path, config={"kv.max_fragment_bytes": 3000})
    write(path, {"one": b"more"})
    assert tilekv.consolidate(path)
    assert len(folders(path)) == 1
    assert contents(path) == WANTED | {"one": b"more"}


def test_history_of_parts(path: Path) -> None:
    before = min(name.t2 for name in parsed(folders(path)))
    seen = contents(path, timestamp=before)
    assert tilekv.consolidate(path, parts=4)
    assert contents(path, timestamp=before) == seen


@pytest.mark.parametrize("deaths", [1, 3, 5])
def test_parts_of_who_died_are_written_again(path: Path, deaths: int) -> None:
    executor = Serial(deaths)
    assert tilekv.consolidate(path, executor=executor, parts=5)
    assert executor.tasks == 5
    assert len(folders(path)) == 5
    assert len(staged(path)) == deaths  # of who died: they go with what crashes leave
    assert contents(path) == WANTED
    assert tilekv.verify(path, executor=Serial(1)) == []


def _die(task: object) -> object:
    os._exit(1)


def test_processes_that_die(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_written", _die)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert tilekv.consolidate(path, executor=executor, parts=2)
    assert contents(path) == WANTED


def test_an_error_leaves_all_as_it_was(path: Path) -> None:
    before = folders(path)
    with pytest.raises(ZeroDivisionError):
        tilekv.consolidate(path, executor=Serial(error=ZeroDivisionError()), parts=4)
    assert folders(path) == before
    assert staged(path) == set()
    assert not record_of(path).claims
    assert contents(path) == WANTED


def test_damage_is_told(path: Path) -> None:
    file = min(path.glob("__*_*_*/value_var.tdb"))  # of the oldest
    data = bytearray(file.read_bytes())
    data[30] ^= 1
    file.write_bytes(data)
    before = folders(path)
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(CorruptionError, match=file.parent.name):
            tilekv.consolidate(path, executor=executor, parts=3)
        assert tilekv.verify(path, executor=executor) == tilekv.verify(path) != []
    assert folders(path) == before
    assert staged(path) == set()


def test_nothing_left_keeps_a_delete(tmp_path: Path) -> None:
    write(tmp_path / "s", dict.fromkeys(range(50), b"v"), dict.fromkeys(range(50)))
    with ThreadPoolExecutor(2) as executor:
        assert tilekv.consolidate(tmp_path / "s", executor=executor, parts=4)
    with tilekv.open(tmp_path / "s") as db:
        (fragment,) = db.fragments
        assert (fragment.cells, fragment.tombstones) == (1, 1)
    assert contents(tmp_path / "s") == {}


def test_wrong_arguments(path: Path, tmp_path: Path) -> None:
    for wrong in (5, Serial, "threads"):
        with pytest.raises(WrongTypeError, match=r"concurrent\.futures"):
            tilekv.consolidate(path, executor=wrong)  # type: ignore[arg-type]
        with pytest.raises(WrongTypeError, match=r"concurrent\.futures"):
            tilekv.verify(path, executor=wrong)  # type: ignore[arg-type]
    for parts in (0, 4097):
        with pytest.raises(InvalidValueError, match="parts is 1 to 4096"):
            tilekv.consolidate(path, parts=parts)
    with pytest.raises(WrongTypeError):
        tilekv.consolidate(path, parts=2.0)  # type: ignore[arg-type]
    with pytest.raises(StoreNotFoundError):
        tilekv.consolidate(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()

"""tools.jobs in a bucket: parts are put on the stage there, and a build appears by its creation."""

import uuid

import pytest

import tilekv
from faulty import Fault
from job_survival import FAULTS, NEW, OLD, begin_twice, fail_everywhere, wanted
from samples import some
from tilekv.storage import open_storage
from tilekv.tools.jobs import begin_job, commit_job, withdraw_job


@pytest.mark.parametrize("mode", ["error", "append", "overwrite"])
def test_all_at_once(memory_bucket: str, mode: str) -> None:
    place = f"{memory_bucket}/s.kv"
    if mode != "error":
        with tilekv.open(place, "x") as db:
            db.update(OLD)
    job, names = begin_twice(place, mode)
    if mode == "error":
        with pytest.raises(tilekv.StoreNotFoundError):
            tilekv.open(place)
    else:
        with tilekv.open(place) as db:
            assert dict(db.items()) == OLD
    commit_job(job, names)
    commit_job(job, names)
    with tilekv.open(place, "a") as db:
        for _ in range(2):
            assert dict(db.items()) == (NEW if mode == "error" else wanted(mode))
            assert db.verify() == []
            db.consolidate(vacuum=True)
    assert open_storage(place).staged() == ()


def test_withdrawn(memory_bucket: str) -> None:
    place = f"{memory_bucket}/s.kv"
    withdraw_job(begin_twice(place, "error")[0])
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.open(place)
    with tilekv.open(place, "x") as db:
        db.update(OLD)
    for mode in ("append", "overwrite"):
        withdraw_job(begin_twice(place, mode)[0])
        with tilekv.open(place) as db:
            assert dict(db.items()) == OLD
    assert open_storage(place).staged() == ()


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("fault", some(FAULTS, 2), ids=str)
def test_a_commit_fails_at_every_call(memory_bucket: str, mode: str, fault: Fault) -> None:
    assert fail_everywhere(lambda: f"{memory_bucket}/{uuid.uuid4().hex}.kv", mode, fault) > 5


def test_options_of_tiledb(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job and a merge in parts ask for is where `config` says, in TileDB's words, as `tilekv.open` does."""
    asked: list[object] = []

    def noted(uri: object, sync: bool = True, options: object = None, **more: object) -> object:
        asked.append(options)
        raise tilekv.StoreNotFoundError("noted")

    config = {"vfs.s3.region": "eu-west-1"}
    for module, call in (
        ("tilekv.tools.jobs", lambda: begin_job("s3://b/s", "error", None, config)),
        ("tilekv.tools.parallel", lambda: tilekv.consolidate("s3://b/s", config=config)),
    ):
        monkeypatch.setattr(f"{module}.open_storage", noted)
        with pytest.raises(tilekv.StoreNotFoundError):
            call()
    assert asked == [{"region": "eu-west-1"}] * 2

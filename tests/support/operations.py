"""All that writes to a store, small: what tests interrupt at every point, and what they may find then."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import tilekv
from life import SMALL, age
from lists import merge_by_list
from old_stores import OldStoreWriter
from tilekv.tiers import FAN

State = Mapping[Any, Any] | None  # what a store reads as; None: there is none
SPLIT = {"kv.max_fragment_bytes": 600}
ORPHAN = f"__5_5_{'a' * 32}.vac"


class Steps(Protocol):
    """How an operation takes its steps: the test lets them fail, and may repeat them."""

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        """Open a store; nothing is acknowledged."""

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        """One step that moves the store to its next state; with its return it is acknowledged.

        `done`: what the step raises when it was done already, by an attempt that failed all the same.
        """


class Operation(NamedTuple):
    """Something that is done to the store in a folder.

    Attributes
    ----------
    prepare : callable
        Makes what is there before, in an empty folder.
    run : callable
        Does it, given the uri of the store and the Steps. What it is converted or copied from is beside it, in the folder given.
    states : callable
        Given the folder: what the store reads as before, and after each step.
    """

    name: str
    prepare: Callable[[Path], object]
    run: Callable[[str, Path, Steps], None]
    states: Callable[[Path], Sequence[State]]


def filled(folder: Path) -> dict[Any, bytes]:
    """Fragments, deletes, a consolidation that nobody vacuumed, a list without its fragment: what can be met at once."""
    rng = random.Random(5)
    model: dict[Any, bytes] = {}
    config = {"kv.sync": False}
    with tilekv.open(folder / "store", "x", schema=SMALL, config=config) as db:
        for flush in range(3):
            part = {key: rng.randbytes(24) for key in rng.sample(range(20), 10)}
            gone = rng.sample(range(20), 4)
            db.put_many(part)
            db.delete_many(gone)
            db.flush()
            model = {key: value for key, value in (model | part).items() if key not in gone}
            if flush == 1:
                db.consolidate()
    folder.joinpath("store", ORPHAN).write_text(f"/__1_1_{'b' * 32}\n")
    return model


def _model(folder: Path) -> dict[Any, Any]:
    with tilekv.open(folder / "store") as db:
        return dict(db.items())


# --- create --------------------------------------------------------------------------------------


def _create(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(lambda: steps.open(uri, "a", {}))


def _replace(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(lambda: steps.open(uri, "w", {}))


# --- flush ---------------------------------------------------------------------------------------

NEW = {3: b"new", "text": b"", 1.5: b"x" * 900}


def _flush(uri: str, folder: Path, steps: Steps) -> None:
    db = steps.open(uri, "a", {})
    db.put_many(NEW)
    steps.take(db.flush)


def _flushed(folder: Path) -> list[State]:
    before = _model(folder)
    return [before, before | NEW]


GONE = range(0, 20, 3)


def _delete(uri: str, folder: Path, steps: Steps) -> None:
    db = steps.open(uri, "a", {})
    db.delete_many(GONE)
    steps.take(db.flush)
    db.put_many(NEW)
    steps.take(db.close)


def _deleted(folder: Path) -> list[State]:
    before = _model(folder)
    left = {key: value for key, value in before.items() if key not in GONE}
    return [before, left, left | NEW]


# --- upkeep --------------------------------------------------------------------------------------


def _unchanged(folder: Path) -> list[State]:
    return [_model(folder)] * 2


def _consolidate(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(steps.open(uri, "a", {}).consolidate)


def _consolidate_split(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(steps.open(uri, "a", SPLIT).consolidate)


def _superseded(folder: Path) -> None:
    """Lists inside lists, and what a crash left long ago."""
    filled(folder)
    store = folder / "store"
    with tilekv.open(store, "a", config={"kv.sync": False}) as db:
        db.consolidate()
    (store / ".tmp-draft").mkdir()
    (store / ".tmp-draft" / "value.tdb").write_bytes(b"half")
    (store / ".tmp-file").write_bytes(b"half")
    for hidden in store.glob(".tmp-*"):
        age(hidden, 2)


def _vacuum(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(steps.open(uri, "a", {}).vacuum)


def _tier(folder: Path) -> None:
    """A fragment that is larger, and as many small ones as make a tier; no record."""
    rng = random.Random(6)
    with tilekv.open(
        folder / "store", "x", schema=SMALL, config={"kv.sync": False, "kv.upkeep": "off"}
    ) as db:
        db.put_many({key: rng.randbytes(900) for key in range(6)})
        db.flush()
        for flush in range(FAN):
            db["all"] = db[flush] = b"%d" % flush
            db.delete_many([5 - flush])
            db.flush()


def _filled_tier(folder: Path) -> None:
    """The same upon what a merge has superseded."""
    filled(folder)
    with tilekv.open(folder / "store", "a", config={"kv.sync": False, "kv.upkeep": "off"}) as db:
        for flush in range(FAN):
            db["all"] = db[flush] = b"%d" % flush
            db.flush()


def _upkeep(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(steps.open(uri, "a", {"kv.upkeep": "off"}).upkeep)


def _upkeep_and_remove(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(steps.open(uri, "a", {"kv.upkeep": "off", "kv.history": 0}).upkeep)


def _lists(folder: Path) -> None:
    """Of the time before the record: a merge of a merge, and what came since."""
    store = folder / "store"
    with tilekv.open(store, "x", schema=SMALL, config={"kv.sync": False}) as db:
        for flush in range(5):
            db["all"] = db[flush] = b"%d" % flush
            db.delete_many([flush - 2])
            db.flush()
            if flush in (1, 3):
                merge_by_list(store)
                db.reopen()
    assert len(list(store.glob("*.vac"))) == 2
    assert not (store / ".tilekv").exists()


# --- convert -------------------------------------------------------------------------------------


def _old(folder: Path) -> None:
    items = [((4, b"key_%d" % i), i, b"v" * i) for i in range(20)]
    OldStoreWriter(folder / "old", 2, 4).flush(items, 1000)


def _convert(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(lambda: tilekv.convert(folder / "old", uri), tilekv.StoreExistsError)


def _converted(folder: Path) -> list[State]:
    with tilekv.open(folder / "old") as db:
        assert len(db) == 20
        return [None, dict(db.items())]


# --- backup --------------------------------------------------------------------------------------


def _source(folder: Path) -> None:
    filled(folder)
    (folder / "store").rename(folder / "source")


def _backup(uri: str, folder: Path, steps: Steps) -> None:
    steps.take(lambda: tilekv.backup(folder / "source", uri))


def _copied(folder: Path) -> list[State]:
    with tilekv.open(folder / "source") as db:
        return [None, dict(db.items())]


def _backed_up(folder: Path) -> None:
    """The store has fragments that the last backup has, others, and lacks some."""
    _source(folder)
    with tilekv.open(folder / "source", "a", config={"kv.sync": False}) as db:
        tilekv.backup(folder / "source", folder / "store")
        db.consolidate(vacuum=True)
        for number in range(2):
            db.put_many(NEW | {number: b"later"})
            db.delete_many(GONE)
            db.flush()


def _newer(folder: Path) -> list[State]:
    return [_model(folder), _copied(folder)[1]]


OPERATIONS = (
    Operation("create", lambda folder: None, _create, lambda folder: [None, {}]),
    Operation("replace", filled, _replace, lambda folder: [_model(folder), {}]),
    Operation("flush", filled, _flush, _flushed),
    Operation("delete", filled, _delete, _deleted),
    Operation("consolidate", filled, _consolidate, _unchanged),
    Operation("consolidate and split", filled, _consolidate_split, _unchanged),
    Operation("vacuum", _superseded, _vacuum, _unchanged),
    Operation("upkeep", _filled_tier, _upkeep, _unchanged),
    Operation("upkeep and remove", _tier, _upkeep_and_remove, _unchanged),
    Operation("seed", _lists, _vacuum, _unchanged),
    Operation("convert", _old, _convert, _converted),
    Operation("backup", _source, _backup, _copied),
    Operation("backup again", _backed_up, _backup, _newer),
)

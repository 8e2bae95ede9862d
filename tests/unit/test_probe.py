"""probe: what is at a place, and what one call asks of the storage to know it."""

import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tilekv
from tilekv import Attr, CorruptionError, Ctx, KVSchema, StoreNotFoundError
from tilekv.names import DESCRIPTOR
from tilekv.probe import Kind, probe
from tilekv.storage import Listing, open_storage
from tilekv.storage.local import LocalStorage
from tilekv.storage.memory import MemoryStorage

FIXTURE = Path(__file__).parents[1] / "fixtures" / "h2_5flush" / "store.tar.gz"
Counting = Callable[[], Counter[str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """What storages were asked since the last call: a file of the root by its name, all else by the method's."""
    counts = Counter[str]()

    def counted(kind: type, method: str) -> None:
        original = getattr(kind, method)

        def call(self: object, *args: object) -> object:
            counts[str(args[0]) if method == "read" else method] += 1
            return original(self, *args)

        monkeypatch.setattr(kind, method, call)

    for kind in (LocalStorage, MemoryStorage):
        for method in ("exists", "is_empty", "list", "files", "read", "open_file", "open_files"):
            counted(kind, method)

    def since() -> Counter[str]:
        found = counts.copy()
        counts.clear()
        return found

    return since


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "s") if request.param == "local" else f"memory://{tmp_path}"


@pytest.fixture
def filled(place: str) -> str:
    """Three fragments."""
    with tilekv.open(place, "x") as db:
        for n in range(3):
            db[n] = b"%d" % n
            db.flush()
    return place


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Five fragments of TileDB 1.x."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "h2_5flush"


ROOT = {DESCRIPTOR: 1, "__kv_schema.tdb": 1, "__array_schema.tdb": 1}


def test_an_open_takes_two_listings_and_reads_each_file_once(filled: str, asked: Counting) -> None:
    asked()
    openers: list[Callable[[], tilekv.Store | tilekv.KV | tilekv.Map]] = [
        lambda: tilekv.open(filled),
        lambda: tilekv.open(filled, "a"),
        lambda: tilekv.open(filled, "r", timestamp=2**62),
        lambda: tilekv.KV(filled),
        lambda: tilekv.KV(filled, "r"),
        lambda: tilekv.Map(Ctx(), filled),
    ]
    for opened in openers:
        opened().close()
        assert asked() == {"list": 2, "open_files": 3, **ROOT}


def test_a_reopen_takes_no_probe(filled: str, asked: Counting) -> None:
    with tilekv.open(filled) as db:
        asked()
        db.reopen()
        assert asked() == {"list": 2, DESCRIPTOR: 1}  # whether it is the same store


def test_a_creation_reads_nothing_of_what_it_has_written(place: str, asked: Counting) -> None:
    for n, mode in enumerate(("x", "a", "w")):
        tilekv.open(f"{place}{n}", mode).close()  # type: ignore[arg-type]
        assert asked() == {"list": 2}
        tilekv.open(f"{place}{n}", "w").close()
        assert asked() == {"list": 2}
    tilekv.KV.create(f"{place}kv", KVSchema(attrs=[Attr("v", bytes)]))
    assert asked() == {"list": 2}


def test_what_is_not_opened_is_listed_once(filled: str, asked: Counting) -> None:
    asked()
    with pytest.raises(StoreNotFoundError):
        tilekv.open(f"{filled}-none")
    assert asked() == {"list": 1}
    with pytest.raises(tilekv.StoreExistsError):
        tilekv.open(filled, "x")
    assert asked() == {"list": 1}
    assert tilekv.object_type(filled) == "kv"
    assert asked() == {"list": 1}
    assert tilekv.Map.encryption_type(Ctx(), filled) == tilekv.TILEDB_NO_ENCRYPTION
    assert asked() == {"list": 1}


def test_old_stores_are_listed_twice(old: Path, tmp_path: Path, asked: Counting) -> None:
    tilekv.open(old).close()
    found = asked()
    assert (found["list"], found["exists"], found["is_empty"]) == (2, 0, 0)
    tilekv.Map(Ctx(), old).close()
    assert asked()["list"] == 2
    with pytest.raises(tilekv.ReadOnlyError):
        tilekv.open(old, "a")
    assert asked()["list"] == 1
    tilekv.convert(old, tmp_path / "new")
    assert asked()["list"] == 2 + 2 + 1  # the old one is opened, the new one made, and flushed into


def test_tools_list_what_they_look_at_once(filled: str, asked: Counting) -> None:
    asked()
    assert tilekv.verify(filled) == []
    found = asked()
    # One to know what is there, one for what is superseded, two to see what has taken the place of fragments meanwhile.
    assert found["list"] == 4
    assert {name: found[name] for name in ROOT} == ROOT
    with pytest.raises(StoreNotFoundError):
        tilekv.verify(f"{filled}-none")
    assert asked() == {"list": 1}
    tilekv.salvage(filled, f"{filled}-new")
    assert (
        asked()["list"] == 1 + 1 + 2 + 1
    )  # what is superseded; the new one is made, and flushed into


# --- what it tells ------------------------------------------------------------------------------


def kind_at(uri: str | Path) -> Kind:
    return probe(open_storage(uri)).kind


def test_kinds(tmp_path: Path, old: Path) -> None:
    place = tmp_path / "s"
    assert kind_at(place) is Kind.NOTHING
    assert probe(open_storage(place)).listing == Listing((), ())
    place.mkdir()
    assert kind_at(place) is Kind.EMPTY
    (place / ".tmp-0").touch()
    assert kind_at(place) is Kind.FOREIGN  # nothing that a listing shows, and not empty
    with tilekv.open(tmp_path / "t", "x") as db:
        db["k"] = b"v"
    assert kind_at(tmp_path / "t") is Kind.TILEKV
    (tmp_path / "t" / DESCRIPTOR).unlink()
    found = probe(open_storage(tmp_path / "t"))
    assert found.kind is Kind.LOST
    assert isinstance(found.damage, CorruptionError)
    (tmp_path / "t" / "__kv_schema.tdb").unlink()
    (tmp_path / "t" / "__array_schema.tdb").unlink()
    assert kind_at(tmp_path / "t") is Kind.LOST
    assert kind_at(old) is Kind.OLD
    assert kind_at(f"memory://{tmp_path}") is Kind.NOTHING
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="a store is a folder"):
        kind_at(tmp_path / "file")


def test_a_store_without_its_descriptor_is_refused_by_all(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["k"] = b"v"
    (tmp_path / "s" / DESCRIPTOR).unlink()
    message = r"__tilekv\.json: it is missing"
    for mode in ("r", "a", "x", "w"):
        with pytest.raises(CorruptionError, match=message):
            tilekv.open(tmp_path / "s", mode)  # type: ignore[arg-type]
    with pytest.raises(CorruptionError, match=message):
        tilekv.KV(str(tmp_path / "s"))
    with pytest.raises(CorruptionError, match=message):
        tilekv.Map.encryption_type(Ctx(), str(tmp_path / "s"))
    assert [problem.file for problem in tilekv.verify(tmp_path / "s")] == [DESCRIPTOR]


# --- what happens between the probe and the second listing --------------------------------------


@contextmanager
def before_the_descriptor(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> Iterator[None]:
    """Something happens once, after the probe and before anything is read."""
    original = LocalStorage.read

    def read(storage: LocalStorage, name: str) -> bytes:
        monkeypatch.setattr(LocalStorage, "read", original)
        act()
        return original(storage, name)

    monkeypatch.setattr(LocalStorage, "read", read)
    yield
    assert LocalStorage.read is original


def test_a_flush_after_the_probe_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after the moment that is shown, which `timestamp` tells."""
    with tilekv.open(tmp_path / "s", "x") as other:
        other["first"] = b"1"
        other.flush()

        def flush() -> None:
            other["second"] = b"2"
            other.flush()

        with before_the_descriptor(monkeypatch, flush), tilekv.KV(str(tmp_path / "s")) as kv:
            assert dict(kv.items()) == {"first": "1"}
            moment = kv.timestamp
            kv.reopen()
            assert dict(kv.items()) == {"first": "1", "second": "2"}
            second = int(kv.store.fragments[0].name.split("_")[2])
            assert moment <= second <= kv.timestamp


def test_a_store_that_is_replaced_after_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the new one that is shown, by its own schema: nothing of the old one is left in the second listing."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db["k"] = b"old"

    def replace() -> None:
        with tilekv.open(tmp_path / "s", "w", schema=tilekv.Schema([Attr("n", "int32")])) as new:
            new["k"] = 1

    with before_the_descriptor(monkeypatch, replace), tilekv.open(tmp_path / "s", "a") as db:
        assert dict(db) == {"k": 1}
        db["more"] = 2
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"k": 1, "more": 2}


def test_a_store_that_is_gone_after_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tilekv.open(tmp_path / "s", "x").close()
    with (
        before_the_descriptor(monkeypatch, lambda: shutil.rmtree(tmp_path / "s")),
        pytest.raises(StoreNotFoundError, match="there is no store at"),
    ):
        tilekv.open(tmp_path / "s")

"""snapshot: which fragments a handle sees."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilekv
from tilekv.errors import CorruptionError, FormatError, SnapshotGone
from tilekv.snapshot import Opener
from tilekv.storage import Listing, Storage


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three fragments, of which each sets its own key and `last`."""
    with tilekv.open(tmp_path / "s", "x") as db:
        for i in range(3):
            db[i] = db["last"] = b"%d" % i
            db.flush()
    return tmp_path / "s"


def folders(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if path.is_dir())


def test_timestamps_are_inclusive(store: Path) -> None:
    times = [int(path.name.split("_")[2]) for path in folders(store)]
    for i, moment in enumerate(times):
        with tilekv.open(store, timestamp=moment) as db:
            assert (len(db.fragments), db.timestamp) == (i + 1, moment)
            assert db["last"] == b"%d" % i
            assert sorted(key for key in db if key != "last") == list(range(i + 1))
            db.reopen()
            assert len(db.fragments) == i + 1
    for moment, n in [
        (times[0] - 1, 0),
        (0, 0),
        (times[1] - 1, 1),
        (2**62, 3),
    ]:
        with tilekv.open(store, timestamp=moment) as db:
            assert len(db.fragments) == n


def test_reopen_keeps_what_is_open(store: Path) -> None:
    with tilekv.open(store) as db, tilekv.open(store, "a") as writer:
        before = db.fragments
        writer["more"] = b"x"
        writer.flush()
        assert "more" not in db
        db.reopen()
        assert "more" in db
        assert db.fragments[1:] == before  # the same objects: nothing was opened or verified anew


def test_fragments_that_are_removed_stay_readable(store: Path) -> None:
    """Every file is open from the start: a vacuum of another process touches no snapshot."""
    for mmap in (True, False):
        with tilekv.open(store, config={"kv.mmap": mmap}) as db:
            away = store.parent / "away"
            for folder in folders(store):
                shutil.copytree(folder, away / folder.name)
                shutil.rmtree(folder)
            assert dict(db) == {0: b"0", 1: b"1", 2: b"2", "last": b"2"}
            db.reopen()
            assert len(db) == 0
            for folder in away.iterdir():
                folder.rename(store / folder.name)


def test_what_is_no_fragment_is_ignored(store: Path) -> None:
    (store / "notes").mkdir()
    (store / ".tmp-0123").mkdir()
    (store / "__1_2_short").mkdir()
    (store / "readme.txt").write_text("hello")
    with tilekv.open(store) as db:
        assert len(db.fragments) == 3
        assert len(db) == 4


@pytest.mark.parametrize("suffix", ["__fragment_metadata.tdb", "value_var.tdb", "__coords.tdb"])
def test_a_file_that_is_lost(store: Path, suffix: str) -> None:
    (folders(store)[1] / suffix).unlink()
    with pytest.raises(CorruptionError, match="missing"):
        tilekv.open(store)


def test_an_empty_fragment(store: Path) -> None:
    shutil.rmtree(folders(store)[0])
    (store / f"__5_5_{'0' * 32}").mkdir()
    with pytest.raises(CorruptionError, match="missing"):
        tilekv.open(store)


def test_a_newer_tiledb_was_here(store: Path) -> None:
    (store / "__fragments").mkdir()
    (store / "__fragments" / "x").touch()
    with pytest.raises(FormatError, match="TileDB 2"):
        tilekv.open(store)


class Moving:
    """A storage whose listings change while fragments are opened: each is given once, the last for good."""

    def __init__(self, storage: Storage, listings: Iterator[Listing]) -> None:
        self._storage = storage
        self._listings = listings

    def list(self) -> Listing:
        return next(self._listings, None) or self._storage.list()

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)


def test_a_store_that_changes_while_it_is_opened(store: Path) -> None:
    """One listing can miss a new fragment and the ones that it replaced: it is repeated until nothing has changed."""
    with tilekv.open(store) as db:
        opener = db._engine.opener
        now = opener.storage.list()
        fewer = Listing(now.folders[:1], now.files)
        gone = Listing((*now.folders, f"__9_9_{'a' * 32}"), now.files)
        for listings in ([fewer], [gone], [fewer, gone], [gone, gone, fewer]):
            moving = Moving(opener.storage, iter(listings))
            view = Opener(moving, opener.layout, 0, True, 1000).view()  # type: ignore[arg-type]
            assert [f.name for f in view.fragments] == [f.name for f in db.fragments]


# --- fragments that are opened late -------------------------------------------------------------

LATE = {"kv.max_mapped_fragments": 0}


def test_late_and_eager_show_the_same(store: Path) -> None:
    with tilekv.open(store) as eager, tilekv.open(store, "a", config=LATE) as late:
        assert late.get_many([2, 1, 0, "last", "none"]) == [b"2", b"1", b"0", b"2", None]
        assert 0 in late
        late["more"] = b"x"
        late.flush()
        assert dict(late) == dict(eager) | {"more": b"x"}
        assert late.verify() == []


def test_a_late_fragment_that_is_gone(store: Path) -> None:
    with tilekv.open(store, config=LATE) as db:
        assert db["last"] == b"2"  # of the newest fragment: the others are not looked at
        shutil.rmtree(folders(store)[0])
        for read in (lambda: db[0], lambda: db.get_many([1, 0]), lambda: len(db), lambda: list(db)):
            with pytest.raises(SnapshotGone, match="reopen"):
                read()
        assert db[1] == b"1"
        db.reopen()
        assert sorted(key for key in db if key != "last") == [1, 2]


def test_a_late_fragment_that_lost_a_file(store: Path) -> None:
    """Damage, not a vacuum: to reopen would not help."""
    with tilekv.open(store, config=LATE) as db:
        (folders(store)[0] / "value_var.tdb").unlink()
        with pytest.raises(CorruptionError, match="missing"):
            db[0]

"""opener: which fragments a handle sees."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tilekv
from tilekv.errors import CorruptionError, FormatError, SnapshotGone
from tilekv.kvcore.base.file import give_back_descriptors
from tilekv.opener import MOST_LISTINGS, Opener
from tilekv.record import Commit, Record, parsed, shorts
from tilekv.storage import Listing, Storage, local


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three fragments, of which each sets its own key and `last`."""
    with tilekv.open(tmp_path / "s", "x") as db:
        for i in range(3):
            db[i] = db["last"] = b"%d" % i
            db.flush()
    return tmp_path / "s"


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def test_timestamps_are_inclusive(root: Path) -> None:
    times = [int(path.name.split("_")[2]) for path in folders(root)]
    for i, moment in enumerate(times):
        with tilekv.open(root, timestamp=moment) as db:
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
        with tilekv.open(root, timestamp=moment) as db:
            assert len(db.fragments) == n


def test_reopen_keeps_what_is_open(root: Path) -> None:
    with tilekv.open(root) as db, tilekv.open(root, "a") as writer:
        before = db.fragments
        writer["more"] = b"x"
        writer.flush()
        assert "more" not in db
        db.reopen()
        assert "more" in db
        assert db.fragments[1:] == before  # the same objects: nothing was opened or verified anew


def test_fragments_that_are_removed_stay_readable(root: Path) -> None:
    """Every file is open from the start: a vacuum of another process touches no snapshot."""
    for mmap in (True, False):
        with tilekv.open(root, config={"kv.mmap": mmap}) as db:
            away = root.parent / "away"
            for folder in folders(root):
                shutil.copytree(folder, away / folder.name)
                shutil.rmtree(folder)
            assert dict(db) == {0: b"0", 1: b"1", 2: b"2", "last": b"2"}
            db.reopen()
            assert len(db) == 0
            for folder in away.iterdir():
                folder.rename(root / folder.name)


def test_what_is_no_fragment_is_ignored(root: Path) -> None:
    (root / "notes").mkdir()
    (root / ".tmp-0123").mkdir()
    (root / "__1_2_short").mkdir()
    (root / "readme.txt").write_text("hello")
    with tilekv.open(root) as db:
        assert len(db.fragments) == 3
        assert len(db) == 4


@pytest.mark.parametrize("suffix", ["__fragment_metadata.tdb", "value_var.tdb", "__coords.tdb"])
def test_a_file_that_is_lost(root: Path, suffix: str) -> None:
    (folders(root)[1] / suffix).unlink()
    with pytest.raises(CorruptionError, match="missing"):
        tilekv.open(root)


def test_an_empty_fragment(root: Path) -> None:
    shutil.rmtree(folders(root)[0])
    (root / f"__5_5_{'0' * 32}").mkdir()
    with pytest.raises(CorruptionError, match="missing"):
        tilekv.open(root)


def test_a_newer_tiledb_was_here(root: Path) -> None:
    (root / "__fragments").mkdir()
    (root / "__fragments" / "x").touch()
    with pytest.raises(FormatError, match="TileDB 2"):
        tilekv.open(root)


class Moving:
    """A storage whose listings change while fragments are opened: each is given once, the last for good."""

    def __init__(self, storage: Storage, listings: Iterator[Listing]) -> None:
        self._storage = storage
        self._listings = listings
        self.given = 0

    def list(self) -> Listing:
        self.given += 1
        return next(self._listings, None) or self._storage.list()

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)


def shown(db: tilekv.Store, *listings: Listing) -> tuple[list[str], int]:
    """What a store that is listed so shows, oldest first, and how often it was listed."""
    opener = db._engine.opener
    moving = Moving(opener.storage, iter(listings))
    view = Opener(moving, opener.layout, 0, True, 1000).snapshot()  # type: ignore[arg-type]
    return [fragment.name for fragment in reversed(view.fragments)], moving.given


def test_a_store_that_changes_while_it_is_opened(root: Path) -> None:
    with tilekv.open(root) as db:
        now = db._engine.opener.storage.list()
        names = [folder.name for folder in folders(root)]
        without_last = Listing(now.folders[:2], now.files)
        without_first = Listing(now.folders[1:], now.files)
        gone = Listing((*now.folders, f"__9_9_{'a' * 32}"), now.files)
        assert shown(db) == (names, 2)
        # Whether the last had appeared by the end of the first listing is not known: it is as if it had not.
        assert shown(db, without_last) == (names[:2], 2)
        assert shown(db, without_first) == (names, 2)  # a slow writer, or one that was missed
        assert shown(db, gone) == (names, 3)
        assert shown(db, without_first, gone) == (names, 4)


def test_a_consolidation_while_a_store_is_opened(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        before = db._engine.opener.storage.list()
        sources = [folder.name for folder in folders(root)]
        with tilekv.open(root, "a") as other:
            other.consolidate()
        (merged,) = (folder.name for folder in root.glob("__*_*_*/"))
        after = db._engine.opener.storage.list()
        assert shown(db) == ([merged], 2)
        assert shown(db, before) == ([merged], 2)
        assert shown(db, Listing((), before.files)) == ([merged], 2)  # the record names it
        for some in range(4):
            missed = Listing((*sources[:some], merged), before.files)
            assert shown(db, missed, after) == ([merged], 2)
        with tilekv.open(root, "a") as other:
            other.vacuum()
        now = db._engine.opener.storage.list()
        assert shown(db, after) == ([merged], 2)
        # The record has forgotten them: nothing tells whether they were merged or removed.
        assert shown(db, before) == ([merged], 3)
        assert shown(db, before, before) == ([merged], 4)
        late = Listing((f"__9_9_{'a' * 32}", *now.folders), now.files)
        assert shown(db, late, late, late) == ([merged], 5)


def test_what_the_record_names_and_nobody_has(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        db.consolidate()
        (merged,) = root.glob("__*_*_*/")
        for place in (".tilekv/staged", ".tilekv/past"):
            merged.rename(root / place / merged.name)
            assert shown(db) == ([merged.name], 2)
            (root / place / merged.name).rename(merged)
        shutil.move(merged, root.with_name("elsewhere"))
        with pytest.raises(CorruptionError, match="it is missing") as info:
            db.reopen()
        assert info.value.file == merged.name


def test_what_a_merge_has_shown_and_the_record_does_not_know(root: Path) -> None:
    """An older record came back, from a copy: by it all that was merged since would be gone."""
    with tilekv.open(root, "a") as db:
        db.consolidate()
        (old,) = root.glob(".tilekv/record-3")
        kept = old.read_bytes()
        db[5] = b"5"
        db.consolidate(vacuum=True)
        for record in root.glob(".tilekv/record-*"):
            record.unlink()
        old.write_bytes(kept)
        with pytest.raises(CorruptionError, match="the record does not know it"):
            tilekv.open(root)


def test_a_record_that_is_lost_or_damaged(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        db.consolidate()
    newest = max(root.glob(".tilekv/record-*"))
    data = newest.read_bytes()
    newest.write_bytes(data[:-3])
    with pytest.raises(CorruptionError, match="record"):
        tilekv.open(root)
    newest.write_bytes(data)
    shutil.rmtree(root / ".tilekv")  # as a copy that leaves out hidden files does
    with pytest.raises(CorruptionError, match="it is missing from the store"):
        tilekv.open(root)


def test_a_first_record_that_another_thread_makes_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made after this thread has found none, and the handle says that there is one before this thread asks the handle."""
    with tilekv.open(root, "a") as db:
        opener = db._engine.opener
        look = opener.storage.record

        def look_and_be_overtaken() -> object:
            found = look()
            monkeypatch.undo()
            thread = threading.Thread(target=db.consolidate)
            thread.start()
            thread.join()
            return found

        monkeypatch.setattr(opener.storage, "record", look_and_be_overtaken)
        assert opener.record() is None  # it had looked before there was one
        assert opener.record() is not None


def test_the_record_of_another_store_counts_for_nothing(root: Path) -> None:
    with tilekv.open(root, "a") as db:
        other = Record("another", 5, (Commit((), shorts(parsed(db._open_snapshot().names)), 1),))
        (root / ".tilekv").mkdir()
        (root / ".tilekv" / "record-5").write_bytes(other.to_bytes())
        before = dict(db)
        db.reopen()
        assert dict(db) == before
        db.consolidate(vacuum=True)
        assert dict(db) == before
    with tilekv.open(root) as db:
        assert dict(db) == before


def test_a_store_that_never_stands_still(root: Path) -> None:
    with tilekv.open(root) as db:
        now = db._engine.opener.storage.list()
        gone = [Listing((*now.folders, f"__9_9_{i:032x}"), now.files) for i in range(MOST_LISTINGS)]
        with pytest.raises(SnapshotGone, match="again and again"):
            shown(db, *gone)


# --- fragments that are opened late -------------------------------------------------------------

LATE = {"kv.max_mapped_fragments": 0}


def test_late_and_eager_show_the_same(root: Path) -> None:
    with tilekv.open(root) as eager, tilekv.open(root, "a", config=LATE) as late:
        assert late.get_many([2, 1, 0, "last", "none"]) == [b"2", b"1", b"0", b"2", None]
        assert 0 in late
        late["more"] = b"x"
        late.flush()
        assert dict(late) == dict(eager) | {"more": b"x"}
        assert late.verify() == []


def test_a_late_fragment_that_is_gone(root: Path) -> None:
    with tilekv.open(root, config=LATE) as db:
        assert db["last"] == b"2"  # of the newest fragment: the others are not looked at
        shutil.rmtree(folders(root)[0])
        for read in (lambda: db[0], lambda: db.get_many([1, 0]), lambda: len(db), lambda: list(db)):
            with pytest.raises(SnapshotGone, match="reopen"):
                read()
        assert db[1] == b"1"
        db.reopen()
        assert sorted(key for key in db if key != "last") == [1, 2]


def test_a_late_fragment_that_lost_a_file(root: Path) -> None:
    """Damage, not a vacuum: to reopen would not help."""
    with tilekv.open(root, config=LATE) as db:
        (folders(root)[0] / "value_var.tdb").unlink()
        with pytest.raises(CorruptionError, match="missing"):
            db[0]


def test_a_fragment_that_was_given_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are opened again; that it was vacuumed meanwhile is no damage, and that it lost a file is."""
    monkeypatch.setattr(local, "SMALL_FRAGMENT", 0)
    expected = {0: b"0", 1: b"1", 2: b"2", "last": b"2"}

    def given_back(uses: Callable[[tilekv.Store], object]) -> None:
        with tilekv.open(root, config={"kv.mmap": False, "kv.cache_bytes": 0}) as db:
            while give_back_descriptors():
                pass
            uses(db)

    def gone(db: tilekv.Store) -> None:
        for folder in folders(root):
            folder.rename(root / f".tmp-{folder.name}")
        reads: list[Callable[[], object]] = [
            lambda: db[0], lambda: db.get_many([1, 0]), lambda: dict(db), lambda: list(db.scan()), db.verify
        ]  # fmt: skip
        for read in reads:
            with pytest.raises(SnapshotGone, match="reopen"):
                read()
        for folder in folders(root):
            folder.rename(root / folder.name.removeprefix(".tmp-"))
        assert dict(db) == expected

    def lost(db: tilekv.Store) -> None:
        (folders(root)[0] / "value_var.tdb").unlink()
        with pytest.raises(CorruptionError, match="value_var"):
            db[0]
        assert {problem.file for problem in db.verify()} == {"value_var.tdb"}

    def there(db: tilekv.Store) -> None:
        assert dict(db) == expected

    given_back(there)
    given_back(gone)
    given_back(lost)

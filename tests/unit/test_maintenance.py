"""Claims and commits of merges, and the lock that the first record takes (docs/design.md 6.3)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tilekv
from life import SMALL, contents, everything, folders, past, record_of, write
from lists import merge_by_list, vac
from tilekv import maintenance
from tilekv.consolidation import merge
from tilekv.maintenance import Claimed, Maintenance, State
from tilekv.names import FragmentName
from tilekv.storage import open_storage


@contextmanager
def maintaining(path: Path) -> Iterator[Maintenance]:
    with tilekv.open(path, "a") as db:
        yield Maintenance(db._engine)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for merges under way."""
    monkeypatch.setattr("tilekv.consolidation.BUSY_S", 0)


def take(first: int, last: int) -> Callable[[State], list[FragmentName]]:
    """Claims what is visible from one to another, oldest first."""
    return lambda state: state.visible[first:last]


# --- the lock ---


def test_lock_is_held_while_the_first_record_is_made(tmp_path: Path) -> None:
    """By this thread or an older tilekv: who does not get it has done nothing."""
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    merge_by_list(path)
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
        before = everything(path)
        with tilekv.open(path, "a") as db:
            for call in (db.vacuum, lambda: db.consolidate(vacuum=True)):
                with pytest.raises(tilekv.StoreBusyError):
                    call()
        assert everything(path) == before
    finally:
        done.set()
        thread.join()
    with tilekv.open(path, "a") as db:
        db[3] = b"3"
        db.consolidate(vacuum=True)
    assert contents(path) == {1: b"2", 3: b"3"}


def test_lock_does_not_matter_to_who_has_a_record(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    with tilekv.open(path, "a") as db:
        db.consolidate()
        db[2] = b"2"
        with open_storage(path).lock() as held:
            assert held
            db.consolidate(vacuum=True)
        assert len(db.fragments) == 1


def test_first_record_says_what_the_lists_said(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2", 2: b"2"})
    sources = folders(path)
    owner = merge_by_list(path)
    write(path, {3: b"3"})
    with maintaining(path) as ours:
        assert open_storage(path).record() is None
        record = ours.record()
        assert record.seq == 1
        (commit,) = record.commits
        assert [str(name) for name in commit.outputs] == [owner]
        assert ours.engine.opener.recorded
        ours.complete(record)
    assert past(path) == sources
    assert not vac(path, owner).exists()
    assert contents(path) == {1: b"2", 2: b"2", 3: b"3"}
    assert b'"record": true' in (path / "__tilekv.json").read_bytes()


# --- claims ---


def test_claim_stops_others_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    with maintaining(path) as ours:
        claimed = ours.claim(take(0, 2))
        assert claimed
        before = folders(path)
        with tilekv.open(path, "a") as db:
            with pytest.raises(tilekv.StoreBusyError, match="another consolidation"):
                db.consolidate()
            db.vacuum()
            assert folders(path) == before
            db[2] = b"2"
        assert contents(path) == {1: b"2", 2: b"2"}
        assert merge(ours, claimed)
    assert contents(path) == {1: b"2", 2: b"2"}
    assert len(folders(path)) == 2


def test_a_merge_under_way_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of who keeps the store take a moment."""
    monkeypatch.setattr("tilekv.consolidation.BUSY_S", 60)
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"}, {3: b"3"})
    with maintaining(path) as ours:
        claimed = ours.claim(take(0, 2))
        assert claimed
        later = threading.Timer(0.1, lambda: merge(ours, claimed))
        later.start()
        with tilekv.open(path, "a") as db:
            db.consolidate()
            assert len(db.fragments) == 1
        later.join()
    assert contents(path) == {1: b"2", 3: b"3"}


def test_consolidation_is_not_kept_from_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps the store merges all the time: what a consolidation has asked for, it gets when the merge under way ends."""
    monkeypatch.setattr("tilekv.consolidation.BUSY_S", 60)
    path = tmp_path / "store"
    write(path, *({number: b"x"} for number in range(4)))
    with maintaining(path) as ours:
        claimed = ours.claim(take(0, 2))
        assert claimed
        asked: list[frozenset[str]] = []

        def merge_on() -> None:
            while not asked:
                claims = [c for c in record_of(path).claims if c.owner != claimed.owner]
                asked.extend(claim.sources for claim in claims)
            assert (
                ours.claim(lambda state: [n for n in state.visible if n.short not in state.busy])
                is None
            )
            write(path, {5: b"late"})
            kept = record_of(path).seq
            time.sleep(0.2)
            assert record_of(path).seq == kept  # who waits does not ask again and again
            merge(ours, claimed)

        other = threading.Thread(target=merge_on)
        other.start()
        with tilekv.open(path, "a", config={"kv.upkeep": "off"}) as db:
            db.consolidate()
            db.reopen()
            assert len(db.fragments) <= 2  # what came late may stay
        other.join()
    assert len(asked[0]) == 2
    assert record_of(path).claims == ()
    assert contents(path) == dict.fromkeys(range(4), b"x") | {5: b"late"}


def test_claim_of_the_dead_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    code = """
        import sys, tilekv
        from tilekv.maintenance import Maintenance
        db = tilekv.open(sys.argv[1], "a")
        print(bool(Maintenance(db._engine).claim(lambda state: state.visible)), flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "True\n"
        with tilekv.open(path, "a") as db:
            with pytest.raises(tilekv.StoreBusyError):
                db.consolidate()
            other.kill()
            other.wait()
            db.consolidate(vacuum=True)
            assert len(db.fragments) == 1


def test_claim_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that is suspended, or of another machine. What it had claimed is merged; its own merge is withdrawn."""
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    monkeypatch.setattr(maintenance, "CLAIM_MS", 1000)
    with maintaining(path) as ours:
        claimed = ours.claim(take(0, 2))
        assert claimed
        with tilekv.open(path, "a") as db:
            with pytest.raises(tilekv.StoreBusyError):
                db.consolidate()
            time.sleep(1.1)
            db.consolidate()
        (merged,) = folders(path)
        assert not merge(ours, claimed)
    assert folders(path) == {merged}
    assert open_storage(path).staged() == ()
    assert contents(path) == {1: b"2"}


def test_renewed_claim_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"}, {1: b"2"})
    with maintaining(path) as ours:
        claimed = ours.claim(take(0, 2))
        assert claimed
        (first,) = record_of(path).claims
        time.sleep(0.01)
        ours.renew(claimed)
        (second,) = record_of(path).claims
        assert second.until > first.until
        assert second.sources == first.sources
        ours.release(claimed.owner)
        assert record_of(path).claims == ()


# --- what may be committed ---


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Fragments of the moments 10, 20, 30 and 40; the third deletes what the first has set."""
    path = tmp_path / "store"
    tilekv.open(path, "x", schema=SMALL).close()
    for moment, flush in ((10, {1: b"1"}), (20, {2: b"2"}), (30, {1: None}), (40, {4: b"4"})):
        write_at(path, moment, flush)
    return path


def write_at(path: Path, moment: int, flush: dict[object, bytes | None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tilekv.commit.later_time", lambda storage, known: moment)
        write(path, flush)


def outcome(path: Path, first: int, last: int, meanwhile: Callable[[], object]) -> bool:
    """Whether a merge of these was committed, with something done to the store before its commit."""
    with maintaining(path) as ours:
        claimed = ours.claim(take(first, last))
        assert claimed
        meanwhile()
        return bool(merge(ours, claimed))


@pytest.mark.parametrize(
    ("span", "late", "fits"),
    [
        ((1, 3), 15, True),  # older than all of them
        ((1, 3), 20, False),  # of the time of the first: it would be parted from it
        ((1, 3), 25, False),  # between
        ((1, 3), 35, True),  # newer than all of them
        ((0, 2), 5, False),  # deletes were left out that hide something in it
        ((0, 2), 50, True),
    ],
)
def test_what_came_late_decides(four: Path, span: tuple[int, int], late: int, fits: bool) -> None:
    assert outcome(four, *span, lambda: write_at(four, late, {1: b"late", 9: b"9"})) == fits
    expected: dict[object, bytes] = {2: b"2", 4: b"4", 9: b"9"}
    assert contents(four) == expected | ({1: b"late"} if late > 30 else {})
    with tilekv.open(four, "a") as db:
        db.consolidate(vacuum=True)
    assert contents(four) == expected | ({1: b"late"} if late > 30 else {})


def test_deletes_stay_as_long_as_something_is_older(four: Path) -> None:
    assert outcome(four, 1, 4, lambda: None)
    with tilekv.open(four) as db:
        newest, oldest = db.fragments
        assert (newest.tombstones, oldest.cells) == (1, 1)
    assert contents(four) == {2: b"2", 4: b"4"}
    assert outcome(four, 0, 2, lambda: None)
    with tilekv.open(four) as db:
        (fragment,) = db.fragments
        assert fragment.tombstones == 0
    assert contents(four) == {2: b"2", 4: b"4"}


def test_sources_that_somebody_else_has_merged(four: Path) -> None:
    def other() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(maintenance, "_is_over", lambda claim, now: True)
            assert outcome(four, 2, 4, lambda: None)

    assert not outcome(four, 1, 3, other)
    assert contents(four) == {2: b"2", 4: b"4"}
    assert open_storage(four).staged() == ()


def test_what_a_killed_merge_has_left_is_completed(four: Path) -> None:
    """Shown or not, set aside or not: readers see no difference, and the next maintenance does the rest."""
    sources = folders(four)
    with maintaining(four) as ours:
        claimed = ours.claim(take(0, 4))
        assert claimed
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Maintenance, "complete", lambda self, record: None)
            assert merge(ours, claimed)
    assert folders(four) == sources
    assert len(open_storage(four).staged()) == 1
    assert contents(four) == {2: b"2", 4: b"4"}
    with tilekv.open(four, "a") as db:
        db.vacuum()
    assert len(folders(four)) == 1
    assert contents(four) == {2: b"2", 4: b"4"}


def test_claimed_says_whether_deletes_are_kept(four: Path) -> None:
    with maintaining(four) as ours:
        for first, keeps in ((0, False), (1, True)):
            claimed = ours.claim(take(first, 3))
            assert isinstance(claimed, Claimed)
            assert claimed.keep_deletes == keeps
            ours.release(claimed.owner)

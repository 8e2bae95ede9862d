"""Several handles on one store over its whole life, against dicts: one for what is flushed, one for each handle's snapshot.

The oracle is a log of flushes in order. A handle holds the state it last saw and its own buffer; the past is the state after each
flush, as long as no vacuum and no upkeep has removed it. Some handles keep the store: each of their flushes shows what others
have flushed, and the thread behind it is waited for. Backups go to one place.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import tilekv
from life import age, record_of
from tilekv import Attr, Schema
from tilekv.record import DAY_MS
from tilekv.storage.local import LocalStorage
from tilekv.tools.jobs import begin_job, commit_job, write_part

KEYS = st.integers(0, 11) | st.sampled_from(["", "a", b"a", 1.0])
VALUES = st.binary(max_size=6) | st.integers(0, 9).map(lambda n: b"%d" % n * 900)
HANDLES = st.integers(0, 2)
State = dict[Any, bytes]


def key_of(key: Any) -> Any:
    """1 and 1.0 are two keys to tilekv and one to a dict."""
    return type(key).__name__, key


@dataclass
class Opened:
    """A handle, what it should read, and what of that is not flushed (None: deleted)."""

    db: tilekv.Store
    seen: State
    buffer: dict[Any, bytes | None] = field(default_factory=dict)

    def reads(self) -> State:
        found = self.seen | {key: value for key, value in self.buffer.items() if value is not None}
        for key, value in self.buffer.items():
            if value is None:
                found.pop(key, None)
        return found


class Life(RuleBasedStateMachine):
    """Every rule is something a user does; the invariant is that every handle reads what its dict says."""

    digest = "blake2b"

    @initialize(
        capacity=st.sampled_from([1, 3, 16]),
        most=st.sampled_from([1, 600, 1 << 30]),
        mmap=st.booleans(),
        cache=st.sampled_from([0, 1 << 20]),
        history=st.sampled_from(["store", 0, 60]),
    )
    def create(self, capacity: int, most: int, mmap: bool, cache: int, history: Any) -> None:
        self.patch = pytest.MonkeyPatch()
        self.ahead = 0  # ms, of the clock of whatever keeps the files
        now = LocalStorage.now
        self.patch.setattr(LocalStorage, "now", lambda storage: now(storage) + self.ahead)
        self.asked = 0 if history == "store" else history * 1000
        self.history = DAY_MS if history == "store" else self.asked
        self.root = Path(tempfile.mkdtemp(prefix="life"))
        self.path = self.root / "store"
        self.config = {
            "kv.sync": False,
            "kv.upkeep": "off",  # fragments and what handles see are counted
            "kv.max_fragment_bytes": most,
            "kv.mmap": mmap,
            "kv.cache_bytes": cache,
            "kv.history": history,
        }
        schema = Schema([Attr("value", bytes)], digest=self.digest, capacity=capacity)
        tilekv.open(self.path, "x", schema=schema).close()
        self.handles = [Opened(self.open(keeps=at > 0), {}) for at in range(3)]
        self.store: State = {}
        self.moments: dict[int, State] = {}
        self.first_kept = 0  # what is before was merged and removed
        self.may_be_gone = (
            0  # what is before has outlived its history, and is removed by who keeps the store next
        )

    def open(
        self, mode: Any = "a", timestamp: int | None = None, keeps: bool = False
    ) -> tilekv.Store:
        config = self.config | {"kv.upkeep": "on" if keeps else "off"}
        return tilekv.open(self.path, mode, timestamp=timestamp, config=config)

    def flush_of(self, handle: Opened, flush: Callable[[], object] | None = None) -> None:
        """A flush comes after all that is there, whoever wrote it. Who keeps the store follows."""
        keeper, before = handle.db._keeper, handle.db._snapshot
        (flush or handle.db.flush)()
        if keeper is not None:
            if keeper._thread is not None:
                keeper._thread.join()
            assert keeper.failure is None
            self.note_history()
        followed = keeper is not None and handle.db._snapshot is not before
        if handle.buffer:
            assert followed or keeper is None
            handle.seen = handle.reads()
            self.store = Opened(handle.db, self.store, handle.buffer).reads()
            handle.buffer = {}
            moment = max(fragment.t2 for fragment in handle.db.fragments)
            assert moment > max(self.moments, default=0)
            self.moments[moment] = dict(self.store)
        if followed:
            handle.seen = dict(self.store)

    def note_history(self) -> int:
        """The moment before which history needs nothing, by the commits that there are now."""
        if not (self.path / ".tilekv").exists():
            return 0
        now = LocalStorage(str(self.path), False).now()
        record = record_of(self.path)
        for commit in record.commits:
            if self.history == 0 or max(commit.time, commit.t2) + self.history < now:
                self.may_be_gone = max(self.may_be_gone, commit.t2)
        assert record.history is not None
        assert record.history in (self.history, max(self.history, self.asked))
        self.history = (
            record.history
        )  # whoever keeps the store lengthens it to what his handle asks for
        return self.may_be_gone

    # --- one handle ---

    @rule(at=HANDLES, key=KEYS, value=VALUES)
    def put(self, at: int, key: Any, value: bytes) -> None:
        self.handles[at].db[key] = value
        self.handles[at].buffer[key_of(key)] = value

    @rule(at=HANDLES, rows=st.lists(st.tuples(KEYS, VALUES), max_size=30))
    def put_many(self, at: int, rows: list[tuple[Any, bytes]]) -> None:
        self.handles[at].db.put_many(rows)
        self.handles[at].buffer.update((key_of(key), value) for key, value in rows)

    @rule(at=HANDLES, key=KEYS)
    def delete(self, at: int, key: Any) -> None:
        handle = self.handles[at]
        if key_of(key) in handle.reads():
            del handle.db[key]
            handle.buffer[key_of(key)] = None
        else:
            with pytest.raises(KeyError):
                del handle.db[key]

    @rule(at=HANDLES, keys=st.lists(KEYS, max_size=8))
    def delete_many(self, at: int, keys: list[Any]) -> None:
        self.handles[at].db.delete_many(keys)
        self.handles[at].buffer.update((key_of(key), None) for key in keys)

    @rule(at=HANDLES)
    def clear(self, at: int) -> None:
        self.handles[at].buffer.update(dict.fromkeys(self.handles[at].reads()))
        self.handles[at].db.clear()

    @rule(at=HANDLES)
    def flush(self, at: int) -> None:
        self.flush_of(self.handles[at])

    @rule(at=HANDLES)
    def reopen(self, at: int) -> None:
        self.handles[at].db.reopen()
        self.handles[at].seen = dict(self.store)

    @rule(at=HANDLES)
    def close_and_open(self, at: int) -> None:
        handle = self.handles[at]
        self.flush_of(handle)
        handle.db.close()
        self.handles[at] = Opened(self.open(keeps=at > 0), dict(self.store))

    # --- the store ---

    @rule(at=HANDLES, vacuum=st.booleans())
    def consolidate(self, at: int, vacuum: bool) -> None:
        handle = self.handles[at]
        self.flush_of(handle)
        handle.db.consolidate(vacuum=vacuum)
        handle.seen = dict(self.store)
        if vacuum:
            self.forget()

    @rule(parts=st.integers(1, 3))
    def consolidate_in_parts(self, parts: int) -> None:
        tilekv.consolidate(self.path, parts=parts, config=self.config)

    @rule(rows=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=20), parts=st.integers(1, 3))
    def job(self, rows: list[tuple[Any, bytes]], parts: int) -> None:
        """Of the entries of one key those of the last part count, and all of them as written when it began."""
        job = begin_job(self.path, "append", None, self.config)
        names = []
        for part in range(parts):
            some = rows[part::parts]
            if some:
                keys, values = zip(*some, strict=True)
                names += write_part(job, part, lambda db, k=keys, v=values: db.put_many(k, v))
                self.store = self.store | {key_of(key): value for key, value in some}
        with self.open("r") as db:
            before = {key_of(key): value for key, value in db.items()}
        assert before == self.moments.get(max(self.moments, default=0), {})
        commit_job(job, names)
        assert job.moment > max(self.moments, default=0)
        self.moments[job.moment] = dict(self.store)

    @rule(at=HANDLES)
    def vacuum(self, at: int) -> None:
        self.handles[at].db.vacuum()
        self.forget()

    @rule(at=HANDLES)
    def upkeep(self, at: int) -> None:
        handle = self.handles[at]
        self.flush_of(handle)
        handle.db.upkeep()
        handle.seen = dict(self.store)
        self.note_history()

    @rule(at=HANDLES, seconds=st.sampled_from([1, 60, 1000]))
    def vacuum_but_for_history(self, at: int, seconds: int) -> None:
        """It shortens history, too, until an upkeep of a handle that asks for more."""
        self.note_history()
        self.handles[at].db.vacuum(history=seconds)
        assert record_of(self.path).history == 1000 * seconds
        self.history = 1000 * seconds
        self.note_history()

    @rule(at=HANDLES, key=KEYS, value=VALUES)
    def put_stream(self, at: int, key: Any, value: bytes) -> None:
        handle = self.handles[at]
        self.flush_of(handle)
        handle.buffer[key_of(key)] = value
        self.flush_of(handle, lambda: handle.db.put_stream(key, io.BytesIO(value)))

    @rule(seconds=st.sampled_from([1, 50, 61, 100_000]))
    def time_goes_on(self, seconds: int) -> None:
        self.note_history()
        self.ahead += 1000 * seconds
        self.note_history()

    @rule()
    def backup(self) -> None:
        place = self.root / "backup"
        tilekv.backup(self.path, place)
        with tilekv.open(place) as db:
            assert {key_of(key): value for key, value in db.items()} == self.store
            assert db.verify() == []

    def forget(self) -> None:
        """The past before the last merge is gone, where there was one."""
        with self.open("r") as db:
            for fragment in db.fragments:
                if fragment.sources or fragment.first_output:
                    self.first_kept = max(self.first_kept, fragment.t2)
        assert not list(self.path.glob("*.vac"))

    @rule()
    def crash_leaves_an_abandoned_folder(self) -> None:
        for number, folder in enumerate(sorted(self.path.glob("__*_*_*/"))[:1]):
            hidden = self.path / f".tmp-{number}-{len(list(self.path.iterdir()))}"
            shutil.copytree(folder, hidden)
            age(hidden, 2)

    # --- what must hold ---

    @rule(data=st.data())
    def past(self, data: st.DataObject) -> None:
        if not self.moments:
            return
        moment = data.draw(st.sampled_from(sorted(self.moments)))
        try:
            with self.open("r", moment) as db:
                assert {key_of(key): value for key, value in db.items()} == self.moments[moment]
        except tilekv.HistoryVacuumed:
            assert moment < max(self.first_kept, self.may_be_gone)
        else:
            assert moment >= self.first_kept

    @rule(at=HANDLES, keys=st.lists(KEYS, max_size=20))
    def get_many(self, at: int, keys: list[Any]) -> None:
        model = self.handles[at].reads()
        found = self.handles[at].db.get_many(keys)
        assert found == [model.get(key_of(key)) for key in keys]

    @rule(at=HANDLES)
    def verify(self, at: int) -> None:
        assert self.handles[at].db.verify() == []

    @invariant()
    def every_handle_reads_its_own_snapshot(self) -> None:
        for handle in getattr(self, "handles", ()):
            model = handle.reads()
            assert {key_of(key): value for key, value in handle.db.items()} == model
            assert len(handle.db) == len(model)
            assert bool(handle.db) == bool(model)
            for key in (0, 1, 1.0, "a"):
                assert handle.db.get(key) == model.get(key_of(key))

    @rule()
    def fresh(self) -> None:
        with self.open("r") as db:
            assert {key_of(key): value for key, value in db.items()} == self.store

    def teardown(self) -> None:
        if hasattr(self, "handles"):
            for handle in self.handles:
                handle.db.close()
                self.flushed_at_close(handle)
            with self.open("r") as db:
                assert {key_of(key): value for key, value in db.items()} == self.store
            self.patch.undo()
            shutil.rmtree(self.root)

    def flushed_at_close(self, handle: Opened) -> None:
        self.store = Opened(handle.db, self.store, handle.buffer).reads()


class CollidingLife(Life):
    """The same where all keys have one digest."""

    digest = "colliding"


LIMITS = settings(
    max_examples=80, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)


class TestLife(Life.TestCase):  # type: ignore[misc, valid-type]
    settings = LIMITS


class TestCollidingLife(CollidingLife.TestCase):  # type: ignore[misc, valid-type]
    settings = LIMITS

    @pytest.fixture(autouse=True)
    def _colliding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tilekv.kvcore.hashing.digest import DIGESTS
        from tilekv.kvcore.testing import COLLIDING

        monkeypatch.setattr("tilekv.schema.DIGESTS", ("blake2b", "md5", "colliding"))
        monkeypatch.setitem(DIGESTS, "colliding", COLLIDING)

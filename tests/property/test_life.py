"""Several handles on one store over its whole life, against dicts: one for what is flushed, one for each handle's snapshot.

The oracle is a log of flushes in order. A handle holds the state it last saw and its own buffer; the past is the state after each
flush, as long as no vacuum has removed it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import tilekv
from life import age
from tilekv import Attr, Schema

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
    )
    def create(self, capacity: int, most: int, mmap: bool, cache: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="life"))
        self.path = self.root / "store"
        self.config = {
            "kv.sync": False,
            "kv.max_fragment_bytes": most,
            "kv.mmap": mmap,
            "kv.cache_bytes": cache,
        }
        schema = Schema([Attr("value", bytes)], digest=self.digest, capacity=capacity)
        tilekv.open(self.path, "x", schema=schema).close()
        self.handles = [Opened(self.open(), {}) for _ in range(3)]
        self.store: State = {}
        self.moments: dict[int, State] = {}
        self.first_kept = 0  # what is before was merged and vacuumed

    def open(self, mode: Any = "a", timestamp: int | None = None) -> tilekv.Store:
        return tilekv.open(self.path, mode, timestamp=timestamp, config=self.config)

    def flushed(self, handle: Opened) -> None:
        """The model of a flush: after all that is there, whoever wrote it."""
        if not handle.buffer:
            return
        handle.seen = handle.reads()
        self.store = Opened(handle.db, self.store, handle.buffer).reads()
        handle.buffer = {}
        moment = max(fragment.t2 for fragment in handle.db.fragments)
        assert moment > max(self.moments, default=0)
        self.moments[moment] = dict(self.store)

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
        self.handles[at].db.flush()
        self.flushed(self.handles[at])

    @rule(at=HANDLES)
    def reopen(self, at: int) -> None:
        self.handles[at].db.reopen()
        self.handles[at].seen = dict(self.store)

    @rule(at=HANDLES)
    def close_and_open(self, at: int) -> None:
        handle = self.handles[at]
        handle.db.flush()
        self.flushed(handle)
        handle.db.close()
        self.handles[at] = Opened(self.open(), dict(self.store))

    # --- the store ---

    @rule(at=HANDLES, vacuum=st.booleans())
    def consolidate(self, at: int, vacuum: bool) -> None:
        handle = self.handles[at]
        handle.db.flush()
        self.flushed(handle)
        handle.db.consolidate(vacuum=vacuum)
        handle.seen = dict(self.store)
        if vacuum:
            self.forget()

    @rule(at=HANDLES)
    def vacuum(self, at: int) -> None:
        self.handles[at].db.vacuum()
        self.forget()

    def forget(self) -> None:
        """The past before the last merge is gone, where there was one."""
        with self.open("r") as db:
            for fragment in db.fragments:
                if fragment.sources:
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
            assert moment < self.first_kept
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

"""`memoize`: results of functions in a store."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import culling, memoizing


class Colour(enum.Enum):
    RED = 1


class Shade(enum.Enum):
    RED = 1


@pytest.fixture
def cache(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    return store(expires=True)


def test_a_result_is_computed_once(cache: tilekv.Store) -> None:
    calls = []

    @tilekv.memoize(cache, expire=60)
    def double(text: bytes, times: int = 2) -> bytes:
        """Twice."""
        calls.append(text)
        return text * times

    assert double(b"a") == double(b"a", 2) == double(times=2, text=b"a") == b"aa"
    assert calls == [b"a"]
    assert (double.hits, double.misses) == (2, 1)
    assert double(b"a", 3) == b"aaa"
    assert double.__doc__ == "Twice."
    assert double.__wrapped__(b"b") == b"bb"
    key = double.key(b"a")
    assert key.startswith(f"{__name__}.test_a_result_is_computed_once.<locals>.double(")
    expires = cache.expires(key)
    assert expires is not None
    assert expires - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=60)
    double.forget(b"a")
    double.forget(b"none")
    double(b"a")
    assert len(calls) == 4 - 1 + 1  # b"b" was called past it


def test_an_expired_result_is_computed_anew(cache: tilekv.Store) -> None:
    count = itertools.count()
    number = tilekv.memoize(cache, expire=0, name="n")(lambda: b"%d" % next(count))
    assert [number(), number()] == [b"0", b"1"]
    assert number.key().startswith("n(")


def test_results_of_any_kind_by_dumps_and_loads(cache: tilekv.Store) -> None:
    @tilekv.memoize(cache, dumps=lambda value: json.dumps(value).encode(), loads=json.loads)
    def facts(n: int) -> Any:
        return {"n": n, "none": None}

    assert facts(1) == facts(1) == {"n": 1, "none": None}
    assert facts.hits == 1
    with pytest.raises(tilekv.WrongTypeError):
        tilekv.memoize(cache)(lambda: 5)()


ARGUMENTS: list[Any] = [
    None, True, False, 1, 1.0, -0.0, 0.0, "1", b"1", bytearray(b"1"), "", b"", (), [], {}, set(), frozenset(), (1,), [1], ((1,),),
    (1, 2), (12,), ("a", "b"), ("ab",), ["a", ["b"]], {"a": 1}, {"a": 1, "b": 2}, {1: "a"}, {1, 2}, 2**70, 1j, range(3), range(4),
    slice(1), ..., dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.timedelta(1),  # noqa: DTZ001
    decimal.Decimal(1), decimal.Decimal("1.0"), uuid.UUID(int=1), Path("a"), Colour.RED, Shade.RED,
    np.int64(1), np.float32(1), np.array([1, 2]), np.array([[1, 2]]), np.array([1, 2], "i4"), np.array(["a"]),
    np.datetime64("2020-01-01"),
]  # fmt: skip


def test_different_arguments_have_different_keys(cache: tilekv.Store) -> None:
    one = tilekv.memoize(cache)(lambda a=0, *rest, **named: b"")
    keys = [one.key(each) for each in ARGUMENTS]
    keys += [one.key(1, 2), one.key(1, (2,)), one.key(1, b=2), one.key({"b": 2})]
    assert len(set(keys)) == len(keys)
    assert one.key({"a": 1, "b": 2}) == one.key({"b": 2, "a": 1})
    assert one.key({"b", "a", "c"}) == one.key({"c", "b", "a"})
    assert one.key(np.zeros((4, 4))[::2]) == one.key(np.zeros((2, 4)))
    other = tilekv.memoize(cache, name="other")(one.__wrapped__)
    assert other.key(1) != one.key(1)


def test_arguments_without_a_digest(cache: tilekv.Store) -> None:
    class Thing:
        name = "x"

        @tilekv.memoize(cache, key=lambda self, n: f"{self.name} {n}", name="t")
        def method(self, n: int) -> bytes:
            return b"%d" % n

    assert Thing().method(3) == Thing().method(3) == b"3"
    assert "t(x 3)" in cache
    assert Thing.method.hits == 1
    plain = tilekv.memoize(cache)(lambda value: b"")
    for odd in (object(), [object()], {"a": Thing()}, np.array([None], object), len):
        with pytest.raises(
            tilekv.WrongTypeError, match=r"argument 'value' of .* give memoize a key="
        ):
            plain(odd)


def test_other_processes_are_looked_at_before_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memoizing, "SHARE_S", 0.0)
    calls: list[int] = []

    def square(n: int) -> bytes:
        calls.append(n)
        return b"%d" % (n * n)

    with tilekv.open(tmp_path / "c", "a") as one, tilekv.open(tmp_path / "c", "a") as two:
        first, second = (tilekv.memoize(db, name="square")(square) for db in (one, two))
        assert first(3) == b"9"
        first(4)  # which flushes what was computed before
        assert second(3) == b"9"
    assert calls == [3, 4]


def noisy(db: tilekv.Store, most: int) -> Any:
    """10,000 bytes by number that do not compress, in a cache of so many bytes."""
    return tilekv.memoize(db, expire=1000, max_bytes=most, name="noise")(
        lambda n: np.random.default_rng(n).bytes(10_000)
    )


def stored(db: tilekv.Store) -> int:
    return sum(fragment.stored_bytes for fragment in db.fragments)


def until(there: Callable[[], object]) -> None:
    begun = time.monotonic()
    while not there():
        assert time.monotonic() - begun < 60
        time.sleep(0.005)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second passes between two looks."""
    monkeypatch.setattr(memoizing, "SHARE_S", 0.0)
    monkeypatch.setattr(memoizing, "CULL_S", 0.0)


MOST = 200_000


@pytest.mark.usefixtures("at_once")
def test_upkeep_keeps_a_store_within_its_bound(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "c", "a", expires=True, config={"kv.sync": False}) as db:
        noise = noisy(db, MOST)
        for n in range(40):
            noise(n)
        until(lambda: db.flush() or stored(db) <= MOST)  # a flush while it is done begins none
        assert len(db) < 21
        assert noise.key(0) not in db  # what expires first goes first
        assert db._keeper
        assert db._keeper.failure is None


@pytest.mark.usefixtures("at_once")
def test_no_call_waits_for_a_cull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    real = culling.next_to_expire

    def slow(*arguments: Any) -> list[Any]:
        threads.append(threading.current_thread())
        begun.set()
        assert go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(culling, "next_to_expire", slow)
    with tilekv.open(tmp_path / "c", "a", expires=True, config={"kv.sync": False}) as db:
        noise = noisy(db, MOST)
        noise(0)
        noise(1)
        assert begun.wait(60)
        for n in range(2, 30):
            noise(n)
        assert stored(db) > MOST
        assert threads[0] is not threading.current_thread()
        go_on.set()
        until(lambda: db.flush() or stored(db) <= MOST)


@pytest.mark.usefixtures("at_once")
def test_without_upkeep_a_cull_is_asked_for(tmp_path: Path) -> None:
    config = {"kv.sync": False, "kv.upkeep": "off"}
    with tilekv.open(tmp_path / "c", "a", expires=True, config=config) as db:
        noise = noisy(db, MOST)
        for n in range(40):
            noise(n)
        assert stored(db) > MOST
        gone = noise.cull()
        assert 0 < gone == 40 - len(db)
        assert stored(db) <= MOST
        assert 10 <= len(db) < 21
        assert noise.key(39) in db
        assert noise.key(0) not in db
        assert noise.cull() == 0
        assert tilekv.memoize(db, expire=1)(len).cull() == 0


@pytest.mark.usefixtures("at_once")
def test_a_close_ends_a_cull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = threading.Event()

    def endless(store: Any, most: int, check: Callable[[], object]) -> list[Any]:
        while True:
            checked.set()
            check()
            time.sleep(0.001)

    monkeypatch.setattr(culling, "next_to_expire", endless)
    with tilekv.open(tmp_path / "c", "a", expires=True, config={"kv.sync": False}) as db:
        noise = noisy(db, MOST)
        noise(0)
        noise(1)
        assert checked.wait(60)
    with tilekv.open(tmp_path / "c") as db:
        assert noise.key(1) in db


FORK = """
import os, sys, time, tilekv
from tilekv import memoizing
memoizing.SHARE_S = memoizing.CULL_S = 0.0
with tilekv.open(sys.argv[1], "a", expires=True, config={"kv.sync": False}) as db:
    noise = tilekv.memoize(db, expire=1000, max_bytes=100_000, name="noise")(lambda n: os.urandom(10_000))
    if os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    for n in range(30):
        noise(n)
    begun = time.monotonic()
    while sum(fragment.stored_bytes for fragment in db.fragments) > 100_000:
        db.flush()
        assert time.monotonic() - begun < 60
        time.sleep(0.005)
"""


def test_a_forked_child_culls_too(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-P", "-c", FORK, tmp_path / "c"], check=True, timeout=100)


def test_what_expires_next_goes_first(store: Callable[..., tilekv.Store]) -> None:
    """As many as are of the least moments, whatever expires together with them, and none that never expires."""
    db = store(expires=True)
    pick = np.random.default_rng(3)
    moments = {f"k{i}": int(pick.integers(1, 8)) * 1000 for i in range(2000)}
    for key, moment in moments.items():
        db.set(key, pick.bytes(100), moment)
    db.update({f"n{i}": pick.bytes(100) for i in range(500)})
    db.flush()
    size = stored(db)
    gone = culling.next_to_expire(db, size // 2, lambda: None)
    expected = int((size - size // 2 + 0.1 * (size // 2)) / (size / 2500)) + 1
    assert len(gone) == len(set(gone)) == expected
    latest = max(moments[key] for key in gone)
    assert sorted(moments.values())[expected - 1] == latest
    assert {key for key, moment in moments.items() if moment < latest} <= set(gone)
    assert len(culling.next_to_expire(db, 1, lambda: None)) == 2000
    assert culling.next_to_expire(db, size, lambda: None) == []


def test_what_is_refused(cache: tilekv.Store, db: tilekv.Store, tmp_path: Path) -> None:
    for options in ({"expire": 1}, {"expire": 1, "max_bytes": 1}):
        with pytest.raises(tilekv.InvalidValueError, match="no moments of expiry"):
            tilekv.memoize(db, **options)
    tilekv.memoize(db)
    for options, error in (
        ({"max_bytes": 10}, tilekv.InvalidValueError),
        ({"max_bytes": 0, "expire": 1}, tilekv.InvalidValueError),
        ({"expire": "1"}, tilekv.WrongTypeError),
        ({"expire": 1e300}, tilekv.OutOfRangeError),
        ({"name": 1}, tilekv.WrongTypeError),
        ({"key": 1}, tilekv.WrongTypeError),
        ({"dumps": 1}, tilekv.WrongTypeError),
    ):
        with pytest.raises(error):
            tilekv.memoize(cache, **options)
    with pytest.raises(tilekv.WrongTypeError, match="is an open"):
        tilekv.memoize("place")  # type: ignore[arg-type]

    async def coroutine() -> bytes:
        return b""

    with pytest.raises(tilekv.WrongTypeError, match="which arguments"):
        tilekv.memoize(cache)(type)
    with pytest.raises(tilekv.WrongTypeError, match=r"made by tilekv\.memoize"):
        tilekv.Memoized(len, None)
    for function in (coroutine, 5):
        with pytest.raises(tilekv.WrongTypeError, match="functions that return"):
            tilekv.memoize(cache)(function)  # type: ignore[arg-type]
    with tilekv.open(tmp_path / "r", "x"):
        pass
    with tilekv.open(tmp_path / "r") as reading, pytest.raises(tilekv.ReadOnlyError):
        tilekv.memoize(reading)

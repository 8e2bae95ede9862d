"""expiry: an entry whose moment has come is as if deleted, whoever looks, by whatever way; and no merge takes it from others."""

import datetime as dt
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tilekv
from old_stores import OldStoreWriter
from tilekv import expiry

DAY = 24 * 3600
SEVERAL = tilekv.Schema(
    [tilekv.Attr("n", "int32"), tilekv.Attr("text", str)], expires=True, capacity=16
)


def opened(path: Any, mode: Any = "a", **arguments: Any) -> tilekv.Store:
    return tilekv.open(path, mode, expires=True, **arguments)


def past(path: Path, moment: float) -> tilekv.Store:
    return tilekv.open(path, timestamp=int(moment * 1000))


def shown(db: tilekv.Store, keys: list[Any]) -> list[Any]:
    """The keys that are there, the same by every way to ask."""
    found = [key for key in keys if key in db]
    single = len(db.schema.attrs) == 1
    assert [key for key in keys if db.get(key) is not None] == found
    got = db.get_many(keys)
    assert [key for key, value in zip(keys, got, strict=True) if value is not None] == found
    batch = db.read(keys, missing="mask")
    assert batch.found is not None
    assert [key for key, there in zip(keys, batch.found, strict=True) if there] == found
    assert sorted(db, key=str) == sorted(found, key=str)
    assert sorted((key for key, _ in db.items()), key=str) == sorted(found, key=str)
    assert len(list(db.values())) == len(db) == len(found)
    assert bool(db) == bool(found)
    assert sorted((key for part in db.scan() for key in part.keys), key=str) == sorted(
        found, key=str
    )
    if single:
        assert db.get_many(found) == [db[key] for key in found]
    for key in keys:
        if key in found:
            db.expires(key)
        else:
            with pytest.raises(tilekv.KeyNotFoundError):
                db.expires(key)
            with pytest.raises(KeyError):
                db[key]
    return found


# --- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, expiry.NEVER),
        (10, 11_000),
        (0.5, 1500),
        (np.float32(0.25), 1250),
        (-100, 1),  # what is past has expired
        (dt.timedelta(minutes=1), 61_000),
        (dt.datetime(1970, 1, 1, 0, 0, 5, tzinfo=dt.UTC), 5000),
        (dt.datetime(1960, 1, 1, tzinfo=dt.UTC), 1),
        (np.timedelta64(2, "s"), 3000),
        (np.timedelta64(1500, "us"), 1001),
        (np.datetime64("1970-01-02"), DAY * 1000),
        (np.float16(60_000), 60_001_000),
        (-float("inf"), 1),
        (-(10**400), 1),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5))), 1),  # the year 0 in UTC
    ],
)
def test_one_moment(given: Any, expected: int) -> None:
    assert expiry.moment(given, 1000) == expected
    assert expiry.moments(given, 7, 1000).tolist() == [expected]


def test_a_datetime_without_a_zone_is_local_time() -> None:
    naive = dt.datetime(2030, 5, 6, 7, 8, 9)  # noqa: DTZ001
    expected = round(naive.timestamp() * 1000)
    assert expiry.moment(naive, 0) == expiry.moment(pd.Timestamp(naive), 0) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, None, dt.timedelta(seconds=2)], [2000, expiry.NEVER, 3000]),
        (np.array([1, 2, -9]), [2000, 3000, 1]),
        (np.array([0.5, 1.5, 2], np.float32), [1500, 2500, 3000]),
        (np.array([1, 2, 3], "m8[s]"), [2000, 3000, 4000]),
        (np.array([1, 2, 3], "M8[s]"), [1000, 2000, 3000]),
        (np.array([1_999_999, -5, 3], "m8[ns]"), [1001, 999, 1000]),
        (np.array([-np.inf, 1, 2]), [1, 2000, 3000]),
        (np.ma.array([1, 2, 3]), [2000, 3000, 4000]),
    ],
)
def test_columns_of_moments(column: Any, expected: list[int]) -> None:
    assert expiry.moments(column, 3, 1000).tolist() == expected


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("soon", tilekv.WrongTypeError),
        (True, tilekv.WrongTypeError),
        (object(), tilekv.WrongTypeError),
        (float("nan"), tilekv.InvalidValueError),
        (np.datetime64("NaT"), tilekv.InvalidValueError),
        (1e300, tilekv.OutOfRangeError),
        (float("inf"), tilekv.OutOfRangeError),
        (10**400, tilekv.OutOfRangeError),
        (
            dt.datetime(
                9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.timezone(-dt.timedelta(hours=5))
            ),
            tilekv.OutOfRangeError,
        ),
        (np.timedelta64(5), tilekv.InvalidValueError),  # of what?
        (np.datetime64("10000-01-01"), tilekv.OutOfRangeError),
        (np.datetime64(2**62, "Y"), tilekv.OutOfRangeError),  # in ms it would be a time in 1970
        (np.timedelta64(2**62, "s"), tilekv.OutOfRangeError),
        (tilekv.Store, tilekv.WrongTypeError),
        (np.array(5), tilekv.WrongTypeError),
        ({1, 2, 3}, tilekv.WrongTypeError),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), tilekv.InvalidValueError),
        ([1, 2], tilekv.InvalidValueError),
        ([1, 2, "x"], tilekv.WrongTypeError),
        (np.zeros((3, 2)), tilekv.InvalidValueError),
        (np.array([1, np.nan, 2]), tilekv.InvalidValueError),
        (np.array([1, 1e18, 2]), tilekv.OutOfRangeError),
    ],
)
def test_what_is_refused_buffers_nothing(given: Any, error: type[Exception]) -> None:
    with opened("memory://expiry-refused", "w") as db:
        with pytest.raises(error):
            db.put_many(["a", "b", "c"], [b"", b"", b""], expire=given)
        if not hasattr(given, "__len__"):
            with pytest.raises(error):
                db.set("a", b"", given)
        assert db.info().buffered == 0


def test_a_store_without_moments_says_so(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        for call in (
            lambda: db.set("a", b"1", 5),
            lambda: db.put_many(["a"], [b"1"], expire=5),
            lambda: db.apply({"a": b"1"}, expires={"a": 5}),
        ):
            with pytest.raises(tilekv.InvalidValueError, match="expires=True"):
                call()
        db.set("a", b"1")
        assert db.expires("a") is None
        assert db.info().buffered == 1
    with pytest.raises(tilekv.InvalidValueError, match="keeps no moments"):
        opened(tmp_path / "s", "r")
    plain = tilekv.Schema([tilekv.Attr("value", bytes)])
    for mode in ("w", "x"):  # refused before anything is made or replaced
        with pytest.raises(tilekv.InvalidValueError, match="keeps no moments"):
            opened(tmp_path / ("s" if mode == "w" else "new"), mode, schema=plain)
    assert not (tmp_path / "new").exists()
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"a": b"1"}


def test_an_attribute_may_be_called_expire_elsewhere() -> None:
    attrs = [tilekv.Attr("expire", "int64")]
    with tilekv.open("memory://expire", "w", schema=tilekv.Schema(attrs)) as db:
        db.put_many(["a"], expire=[7])
        assert db["a"] == 7
    with pytest.raises(tilekv.InvalidValueError, match="expire"):
        tilekv.Schema(attrs, expires=True)


# --- what is seen ------------------------------------------------------------------------------------------------------


def test_what_expires_at_once_is_not_seen(tmp_path: Path) -> None:
    """Not for the few ms either by which one of the system's clocks may be behind another."""
    with opened(tmp_path / "s", "x") as db:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            db.set("one", b"1", expire=0)
            assert "one" not in db
            db.put_many(["one"], [b"1"], expire=dt.timedelta())
            assert db.get_many(["one"], None) == [None]
            db.apply({"one": b"1"}, expires={"one": 0})
            assert list(db) == []


@pytest.mark.parametrize("schema", [None, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("fragments", [0, 2, 3])
@pytest.mark.parametrize("indexed", [False, True])
def test_expired_is_as_if_deleted(
    tmp_path: Path, schema: tilekv.Schema | None, fragments: int, indexed: bool
) -> None:
    """In the buffer, in one fragment and in several, with and without an index of digests."""

    def value(i: int) -> Any:
        return b"%d" % i if schema is None else {"n": i, "text": f"{i}"}

    keys: list[Any] = [*range(40), "never", "gone", "again", "back"]
    with opened(tmp_path / "s", "x", schema=schema) as db:
        db.put_many(keys[:20], [value(i) for i in range(20)], expire=-1)
        db.put_many(keys[20:40], [value(i) for i in range(20)], expire=DAY)
        db["never"] = value(1)
        db.set("gone", value(1), -5)
        if fragments:
            db.flush()
        db.set("again", value(1), DAY)
        db.set("back", value(1), -1)
        if fragments > 2:
            db.flush()
        db.set("again", value(2), -1)  # the newest counts, though an older one has not expired
        db["back"] = value(2)
        if fragments:
            db.flush()
        assert len(db.fragments) == fragments
        if indexed:
            db.get_many(list(range(10_000)))
        assert shown(db, keys) == [*range(20, 40), "never", "back"]
        assert db["back"] == value(2)
        assert db.expires("never") is None
        later = db.expires(25)
        assert later is not None
        assert abs(later.timestamp() - time.time() - DAY) < 600
        with pytest.raises(KeyError):
            del db["gone"]
        with pytest.raises(KeyError):
            db.touch("gone", 5)
        assert db.pop("gone", None) is None
        assert db.setdefault("gone", value(9)) == value(9)
        assert "gone" in db


BYTES = [tilekv.Attr("value", bytes)]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    ("made", "config", "n", "fragments"),
    [
        ({"digest": "md5"}, {}, 500, 3),
        ({"capacity": 20_000}, {}, 17_000, 1),  # two chunks of moments a tile
        ({"capacity": 10}, {"kv.mmap": False}, 500, 3),
        ({"capacity": 10}, {"kv.mmap": False, "kv.cache_bytes": 0}, 500, 3),
        ({"capacity": 10}, {"kv.cache_bytes": 0}, 500, 3),
        ({"capacity": 10}, {"kv.max_mapped_fragments": 2}, 200, 12),
        ({"capacity": 10}, {"kv.max_mapped_fragments": 0, "kv.mmap": False}, 200, 5),
        ({"key_filters": [tilekv.LZ4Filter()], "capacity": 1}, {"kv.threads": 1}, 100, 2),
    ],
    ids=str,
)
def test_stores_of_every_kind(
    tmp_path: Path, made: Any, config: Any, n: int, fragments: int, indexed: bool
) -> None:
    schema = tilekv.Schema(BYTES, expires=True, **made)
    pick = random.Random(n)
    lives: dict[int, bool] = {}
    with opened(tmp_path / "s", "x", schema=schema, config=config) as db:
        for _ in range(fragments):
            keys = pick.sample(range(n), n // 2)
            moments = [pick.choice([None, DAY, -1]) for _ in keys]
            db.put_many(keys, [b"%d" % key for key in keys], expire=moments)
            db.flush()
            lives |= {key: expire != -1 for key, expire in zip(keys, moments, strict=True)}
    with opened(tmp_path / "s", config=config) as db:
        if indexed:
            for _ in range(3):
                db.get_many(list(range(n)))
        expected = [key for key, there in lives.items() if there]
        assert shown(db, list(lives)) == expected
        assert db.get_many(expected) == [b"%d" % key for key in expected]
        assert db.info().live == len(expected)
        assert db.verify() == []
        db.consolidate(vacuum=True)
        assert shown(db, list(lives)) == expected


def test_it_goes_when_its_moment_comes(tmp_path: Path) -> None:
    with opened(tmp_path / "s", "x") as db:
        for flush in (False, True):
            db.set("k", b"v", 0.3)
            if flush:
                db.flush()
            assert db["k"] == b"v"
            end = time.monotonic() + 60
            while "k" in db:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert db.get("k") is None


def test_iterators_and_scans_show_the_moment_they_began() -> None:
    with opened("memory://expiry-iterators", "w") as db:
        db.put_many(range(5000), [b"v"] * 5000, expire=0.3)
        began, scan = iter(db), db.scan()
        assert next(began) is not None
        time.sleep(0.35)
        assert len(db) == 0
        assert len(list(began)) == 4999
        assert sum(len(batch) for batch in scan) == 5000


def test_setting_again_forgets_the_moment_and_touch_moves_it(tmp_path: Path) -> None:
    with opened(tmp_path / "s", "x", schema=SEVERAL) as db:
        value = {"n": 1, "text": "x"}
        db.set("k", value, dt.timedelta(hours=1))
        assert db.expires("k") is not None
        db["k"] = value
        assert db.expires("k") is None
        moment = dt.datetime(2100, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
        db.touch("k", moment)
        assert (db["k"], db.expires("k")) == (value, moment)
        db.flush()
        assert (db["k"], db.expires("k")) == (value, moment)
        with opened(tmp_path / "s") as other:
            other.set("k", {"n": 2, "text": "y"}, 5)
        db.touch("k")  # the newest value, of another writer
        assert (db["k"]["n"], db.expires("k")) == (2, None)


def test_apply_is_one_step(tmp_path: Path) -> None:
    with opened(tmp_path / "s", "x") as db:
        db.put_many({"old": b"0", "kept": b"0", "touched": b"0"})
        db.flush()
        db.apply(
            {"new": b"1", "kept": b"1", "brief": b"1"}, ["old", "missing"],
            {"kept": 100, "touched": 200, "brief": -1},
        )  # fmt: skip
        assert dict(db) == {"new": b"1", "kept": b"1", "touched": b"0"}
        assert db.expires("new") is None
        kept, touched = db.expires("kept"), db.expires("touched")
        assert kept is not None
        assert touched is not None
        assert 90 < (touched - kept).total_seconds() < 110
        before = db.info().buffered
        for wrong in (
            lambda: db.apply({"a": b"1"}, [object()]),
            lambda: db.apply({"a": b"1", "b": 3}),
            lambda: db.apply({"a": b"1"}, (), {"none": 5}),
            lambda: db.apply({"a": b"1"}, (), {"a": "soon"}),
        ):
            with pytest.raises((tilekv.TileKVError, TypeError)):
                wrong()
            assert db.info().buffered == before
        db.flush()
        assert len(db.fragments) == 2


def test_apply_tells_equal_keys_apart() -> None:
    """1 and 1.0 are equal to Python, and two keys."""
    with opened("memory://expiry-equal", "w") as db:
        db.apply([(1, b"int"), (1.0, b"float"), (bytearray(b"k"), b"bytes")], (), {1: 60, b"k": 60})
        assert (db[1], db[1.0], db[b"k"]) == (b"int", b"float", b"bytes")
        assert db.expires(1.0) is None
        assert None not in (db.expires(1), db.expires(b"k"))


def test_apply_takes_what_put_many_takes() -> None:
    with opened("memory://expiry-pairs", "w") as db:
        db.apply(((f"{i}", b"") for i in range(3)), iter(["0"]), {"1": -1})
        assert list(db) == ["2"]
        for wrong in (5, "ab", [1, 2], [("a", b"", 3)]):
            with pytest.raises(tilekv.TileKVError):
                db.apply(wrong, (), {"2": 60})
        for moments in ([("2", 60)], 5, {2.5: 60}, {"2": "soon"}, {None: 60}):
            with pytest.raises(tilekv.TileKVError):
                db.apply((), (), moments)
        assert db.expires("2") is None


def test_moments_of_keys_of_exact_types(tmp_path: Path) -> None:
    """A store that convert made: an int finds a key of another type, and it is that one which gets the moment."""
    OldStoreWriter(tmp_path / "old", 3).flush([((0, b"\5\0\0\0"), 1, b"v")], 1000)
    tilekv.convert(tmp_path / "old", tmp_path / "new", expires=True)
    for call in (lambda: db.touch(5, -1), lambda: db.apply((), (), {5: -1})):
        with opened(tmp_path / "new") as db:
            value = db[5]
            db.touch(5, 60)
            assert len(db) == 1
            call()
            assert 5 not in db
            assert len(db) == 0
            db[np.int32(5)] = value


def test_the_past_is_seen_as_it_was(tmp_path: Path) -> None:
    """A moment in the past shows what had not expired by then."""
    path = tmp_path / "s"
    with opened(path, "x") as db:
        db.set("k", b"v", 3)
        db["for good"] = b"v"
        db.flush()
        written = db.fragments[0].t2 / 1000
    for moment, there in ((written + 1, True), (written + 5, False)):
        with past(path, moment) as db:
            assert shown(db, ["k", "for good"]) == (["k"] if there else []) + ["for good"]
            assert db.info().live == 1 + there


@pytest.mark.parametrize("timestamp", [-(2**63) - 1, -5, 0, 2**63 - 1, 2**63, 10**400])
def test_any_moment_may_be_asked_for(tmp_path: Path, timestamp: int) -> None:
    with opened(tmp_path / "s", "x") as db:
        db.set("k", b"v", DAY)
        db["for good"] = b"v"
    with tilekv.open(tmp_path / "s", timestamp=timestamp) as db:
        assert shown(db, ["k", "for good"]) == (["for good"] if timestamp > 0 else [])
        assert (db.info().live, db.info().expired) == ((1, 1) if timestamp > 0 else (0, 0))


# --- merges ------------------------------------------------------------------------------------------------------------


def test_a_merge_drops_what_expired_a_day_ago(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, "x", schema=SEVERAL) as db:
        row = (1, "x")
        db.put_many(range(30), [row] * 30, expire=-2 * DAY)
        db.put_many(range(30, 60), [row] * 30, expire=-DAY / 2)
        db.put_many(range(60, 90), [row] * 30)
        db.flush()
        db.set(60, row, -2 * DAY)  # hides an older one that does not expire
        db.flush()
        assert db.info().live == 29
        db.consolidate(vacuum=True)
        assert db.info().cells == 30 + 29
        assert shown(db, list(range(90))) == list(range(61, 90))
        assert db.verify() == []
        size = db.fragments[0].name
        db.consolidate()  # nothing more to drop
        assert db.fragments[0].name == size


def test_a_merge_that_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s", "x") as db:
        db.put_many(range(30), [b"x"] * 30, expire=-2 * DAY)
        db.flush()
        for _ in range(3):
            db.consolidate(vacuum=True)
            assert (db.info().cells, len(db), db.info().live) == (1, 0, 0)
        db[1] = b"again"
        db.consolidate()
        assert dict(db) == {1: b"again"}


@pytest.mark.parametrize("hours", [-1, 1, 23])
def test_clocks_apart_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Who merges with a clock that is ahead, or behind, leaves what others still see."""
    path = tmp_path / "s"
    with opened(path, "x") as db:
        db.set("k", b"v", 600)
        db.flush()
        db["other"] = b"v"
        real = time.time_ns
        with monkeypatch.context() as wrong:
            wrong.setattr("time.time_ns", lambda: real() + hours * 3600 * 10**9)
            db.consolidate(vacuum=True)
        assert dict(db) == {"k": b"v", "other": b"v"}


def test_a_clock_that_is_days_ahead_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    with opened(path, "x") as db:
        db.set("k", b"v", 600)
        db.flush()
        db["other"] = b"v"
        real = time.time_ns
        with monkeypatch.context() as wrong:
            wrong.setattr("time.time_ns", lambda: real() + 30 * DAY * 10**9)
            db.consolidate(vacuum=True)
        assert "k" in db


def test_what_a_merge_dropped_is_not_denied_in_the_past(tmp_path: Path) -> None:
    """A moment before what it dropped had expired is shown by its sources; without them it is refused, never shown without."""
    path = tmp_path / "s"
    with opened(path, "x") as db:
        moment = time.time() - 3 * DAY
        db.set("k", b"v", dt.datetime.fromtimestamp(moment + 100, dt.UTC))
        db["for good"] = b"v"
        db.flush()
        written = db.fragments[0].t2
        db["more"] = b"v"
        db.flush()
        db.consolidate()
        assert db.info().cells == 2
        last = db.fragments[0]
        assert last.expired > 0
    # Both flushes are later than what was dropped by: the merged fragment shows every moment since.
    with tilekv.open(path, timestamp=written) as db:
        assert list(db) == ["for good"]
    assert last.expired < written


def test_sources_show_what_the_merge_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written three days ago, to expire two days ago."""
    path = tmp_path / "s"
    real = time.time_ns
    ago = real() - 3 * DAY * 10**9
    with opened(path, "x") as db:
        with monkeypatch.context() as early:
            early.setattr("time.time_ns", lambda: ago)
            db.set("k", b"v", np.datetime64(ago + DAY * 10**9, "ns"))
            db.flush()
            db["for good"] = b"v"
            db.flush()
        first, second = (fragment.t2 for fragment in reversed(db.fragments))
        db.consolidate()
        assert db.info().cells == 1
        for moment, there in (
            (first, ["k"]),
            (second, ["k", "for good"]),
            (second + 3600_000, ["k", "for good"]),
            (second + 36 * 3600_000, ["for good"]),
        ):
            with tilekv.open(path, timestamp=moment) as then:
                assert shown(then, ["k", "for good"]) == there
        db.vacuum()
        with pytest.raises(tilekv.HistoryVacuumed, match="vacuumed"):
            tilekv.open(path, timestamp=second + 3600_000)
        newest = db.fragments[0]
        with tilekv.open(path, timestamp=newest.expired) as then:
            assert list(then) == ["for good"]


# --- copies, files, other programs -------------------------------------------------------------------------------------


def test_copies_keep_the_moments(tmp_path: Path) -> None:
    moment = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    path = tmp_path / "s"
    with opened(path, "x", schema=SEVERAL) as db:
        db.put_many(range(50), [(i, "x") for i in range(50)], expire=moment)
        db.put_many(["past"], [(1, "x")], expire=-1)
        db["never"] = (1, "x")
    tilekv.salvage(path, tmp_path / "salvaged")
    tilekv.convert(path, tmp_path / "converted")
    for copy in ("salvaged", "converted"):
        with opened(tmp_path / copy) as db:
            assert (len(db), db[7]["n"]) == (51, 7)
            assert {db.expires(i) for i in range(50)} == {moment}
            assert db.expires("never") is None
            assert "past" not in db


def test_what_expires_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "s", "x") as db:
        db.put_many(range(3), [b"v"] * 3, expire=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    real = tilekv.Store._expires

    def late(self: tilekv.Store, key: Any) -> int:
        if key == 1:
            raise tilekv.KeyNotFoundError(key)
        return real(self, key)

    monkeypatch.setattr(tilekv.Store, "_expires", late)
    assert tilekv.convert(tmp_path / "s", tmp_path / "copy") == 3
    monkeypatch.undo()
    with opened(tmp_path / "copy") as db:
        assert shown(db, [0, 1, 2]) == [0, 2]
        info = db.info()
        assert (info.cells, info.live, info.expired) == (3, 2, 1)


def test_damaged_moments(tmp_path: Path) -> None:
    """Who asks for a key whose moment is damaged is told so; the other keys are as they were."""
    path = tmp_path / "s"
    keys = list(range(40))
    schema = tilekv.Schema(BYTES, capacity=8, expires=True)
    with opened(path, "x", schema=schema) as db:
        db.put_many(keys, [b"%d" % key for key in keys], expire=DAY)
    (file,) = path.glob("*/__expires.tdb")
    where = (file.parent.name, file.name)
    sound = file.read_bytes()
    hit = set()
    for at in range(0, len(sound), 5):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 16]) + sound[at + 1 :])
        broken = []
        with tilekv.open(path) as db:
            for key in keys:
                try:
                    assert db[key] == b"%d" % key
                except tilekv.CorruptionError:
                    broken.append(key)
            assert {(each.fragment, each.file) for each in db.verify()} == {where}
            if not broken:  # a part of the file that no look-up needs
                continue
            for call in (db.__contains__, db.get, db.expires):
                with pytest.raises(tilekv.CorruptionError, match="__expires"):
                    call(broken[0])
            with pytest.raises(tilekv.CorruptionError, match="__expires"):
                len(db)
            whole = [key for key in keys if key not in broken]
            assert db.get_many(whole) == [b"%d" % key for key in whole]
        if len(broken) == len(keys):  # the end of the file, which tells where the rest is
            continue
        assert len(broken) == 8
        hit |= set(broken)
        report = tilekv.salvage(path, f"memory://expiry-salvaged-{at}")
        assert (report.copied, report.lost) == (32, 8)
        with opened(f"memory://expiry-salvaged-{at}") as db:
            assert shown(db, keys) == whole
    assert hit == set(keys)


def test_a_lost_descriptor_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, "x") as db:
        db.set("k", b"v", DAY)
    (path / "__tilekv.json").unlink()
    tilekv.salvage(path, tmp_path / "salvaged")
    with opened(tmp_path / "salvaged") as db:
        assert db["k"] == b"v"
        assert db.expires("k") is not None


def test_a_program_that_knows_format_1_refuses(tmp_path: Path) -> None:
    tilekv.open(tmp_path / "plain", "x").close()
    opened(tmp_path / "s", "x").close()
    plain, expiring = (
        json.loads((tmp_path / name / "__tilekv.json").read_text()) for name in ("plain", "s")
    )
    assert (plain["format"], plain.get("expires")) == (1, None)
    assert (expiring["format"], expiring["expires"]) == (2, True)


def test_schemas_with_and_without_differ(tmp_path: Path) -> None:
    attrs = [tilekv.Attr("value", bytes)]
    plain, expiring = tilekv.Schema(attrs), tilekv.Schema(attrs, expires=True)
    assert plain != expiring
    assert eval(repr(expiring), vars(tilekv)) == expiring
    with opened(tmp_path / "s", "x") as db:
        assert db.schema == expiring
    with pytest.raises(tilekv.InvalidValueError, match="another schema"):
        tilekv.open(tmp_path / "s", "a", schema=plain)


def test_against_a_dict(tmp_path: Path) -> None:
    """Random puts, moments, deletes, flushes and merges."""
    for seed in range(20):
        pick = random.Random(seed)
        model: dict[int, tuple[bytes, bool]] = {}
        with opened(f"memory://expiry-{seed}", "w", config={"kv.cache_bytes": 1000}) as db:
            for _ in range(60):
                step = pick.choice(["put", "put", "set", "delete", "flush", "merge", "touch"])
                key, value = pick.randrange(30), b"%d" % pick.randrange(9)
                lives = pick.random() < 0.6
                when = pick.choice([None, DAY]) if lives else pick.choice([-1, -3 * DAY])
                if step == "put":
                    keys = [pick.randrange(30) for _ in range(5)]
                    db.put_many(keys, [value] * 5, expire=when)
                    model |= dict.fromkeys(keys, (value, lives))
                elif step == "set":
                    db.set(key, value, when)
                    model[key] = value, lives
                elif step == "delete":
                    db.delete_many([key])
                    model.pop(key, None)
                elif step == "touch" and model.get(key, (b"", False))[1]:
                    db.touch(key, when)
                    model[key] = model[key][0], lives
                elif step == "flush":
                    db.flush()
                elif step == "merge":
                    db.consolidate(vacuum=pick.random() < 0.5)
            expected = {key: value for key, (value, lives) in model.items() if lives}
            assert dict(db) == expected
            assert shown(db, list(range(30))) == sorted(expected)
            db.flush()
            assert db.info().live == len(expected)
            assert db.verify() == []

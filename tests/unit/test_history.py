"""Which fragments count: by the lists of stores without a record, and at a moment in the past (docs/design.md 5, 6)."""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from faulty import KILLS, Faults, Killed, every_call, fault_at, meet
from life import SMALL, Clock, contents, folders
from lists import merge_by_list, vac
from tilekv import Attr, Schema

NAME = "__{0}_{0}_" + "a" * 32


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def write(path: Path, flush: dict[Any, bytes], gone: tuple[Any, ...] = ()) -> str:
    """One fragment; its name."""
    with tilekv.open(path, "a", schema=None if path.exists() else SMALL) as db:
        db.put_many(flush)
        db.delete_many(gone)
        db.flush()
        return db.fragments[0].name


def consolidate(path: Path, vacuum: bool = False) -> str:
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=vacuum)
        return db.fragments[0].name


# --- .vac files ------------------------------------------------------------------------------------


def test_list_without_its_fragment_is_ignored(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    name = write(path, {1: b"1"})
    vac(path, NAME.format(5)).write_text(f"/{name}\n")
    assert contents(path) == {1: b"1"}


def test_fragment_hides_what_it_lists_and_not_what_its_range_contains(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    write(path, {1: b"first", 2: b"first"})
    moment = clock.now + 500
    clock.now += 1000
    write(path, {1: b"last", 3: b"last"})
    consolidate(path)
    with monkeypatch.context() as patch:
        patch.setattr("tilekv.commit.later_time", lambda storage, known: moment)
        write(path, {2: b"between", 4: b"between"})
    assert contents(path) == {1: b"last", 2: b"between", 3: b"last", 4: b"between"}


def four_overlapping(path: Path, clock: Clock) -> tuple[list[str], dict[Any, bytes]]:
    names = []
    for i in range(1, 5):
        clock.now += 1000
        names.append(write(path, {"k": b"%d" % i, i: b"x"}, (i - 2,)))
    return names, contents(path)


def test_smaller_of_included_lists_is_ignored(tmp_path: Path, clock: Clock) -> None:
    """The smaller one begins later, and would count as newer with an older value of "k"."""
    path = tmp_path / "store"
    names, model = four_overlapping(path, clock)
    inner = merge_by_list(path, names[1:3])
    outer = merge_by_list(path, names)
    assert inner.split("_")[2] > outer.split("_")[2]
    assert model["k"] == b"4"
    assert contents(path) == model
    with tilekv.open(path, "a") as db:
        db.vacuum()
    assert folders(path) == {outer}
    assert list(path.glob("*.vac")) == []
    assert contents(path) == model


def test_of_equal_lists_the_greater_name_stays(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    names, model = four_overlapping(path, clock)
    owners = {merge_by_list(path, names) for _ in range(3)}
    assert len(owners) == 3
    assert contents(path) == model
    with tilekv.open(path) as db:
        assert [fragment.name for fragment in db.fragments] == [max(owners)]
    with tilekv.open(path, "a") as db:
        db.vacuum()
    assert folders(path) == {max(owners)}
    assert contents(path) == model


@pytest.mark.parametrize("sources", [slice(1, 3), slice(0, 4)], ids=["included", "equal"])
def test_vacuum_of_included_lists_interrupted_anywhere(
    tmp_path: Path, clock: Clock, sources: slice
) -> None:
    """Without its list the smaller one would no longer be known as the smaller one."""
    template = tmp_path / "template"
    names, model = four_overlapping(template, clock)
    merge_by_list(template, names[sources])
    merge_by_list(template, names)

    def attempt(at: int) -> Faults:
        path = tmp_path / f"store {at}"
        shutil.copytree(template, path)
        with tilekv.open(path, "a") as db:
            faults = meet(db, fault_at(at, KILLS[0]))
            try:
                db.vacuum()
            except Killed:
                assert faults.hit
        assert contents(path) == model
        with tilekv.open(path, "a") as db:
            db.vacuum()
        assert contents(path) == model
        assert len(folders(path)) == 1
        shutil.rmtree(path)
        return faults

    assert every_call(attempt) > 5


def test_chains(tmp_path: Path, clock: Clock) -> None:
    """Consolidations of consolidations, none vacuumed, and after their vacuum."""
    path = tmp_path / "store"
    model: dict[Any, bytes] = {}
    for i in range(5):
        clock.now += 1000
        write(path, {"k": b"%d" % i, i: b"x"}, (i - 1,))
        model = {"k": b"%d" % i, i: b"x"}
        last = merge_by_list(path)
        assert contents(path) == model
    assert len(list(path.glob("*.vac"))) == 5
    with tilekv.open(path, "a") as db:
        db.vacuum()
    assert folders(path) == {last}
    assert list(path.glob("*.vac")) == []
    assert contents(path) == model


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circles(tmp_path: Path, clock: Clock, length: int) -> None:
    """All of them would vanish."""
    path = tmp_path / "store"
    names = [write(path, {i: b"x"}) for i in range(length)]
    for name, following in zip(names, names[1:] + names[:1], strict=True):
        vac(path, name).write_text(f"/{following}\n")
    with pytest.raises(tilekv.CorruptionError) as info:
        tilekv.open(path)
    assert info.value.file in {f"{name}.vac" for name in names}
    assert folders(path) == set(names)


@pytest.mark.parametrize(
    "line", ["", "/", "junk", "/__1_1_short", "/../../etc/passwd", "/__kv_schema.tdb", "\xff\0"]
)
def test_junk_in_a_list(tmp_path: Path, clock: Clock, line: str) -> None:
    path = tmp_path / "store"
    name = write(path, {1: b"1"})
    write(path, {1: b"2"})
    owner = merge_by_list(path)
    with tilekv.open(path, "a") as db:
        vac(path, owner).write_bytes(f"/{name}\n{line}\n".encode("latin-1"))
        before = folders(path)
        for use in (db.reopen, db.vacuum, db.consolidate):
            with pytest.raises(tilekv.CorruptionError, match=r"\.vac"):
                use()
    assert folders(path) == before


def test_empty_list_is_found(tmp_path: Path, clock: Clock) -> None:
    """A crash without kv.sync may leave it: being part of every other list, it would hide its owner."""
    path = tmp_path / "store"
    for i in range(2):
        write(path, {i: b"x"})
    sources = folders(path)
    first = merge_by_list(path)
    for name in sources:
        shutil.rmtree(path / name)
    clock.now += 1000
    merge_by_list(path, [write(path, {i: b"y"}) for i in range(2, 4)])
    vac(path, first).write_bytes(b"")
    with pytest.raises(tilekv.CorruptionError, match=r"\.vac"):
        tilekv.open(path)


def test_flipped_bit_in_a_list_is_found(tmp_path: Path, clock: Clock) -> None:
    """A changed name would show one of the merged fragments again, and with it an older value."""
    path = tmp_path / "store"
    for value in (b"old", b"new"):
        clock.now += 1000
        write(path, {"k": value})
    list_ = vac(path, merge_by_list(path))
    text = list_.read_bytes()
    for at in range(len(text)):
        for bit in range(8):
            list_.write_bytes(text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :])
            try:
                assert contents(path) == {"k": b"new"}
            except tilekv.CorruptionError as error:
                assert error.file == list_.name  # noqa: PT017 - either of the two is right


def test_list_cut_short_is_found(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    for value in (b"1", b"2", b"3"):
        clock.now += 1000
        write(path, {"k": value})
    list_ = vac(path, merge_by_list(path))
    lines = list_.read_bytes().splitlines(keepends=True)
    for kept in range(3):
        list_.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(tilekv.CorruptionError, match=r"\.vac"):
            tilekv.open(path)


# --- the past --------------------------------------------------------------------------------------


def history(path: Path, clock: Clock, flushes: int = 6) -> dict[int, dict[Any, bytes]]:
    """Flushes a second apart; what the store held at each."""
    rng = random.Random(3)
    states: dict[int, dict[Any, bytes]] = {}
    model: dict[Any, bytes] = {}
    for i in range(flushes):
        clock.now += 1000
        part = dict.fromkeys(rng.sample(range(30), 12), b"%d" % i)
        gone = tuple(rng.sample(range(30), 4))
        write(path, part, gone)
        model = {key: value for key, value in (model | part).items() if key not in gone}
        states[clock.now] = model
    return states


def test_every_flush_can_be_seen_again(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    states = history(path, clock)

    def check() -> None:
        previous: dict[Any, bytes] = {}
        for moment, state in states.items():
            assert contents(path, moment - 1) == previous
            assert contents(path, moment) == contents(path, moment + 1) == state
            previous = state
        assert contents(path, 0) == {}
        assert contents(path, 2**62) == previous

    check()
    consolidate(path)
    check()
    clock.now += 1000
    write(path, {"more": b"x"})
    states[clock.now] = states[clock.now - 1000] | {"more": b"x"}
    check()
    consolidate(path)
    check()


def test_vacuumed_past(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    states = history(path, clock)
    moments = list(states)
    consolidate(path, vacuum=True)
    clock.now += 1000
    write(path, {"more": b"x"})
    for moment in moments[:-1]:
        for asked in (moment, moment + 1, moments[-1] - 1):
            with pytest.raises(tilekv.HistoryVacuumed, match=str(moments[-1])):
                tilekv.open(path, timestamp=asked)
    assert contents(path, moments[0] - 1) == {}
    last = states[moments[-1]]
    assert contents(path, moments[-1]) == contents(path, clock.now - 1) == last
    assert contents(path, clock.now) == last | {"more": b"x"}


def test_past_of_a_chain_vacuumed_in_part(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    states = history(path, clock, 3)
    moments = list(states)
    consolidate(path, vacuum=True)
    clock.now += 1000
    write(path, {"more": b"x"})
    consolidate(path)  # of what is consolidated and one more, not vacuumed
    assert contents(path, moments[-1]) == states[moments[-1]]
    with pytest.raises(tilekv.HistoryVacuumed):
        tilekv.open(path, timestamp=moments[0])
    with tilekv.open(path, "a") as db:
        db.vacuum()
    for moment in moments:
        with pytest.raises(tilekv.HistoryVacuumed):
            tilekv.open(path, timestamp=moment)
    assert contents(path, clock.now) == states[moments[-1]] | {"more": b"x"}


def test_vacuumed_past_of_split_outputs(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    states = history(path, clock)
    moments = list(states)
    with tilekv.open(path, "a", config={"kv.max_fragment_bytes": 100}) as db:
        db.consolidate()
        assert len(db.fragments) > 1
        for moment, state in states.items():
            assert contents(path, moment) == state
        db.vacuum()
    assert contents(path, moments[-1]) == states[moments[-1]]
    with pytest.raises(tilekv.HistoryVacuumed):
        tilekv.open(path, timestamp=moments[0])


def test_reader_of_the_past_keeps_it(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    states = history(path, clock)
    moment = list(states)[2]
    with tilekv.open(path, timestamp=moment) as db:
        consolidate(path, vacuum=True)
        assert dict(db.items()) == states[moment]
        assert db.timestamp == moment
        with pytest.raises(tilekv.HistoryVacuumed):
            db.reopen()
        assert dict(db.items()) == states[moment]


def as_datetime(ms: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)


FORMS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "int64": np.int64,
    "datetime in UTC": as_datetime,
    "datetime elsewhere": lambda ms: as_datetime(ms).astimezone(
        dt.timezone(dt.timedelta(hours=-5))
    ),
    "local datetime": lambda ms: as_datetime(ms).astimezone().replace(tzinfo=None),
    "datetime64[ms]": lambda ms: np.datetime64(ms, "ms"),
    "datetime64[us]": lambda ms: np.datetime64(ms * 1000 + 999, "us"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_a_moment(tmp_path: Path, clock: Clock, form: Callable[[int], Any]) -> None:
    """To the millisecond and inclusive, whatever it is given as."""
    path = tmp_path / "store"
    rng = random.Random(4)
    # The first is not a whole number of ms when a float of seconds is multiplied by 1000.
    moments = [1_099_449_848_666, *sorted(rng.sample(range(11 * 10**11, 19 * 10**11), 5))]
    for moment in moments:
        clock.now = moment
        write(path, {"k": b"%d" % moment})
    for moment in moments:
        with tilekv.open(path, timestamp=form(moment)) as db:
            assert db.timestamp == moment
            assert db["k"] == b"%d" % moment
            assert type(db.timestamp) is int


@pytest.mark.parametrize("moment", [1.5, "now", True, np.float32(1), b"1"])
def test_what_is_no_moment(tmp_path: Path, clock: Clock, moment: Any) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with pytest.raises(tilekv.WrongTypeError):
        tilekv.open(path, timestamp=moment)
    with pytest.raises(tilekv.InvalidValueError):
        tilekv.open(path, timestamp=np.datetime64("NaT", "ms"))


def test_past_is_for_reading(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1"})
    for mode in ("a", "w", "x"):
        with pytest.raises(tilekv.InvalidValueError):
            tilekv.open(path, mode, timestamp=clock.now)  # type: ignore[arg-type]
    assert contents(path) == {1: b"1"}


# --- clocks ----------------------------------------------------------------------------------------


def test_fragments_from_the_future(tmp_path: Path, clock: Clock) -> None:
    """Order beats visibility: shown, unless a moment is asked for."""
    path = tmp_path / "store"
    write(path, {1: b"now"})
    now = clock.now
    clock.now += 3_600_000
    write(path, {1: b"in an hour", 2: b"in an hour"})
    clock.now = now
    assert contents(path) == {1: b"in an hour", 2: b"in an hour"}
    assert contents(path, now) == {1: b"now"}
    clock.now += 5000
    write(path, {1: b"newest"})
    assert contents(path) == {1: b"newest", 2: b"in an hour"}
    assert contents(path, clock.now) == {1: b"now"}
    consolidate(path, vacuum=True)
    assert contents(path) == {1: b"newest", 2: b"in an hour"}


@pytest.mark.parametrize("back", [1, 10, 1000, 10**9])
def test_clock_set_back_between_sessions(tmp_path: Path, clock: Clock, back: int) -> None:
    path = tmp_path / "store"
    for i in range(4):
        write(path, {"k": b"%d" % i, i: b"x"}, (i - 1,))
        assert contents(path) == {"k": b"%d" % i, i: b"x"}
        clock.now -= back
    consolidate(path)
    clock.now -= back
    write(path, {"k": b"last"})
    assert contents(path) == {"k": b"last", 3: b"x"}


def test_small_step_ahead_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store"
    first = write(path, {1: b"1"})
    second = write(path, {1: b"2"})
    assert int(second.split("_")[2]) == int(first.split("_")[2]) + 1
    assert clock.now == int(second.split("_")[2])  # it slept


@pytest.mark.parametrize("reverse", [False, True])
def test_equal_timestamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, reverse: bool
) -> None:
    """Two hosts in one millisecond: the greater name wins, before and after a consolidation."""
    path = tmp_path / "store"
    monkeypatch.setattr("tilekv.commit.later_time", lambda storage, known: 5)
    for value in (b"1", b"2"):
        write(path, {"k": value})
    names = sorted(folders(path), reverse=reverse)
    with tilekv.open(path) as db:
        assert [fragment.name for fragment in db.fragments] == sorted(names, reverse=True)
        winner = db["k"]
    consolidate(path, vacuum=True)
    assert contents(path) == {"k": winner}


# --- reopen ----------------------------------------------------------------------------------------


def test_handles_see_others_after_reopen(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write(path, {1: b"1", 2: b"2"})
    with tilekv.open(path, "a") as one, tilekv.open(path, "a") as two, tilekv.open(path) as reader:
        one[3] = b"one"
        two[3] = b"two"
        two[4] = b"two"
        del two[1]
        two.flush()
        two.consolidate()
        assert dict(two.items()) == {2: b"2", 3: b"two", 4: b"two"}
        assert dict(one.items()) == {1: b"1", 2: b"2", 3: b"one"}
        assert dict(reader.items()) == {1: b"1", 2: b"2"}
        reader.reopen()
        assert dict(reader.items()) == {2: b"2", 3: b"two", 4: b"two"}
        one.reopen()  # keeps what is buffered
        assert one.info().buffered == 1
        assert dict(one.items()) == {2: b"2", 3: b"one", 4: b"two"}
        one.flush()
        assert dict(one.items()) == {2: b"2", 3: b"one", 4: b"two"}
        assert dict(reader.items()) == {2: b"2", 3: b"two", 4: b"two"}
    assert contents(path) == {2: b"2", 3: b"one", 4: b"two"}


@pytest.mark.parametrize(
    "schema",
    [
        Schema([Attr("value", bytes)], digest="md5"),
        Schema([Attr("other", "int32")]),
    ],
    ids=["digest", "attributes"],
)
def test_reopen_of_a_replaced_store(tmp_path: Path, schema: Schema) -> None:
    """With the schema of what was opened, another store's keys would seem to be missing."""
    path = tmp_path / "store"
    write(path, {1: b"1"})
    with tilekv.open(path) as reader:
        with tilekv.open(path, "w", schema=schema) as db:
            db[1] = b"2" if schema.attrs[0].name == "value" else 2
        assert reader[1] == b"1"
        with pytest.raises(tilekv.StoreReplacedError):
            reader.reopen()
        assert reader[1] == b"1"


# --- colliding keys --------------------------------------------------------------------------------


def md5_pairs() -> list[list[bytes]]:
    fixture = Path(__file__).parents[1] / "fixtures" / "md5_collisions.json"
    return [
        [bytes.fromhex(key) for key in each["keys"]] for each in json.loads(fixture.read_text())
    ]


@pytest.mark.parametrize("vacuum", [False, True])
def test_both_keys_of_a_collision_live(tmp_path: Path, vacuum: bool) -> None:
    path = tmp_path / "store"
    pairs = md5_pairs()
    model: dict[Any, bytes] = {}
    with tilekv.open(
        path, "a", schema=Schema([Attr("value", bytes)], digest="md5", capacity=3)
    ) as db:

        def settle() -> None:
            db.flush()
            assert dict(db.items()) == model
            everyone = [key for pair in pairs for key in pair]
            assert db.get_many(everyone) == [model.get(key) for key in everyone]
            batch = db.read(everyone, missing="mask")
            assert list(batch.found) == [key in model for key in everyone]
            assert all((key in db) == (key in model) for key in everyone)
            assert len(db) == len(model)

        def put(values: dict[Any, bytes]) -> None:
            db.put_many(values)
            model.update(values)
            settle()

        def delete(keys: list[bytes]) -> None:
            db.delete_many(keys)
            for key in keys:
                model.pop(key, None)
            settle()

        put({a: b"a" for a, _ in pairs})
        put({b: b"b" for _, b in pairs} | dict.fromkeys(range(10), b"other"))
        delete([a for a, _ in pairs])  # hides its own key only
        db.consolidate(vacuum=vacuum)
        settle()
        put({a: b"again" for a, _ in pairs})
        put({b: b"b2" for _, b in pairs[::2]})
        db.consolidate(vacuum=vacuum)
        settle()
        delete([b for _, b in pairs])
        db.consolidate(vacuum=vacuum)
        settle()
        put({b: b"b3" for _, b in pairs})
        del db[pairs[0][0]]
        del model[pairs[0][0]]
        settle()
        db.consolidate(vacuum=vacuum)
        settle()
    assert contents(path) == model


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> Schema:
    """All keys have one digest."""
    from tilekv.kvcore.hashing.digest import DIGESTS
    from tilekv.kvcore.testing import COLLIDING

    monkeypatch.setattr("tilekv.schema.DIGESTS", ("blake2b", "md5", "colliding"))
    monkeypatch.setitem(DIGESTS, "colliding", COLLIDING)
    return Schema([Attr("value", bytes)], digest="colliding", capacity=16)


def test_thousand_keys_of_one_digest(tmp_path: Path, colliding: Schema) -> None:
    path = tmp_path / "store"
    rng = random.Random(6)
    model: dict[int, bytes] = {}
    config = {"kv.max_fragment_bytes": 2000}  # would split, but equal digests stay together
    with tilekv.open(path, "a", schema=colliding, config=config) as db:
        for i in range(5):
            part = {key: b"%d %d" % (key, i) for key in rng.sample(range(1000), 600)}
            gone = rng.sample(range(1000), 100)
            db.put_many(part)
            db.delete_many(gone)
            model = {k: v for k, v in (model | part).items() if k not in gone}
            assert len(db) == len(model)
            db.flush()
            assert dict(db.items()) == model
            assert db.get_many(range(1100)) == [model.get(key) for key in range(1100)]
            if i == 2:
                db.consolidate(vacuum=True)
                assert len(db.fragments) == 1
        assert contents(path) == model
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1
        assert dict(db.items()) == model
    assert contents(path) == model


def test_equal_digests_do_not_cost_the_square(tmp_path: Path, colliding: Schema) -> None:
    """A guard against a hang: twenty times what it took of the processor and more. The square would be minutes."""
    n = 200_000
    start = time.process_time()
    with tilekv.open(tmp_path / "s", "a", schema=colliding, config={"kv.sync": False}) as db:
        for i in range(3):
            db.put_many(dict.fromkeys(range(i, n + i), b"%d" % i))
            db.flush()
        assert len(db.get_many(range(n))) == n
        assert sum(key in db for key in range(0, n + 100, 7)) > n // 8
        db.consolidate(vacuum=True)
        assert len(list(db)) == n + 2
    assert time.process_time() - start < 60  # measured: 1.4

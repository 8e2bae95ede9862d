"""Two writers and a reader of one store against plain dicts, over every kind of key, storage, filter and tiny limit.

The oracle knows a store as a list of fragments, each a dict from key to row (None for a delete, EXPIRED for what has expired,
which is read as a delete and counted as a value), and a handle as the fragments that it has seen with a dict of what it has
frozen and one of what it has buffered. It shares nothing with the store but the digests that give the order. Moments are years
away: what has expired when it is written has in every past that can be opened, and the rest never does.
"""

import datetime as dt
import json
import random
import struct
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import tilekv
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates

COLLISIONS = json.loads((Path(__file__).parents[1] / "fixtures/md5_collisions.json").read_text())
PAIRS = [
    [
        bytes.fromhex(key)
        if pair["key_type"] == "BLOB"
        else tilekv.Key(pair["key_type_code"], bytes.fromhex(key))
        for key in pair["keys"]
    ]
    for pair in COLLISIONS[:4]
]

Identity = tuple[int, bytes]
Row = tuple[Any, ...]  # the attributes' cells in a form that compares
Delta = dict[Identity, Row | None]
EXPIRED: Row = ("expired",)  # this object

MOMENTS: list[Any] = [
    *(None, dt.datetime(2200, 1, 1, tzinfo=dt.UTC), 1e9, np.timedelta64(9999, "D")),
    *(dt.datetime(2001, 2, 3, tzinfo=dt.UTC), -1e9, np.datetime64("1999-01-01"), -1e300),
]
GONE = MOMENTS[4:]

KEYS: list[Any] = [
    *("", "a", "key_1", "1", "ä€", "\udcff\udc80", "long " * 700),
    *(b"", b"a", b"1", bytearray(b"array"), memoryview(b"view"), bytes(range(256)) * 300),
    *(0, 1, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1),
    *(0.0, -0.0, 1.0, float("nan"), float("inf")),
    *(
        np.int8(1),
        np.int32(1),
        np.int64(2),
        np.uint8(1),
        np.uint64(1),
        np.float32(1),
        np.float64(2),
    ),
    *(np.datetime64("2020-01-01", "D"), np.timedelta64(5, "s")),
    *(np.array([1, 2], np.int32), np.array([], np.float32), np.array([1], np.int32)),
    *(tilekv.Key(11, b"ascii"), tilekv.Key(127, b"")),
    *(key for pair in PAIRS for key in pair),
]


def identity(key: Any) -> Identity:
    """(type, bytes) of a key by the table of docs/design.md 3, where one number is one key."""
    if isinstance(key, np.generic) and key.dtype.kind in "iuf":
        key = key.item()
    codes = ["i4", "i8", "f4", "f8", None, "i1", "u1", "i2", "u2", "u4", "u8"]
    if isinstance(key, str):
        return 4, key.encode("utf-8", "surrogateescape")
    if isinstance(key, (bytes, bytearray, memoryview)):
        return 40, bytes(key)
    if isinstance(key, tilekv.Key):
        return key.type, key.data
    if isinstance(key, (np.generic, np.ndarray)):
        if key.dtype.kind in "mM":
            units = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"]
            place = units.index(np.datetime_data(key.dtype)[0])
            return (18 + place if key.dtype.kind == "M" else 31 + place - 4), key.tobytes()
        return codes.index(key.dtype.str[1:]), key.tobytes()
    if isinstance(key, int):
        return (10, struct.pack("<Q", key)) if key > 2**63 - 1 else (1, struct.pack("<q", key))
    return 3, struct.pack("<d", key)


def blob(seed: int, size: int, packs: bool) -> bytes:
    return (
        b"tile" * (size // 4) + b"k" * (size % 4) if packs else random.Random(seed).randbytes(size)
    )


BLOBS = st.one_of(
    st.binary(max_size=40),
    st.builds(
        blob,
        st.integers(0, 9),
        st.sampled_from([0, 4095, 4096, 4097, 9000, 66_000]),
        st.booleans(),
    ),
)
LARGE = st.builds(
    blob, st.integers(0, 9), st.sampled_from([1 << 20, (1 << 20) + 17, 2_200_000]), st.booleans()
)
SEVERAL = tilekv.Schema(
    [
        tilekv.Attr("number", "int32"),
        tilekv.Attr("text", str),
        tilekv.Attr("blob", bytes),
        tilekv.Attr("point", "float32", shape=(3,)),
        tilekv.Attr("list", "uint16", var=True),
        tilekv.Attr("flag", bool),
    ]
)
ROWS = st.tuples(
    st.integers(-(2**31), 2**31 - 1),
    st.text(st.characters(codec="utf-8"), max_size=12),
    BLOBS,
    st.tuples(*[st.floats(width=32, allow_nan=False)] * 3),
    st.lists(st.integers(0, 65535), max_size=6),
    st.booleans(),
)


def comparable(value: Any) -> Any:
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value


class Side:
    """A handle and what it should show."""

    def __init__(self, db: tilekv.Store, seen: list[Delta]) -> None:
        self.db = db
        self.seen = seen  # oldest first
        self.frozen: Delta = {}  # between freeze and commit
        self.buffer: Delta = {}

    def state(self) -> dict[Identity, Row]:
        state: Delta = {}
        for delta in (*self.seen, self.frozen, self.buffer):
            state |= delta
        return {key: row for key, row in state.items() if row is not None and row is not EXPIRED}


class Machine(RuleBasedStateMachine):
    @initialize(
        several=st.booleans(),
        digest=st.sampled_from(["blake2b", "md5"]),
        capacity=st.sampled_from([1, 2, 4, 16, 1024]),
        offsets=st.sampled_from(
            [None, tilekv.FilterList(tilekv.ZstdFilter()), tilekv.FilterList()]
        ),
        keys=st.sampled_from([None, tilekv.FilterList(), tilekv.FilterList(tilekv.ZstdFilter())]),
        values=st.sampled_from([None, tilekv.FilterList(), tilekv.FilterList(tilekv.LZ4Filter())]),
        memory=st.booleans(),
        buffer_bytes=st.sampled_from([1, 300, 20_000, 256 << 20]),
        cache_bytes=st.sampled_from([0, 1000, 100_000, 64 << 20]),
        mmap=st.booleans(),
        threads=st.sampled_from([1, 3]),
        mapped=st.sampled_from([0, 2, 1000]),
        expires=st.booleans(),
    )
    def begin(
        self,
        several: bool,
        digest: str,
        capacity: int,
        offsets: Any,
        keys: Any,
        values: Any,
        memory: bool,
        buffer_bytes: int,
        cache_bytes: int,
        mmap: bool,
        threads: int,
        mapped: int,
        expires: bool,
    ) -> None:
        attrs = SEVERAL.attrs if several else [tilekv.Attr("value", bytes, filters=values)]
        given = {"offsets_filters": offsets, "key_filters": keys}
        self.schema = tilekv.Schema(
            attrs, digest=digest, capacity=capacity, expires=expires,
            **{name: filters for name, filters in given.items() if filters is not None},
        )  # fmt: skip
        self.names = [attr.name for attr in self.schema.attrs]
        self.config = {
            "kv.buffer_bytes": buffer_bytes, "kv.cache_bytes": cache_bytes, "kv.mmap": mmap,
            "kv.threads": threads, "kv.sync": False, "kv.max_mapped_fragments": mapped,
            "kv.upkeep": "off",  # fragments are counted
        }  # fmt: skip
        self.folder = None if memory else tempfile.TemporaryDirectory()
        self.uri = (
            f"memory://{uuid.uuid4().hex}" if self.folder is None else f"{self.folder.name}/s"
        )
        self.fragments: list[Delta] = []
        first = tilekv.open(self.uri, "x", schema=self.schema, config=self.config)
        self.sides = [Side(first, []), Side(self.open("a"), []), Side(self.open("r"), [])]
        self.iterators: list[tuple[Any, dict[Identity, Row]]] = []

    def open(self, mode: Any, **arguments: Any) -> tilekv.Store:
        return tilekv.open(self.uri, mode, config=self.config, **arguments)

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        for side in self.sides[:2]:
            self.commit(side)
            side.db.close()
        with self.open("r") as db:
            assert db.verify() == []
            self.check_all(db, Side(db, self.fragments).state())
            for i, fragment in enumerate(reversed(db.fragments)):
                with self.open("r", timestamp=fragment.t2) as past:
                    expected = Side(past, self.fragments[: i + 1]).state()
                    assert len(past) == len(expected)
                    assert {identity(key) for key in past} == set(expected)
        self.sides[2].db.close()
        if self.folder is not None:
            self.folder.cleanup()

    # --- words ---

    def commit(self, side: Side) -> None:
        """What a flush of this handle does to the model."""
        self.commit_frozen(side)
        if side.buffer:
            self.fragments.append(side.buffer)
            side.seen.append(side.buffer)
            side.buffer = {}

    def commit_frozen(self, side: Side) -> None:
        if side.frozen:
            self.fragments.append(side.frozen)
            side.seen.append(side.frozen)
            side.frozen = {}

    def wrote(self, side: Side, delta: Delta) -> None:
        """A full buffer has been written behind us; what was frozen before goes first."""
        side.buffer |= delta
        side.db._join()
        if side.db._frozen is None:
            self.commit_frozen(side)
            if side.db._buffer.n == 0:
                self.commit(side)

    def value(self, row: Row) -> Any:
        return row[0] if len(self.names) == 1 else dict(zip(self.names, row, strict=True))

    def row(self, value: Any) -> Row:
        values = (value,) if len(self.names) == 1 else [value[name] for name in self.names]
        return tuple(map(comparable, values))

    def kept(self, row: Row) -> Row:
        """What comes back: cells of lists and tuples are arrays."""
        return tuple(tuple(cell) if isinstance(cell, list) else cell for cell in row)

    def moment(self, data: st.DataObject) -> dict[str, Any]:
        """What put_many takes beside keys and values."""
        return {"expire": data.draw(st.sampled_from(MOMENTS))} if self.schema.expires else {}

    def stored(self, row: Row, expire: Any = None) -> Row:
        """What the model has of a row that is set."""
        return EXPIRED if expire in GONE else self.kept(row)

    def rows(self, data: st.DataObject) -> Row:
        if len(self.names) > 1:
            return data.draw(ROWS)
        if data.draw(st.integers(0, 40)) == 7:
            return (data.draw(LARGE),)
        return (data.draw(BLOBS),)

    def many(self, data: st.DataObject) -> list[tuple[Any, Row]]:
        size = data.draw(st.sampled_from([0, 1, 5, 40]))
        seed = data.draw(st.integers(0, 2**16))
        few = [self.rows(data) for _ in range(min(size, 4))]
        pick = random.Random(seed)
        return [(self.any_key(pick), pick.choice(few)) for _ in range(size)]

    def any_key(self, pick: random.Random) -> Any:
        return pick.choice(KEYS) if pick.random() < 0.6 else f"key_{pick.randrange(60)}"

    def check_all(self, db: tilekv.Store, state: dict[Identity, Row]) -> None:
        """Everything that shows the whole store shows the same."""
        kind = DIGESTS[self.schema.digest]
        cells = list(state)
        order = [cell for _, cell in sorted(zip(coordinates(kind, cells), cells, strict=True))]
        assert len(db) == len(state)
        assert bool(db) == bool(state)
        assert [identity(key) for key in db] == order
        items = list(db.items())
        assert [identity(key) for key, _ in items] == order
        assert [self.row(value) for _, value in items] == [state[cell] for cell in order]
        assert [self.row(value) for value in db.values()] == [state[cell] for cell in order]
        found = db.get_many([key for key, _ in items], self)
        assert [self.row(value) for value in found] == [state[cell] for cell in order]

    sides_of_writers = st.integers(0, 1)
    sides_of_all = st.integers(0, 2)
    keys = st.one_of(st.sampled_from(KEYS), st.integers(0, 59).map(lambda i: f"key_{i}"))

    # --- writes ---

    @rule(which=sides_of_writers, key=keys, data=st.data(), as_tuple=st.booleans())
    def put(self, which: int, key: Any, data: st.DataObject, as_tuple: bool) -> None:
        side, row = self.sides[which], self.rows(data)
        value = row if as_tuple and len(row) > 1 else self.value(row)
        expire = self.moment(data).get("expire")
        if expire is None:
            side.db[key] = value
        else:
            side.db.set(key, value, expire)
        self.wrote(side, {identity(key): self.stored(row, expire)})

    @rule(
        which=sides_of_writers,
        data=st.data(),
        form=st.sampled_from(["rows", "columns", "pairs", "mapping"]),
    )
    def put_many(self, which: int, data: st.DataObject, form: str) -> None:
        side, items = self.sides[which], self.many(data)
        if form == "mapping":
            items = [(key, row) for key, row in items if isinstance(key, (str, int))]
        keys = [key for key, _ in items]
        moment = self.moment(data)
        moments = [moment.get("expire")] * len(items)
        if moment and form in ("rows", "columns"):
            seed = data.draw(st.integers(0, 99))
            moments = [random.Random(seed + i).choice(MOMENTS) for i in range(len(items))]
            moment = {"expire": moments}
        if form == "rows":
            side.db.put_many(keys, [self.value(row) for _, row in items], **moment)
        elif form == "columns":
            columns = {name: [row[i] for _, row in items] for i, name in enumerate(self.names)}
            side.db.put_many(keys, **columns, **moment)
        elif form == "pairs":
            side.db.put_many(((key, self.value(row)) for key, row in items), **moment)
        else:
            side.db.put_many({key: self.value(row) for key, row in items}, **moment)
        cells = zip(items, moments, strict=True)
        self.wrote(side, {identity(key): self.stored(row, expire) for (key, row), expire in cells})

    @rule(
        which=sides_of_writers,
        first=st.integers(0, 400),
        size=st.sampled_from([50, 400]),
        data=st.data(),
    )
    def bulk(self, which: int, first: int, size: int, data: st.DataObject) -> None:
        """Enough cells for many tiles; some of the keys are those of the other rules."""
        side = self.sides[which]
        row = (
            (b"%d" % first * 20,)
            if len(self.names) == 1
            else (first, "t", b"%d" % first, (0.5,) * 3, (first,) * 2, True)
        )
        keys = [f"key_{i}" for i in range(first, first + size)]
        moment = self.moment(data)
        side.db.put_many(keys, [self.value(row)] * size, **moment)
        stored = self.stored(row, moment.get("expire"))
        self.wrote(side, {identity(key): stored for key in keys})

    @rule(which=sides_of_writers, key=keys, data=st.data())
    @precondition(lambda self: self.schema.expires)
    def touch(self, which: int, key: Any, data: st.DataObject) -> None:
        """Another moment for what is there now, whoever wrote it."""
        side, moment = self.sides[which], self.moment(data)
        side.seen = list(self.fragments)
        row = side.state().get(identity(key))
        if row is None:
            with pytest.raises(KeyError):
                side.db.touch(key, **moment)
            self.wrote(side, {})
        else:
            side.db.touch(key, **moment)
            self.wrote(side, {identity(key): self.stored(row, moment["expire"])})

    @rule(which=sides_of_writers, key=keys)
    def delete(self, which: int, key: Any) -> None:
        side = self.sides[which]
        if identity(key) in side.state():
            del side.db[key]
            self.wrote(side, {identity(key): None})
        else:
            with pytest.raises(KeyError):
                del side.db[key]
            self.wrote(side, {})  # what was full may have been written all the same

    @rule(which=sides_of_writers, seed=st.integers(0, 99), size=st.sampled_from([0, 1, 20]))
    def delete_many(self, which: int, seed: int, size: int) -> None:
        side, pick = self.sides[which], random.Random(seed)
        keys = [self.any_key(pick) for _ in range(size)]
        side.db.delete_many(keys)
        self.wrote(side, {identity(key): None for key in keys})

    @rule(which=sides_of_writers)
    def flush(self, which: int) -> None:
        side = self.sides[which]
        side.db.flush()
        assert side.db.info().buffered == 0
        self.commit(side)

    @rule(which=sides_of_writers)
    def freeze(self, which: int) -> None:
        """A flush begins; what other rules do happens between that and its commit."""
        side = self.sides[which]
        with side.db._lock:
            if side.db._frozen is None and side.db._freeze():
                side.frozen, side.buffer = side.buffer, {}
        assert side.db.info().buffered >= len(side.frozen) + len(side.buffer)

    @rule(which=sides_of_writers)
    def commit_what_is_frozen(self, which: int) -> None:
        side = self.sides[which]
        with side.db._lock:
            side.db._flush_here()
        self.commit_frozen(side)

    @rule(which=sides_of_writers)
    def pop(self, which: int) -> None:
        side = self.sides[which]
        state = side.state()
        if state:
            key, value = side.db.popitem()
            assert state[identity(key)] == self.row(value)
            self.wrote(side, {identity(key): None})

    @rule(which=sides_of_writers)
    @precondition(lambda self: len(self.fragments) % 7 == 3)
    def clear(self, which: int) -> None:
        side = self.sides[which]
        state = side.state()
        side.db.clear()
        self.wrote(side, dict.fromkeys(state))

    @rule(which=sides_of_all)
    def reopen(self, which: int) -> None:
        side = self.sides[which]
        side.db.reopen()
        side.seen = list(self.fragments)

    @rule(which=sides_of_all)
    def close(self, which: int) -> None:
        side = self.sides[which]
        self.commit(side)
        side.db.close()
        with pytest.raises(ValueError, match="closed"):
            side.db.get("a")
        side.db = self.open("r" if which == 2 else "a")
        side.seen = list(self.fragments)
        assert side.db.verify() == []

    # --- reads ---

    @rule(which=sides_of_all, key=keys)
    def get(self, which: int, key: Any) -> None:
        side = self.sides[which]
        expected = side.state().get(identity(key))
        assert (key in side.db) == (expected is not None)
        if expected is None:
            assert side.db.get(key, self) is self
            for look in (side.db.__getitem__, side.db.expires):
                with pytest.raises(KeyError):
                    look(key)
        else:
            assert self.row(side.db[key]) == expected
            assert self.row(side.db.get(key)) == expected

    @rule(which=sides_of_all, seed=st.integers(0, 2**16), size=st.sampled_from([0, 1, 7, 60]))
    def get_many(self, which: int, seed: int, size: int) -> None:
        side, pick = self.sides[which], random.Random(seed)
        state = side.state()
        keys = [self.any_key(pick) for _ in range(size)]
        expected = [state.get(identity(key)) for key in keys]
        found = side.db.get_many(keys, self)
        assert [None if value is self else self.row(value) for value in found] == expected
        batch = side.db.read(keys, missing="mask")
        assert batch.found is not None
        assert batch.found.tolist() == [row is not None for row in expected]
        for i, name in enumerate(self.names):
            column = (
                batch[name].to_list() if hasattr(batch[name], "to_list") else batch[name].tolist()
            )
            cells = [tuple(cell) if isinstance(cell, list) else comparable(cell) for cell in column]
            empty = self.schema.attrs[i].type_name
            zero: Any = {
                "int32": 0,
                "str": "",
                "bytes": b"",
                "float32": (0.0,) * 3,
                "uint16": (),
                "bool": False,
            }[empty]
            assert cells == [zero if row is None else row[i] for row in expected]
        if None in expected:
            with pytest.raises(KeyError):
                side.db.read(keys)

    @rule(which=sides_of_all)
    def whole(self, which: int) -> None:
        side = self.sides[which]
        self.check_all(side.db, side.state())

    @rule(which=sides_of_all, rows=st.sampled_from([1, 3, 1000]))
    def scan(self, which: int, rows: int) -> None:
        side = self.sides[which]
        seen = {}
        for batch in side.db.scan(rows=rows):
            assert 1 <= len(batch) <= rows
            columns = [batch[name] for name in self.names]
            for i, key in enumerate(batch.keys):
                cells = (column[i] for column in columns)
                seen[identity(key)] = tuple(
                    comparable(cell.item() if isinstance(cell, np.generic) else cell)
                    for cell in cells
                )
        assert seen == side.state()

    @rule(which=sides_of_all)
    def iterate(self, which: int) -> None:
        """Begun now, read later: it shows the state as it is now."""
        side = self.sides[which]
        self.iterators.append((iter(side.db.items()), side.state()))

    @rule(all_=st.booleans())
    @precondition(lambda self: self.iterators)
    def drain(self, all_: bool) -> None:
        iterator, expected = self.iterators.pop(0)
        if not all_:
            for key, value in zip(range(2), iterator, strict=False):
                note(f"{key}: {value!r}")
            return
        assert {identity(key): self.row(value) for key, value in iterator} == expected

    @invariant()
    def counts(self) -> None:
        for side in getattr(self, "sides", ()):
            info = side.db.info()
            assert info.fragments == len(side.seen)
            assert info.cells == sum(map(len, side.seen))
            assert info.tombstones == sum(
                row is None for delta in side.seen for row in delta.values()
            )
            assert (info.buffered > 0) == bool(side.frozen or side.buffer)


def test_store_equals_dict() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Stores that are damaged in memory: an image of every file, changed at will, and what reading it then gives.

A read of a damaged store is right or raises CorruptionError: `probe` tries every way of reading and says which it was.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

import tilekv
from counts import COUNTS
from lists import merge_by_list
from tilekv import Attr, FilterList, Schema
from tilekv.errors import CorruptionError
from tilekv.names import ASIDE, PAST, STAGED, record_file, record_number
from tilekv.storage import RecordFile, memory

NIGHTLY = os.environ.get("TILEKV_NIGHTLY") == "1"
TALLY = COUNTS["damage"]

Rows = dict[Any, Any]
Files = dict[str, bytes]  # by path below the store, `folder/file` or `file`

_numbers = itertools.count()


@dataclass
class Image:
    """Every file of a store, and what it must be read as."""

    files: Files
    rows: Rows
    ever: Rows  # every value that a key ever had, as lists

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def folders(self) -> list[str]:
        return sorted({path.split("/")[0] for path in self.files if "/" in path} - {ASIDE})

    def with_file(self, path: str, data: bytes | None) -> Image:
        """A copy in which one file is another, or gone."""
        files = dict(self.files)
        if data is None:
            del files[path]
        else:
            files[path] = data
        return Image(files, self.rows, self.ever)

    def renamed(self, names: Mapping[str, str]) -> Image:
        """A copy in which folders, or files of the root, have other names."""
        files = {}
        for path, data in self.files.items():
            first, *rest = path.split("/")
            files["/".join([names.get(first, first), *rest])] = data
        return Image(files, self.rows, self.ever)


class Place:
    """A name in the memory of this process, at which one image after another stands."""

    def __init__(self) -> None:
        self.name = f"damage-{next(_numbers)}"
        self.uri = f"memory://{self.name}"

    def show(self, image: Image) -> None:
        memory._roots[self.name] = root_of(image.files)

    def image(self, rows: Rows, ever: Rows) -> Image:
        """What stands here now."""
        return Image(files_at(self.name), rows, ever)

    def close(self) -> None:
        memory._roots.pop(self.name, None)


def root_of(files: Mapping[str, bytes]) -> memory._Root:
    """A store in memory that has these files; paths that mean nothing there are left out."""
    root = memory._Root({})
    for path, data in files.items():
        match path.split("/"):
            case [file]:
                root.files[file] = data
            case [aside, file] if aside == ASIDE:
                seq = record_number(file)
                if seq and (not root.record or root.record.seq < seq):
                    root.record = RecordFile(seq, data)
            case [folder, file]:
                root.folders.setdefault(folder, {})[file] = data
            case [aside, place, folder, file] if aside == ASIDE and place in (STAGED, PAST):
                where = root.staged if place == STAGED else root.past
                where.setdefault(folder, {})[file] = data
    return root


def files_at(name: str) -> Files:
    root = memory._roots[name]
    files = dict(root.files)
    if root.record:
        files[f"{ASIDE}/{record_file(root.record.seq)}"] = root.record.data
    aside = {f"{ASIDE}/{STAGED}/": root.staged, f"{ASIDE}/{PAST}/": root.past}
    for place, folders in {"": root.folders, **aside}.items():
        for folder, inner in folders.items():
            files |= {f"{place}{folder}/{file}": data for file, data in inner.items()}
    return files


# --- the stores ------------------------------------------------------------------------------------


@contextmanager
def standing_still() -> Iterator[None]:
    """One moment, and uuids that count: what is written meanwhile is the same in every run, and so is how much can be damaged."""
    names = map(uuid.UUID, map("{:08x}000040000000000000000000".format, itertools.count(1)))
    with (
        mock.patch.object(time, "time_ns", return_value=1_700_000_000 * 10**9),
        mock.patch.object(uuid, "uuid4", side_effect=names),
    ):
        yield


def plain() -> Image:
    """Values in place and decoded, text, a delete, an overwrite and an empty value; tiles of 4 cells."""
    schema = Schema(
        [Attr("n", "int32"), Attr("text", str), Attr("blob", bytes, filters=FilterList())],
        capacity=4,
    )
    rows: Rows = {f"k{i}": {"n": i, "text": f"text {i}", "blob": b"%d" % i * i} for i in range(9)}
    later: Rows = {"new": {"n": -1, "text": "", "blob": b"x" * 20}, "k3": rows["k3"] | {"n": 33}}
    return _image(schema, rows, [later | dict.fromkeys(["k0", "k8", "never"])])


def filtered() -> Image:
    """Every kind of chunk: windows, run lengths, deltas, shuffles, digests, LZ4; offsets that must be decoded."""
    chains = {
        "bits": ("uint32", [tilekv.BitWidthReductionFilter(), tilekv.LZ4Filter()]),
        "delta": ("int64", [tilekv.DoubleDeltaFilter()]),
        "runs": ("uint8", [tilekv.RleFilter()]),
        "shuffle": ("float64", [tilekv.ByteShuffleFilter(), tilekv.ZstdFilter(1)]),
        "md5": ("int16", [tilekv.ChecksumMD5Filter()]),
    }
    attrs = [Attr(name, dtype, filters=filters) for name, (dtype, filters) in chains.items()]
    attrs.append(Attr("list", "int16", var=True, filters=[tilekv.GzipFilter(6)]))
    schema = Schema(
        attrs,
        capacity=8,
        offsets_filters=[tilekv.PositiveDeltaFilter(), tilekv.ZstdFilter(1)],
        key_filters=[tilekv.LZ4Filter()],
    )
    rows: Rows = {}
    for i in range(11):
        numbers = {"bits": i * 1000, "delta": -i, "runs": i // 4, "shuffle": i / 3, "md5": i}
        rows[i] = numbers | {"list": np.arange(i % 4, dtype="int16")}
    return _image(schema, rows, [{3: rows[4]}])


def listed() -> Image:
    """The same of the time before the record."""
    return consolidated(by_list=True)


def consolidated(*, by_list: bool = False) -> Image:
    """Two consolidations, one over the other, a flush after them, and all that they have superseded."""
    rows: Rows = {}
    ever: Rows = {}
    place = Place()
    try:
        with tilekv.open(place.uri, "x", schema=Schema([Attr("v", bytes)], capacity=4)) as db:
            for step in range(4):
                for key in range(step, 9, step + 1):
                    db[key] = rows[key] = b"%d of %d" % (key, step)
                    ever.setdefault(key, []).append(rows[key])
                if step:
                    db.delete_many([step])
                    rows.pop(step, None)
                db.flush()
                if step in (1, 2) and by_list:
                    merge_by_list(place.uri)
                    db.reopen()
                elif step in (1, 2):
                    db.consolidate()
        return place.image(rows, ever)
    finally:
        place.close()


def pieces() -> Image:
    """A value of three chunks, tiles of several chunks and so a chunk directory."""
    schema = Schema(
        [Attr("n", "int64", shape=(1200,), filters=FilterList()), Attr("blob", bytes)], capacity=8
    )
    rng = random.Random(5)
    big = rng.randbytes(64) * (5 << 12)
    rows: Rows = {
        key: {"n": np.arange(1200) + key, "blob": big if key == 4 else rng.randbytes(key * 900)}
        for key in range(12)
    }
    return _image(schema, rows, [{5: rows[6]}])


# Of the keys of `expiring` that are there; the others of its keys never expire.
MOMENTS: dict[Any, dt.datetime] = {
    key: dt.datetime(2100, 1, 1, 0, 0, key, tzinfo=dt.UTC) for key in range(0, 30, 2)
}


def expiring() -> Image:
    """Moments to come, past ones and none, in tiles of 4 cells; one that a second flush sets, and one that it takes away."""
    rows: Rows = {key: b"%d" % key for key in range(30)}
    place = Place()
    try:
        schema = Schema([Attr("v", bytes)], capacity=4, expires=True)
        with tilekv.open(place.uri, "x", schema=schema) as db:
            db.put_many(list(rows), list(rows.values()), expire=[MOMENTS.get(key) for key in rows])
            db.put_many({f"past {i}": b"not there" for i in range(5)}, expire=-3600)
            db.set(2, b"past", -3600)
            db.set(3, b"brief", MOMENTS[2])
            db.flush()
            db.set(2, rows[2], MOMENTS[2])
            db[3] = rows[3]
        return place.image(
            rows, {key: [row] for key, row in rows.items()} | {3: [b"brief", rows[3]]}
        )
    finally:
        place.close()


def _image(schema: Schema, rows: Rows, later: list[Rows]) -> Image:
    """A store of one flush, and one for each of `later`, in which None deletes."""
    place = Place()
    ever = {key: [row] for key, row in rows.items()}
    rows = dict(rows)
    try:
        with tilekv.open(place.uri, "x", schema=schema) as db:
            db.put_many(rows)
            db.flush()
            for flush in later:
                for key, row in flush.items():
                    if row is None:
                        db.delete_many([key])
                        rows.pop(key, None)
                    else:
                        db[key] = rows[key] = row
                        ever.setdefault(key, []).append(row)
                db.flush()
        return place.image(rows, ever)
    finally:
        place.close()


IMAGES: dict[str, Callable[[], Image]] = {
    "plain": plain,
    "filtered": filtered,
    "consolidated": consolidated,
    "listed": listed,
    "pieces": pieces,
    "expiring": expiring,
}


# --- reading ---------------------------------------------------------------------------------------


def same(found: Any, right: Any) -> bool:
    """Equality by value, arrays by their elements, rows by attribute."""
    if isinstance(right, dict):
        return (
            isinstance(found, dict)
            and found.keys() == right.keys()
            and all(same(found[key], value) for key, value in right.items())
        )
    if isinstance(right, (list, tuple)):
        return len(found) == len(right) and all(map(same, found, right))
    if isinstance(right, np.ndarray):
        return np.array_equal(found, right)
    return type(found) is type(right) and bool(found == right)


def rows_of(batch: tilekv.Batch, single: bool) -> Iterator[tuple[Any, Any]]:
    columns = {
        name: batch[name].to_list() if hasattr(batch[name], "to_list") else list(batch[name])
        for name in batch
    }
    for i, key in enumerate(batch.keys):
        row = {name: cells[i] for name, cells in columns.items()}
        row = {n: v.item() if isinstance(v, np.generic) else v for n, v in row.items()}
        yield key, next(iter(row.values())) if single else row


def reads(db: tilekv.Store, rows: Rows) -> Iterator[tuple[Callable[[], Any], Any]]:
    """Every way of reading, with what it must give."""
    keys = [*rows, "never", b"nor this"]
    single = len(db.schema.attrs) == 1
    there = list(rows)
    yield lambda: [db.get(key) for key in keys], [rows.get(key) for key in keys]
    yield lambda: db.get_many(keys), [rows.get(key) for key in keys]
    yield lambda: dict(db.items()), rows
    yield lambda: set(db), set(rows)
    yield lambda: dict(rows_of(db.read(there), single)), rows
    yield lambda: dict(pair for batch in db.scan(rows=5) for pair in rows_of(batch, single)), rows
    yield lambda: len(db), len(rows)
    yield lambda: [key in db for key in keys], [key in rows for key in keys]
    if db.schema.expires:
        yield lambda: [db.expires(key) for key in there], [MOMENTS.get(key) for key in there]


class WrongAnswer(AssertionError):
    """A read gave something that was never written, or left out what was."""


def attempt(call: Callable[[], Any], right: Any) -> CorruptionError | None:
    """The error; None when the answer was right."""
    try:
        found = call()
    except CorruptionError as error:
        return error
    if not same(found, right):
        raise WrongAnswer(f"{found!r:.300} instead of {right!r:.300}")
    return None


def probe(
    uri: str, rows: Rows, config: Mapping[str, object] | None = None
) -> list[CorruptionError]:
    """What the reads raised, opening included; WrongAnswer for anything that is neither right nor CorruptionError."""
    try:
        db = tilekv.open(uri, config=config)
    except CorruptionError as error:
        return [error]
    with db:
        found = [attempt(call, right) for call, right in reads(db, rows)]
        errors = [error for error in found if error is not None]
        problems = db.verify()
    if errors and not problems:
        raise WrongAnswer(f"verify() is content with what reading refuses: {errors[0]}")
    return errors


# --- salvage and consolidation ---------------------------------------------------------------------


def check_salvage(image: Image, uri: str) -> tilekv.Salvage | None:
    """Salvage what stands at `uri`: what it copies is right and current, what it sets aside was once written.

    None when nothing proves the schema.
    """
    new, aside = Place(), Place()
    try:
        try:
            report = tilekv.salvage(uri, new.uri, stale=aside.uri)
        except CorruptionError:
            return None
        with tilekv.open(new.uri) as db:
            found = dict(db.items())
            assert db.verify() == []
        for key, value in found.items():
            if key not in image.rows or not same(value, image.rows[key]):
                raise WrongAnswer(f"salvage passes off {key!r}: {value!r:.200} as current")
        with tilekv.open(aside.uri) as db:
            for key, value in db.items():
                if key in found or not any(same(value, one) for one in image.ever.get(key, ())):
                    raise WrongAnswer(f"salvage sets aside {key!r}: {value!r:.200}")
            # What has expired is not counted as copied, but it may be what hides an older entry.
            assert len(db) + (db.info().expired or 0) == report.stale
        assert report.copied == len(found)
        if len(found) < len(image.rows):
            assert report.lost or report.stale or report.unreadable
            assert report.problems
        return report
    finally:
        new.close()
        aside.close()


def unmoved(path: str) -> str:
    """The path of a file before its fragment was set aside."""
    return path.removeprefix(f"{ASIDE}/{PAST}/").removeprefix(f"{ASIDE}/{STAGED}/")


def _data(files: Files) -> Files:
    """The files of the fragments, wherever they are."""
    moved = {unmoved(path): data for path, data in files.items()}
    return {path: data for path, data in moved.items() if "/" in path and ASIDE not in path}


def check_consolidation(image: Image, place: Place) -> bool:
    """Consolidate and vacuum what stands at `place`: right afterwards, or CorruptionError and not a byte has changed. Whether it
    was done."""
    before = files_at(place.name)
    try:
        with tilekv.open(place.uri, "a") as db:
            db.consolidate(vacuum=True)
    except CorruptionError:
        after = files_at(place.name)
        # Merged but not vacuumed is a state like any other: nothing of what was there has gone.
        if not _data(before).items() <= _data(after).items():
            raise WrongAnswer("a consolidation that failed has changed or removed files") from None
        if _data(after) != _data(before) and probe(place.uri, image.rows):
            raise WrongAnswer("a consolidation that failed has left something unreadable") from None
        return False
    if probe(place.uri, image.rows):
        raise WrongAnswer("a consolidation has made a damaged store of a readable one")
    return True

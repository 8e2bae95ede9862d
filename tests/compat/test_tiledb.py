"""Today's TileDB opens a store as it stands, and shows every cell, key and value (docs/format.md 14)."""

import datetime as dt
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tilekv
from repository import ROOT
from sample_stores import SAMPLES, coords

READER = Path(__file__).parents[1] / "support" / "tiledb_reader.py"
TOMBSTONE = 0x80


def tiledb_shows(path: Path, points: list[tuple[int, int]], scratch: Path, *condition: str) -> Any:
    """The output of tiledb_reader.py, cells as bytes."""
    out, asked = scratch / "out.json", scratch / "points.json"
    asked.write_text(json.dumps(points))
    command = [sys.executable, READER, path, out, asked, *condition]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())
    for column in found["columns"].values():
        column["cells"] = [bytes.fromhex(cell) for cell in column["cells"]]
    found["points"] = [sorted(bytes.fromhex(key) for key in keys) for keys in found["points"]]
    return found


def as_shown(text: bytes) -> bytes:
    """TileDB-Py takes a single NUL of bytes or str for its word for an empty cell; libtiledb itself keeps it."""
    return b"" if text == b"\0" else text


@pytest.mark.parametrize("name", SAMPLES)
def test_every_cell(name: str, written: Callable[[str], Any], tmp_path: Path) -> None:
    sample, path = written(name)
    attrs = sample.schema.attrs
    # Coordinates tell apart what as_shown makes equal; keys, what has one digest.
    rows = {
        (kind, as_shown(key), *coords((kind, key), sample.schema.digest)): row
        for (kind, key), row in sample.rows().items()
    }
    points = sorted({identity[2:] for identity in rows})[:: max(1, len(rows) // 5)]
    missing = [(c0 + 1, c1) for c0, c1 in points[:1]] + [(2**64 - 2, 2**64 - 2)]
    found = tiledb_shows(path, points + missing, tmp_path)
    columns = {title: column["cells"] for title, column in found["columns"].items()}

    names = ["__key", *(attr.name for attr in attrs), "__key_type"]
    assert list(columns) == [*names, "__key_dim_1", "__key_dim_2"]
    kinds = [cell[0] for cell in columns["__key_type"]]
    c0, c1 = (
        [int.from_bytes(cell, "little") for cell in columns[f"__key_dim_{i}"]] for i in (1, 2)
    )
    keys = [kind & ~TOMBSTONE for kind in kinds], columns["__key"], c0, c1
    identities = list(zip(*keys, strict=True))
    assert Counter(identities) == Counter(list(rows))
    for kind, identity in zip(kinds, identities, strict=True):
        assert (kind & TOMBSTONE != 0) == (rows[identity] is None), identity
    for attr in attrs:
        text = attr.type_name in ("bytes", "str")
        for identity, cell in zip(identities, columns[attr.name], strict=True):
            row = rows[identity]
            if row is None:
                assert cell == bytes(0 if attr.var else len(cell)), (attr.name, identity)
            else:
                value = row[attr.name]
                assert cell == (as_shown(value) if text else value), (attr.name, identity)
    if rows:
        shown = {title: column["shown"] for title, column in found["columns"].items()}
        assert shown["__key"] == "bytes"
        assert {attr.name: shown[attr.name] for attr in attrs} == sample.shown()
    there = [sorted(each[1] for each in rows if each[2:] == point) for point in points]
    assert found["points"] == there + [[] for _ in missing]


def test_unfinished_writes_are_not_shown(tmp_path: Path) -> None:
    """What a killed flush leaves behind is no fragment to TileDB either."""
    sample = SAMPLES["one cell"]()
    path = tmp_path / "store"
    sample.write(path)
    fragment = next(path.glob("__*_*_*/"))
    shutil.copytree(fragment, path / f".tmp-{fragment.name[-32:]}")
    found = tiledb_shows(path, [], tmp_path)
    assert found["columns"]["__key"]["cells"] == [b""]


def test_an_attribute_without_a_name(tmp_path: Path) -> None:
    """TileDB knows it by what TileDB 1.x called it in files, and shows no name."""
    path = tmp_path / "store"
    with tilekv.open(path, "x", schema=tilekv.Schema([tilekv.Attr("", "int32")])) as db:
        db.update({"a": 1, "b": 2})
    columns = tiledb_shows(path, [], tmp_path)["columns"]
    assert sorted(columns[""]["cells"]) == [b"\1\0\0\0", b"\2\0\0\0"]


def test_a_store_of_a_frame_and_an_attribute_that_came_later(tmp_path: Path) -> None:
    path = tmp_path / "store"
    table = pa.table({"name": ["a", "b"], "n": pa.array([1, None], pa.int16())})
    tilekv.from_arrow(path, table, "name").close()
    tilekv.append_attr(path, tilekv.Attr("more", str), "x")
    columns = tiledb_shows(path, [], tmp_path)["columns"]
    assert sorted(columns["__key"]["cells"]) == [b"a", b"b"]
    assert sorted(columns["n"]["cells"]) == [b"\0\0", b"\1\0"]
    assert sorted(columns["__valid_n"]["cells"]) == [b"\0", b"\1"]
    assert columns["more"]["cells"] == [b"x", b"x"]


def test_the_condition_of_the_page_leaves_deletes_out(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tiledb.md").read_text()
    (live,) = re.findall(r'live = r"(.*)"', page)
    path = tmp_path / "store"
    # int32's code is 0, the least; that of days the greatest that Python has keys of.
    keys: list[Any] = [
        "gone",
        7,
        np.array([3], "int32"),
        "kept",
        b"\0",
        2.5,
        np.datetime64("2020-01-01"),
    ]
    schema = tilekv.Schema([tilekv.Attr("v", bytes), tilekv.Attr("n", "int64")])
    with tilekv.open(path, "x", schema=schema) as db:
        db.put_many([(key, (b"value", n)) for n, key in enumerate(keys)])
        db.flush()
        for key in keys[:3]:
            del db[key]
    found = tiledb_shows(path, [], tmp_path)["columns"]
    rows = list(zip(*(found[name]["cells"] for name in ("v", "n", "__key_type")), strict=True))
    assert len(rows) == 7
    assert {row[:2] for row in rows if row[2][0] & TOMBSTONE} == {(b"", bytes(8))}
    found = tiledb_shows(path, [], tmp_path, live)["columns"]
    assert sorted(int.from_bytes(n, "little") for n in found["n"]["cells"]) == [3, 4, 5, 6]
    assert set(found["v"]["cells"]) == {b"value"}
    assert b"" in found["__key"]["cells"]  # the key that is one NUL byte, as TileDB-Py shows it


def test_the_condition_of_the_page_leaves_out_what_has_expired(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tiledb.md").read_text()
    (unexpired,) = re.findall(r'unexpired = f"(.*)"', page)
    path = tmp_path / "store"
    schema = tilekv.Schema([tilekv.Attr("n", "int64")], expires=True)
    moments = [None, 86_400, -86_400, dt.datetime(2100, 1, 1, tzinfo=dt.UTC), None, -1, None]
    with tilekv.open(path, "x", schema=schema) as db:
        db.put_many(list("abcdefg"), range(7), expire=moments)
        db.flush()
        del db["e"]
        db.set("a", 10, -5)  # hides the older one, which would never expire
        kept = {n: db.expires(key) for n, key in ((1, "b"), (3, "d"))}
    found = tiledb_shows(path, [], tmp_path)["columns"]
    assert found["__expires"]["shown"] == "int64"
    rows = [
        (kind[0], *(int.from_bytes(cell, "little", signed=True) for cell in cells))
        for kind, *cells in zip(
            *(found[name]["cells"] for name in ("__key_type", "n", "__expires")), strict=True
        )
    ]
    shown = {n: moment for kind, n, moment in rows if not kind & TOMBSTONE}
    assert [moment for kind, _, moment in rows if kind & TOMBSTONE] == [0]
    for n, moment in kept.items():
        assert moment is not None
        assert shown[n] == round(moment.timestamp() * 1000)
    assert shown[2] < shown[10] < shown[5] < shown[1]
    assert shown[6] == 2**63 - 1
    condition = unexpired.format(now=time.time_ns() // 1_000_000)
    found = tiledb_shows(path, [], tmp_path, condition)["columns"]
    assert sorted(int.from_bytes(n, "little") for n in found["n"]["cells"]) == [1, 3, 6]


def test_what_is_null_is_seen(tmp_path: Path) -> None:
    """The validity of docs/format.md 8.2, and the zero that a null is."""
    path = tmp_path / "s"
    schema = tilekv.Schema([tilekv.Attr("n", "int32", nullable=True)])
    with tilekv.open(path, "x", schema=schema) as db:
        db.put_many({"zero": 0, "null": None, "one": 1, "gone": 2})
        del db["gone"]
    found = tiledb_shows(path, [], tmp_path)["columns"]
    assert found["__valid_n"]["shown"] == "uint8"
    cells = dict(
        zip(
            found["__key"]["cells"],
            zip(found["n"]["cells"], found["__valid_n"]["cells"], strict=True),
            strict=True,
        )
    )
    assert cells == {
        b"zero": (bytes(4), b"\1"),
        b"null": (bytes(4), b"\0"),
        b"one": (b"\1\0\0\0", b"\1"),
        b"gone": (bytes(4), b"\0"),
    }


def test_values_that_were_streamed(tmp_path: Path) -> None:
    """In chunks of 128 KiB, with and without a size that was known: as long as they are, and the same bytes."""
    data = np.random.default_rng(1).bytes(1_500_000) + bytes(1_700_000)
    with tilekv.open(tmp_path / "s", "w") as db:
        db.put_stream("a", io.BytesIO(data))
        db.put_stream("b", io.BytesIO(data[1:]), len(data) - 1)
        db["c"] = data[2:]
    found = tiledb_shows(tmp_path / "s", [], tmp_path)
    columns = {title: column["cells"] for title, column in found["columns"].items()}
    shown = dict(zip(columns["__key"], columns["value"], strict=True))
    assert shown == {b"a": data, b"b": data[1:], b"c": data[2:]}

"""Every type, written by item, in NumPy columns and in Arrow columns, is shown by today's TileDB as docs/format.md 14 says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tilekv
from sample_stores import SAMPLES, Sample, cell_of, key_of
from tilekv.engine import DEFAULT_SCHEMA, create
from tilekv.probe import probe
from tilekv.storage import open_storage

READER = Path(__file__).parents[1] / "support" / "tiledb_reader.py"


def by_item(sample: Sample, path: Path) -> None:
    sample.write(path)


def columns(sample: Sample) -> tuple[Any, dict[str, Any]]:
    """The keys, and a column of every attribute: a NumPy array where its cells have one shape."""
    [flush] = sample.flushes
    found: dict[str, Any] = {}
    for i, attr in enumerate(sample.schema.attrs):
        cells = [row[i] for _, row in flush]
        alike = not attr.var and attr.type_name not in ("bytes", "str")
        found[attr.name] = np.array(cells, attr.dtype) if alike else cells
    return np.array([key for key, _ in flush]), found


def by_column(sample: Sample, path: Path) -> None:
    keys, found = columns(sample)
    with tilekv.open(path, "x", schema=sample.schema) as db:
        db.put_many(keys, **found)


def by_arrow(sample: Sample, path: Path) -> None:
    """Times go as NumPy: NaT is a null in Arrow, and far away dates have no room in its dates."""
    keys, found = columns(sample)
    with tilekv.open(path.with_name("between"), "x", schema=sample.schema) as between:
        between.put_many(keys, **found)
        for attr in sample.schema.attrs:
            if attr.dtype.kind not in "mM":
                one = pa.table(between.read(keys, attrs=[attr.name]))
                found[attr.name] = one[attr.name]
    with tilekv.open(path, "x", schema=sample.schema) as db:
        db.put_many(pa.array(keys), **found)


def shown_by_tiledb(path: Path, scratch: Path) -> Any:
    out = scratch / "out.json"
    command = [sys.executable, READER, path, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())["columns"]


@pytest.mark.parametrize("name", ["scalars", "shapes", "arrays", "empty values"])
@pytest.mark.parametrize("write", [by_item, by_column, by_arrow])
def test_every_type(name: str, write: Callable[[Sample, Path], None], tmp_path: Path) -> None:
    sample = SAMPLES[name]()
    write(sample, tmp_path / "store")
    found = shown_by_tiledb(tmp_path / "store", tmp_path)
    [flush] = sample.flushes
    rows = {key_of(key)[1]: row for key, row in flush}
    keys = [bytes.fromhex(cell) for cell in found["__key"]["cells"]]
    assert sorted(keys) == sorted(rows)
    for i, attr in enumerate(sample.schema.attrs):
        assert found[attr.name]["shown"] == sample.shown()[attr.name]
        for key, cell in zip(keys, found[attr.name]["cells"], strict=True):
            value = cell_of(attr, rows[key][i])
            if attr.type_name in ("bytes", "str") and value == b"\0":
                value = b""  # TileDB-Py's own word for an empty cell
            assert bytes.fromhex(cell) == value, (attr.name, key)


TYPED = {
    "int8": b"\1", "uint8": b"\1", "int16": b"\1\0", "uint16": b"\1\0", "int32": b"\1\0\0\0", "uint32": b"\1\0\0\0",
    "int64": b"\1" + bytes(7), "uint64": b"\1" + bytes(7), "float32": b"\0\0\x80?", "float64": bytes(6) + b"\xf0?",
}  # fmt: skip


def test_keys_of_arrays_are_of_their_type(tmp_path: Path) -> None:
    """In a store of exact types: one number under every dtype, by NumPy and by Arrow, is as many keys, each with its code."""
    create(probe(open_storage(tmp_path / "store")), DEFAULT_SCHEMA, numbers=False)
    with tilekv.open(tmp_path / "store", "a") as db:
        for at, name in enumerate(TYPED):
            keys = np.array([1], name)
            db.put_many(keys if at % 2 else pa.array(keys), [name.encode()])
    found = shown_by_tiledb(tmp_path / "store", tmp_path)
    shown = {
        value: (code, key)
        for value, code, key in zip(
            *(found[name]["cells"] for name in ("value", "__key_type", "__key")), strict=True
        )
    }
    codes = {name: key_of(np.dtype(name).type(1), False)[0] for name in TYPED} | {
        "int64": 1,
        "float64": 3,
    }
    assert shown == {
        name.encode().hex(): (f"{codes[name]:02x}", TYPED[name].hex()) for name in TYPED
    }

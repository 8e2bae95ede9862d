"""Every store is, byte for byte, what docs/format.md says, to a reader that shares no code with tilekv."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle import Store, Violation, read_store
from sample_stores import FILTERS, SAMPLES, Sample, rows_of
from tilekv import Attr, Schema


@pytest.mark.parametrize("name", SAMPLES)
def test_store(name: str, written: Callable[[str], Any]) -> None:
    sample, path = written(name)
    store = read_store(path)
    rows = sample.rows()
    assert store.rows() == {key: row for key, row in rows.items() if row is not None}
    assert len(store.fragments) == len(sample.flushes)
    assert store.schema.capacity == sample.schema.capacity
    assert store.schema.digest == sample.schema.digest


def lines_of(dump: str) -> list[tuple[int, int, str]]:
    """(position, bytes, what) of each line of a dump."""
    found = []
    for line in dump.splitlines():
        place, size, rest = line.split(" ", 2)
        found.append((int(place, 16), int(size[1:]) // 8 if size[0] == "u" else int(size), rest))
    return found


def test_every_byte_is_read(written: Callable[[str], Any]) -> None:
    """A dump begins at byte 0, and every line where the one before ends: nothing in a file is passed over."""
    _, path = written("mixed filters")
    store = read_store(path)
    files = {str(file.relative_to(path)): file for file in path.rglob("*.tdb")}
    assert set(files) - set(store.dumps) == {"__kv_schema.tdb", "__lock.tdb"}
    for name, dump in store.dumps.items():
        at = 0
        for place, size, what in lines_of(dump):
            assert place == at, (name, what)
            at += size
        assert at == files[name].stat().st_size, name


def tiny(path: Path) -> Store:
    attrs = [
        Attr("b", bytes),
        Attr("n", "int32", filters=FILTERS["bits"]),
        Attr("v", "int8", var=True),
    ]
    schema = Schema(attrs, capacity=4)
    Sample(schema, [list(rows_of(schema, range(9), 5))]).write(path)
    return read_store(path)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """The reader of these tests checks what it reads: all but max_chunk of tiles without filters, which steers nobody."""
    path = tmp_path / "store"
    store = tiny(path)
    passed = []
    for number, (name, dump) in enumerate(sorted(store.dumps.items())):
        file = path / name
        data = file.read_bytes()
        for place, size, what in lines_of(dump)[number % 2 :: 2]:
            at = place + size // 2
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << place % 8]) + data[at + 1 :])
            try:
                read_store(path)
            except Exception:  # noqa: BLE001 - damaged sizes may fail in any way
                continue
            finally:
                file.write_bytes(data)
            passed.append((name, what))
    assert {what.partition(" =")[0] for _, what in passed} == {"max chunk"}, passed


def test_lost_files_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = tiny(path)
    fragment = path / store.fragments[0].name
    for file in sorted(fragment.iterdir()):
        data = file.read_bytes()
        file.unlink()
        with pytest.raises((Violation, FileNotFoundError)):
            read_store(path)
        file.write_bytes(data)
    shutil.copytree(fragment, path / "__1_1_other")
    with pytest.raises(Violation, match="no place"):
        read_store(path)

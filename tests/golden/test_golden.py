"""Frozen stores: today's code reads them, and writes the same bytes again.

Each folder here holds `store`, as it was once written, and `dump.txt`, every byte of it with a label. Changing what is written is
changing the format: when that is meant, run

    TILEKV_UPDATE_GOLDEN=1 pytest tests/golden

and read the change of the dumps. Never replace a store that a release has written: add another.

What is compared byte for byte may not depend on the version of a compressor. LZ4 has one way only to write a block in which no
four bytes come again: as literals (no match can be shorter). zstd's frames have no such promise, so that of the store `default`
only the cells are compared with what is written today.
"""

import difflib
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tilekv
from oracle import read_store
from sample_stores import DELETED, FILTERS, Sample, cell_of, key_of
from tilekv import Attr, Schema

HERE = Path(__file__).parent
UPDATE = os.environ.get("TILEKV_UPDATE_GOLDEN") == "1"
START_MS = 1_700_000_000_000


def plain() -> Sample:
    """Nothing filtered: keys of exact types, MD5, every kind of attribute, overwrites, a delete, tiles without bytes."""
    none = FILTERS["none"]
    attrs = [
        Attr("blob", bytes, filters=none),
        Attr("text", str, filters=none),
        Attr("n", "int32", filters=none),
        Attr("point", "float32", shape=(2,), filters=none),
        Attr("list", "int16", var=True, filters=none),
        Attr("flag", bool, filters=none),
        Attr("when", "datetime64[ms]", filters=none),
    ]
    schema = Schema(attrs, "md5", 4, offsets_filters=none, key_filters=none)

    def row(i: int) -> tuple[object, ...]:
        moment = np.datetime64(START_MS + i, "ms")
        return b"blob" * i, "ä" * i, -i, [i, 0.5], np.arange(i, dtype="int16"), i % 2 == 0, moment

    keys = ["", "text", b"bytes", 5, -1, 2**63, 1.5, np.int32(5), np.float32(1), np.arange(2)]
    first = [(key, row(i)) for i, key in enumerate(keys)]
    second = [("text", row(20)), (5, DELETED), ("never", DELETED)]
    third = [(i, (b"", "", i, [0, 0], [], False, np.datetime64("NaT", "ms"))) for i in range(9)]
    return Sample(schema, [first, second, third], numbers=False)


def lz4_and_bits() -> Sample:
    """BLAKE2b, LZ4 alone and bit-width reduction alone, several chunks a tile and so the chunk directory."""
    attrs = [
        Attr("blob", bytes, filters=FILTERS["lz4"]),
        Attr("n", "int64", filters=FILTERS["bits"]),
        Attr("list", "uint32", var=True, filters=FILTERS["bits"]),
        Attr("wide", "uint8", shape=3000, filters=FILTERS["lz4"]),
    ]
    schema = Schema(attrs, capacity=8)
    rng = random.Random(1)
    flush = []
    for i in range(11):
        values = np.arange(i, dtype="uint32") * 1000
        wide = np.frombuffer(rng.randbytes(3000), "uint8")
        flush.append(
            (rng.randbytes(9), (rng.randbytes(0 if i == 3 else 1500), i * 300, values, wide))
        )
    return Sample(schema, [flush])


def default() -> Sample:
    """What a store is when nothing is said about it."""
    schema = Schema([Attr("value", bytes)])
    return Sample(schema, [[(f"key_{i}", (b"value %d " % i * i,)) for i in range(50)]])


def split() -> Sample:
    """Flushes that overlap, with deletes, for a consolidation of several outputs."""
    schema = Schema([Attr("value", bytes)], capacity=4)
    rows: list[list[tuple[object, object]]] = [
        [(f"key_{i}", (b"value %d of %d " % (i, number) * 9,)) for i in range(number, 60, 2 + number)]
        for number in range(3)
    ]
    rows.append([(f"key_{i}", DELETED) for i in range(0, 60, 7)])
    return Sample(schema, rows)


# Those of the first three were written before there were Bloom filters and records of uniform cells.
GOLDENS: dict[str, Callable[[], Sample]] = {
    "plain": plain,
    "lz4-and-bits": lz4_and_bits,
    "default": default,
    "plain-filtered": plain,
    "lz4-and-bits-filtered": lz4_and_bits,
    "split": split,
}
SAME_BYTES = ("plain-filtered", "lz4-and-bits-filtered")


def write(sample: Sample, path: Path) -> None:
    """Write with a clock and uuids of its own: they change from flush to flush and never else."""
    step = -1

    def before_flush(number: int) -> None:
        nonlocal step
        step = number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: (START_MS + 1000 * step) * 1_000_000)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=0xC0FFEE << 96 | step + 1))
        sample.write(path, before_flush)


@pytest.fixture(scope="module", autouse=True)
def _update() -> None:
    if UPDATE:
        for name in SAME_BYTES:
            folder = HERE / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write(GOLDENS[name](), folder / "store")
            folder.joinpath("dump.txt").write_text(dump_of(folder / "store"))


    if UPDATE and not (HERE / "split").exists():
        store = HERE / "split" / "store"
        store.parent.mkdir()
        write(split(), store)
        with tilekv.open(store, "a", config={"kv.max_fragment_bytes": 1000}) as db:
            db.consolidate(vacuum=True)
        store.parent.joinpath("dump.txt").write_text(dump_of(store))


def dump_of(store: Path) -> str:
    """Every file with its labels."""
    parts = [f"== __tilekv.json\n{store.joinpath('__tilekv.json').read_text()}"]
    parts += [f"== {name}\n{dump}" for name, dump in sorted(read_store(store).dumps.items())]
    return "\n".join(parts)


def files_of(store: Path) -> dict[str, bytes]:
    """The bytes of every file, but for the version of the tilekv that wrote the store."""
    files = {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }
    files["__tilekv.json"] = without_version(files["__tilekv.json"].decode()).encode()
    return files


def without_version(text: str) -> str:
    return re.sub(r'"(version|crc32c)": [^,\n]+', r'"\1": ...', text)


def lz4_blocks(store: Path) -> Iterator[bytes]:
    """The raw bytes of every chunk that LZ4 compressed."""
    found = read_store(store)
    files = {"__key_var.tdb": found.schema.fields[0]}
    files |= {f"{one.name}{'_var' * one.var}.tdb": one for one in found.schema.fields[1:]}
    for name, one in files.items():
        if [step.type for step in one.pipeline.filters] == [3]:
            for fragment in found.fragments:
                for tile in fragment.tiles[name]:
                    yield from (chunk.raw for chunk in tile.chunks)


@pytest.mark.parametrize("name", GOLDENS)
def test_frozen_store_is_read(name: str) -> None:
    store = HERE / name / "store"
    sample = GOLDENS[name]()
    attrs = sample.schema.attrs
    alive = {key: row for key, row in sample.rows().items() if row is not None}
    assert dump_of(store) == HERE.joinpath(name, "dump.txt").read_text()
    assert read_store(store).rows() == alive
    with tilekv.open(store) as db:
        assert db.verify() == []
        assert db.schema == sample.schema
        found = {}
        for key, value in db.items():
            row = value if len(attrs) > 1 else {attrs[0].name: value}
            found[key_of(key, sample.numbers)] = {attr.name: cell_of(attr, row[attr.name]) for attr in attrs}
    assert found == alive


@pytest.mark.parametrize("name", SAME_BYTES)
def test_same_bytes_are_written(name: str, tmp_path: Path) -> None:
    frozen, fresh = HERE / name / "store", tmp_path / "store"
    write(GOLDENS[name](), fresh)
    old = without_version(HERE.joinpath(name, "dump.txt").read_text()).splitlines()
    new = without_version(dump_of(fresh)).splitlines()
    changes = [
        line[:200] for line in difflib.unified_diff(old, new, "frozen", "written", n=1, lineterm="")
    ]
    assert changes == []
    assert files_of(fresh) == files_of(frozen)
    for block in lz4_blocks(fresh):
        fours = {block[i : i + 4] for i in range(len(block) - 3)}
        assert len(fours) == max(len(block) - 3, 0), "LZ4 could write this in more than one way"


def test_same_cells_are_written(tmp_path: Path) -> None:
    write(default(), tmp_path / "store")
    written, frozen = read_store(tmp_path / "store"), read_store(HERE / "default" / "store")
    assert written.schema == frozen.schema
    assert [each.name for each in written.fragments] == [each.name for each in frozen.fragments]
    assert list(written.all_cells()) == list(frozen.all_cells())


def test_nothing_else_is_here() -> None:
    """A frozen store that no test reads is no guard."""
    folders = {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(GOLDENS)

"""Every filter against TileDB: what it writes is read here, and what is written here it reads; and what old ones wrote."""

import gzip
import io
import itertools
import json
import random
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tilekv
from tilekv import Attr, FilterList, Schema
from tilekv.datatypes import datatype_of
from tilekv.filters import (
    BitShuffleFilter,
    BitWidthReductionFilter,
    ByteShuffleFilter,
    Bzip2Filter,
    ChecksumMD5Filter,
    ChecksumSHA256Filter,
    DoubleDeltaFilter,
    Filter,
    GzipFilter,
    LZ4Filter,
    NoOpFilter,
    PositiveDeltaFilter,
    RleFilter,
    ZstdFilter,
)
from tilekv.kvcore.codec.chunk import decode
from tilekv.kvcore.codec.pipeline import decode_block

SUPPORT = Path(__file__).parents[1] / "support"
FIXTURES = Path(__file__).parents[1] / "fixtures"

ALONE: dict[str, list[Filter]] = {
    "gzip": [GzipFilter(6)],
    "gzip default": [GzipFilter()],
    "bzip2": [Bzip2Filter(9)],
    "bzip2 default": [Bzip2Filter()],
    "rle": [RleFilter()],
    "double delta": [DoubleDeltaFilter()],
    "positive delta": [PositiveDeltaFilter()],
    "bits": [BitWidthReductionFilter()],
    "bitshuffle": [BitShuffleFilter()],
    "byteshuffle": [ByteShuffleFilter()],
    "md5": [ChecksumMD5Filter()],
    "sha256": [ChecksumSHA256Filter()],
    "zstd": [ZstdFilter(3)],
    "lz4": [LZ4Filter()],
}
CHAINS: dict[str, list[Filter]] = {
    "byteshuffle rle": [ByteShuffleFilter(), RleFilter()],
    "bitshuffle lz4": [BitShuffleFilter(), LZ4Filter()],
    "bitshuffle double delta": [BitShuffleFilter(), DoubleDeltaFilter()],
    "byteshuffle zstd md5": [ByteShuffleFilter(), ZstdFilter(1), ChecksumMD5Filter()],
    "sha256 rle": [ChecksumSHA256Filter(), RleFilter()],
    "rle gzip": [RleFilter(), GzipFilter(1)],
    "double delta bzip2": [DoubleDeltaFilter(), Bzip2Filter()],
    "positive delta bits zstd": [PositiveDeltaFilter(256), BitWidthReductionFilter(), ZstdFilter()],
    "bits positive delta sha256 gzip": [
        BitWidthReductionFilter(64),
        PositiveDeltaFilter(100),
        ChecksumSHA256Filter(),
        GzipFilter(),
    ],
    "md5 bitshuffle gzip md5": [
        ChecksumMD5Filter(),
        BitShuffleFilter(),
        GzipFilter(),
        ChecksumMD5Filter(),
    ],
    "zstd byteshuffle bitshuffle": [ZstdFilter(1), ByteShuffleFilter(), BitShuffleFilter()],
    "noop gzip noop lz4": [NoOpFilter(), GzipFilter(), NoOpFilter(), LZ4Filter()],
}
PIPELINES = {name: FilterList(filters) for name, filters in (ALONE | CHAINS).items()}
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
TYPES += ["float32", "float64", "bool", "datetime64[ms]"]


def suits(filters: FilterList, name: str, values: int = 1) -> bool:
    found = datatype_of(np.dtype(name))
    try:
        filters._check("it", found.code, values * found.size)
    except tilekv.InvalidValueError:
        return False
    return True


def integers(name: str) -> bool:
    """Whether bit-width reduction and positive delta work on the type, as the format's readers are told."""
    return name in TYPES[:8] or name == "bool"


def smooth(rng: random.Random, name: str, n: int) -> np.ndarray[Any, Any]:
    """n elements that grow, with runs, as every filter likes them; TileDB refuses others for some."""
    if name == "bool":
        return np.array([i > n // 3 for i in range(n)])
    dtype = np.dtype(name)
    if dtype.kind == "f":
        return np.cumsum([rng.choice([0, 0, 0, 0.25]) for _ in range(n)]).astype(dtype)
    word = np.dtype("int64") if dtype.kind == "M" else dtype
    low, high = int(np.iinfo(word).min), int(np.iinfo(word).max)
    step = min((high - low) // (4 * n), 1000)
    start = max(low // 8, -1000)
    steps = [rng.choice([0, 0, step, rng.randint(0, max(step, 1))]) for _ in range(n)]
    values = [min(start + total, high) for total in np.cumsum(steps).tolist()]
    return np.array(values, word).view(dtype)


def wild(rng: random.Random, name: str, n: int) -> np.ndarray[Any, Any]:
    """n elements of any bits, the extremes among them; runs here and there."""
    dtype = np.dtype(name)
    if name == "bool":
        return np.array([rng.random() < 0.5 for _ in range(n)])
    size = dtype.itemsize
    extremes = [
        bytes(size),
        b"\xff" * size,
        b"\xff" * (size - 1) + b"\x7f",
        bytes(size - 1) + b"\x80",
    ]
    cells: list[bytes] = []
    while len(cells) < n:
        cells += [rng.choice([*extremes, rng.randbytes(size)])] * rng.choice([1, 1, 1, 40])
    return np.frombuffer(b"".join(cells[:n]), dtype)


# --- TileDB writes --------------------------------------------------------------------------------


class Job(NamedTuple):
    name: str
    pipeline: str
    dtype: str
    values: int
    var: bool
    cells: list[bytes]

    def as_json(self) -> dict[str, Any]:
        options = {"level", "window"}
        filters = [
            [type(one).__name__, {k: v for k, v in vars(one).items() if k in options}]
            for one in PIPELINES[self.pipeline]
        ]
        cells = [cell.hex() for cell in self.cells]
        return self._asdict() | {"filters": filters, "cells": cells}


def jobs(n: int) -> Iterator[Job]:
    rng = random.Random(n)
    for pipeline, filters in PIPELINES.items():
        kinds = [type(one) for one in filters]
        falls = PositiveDeltaFilter in kinds  # TileDB refuses to write
        # TileDB refuses these for what is no integer, and from format 20 on takes datetimes for integers.
        numeric = falls or BitWidthReductionFilter in kinds
        for name in TYPES:
            if not suits(filters, name) or (numeric and not integers(name)):
                continue
            if falls and kinds[0] is not PositiveDeltaFilter:  # narrowed integers do not grow
                continue
            wide = (
                DoubleDeltaFilter in kinds and np.dtype(name).itemsize == 8
            )  # nor sums beyond 64 bits
            if wide and kinds[0] is not DoubleDeltaFilter:
                continue
            tame = falls or wide or rng.random() < 0.3
            data = smooth(rng, name, n) if tame else wild(rng, name, n)
            size = data.dtype.itemsize
            raw = data.tobytes()
            cells = [raw[at : at + size] for at in range(0, len(raw), size)]
            yield Job(f"{pipeline} {name}", pipeline, name, 1, False, cells)
        for name, values in [("int32", 3), ("uint8", 2), ("int64", 2)]:
            if (
                suits(filters, name, values)
                and not falls
                and kinds != [BitShuffleFilter, DoubleDeltaFilter]
            ):
                make = smooth if DoubleDeltaFilter in kinds else wild
                raw = make(rng, name, n).tobytes()
                size = values * np.dtype(name).itemsize
                cells = [raw[at : at + size] for at in range(0, len(raw) - size + 1, size)]
                cells += [bytes(size)] * (n - len(cells))
                yield Job(f"{pipeline} {values} {name}", pipeline, name, values, False, cells)
        if not numeric:
            words = [rng.randbytes(rng.randrange(1, 9)) * rng.randrange(1, 5) for _ in range(n)]
            yield Job(f"{pipeline} bytes", pipeline, "S", 1, True, words)


def tiles(data: bytes, decoded: Callable[[bytes, int], bytes]) -> Iterator[bytes]:
    """The raw bytes of each tile of a file, from a function of a chunk and its raw size."""
    at = 0
    while at < len(data):
        (chunks,) = struct.unpack_from("<Q", data, at)
        at += 8
        raw = b""
        for _ in range(chunks):
            size, filtered, meta = struct.unpack_from("<III", data, at)
            raw += decoded(data[at : at + 12 + filtered + meta], size)
            at += 12 + filtered + meta
        yield raw


@pytest.mark.parametrize("n", [1, 2, 3, 9, 1000, 12_000])
def test_reads_what_tiledb_writes(n: int, tmp_path: Path) -> None:
    wanted = list(jobs(n))
    assert {job.pipeline for job in wanted} >= set(PIPELINES) - {"bits positive delta sha256 gzip"}
    asked = tmp_path / "jobs.json"
    uri = tmp_path / "array"
    asked.write_text(json.dumps([{"uri": str(uri), "attrs": [job.as_json() for job in wanted]}]))
    command = [sys.executable, SUPPORT / "tiledb_writer.py", asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (fragment,) = (uri / "__fragments").iterdir()
    for number, job in enumerate(wanted):
        name = "int8" if job.dtype == "S" else job.dtype
        size = np.dtype(name).itemsize
        signed = np.dtype(name).kind == "i" and job.dtype != "S"
        pipeline = PIPELINES[job.pipeline]._to_bytes(65536)
        integer = job.dtype != "S" and integers(name)
        element = size, signed, integer

        def decoded(chunk: bytes, raw: int, fixed: Any = (pipeline, element, job)) -> bytes:
            pipeline, element, job = fixed
            return decode(pipeline, *element, chunk, raw, False, job.values * element[0])

        file = fragment / f"a{number}{'_var' if job.var else ''}.tdb"
        assert list(tiles(file.read_bytes(), decoded)) == [b"".join(job.cells)], job.name


# --- TileDB reads ---------------------------------------------------------------------------------


def tiledb_shows(path: Path, scratch: Path) -> dict[str, list[bytes]]:
    out = scratch / "out.json"
    command = [sys.executable, SUPPORT / "tiledb_reader.py", path, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    columns = json.loads(out.read_text())["columns"]
    return {name: [bytes.fromhex(c) for c in column["cells"]] for name, column in columns.items()}


def compare(schema: Schema, columns: dict[str, Any], path: Path, scratch: Path) -> None:
    """Write columns under the keys 0, 1, ...; TileDB and tilekv must show what was written."""
    n = len(next(iter(columns.values())))
    with tilekv.open(path, "x", schema=schema) as db:
        db.put_many(list(range(n)), **columns)
    shown = tiledb_shows(path, scratch)
    order = [int.from_bytes(key, "little") for key in shown["__key"]]
    assert sorted(order) == list(range(n))
    for name, column in columns.items():
        cells = [column[key] for key in order]
        cells = [c if isinstance(c, bytes) else np.asarray(c).tobytes() for c in cells]
        assert shown[name] == cells, name
    with tilekv.open(path) as db:
        assert db.verify() == []
        for key in range(0, n, max(1, n // 50)):
            for name, value in db[key].items():
                wanted = np.asarray(columns[name][key])
                assert np.asarray(value, wanted.dtype).tobytes() == wanted.tobytes(), name


def as_shown(cell: bytes) -> bytes:
    """TileDB-Py takes a single NUL for its word for an empty cell."""
    return b"" if cell == b"\0" else cell


@pytest.mark.parametrize("tame", [True, False])
@pytest.mark.parametrize("n", [1, 5, 3000])
def test_tiledb_reads_every_filter(n: int, tame: bool, tmp_path: Path) -> None:
    rng = random.Random(n)
    make = smooth if tame else wild
    attrs, columns = [], {}
    for pipeline, filters in PIPELINES.items():
        for name in TYPES:
            if suits(filters, name):
                title = f"{pipeline} {name}"
                attrs.append(Attr(title, name, filters=filters))
                columns[title] = make(rng, name, n)
        for name, values in [("int32", 3), ("uint8", 2), ("int64", 2)]:
            if suits(filters, name, values):
                title = f"{pipeline} {values} {name}"
                attrs.append(Attr(title, name, shape=values, filters=filters))
                columns[title] = make(rng, name, n * values).reshape(n, values)
    compare(Schema(attrs, capacity=700), columns, tmp_path / "store", tmp_path)


def test_tiledb_reads_every_filter_of_variable_cells(tmp_path: Path) -> None:
    rng = random.Random(5)
    attrs, columns = [], {}
    for pipeline, filters in PIPELINES.items():
        attrs += [Attr(f"{pipeline} bytes", bytes, filters=filters)]
        lengths = [rng.choice([1, 2, 7, 300]) for _ in range(400)]
        columns[f"{pipeline} bytes"] = [rng.choice([b"a", rng.randbytes(5)]) * k for k in lengths]
        for name in ("int16", "uint64"):
            attrs += [Attr(f"{pipeline} {name}", name, var=True, filters=filters)]
            columns[f"{pipeline} {name}"] = [
                rng.choice([smooth, wild])(rng, name, k) for k in lengths
            ]
    compare(Schema(attrs, capacity=100), columns, tmp_path / "store", tmp_path)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_tiledb_reads_every_filter_of_offsets_and_keys(pipeline: str, tmp_path: Path) -> None:
    filters = PIPELINES[pipeline]
    keys = filters if suits(filters, "uint8") else None
    schema = Schema([Attr("v", bytes)], capacity=512, offsets_filters=filters, key_filters=keys)
    rng = random.Random(pipeline)
    column = [bytes(rng.choice([1, 5, 5, 900])) for _ in range(1500)]
    with tilekv.open(tmp_path / "store", "x", schema=schema) as db:
        db.put_many(list(range(1500)), column)
    shown = tiledb_shows(tmp_path / "store", tmp_path)
    found = {
        int.from_bytes(key, "little"): v for key, v in zip(shown["__key"], shown["v"], strict=True)
    }
    assert found == {key: as_shown(value) for key, value in enumerate(column)}
    with tilekv.open(tmp_path / "store") as db:
        assert db.get_many(list(range(1500))) == column


# --- old TileDB wrote -----------------------------------------------------------------------------


def fixture(name: str) -> tuple[dict[str, dict[str, bytes]], list[dict[str, Any]]]:
    """The files of each fragment, oldest first, and the items that are in the store."""
    fragments: dict[str, dict[str, bytes]] = {}
    with tarfile.open(FIXTURES / name / "store.tar.gz") as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.count("/") == 2:
                _, folder, file = member.name.split("/")
                data = tar.extractfile(member)
                assert data is not None
                fragments.setdefault(folder, {})[file] = data.read()
    with gzip.open(FIXTURES / name / "expected.json.gz") as file:
        items = json.load(file)["items"]
    # A folder's last number is its time in the older format; in the newer one the first is.
    times = {
        folder: max(map(int, filter(str.isdecimal, folder.split("_")))) for folder in fragments
    }
    return {folder: fragments[folder] for folder in sorted(times, key=times.__getitem__)}, items


def test_reads_filters_of_1_6() -> None:
    """Bit-width reduction and lz4, byte shuffle and gzip, bzip2, zstd, by TileDB 1.6.3 (docs/format.md 15)."""
    fragments, items = fixture("i5_5flush_tiles128_filters")
    zstd, bits, shuffle, bzip2 = (
        FilterList(filters)._to_bytes(65536)
        for filters in (
            [ZstdFilter(-1)],
            [BitWidthReductionFilter(256), LZ4Filter()],
            [ByteShuffleFilter(), GzipFilter()],
            [Bzip2Filter()],
        )
    )
    found: dict[tuple[int, int], tuple[int, float, bytes]] = {}
    for files in fragments.values():
        coords, a1, a2, starts, a3 = (
            list(tiles(files[name], lambda chunk, raw, e=e, p=p: decode(p, *e, chunk, raw, False)))  # type: ignore[misc]
            for name, p, e in [
                ("__coords.tdb", zstd, (8, False, True)),
                ("a1.tdb", bits, (4, True, True)),
                ("a2.tdb", shuffle, (4, False, False)),
                ("a3.tdb", zstd, (8, False, True)),
                ("a3_var.tdb", bzip2, (1, False, False)),
            ]
        )
        for c, n, f, begin, text in zip(coords, a1, a2, starts, a3, strict=True):
            places = np.frombuffer(c, "<u8").reshape(2, -1).T.tolist()
            cuts = [*np.frombuffer(begin, "<u8").tolist(), len(text)]
            cells = [text[lo:hi] for lo, hi in itertools.pairwise(cuts)]
            numbers = np.frombuffer(n, "<i4").tolist(), np.frombuffer(f, "<f4").tolist()
            for place, *row in zip(places, *numbers, cells, strict=True):
                found[tuple(place)] = tuple(row)
    assert len(found) == len(items)
    for item in items:
        values = item["values"]
        a1, a2, a3 = found[tuple(map(int, item["coords"]))]
        assert [a1] == values["a1"]
        assert [np.float32(a2)] == [np.float32(v) for v in values["a2"]]
        assert a3 == values["a3"].encode("latin-1")


def test_reads_compressors_of_1_3() -> None:
    """One column of each compressor that 1.3.0 had, Blosc's apart; the same numbers, each column by 1 above the one before."""
    fragments, items = fixture("f6_compressors")
    codes = {"gzip": 1, "zstd": 2, "lz4": 3, "rle": 10, "bzip2": 11, "double_delta": 12}
    places = {name: place for place, name in enumerate(items[0]["values"])}
    written: list[int] = []
    for files in fragments.values():
        plain = np.frombuffer(files["none.tdb"], "<i8")
        written += plain.tolist()
        for name, code in codes.items():
            stream, raw = io.BytesIO(files[f"{name}.tdb"]), b""
            while head := stream.read(8):
                for _ in range(int.from_bytes(head, "little")):
                    size, stored = struct.unpack("<QQ", stream.read(16))
                    raw += decode_block(code, stream.read(stored), size, 8)
            assert (np.frombuffer(raw, "<i8") == plain + places[name]).all(), name
    assert sorted(written) == sorted(item["values"]["none"][0] for item in items)

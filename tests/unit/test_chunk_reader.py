"""kvcore.read.chunk_reader: a chunk is checked before it is used, once, and its damage costs what is in it."""

import random
from pathlib import Path

import pytest

import tilekv
from tilekv.errors import CorruptionError

MIB = 1 << 20
# Longer than a chunk, in chunks of its own; short; empty; as long as a chunk.
VALUES = {
    b"long": random.Random(1).randbytes(3 * MIB + 5),
    b"short": b"s",
    b"": b"",
    b"chunk": b"c" * MIB,
}


@pytest.fixture(params=[True, False], ids=["mmap", "pread"])
def config(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"kv.mmap": request.param}


@pytest.fixture(params=[None, []], ids=["filtered", "plain"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    value = tilekv.Attr("value", bytes, filters=request.param)
    schema = tilekv.Schema([value, tilekv.Attr("n", "int64")], capacity=4)
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many([(key, (value, len(value))) for key, value in VALUES.items()])
        db.put_many([(i, (b"%d" % i * 3000, i)) for i in range(20)])
    return tmp_path / "s"


def file_of(store: Path, name: str) -> Path:
    [path] = store.glob(f"__*_*_*/{name}")
    return path


def test_cells_over_several_chunks(store: Path, config: dict[str, object]) -> None:
    with tilekv.open(store, config=config) as db:
        for _ in range(2):  # from the file, then from memory
            for key, value in VALUES.items():
                assert db[key] == {"value": value, "n": len(value)}
            for i in range(20):
                assert db[i] == {"value": b"%d" % i * 3000, "n": i}


def test_a_flipped_bit_costs_the_cells_of_its_chunk(store: Path, config: dict[str, object]) -> None:
    path = file_of(store, "value_var.tdb")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # within the longest value
    path.write_bytes(data)
    with tilekv.open(store, config=config) as db:
        for _ in range(2):  # what was found to be damaged is not taken for checked
            with pytest.raises(CorruptionError) as caught:
                db[b"long"]
            assert caught.value.file == f"{db.fragments[0].name}/value_var.tdb"
            assert caught.value.offset <= len(data) // 2
        assert db[b"short"] == {"value": b"s", "n": 1}
        for i in range(20):
            assert db[i]["value"] == b"%d" % i * 3000


@pytest.mark.parametrize("at", [-20, -5, -4, -1])  # the fragment's uuid, and the slot
def test_a_file_of_another_fragment_or_slot(
    store: Path, config: dict[str, object], at: int
) -> None:
    path = file_of(store, "n.tdb")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with tilekv.open(store, config=config) as db:
        with pytest.raises(CorruptionError) as caught:
            db[5]
        assert caught.value.file == f"{db.fragments[0].name}/n.tdb"
        assert caught.value.offset == len(data) - 20

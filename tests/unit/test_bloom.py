"""kvcore.format.bloom: a filter passes over fragments that do not have a key, and is never believed when it may be wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tilekv
from hostile import BLOOM, Metadata
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.crc32c import crc32c

METADATA = "__fragment_metadata.tdb"
OFF = {"kv.upkeep": "off", "kv.sync": False}
FIELDS = 3  # __key, value, __key_type
N = 20_000
PAGE = 4096  # bytes of a page of a filter: blocks, and a block with their checksum


def two(path: Path, **config: object) -> list[str]:
    """A store of two fragments, of N keys each."""
    with tilekv.open(path, "x", config=OFF | config) as db:
        for part in range(2):
            db.put_many({f"{part} {i}": b"x" for i in range(N)})
            db.flush()
        return [fragment.name for fragment in db.fragments]


def change(path: Path, name: str, change: Callable[[bytearray, int, int], None]) -> None:
    """Change the filter of a fragment: its metadata, where the filter begins, and its blocks."""
    file = path / name / METADATA
    metadata = Metadata(file.read_bytes(), FIELDS)
    [record] = metadata.records(BLOOM)
    change(metadata.data, metadata.u64(record), metadata.u64(record + 8))
    file.write_bytes(metadata.data)


def passed(path: Path, keys: list[str]) -> int:
    """How many keys are looked for in fragments: all of whose coordinates are damaged."""
    for folder in path.glob("__*_*_*"):
        file = folder / "__coords.tdb"
        file.write_bytes(b"\xff" * (file.stat().st_size - 20) + file.read_bytes()[-20:])
    errors = 0
    with tilekv.open(path) as db:
        for key in keys:
            try:
                assert db.get(key) is None
            except CorruptionError:
                errors += 1
    return errors


def test_a_hundredth_of_what_is_missing_passes(tmp_path: Path) -> None:
    two(tmp_path / "s")
    misses = [f"miss {i}" for i in range(5000)]
    errors = passed(tmp_path / "s", misses)
    assert 0 < errors < 2 * 0.02 * len(misses)
    assert passed(tmp_path / "s", [f"{i % 2} {i}" for i in range(300)]) == 300


@pytest.mark.parametrize("config", [{}, {"kv.mmap": False}], ids=["map", "pread"])
def test_a_lone_fragment_is_asked_before_it_is_read(
    tmp_path: Path, config: dict[str, object]
) -> None:
    two(tmp_path / "s")
    with tilekv.open(tmp_path / "s", "a") as db:
        db.consolidate(vacuum=True)
    misses = [f"miss {i}" for i in range(3000)]
    errors = passed(tmp_path / "s", misses)
    assert 0 < errors < 0.02 * len(misses)
    with tilekv.open(tmp_path / "s", config=config) as db, pytest.raises(CorruptionError):
        db.get_many(["0 1", "1 1"])


def test_without_filters_all_of_it_passes(tmp_path: Path) -> None:
    two(tmp_path / "s", **{"kv.filters": 0})
    assert passed(tmp_path / "s", [f"miss {i}" for i in range(200)]) == 200


def test_files_of_more_bytes_have_none(tmp_path: Path) -> None:
    [name, _] = two(tmp_path / "s", **{"kv.filters": 10_000})
    assert not [*Metadata((tmp_path / "s" / name / METADATA).read_bytes(), FIELDS).records(BLOOM)]


def test_outputs_that_split_the_digests(tmp_path: Path) -> None:
    """Each has a filter over its own range of coordinates, and it lets as few pass."""
    path = tmp_path / "s"
    two(path)
    with tilekv.open(path, "a", config=OFF | {"kv.max_fragment_bytes": 200_000}) as db:
        db.consolidate(vacuum=True)
        names = [fragment.name for fragment in db.fragments]
        assert db.verify() == []
    assert len(names) >= 3
    sizes = []
    for name in names:
        metadata = Metadata((path / name / METADATA).read_bytes(), FIELDS)
        [record] = metadata.records(BLOOM)
        sizes.append(metadata.u64(record + 8))
    assert max(sizes) < 2 * 10 * 2 * N / 256 / len(names) + 10
    assert passed(path, [f"miss {i}" for i in range(2000)]) < 0.03 * 2000


def test_what_is_damaged_is_not_believed(tmp_path: Path) -> None:
    """Zeros know no key; their checksum does not hold, so every key is looked for, and found."""
    path = tmp_path / "s"
    names = two(path)

    def zeros(data: bytearray, at: int, blocks: int) -> None:
        data[at : at + 32 * blocks] = bytes(32 * blocks)

    for name in names:
        change(path, name, zeros)
    with tilekv.open(path) as db:
        assert db["0 7"] == db["1 7"] == b"x"
        assert db.get_many(["0 8", "no", "1 8"]) == [b"x", None, b"x"]
    problems = tilekv.verify(path)
    assert {problem.fragment for problem in problems} == set(names)
    assert all("of the Bloom filter fails its checksum" in problem.message for problem in problems)
    with tilekv.open(path, "a") as db:
        db.consolidate(vacuum=True)
    assert tilekv.verify(path) == []


@pytest.mark.parametrize("at", [4, 20, 31])
def test_what_fills_a_page_is_zero(tmp_path: Path, at: int) -> None:
    path = tmp_path / "s"
    [name, _] = two(path)

    def fill(data: bytearray, begin: int, blocks: int) -> None:
        data[begin + PAGE - 32 + at] ^= 1

    change(path, name, fill)
    [problem] = tilekv.verify(path)
    assert "page 0 of the Bloom filter" in problem.message


def test_a_lie_is_found(tmp_path: Path) -> None:
    """A filter without a key's bits, whose checksum holds: `verify` says so, and `salvage` looks for the key all the same."""
    path = tmp_path / "s"
    [name, _] = two(path)

    def forget(data: bytearray, at: int, blocks: int) -> None:
        data[at : at + PAGE - 32] = bytes(PAGE - 32)
        data[at + PAGE - 32 : at + PAGE - 28] = crc32c(bytes(PAGE - 32)).to_bytes(4, "little")

    change(path, name, forget)
    problems = tilekv.verify(path)
    assert problems
    assert all("Bloom filter does not know" in problem.message for problem in problems)
    report = tilekv.salvage(path, tmp_path / "copy")
    assert (report.copied, report.lost) == (2 * N, 0)

"""kvcore.check.check: what verification finds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import tilekv
from hostile import UNIFORM, Metadata
from tilekv.kvcore.check.check import check_fragment

Change = Callable[[bytearray], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    schema = tilekv.Schema([tilekv.Attr("n", "int32"), tilekv.Attr("blob", bytes)], capacity=16)
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many([(i, (i, b"%d" % i * 900)) for i in range(60)])
        db.delete_many(range(5))
    assert tilekv.open(tmp_path / "s").verify() == []
    return tmp_path / "s"


def problems(root: Path, mmap: bool = True) -> list[tuple[str, int | None, str]]:
    with tilekv.open(root, config={"kv.mmap": mmap}) as db:
        return check_fragment(db.fragments[0])


def data_files(root: Path) -> list[Path]:
    folder = next(path for path in root.iterdir() if path.is_dir())
    return sorted(path for path in folder.iterdir() if "metadata" not in path.name)


@pytest.mark.parametrize("mmap", [True, False])
def test_every_damaged_file_is_named_with_the_place(root: Path, mmap: bool) -> None:
    for path in data_files(root):
        data = path.read_bytes()
        at = (len(data) - 20) // 2  # within the chunks: a trailer follows
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = problems(root, mmap)
        assert {file for file, _, _ in found} == {path.name}
        assert all(offset is not None and offset <= at for _, offset, _ in found)
        path.write_bytes(data)
    assert problems(root) == []


def test_bytes_behind_the_end(root: Path) -> None:
    for path in data_files(root):
        size = path.stat().st_size
        with path.open("ab") as file:
            file.write(b"more")
        [(name, _, message)] = problems(root)
        assert name == path.name
        assert f"{size + 4} bytes" in message
        os.truncate(path, size)


def test_cells_that_are_not_as_alike_as_the_metadata_says(tmp_path: Path) -> None:
    """What it tells of key types and sizes is compared with what is stored, which no look-up reads."""
    schema = tilekv.Schema([tilekv.Attr("blob", bytes)], capacity=16)
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        db.put_many({i: b"x" * (1 + i % 2 * 2) for i in range(16)})
    [file] = (tmp_path / "s").glob("__*/__fragment_metadata.tdb")
    whole = Metadata(file.read_bytes(), 3)
    [types] = [at for at in whole.records(UNIFORM) if whole.u32(at) == 2]
    [keys] = [at for at in whole.records(UNIFORM) if whole.u32(at) == 3 + 1]
    whole.put(types + 8, 10, 4)
    file.write_bytes(whole.seal())
    assert {(name, message) for name, _, message in problems(tmp_path / "s")} >= {
        ("__key_type.tdb", "the cells of tile 0 are not as alike as the metadata says")
    }
    whole.put(types + 8, 1, 4)
    whole.put(
        keys, 3 + 1 + 1, 4
    )  # of the blobs, whose sizes of 1 and 3 make as many bytes as sizes of 2
    whole.put(keys + 8, 2, 4)
    file.write_bytes(whole.seal())
    assert problems(tmp_path / "s")[0][::2] == (
        "blob.tdb",
        "the cells of tile 0 are not as alike as the metadata says",
    )

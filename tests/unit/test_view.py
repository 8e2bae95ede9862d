"""kvcore.view: three ways to show a file, one behaviour."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tilekv.kvcore.view import FileView

DATA = bytes(range(256)) * 20
Show = Callable[[Path], FileView]


def show(way: str, path: Path) -> FileView:
    if way == "memory":
        return FileView.memory(path.read_bytes())
    fd = os.open(path, os.O_RDONLY)
    try:
        return getattr(FileView, way)(fd, path.stat().st_size)
    finally:
        os.close(fd)  # neither a map nor pread may need the caller's descriptor


@pytest.mark.parametrize("way", ["map", "pread", "memory"])
def test_reads(way: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    view = show(way, path)
    assert view.size == len(DATA)
    for offset, n in [(0, 0), (0, 1), (17, 4000), (len(DATA), 0), (0, len(DATA))]:
        assert view.read(offset, n) == DATA[offset : offset + n]
    for offset, n in [
        (0, len(DATA) + 1),
        (len(DATA) + 1, 0),
        (1, len(DATA)),
        (1, 2**64 - 1),
        (2**64 - 1, 1),
    ]:
        with pytest.raises(ValueError, match="bytes"):
            view.read(offset, n)


@pytest.mark.parametrize("way", ["map", "pread", "memory"])
def test_empty_file(way: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    view = show(way, path)
    assert (view.size, view.read(0, 0)) == (0, b"")


def test_pread_of_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    view = show("pread", path)
    os.truncate(path, 100)
    assert view.read(0, 100) == DATA[:100]
    with pytest.raises(OSError, match="shorter"):
        view.read(0, 101)


@pytest.mark.parametrize("way", ["map", "pread"])
def test_bad_descriptor(way: str) -> None:
    with pytest.raises(OSError, match="cannot"):
        getattr(FileView, way)(-1, 10)


def test_views_give_their_descriptors_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    before = len(os.listdir("/dev/fd"))
    views = [show(way, path) for way in ("map", "pread") for _ in range(20)]
    del views
    assert len(os.listdir("/dev/fd")) == before

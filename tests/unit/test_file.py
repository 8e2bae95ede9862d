"""kvcore.base.file: three ways to show a file, one behaviour."""

import os
import random
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tilekv.kvcore.base.file import File, Holding, give_back_descriptors, held, limit_maps

DATA = bytes(range(256)) * 20
WAYS = ["map", "pread", "copy", "memory"]
Show = Callable[[Path], File]


def show(way: str, path: Path) -> File:
    if way == "memory":
        return File.memory(path.read_bytes())
    fd = os.open(path, os.O_RDONLY)
    try:
        place = os.fsencode(path.parent), os.fsencode(path.name)
        return File.open(fd, path.stat().st_size, *place, way == "map", way == "copy")
    finally:
        os.close(fd)  # neither a map nor pread may need the caller's descriptor


@pytest.mark.parametrize("way", WAYS)
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


@pytest.mark.parametrize("way", WAYS)
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


def test_bad_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        File.open(-1, 10, b"/", b"x", True, True)
    with pytest.raises(
        FileNotFoundError
    ):  # neither a map nor a duplicate can be had: it is opened when it is read
        File.open(-1, 10, b"/nowhere", b"x", True, False).read(0, 1)


def test_views_give_their_descriptors_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    before = len(os.listdir("/dev/fd"))
    views = [show(way, path) for way in ("map", "pread", "copy") for _ in range(20)]
    del views
    assert len(os.listdir("/dev/fd")) == before


def test_descriptors_are_given_back_and_taken_again(tmp_path: Path) -> None:
    # Half of the limit is for such files. Other tests may have left descriptors, which count against it too.
    others = os.open(os.devnull, os.O_RDONLY)
    os.close(others)
    limit = 2 * others + 64
    paths = [tmp_path / str(i) for i in range(limit // 2 + 8)]
    for path in paths:
        path.write_bytes(DATA + path.name.encode())
    before = held()[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        views = [show("pread", path) for path in paths]
        assert held()[0] <= limit // 2
        for turn in range(3):
            for path, view in zip(
                paths[:: 1 - turn % 2 * 2], views[:: 1 - turn % 2 * 2], strict=True
            ):
                assert view.read(0, view.size) == DATA + path.name.encode()
        assert held()[0] <= limit // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    while give_back_descriptors():
        pass
    assert held()[0] == 0
    assert views[0].read(0, 3) == DATA[:3]
    paths[1].unlink()
    with pytest.raises(ValueError, match="bytes"):  # damage: its folder is there
        views[1].read(0, 3)
    tmp_path.rename(tmp_path.parent / "away")
    assert views[0].read(0, 3) == DATA[:3]  # it has its descriptor
    with pytest.raises(FileNotFoundError):
        views[2].read(0, 3)
    (tmp_path.parent / "away").rename(tmp_path)
    assert views[2].read(0, 3) == DATA[:3]
    paths[3].unlink()
    paths[3].symlink_to(paths[4])
    with pytest.raises(ValueError, match="bytes"):  # no link is followed
        views[3].read(0, 3)
    del views, view
    assert held()[0] <= before


def test_maps_end_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    _, maps, copied = held()
    try:
        limit_maps(maps + 3)
        views = [show("map", path) for _ in range(5)]
        assert held()[1] == maps + 3
        assert all(view.read(17, 100) == DATA[17:117] for view in views)
        del views
        assert held()[1] == maps
    finally:
        limit_maps(0)
    many = [show("copy", path) for _ in range(5)]
    assert held()[2] == copied + 5 * len(DATA)
    del many
    assert held()[2] == copied


def test_many_threads_read_with_few_descriptors(tmp_path: Path) -> None:
    """What one thread reads another gives back: never another file's bytes."""
    paths = [tmp_path / str(i) for i in range(60)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 5000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 12, hard))
    try:
        views = [show("pread", path) for path in paths]

        def read(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(2000):
                i = rng.randrange(60)
                assert views[i].read(rng.randrange(100), 4000) == bytes([i]) * 4000

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_all_are_closed_whatever_one_says(tmp_path: Path) -> None:
    fds = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    os.close(fds[1])
    with pytest.raises(OSError, match="Bad file descriptor"), Holding() as held:
        held.extend(fds)
    assert held == []
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

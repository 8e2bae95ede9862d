"""Every byte of every file, flipped: each read is right, or a CorruptionError that names the file and a byte not behind the flip.

In an ordinary run every byte of the store `plain` is flipped once, and a sample of the others; with TILEKV_NIGHTLY=1 every byte
of every store, with several masks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilekv
from damage import (
    IMAGES,
    NIGHTLY,
    TALLY,
    Image,
    Place,
    check_consolidation,
    check_salvage,
    files_at,
    probe,
    unmoved,
)

ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
MASKS = (0x01, 0x80, 0xFF) if NIGHTLY else (0,)  # 0: one bit, another one at every place
MAPS: list[dict[str, object]] = [{}, {"kv.mmap": False, "kv.cache_bytes": 0}]


def flips(image: Image, step: int) -> Iterator[tuple[str, int, bytes]]:
    """(path, byte, the file with that byte changed), every `step` bytes from a place that the file's name decides."""
    for path, data in sorted(image.files.items()):
        file = path.rpartition("/")[2]
        for mask in MASKS:
            rng = random.Random(f"{file}{mask}")
            for at in range(rng.randrange(step) if len(data) > step else 0, len(data), step):
                changed = bytearray(data)
                changed[at] ^= mask or 1 << rng.randrange(8)
                yield path, at, bytes(changed)


def stride(name: str, step: int) -> int:
    """The store `pieces` is large, and most of it are chunks like any other."""
    return 1 if NIGHTLY and name != "pieces" else step * (31 if name == "pieces" else 1)


@pytest.mark.parametrize("name", IMAGES)
def test_every_way_of_reading(images: dict[str, Image], place: Place, name: str) -> None:
    image = images[name]
    noticed = 0
    for path, at, data in flips(image, stride(name, 1 if name == "plain" else 13)):
        place.show(image.with_file(path, data))
        errors = probe(place.uri, image.rows)
        for error in errors:
            assert error.file == path
            assert error.offset is not None
            assert error.offset <= at
        noticed += bool(errors)
        TALLY["bytes flipped and read"] += 1
    # The rest has no effect: what TileDB reads and tilekv does not, and bits that mean nothing to a decompressor.
    assert noticed > 300


@pytest.mark.parametrize("name", IMAGES)
def test_verify_names_every_damaged_file(images: dict[str, Image], place: Place, name: str) -> None:
    """Of two damaged files both are named. What changes nothing that is read is found too, but for the two
    bits of a zstd frame that mean nothing (RFC 8878, 3.1.1.3.2), and at which libzstd 1.5.4 does not look."""
    image = images[name]
    place.show(image)
    assert tilekv.verify(place.uri) == []
    unnoticed: dict[str, set[int]] = defaultdict(set)
    other = next(path for path in sorted(image.files) if path.endswith("/__key_type.tdb"))
    for path, at, data in flips(image, stride(name, 17)):
        both = image.with_file(path, data)
        if path != other:
            both = both.with_file(other, bytes(len(image.files[other])))
        place.show(both)
        named = {f"{one.fragment}/{one.file}".lstrip("/") for one in tilekv.verify(place.uri)}
        TALLY["bytes flipped and verified"] += 1
        if "metadata" not in path or path.rpartition("/")[0] != other.rpartition("/")[0]:
            assert unmoved(other) in named  # what a fragment's files hold, only its metadata tells
        if unmoved(path) not in named:
            unnoticed[path].add(at)
    for path, places in unnoticed.items():
        assert len(places) <= image.files[path].count(ZSTD_FRAME)


@pytest.mark.parametrize("name", IMAGES)
def test_consolidation_never_makes_it_worse(
    images: dict[str, Image], place: Place, name: str
) -> None:
    """A damaged source stops it, and nothing has changed; or what it did not need was damaged, and all is right afterwards."""
    image = images[name]
    done = {False: 0, True: 0}
    for path, _, data in flips(image, stride(name, 19)):
        place.show(image.with_file(path, data))
        done[check_consolidation(image, place)] += 1
        TALLY["damaged stores consolidated"] += 1
    assert done[False] > 20
    assert done[True] > 5


@pytest.mark.parametrize("name", IMAGES)
def test_salvage_copies_only_what_is_right(
    images: dict[str, Image], place: Place, name: str
) -> None:
    image = images[name]
    copied = 0
    for path, _, data in flips(image, stride(name, 59)):
        place.show(image.with_file(path, data))
        report = check_salvage(image, place.uri)
        assert report is not None  # one damaged file never takes all with it
        copied += report.copied == len(image.rows)
        TALLY["damaged stores salvaged"] += 1
    assert copied > 5


@pytest.mark.parametrize("config", MAPS, ids=["map", "pread"])
def test_files_on_disk(images: dict[str, Image], tmp_path: Path, config: dict[str, object]) -> None:
    """The same through maps and descriptors of real files."""
    image = images["plain"]
    root = tmp_path / "store"
    for path, data in image.files.items():
        root.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(path).write_bytes(data)
    assert probe(str(root), image.rows, config) == []
    for path, at, data in flips(image, 7 if NIGHTLY else 41):
        root.joinpath(path).write_bytes(data)
        for error in probe(str(root), image.rows, config):
            assert error.file == path
            assert error.offset is not None
            assert error.offset <= at
        root.joinpath(path).write_bytes(image.files[path])
        TALLY["bytes flipped and read"] += 1
    assert probe(str(root), image.rows, config) == []


def test_image_is_what_was_written(images: dict[str, Image], place: Place) -> None:
    """The tests' own ground: an image shows as the store that it was taken of."""
    for image in images.values():
        place.show(image)
        assert files_at(place.name) == image.files
        assert probe(place.uri, image.rows) == []

"""Files that are cut, filled, exchanged, emptied, lost; folders that are renamed or lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import tilekv
from damage import (
    IMAGES,
    NIGHTLY,
    TALLY,
    Image,
    Place,
    WrongAnswer,
    check_consolidation,
    check_salvage,
    probe,
)
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.names import LOCK, FragmentName

UNREAD = (LOCK,)  # nobody looks into it


def told(path: str, image: Image) -> bool:
    """Whether it holds what the metadata of a fragment may tell too, key types or offsets; what it tells is read nowhere else."""
    name = path.removesuffix(".tdb")
    return name.endswith("/__key_type") or f"{name}_var.tdb" in image.files


def found_by_verify(path: str, place: Place) -> bool:
    return path in {f"{one.fragment}/{one.file}" for one in tilekv.verify(place.uri)}


def named(path: str, errors: list[CorruptionError]) -> bool:
    """Whether every error names the file."""
    lost = path.rpartition("-")[0]  # of a record that is missing nobody knows the number
    return all(error.file in (path, lost) for error in errors)


@pytest.mark.parametrize("name", IMAGES)
def test_cut_at_every_length(images: dict[str, Image], place: Place, name: str) -> None:
    image = images[name]
    step = 1 if NIGHTLY else 5 if name == "plain" else 29
    for path, data in image.files.items():
        near = {0, 1, 8, len(data) - 21, len(data) - 20, len(data) - 1}
        lengths = near | set(range(0, len(data), step * (1 + len(data) // 4000)))
        for n in sorted(n for n in lengths if 0 <= n < len(data)):
            place.show(image.with_file(path, data[:n]))
            errors = probe(place.uri, image.rows)
            assert named(path, errors)
            # The last byte of the descriptor is a line feed.
            assert errors or _superseded(image, path) or data[n:] == b"\n"
            TALLY["cuts"] += 1


def _superseded(image: Image, path: str) -> bool:
    """Whether no handle opens the file: it is a replaced fragment's."""
    place = Place()
    place.show(image)
    with tilekv.open(place.uri) as db:
        seen = {fragment.name for fragment in db.fragments}
    place.close()
    return "/" in path and "/record-" not in path and path.split("/", maxsplit=1)[0] not in seen


@pytest.mark.parametrize("name", IMAGES)
def test_filled_emptied_lengthened_lost(images: dict[str, Image], place: Place, name: str) -> None:
    image = images[name]
    for path, data in image.files.items():
        n = len(data)
        changes = [
            b"\0" * n,
            b"\xff" * n,
            b"\0" * (n // 2) + data[n // 2 :],
            data[: n // 2],
            b"",
            None,
        ]
        for change in [*changes, data[: n // 2] + b"\xff" * (n - n // 2), data + b"\0"]:
            place.show(image.with_file(path, change))
            errors = probe(place.uri, image.rows)
            assert named(path, errors)
            if not errors and path not in UNREAD and change != data and change != data + b"\0":
                # What is lost with a list is told by the consolidation after it, if there is one. 28 bytes: a tile of nothing.
                assert (
                    _superseded(image, path)
                    or path.endswith(".vac")
                    or n == 28
                    or (told(path, image) and found_by_verify(path, place))
                )
            check_consolidation(image, place)
            place.show(image.with_file(path, change))
            report = check_salvage(image, place.uri)
            assert report is not None
            TALLY["files filled, emptied or lost"] += 1


def pairs(image: Image) -> Iterator[tuple[str, str]]:
    """Files to exchange: all pairs, or those that could be taken for one another."""
    for a, b in itertools.combinations(sorted(image.files), 2):
        if image.files[a] == image.files[b]:
            continue
        if (
            NIGHTLY
            or a.rpartition("/")[2] == b.rpartition("/")[2]
            or crc32c(f"{a[-9:]} {b[-9:]}".encode()) % 7 == 0
        ):
            yield a, b


@pytest.mark.parametrize("name", IMAGES)
def test_exchanged_files(images: dict[str, Image], place: Place, name: str) -> None:
    """A file is whole by its checksums, and is still not the other's."""
    image = images[name]
    for a, b in pairs(image):
        place.show(image.with_file(a, image.files[b]).with_file(b, image.files[a]))
        errors = probe(place.uri, image.rows)
        assert {error.file for error in errors} <= {a, b}
        assert errors or all(
            path in UNREAD
            or _superseded(image, path)
            or (told(path, image) and found_by_verify(path, place))
            for path in (a, b)
        )
        check_consolidation(image, place)
        TALLY["files exchanged"] += 1


def test_files_of_one_layout_are_not_exchanged_unnoticed(place: Place) -> None:
    """Two flushes of the same keys, and two attributes of one type: every length and every place is the same."""
    schema = tilekv.Schema(
        [
            tilekv.Attr(name, "int32", filters=filters)
            for name, filters in (("a", None), ("b", None))
        ]
        + [tilekv.Attr(name, "int64", filters=tilekv.FilterList()) for name in ("c", "d")],
        capacity=4,
    )
    rows = {}
    with tilekv.open(place.uri, "w", schema=schema) as db:
        for flush in range(2):
            rows = {
                i: {name: 1000 * flush + 10 * i + j for j, name in enumerate("abcd")}
                for i in range(9)
            }
            db.put_many(rows)
            db.flush()
    ever = {i: [{name: old - 1000 for name, old in row.items()}, row] for i, row in rows.items()}
    image = place.image(rows, ever)
    one, two = image.folders()
    exchanged = [(f"{one}/{file}.tdb", f"{two}/{file}.tdb") for file in "abcd"]
    exchanged += [(f"{two}/a.tdb", f"{two}/b.tdb"), (f"{two}/c.tdb", f"{two}/d.tdb")]
    for a, b in exchanged:
        assert len(image.files[a]) == len(image.files[b])
        place.show(image.with_file(a, image.files[b]).with_file(b, image.files[a]))
        errors = probe(place.uri, image.rows)
        assert {error.file for error in errors} <= {a, b}
        assert errors
        problems = tilekv.verify(place.uri)
        assert {f"{problem.fragment}/{problem.file}" for problem in problems} == {a, b}
        assert check_salvage(image, place.uri) is not None


# --- folders ---------------------------------------------------------------------------------------


def test_fragment_under_the_name_of_another(images: dict[str, Image], place: Place) -> None:
    for name, image in images.items():
        for a, b in itertools.combinations(image.folders(), 2):
            place.show(image.renamed({a: b, b: a}))
            errors = probe(place.uri, image.rows)
            assert {error.file.split("/")[0] for error in errors} <= {a, b}
            assert errors or name in ("consolidated", "listed")  # neither is seen
            assert tilekv.verify(place.uri)
            TALLY["folders renamed"] += 1


def test_fragment_under_a_new_name(images: dict[str, Image], place: Place) -> None:
    """Another time would be another order; another uuid is noticed as well."""
    for image in images.values():
        for folder in image.folders():
            name = FragmentName.parse(folder)
            assert name
            others = [
                name._replace(t1=1),
                name._replace(t2=name.t2 + 1),
                name._replace(uuid="ab" * 16),
            ]
            for other in map(str, others):
                place.show(image.renamed({folder: other}))
                with pytest.raises(CorruptionError, match=r"another name|record"):
                    tilekv.open(place.uri)
                TALLY["folders renamed"] += 1


def test_fragment_under_no_name_is_not_there(images: dict[str, Image], place: Place) -> None:
    """Nothing lists the fragments of a store: what cannot be told is that one is gone. verify() sees it if it is still there."""
    image = images["plain"]
    old, new = image.folders()
    for gone, kept in ((old, new), (new, old)):
        place.show(image.renamed({gone: "backup_of_fragment"}))
        with tilekv.open(place.uri) as db:
            assert [fragment.name for fragment in db.fragments] == [kept]
            assert db.verify() == []
        [problem] = tilekv.verify(place.uri)
        assert (problem.fragment, problem.file) == ("backup_of_fragment", "__fragment_metadata.tdb")
        lost = Image({p: d for p, d in image.files.items() if not p.startswith(gone)}, {}, {})
        place.show(lost)
        with tilekv.open(place.uri) as db:
            assert [fragment.name for fragment in db.fragments] == [kept]
        assert tilekv.verify(place.uri) == []


def test_list_that_is_lost(images: dict[str, Image], place: Place) -> None:
    """The last consolidation's sources are newer than it and say the same; those of one before it would bring back the past."""
    image = images["listed"]
    first, last = sorted(path for path in image.files if path.endswith(".vac"))
    place.show(image.with_file(last, None))
    assert probe(place.uri, image.rows) == []
    place.show(image.with_file(first, None))
    [error] = probe(place.uri, image.rows)
    assert error.file == first
    assert [problem.file for problem in tilekv.verify(place.uri)] == [first]
    with pytest.raises(CorruptionError, match="would be seen again"):
        place_vacuum(place)
    report = check_salvage(image, place.uri)
    assert report
    assert report.copied == len(image.rows)


def place_vacuum(place: Place) -> None:
    with tilekv.open(place.uri, "a") as db:
        db.vacuum()


def test_list_under_another_name(images: dict[str, Image], place: Place) -> None:
    """It would hide fragments that nothing has replaced."""
    image = images["listed"]
    lists = [path for path in image.files if path.endswith(".vac")]
    for path, folder in itertools.product(lists, image.folders()):
        other = f"{folder}.vac"
        if other != path:
            place.show(image.with_file(path, None).with_file(other, image.files[path]))
            errors = probe(place.uri, image.rows)
            assert {error.file for error in errors} <= {path, other}
            assert errors


def test_the_probe_itself(images: dict[str, Image], place: Place) -> None:
    """An answer that is wrong is told from one that is refused."""
    image = images["plain"]
    place.show(image)
    for wrong in (
        {},
        image.rows | {"more": image.rows["k3"]},
        image.rows | {"k3": image.rows["k4"]},
    ):
        with pytest.raises(WrongAnswer):
            probe(place.uri, wrong)

"""Which fragments of an old store count."""

from pathlib import Path

import pytest

import tilekv
from old_stores import Item, OldStoreWriter
from tilekv.legacy.names import OldName

A, B, C, D = (str(digit) * 32 for digit in "abcd")


def item(key: str, number: int) -> Item:
    return (4, key.encode()), number, b""


def numbers(path: Path, timestamp: int | None = None) -> dict[str, int]:
    with tilekv.open(path, timestamp=timestamp) as db:
        return {key: value["number"] for key, value in db.items()}


def test_names() -> None:
    flush = OldName.parse(f"__{A}_1795296943343")
    assert flush == (f"__{A}_1795296943343", 1795296943343, 1795296943343, A, False, False)
    merged = OldName.parse(f"__{A}_1795298135270_1795298135211")
    assert merged is not None
    assert (merged.t1, merged.t2, merged.merged) == (1795298135211, 1795298135211, True)
    ranged = OldName.parse(f"__5_9_{A}")
    assert ranged == (f"__5_9_{A}", 5, 9, A, True, True)
    bad = ["", A, f"__{A}", f"__{A}_", f"__{A}_x", f"__9_5_{A}", f"__{A}_{2**64}", f"__5_9_{A}_5"]
    assert [OldName.parse(name) for name in bad] == [None] * len(bad)


@pytest.mark.parametrize("version", range(5))
def test_the_newest_wins(version: int, tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", version)
    names = [f"__{A}_9", f"__{B}_20", f"__{C}_100"]
    if version >= 3:
        names = [f"__9_9_{A}", f"__20_20_{B}", f"__100_100_{C}"]
    for number, name in enumerate(names):
        writer.flush([item("k", number), item(name, number)], 0, name)
    assert numbers(writer.root) == {"k": 2} | {name: i for i, name in enumerate(names)}
    assert numbers(writer.root, 99) == {"k": 1} | {name: i for i, name in enumerate(names[:2])}
    assert numbers(writer.root, 20)["k"] == 1
    assert numbers(writer.root, 8) == {}


def test_of_equal_times_the_greater_name_wins(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 2)
    for uuid in (B, D, A, C):
        writer.flush([item("k", "abcd".index(uuid[0]))], 0, f"__{uuid}_5")
    assert numbers(writer.root) == {"k": 3}


def test_what_lies_in_a_wider_range_is_merged_already(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    for name in (f"__5_5_{A}", f"__5_9_{B}", f"__9_9_{C}", f"__7_11_{D}", f"__10_12_{A}"):
        writer.flush([item(name, 0)], 0, name)
    assert set(numbers(writer.root)) == {f"__5_9_{B}", f"__7_11_{D}", f"__10_12_{A}"}
    writer.flush([item("all", 0)], 0, f"__4_12_{C}")
    assert set(numbers(writer.root)) == {"all"}
    with tilekv.open(writer.root) as db:
        assert db.info().superseded == 5


def test_equal_ranges_do_not_hide_one_another(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    for uuid in (A, B):
        writer.flush([item(uuid, 0)], 0, f"__5_9_{uuid}")
    assert set(numbers(writer.root)) == {A, B}


def test_a_vac_file_says_what_is_merged(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    names = [f"__5_5_{A}", f"__6_6_{B}", f"__5_9_{C}"]
    for name in names:
        writer.flush([item(name, 0)], 0, name)
    vac = writer.root / f"{names[2]}.vac"
    vac.write_text(f"file:///elsewhere/old/{names[0]}\n")
    assert set(numbers(writer.root)) == {names[1], names[2]}
    with tilekv.open(writer.root) as db:
        assert db.info().superseded == 1
    vac.rename(writer.root / f"__1_2_{D}.vac")  # nobody's
    assert set(numbers(writer.root)) == {names[2]}


def test_vac_of_the_first_names(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 2)
    for name in (f"__{A}_5", f"__{B}_6_5"):
        writer.flush([item(name, 0)], 0, name)
    assert len(numbers(writer.root)) == 2
    (writer.root / f"__{B}_6_5.vac").write_text(f"/__{A}_5\n")
    assert set(numbers(writer.root)) == {f"__{B}_6_5"}


@pytest.mark.parametrize("text", ["nonsense\n", "/../etc\n", "\n", "\xff\n"])
def test_a_vac_file_that_is_none(text: str, tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    folder = writer.flush([item("k", 0)], 5)
    (writer.root / f"{folder.name}.vac").write_text(text, encoding="latin-1")
    with pytest.raises(tilekv.CorruptionError, match="not the name of a fragment"):
        tilekv.open(writer.root)


def test_vac_files_in_a_circle(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    names = [writer.flush([item("k", 0)], 0, f"__5_9_{uuid}").name for uuid in (A, B)]
    for one, other in (names, names[::-1]):
        (writer.root / f"{one}.vac").write_text(f"/{other}\n")
    with pytest.raises(tilekv.CorruptionError, match="in a circle"):
        tilekv.open(writer.root)


def test_a_flush_that_was_never_committed(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    writer.flush([item("k", 1)], 5)
    aborted = writer.flush([item("k", 2)], 0, f"__7_7_{B}")
    (aborted / "__fragment_metadata.tdb").unlink()
    (writer.root / "__something_else").mkdir()
    assert numbers(writer.root) == {"k": 1}


@pytest.mark.parametrize(
    ("version", "name", "gone"), [(2, f"__{A}_12_9", 8), (3, f"__5_9_{A}", 5), (3, f"__5_9_{A}", 8)]
)
def test_the_past_of_what_was_merged_is_gone(
    version: int, name: str, gone: int, tmp_path: Path
) -> None:
    writer = OldStoreWriter(tmp_path / "old", version)
    writer.flush([item("k", 1)], 0, name)
    assert numbers(writer.root, 9) == {"k": 1}
    with pytest.raises(tilekv.HistoryVacuumed, match="oldest that can be shown is 9"):
        tilekv.open(writer.root, timestamp=gone)


def test_the_past_of_what_was_merged_and_kept(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 3)
    writer.flush([item("k", 1)], 0, f"__5_5_{A}")
    writer.flush([item("k", 2)], 0, f"__5_9_{B}")
    assert numbers(writer.root, 8) == {"k": 1}
    assert numbers(writer.root) == {"k": 2}


def test_reopen_sees_what_was_written_since(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 2)
    writer.flush([item("a", 1), item("b", 1)], 5)
    with tilekv.open(writer.root) as db:
        writer.flush([item("b", 2)], 6)
        assert db["b"]["number"] == 1
        db.reopen()
        assert db["b"]["number"] == 2
        assert len(db) == 2

"""batch.readers: cells that must be decoded, asked for in any order, are columns in the order asked."""

import random
from pathlib import Path

import pytest

import tilekv

FRAGMENTS = 10  # more than a reader has cursors for without asking for memory
COLD = {"kv.cache_bytes": 0}  # nothing stays decoded: every column is read by a selection

ATTRIBUTES = [
    tilekv.Attr("n", "int32"),
    tilekv.Attr("pair", "float64", shape=2),
    tilekv.Attr("text", str),
    tilekv.Attr("tags", "uint16", var=True),
]


def row(i: int) -> tuple[int, list[float], str, list[int]]:
    return i, [i / 2, -i], "é" * (i % 7), list(range(i % 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "s", "w", schema=tilekv.Schema(ATTRIBUTES, capacity=8)) as db:
        for part in range(FRAGMENTS):
            keys = range(part, 300, FRAGMENTS)
            db.put_many(keys, [row(i) for i in keys])
            db.flush()
        db.put_many(range(0, 300, 50), [row(i) for i in range(0, 300, 50)])
        db.delete_many(range(7, 300, 90))
        db.flush()
    return tmp_path / "s"


def is_there(i: int) -> bool:
    return i < 300 and (i < 7 or (i - 7) % 90 != 0)


def check(batch: tilekv.Batch, asked: list[int]) -> None:
    there = [is_there(i) for i in asked]
    assert batch.found is not None
    assert batch.found.tolist() == there
    rows = [row(i) if here else (0, [0, 0], "", []) for i, here in zip(asked, there, strict=True)]
    assert batch["n"].tolist() == [each[0] for each in rows]
    assert batch["pair"].tolist() == [each[1] for each in rows]
    assert batch["text"].to_list() == [each[2] for each in rows]
    assert batch["text"].data.tobytes() == "".join(each[2] for each in rows).encode()
    assert [cell.tolist() for cell in batch["tags"].to_list()] == [each[3] for each in rows]


@pytest.mark.parametrize("seed", range(5))
def test_any_order(path: Path, seed: int) -> None:
    """Some twice, some that are not there, at both ends too."""
    pick = random.Random(seed)
    asked = [999, *(pick.randrange(320) for _ in range(400)), 7]
    with tilekv.open(path, config=COLD) as db:
        check(db.read(asked, missing="mask"), asked)
        expected = [row(i) if is_there(i) else None for i in asked]
        for value, wanted in zip(db.get_many(asked), expected, strict=True):
            assert (value is None) == (wanted is None)
            if wanted is not None:
                assert value["n"] == wanted[0]
                assert value["pair"].tolist() == wanted[1]
                assert value["text"] == wanted[2]
                assert value["tags"].tolist() == wanted[3]


def test_nothing_of_it_is_there(path: Path) -> None:
    with tilekv.open(path, config=COLD) as db:
        for asked in ([], [999], [999, 7, 1000]):
            check(db.read(asked, missing="mask"), asked)
            assert db.get_many(asked) == [None] * len(asked)


def test_of_buffer_and_fragments(path: Path) -> None:
    """What a write buffer holds is put where it was asked for, between what is decoded."""
    with tilekv.open(path, "a", config=COLD) as db:
        changed = range(2, 300, 3)
        db.put_many(changed, [(-i, [0.5, i], "x" * (i % 4), [i]) for i in changed])
        asked = [i for i in range(299, -1, -1) if i % 3 == 2 or is_there(i)]
        batch = db.read(asked)
        rows = [(-i, [0.5, i], "x" * (i % 4), [i]) if i % 3 == 2 else row(i) for i in asked]
        assert batch["n"].tolist() == [each[0] for each in rows]
        assert batch["pair"].tolist() == [each[1] for each in rows]
        assert batch["text"].to_list() == [each[2] for each in rows]
        assert [cell.tolist() for cell in batch["tags"].to_list()] == [each[3] for each in rows]


def test_a_scan_gives_the_same_cells(path: Path) -> None:
    """Its selections begin and end within runs of neighbours."""
    with tilekv.open(path, config=COLD) as db:
        everything = [i for i in range(300) if is_there(i)]
        for rows in (1, 5, 1000):
            keys: list[int] = []
            for batch in db.scan(rows=rows):
                keys += batch.keys
                assert batch["n"].tolist() == batch.keys
                assert batch["pair"].tolist() == [row(i)[1] for i in batch.keys]
                assert batch["text"].to_list() == [row(i)[2] for i in batch.keys]
                assert [tags.tolist() for tags in batch["tags"].to_list()] == [
                    row(i)[3] for i in batch.keys
                ]
            assert sorted(keys) == everything

"""kvcore.read.column_reader: columns of cells from buffers and fragments, at every border that a size can cross."""

import random

import numpy as np
import pytest

import tilekv

DIRECT = 1 << 16  # a value of this size is decoded where it is wanted
MAX_CHUNK = 1 << 20  # a longer value is cut
SIZES = [
    0,
    1,
    4095,
    4096,
    4097,
    DIRECT - 1,
    DIRECT,
    DIRECT + 1,
    0,
    MAX_CHUNK - 1,
    MAX_CHUNK,
    MAX_CHUNK + 1,
    2 * MAX_CHUNK,
    7,
    (3 << 20) + 9,
]


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize(
    "filters", [None, tilekv.FilterList(), tilekv.FilterList(tilekv.LZ4Filter())]
)
@pytest.mark.parametrize("cache", [0, 64 << 20])
def test_sizes(
    memory: bool, filters: tilekv.FilterList | None, cache: int, tmp_path: object
) -> None:
    schema = tilekv.Schema([tilekv.Attr("value", bytes, filters=filters)], capacity=8)
    pick = random.Random(0)
    values = [pick.randbytes(size) for size in SIZES]
    uri = "memory://sizes" if memory else f"{tmp_path}/s"
    with tilekv.open(uri, "w", schema=schema) as db:
        db.put_many(range(len(SIZES)), values)
    for mmap in (True, False):
        with tilekv.open(uri, config={"kv.cache_bytes": cache, "kv.mmap": mmap}) as db:
            for _ in range(2):  # the second time from the cache
                assert [db[i] for i in range(len(SIZES))] == values
                assert db.get_many(range(len(SIZES))) == values
                assert db.read(range(len(SIZES)))["value"].to_list() == values
                assert dict(db.items()) == dict(enumerate(values))
                scanned = {
                    k: v
                    for b in db.scan(rows=4)
                    for k, v in zip(b.keys, b["value"].to_list(), strict=True)
                }
                assert scanned == dict(enumerate(values))


def test_more_than_a_batch_copies_at_once() -> None:
    """Eight megabytes at a time, and at least one cell."""
    values = [bytes([i]) * (3 << 20) for i in range(6)] + [b"x" * (9 << 20), b"", b"end"]
    with tilekv.open("memory://blocks", "w") as db:
        db.put_many(range(len(values)), values)
        for _ in range(2):
            assert db.get_many(range(len(values))) == values
            assert dict(db.items()) == dict(enumerate(values))
            assert db.read([6, 0, 6])["value"].to_list() == [values[6], values[0], values[6]]
            db.flush()


def test_rows_from_buffer_and_fragments_in_one_batch() -> None:
    schema = tilekv.Schema(
        [
            tilekv.Attr("n", "int16"),
            tilekv.Attr("xy", "float32", shape=(2, 2)),
            tilekv.Attr("tags", "uint8", var=True),
        ],
        capacity=3,
    )
    with tilekv.open("memory://mixed", "w", schema=schema) as db:

        def row(i: int) -> tuple[int, object, object]:
            return i, np.full((2, 2), i, np.float32), np.arange(i % 5, dtype=np.uint8)

        db.put_many((i, row(i)) for i in range(0, 30, 3))
        db.flush()
        db.put_many((i, row(i)) for i in range(1, 30, 3))
        db.flush()
        db.put_many((i, row(i)) for i in range(2, 30, 3))
        asked = [*range(29, -1, -1), 99, 5, 5]
        batch = db.read(asked, missing="mask")
        assert batch["n"].dtype == np.int16
        assert batch["n"].tolist() == [i if i < 30 else 0 for i in asked]
        assert batch["xy"].shape == (len(asked), 2, 2)
        assert batch["xy"][:, 1, 0].tolist() == [i if i < 30 else 0 for i in asked]
        assert batch["tags"].offsets.dtype == np.int64
        assert batch["tags"].data.dtype == np.uint8
        assert [tags.tolist() for tags in batch["tags"].to_list()] == [
            list(range(i % 5)) if i < 30 else [] for i in asked
        ]
        assert batch.found is not None
        assert batch.found.tolist() == [i < 30 for i in asked]
        assert batch.keys == asked

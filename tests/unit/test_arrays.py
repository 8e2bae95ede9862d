"""ArrayCells: columns that fit, and those that do not."""

import numpy as np
import pytest

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.write.arrays import ArrayCells
from tilekv.kvcore.write.builder import FragmentBuilder

PLAIN = bytes((0, 0, 1, 0, 0, 0, 0, 0))
VAR = 0xFFFFFFFF
LAYOUT = Layout(
    [("__key", 4, VAR, PLAIN), ("a", 0, 1, PLAIN), ("__key_type", 4, 1, PLAIN)], 2, 0, PLAIN, PLAIN
)
C0 = np.array([1, 2, 3], np.uint64)
C1 = np.array([9, 8, 7], np.uint64)
STARTS = np.array([0, 2, 2, 5], np.uint64)
KEYS = (STARTS, np.frombuffer(b"abcde", np.uint8))
NUMBERS = np.array([5, 6, 7], np.int32)
TYPES = np.array([4, 4 | 0x80, 4], np.uint8)


def test_cells_and_deletes_are_counted() -> None:
    cells = ArrayCells(LAYOUT, C0, C1, [KEYS, NUMBERS, TYPES])
    builder = FragmentBuilder(LAYOUT)
    builder.add(cells)
    assert (len(cells), builder.cells, builder.tombstones) == (3, 3, 1)


@pytest.mark.parametrize(
    ("c0", "c1", "columns"),
    [
        (C0, C1[:2], [KEYS, NUMBERS, TYPES]),
        (C0.view(np.uint8)[:20], C1, [KEYS, NUMBERS, TYPES]),
        (C0, C1, [KEYS, NUMBERS]),
        (C0, C1, [KEYS, NUMBERS[:2], TYPES]),
        (C0, C1, [KEYS, NUMBERS.astype(np.int64), TYPES]),
        (C0, C1, [KEYS, NUMBERS, TYPES[:1]]),
        (C0, C1, [(STARTS[:3], KEYS[1]), NUMBERS, TYPES]),
        (C0, C1, [(STARTS + np.uint64(1), KEYS[1]), NUMBERS, TYPES]),
        (C0, C1, [(STARTS, KEYS[1][:4]), NUMBERS, TYPES]),
        (C0, C1, [(np.array([0, 3, 2, 5], np.uint64), KEYS[1]), NUMBERS, TYPES]),
    ],
)
def test_columns_that_do_not_fit(c0: np.ndarray, c1: np.ndarray, columns: list) -> None:
    with pytest.raises(ValueError, match=r"."):
        ArrayCells(LAYOUT, c0, c1, columns)

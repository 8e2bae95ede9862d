"""kvcore.hashing.coords against Python's own sort and bisect."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilekv.kvcore.testing import first_not_below, sorted_order

U64 = 2**64 - 1
WORDS = st.one_of(st.sampled_from([0, 1, 2, U64 - 1, U64]), st.integers(0, U64))
CELLS = st.lists(
    st.tuples(WORDS, st.sampled_from([0, 1, U64]), st.integers(0, 3), st.binary(max_size=2))
)


def expected(cells: list[tuple[int, int, int, bytes]]) -> list[int]:
    """By (c0, c1, key type without its tombstone bit, key bytes); equal cells stay in order."""
    return sorted(range(len(cells)), key=lambda i: (*cells[i][:2], cells[i][2] & 0x7F, cells[i][3]))


@given(CELLS, st.integers(1, 4))
def test_order(cells: list[tuple[int, int, int, bytes]], shares: int) -> None:
    found = sorted_order([cell[:2] for cell in cells], [cell[2:] for cell in cells], shares)
    assert found == expected(cells)


@pytest.mark.parametrize("n", [0, 1, 24, 25, 2047, 2048, 40_000])
@pytest.mark.parametrize("distinct", [1, 3, 2**20, U64], ids="{:x}".format)
def test_order_of_many(n: int, distinct: int) -> None:
    """Every number of radix passes, and runs of equal digests of every length: merge sort's halves too."""
    random = np.random.default_rng(n)
    words = random.integers(0, distinct, (n, 2), np.uint64, endpoint=True).tolist()
    cells = [(a, b, i % 3 | (i % 2) << 7, b"%d" % (i % 50)) for i, (a, b) in enumerate(words)]
    for shares in (1, 3):
        found = sorted_order([cell[:2] for cell in cells], [cell[2:] for cell in cells], shares)
        assert found == expected(cells)


@given(st.lists(WORDS, max_size=60).map(sorted), WORDS)
def test_first_not_below(values: list[int], key: int) -> None:
    assert first_not_below(np.array(values, np.uint64), key) == bisect_left(values, key)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_first_not_below_in_shapes_that_mislead_interpolation(seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [
        np.sort(random.integers(0, U64, 1000, np.uint64, endpoint=True)),
        np.array([1 << (i % 64) for i in range(64)], np.uint64),
        np.array([0] * 500 + [U64] * 500, np.uint64),
        np.array([0, *range(U64 - 999, U64 + 1)], np.uint64),
        np.array([*range(999), U64], np.uint64),
    ]
    for values in shapes:
        listed = values.tolist()
        keys = [*listed[::37], *(key + 1 for key in listed[::41] if key < U64), 0, U64, seed]
        assert [first_not_below(values, key) for key in keys] == [
            bisect_left(listed, k) for k in keys
        ]

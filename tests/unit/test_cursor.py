"""The cursor reads what is there and never past it."""

import pytest

from tilekv.cursor import Cursor
from tilekv.errors import CorruptionError


def test_reads_in_order() -> None:
    cursor = Cursor(bytes(range(1, 17)), "f")
    assert cursor.u8() == 1
    assert cursor.u32() == 0x05040302
    assert cursor.u64() == 0x0D0C0B0A09080706
    assert cursor.take(2) == b"\x0e\x0f"
    assert (cursor.at, cursor.left) == (15, 1)


@pytest.mark.parametrize(("read", "n"), [("u8", 1), ("u32", 4), ("u64", 8)])
def test_past_the_end(read: str, n: int) -> None:
    cursor = Cursor(bytes(5 + n - 1), "some.tdb")
    cursor.take(5)
    with pytest.raises(CorruptionError) as caught:
        getattr(cursor, read)()
    assert (caught.value.file, caught.value.offset) == ("some.tdb", 5)
    assert cursor.at == 5


def test_a_part_of_a_file() -> None:
    cursor = Cursor(bytes(5), "f", 100)
    cursor.take(3)
    for at, place in ((None, 103), (1, 101)):
        with pytest.raises(CorruptionError) as caught:
            cursor.fail("odd", at)
        assert caught.value.offset == place


def test_huge_sizes_allocate_nothing() -> None:
    with pytest.raises(CorruptionError):
        Cursor(b"abc", "f").take(2**64 - 1)

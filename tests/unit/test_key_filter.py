"""kvcore.values.key_filter, compared with fnmatch and with Python's own order of str and bytes."""

from __future__ import annotations

import os
import random
from fnmatch import fnmatchcase

import pytest

import tilekv
from tilekv.kvcore.values.key_filter import KeyFilter

PIECES = ["a", "b", "c", "-", "]", "[", "!", "*", "?", "^", "\\", "ü", "€", "😀", "/", ".", "\n"]
ODD = [
    os.fsdecode(b"\xff"),
    os.fsdecode(b"a\xe2\x82b"),
    os.fsdecode(b"\xc3"),
    os.fsdecode(b"\x83"),
]


def words(pick: random.Random, pieces: list[str], most: int) -> str:
    return "".join(pick.choice(pieces) for _ in range(pick.randrange(most)))


@pytest.mark.parametrize("seed", range(20))
def test_patterns_are_those_of_fnmatch(seed: int) -> None:
    pick = random.Random(seed)
    matched = 0
    for _ in range(400):
        pattern = words(pick, [*PIECES, "*", "?", "[a-c]", "[!b]", "[", *ODD], 8)
        pattern = os.fsdecode(os.fsencode(pattern))
        asked = KeyFilter(glob=pattern)
        for _ in range(10):
            key = words(pick, [*PIECES, *ODD], 7)
            key = os.fsdecode(os.fsencode(key))  # joined escapes may be a character
            expected = fnmatchcase(key, pattern)
            matched += expected
            assert (key in asked) == expected, (key, pattern)
    assert matched > 50


@pytest.mark.parametrize("seed", range(5))
def test_patterns_of_bytes(seed: int) -> None:
    pick = random.Random(seed)
    pieces = ["a", "b", "\xff", "\x80", "\0"]
    for _ in range(400):
        pattern = words(pick, [*pieces, "*", "?", "[a-b]", "[!\x80-\xff]"], 7).encode("latin-1")
        asked = KeyFilter(glob=pattern)
        for _ in range(10):
            key = words(pick, pieces, 6).encode("latin-1")
            assert (key in asked) == fnmatchcase(key, pattern), (key, pattern)


def test_a_pattern_that_backtracks_takes_no_longer_than_its_square() -> None:
    assert "a" * 20_000 not in KeyFilter(glob="*a" * 50 + "b?")


def test_prefixes_and_ranges() -> None:
    assert "über/a" in KeyFilter(prefix="üb")
    assert "üb" in KeyFilter(prefix="üb")
    assert "ü" not in KeyFilter(prefix="üb")
    assert b"ab" not in KeyFilter(prefix="a")
    assert "ab" not in KeyFilter(prefix=b"a")
    assert b"ab" in KeyFilter(prefix=b"")
    keys = ["", "a", "aa", "b", "ü", "€", "😀", "\uffff"]
    for low in keys:
        for high in keys:
            asked = KeyFilter(start=low, stop=high)
            assert [key for key in keys if key in asked] == [k for k in keys if low <= k < high]


def test_keys_of_other_types_are_never_asked_for() -> None:
    for asked in (KeyFilter(), KeyFilter(prefix="")):
        assert "a" in asked
        assert 5 not in asked
        assert 5.0 not in asked
        assert tilekv.Key(12, b"a") not in asked
    assert b"a" in KeyFilter()


def test_arguments() -> None:
    with pytest.raises(
        tilekv.WrongTypeError, match="prefix is str or bytes, as the keys are, not int"
    ):
        KeyFilter(prefix=5)  # type: ignore[arg-type]
    with pytest.raises(tilekv.WrongTypeError, match="stop is bytes, and what came before"):
        KeyFilter(prefix="a", stop=b"b")
    with pytest.raises(tilekv.InvalidValueError, match="surrogates"):
        KeyFilter(glob="\ud800")

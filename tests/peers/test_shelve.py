"""What CPython's test.test_shelve asks (README.md) of a `shelve.Shelf` over a `Store`; more in test_mapping_tests.py."""

import shelve
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tilekv

Make = Callable[..., Any]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Make]:
    """Opens the one shelf that is in a folder, and closes what was left open."""
    opened = []

    def make(**options: Any) -> Any:
        opened.append(shelve.Shelf(tilekv.open(tmp_path / "shelf", "a"), **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def is_closed(shelf: Any) -> None:
    for call in (lambda: len(shelf), lambda: shelf["key1"]):
        with pytest.raises(ValueError, match="closed shelf"):
            call()


@pytest.mark.parametrize("protocol", range(6))
def test_it_is_kept(shelf: Make, protocol: int) -> None:
    with shelf(protocol=protocol) as first:
        first["key1"] = (1, 2, 3, 4)
        assert first["key1"] == (1, 2, 3, 4)
    is_closed(first)
    assert dict(shelf(protocol=protocol)) == {"key1": (1, 2, 3, 4)}


def test_close(shelf: Make) -> None:
    first = shelf()
    first["key1"] = [1, 2, 3, 4]
    assert first["key1"] == [1, 2, 3, 4]
    assert len(first) == 1
    store = first.dict
    first.close()
    assert store.closed
    is_closed(first)


def test_two_protocols_are_two_pickles() -> None:
    stores = [tilekv.open(f"memory://{uuid.uuid4()}", "x") for _ in range(2)]
    with shelve.Shelf(stores[0], 0) as first, shelve.Shelf(stores[1], 1) as second:
        for opened in (first, second):
            opened["key1"] = (1, 2, 3, 4)
            assert len(opened) == 1
        assert first == second
        assert stores[0] != stores[1]
        assert stores[0].items() != stores[1].items()


def test_mutable_entry(shelf: Make) -> None:
    for writeback in (False, True):
        with shelf(writeback=writeback) as opened:
            opened["key1"] = [1, 2, 3, 4]
            assert opened["key1"] == [1, 2, 3, 4]
            opened["key1"].append(5)
            assert opened["key1"] == [1, 2, 3, 4] + [5] * writeback
        assert shelf()["key1"] == [1, 2, 3, 4] + [5] * writeback


def test_encoding_of_keys(shelf: Make) -> None:
    key = "P\u00f6p"
    utf8, latin, narrow = (
        shelf(keyencoding=encoding) for encoding in ("utf-8", "latin-1", "ascii")
    )
    for opened in (utf8, latin):
        opened[key] = [1]
        assert key.encode(opened.keyencoding) in opened.dict
        opened.sync()
    with pytest.raises(UnicodeEncodeError):
        narrow[key] = [1]
    utf8.dict.reopen()
    assert len(utf8) == 2


def test_writing_back_writes_at_once_as_well(shelf: Make) -> None:
    with shelf(writeback=True) as opened:
        opened["key"] = [1]
        first = opened.dict[b"key"]
        opened["key"].append(2)
    assert shelf().dict[b"key"] != first


def test_what_is_synced_is_seen_by_others(shelf: Make) -> None:
    opened, other = shelf(writeback=True), shelf()
    opened["key"] = [1]
    opened["key"].append(2)
    opened.sync()
    other.dict.reopen()
    assert other["key"] == [1, 2]
    del opened["key"]
    opened.sync()
    other.dict.reopen()
    assert "key" not in other

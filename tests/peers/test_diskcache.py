"""What the tests of diskcache's Index ask (README.md)."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv

LETTERS = {letter: number for number, letter in enumerate("abcde")}
NUMBERS = tilekv.Schema([tilekv.Attr("v", int)])


@pytest.fixture
def index(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    return store(schema=NUMBERS)


@pytest.mark.parametrize("form", ["mapping", "pairs", "keywords", "another", "many"])
def test_made_from_items(tmp_path: Path, index: tilekv.Store, form: str) -> None:
    with tilekv.open(tmp_path / "index", "x", schema=NUMBERS) as store:
        if form == "mapping":
            store.update(LETTERS)
        elif form == "pairs":
            store.update(LETTERS.items())
        elif form == "keywords":
            store.update(**LETTERS)
        elif form == "another":
            index.update(LETTERS)
            store.update(index)
        else:
            store.put_many(list(LETTERS), list(LETTERS.values()))
        assert store == LETTERS
        assert LETTERS == store  # noqa: SIM300 - a dict is asked
        store.flush()
        other = tilekv.open(tmp_path / "index")
        assert other == store == LETTERS
        assert other.uri == store.uri == str(tmp_path / "index")


def test_get_set_delete(index: tilekv.Store) -> None:
    assert len(index) == 0
    for key, number in LETTERS.items():
        index[key] = number
    for key, number in LETTERS.items():
        assert index[key] == number
    for key in LETTERS:
        del index[key]
    assert len(index) == 0


def test_pop(index: tilekv.Store) -> None:
    index.update(LETTERS)
    for key in "acebd":
        assert index.pop(key) == LETTERS[key]
    assert len(index) == 0
    with pytest.raises(KeyError):
        index.pop("a")
    assert index.pop("a", 7) == 7


def test_popitem(index: tilekv.Store) -> None:
    index.update(LETTERS)
    taken = dict(index.popitem() for _ in range(3))
    assert taken.items() <= LETTERS.items()
    assert len(index) == 2
    assert index == {key: LETTERS[key] for key in LETTERS.keys() - taken}
    index.clear()
    with pytest.raises(KeyError):
        index.popitem()


def test_setdefault(index: tilekv.Store) -> None:
    assert index.setdefault("a", 0) == 0
    assert index.setdefault("a", 1) == 0


def test_iteration(index: tilekv.Store) -> None:
    index.update(LETTERS)
    assert {key: index[key] for key in index} == LETTERS
    order = list(index)
    index.flush()
    assert list(index) == list(index.keys()) == [key for key, _ in index.items()] == order
    with pytest.raises(TypeError):
        reversed(index)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled(tmp_path: Path, protocol: int) -> None:
    with tilekv.open(tmp_path / "index", "x", schema=NUMBERS) as store:
        store.update(LETTERS)
        store.flush()
        again: Any = pickle.loads(pickle.dumps(store, protocol))
        with again:
            assert again == store == LETTERS
            again["f"] = 5
        assert "f" not in store
        store.reopen()
        assert store == LETTERS | {"f": 5}


def test_memoized(index: tilekv.Store) -> None:
    """It has a decorator for this."""
    asked = []

    def fibonacci(number: int) -> int:
        if number not in index:
            asked.append(number)
            index[number] = number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)
        return int(index[number])

    expected = [0, 1]
    while len(expected) < 90:
        expected.append(expected[-1] + expected[-2])
    assert [fibonacci(number) for number in range(90)] == expected
    index.flush()
    assert [fibonacci(number) for number in range(90)] == expected
    assert asked == list(range(90))


def test_repr(index: tilekv.Store) -> None:
    assert repr(index).startswith("<tilekv.Store ")

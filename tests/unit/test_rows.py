"""What put_many, delete_many and lookups of many take: arrays of every layout, lists, mappings; and what they refuse."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tilekv
from sample_stores import CODES
from tilekv import Attr, InvalidValueError, OutOfRangeError, WrongTypeError
from tilekv.kvcore.values.keys import key_bytes

Make = Callable[..., tilekv.Store]


NUMBERS = [name for name in CODES if np.dtype(name).kind in "iuf"]


def layouts(values: Any) -> Iterator[Any]:
    """The same values in every byte order and stride."""
    yield values
    yield values.astype(values.dtype.newbyteorder(">"))
    yield np.repeat(values, 2, axis=0)[::2]
    yield values[::-1].copy()[::-1]
    yield np.asfortranarray(values)
    unaligned = np.zeros(values.nbytes + 1, "u1")[1:].view(values.dtype).reshape(values.shape)
    unaligned[...] = values
    yield unaligned
    frozen = values.copy()
    frozen.flags.writeable = False
    yield frozen


@pytest.mark.parametrize("name", CODES)
def test_arrays_of_every_layout(store: Make, name: str) -> None:
    db = store(Attr("one", name), Attr("many", name, shape=(2, 3)))
    ones = np.arange(4).astype("i8").astype(name)
    many = (np.arange(24) % 7).astype("i8").astype(name).reshape(4, 2, 3)
    for a, b in zip(layouts(ones), layouts(many), strict=True):
        db.put_many(range(4), one=a, many=b)
        batch = db.read(range(4))
        assert batch["one"].tobytes() == ones.tobytes()
        assert batch["many"].tobytes() == many.tobytes()
        db.clear()


@pytest.mark.parametrize("name", [*CODES])
def test_keys_in_arrays_of_every_layout(store: Make, name: str) -> None:
    values = np.arange(2 if name == "bool" else 5).astype("i8").astype(name)
    for keys in layouts(values):
        db = store(Attr("n", "int64"))
        db.put_many(keys, n=np.arange(len(keys)))
        assert {key_bytes(key) for key in db} == {key_bytes(key) for key in values}
        for asked in (keys, list(values)):
            assert db.get_many(asked) == list(range(len(keys)))
            assert db.read(asked)["n"].tolist() == list(range(len(keys)))
        db.flush()
        assert db.get_many(keys) == list(range(len(keys)))
        db.delete_many(keys[1:])
        assert db.get_many(keys, -1) == [0, *[-1] * (len(keys) - 1)]


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        (np.array(["a", "bc", ""]), ["a", "bc", ""]),
        (np.array([b"a", b"bc", b""]), [b"a", b"bc", b""]),
        (np.array(["a", 1, b"c"], object), ["a", 1, b"c"]),
        (np.array([[1, 2], [3, 4]]), [np.array([1, 2]), np.array([3, 4])]),
    ],
)
def test_other_arrays_of_keys(store: Make, keys: Any, same: list[Any]) -> None:
    db = store()
    db.put_many(keys, [b"%d" % i for i in range(len(keys))])
    assert [db[key] for key in same] == db.get_many(keys) == [b"%d" % i for i in range(len(keys))]
    db.delete_many(keys[:1])
    assert same[0] not in db
    assert len(db) == len(same) - 1


def test_text_and_bytes_in_arrays(store: Make) -> None:
    db = store(Attr("s", str), Attr("b", bytes))
    db.put_many(range(2), s=np.array(["é", ""]), b=np.array([b"x\0y", b""]))
    db.put_many(range(2, 4), s=np.array(["o", "p"], object), b=np.array([b"q", b""], object))
    assert [db[i]["s"] for i in range(4)] == ["é", "", "o", "p"]
    assert [db[i]["b"] for i in range(4)] == [b"x\0y", b"", b"q", b""]


def test_values_in_an_array(store: Make) -> None:
    db = store(Attr("v", "float32", shape=2))
    db.put_many(range(3), np.arange(6, dtype="f4").reshape(3, 2))
    assert db[2].tolist() == [4, 5]
    var = store(Attr("v", "uint8", var=True))
    var.put_many(np.arange(2), np.array([[1, 2], [3, 4]], "u1"))
    assert var[1].tolist() == [3, 4]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_do_not_fit(store: Make, name: str) -> None:
    """An array is taken whole or not at all."""
    db = store(Attr("v", name))
    dtype = np.dtype(name)
    if dtype.kind == "f":
        db.put_many([1, 2], np.array([np.inf, np.nan]))
        with pytest.raises(WrongTypeError, match="'v'"):
            db.put_many([3], np.array([1j]))
        if name == "float32":
            with pytest.raises(OutOfRangeError, match="'v' is float32"):
                db.put_many([3, 4], np.array([0.0, 1e300]))
    else:
        info = np.iinfo(dtype)
        db.put_many([1, 2], np.array([info.min, info.max], object))
        for wrong in (info.min - 1, info.max + 1):
            if -(2**63) <= wrong < 2**64:
                column = np.array([0, wrong], "u8" if wrong > 0 else "i8")
                with pytest.raises(OutOfRangeError, match=f"'v' is {name}"):
                    db.put_many([3, 4], column)
        with pytest.raises(WrongTypeError, match="'v'"):
            db.put_many([3], np.array([1.0]))
    assert len(db) == 2


@pytest.mark.parametrize(
    ("keys", "columns", "error", "says"),
    [
        ([1, 2], {"v": [1]}, InvalidValueError, "2 keys, but 1 values in column 'v'"),
        (np.arange(2), {"v": np.arange(3)}, InvalidValueError, "2 keys, but 3 values"),
        ([1], {"w": [1]}, InvalidValueError, "missing: 'v'; columns unknown: 'w'"),
        ([1], {"v": 5}, WrongTypeError, "column 'v' must be a list or an array, not one int"),
        ([1], {"v": b"5"}, WrongTypeError, "not one bytes"),
        ("a", {"v": [5]}, WrongTypeError, "keys must be a list or an array, not one str"),
        (5, {"v": [5]}, WrongTypeError, "keys must be .* not one int"),
        (np.array(5), {"v": [5]}, WrongTypeError, "no dimension"),
        ([1], {"v": np.array(5)}, WrongTypeError, "no dimension"),
        ([1], {"v": np.array([[5]])}, InvalidValueError, r"shape \(\)"),
        (np.ma.array([1, 2], mask=[0, 1]), {"v": [1, 2]}, InvalidValueError, "keys has masked"),
        ([1, 2], {"v": np.ma.array([1, 2], mask=[0, 1])}, InvalidValueError, "'v' has masked"),
        (np.array([1j]), {"v": [1]}, WrongTypeError, "complex128"),
        (np.array([True, None]), {"v": [1, 2]}, WrongTypeError, "use an int"),
        ([1, (2,)], {"v": [1, 2]}, WrongTypeError, "encode it"),
    ],
)
def test_refused(store: Make, keys: Any, columns: Any, error: type[Exception], says: str) -> None:
    db = store(Attr("v", "int64"))
    with pytest.raises(error, match=says):
        db.put_many(keys, **columns)
    assert db.info().buffered == 0


MASKED = np.ma.array([1.0, 2.0], mask=[0, 1])


def test_what_a_mask_hides_is_never_stored(store: Make) -> None:
    db = store(Attr("v", "float64", var=True), Attr("p", "float64", shape=(2,)), Attr("n", "int64"))
    good = {"v": [1.0], "p": [1.0, 2.0], "n": 1}
    batches = {name: [value] for name, value in good.items()}
    calls: list[Callable[[], object]] = [
        lambda: db.put_many([MASKED], **batches),
        lambda: db.put_many(MASKED, [good, good]),
        lambda: db.put_many(list(MASKED), [good, good]),
        lambda: db.delete_many(MASKED),
        lambda: db.get_many(list(MASKED)),
    ]
    for key in (MASKED, MASKED[1]):
        calls += [
            lambda key=key: db.__setitem__(key, good),  # type: ignore[misc]
            lambda key=key: db.get(key),  # type: ignore[misc]
            lambda key=key: key in db,  # type: ignore[misc]
        ]
    for name in ("v", "p"):
        for value in (MASKED, list(MASKED), [MASKED.data[0], np.ma.masked]):
            calls += [
                lambda row=good | {name: value}: db.__setitem__(1, row),  # type: ignore[misc]
                lambda columns=batches | {name: [value]}: db.put_many([1], **columns),  # type: ignore[misc]
            ]
    for call in calls:
        with pytest.raises(InvalidValueError, match=r"masked (elements|values): fill them"):
            call()
    with pytest.raises(WrongTypeError, match="'n' takes int64 integers, not MaskedConstant"):
        db[1] = good | {"n": np.ma.masked}
    assert db.info().buffered == 0
    db[np.ma.array([1.0])] = good | {"p": MASKED.filled(0.0), "v": np.ma.array([3.0])}
    assert db[np.array([1.0])]["p"].tolist() == [1.0, 0.0]


def test_single_keys_are_no_batch(store: Make) -> None:
    db = store()
    for use in (db.get_many, db.read, db.delete_many):
        for key in ("abc", b"abc", 5, None, np.array(5)):
            with pytest.raises(WrongTypeError, match="must be a list or an array"):
                use(key)


def test_the_last_of_equal_keys_wins(store: Make) -> None:
    db = store(Attr("n", "int64"))
    db.put_many(np.array([1, 2, 1]), n=np.array([10, 20, 30]))
    assert dict(db) == {1: 30, 2: 20}


def test_a_value_that_changes_the_lists_while_it_is_read(store: Make) -> None:
    class Shrinking:
        def __index__(self) -> int:
            keys.clear()
            values.clear()
            return 7

    keys: list[Any] = [1, 2, 3]
    values: list[Any] = [Shrinking(), 8, 9]
    db = store(Attr("n", "int64"))
    db.put_many(keys, n=values)
    assert dict(db) == {1: 7, 2: 8, 3: 9}


def test_many_attributes_in_columns(store: Make) -> None:
    names = [f"a{i}" for i in range(40)]
    db = store(*(Attr(name, "int32") for name in names))
    db.put_many(range(3), **{name: np.arange(3) + i for i, name in enumerate(names)})
    assert db[2] == {name: 2 + i for i, name in enumerate(names)}

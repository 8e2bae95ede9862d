"""Every error is a TileKVError and the builtin that a user would catch."""

import io
import pickle

import pytest

from tilekv import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.KeyNotFoundError, KeyError),
        (errors.StoreNotFoundError, FileNotFoundError),
        (errors.StoreExistsError, FileExistsError),
        (errors.ReadOnlyError, io.UnsupportedOperation),
        (errors.ClosedError, ValueError),
        (errors.WrongTypeError, TypeError),
        (errors.InvalidValueError, ValueError),
        (errors.OutOfRangeError, OverflowError),
        (errors.FormatError, ValueError),
        (errors.SnapshotGone, FileNotFoundError),
        (errors.HistoryVacuumed, LookupError),
        (errors.StoreReplacedError, OSError),
        (errors.NotDurableError, OSError),
    ],
)
def test_kind_message_and_pickle(error: type[errors.TileKVError], builtin: type) -> None:
    one = error("what came 'and' what to do")
    assert isinstance(one, errors.TileKVError)
    assert isinstance(one, builtin)
    assert str(one) == "what came 'and' what to do"
    again = pickle.loads(pickle.dumps(one))
    assert type(again) is error
    assert str(again) == str(one)


@pytest.mark.parametrize(
    ("offset", "text"),
    [(17, "f/a.tdb, byte 17: bad"), (0, "f/a.tdb, byte 0: bad"), (None, "f/a.tdb: bad")],
)
def test_corruption(offset: int | None, text: str) -> None:
    one = errors.CorruptionError("f/a.tdb", offset, "bad")
    assert isinstance(one, OSError)
    assert isinstance(one, errors.TileKVError)
    for each in (one, pickle.loads(pickle.dumps(one))):
        assert str(each) == text
        assert (each.file, each.offset, each.reason) == ("f/a.tdb", offset, "bad")

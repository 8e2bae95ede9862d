"""What an Arrow producer may get wrong is told, and what it may do twice."""

import ctypes
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tilekv
from fuzz_arrow import (
    DICTIONARY,
    NO_BUFFERS,
    NO_CHILD,
    NO_CHILD_TYPE,
    NO_CHILDREN,
    Made,
    node,
    rows_of,
)
from tilekv import Attr, InvalidValueError, WrongTypeError

Make = Callable[..., tilekv.Store]


def buffers(kind: Any, n: int, *parts: Any) -> Any:
    return pa.Array.from_buffers(kind, n, [None, *(pa.py_buffer(part) for part in parts)])


def test_arrays_that_contradict_themselves(store: Make) -> None:
    text = Attr("v", str)
    i4, i8 = np.array([0, 5, 2, 3], "i4"), np.array([0, 5, 2, 3], "i8")
    view = np.zeros((1, 4), "i4")
    view[0] = 100, 0, 0, 0
    far = np.zeros((1, 4), "i4")
    far[0] = 13, 0, 7, 0
    index = pa.DictionaryArray.from_arrays(pa.array([5], pa.int8()), pa.array(["a"]), safe=False)
    under = pa.DictionaryArray.from_arrays(pa.array([-1], pa.int8()), pa.array(["a"]), safe=False)
    for attr, column, says in (
        (text, buffers(pa.string(), 3, i4, b"abcde"), "do not rise"),
        (text, buffers(pa.large_string(), 3, i8, b"abcde"), "do not rise"),
        (text, buffers(pa.string(), 2, np.array([0, 1, 2], "i4"), "é".encode()), "not UTF-8"),
        (text, buffers(pa.string(), 1, np.array([0, 3], "i4"), b"\xed\xa0\x80"), "not UTF-8"),
        (text, buffers(pa.string_view(), 1, view, b"only ten b"), "leads out"),
        (text, buffers(pa.string_view(), 1, far, b"thirteen byte"), "leads out"),
        (text, index, "out of the dictionary"),
        (text, under, "out of the dictionary"),
    ):
        db = store(attr)
        with pytest.raises(InvalidValueError, match=says):
            db.put_many([*range(len(column))], v=column)
        assert db.info().buffered == 0


@pytest.mark.parametrize(
    "text",
    [
        b"\x80",
        b"\xc1\x80",
        b"\xc3",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"\xe4\xb8",
        b"\xf0\x9f\x8e",
        b"12345678\x80",
        b"\xc3\xa9\xc3",
        b"\xe4\xb8A",
        b"\xf5\x80\x80\x80",
        "é中🎉\U0010ffff\ud7ff\ue000".encode(),
        b"12345678" * 3,
        "1234567é".encode(),
    ],
)
def test_utf8_is_what_python_takes(store: Make, text: bytes) -> None:
    db = store(Attr("v", str))
    column = buffers(pa.string(), 1, np.array([0, len(text)], "i4"), text)
    try:
        text.decode()
    except UnicodeDecodeError:
        with pytest.raises(InvalidValueError, match="not UTF-8"):
            db.put_many([1], v=column)
    else:
        db.put_many([1], v=column)
        assert db[1] == text.decode()


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc3", b"\x80", "é".encode(), "😀".encode(), b"\xf4\x90\x80\x80"]
)
def test_utf8_is_checked_at_every_place(store: Make, bad: bytes) -> None:
    """It is read by words, and by several of them; cells that follow one another are read as one."""
    db = store(Attr("v", str))
    for place in range(80):
        text = b"." * place + bad + b"." * (90 - place)
        for cut in sorted({0, place // 2, place, place + 1, len(text)}):
            column = buffers(pa.string(), 2, np.array([0, cut, len(text)], "i4"), text)
            try:
                halves = [text[:cut].decode(), text[cut:].decode()]
            except UnicodeDecodeError:
                with pytest.raises(InvalidValueError, match="not UTF-8"):
                    db.put_many([1, 2], v=column)
            else:
                db.put_many([1, 2], v=column)
                assert [db[1], db[2]] == halves


def pointer_to(capsule: Any, name: bytes) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


class Once:
    """Hands out the same capsules again and again."""

    def __init__(self, array: Any = None, stream: Any = None) -> None:
        if array is not None:
            self.__arrow_c_array__ = lambda requested_schema=None: array
        if stream is not None:
            self.__arrow_c_stream__ = lambda requested_schema=None: stream


def test_a_list_longer_than_its_child(store: Make) -> None:
    schema, array = pa.array([[1, 2], [3]], pa.list_(pa.int8())).__arrow_c_array__()
    words = (ctypes.c_void_p * 10).from_address(pointer_to(array, b"arrow_array"))
    child = ctypes.c_void_p.from_address(words[6]).value
    ctypes.c_int64.from_address(child).value = 2
    db = store(Attr("v", "int8", var=True))
    with pytest.raises(InvalidValueError, match="2 elements is asked for 3"):
        db.put_many([1, 2], v=Once(array=(schema, array)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (node(b"+w:x", 4, 1, 1) + node(b"i", 8, 2), r"no type '\+w:x'"),
        (node(b"+w:2", 4, 1, 1, NO_CHILDREN) + node(b"i", 8, 2), "does not fit"),
        (node(b"i", 4, 2, 0, NO_BUFFERS), "does not fit"),
        (node(b"i", 4, 2, 0, DICTIONARY | NO_CHILDREN) + node(b"i", 4, 2), "needs|no dictionary"),
        (node(b"i", 2**62, 2), "no Arrow array has 46116"),
    ],
)
def test_arrays_that_do_not_fit_their_types(store: Make, data: bytes, match: str) -> None:
    db = store(Attr("v", "int32", shape=2) if data[:2] == b"+w" else Attr("v", "int32"))
    with pytest.raises(InvalidValueError, match=match):
        db.put_many(range(4), v=Made(data))


@pytest.mark.parametrize("missing", [NO_CHILD, NO_CHILD_TYPE])
def test_a_table_whose_column_is_missing(store: Make, missing: int) -> None:
    with pytest.raises(InvalidValueError, match="the Arrow array"):
        store(Attr("n", "int32")).put_many(Made(rows_of(flags=missing)), key="k")
    db = store(Attr("n", "int32"))
    db.put_many(Made(rows_of()), key="k")
    assert len(db) == 4


def test_a_key_that_is_too_long_among_columns(store: Make) -> None:
    """Rows of arrays are copied without the GIL: what is refused there is told after it. The 4 GiB are never touched."""
    db = store(Attr("n", "int64"))
    ends = pa.py_buffer(np.array([0, 3, 2**32 + 3]))
    data = pa.py_buffer(np.zeros(2**32 + 3, "u1"))
    keys = pa.Array.from_buffers(pa.large_binary(), 2, [None, ends, data])
    with pytest.raises(InvalidValueError, match=r"a key of 4294967296 bytes; the longest is 4,294"):
        db.put_many(keys, n=np.arange(2))
    assert db.info().buffered == 0


def test_capsules_are_consumed_once(store: Make) -> None:
    db = store(Attr("v", "int8"))
    db["a"] = 1
    batch = db.read(["a"])
    array, stream = Once(array=batch.__arrow_c_array__()), Once(stream=batch.__arrow_c_stream__())
    for given in (array, stream):
        assert len(pa.table(given) if given is stream else pa.record_batch(given)) == 1
        with pytest.raises(pa.ArrowInvalid, match="released"):
            pa.table(given) if given is stream else pa.record_batch(given)
        with pytest.raises(InvalidValueError, match="consumed before"):
            db.put_many(given, key="key")
    ours = Once(stream=db.scan().__arrow_c_stream__())
    db.put_many(ours, key="key")
    with pytest.raises(InvalidValueError, match="consumed before"):
        db.put_many(ours, key="key")
    with pytest.raises(WrongTypeError, match="capsule"):
        db.put_many(Once(stream=batch.__arrow_c_schema__()), key="key")


def test_released_in_a_thread_without_the_gil(store: Make) -> None:
    """polars drops its frames from threads of its own; ctypes calls the callback with the GIL given back."""
    db = store(Attr("n", "int64"))
    db["a"] = 1
    _, capsule = db.read(["a"]).__arrow_c_array__()
    at = pointer_to(capsule, b"arrow_array")
    words = (ctypes.c_void_p * 10).from_address(at)
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(words[8])
    thread = threading.Thread(target=release, args=(at,))
    thread.start()
    thread.join()
    assert words[8] is None
    del capsule
    gc.collect()

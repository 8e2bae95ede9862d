from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_Clear
from cpython.float cimport PyFloat_AsDouble, PyFloat_Check
from cpython.long cimport PyLong_Check, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from tilekv.errors import InvalidValueError, KeyNotFoundError, OutOfRangeError, WrongTypeError, shown

from tilekv.kvcore.format.datatypes cimport BLOB, BOOL, CHAR, FLOAT64, INT64, UINT64, element_bytes
from tilekv.kvcore.values.exact cimport check_unmasked, whole_bytes
from tilekv.kvcore.format.datatypes import CODES as _CODES
from tilekv.kvcore.format.datatypes import DTYPES as _DTYPES


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    const char* utf8_or_null "PyUnicode_AsUTF8AndSize"(object text, Py_ssize_t* size) noexcept
    long long int64_or_overflow "PyLong_AsLongLongAndOverflow"(object number, int* overflow) noexcept
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


class Key:
    """A key of a type that has no Python form. Compared by value, hashable.

    Parameters
    ----------
    type : int
        TileDB's code of the datatype, 0 to 127.
    data : bytes, bytearray or memoryview
        What is stored of the key.

    Attributes
    ----------
    type : int
    data : bytes

    Raises
    ------
    WrongTypeError, InvalidValueError
        For arguments that are refused.
    """

    __slots__ = ("data", "type")

    def __init__(self, type: int, data: bytes) -> None:
        if isinstance(type, bool) or not isinstance(type, int) or not 0 <= type <= 127:
            raise InvalidValueError(f"a key type is a datatype code of 0 to 127, not {shown(type)}")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise WrongTypeError(f"the data of a key is bytes, not {data.__class__.__name__}")
        held, reason = whole_bytes(data)
        if held is None:
            raise InvalidValueError(f"the data of a key cannot be read: {reason}")
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "data", held)

    def __setattr__(self, name, value):
        raise AttributeError("a Key does not change")

    def __eq__(self, other: object) -> bool:
        """Whether another Key has the same type and bytes."""
        return isinstance(other, Key) and (self.type, self.data) == (other.type, other.data)

    def __hash__(self) -> int:
        return hash((Key, self.type, self.data))

    def __repr__(self):
        return f"Key({self.type}, {self.data!r})"

    def __reduce__(self):
        return Key, (self.type, self.data)


cdef inline bint is_common(object key, KeyCell* cell) noexcept:
    """Fill `cell` if `key` is bytes, text in UTF-8 or an int of 64 bits. Here nothing can be raised, and nothing is prepared for
    that: 60 instructions a get.
    """
    cdef Py_ssize_t n = 0
    cdef int overflow = 0
    cdef long long number
    if PyBytes_CheckExact(key):
        cell.ref.type = BLOB
        cell.ref.data = <const uint8_t*>PyBytes_AS_STRING(key)
        n = PyBytes_GET_SIZE(key)
    elif PyUnicode_CheckExact(key):
        cell.ref.type = CHAR
        cell.ref.data = <const uint8_t*>utf8_or_null(key, &n)
        if cell.ref.data == NULL:
            PyErr_Clear()                                       # what is wrong with it, read_key finds out again
            return False
    elif PyLong_CheckExact(key):
        number = int64_or_overflow(key, &overflow)
        if overflow:
            return False
        cell.ref.type = INT64
        cell.ref.data = cell.word
        n = 8
        memcpy(cell.word, &number, 8)
    else:
        return False
    cell.ref.size = n
    return True


cdef object key_cell(object key, KeyCell* cell, bint numbers):
    if is_common(key, cell):
        return key
    held = read_key(key, cell, numbers)
    if cell.ref.data == NULL:
        raise held
    return held


cdef object asked_cell(object key, KeyCell* cell, bint numbers):
    if is_common(key, cell):
        return key
    held = read_key(key, cell, numbers)
    if cell.ref.data == NULL:
        try:
            hash(key)
        except (TypeError, ValueError):                         # the latter of a memoryview
            raise held from None
    return held


def key_not_found(key, bint numbers):
    """The KeyNotFoundError of a key, with the reason when it cannot be one. WrongTypeError for what no dict can be asked for."""
    cdef KeyCell cell
    held = asked_cell(key, &cell, numbers)
    return KeyNotFoundError(key) if cell.ref.data != NULL else KeyNotFoundError(key, str(held))


cdef object read_key(object key, KeyCell* cell, bint numbers):
    """key_cell(), but for what cannot be a key: that gives the error, unraised, and no bytes."""
    cdef Py_ssize_t n = 0
    cdef int overflow = 0
    cdef long long number
    cdef unsigned long long big
    cdef double real
    cdef bytes held
    cell.ref.data = NULL
    if PyUnicode_Check(key):
        cell.ref.type = CHAR
        try:
            cell.ref.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(key, &n)
            cell.ref.size = n
            return key
        except UnicodeEncodeError:
            held = escaped_bytes(key)
        if held is None:
            return InvalidValueError("a str key may have the lone surrogates that os.fsdecode makes of file names that are not "
                                     f"UTF-8, and no others: {key!a}")
    elif PyBytes_CheckExact(key):
        cell.ref.type = BLOB
        held = key
    elif PyLong_Check(key) and key is not True and key is not False:
        number = PyLong_AsLongLongAndOverflow(key, &overflow)
        cell.ref.data = cell.word
        cell.ref.size = 8
        if not overflow:
            cell.ref.type = INT64
            memcpy(cell.word, &number, 8)
            return key
        try:
            big = PyLong_AsUnsignedLongLong(key)
        except OverflowError:
            cell.ref.data = NULL
            return OutOfRangeError("an int key must fit in 64 bits (-2**63 to 2**64 - 1)")
        cell.ref.type = UINT64
        memcpy(cell.word, &big, 8)
        return key
    elif PyFloat_Check(key):
        cell.ref.type = FLOAT64
        real = PyFloat_AsDouble(key)
        memcpy(cell.word, &real, 8)
        cell.ref.data = cell.word
        cell.ref.size = 8
        return key
    elif isinstance(key, (bytes, bytearray, memoryview)):       # a subclass too, such as numpy.bytes_
        cell.ref.type = BLOB
        held, reason = whole_bytes(key)
        if held is None:
            return InvalidValueError(f"the bytes of a key cannot be read: {reason}")
    elif isinstance(key, Key):
        cell.ref.type = key.type
        held = key.data
    elif numbers and isinstance(key, np.generic) and key.dtype.kind in "iu":
        return read_key(int(key), cell, True)
    elif numbers and isinstance(key, np.generic) and key.dtype.kind == "f":
        array, _ = numbers_of(np.asarray(key))
        if array is None:
            return OutOfRangeError("a float key must fit in 64 bits")
        cell.ref.type = FLOAT64
        held = array.tobytes()
    elif isinstance(key, (np.generic, np.ndarray)):
        if key.ndim > 1:
            return WrongTypeError(f"a key must be a scalar or a 1-d array, not an array of shape {key.shape}")
        check_unmasked(key, "the key")
        if numbers and key.ndim == 0 and key.dtype.kind in "iuf" and isinstance(key, np.ndarray):
            return read_key(key[()], cell, True)
        if key.ndim == 0 and key.dtype.kind in "UT" and isinstance(key.item(), str):
            return read_key(key.item(), cell, numbers)
        little = key.dtype.newbyteorder("<") if key.dtype.kind in "biufmM" else key.dtype
        code = _CODES.get(little.str)
        if code is None:
            return WrongTypeError(f"a key cannot be of NumPy type {key.dtype}")
        cell.ref.type = code
        held = key.astype(little).tobytes()
    else:
        return WrongTypeError(
            f"a key must be str, bytes, int, float, a NumPy scalar or 1-d array, or tilekv.Key, not {type(key).__name__}"
            + (": True and 1 would be easy to confuse, use an int" if isinstance(key, bool) else "")
            + (": encode it to one str or bytes" if isinstance(key, tuple) else ""))
    cell.ref.data = <const uint8_t*>PyBytes_AS_STRING(held)
    cell.ref.size = PyBytes_GET_SIZE(held)
    return held


cdef object escaped_bytes(str text):
    """The bytes that os.fsdecode made a text of; None when it did not make it. Bytes that are UTF-8 belong to another text."""
    try:
        held = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return held if held.decode("utf-8", "surrogateescape") == text else None


cdef object numbers_of(object array):
    doubles = None
    kind = array.dtype.kind
    if kind == "i":
        return np.asarray(array, np.int64), None
    if kind == "u":
        if array.dtype.itemsize == 8 and array.size and int(array.max()) > 0x7FFFFFFFFFFFFFFF:
            array = np.array(array, np.uint64)                  # a copy: the types are of these numbers
            return array, np.where(array > 0x7FFFFFFFFFFFFFFF, UINT64, INT64).astype(np.uint8)
        return np.asarray(array, np.uint64).view(np.int64), None
    with np.errstate(all="ignore"):
        doubles = np.asarray(array, np.float64)
    if array.dtype.itemsize == 8:
        return doubles, None
    if array.dtype.itemsize > 8:
        if not np.array_equal(doubles, array, equal_nan=True):
            return None, None
        return doubles, None
    odd = np.isnan(doubles)
    if odd.any():                                               # the processor would make a quiet NaN of a signalling one
        doubles = np.ascontiguousarray(doubles).reshape(array.shape)
        size = array.dtype.itemsize
        mantissa = np.finfo(array.dtype).nmant
        bits = np.asarray(array, array.dtype.newbyteorder("="))[odd].view(f"u{size}").astype(np.uint64)
        payload = (bits & ((1 << mantissa) - 1)) << (52 - mantissa)
        doubles.view(np.uint64)[odd] = (bits >> (8 * size - 1) << 63) | np.uint64(0x7FF0000000000000) | payload
    return doubles, None


cdef object load_key(const KeyRef* key, bint numbers):
    cdef uint8_t code = key.type & 0x7F
    cdef int64_t number = 0
    cdef uint64_t big = 0
    cdef double real = 0
    if code == CHAR:
        return PyUnicode_DecodeUTF8(<const char*>key.data, key.size, b"surrogateescape")
    if code == BLOB:
        return PyBytes_FromStringAndSize(<const char*>key.data, key.size)
    if key.size == 8:
        if code == INT64:
            memcpy(&number, key.data, 8)
            return number
        if code == FLOAT64:
            memcpy(&real, key.data, 8)
            return real
        if code == UINT64:
            memcpy(&big, key.data, 8)
            if big > 0x7FFFFFFFFFFFFFFF:
                return big
    data = PyBytes_FromStringAndSize(<const char*>key.data, key.size)
    dtype = _DTYPES.get(code)
    if numbers and dtype is not None and dtype.kind in "iuf" and key.size == element_bytes(code):
        return Key(code, data)                                  # as a number it would be another key
    if dtype is None or key.size % element_bytes(code) or (code == BOOL and data.strip(b"\0\1")):
        return Key(code, data)                                  # NumPy has no form that would come back as these bytes
    array = np.frombuffer(data, dtype)
    return array[0] if key.size == element_bytes(code) else array


def key_bytes(key, bint numbers=True):
    """(datatype code, bytes) of a Python key; numbers: see Layout. TypeError for what cannot be a key, OverflowError beyond 64
    bits."""
    cdef KeyCell cell
    _held = key_cell(key, &cell, numbers)
    return cell.ref.type, cell.ref.data[:cell.ref.size]


def key_object(int type, bytes data not None, bint numbers=True):
    """The Python key of (datatype code, bytes): the inverse of key_bytes."""
    cdef KeyRef ref
    ref.type = type
    ref.data = <const uint8_t*>PyBytes_AS_STRING(data)
    ref.size = PyBytes_GET_SIZE(data)
    return load_key(&ref, numbers)

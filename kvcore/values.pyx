cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AsDouble, PyFloat_Check
from cpython.long cimport PyLong_Check
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.math cimport isnan
from libc.string cimport memcpy

import numpy as np

from tilekv.errors import CorruptionError, InvalidValueError, KeyNotFoundError, OutOfRangeError, WrongTypeError

from tilekv.kvcore.exact cimport array_in, check_unmasked, elements_of, out_of_range, real_of, time_of, wrong_type
from tilekv.kvcore.layout cimport element_bytes


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


cdef enum:                      # datatype codes of docs/format.md 5
    INT64 = 1
    FLOAT64 = 3
    CHAR = 4
    UINT64 = 10
    BLOB = 40
    BOOL = 41


# NumPy's type strings, native order, of the codes that have one; datetimes and timedeltas follow by unit.
CODES = {"<i4": 0, "<i8": 1, "<f4": 2, "<f8": 3, "|i1": 5, "|u1": 6, "<i2": 7, "<u2": 8, "<u4": 9, "<u8": 10, "|b1": 41}
for _i, _unit in enumerate(("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")):
    CODES[f"<M8[{_unit}]"] = 18 + _i
for _i, _unit in enumerate(("h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")):
    CODES[f"<m8[{_unit}]"] = 31 + _i
DTYPES = {code: np.dtype(text) for text, code in CODES.items()}


class Key:
    """A key of a type that has no Python form: a TileDB datatype code (0 to 127) and bytes. Compared by value."""

    __slots__ = ("data", "type")

    def __init__(self, type, data):
        if isinstance(type, bool) or not isinstance(type, int) or not 0 <= type <= 127:
            raise InvalidValueError(f"a key type is a datatype code of 0 to 127, not {type!r}")
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "data", bytes(data))

    def __setattr__(self, name, value):
        raise AttributeError("a Key does not change")

    def __eq__(self, other):
        return isinstance(other, Key) and (self.type, self.data) == (other.type, other.data)

    def __hash__(self):
        return hash((Key, self.type, self.data))

    def __repr__(self):
        return f"Key({self.type}, {self.data!r})"

    def __reduce__(self):
        return Key, (self.type, self.data)


# --- keys ---------------------------------------------------------------------------------------------------------------

cdef object key_cell(object key, KeyCell* cell):
    held = read_key(key, cell)
    if cell.ref.data == NULL:
        raise held
    return held


cdef object asked_cell(object key, KeyCell* cell):
    held = read_key(key, cell)
    if cell.ref.data == NULL:
        try:
            hash(key)
        except TypeError:
            raise held from None
    return held


def key_not_found(key):
    """The KeyNotFoundError of a key, with the reason when it cannot be one. WrongTypeError for what no dict can be asked for."""
    cdef KeyCell cell
    held = asked_cell(key, &cell)
    return KeyNotFoundError(key) if cell.ref.data != NULL else KeyNotFoundError(key, str(held))


cdef object read_key(object key, KeyCell* cell):
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
        held = bytes(key)
    elif isinstance(key, Key):
        cell.ref.type = key.type
        held = key.data
    elif isinstance(key, (np.generic, np.ndarray)):
        if key.ndim > 1:
            return WrongTypeError(f"a key must be a scalar or a 1-d array, not an array of shape {key.shape}")
        check_unmasked(key, "the key")
        if key.ndim == 0 and key.dtype.kind in "UT" and isinstance(key.item(), str):
            return read_key(key.item(), cell)
        little = key.dtype.newbyteorder("<") if key.dtype.kind in "biufmM" else key.dtype
        code = CODES.get(little.str)
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


cdef object load_key(const KeyRef* key):
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
    dtype = DTYPES.get(code)
    if dtype is None or key.size % element_bytes(code) or (code == BOOL and data.strip(b"\0\1")):
        return Key(code, data)                                  # NumPy has no form that would come back as these bytes
    array = np.frombuffer(data, dtype)
    return array[0] if key.size == element_bytes(code) else array


cdef object not_text(str name, str reason):
    return CorruptionError(f"{name}_var.tdb", None, f"attribute {name!r} is text, and a cell of it is not UTF-8 ({reason}): "
                           f"read(keys)[{name!r}] has its bytes, in .data and .offsets")


def key_bytes(key):
    """(datatype code, bytes) of a Python key. TypeError for what cannot be one, OverflowError beyond 64 bits."""
    cdef KeyCell cell
    _held = key_cell(key, &cell)
    return cell.ref.type, cell.ref.data[:cell.ref.size]


def key_object(int type, bytes data not None):
    """The Python key of (datatype code, bytes): the inverse of key_bytes."""
    cdef KeyRef ref
    ref.type = type
    ref.data = <const uint8_t*>PyBytes_AS_STRING(data)
    ref.size = PyBytes_GET_SIZE(data)
    return load_key(&ref)


# --- values -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Column:
    def __cinit__(self, str name not None, int field, int datatype, object dtype, object shape):
        """dtype: a numpy.dtype, or None for bytes (any datatype but UTF8, 12) and text; shape: of a cell, None when variable."""
        self.name = name
        self.field = field
        self.dtype = dtype
        self.shape = None if shape is None else tuple(shape)
        if dtype is None:
            self.kind = KIND_TEXT if datatype == 12 else KIND_BYTES
            return
        if dtype.kind in "iu":
            self.element = KIND_INT
        elif dtype.kind == "b":
            self.element = KIND_BOOL
        elif dtype.kind == "f":
            self.element = KIND_FLOAT64 if dtype.itemsize == 8 else KIND_FLOAT32
        else:
            self.element = KIND_TIME
        self.kind = self.element if self.shape == () else KIND_ARRAY
        self.step = dtype.itemsize
        self.signed = dtype.kind == "i"
        if self.shape is not None:
            self.width = dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def __repr__(self):
        return f"Column({self.name!r}, {self.dtype if self.dtype is not None else ('bytes', 'str')[self.kind]}, {self.shape})"

    cdef str takes(self):
        word = str(self.dtype) if self.dtype is not None else "text" if self.kind == KIND_TEXT else "bytes"
        if self.dtype is not None and self.shape != ():
            word = f"1-d arrays of {word}" if self.shape is None else f"{word} of shape {self.shape}"
        return word

    cdef object cell(self, object value, Cell* cell):
        cdef Py_ssize_t n = 0
        if self.kind == KIND_BYTES:
            if not PyBytes_Check(value):
                if not isinstance(value, (bytearray, memoryview)):
                    hint = ": encode it first, or make the attribute of dtype str" if isinstance(value, str) else ""
                    raise WrongTypeError(f"attribute {self.name!r} takes bytes, not {type(value).__name__}{hint}")
                value = bytes(value)
            cell.data = <const uint8_t*>PyBytes_AS_STRING(value)
            cell.size = PyBytes_GET_SIZE(value)
            return value
        if self.kind == KIND_TEXT:
            if not PyUnicode_Check(value):
                raise WrongTypeError(f"attribute {self.name!r} takes str, not {type(value).__name__}")
            try:
                cell.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &n)
            except UnicodeEncodeError as error:
                raise InvalidValueError(f"attribute {self.name!r} takes text that UTF-8 can hold: {error}") from None
            cell.size = n
            return value
        if self.kind == KIND_ARRAY:
            held = self._array(value, &cell.zone)
            cell.data = <const uint8_t*>PyBytes_AS_STRING(held)
            cell.size = PyBytes_GET_SIZE(held)
            return held
        cell.data = cell.word
        cell.size = self.width
        self._element(value, cell.word, &cell.zone)
        return value

    cdef int _element(self, object value, uint8_t* word, Zone* zone) except -1:
        cdef double real = 0
        cdef float single
        cdef int64_t count
        if self.element == KIND_INT:
            return self._integer(value, word)
        if self.element == KIND_FLOAT64:
            real_of(value, self.dtype, self.name, &real)
            memcpy(word, &real, 8)
        elif self.element == KIND_FLOAT32:
            real_of(value, self.dtype, self.name, &real)
            single = <float>real
            memcpy(word, &single, 4)
            if isnan(single) and isinstance(value, np.float32):     # of a signalling NaN, a double makes a quiet one
                memcpy(word, PyBytes_AS_STRING(value.tobytes()), 4)
        elif self.element == KIND_BOOL:
            if not isinstance(value, (bool, np.bool_)):
                raise wrong_type(self.name, self.dtype, value)
            word[0] = bool(value)
        else:
            count = time_of(value, self.dtype, self.name, zone)
            memcpy(word, &count, 8)
        return 0

    cdef int _integer(self, object value, uint8_t* word) except -1:
        cdef int overflow = 0
        cdef long long number
        cdef unsigned long long big
        cdef int bits = 8 * self.step
        if not PyLong_Check(value) or value is True or value is False:
            if isinstance(value, (bool, np.bool_, np.ndarray)) or not hasattr(value, "__index__"):
                raise WrongTypeError(f"attribute {self.name!r} takes {self.dtype} integers, not {type(value).__name__}")
            try:
                value = value.__index__()
            except TypeError:                                   # of a class
                raise WrongTypeError(f"attribute {self.name!r} takes {self.dtype} integers, not {type(value).__name__}") from None
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and self.signed:
            if bits < 64 and not -(1LL << (bits - 1)) <= number < (1LL << (bits - 1)):
                overflow = 1
            memcpy(word, &number, self.step)
        elif overflow == 0:
            if number < 0 or (bits < 64 and number >= (1LL << bits)):
                overflow = 1
            memcpy(word, &number, self.step)
        elif overflow > 0 and bits == 64 and not self.signed and value < (1 << 64):
            big = PyLong_AsUnsignedLongLong(value)
            memcpy(word, &big, 8)
            overflow = 0
        if overflow:
            raise out_of_range(self.name, self.dtype, value)
        return 0

    cdef object _array(self, object value, Zone* zone):
        cdef uint8_t* at
        elements = elements_of(value, f"the value of attribute {self.name!r}")
        if not isinstance(elements, tuple):
            if self.shape is None and elements.ndim != 1:
                raise InvalidValueError(f"attribute {self.name!r} takes 1-d arrays, the value has shape {elements.shape}")
            if self.shape is not None and elements.shape != self.shape:
                raise InvalidValueError(f"attribute {self.name!r} has shape {self.shape}, the value has {elements.shape}")
            return array_in(elements, self.dtype, self.name).tobytes()
        shape = (len(elements),) if self.shape is None else self.shape
        held = PyBytes_FromStringAndSize(NULL, len(elements) * self.step if self.shape is None else self.width)
        at = <uint8_t*>PyBytes_AS_STRING(held)
        self._fill(elements, shape, &at, zone)
        return held

    cdef int _fill(self, tuple elements, tuple shape, uint8_t** at, Zone* zone) except -1:
        """The elements of lists within lists, each by itself: NumPy would find a common type, and round to it."""
        cdef bytes row
        if len(elements) != shape[0]:
            raise InvalidValueError(f"attribute {self.name!r} has shape {self.shape}, "
                                    f"the value has {len(elements)} elements where it has {shape[0]}")
        shape = shape[1:]
        for each in elements:
            if not shape:
                if isinstance(each, np.ndarray) and each.ndim == 0:
                    check_unmasked(each, f"the value of attribute {self.name!r}")
                    each = each[()]
                if isinstance(each, (list, tuple, np.ndarray)):
                    raise InvalidValueError(f"attribute {self.name!r} takes {self.takes()}, and the value has more dimensions")
                self._element(each, at[0], zone)
                at[0] += self.step
                continue
            inner = elements_of(each, f"the value of attribute {self.name!r}")
            if isinstance(inner, tuple):
                self._fill(inner, shape, at, zone)
                continue
            if inner.shape != shape:
                raise InvalidValueError(f"attribute {self.name!r} has shape {self.shape}, "
                                        f"a part of the value has {inner.shape} where it has {shape}")
            row = array_in(inner, self.dtype, self.name).tobytes()
            memcpy(at[0], PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row))
            at[0] += PyBytes_GET_SIZE(row)
        return 0

    cdef object array(self, object values):
        if self.dtype is None or self.shape is None or values.dtype.kind == "O":
            return None
        if values.shape[1:] != self.shape:
            raise InvalidValueError(f"attribute {self.name!r} has cells of shape {self.shape}, "
                                    f"those of the column have {values.shape[1:]}")
        return array_in(values, self.dtype, self.name)

    cdef object load(self, const uint8_t* data, uint64_t size):
        cdef int64_t number = 0
        cdef uint64_t big = 0
        cdef double real = 0
        cdef float single = 0
        cdef int shift
        if self.kind == KIND_BYTES:
            return PyBytes_FromStringAndSize(<const char*>data, size)
        if self.kind == KIND_TEXT:
            try:
                return PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
            except UnicodeDecodeError as error:
                raise not_text(self.name, str(error)) from None
        if self.kind == KIND_INT:
            if not self.signed:
                memcpy(&big, data, self.width)
                return big
            memcpy(&number, data, self.width)
            shift = 64 - 8 * <int>self.width
            return <int64_t>(<uint64_t>number << shift) >> shift
        if self.kind == KIND_FLOAT64:
            memcpy(&real, data, 8)
            return real
        if self.kind == KIND_FLOAT32:
            memcpy(&single, data, 4)
            if isnan(single):
                return np.frombuffer(PyBytes_FromStringAndSize(<const char*>data, 4), self.dtype)[0]    # see _element()
            return np.float32(single)
        if self.kind == KIND_BOOL:
            return data[0] != 0
        if size % self.dtype.itemsize:
            raise CorruptionError(f"{self.name}_var.tdb", None, f"a cell of {size} bytes is no array of {self.dtype}")
        array = np.frombuffer(PyBytes_FromStringAndSize(<const char*>data, size), self.dtype)
        if self.shape is None:
            return array
        return array[0] if self.shape == () else array.reshape(self.shape)

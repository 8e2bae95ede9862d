cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_Check
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.math cimport isnan
from libc.string cimport memcpy

import numpy as np

from tilekv.errors import CorruptionError, InvalidValueError, WrongTypeError

from tilekv.kvcore.format.datatypes cimport UINT8, UTF8
from tilekv.kvcore.values.exact cimport (array_in, check_unmasked, elements_of, out_of_range, real_of, time_of, whole_bytes,
                                         wrong_type)


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


cdef object not_text(str name, str reason):
    return CorruptionError(f"{name}_var.tdb", None, f"attribute {name!r} is text, and a cell of it is not UTF-8 ({reason}): "
                           f"read(keys)[{name!r}] has its bytes, in .data and .offsets")


@cython.final
cdef class Column:
    def __cinit__(self, str name not None, int field, int datatype, object dtype, object shape, int valid=0,
                  bytes zone=None):
        """dtype: a numpy.dtype, or None for bytes (any datatype but UTF8) and text; shape: of a cell, None when variable.
        valid: see column.pxd."""
        self.name = name
        self.field = field
        self.valid = valid
        self.zone = zone
        self.validity = Column(f"__valid_{name}", valid, UINT8, np.dtype("u1"), ()) if valid else None
        self.dtype = dtype
        self.shape = None if shape is None else tuple(shape)
        if dtype is None:
            self.kind = KIND_TEXT if datatype == UTF8 else KIND_BYTES
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
        if self.valid:
            cell.null = self.valid if value is None else 0
            if value is None:
                cell.data = cell.word
                cell.size = 0
                return None
        if self.kind == KIND_BYTES:
            if not PyBytes_Check(value):
                if not isinstance(value, (bytearray, memoryview)):
                    hint = ": encode it first, or make the attribute of dtype str" if isinstance(value, str) else ""
                    raise WrongTypeError(f"attribute {self.name!r} takes bytes, not {type(value).__name__}{hint}")
                value, reason = whole_bytes(value)
                if value is None:
                    raise InvalidValueError(f"the bytes for attribute {self.name!r} cannot be read: {reason}")
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

from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_Check
from libc.math cimport isinf

import operator as _operator
from array import array as _Array
from collections.abc import Sequence as _Sequence
from datetime import date as _Date
from datetime import datetime as _DateTime
from datetime import timedelta as _Duration

import numpy as np

from tilekv.errors import InvalidValueError, OutOfRangeError, WrongTypeError


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    EPOCH = 719163              # 1970-01-01 as date.toordinal() counts
    MOST_SHOWN = 64             # characters of a value in a message
    SURE = 1 << 53              # every integer up to here is a double
    SURE_SINGLE = 1 << 24

# What has a __float__ and is no real number, or a whole array of them.
_NOT_REAL = (str, bytes, bool, complex, np.bool_, np.complexfloating, np.datetime64, np.timedelta64, np.ndarray)
# Sequences that NumPy reads from where they stand.
_PACKED = (str, bytes, bytearray, memoryview, _Array)
# How many of a unit are a microsecond, and how many microseconds are one of it.
_FINER = {"us": 1, "ns": 10**3, "ps": 10**6, "fs": 10**9, "as": 10**12}
_COARSER = {"ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "D": 86400 * 10**6, "W": 7 * 86400 * 10**6}
_NAT = -2**63


cdef object wrong_type(str name, object dtype, object given):
    came = given.dtype if isinstance(given, np.ndarray) and given.ndim else type(given).__name__
    return WrongTypeError(f"attribute {name!r} takes {dtype}, not {came}")


cdef object out_of_range(str name, object dtype, object given):
    if PyLong_Check(given) and given.bit_length() > 512:
        came = f"an integer of {given.bit_length()} bits"       # Python writes out no integer of any length
    else:
        came = "all of the values given" if isinstance(given, np.ndarray) else str(given)[:MOST_SHOWN]
    return OutOfRangeError(f"attribute {name!r} is {dtype}, which cannot hold {came}")


# --- containers ---------------------------------------------------------------------------------------------------------

cdef bint is_masked(object given) except -1:
    return isinstance(given, np.ma.MaskedArray) and given.dtype.names is None and np.ma.is_masked(given)


cdef int check_unmasked(object given, str what) except -1:
    if is_masked(given):
        raise InvalidValueError(f"{what} has masked elements: fill them (numpy.ma.filled), or leave them out")
    return 0


cdef tuple whole_bytes(object given):
    try:
        return bytes(given), None
    except ValueError as error:
        return None, str(error)


cdef object numpy_form(object given):
    if isinstance(given, np.ndarray):
        return given
    dtype = getattr(given, "dtype", None)
    if isinstance(dtype, np.dtype):
        return np.asarray(given) if hasattr(given, "__array__") and not isinstance(given, np.generic) else None
    if dtype is not None and hasattr(dtype, "tz") and hasattr(dtype, "unit") and hasattr(given, "__array__"):
        return np.asarray(given, f"M8[{dtype.unit}]")           # pandas' times with a zone: NumPy has the instants
    if dtype is None or not hasattr(given, "__array__"):
        return None
    # As Arrow, polars' objects are addresses in memory, and pandas' of a category all of the type that some are; and no category
    # is shown as Arrow but by pandas 3's Series.
    categories = getattr(dtype, "categories", None)
    if (str(getattr(categories, "dtype", dtype)) in ("object", "Object")
            or categories is not None and not hasattr(given, "__arrow_c_stream__")):
        return np.asarray(given)
    return None


cdef object elements_of(object given, str what):
    form = numpy_form(given)
    if form is None and isinstance(given, (list, tuple)):
        return tuple(given)
    if form is None and not isinstance(given, _PACKED):
        nulls = getattr(given, "null_count", None)              # of pyarrow and polars: NumPy would show them as NaN
        if nulls is None and (isinstance(given, _Sequence) or hasattr(given, "dtype") and np.iterable(given)):
            return tuple(given)                                 # pandas' own types too: what is missing is an object there
        if callable(nulls):
            nulls = nulls()
        if nulls is not None and not isinstance(nulls, (int, np.integer)):
            raise WrongTypeError(f"{what} is the elements of one cell, not {type(given).__name__}")     # that has columns
        if nulls:
            raise InvalidValueError(f"{what} has a null: only a whole value can be null")
    if form is None:
        try:
            form = np.asarray(given)
        except ValueError as error:
            raise InvalidValueError(f"{what} is no array: {error}") from None
    check_unmasked(form, what)
    return tuple(form) if form.dtype.kind == "O" and form.ndim else form


# --- numbers ------------------------------------------------------------------------------------------------------------

cdef object array_in(object given, object dtype, str name):
    kind = given.dtype.kind
    array = None
    if kind != dtype.kind and not (kind in "iu" and dtype.kind in "iuf"):
        raise wrong_type(name, dtype, given)
    if kind in "mM":
        return times_in(given, dtype, name)
    with np.errstate(all="ignore"):
        array = np.ascontiguousarray(given, dtype).reshape(given.shape)
    if given.dtype == dtype:
        return array
    if dtype.kind != "f":
        held = np.array_equal(array, given)
    elif kind != "f":
        held = fit_mantissa(given, np.finfo(dtype).nmant + 1)
    elif given.dtype.itemsize > 8:
        held = np.array_equal(array, given, equal_nan=True)
    else:
        held = not np.any(np.isinf(array) & np.isfinite(given))
    if not held:
        raise out_of_range(name, dtype, given)
    return array


cdef bint fit_mantissa(object integers, object bits) except -1:
    """Whether `bits` binary digits hold each of an array of integers, but for zeros at its end."""
    if integers.dtype.itemsize * 8 <= bits or not integers.size:
        return True
    most = 1 << bits
    if int(integers.max()) <= most and int(integers.min()) >= -most:
        return True
    size = np.abs(integers.astype(np.int64 if integers.dtype.kind == "i" else np.uint64)).view(np.uint64)
    size = size[size > most]                                    # the least int64 too, which abs() leaves as it is
    return bool((size // (size & (~size + np.uint64(1))) < most).all())


cdef int real_of(object value, object dtype, str name, double* real) except -1:
    cdef bint single = dtype.itemsize == 4, rounds = PyFloat_Check(value)
    cdef int overflow = 0
    cdef long long number
    if rounds:
        real[0] = value
    elif PyLong_Check(value) and value is not True and value is not False:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        real[0] = number
        if not overflow and -SURE_SINGLE <= number <= SURE_SINGLE or not single and -SURE <= number <= SURE:
            return 0
    elif isinstance(value, _NOT_REAL):
        raise wrong_type(name, dtype, value)
    if not rounds:
        value = integer_of(value)
        if not hasattr(value, "__float__"):
            raise wrong_type(name, dtype, value)
        try:
            real[0] = float(value)
        except (OverflowError, ValueError):
            raise out_of_range(name, dtype, value) from None
        except TypeError:
            raise wrong_type(name, dtype, value) from None
        # What says nothing of itself but a float is that float.
        rounds = type(value).__eq__ is object.__eq__
        if not rounds and not value == real[0] and not value != value:
            raise out_of_range(name, dtype, value)
    if not single or real[0] - real[0] != 0:                    # infinite, or no number
        return 0
    if <double><float>real[0] != real[0] and (not rounds or isinf(<float>real[0])):
        raise out_of_range(name, dtype, value)
    return 0


cdef object integer_of(object value):
    """An integer of any kind as an int, which Python compares with a float exactly, as NumPy does not."""
    try:
        return _operator.index(value)
    except TypeError:
        return value


# --- times --------------------------------------------------------------------------------------------------------------

cdef object times_in(object given, object dtype, str name):
    unit = np.datetime_data(given.dtype)[0]
    if unit != np.datetime_data(dtype)[0]:
        if unit == "generic" and not np.isnat(given).all():
            raise wrong_type(name, dtype, given)
        if given.dtype.kind == "m" and unit in "YM":
            raise wrong_type(name, dtype, given)                # a year is of no one length: NumPy makes it 365.2425 days
    array = None
    native = given.astype(given.dtype.newbyteorder("="))
    try:
        array = np.ascontiguousarray(given, dtype).reshape(given.shape)
        held = np.array_equal(array.astype(native.dtype).view(np.int64), native.view(np.int64))
    except OverflowError:                                       # NumPy 2.5; earlier ones wrap around
        held = False
    if not held:
        raise out_of_range(name, dtype, given)
    return array


cdef object time_of(object value, object dtype, str name, Zone* zone):
    cdef bint aware
    offset = None
    if isinstance(value, _DateTime) and value != value:
        return _NAT                                             # pandas' NaT, which stands for a duration too
    if dtype.kind == "m" and isinstance(value, _Duration):
        if hasattr(value, "to_timedelta64"):
            return numpy_time(value.to_timedelta64(), dtype, name)
        microseconds = in_microseconds(value)
    elif dtype.kind == "M" and isinstance(value, (_Date, np.datetime64)):
        if isinstance(value, _DateTime):
            # pandas' own know no offset outside of Python's years, and give their instant themselves.
            offset = value.tzinfo if hasattr(value, "to_datetime64") else value.utcoffset()
        elif isinstance(value, np.datetime64) and np.isnat(value):
            return _NAT
        aware = offset is not None
        if zone[0] == ZONE_UNKNOWN:
            zone[0] = ZONE_AWARE if aware else ZONE_NONE
        elif aware != (zone[0] == ZONE_AWARE):
            raise InvalidValueError(f"attribute {name!r} is given times with a zone beside times without one")
        if isinstance(value, np.datetime64):
            return numpy_time(value, dtype, name)
        if hasattr(value, "to_datetime64"):
            return numpy_time(value.to_datetime64(), dtype, name)
        microseconds = (value.toordinal() - EPOCH) * 86400 * 10**6
        if isinstance(value, _DateTime):
            microseconds += ((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond
        if aware:
            microseconds -= in_microseconds(offset)
    elif isinstance(value, np.timedelta64):
        return numpy_time(value, dtype, name)
    else:
        raise wrong_type(name, dtype, value)
    unit = np.datetime_data(dtype)[0]
    if unit in "YM":
        return numpy_time(np.datetime64(microseconds, "us"), dtype, name)
    count, rest = (microseconds * _FINER[unit], 0) if unit in _FINER else divmod(microseconds, _COARSER[unit])
    if rest or not _NAT < count < 2**63:
        raise out_of_range(name, dtype, value)
    return count


cdef object numpy_time(object value, object dtype, str name):
    """The count of a NumPy scalar in the unit of dtype."""
    array = np.asarray(value)
    if value.dtype.kind != dtype.kind:
        raise wrong_type(name, dtype, array)
    try:
        return int(times_in(array, dtype, name).view(np.int64))
    except OutOfRangeError:
        raise out_of_range(name, dtype, value) from None


cdef object in_microseconds(object duration):
    return (duration.days * 86400 + duration.seconds) * 10**6 + duration.microseconds

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint64_t

import numpy as np

from tilekv.errors import InvalidValueError, OutOfRangeError, WrongTypeError

from tilekv.kvcore.values.arrow_types cimport dtype_of, format_of, metadata_of, offset_bytes, size_in
from tilekv.kvcore.values.exact cimport out_of_range
from tilekv.kvcore.values.arrow_export import DTYPE_KEY as _DTYPE_KEY
from tilekv.kvcore.format.datatypes import CODES as _CODES

cdef enum:
    MOST_ELEMENTS = 0x400000000000  # of an Arrow array: more has no place in memory, and what is computed of it none in 64 bits

_MOST = int(np.iinfo(np.int64).max)


# --- what is there ------------------------------------------------------------------------------------------------------

cdef int check_array(const ArrowArray* array, int64_t buffers, int64_t children, str what) except -1:
    if (array.n_buffers < buffers or array.n_buffers > 0 and array.buffers == NULL
            or array.n_children != children or children > 0 and array.children == NULL):
        raise InvalidValueError(f"{what}: the Arrow array does not fit its type")
    return 0


cdef int check_children(const ArrowSchema* schema, const ArrowArray* array, int64_t buffers, int64_t children,
                        str what) except -1:
    """Type and array have these children."""
    cdef int64_t i
    check_array(array, buffers, children, what)
    if schema.n_children == children and schema.children != NULL:
        for i in range(children):
            if schema.children[i] == NULL or array.children[i] == NULL:
                break
        else:
            return 0
    raise InvalidValueError(f"{what}: the Arrow array does not fit its type")


cdef int check_at(const ArrowArray* array, object at, str what) except -1:
    if <uint64_t>array.length > <uint64_t>MOST_ELEMENTS or <uint64_t>array.offset > <uint64_t>MOST_ELEMENTS:
        raise InvalidValueError(f"{what}: no Arrow array has {array.length} elements from {array.offset} on")
    if isinstance(at, slice):
        if not 0 <= at.start <= at.stop <= array.length:
            raise InvalidValueError(f"{what}: an Arrow array of {array.length} elements is asked for {at.stop - at.start} "
                                    f"from {at.start} on")
    elif len(at) and not 0 <= at.min() <= at.max() < array.length:
        raise InvalidValueError(f"{what}: a position leads out of the Arrow array of {array.length} elements")
    return 0


cdef Py_ssize_t count_at(object at) except? -1:
    return at.stop - at.start if isinstance(at, slice) else len(at)


cdef object moved(object at, object by):
    return slice(at.start + by, at.stop + by) if isinstance(at, slice) else at + by


cdef object raw(const void* pointer, object n, object dtype, str what):
    """n elements of a buffer, in place."""
    if pointer == NULL:
        raise InvalidValueError(f"{what}: a buffer of the Arrow array is missing")
    return np.frombuffer(PyMemoryView_FromMemory(<char*>pointer, n * dtype.itemsize, PyBUF_READ), dtype)


cdef object picked(const ArrowArray* array, int buffer, object dtype, object at, str what):
    dtype = np.dtype(dtype)
    if count_at(at) == 0 or dtype.itemsize == 0:
        return np.empty(count_at(at), dtype)
    return raw(array.buffers[buffer], array.offset + array.length, dtype, what)[moved(at, array.offset)]


cdef object bits(const ArrowArray* array, int buffer, object at, str what):
    """Elements of a bitmap, as bool."""
    if count_at(at) == 0:
        return np.empty(0, bool)
    packed = raw(array.buffers[buffer], (array.offset + array.length + 7) // 8, np.dtype("u1"), what)
    at = moved(at, array.offset)
    if not isinstance(at, slice):
        return (packed[at >> 3] >> (at & 7).astype(np.uint8) & 1).view(bool)
    skip = at.start // 8
    return np.unpackbits(packed[skip:(at.stop + 7) // 8], bitorder="little")[at.start - 8 * skip:at.stop - 8 * skip].view(bool)


cdef int refuse_nulls(const ArrowArray* array, object at, str what) except -1:
    there = validity_of(array, at, what)
    if there is not None:
        row = int(there.argmin()) + (at.start if isinstance(at, slice) else 0)
        raise InvalidValueError(f"{what} has a null, at row {row} of its array: fill them or leave their rows out; of an "
                                "attribute that is nullable whole values can be null")
    return 0


cdef object validity_of(const ArrowArray* array, object at, str what):
    """Which elements are no nulls, as bool; None when all are none."""
    if (array.null_count == 0 or array.n_buffers <= 0 or array.buffers == NULL or array.buffers[0] == NULL
            or count_at(at) == 0):
        return None
    there = bits(array, 0, at, what)
    return None if there.all() else there


cdef tuple without_nulls(const ArrowArray* array, object at, object rows, str what):
    there = validity_of(array, at, what)
    if there is None:
        return at, rows
    kept = np.flatnonzero(there).astype(np.int64)
    return kept + at.start if isinstance(at, slice) else at[kept], kept if rows is None else rows[kept]


# --- where they are -----------------------------------------------------------------------------------------------------

cdef tuple ends_of(const ArrowArray* array, int width, object at, str what):
    cdef object dtype = np.dtype(f"<i{width}")
    if count_at(at) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    whole = raw(array.buffers[1], array.offset + array.length + 1, dtype, what)
    at = moved(at, array.offset)
    if isinstance(at, slice):
        offsets = np.require(whole[at.start:at.stop + 1], np.int64, ["C", "A"])
        starts, ends = offsets[:len(offsets) - 1], offsets[1:]
    else:
        starts, ends = whole[at].astype(np.int64), whole[at + 1].astype(np.int64)
    if starts.min() < 0 or (ends < starts).any():
        raise InvalidValueError(f"{what}: the offsets of the Arrow array do not rise")
    return starts, ends


cdef object positions_of(const ArrowSchema* schema, const ArrowArray* array, object at, str what):
    if schema.dictionary == NULL:
        return runs_at(schema, array, at, what)
    dtype = dtype_of(format_of(schema, what))
    check_array(array, 2, 0, what)
    check_at(array, at, what)
    refuse_nulls(array, at, what)
    if dtype is None or dtype.kind not in "iu" or array.dictionary == NULL:
        raise InvalidValueError(f"{what}: a dictionary needs indices of integers")
    found = picked(array, 1, dtype, at, what)
    if len(found) and (found.min() < 0 or found.max() >= array.dictionary.length):
        raise InvalidValueError(f"{what}: an index leads out of the dictionary of {array.dictionary.length} values")
    return found.astype(np.int64)


cdef object runs_at(const ArrowSchema* schema, const ArrowArray* array, object at, str what):
    """Which run each element is in. Only the ends of those runs are looked at."""
    cdef const ArrowArray* runs
    check_children(schema, array, 0, 2, what)
    check_at(array, at, what)
    runs = array.children[0]
    dtype = dtype_of(format_of(schema.children[0], what))
    if dtype is None or dtype.kind != "i" or runs.n_buffers < 2 or runs.buffers == NULL:
        raise InvalidValueError(f"{what}: runs need ends of integers")
    check_at(runs, slice(0, runs.length), what)
    ends = picked(runs, 1, dtype, slice(0, runs.length), what)
    at = moved(at, array.offset)
    wanted = np.arange(at.start, at.stop) if isinstance(at, slice) else at
    if len(wanted) == 0:
        return wanted
    found = np.empty(0, np.int64)
    if wanted.max() <= np.iinfo(ends.dtype).max:
        found = np.searchsorted(ends, wanted.astype(ends.dtype), "right").astype(np.int64)
    if (len(found) == 0 or found.max() >= len(ends) or (ends[found] <= wanted).any()
            or (ends[np.maximum(found, 1) - 1][found > 0] > wanted[found > 0]).any()):
        raise InvalidValueError(f"{what}: the run ends of the Arrow array do not rise to its {array.length} elements")
    return found


cdef bint is_list(str format) noexcept:
    return offset_bytes(format) > 0 or format.startswith("+w:")


cdef tuple lists_of(const ArrowSchema* schema, const ArrowArray* array, object at, str what):
    cdef const ArrowArray* child
    cdef int width
    format = format_of(schema, what)
    width = offset_bytes(format)
    check_children(schema, array, 1 if format.startswith("+w:") else 3 if "v" in format else 2, 1, what)
    check_at(array, at, what)
    refuse_nulls(array, at, what)
    child = array.children[0]
    check_at(child, slice(0, child.length), what)
    if format.startswith("+w:"):
        side = size_in(format, what)
        if (array.offset + array.length) * side > <int64_t>MOST_ELEMENTS:
            raise InvalidValueError(f"{what}: no Arrow array has {array.length} lists of {side}")
        at = moved(at, array.offset)
        sizes = np.full(count_at(at), side, np.int64)
        if isinstance(at, slice):
            return sizes, slice(at.start * side, at.stop * side)
        starts = at * side
    elif "v" in format:
        starts = picked(array, 1, f"<i{width}", at, what).astype(np.int64)
        sizes = picked(array, 2, f"<i{width}", at, what).astype(np.int64)
    else:
        starts, ends = ends_of(array, width, at, what)
        sizes = ends - starts
        if isinstance(at, slice):
            return sizes, slice(int(starts[0]), int(ends[len(ends) - 1])) if len(starts) else slice(0, 0)
    if len(starts) and (starts.min() < 0 or sizes.min() < 0 or sizes.max() > child.length
                        or (starts > child.length - sizes).any()):
        raise InvalidValueError(f"{what}: a list leads out of the Arrow array of {child.length} elements")
    if sizes.sum(dtype=np.float64) > <int64_t>MOST_ELEMENTS:
        raise InvalidValueError(f"{what}: the lists of the Arrow array have more elements than any has")
    ends = np.cumsum(sizes)
    return sizes, np.repeat(starts - ends + sizes, sizes) + np.arange(ends[len(ends) - 1] if len(ends) else 0)


# --- elements -----------------------------------------------------------------------------------------------------------

cdef object elements(const ArrowSchema* schema, const ArrowArray* array, object at, tuple sides, Column column, str what,
                     int depth=0):
    format = format_of(schema, what)
    if depth > MOST_DEEP_TYPES:
        raise WrongTypeError(f"{what}: types within types within types, {MOST_DEEP_TYPES} deep or more")
    if schema.dictionary != NULL:
        at = positions_of(schema, array, at, what)
        return elements(schema.dictionary, array.dictionary, at, sides, column, what, depth + 1)
    if format == "+r":
        at = positions_of(schema, array, at, what)
        return elements(schema.children[1], array.children[1], at, sides, column, what, depth + 1)
    if not is_list(format):
        return numbers(schema, array, at, column, what)
    if sides == ():
        return None
    sizes, within = lists_of(schema, array, at, what)
    wrong = sizes != sides[0]
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidValueError(f"attribute {column.name!r} has cells of shape {column.shape}, and its column a list of "
                                f"{sizes[row]}, at row {row} of its array")
    found = elements(schema.children[0], array.children[0], within, sides[1:], column, what, depth + 1)
    return None if found is None else found.reshape(len(sizes), sides[0], *found.shape[1:])


cdef object numbers(const ArrowSchema* schema, const ArrowArray* array, object at, Column column, str what):
    """Those of an array that is no list, runs or dictionary."""
    format = format_of(schema, what)
    dtype = dtype_of(format)
    extension = metadata_of(schema, b"ARROW:extension:name")
    if extension is not None and (extension != b"arrow.bool8" or format != "c"):
        return None                                             # its numbers are something else's
    if dtype is None and not format.startswith("d:"):
        return None
    check_array(array, 2, 0, what)
    check_at(array, at, what)
    refuse_nulls(array, at, what)
    if format == "b":
        return bits(array, 1, at, what)
    if dtype is None:
        return decimals(array, format, at, column, what)
    if dtype.names is not None:
        return durations(picked(array, 1, dtype, at, what), column, what)
    found = picked(array, 1, dtype, at, what)
    if format == "tdD":
        return found.astype(np.int64).view("<M8[D]")
    if extension is not None:
        return found != 0
    return in_unit(schema, found, column) if format == "l" else found


cdef object in_unit(const ArrowSchema* schema, object found, Column column):
    """int64 as times in a unit that Arrow lacks: when our own metadata name it, and for an attribute of that unit, since not
    everyone who passes columns on keeps metadata."""
    name = (metadata_of(schema, _DTYPE_KEY) or b"").decode("ascii", "replace")
    dtype = f"<{name.replace('datetime64', 'M8').replace('timedelta64', 'm8')}"
    if dtype in _CODES:
        return found.view(dtype)
    if column is None or column.dtype is None or column.dtype.kind not in "mM":
        return found
    return found if np.datetime_data(column.dtype)[0] in ("D", "s", "ms", "us", "ns") else found.view(column.dtype)


cdef object durations(object found, Column column, str what):
    """Intervals of days and parts of them, in the unit that their smallest parts need; None where no durations are wanted."""
    if column is None or column.dtype is None or column.dtype.kind != "m":
        return None
    if "months" in found.dtype.names and found["months"].any():
        raise OutOfRangeError(f"{what} has an interval of months, which are of no length that a timedelta64 could have")
    second = 10**9 if "months" in found.dtype.names else 1000
    seconds = found["days"].astype(np.int64) * 86400 + found["parts"] // second
    rest = found["parts"].astype(np.int64) % second * (10**9 // second)
    for unit, parts in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if not (rest % (10**9 // parts)).any():
            if len(seconds) and np.abs(seconds).max() >= _MOST // parts:
                break
            return (seconds * parts + rest // (10**9 // parts)).view(f"<m8[{unit}]")
    raise out_of_range(column.name, column.dtype, found)


# --- decimals -----------------------------------------------------------------------------------------------------------

cdef object decimals(const ArrowArray* array, str format, object at, Column column, str what):
    """Decimals as integers, or as floats of an attribute of them; None for other attributes, and for keys with a fraction."""
    try:
        parts = [int(part) for part in format[2:].split(",")]
    except ValueError:
        parts = []
    if len(parts) == 2:
        parts.append(128)
    if len(parts) != 3 or parts[2] not in (32, 64, 128, 256) or abs(parts[1]) > 100:
        raise InvalidValueError(f"{what}: Arrow has no type {format!r}")
    scale, width = parts[1], parts[2]
    if column is None and scale > 0 or column is not None and (column.dtype is None or column.dtype.kind not in "iuf"):
        return None
    if width < 128:
        found = picked(array, 1, f"<i{width // 8}", at, what).astype(np.int64)
    else:
        found = integers(picked(array, 1, ("<u8", (width // 64,)), at, what))
    if scale < 0:
        return narrowed(found.astype(object) * 10**-scale, column, what)
    if scale == 0:
        return narrowed(found, column, what)
    if column.dtype.kind == "f":
        return divided(found, scale, column)
    return narrowed(quotient(found, 10**scale, column), column, what)


cdef object integers(object words):
    """Two's complement integers of several words: int64, or uint64, when all are, else Python's."""
    low = words[:, 0].view(np.int64)
    if (words[:, 1:].view(np.int64) == (low >> 63)[:, np.newaxis]).all():
        return low
    if not words[:, 1:].any():
        return words[:, 0]
    found = np.empty(len(words), object)
    found[:] = [int.from_bytes(row.tobytes(), "little", signed=True) for row in words]
    return found


cdef object quotient(object found, object divisor, Column column):
    """Without a rest, or it is an error."""
    if found.dtype != object and divisor > _MOST:
        found = found.astype(object)
    if (found % divisor != 0).any():
        raise out_of_range(column.name, column.dtype, found)
    return found // divisor


cdef object narrowed(object found, Column column, str what):
    """Python's integers as int64 or uint64."""
    if found.dtype != object:
        return found
    for dtype in (np.int64, np.uint64):
        limits = np.iinfo(dtype)
        if len(found) == 0 or limits.min <= found.min() and found.max() <= limits.max:
            return found.astype(dtype)
    if column is None:
        raise OutOfRangeError(f"{what}: an int key must fit in 64 bits (-2**63 to 2**64 - 1)")
    raise out_of_range(column.name, column.dtype, found)


cdef object divided(object found, object scale, Column column):
    """found / 10**scale as floats that are exactly that: they are q / 2**scale, of an integer q that a float holds."""
    found = quotient(found, 5**scale, column)
    reals = np.ldexp(found.astype(np.float64), -scale)
    large = (found > 2**53) | (found < -2**53)
    wholes = np.ldexp(reals[large], scale).tolist()
    narrow = None
    with np.errstate(over="ignore"):
        narrow = reals.astype(column.dtype)
    if (narrow != reals).any() or [int(whole) for whole in wholes] != found[large].tolist():
        raise out_of_range(column.name, column.dtype, found)
    return reals

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int32_t
from libc.string cimport memcpy

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.cells cimport FEED_VAR, FEED_VIEWS, address, feed_cell, fixed_cells, key_array, object_cells
from tilekv.kvcore.exact cimport array_in
from tilekv.kvcore.streams cimport format_of
from tilekv.kvcore.values cimport KIND_BYTES, KIND_TEXT
from tilekv.kvcore.wire cimport load32
from tilekv.kvcore.arrow import DTYPE_KEY as _DTYPE_KEY, KEY_TYPE_KEY as _KEY_TYPE_KEY
from tilekv.kvcore.values import CODES as _CODES

cdef extern from "utf8.h" nogil:
    bint tkv_utf8_valid(const uint8_t* at, size_t n)

cdef enum:
    CHAR = 4                    # datatype codes of str and bytes keys
    BLOB = 40
    MOST_SIDES = 32             # of nested lists of fixed size
    MOST_ELEMENTS = 0x400000000000  # of an Arrow array: more has no place in memory, and what is computed of it none in 64 bits

_DTYPES = {"b": "?", "c": "<i1", "C": "<u1", "s": "<i2", "S": "<u2", "i": "<i4", "I": "<u4", "l": "<i8", "L": "<u8",
           "e": "<f2", "f": "<f4", "g": "<f8", "tdD": "<i4", "tdm": "<M8[ms]",
           "tDs": "<m8[s]", "tDm": "<m8[ms]", "tDu": "<m8[us]", "tDn": "<m8[ns]"}
_TIMESTAMPS = {"tss:": "<M8[s]", "tsm:": "<M8[ms]", "tsu:": "<M8[us]", "tsn:": "<M8[ns]"}
# (bytes of an offset, whether text)
_BLOBS = {"u": (4, True), "U": (8, True), "z": (4, False), "Z": (8, False)}


cdef Cells table_cells(ArrowChunk chunk, Py_ssize_t i, Column column, str what):
    cdef ArrowArray* rows = &chunk.array
    check_array(rows, 1, chunk.types.schema.n_children, "the table")
    check_range(rows, 0, rows.length, "the table")
    if rows.children[i] == NULL:
        raise InvalidValueError(f"{what}: the Arrow array does not fit its type")
    refuse_nulls(rows, 0, rows.length, "the table")
    return arrow_cells(chunk, chunk.types.schema.children[i], rows.children[i], rows.offset, rows.length, column, what)


cdef int check_array(const ArrowArray* array, int64_t buffers, int64_t children, str what) except -1:
    if (array.n_buffers < buffers or array.n_buffers > 0 and array.buffers == NULL
            or array.n_children != children or children > 0 and array.children == NULL):
        raise InvalidValueError(f"{what}: the Arrow array does not fit its type")
    return 0


cdef int check_item(const ArrowSchema* schema, const ArrowArray* array, int64_t buffers, str what) except -1:
    """Both have the one child of a list."""
    check_array(array, buffers, 1, what)
    if schema.n_children != 1 or schema.children == NULL or schema.children[0] == NULL or array.children[0] == NULL:
        raise InvalidValueError(f"{what}: the Arrow array does not fit its type")
    return 0


cdef object size_in(str format, str what):
    """The number behind the colon of a format."""
    text = format.partition(":")[2]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidValueError(f"{what}: Arrow has no type {format!r}")
    return int(text)


cdef int check_range(const ArrowArray* array, object start, object n, str what) except -1:
    if <uint64_t>array.length > <uint64_t>MOST_ELEMENTS or <uint64_t>array.offset > <uint64_t>MOST_ELEMENTS:
        raise InvalidValueError(f"{what}: no Arrow array has {array.length} elements from {array.offset} on")
    if start < 0 or n < 0 or start + n > array.length:
        raise InvalidValueError(f"{what}: an Arrow array of {array.length} elements is asked for {n} from {start} on")
    return 0


cdef object raw(const void* pointer, object skip, object n, object dtype, str what):
    """n elements of a buffer, in place."""
    dtype = np.dtype(dtype)
    if n == 0:
        return np.empty(0, dtype)
    if pointer == NULL:
        raise InvalidValueError(f"{what}: a buffer of the Arrow array is missing")
    size = dtype.itemsize
    return np.frombuffer(PyMemoryView_FromMemory(<char*>pointer + <int64_t>(skip * size), n * size, PyBUF_READ), dtype)


cdef object bits(const void* pointer, object start, object n, str what):
    """n bits of a bitmap as bool."""
    skip = start // 8
    packed = raw(pointer, skip, (start + n + 7) // 8 - skip, "u1", what)
    return np.unpackbits(packed, bitorder="little")[start - 8 * skip:start - 8 * skip + n].view(bool)


cdef int refuse_nulls(const ArrowArray* array, object start, object n, str what) except -1:
    if array.null_count == 0 or n == 0 or array.n_buffers <= 0 or array.buffers == NULL or array.buffers[0] == NULL:
        return 0
    there = bits(array.buffers[0], array.offset + start, n, what)
    if not there.all():
        raise InvalidValueError(f"{what} has a null, at row {start + int(there.argmin())} of its array: "
                                "tilekv has no nulls, fill them or leave their rows out")
    return 0


cdef object elements(const ArrowSchema* schema, const ArrowArray* array, object start, object n, str what):
    """Numbers, times, bools, and lists of fixed size of them, as NumPy of shape (n, *sides); None for other types."""
    cdef int64_t sides = 0
    shape = [n]
    format = format_of(schema, what)
    while format.startswith("+w:"):
        check_item(schema, array, 1, what)
        check_range(array, start, n, what)
        refuse_nulls(array, start, n, what)
        side = size_in(format, what)
        start = (start + array.offset) * side
        n = n * side
        sides += 1
        if sides > MOST_SIDES:
            raise WrongTypeError(f"{what}: lists within lists within lists, {MOST_SIDES} deep or more")
        shape.append(side)
        schema = schema.children[0]
        array = array.children[0]
        format = format_of(schema, what)
    dtype = _DTYPES.get(format) or _TIMESTAMPS.get(format[:4])
    if dtype is None:
        return None
    check_array(array, 2, 0, what)
    check_range(array, start, n, what)
    refuse_nulls(array, start, n, what)
    if schema.dictionary != NULL:
        if schema.dictionary.dictionary != NULL:
            raise WrongTypeError(f"{what}: a dictionary of dictionaries")
        if array.dictionary == NULL:
            raise InvalidValueError(f"{what}: the Arrow array has no dictionary")
        values = elements(schema.dictionary, array.dictionary, 0, array.dictionary.length, what)
        return None if values is None else values[indices(schema, array, start, n, what)].reshape(*shape, *values.shape[1:])
    if format == "b":
        values = bits(array.buffers[1], array.offset + start, n, what)
    else:
        values = raw(array.buffers[1], array.offset + start, n, dtype, what)
        if format == "tdD":
            values = values.astype(np.int64).view("<M8[D]")
        elif format == "l":
            values = values.view(named_dtype(schema))
    return values.reshape(shape)


cdef bytes metadata_of(const ArrowSchema* schema, bytes key):
    """What the metadata of a field say of `key`, or None."""
    cdef const char* at = schema.metadata
    cdef int32_t pairs = 0, size = 0, i
    if at == NULL:
        return None
    memcpy(&pairs, at, 4)
    at += 4
    name = None
    for i in range(2 * pairs):
        memcpy(&size, at, 4)
        if size < 0:
            return None
        text = at[4:4 + size]
        at += 4 + size
        if i % 2 and name == key:
            return text
        name = text
    return None


cdef object named_dtype(const ArrowSchema* schema):
    """The dtype that an int64 of our own names in its metadata: a time in a unit that Arrow lacks."""
    name = (metadata_of(schema, _DTYPE_KEY) or b"").decode("ascii", "replace")
    dtype = f"<{name.replace('datetime64', 'M8').replace('timedelta64', 'm8')}"
    return dtype if dtype in _CODES else "<i8"


cdef uint8_t named_type(const ArrowSchema* schema) except? 255:
    """The datatype of keys that our own bytes name in their metadata."""
    text = (metadata_of(schema, _KEY_TYPE_KEY) or b"").decode("ascii", "replace")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 and int(text) < 128 else BLOB


cdef object in_unit(object found, Column column):
    """Bare int64 as times, for an attribute in a unit that Arrow lacks: not everyone who passes columns on keeps metadata."""
    dtype = column.dtype
    if dtype is None or dtype.kind not in "mM" or found.dtype != np.int64:
        return found
    return found if np.datetime_data(dtype)[0] in ("D", "s", "ms", "us", "ns") else found.view(dtype)


cdef object indices(const ArrowSchema* schema, const ArrowArray* array, object start, object n, str what):
    """Of a dictionary-encoded array, as int64."""
    dtype = _DTYPES.get(format_of(schema, what), "")
    check_array(array, 2, 0, what)
    check_range(array, start, n, what)
    refuse_nulls(array, start, n, what)
    if dtype[1:2] not in ("i", "u") or array.dictionary == NULL:
        raise InvalidValueError(f"{what}: a dictionary needs indices of integers")
    found = raw(array.buffers[1], array.offset + start, n, dtype, what)
    if n and (found.min() < 0 or found.max() >= array.dictionary.length):
        raise InvalidValueError(f"{what}: an index leads out of the dictionary of {array.dictionary.length} values")
    return np.require(found, np.int64, ["C", "A"])


cdef object offsets_of(const ArrowArray* array, object start, object n, int width, str what):
    """n + 1 offsets as int64, rising."""
    if n == 0:
        return np.zeros(1, np.int64)
    found = np.require(raw(array.buffers[1], array.offset + start, n + 1, f"<i{width}", what), np.int64, ["C", "A"])
    if found[0] < 0 or (found[1:] < found[:n]).any():
        raise InvalidValueError(f"{what}: the offsets of the Arrow array do not rise")
    return found


cdef Cells var_cells(object offsets, const void* base, str what):
    cdef Cells cells = Cells.__new__(Cells)
    cells.n = len(offsets) - 1
    if base == NULL and offsets[cells.n]:
        raise InvalidValueError(f"{what}: a buffer of the Arrow array is missing")
    cells.feed.kind = FEED_VAR
    cells.feed.base = <const uint8_t*>base if base != NULL else <const uint8_t*>b""
    cells.feed.offsets = <const int64_t*>address(offsets)
    cells.owner = offsets
    return cells


cdef Cells view_cells(const ArrowArray* array, object start, Py_ssize_t n, str what):
    """String or binary views: a u32 length, then up to 12 bytes, or 4 of them, the block's number and the offset in it."""
    cdef Cells cells = Cells.__new__(Cells)
    cdef const int64_t* sizes
    cdef int64_t i, blocks
    cdef const uint8_t* view
    cdef uint64_t size
    cdef bint right = True
    check_array(array, 3, 0, what)
    cells.n = n
    cells.feed.kind = FEED_VIEWS
    if n == 0:
        return cells
    if array.buffers[1] == NULL:
        raise InvalidValueError(f"{what}: a buffer of the Arrow array is missing")
    blocks = array.n_buffers - 3                                # validity, views, the blocks, and their sizes
    sizes = <const int64_t*>array.buffers[array.n_buffers - 1]
    cells.feed.base = <const uint8_t*>array.buffers[1] + 16 * <int64_t>(array.offset + start)
    cells.feed.blocks = array.buffers
    with nogil:
        for i in range(n):
            view = cells.feed.base + 16 * i
            size = load32(view)
            if size > 12 and (size > 0x7FFFFFFF or sizes == NULL or load32(view + 8) >= <uint64_t>blocks
                              or <int64_t>(load32(view + 12) + size) > sizes[load32(view + 8)]):
                right = False
                break
    if not right:
        raise InvalidValueError(f"{what}: a view leads out of the blocks of the Arrow array")
    return cells


cdef int check_text(Cells cells, str what) except -1:
    cdef const uint8_t* data = NULL
    cdef uint64_t size = 0
    cdef int64_t i, wrong = -1
    with nogil:
        for i in range(cells.n):
            feed_cell(&cells.feed, i, &data, &size)
            if not tkv_utf8_valid(data, size):
                wrong = i
                break
    if wrong >= 0:
        raise InvalidValueError(f"{what}: the text at {wrong} is not UTF-8")
    return 0


cdef Cells arrow_cells(ArrowChunk chunk, const ArrowSchema* schema, const ArrowArray* array, object start, object n,
                       Column column, str what):
    cdef Cells cells
    cdef const ArrowSchema* item
    format = format_of(schema, what)
    if schema.dictionary != NULL:
        index = indices(schema, array, start, n, what)
        if schema.dictionary.dictionary != NULL:
            raise WrongTypeError(f"{what}: a dictionary of dictionaries")
        cells = arrow_cells(chunk, schema.dictionary, array.dictionary, 0, array.dictionary.length, column, what)
        cells.feed.index = <const int64_t*>address(index)
        cells.owner = (cells.owner, index)
        cells.n = n
        return cells
    check_range(array, start, n, what)
    if format == "n":
        if n:
            raise InvalidValueError(f"{what} is all nulls: tilekv has no nulls, fill them or leave their rows out")
        return object_cells([])
    text = format in ("u", "U", "vu")
    if text or format in ("z", "Z", "vz") or format.startswith("w:"):
        if column is not None and column.kind != (KIND_TEXT if text else KIND_BYTES):
            raise wrong_type(what, "text" if text else "bytes", column)
        refuse_nulls(array, start, n, what)
        if format.startswith("w:"):
            check_array(array, 2, 0, what)
            width = size_in(format, what)
            cells = fixed_cells(raw(array.buffers[1], 0, (array.offset + start + n) * width, "u1", what)
                                [(array.offset + start) * width:].reshape(n, width))
        elif format[0] == "v":
            cells = view_cells(array, start, n, what)
        else:
            check_array(array, 3, 0, what)
            cells = var_cells(offsets_of(array, start, n, _BLOBS[format][0], what), array.buffers[2], what)
        if text:
            check_text(cells, what)
        cells.feed.type = CHAR if text else named_type(schema)
        cells.owner = (chunk, cells.owner)
        return cells
    if format in ("+l", "+L") and column is not None and column.dtype is not None and column.shape is None:
        check_item(schema, array, 2, what)
        refuse_nulls(array, start, n, what)
        offsets = offsets_of(array, start, n, 4 if format == "+l" else 8, what)
        item = schema.children[0]
        found = elements(item, array.children[0], int(offsets[0]), int(offsets[n] - offsets[0]), what)
        if found is not None and found.ndim == 1:
            found = array_in(in_unit(found, column), column.dtype, column.name)
            cells = var_cells((offsets - offsets[0]) * column.dtype.itemsize, <const void*>address(found), what)
            cells.owner = (cells.owner, found)
            return cells
        raise wrong_type(what, f"lists of {format_of(item, what)!r}", column)
    found = elements(schema, array, start, n, what)
    if found is not None:
        found = key_array(found) if column is None else column.array(in_unit(found, column))
    if found is None:
        raise wrong_type(what, f"of the type {format!r}", column)
    cells = fixed_cells(found)
    cells.owner = (chunk, found)
    return cells


cdef object wrong_type(str what, str came, Column column):
    if column is None:
        return WrongTypeError(f"{what}: keys are text, bytes or numbers, and this Arrow column is {came}")
    return WrongTypeError(f"{what} takes {column.takes()}, and this Arrow column is {came}")

import json

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.base.wire cimport load32
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.values.arrow_arrays cimport (MOST_DEEP_TYPES, check_array, check_at, count_at, elements, ends_of, is_list,
                                                lists_of, picked, positions_of, refuse_nulls, without_nulls)
from tilekv.kvcore.values.arrow_types cimport format_of, metadata_of, size_in, type_name
from tilekv.kvcore.values.exact cimport array_in
from tilekv.kvcore.values.input_cells cimport (FEED_VAR, FEED_VIEWS, Feed, address, array_keys, feed_cell, fixed_cells, no_cells,
                                               object_cells, spread_cells)
from tilekv.kvcore.values.values cimport KIND_BYTES, KIND_TEXT
from tilekv.kvcore.values.arrow_export import KEY_TYPE_KEY as _KEY_TYPE_KEY

cdef extern from "base/utf8.h" nogil:
    bint tkv_utf8_valid(const uint8_t* at, size_t n)

_TEXTS = ("u", "U", "vu")
_BLOBS = ("z", "Z", "vz")


cdef Cells table_cells(ArrowChunk chunk, Py_ssize_t i, Column column, bint numbers, str what):
    cdef ArrowArray* rows = &chunk.array
    check_array(rows, 1, chunk.types.schema.n_children, "the table")
    check_at(rows, slice(0, rows.length), "the table")
    if rows.children[i] == NULL:
        raise InvalidValueError(f"{what}: the Arrow array does not fit its type")
    refuse_nulls(rows, slice(0, rows.length), "the table")
    return import_cells(chunk, chunk.types.schema.children[i], rows.children[i],
                        slice(rows.offset, rows.offset + rows.length), column, numbers, what)


cdef Cells import_cells(ArrowChunk chunk, const ArrowSchema* schema, const ArrowArray* array, object at, Column column,
                        bint numbers, str what):
    cdef const ArrowSchema* outer = schema
    cdef Cells cells = None
    cdef int depth = 0
    cdef bint nullable = column is not None and column.valid
    cdef Py_ssize_t n
    rows = None                                                 # that are no nulls; None: all
    format = format_of(schema, what)
    check_at(array, at, what)
    n = count_at(at)
    if nullable:
        at, rows = without_nulls(array, at, rows, what)
    while schema.dictionary != NULL or format == "+r":
        at = positions_of(schema, array, at, what)
        if schema.dictionary != NULL:
            schema, array = schema.dictionary, array.dictionary
        else:
            schema, array = schema.children[1], array.children[1]
        format = format_of(schema, what)
        if nullable:
            check_at(array, at, what)
            at, rows = without_nulls(array, at, rows, what)
        depth += 1
        if depth > MOST_DEEP_TYPES:
            raise WrongTypeError(f"{what}: a dictionary of dictionaries of dictionaries, {MOST_DEEP_TYPES} deep or more")
    if format == "n":
        check_at(array, at, what)
        if nullable:
            return object_cells([None] * n)
        if count_at(at):
            raise InvalidValueError(f"{what} is all nulls: fill them, leave their rows out, or make the attribute nullable")
        return object_cells([])
    if format in _TEXTS or format in _BLOBS or format.startswith("w:"):
        if column is None or column.kind == (KIND_TEXT if format in _TEXTS else KIND_BYTES):
            cells = blob_cells(schema, array, at, format, what)
    elif is_list(format) and column is not None and column.dtype is not None and column.shape is None:
        cells = list_cells(schema, array, at, column, what)
    else:
        sides = () if column is None else column.shape or ()
        if is_tensor(schema, sides):
            found = elements(schema, array, at, (int(np.prod(sides)),), column, what)
            found = None if found is None else found.reshape(len(found), *sides)
        else:
            found = elements(schema, array, at, sides, column, what)
        if found is not None and column is None:
            cells = array_keys(found, numbers)
        elif found is not None:
            found = column.array(found)
            cells = None if found is None else fixed_cells(found)
    if cells is None:
        takes = "takes " + column.takes() if column is not None else "are text, bytes or numbers"
        raise WrongTypeError(f"{what} {takes}, and this Arrow column is {type_name(outer)}")
    if rows is not None:
        cells = spread_cells(cells, rows, n, column.valid)
    cells.owner = (chunk, cells.owner)
    return cells


cdef Cells blob_cells(const ArrowSchema* schema, const ArrowArray* array, object at, str format, str what):
    """Text and bytes."""
    cdef Cells cells
    check_array(array, 2 if format.startswith("w:") else 3, 0, what)
    check_at(array, at, what)
    refuse_nulls(array, at, what)
    if format.startswith("w:"):
        cells = fixed_cells(picked(array, 1, ("u1", (size_in(format, what),)), at, what))
    elif format.startswith("v"):
        cells = view_cells(array, at, what)
    else:
        starts, ends = ends_of(array, 4 if format in ("u", "z") else 8, at, what)
        cells = var_cells(starts, ends, array.buffers[2], what)
    cells.feed.type = CHAR if format in _TEXTS else named_type(schema)
    if format in _TEXTS:
        check_text(cells, what)
    return cells


cdef Cells var_cells(object starts, object ends, const void* base, str what):
    cdef Cells cells = no_cells()
    cells.n = len(starts)
    if base == NULL and cells.n and ends.max():
        raise InvalidValueError(f"{what}: a buffer of the Arrow array is missing")
    cells.feed.kind = FEED_VAR
    cells.feed.base = <const uint8_t*>base if base != NULL else <const uint8_t*>b""
    cells.feed.starts = <const int64_t*>address(starts)
    cells.feed.ends = <const int64_t*>address(ends)
    cells.owner = (starts, ends)
    return cells


cdef Cells view_cells(const ArrowArray* array, object at, str what):
    """String or binary views: a u32 length, then up to 12 bytes, or 4 of them, the block's number and the offset in it."""
    cdef Cells cells = no_cells()
    cdef const int64_t* sizes = <const int64_t*>array.buffers[array.n_buffers - 1]
    cdef int64_t i, blocks = array.n_buffers - 3                # validity, views, the blocks, and their sizes
    cdef const uint8_t* view
    cdef uint64_t size
    cdef bint right = True
    views = picked(array, 1, "V16", at, what)
    cells.n = len(views)
    cells.feed.kind = FEED_VIEWS
    cells.feed.base = <const uint8_t*>address(views)
    cells.feed.blocks = array.buffers
    cells.owner = views
    with nogil:
        for i in range(cells.n):
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
        for i in range(0 if is_one_text(&cells.feed, cells.n) else cells.n):
            feed_cell(&cells.feed, i, &data, &size)
            if not tkv_utf8_valid(data, size):
                wrong = i
                break
    if wrong >= 0:
        raise InvalidValueError(f"{what}: the text at {wrong} is not UTF-8")
    return 0


cdef bint is_one_text(const Feed* feed, int64_t n) noexcept nogil:
    """Cells that follow one another, which are UTF-8 together, and none of which begins within a character: 100,000 names take
    0.1 ms, and a millisecond one by one."""
    cdef int64_t i
    if feed.kind != FEED_VAR or n == 0:
        return False
    for i in range(1, n):
        if feed.starts[i] != feed.ends[i - 1] or (feed.starts[i] < feed.ends[n - 1]
                                                  and feed.base[feed.starts[i]] & 0xC0 == 0x80):
            return False
    return tkv_utf8_valid(feed.base + feed.starts[0], feed.ends[n - 1] - feed.starts[0])


cdef Cells list_cells(const ArrowSchema* schema, const ArrowArray* array, object at, Column column, str what):
    """Lists as cells of variable length; None when they are not of numbers."""
    cdef Cells cells
    sizes, within = lists_of(schema, array, at, what)
    found = elements(schema.children[0], array.children[0], within, (), column, what)
    if found is None:
        return None
    found = array_in(found, column.dtype, column.name)
    ends = np.cumsum(sizes) * column.dtype.itemsize
    cells = var_cells(ends - sizes * column.dtype.itemsize, ends, <const void*>address(found), what)
    cells.owner = (cells.owner, found)
    return cells


cdef bint is_tensor(const ArrowSchema* schema, tuple sides) except -1:
    """Whether it is Arrow's extension of arrays of this shape, in C's order: lists of all their numbers."""
    if len(sides) < 2 or metadata_of(schema, b"ARROW:extension:name") != b"arrow.fixed_shape_tensor":
        return False
    try:
        says = json.loads(metadata_of(schema, b"ARROW:extension:metadata") or b"")
        return says["shape"] == list(sides) and says.get("permutation") in (None, list(range(len(sides))))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


cdef uint8_t named_type(const ArrowSchema* schema) except? 255:
    """The datatype of keys that our own bytes name in their metadata."""
    text = (metadata_of(schema, _KEY_TYPE_KEY) or b"").decode("ascii", "replace")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 and int(text) < 128 else BLOB

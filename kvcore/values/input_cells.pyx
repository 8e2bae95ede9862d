cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory

import numpy as np

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.values.keys cimport key_cell, numbers_of
from tilekv.kvcore.format.datatypes import CODES as _CODES


@cython.final
cdef class Cells:
    def __len__(self):
        return self.n

    cdef Cells slice(self, Py_ssize_t lo, Py_ssize_t hi):
        cdef Cells part = Cells.__new__(Cells)
        part.feed = self.feed
        part.n = hi - lo
        part.owner = self.owner
        part.numbers = self.numbers
        if self.objects is not None:
            part.objects = self.objects[lo:hi]
        if part.feed.types != NULL:
            part.feed.types += lo
        if part.feed.valid != NULL:
            part.feed.valid += lo
        if part.feed.kind == FEED_FIXED:
            part.feed.base += lo * part.feed.width
        elif part.feed.kind == FEED_VAR:
            part.feed.starts += lo
            part.feed.ends += lo
        elif part.feed.kind == FEED_VIEWS:
            part.feed.base += 16 * lo
        return part


cdef Cells no_cells():
    return Cells.__new__(Cells)


cdef Cells object_cells(list objects, bint numbers=False):
    cdef Cells cells = Cells.__new__(Cells)
    cells.feed.kind = FEED_OBJECTS
    cells.objects = objects
    cells.numbers = numbers
    cells.n = len(objects)
    return cells


cdef object cells_key(Cells cells, Py_ssize_t i, KeyCell* key):
    if cells.feed.kind == FEED_OBJECTS:
        return key_cell(cells.objects[i], key, cells.numbers)
    feed_key(&cells.feed, i, &key.ref)
    return cells


cdef Cells fixed_cells(object array):
    cdef Cells cells = Cells.__new__(Cells)
    cells.n = len(array)
    cells.feed.kind = FEED_FIXED
    cells.feed.base = <const uint8_t*>address(array)
    cells.feed.width = array.nbytes // cells.n if cells.n else 0
    cells.feed.type = _CODES.get(array.dtype.str, 0)
    cells.owner = array
    return cells


cdef Cells gathered_keys(object types, object offsets, object data, bint numbers):
    cdef Cells cells = Cells.__new__(Cells)
    cells.n = len(types)
    cells.feed.kind = FEED_VAR
    cells.feed.base = <const uint8_t*>address(data)
    cells.feed.starts = <const int64_t*>address(offsets)
    cells.feed.ends = cells.feed.starts + 1
    cells.feed.types = <const uint8_t*>address(types)
    cells.owner = (types, offsets, data)
    cells.numbers = numbers
    return cells


cdef object read_from(const void* at, Py_ssize_t n, Py_ssize_t width):
    """n times `width` bytes, in place."""
    if n == 0 or width == 0:
        return np.empty((n, width), np.uint8)
    return np.frombuffer(PyMemoryView_FromMemory(<char*>at, n * width, PyBUF_READ), np.uint8).reshape(n, width)


cdef Cells spread_cells(Cells cells, object rows, Py_ssize_t n, int null):
    cdef Cells whole
    cdef list objects
    if cells.feed.kind == FEED_OBJECTS:
        objects = [None] * n
        for row, value in zip(rows.tolist(), cells.objects):
            objects[row] = value
        return object_cells(objects)
    whole = Cells.__new__(Cells)
    whole.feed = cells.feed
    whole.n = n
    valid = np.zeros(n, np.uint8)
    valid[rows] = 1
    whole.feed.valid = <const uint8_t*>address(valid)
    whole.feed.null = null
    if cells.feed.kind == FEED_VAR:
        starts, ends = np.zeros((n, 8), np.uint8), np.zeros((n, 8), np.uint8)
        starts[rows] = read_from(cells.feed.starts, cells.n, 8)
        ends[rows] = read_from(cells.feed.ends, cells.n, 8)
        whole.feed.starts = <const int64_t*>address(starts)
        whole.feed.ends = <const int64_t*>address(ends)
        whole.owner = (cells.owner, valid, starts, ends)
        return whole
    width = 16 if cells.feed.kind == FEED_VIEWS else cells.feed.width
    data = np.zeros((n, width), np.uint8)
    data[rows] = read_from(cells.feed.base, cells.n, width)
    whole.feed.base = <const uint8_t*>address(data)
    whole.owner = (cells.owner, valid, data)
    return whole


cdef Cells ended_cells(object offsets, object data):
    cdef Cells cells = Cells.__new__(Cells)
    cells.n = len(offsets) - 1
    cells.feed.kind = FEED_VAR
    cells.feed.base = <const uint8_t*>address(data)
    cells.feed.starts = <const int64_t*>address(offsets)
    cells.feed.ends = cells.feed.starts + 1
    cells.owner = (offsets, data)
    return cells


cdef Py_ssize_t count_cells(list pieces) noexcept:
    cdef Cells piece
    cdef Py_ssize_t n = 0
    for piece in pieces:
        n += piece.n
    return n


cdef Cells array_keys(object array, bint numbers):
    cdef Cells cells
    types = None
    if array.ndim != 1 or array.dtype.kind not in "biufmM":
        return None
    if numbers and array.dtype.kind in "iuf":
        array, types = numbers_of(array)
        if array is None:                                       # not all of them can be keys
            return None
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in _CODES:
        return None
    cells = fixed_cells(np.ascontiguousarray(array, dtype))
    cells.numbers = numbers
    if types is not None:
        cells.feed.types = <const uint8_t*>address(types)
        cells.owner = (cells.owner, types)
    return cells


cdef Cells kept_keys(Cells cells):
    cdef Cells kept
    if not isinstance(cells.owner, np.ndarray):
        return cells
    kept = fixed_cells(cells.owner.copy())
    kept.numbers = cells.numbers
    return kept


tkv_refuse_bare(Cells)

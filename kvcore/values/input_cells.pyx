cimport cython

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

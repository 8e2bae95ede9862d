"""Sorted cells that stand in arrays, column by column: what a fragment is written from when no write buffer made them."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.format.tile cimport CellSource


cdef struct ArrayColumn:
    Py_buffer data              # the cells, one after the other; obj is NULL until it is held
    Py_buffer starts            # var: n + 1 u64, where in `data` each cell begins, and the end


cdef class ArrayCells(CellSource):
    """Holds the arrays and copies nothing. Immutable; any number of threads may read."""
    cdef Layout layout
    cdef Py_buffer c0
    cdef Py_buffer c1
    cdef ArrayColumn* columns   # by field
    cdef int _hold(self, object array, Py_buffer* view, size_t size) except -1
    cdef int _hold_var(self, object starts, object data, ArrayColumn* column) except -1

"""Many cells as Python objects or as columns: gathered without the GIL, columns where they will stay."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.column_reader cimport Stretch
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.values.cells cimport Column
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.write.memtable cimport Buffer

cdef enum:                      # beside the datatypes of keys
    ANY_TYPE = -1               # not known yet
    NO_TYPE = -2                # several


cdef class Batch:
    """Rows of columns, the result of read() and scan()."""
    cdef readonly tuple columns         # Column
    cdef dict _arrays
    cdef readonly object found          # read() only: bool array
    cdef list _pieces                   # the keys: Cells
    cdef list _keys                     # the keys as objects, once asked for

cdef struct Gathered:           # the cells of one field
    Out data                    # fixed: n * width bytes; var: the bytes, one cell after the other
    Out ends                    # var: n x int64, where each cell ends in data


cdef class Rows:
    """Cells copied out of a snapshot, to be made into objects one at a time: each is in the cache of the core when it is
    looked at and when it goes, and its memory is the next one's.

    Any number of threads may take objects, but fill() REQUIRES that nobody does.
    """
    cdef size_t n
    cdef tuple columns
    cdef list names
    cdef Gathered* fields       # one a column, then the keys, then their types
    cdef size_t nfields
    cdef bint numbers           # of the keys: see Layout
    # Other cells of the same columns, with their keys or without.
    cdef int fill(self, Snapshot snapshot, Buffer buffer, const Stretch* stretch, bint keys) except -1
    cdef int _field(self, Snapshot snapshot, Buffer buffer, int field, const Stretch* stretch, Gathered* into) except -1
    cdef object key(self, size_t i)
    # Bare for one attribute, else a dict.
    cdef object value(self, size_t i)
    cdef object _cell(self, Py_ssize_t number, size_t i)

cdef Rows new_rows(tuple columns)

# How many of the first cells have at most `limit` bytes in each of the columns, and of keys: at least one.
cdef size_t fitting(Snapshot snapshot, Buffer buffer, tuple columns, bint keys, const Stretch* stretch, uint64_t limit) except 0

cdef inline uint8_t* into_array(object array) except? NULL:
    """Where a contiguous NumPy array of numbers begins; nothing is written through it when it is empty.

    By its buffer: `__array_interface__` makes a dict, which costs 16,000 instructions.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    PyBuffer_Release(&view)
    return <uint8_t*>view.buf


# The bytes of a contiguous array of numbers as an array that nobody can write to.
cdef object sealed(object array, object dtype, object shape)
# A column of n cells: int64 offsets (n + 1) and uint8 bytes, or no offsets and n * width bytes.
cdef object column_of(Column column, size_t n, object offsets, object data)

# n cells at addresses[0..n); present[i] is PRESENT or the cell is left out (NULL: all are there); `buffer` has the layout of
# addresses in a write buffer. A list of values, None where a cell is left out; or columns, zero or empty there, with the keys in
# pieces: those in `arrays`, by name, have been read already.
cdef list make_rows(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present, size_t n)
cdef Batch make_batch(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present, size_t n,
                      list pieces, dict arrays)
# Columns with keys.
cdef Batch make_scanned(Snapshot snapshot, Buffer buffer, tuple columns, const Stretch* stretch)
# Goes on to say of what type keys are, and whether all have an Arrow array of it (columns.pyx, are_plain), with the keys of a
# stretch: at first ANY_TYPE and True, NO_TYPE when they differ.
cdef int key_form(Snapshot snapshot, Buffer buffer, const Stretch* stretch, int* type, bint* plain) except -1

# An Arrow stream of the Batches of a scan, for whose keys key_form said this; `empty` is one without rows.
cdef object scan_stream(Batch empty, object batches, int type, bint plain)

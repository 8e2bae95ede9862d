"""How the cells of a selection are read: copied out of a snapshot without the GIL, into columns or to make Python objects of."""

from libc.stdint cimport uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.batch.results cimport Batch
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.column_reader cimport Selection
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer

# In all of these `buffer` is any of the handle's: it tells the layout of cells that are in a write buffer, and gives none.

# How many of the first cells have at most `limit` bytes in each of the columns, and in their keys if `keys`: at least one.
cdef size_t fitting(Snapshot snapshot, Buffer buffer, tuple columns, bint keys, const Selection* selection,
                    uint64_t limit) except 0

cdef struct Gathered:           # the cells of one field
    Out data                    # fixed: n * width bytes; var: the bytes, one cell after the other
    Out ends                    # var: n x int64, where each cell ends in data


cdef class Rows:
    """Cells copied out of a snapshot, of which objects are made one at a time. Its memory is used again by the next fill().

    Any number of threads may take objects, but fill() REQUIRES that nobody does. A selection of a few thousand cells stays in the
    processor's cache until its objects are made.
    """
    cdef size_t n
    cdef tuple columns
    cdef list names
    cdef Gathered* fields       # one for each column, then the keys, then their types, then the validity of each column
    cdef size_t nfields         # without the validity
    cdef bint bare              # a value is that of the only column, else a dict
    cdef bint nullable          # whether a column may have nulls
    cdef bint numbers           # of the keys: see Layout
    # Take other cells of the same columns, with their keys or without. REQUIRES a selection without an index.
    cdef int fill(self, Snapshot snapshot, Buffer buffer, const Selection* selection, bint keys) except -1
    cdef int _field(self, Snapshot snapshot, Buffer buffer, int field, const Selection* selection, Gathered* into) except -1
    cdef object key(self, size_t i)
    cdef object value(self, size_t i)
    cdef object _cell(self, Py_ssize_t number, size_t i)

cdef Rows new_rows(tuple columns, bint bare)

# The n cells at addresses[0..n), in that order. A cell whose present[i] is not PRESENT is left out (NULL: all are there).
# As a list of values, with None for a cell that is left out. bare: see Rows.
cdef list make_rows(Snapshot snapshot, Buffer buffer, tuple columns, bint bare, const CellAddress* addresses, const int* present,
                    size_t n)
# As columns, zero or empty where a cell is left out. `pieces` has the keys; a column that is in `arrays`, by name, has been read
# before.
cdef Batch make_batch(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present,
                      size_t n, list pieces, dict arrays)

# Columns with their keys. REQUIRES a selection without an index.
cdef Batch make_scanned(Snapshot snapshot, Buffer buffer, tuple columns, const Selection* selection)
# What scan_stream() must know of all keys of a scan, found out a selection at a time: begin with ANY_TYPE and True. *type becomes
# the type of the keys, or NO_TYPE when they differ; *plain becomes False when one of them has no Arrow array (see are_plain).
cdef int key_form(Snapshot snapshot, Buffer buffer, const Selection* selection, int* type, bint* plain) except -1

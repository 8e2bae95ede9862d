"""All cells of a snapshot and its buffers, in the order of digests: one by one, or as batches."""

from libc.stdint cimport int64_t, uint64_t

from tilekv.kvcore.batch.readers cimport Rows
from tilekv.kvcore.merge.merge cimport Merge
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.column_reader cimport Selection
from tilekv.kvcore.read.snapshot cimport Snapshot

cdef enum What:
    KEYS = 0
    VALUES = 1
    ITEMS = 2


cdef class MergeCursor:
    """Takes cells from a merge, some rows or some bytes of them at a time: a thousand values may be a thousand megabytes."""
    cdef Merge merge
    cdef CellAddress* runs      # of neighbours: see Selection
    cdef Py_ssize_t room, most  # cells that the merge is asked for: now, and ever
    cdef Selection rest         # what it gave and has not been used
    # The next cells, as many as `limit` bytes of each of the columns, and of keys, hold: False at the end. Good until the next
    # call.
    cdef bint next(self, tuple columns, bint keys, uint64_t limit, Selection* cells) except -1


cdef class CellIterator:
    """Iterates over the keys, values or items of a snapshot; lazy, some cells at a time."""
    cdef tuple columns          # none for keys
    cdef int what
    cdef MergeCursor cursor     # None at the end, and while rows are filled
    cdef Rows rows              # what it gave last
    cdef size_t at              # how many of them are used
    cdef bint filling           # a thread is in _fill(), perhaps without the GIL
    cdef Rows _fill(self)


cdef class Scan:
    """All rows of a snapshot."""
    cdef int64_t now            # what expires by then is left out; 0: nothing
    cdef Snapshot snapshot
    cdef tuple buffers          # see Handle._buffers()
    cdef tuple columns
    cdef Py_ssize_t rows
    cdef object frames          # see Handle._attach()
    cdef object low, high       # see Merge
    # Its rows are none, its type that of all rows.
    cdef tuple _form(self)


# Over what the merge gives. columns: none for keys.
cdef CellIterator iterate_cells(Merge merge, tuple columns, int what)
# rows: most of a batch. low, high: see Merge.
cdef Scan new_scan(Snapshot snapshot, tuple buffers, tuple columns, Py_ssize_t rows, int64_t now, object frames, object low,
                   object high)

"""Many cells as Python objects or as columns: copied by gather() without the GIL, then made in one pass."""

from tilekv.kvcore.buffer cimport Buffer
from tilekv.kvcore.feeds cimport Cells
from tilekv.kvcore.search cimport Place, View
from tilekv.kvcore.values cimport Column

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

# In all of these: n cells at places[0..n); present[i] is PRESENT or the cell is left out (NULL: all are there); `buffer` has the
# layout of places in a write buffer.

# A column as objects, or the keys when column is None. None where a cell is left out.
cdef list make_objects(View view, Buffer buffer, Column column, const Place* places, const int* present, size_t n)
# Values: bare for one attribute, else dicts.
cdef list make_rows(View view, Buffer buffer, tuple columns, const Place* places, const int* present, size_t n)
# Columns; zero or empty where a cell is left out.
cdef Batch make_batch(View view, Buffer buffer, tuple columns, const Place* places, const int* present, size_t n)
# The keys as they are stored.
cdef Cells make_keys(View view, Buffer buffer, const Place* places, size_t n)
# The type of `type` and of n keys: NO_TYPE when they differ.
cdef int common_type(View view, const Place* places, size_t n, int type) except -3

# An Arrow stream of the Batches of a scan, whose keys are of `type`; `empty` is one without rows.
cdef object scan_stream(Batch empty, object batches, int type)

"""Cells at places, copied into columns: what batches, scans and iteration are made from. Runs without the GIL."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.buffer cimport Buffer
from tilekv.kvcore.codec cimport Status
from tilekv.kvcore.fragment cimport Access
from tilekv.kvcore.search cimport Place, View
from tilekv.kvcore.wire cimport Out

cdef struct Gathered:           # n cells of one field; zeroed before first use
    Out data                    # fixed: n * width bytes; var: the bytes, one cell after the other
    Out ends                    # var: n x int64, where each cell ends in data

# How many of the n cells at `places` have at most `limit` bytes in a var field: at least one. Only offsets are read.
cdef Status measure(View view, Buffer layout_of, int field, const Place* places, size_t n, uint64_t limit, Access* access,
                    size_t* cells, uint32_t* fragment) noexcept nogil

cdef void gathered_free(Gathered* column) noexcept nogil

# The cells of `field` at places[0..n), in that order, appended to column. A place whose present[i] is not 1 gives zeros or
# nothing (present may be NULL: all are). Stops before a var column exceeds `limit` bytes, but never before the first cell;
# *done says how many. `layout_of` gives the row layout of places in the buffer. On a fault *fragment is where.
cdef Status gather(View view, Buffer layout_of, int field, const Place* places, const int* present, size_t n, uint64_t limit,
                   Access* access, Gathered* column, size_t* done, uint32_t* fragment) noexcept nogil

"""Cells at places, copied into columns: what batches, scans, iteration and consolidation are made from. Runs without the GIL."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.buffer cimport Buffer
from tilekv.kvcore.codec cimport Status, Windows
from tilekv.kvcore.fragment cimport Access, Pin
from tilekv.kvcore.search cimport Place, View
from tilekv.kvcore.wire cimport Out

cdef enum:
    FEW_LANES = 8

# Where a reader of one field stands in one fragment: the open tile's offsets and the pinned chunk. Neighbours in a chunk share
# a pin, however cells of several fragments alternate: the cache's lock is taken once a chunk, not once a cell.
cdef struct Lane:
    bint has_windows
    uint64_t windows_tile
    Windows windows
    Pin windows_pin
    bint has_chunk
    uint64_t chunk_tile
    Pin chunk

cdef struct Lanes:              # of one field; one thread at a time
    Lane few[FEW_LANES]
    Lane* at
    size_t n
    uint32_t failed_in          # the fragment of the last fault

cdef Status lanes_open(Lanes* lanes, View view) noexcept nogil
cdef void lanes_close(Lanes* lanes, View view) noexcept nogil
# A cell of a var field: [start, end) of its tile's bytes; in the buffer, whose row layout `buffer` gives, *data and [0, end).
cdef Status lane_extent(Lanes* lanes, View view, Buffer buffer, int field, const Place* place, Access* access,
                        const uint8_t** data, uint64_t* start, uint64_t* end) noexcept nogil
# `size` bytes of a fragment's cell: from byte `start` of the tile (var fields), or of cell `start` of it (fixed).
cdef Status lane_copy(Lanes* lanes, View view, int field, const Place* place, uint64_t start, uint64_t size, Access* access,
                      uint8_t* out) noexcept nogil

cdef struct Gathered:           # n cells of one field; zeroed before first use
    Out data                    # fixed: n * width bytes; var: the bytes, one cell after the other
    Out ends                    # var: n x int64, where each cell ends in data

cdef void gathered_free(Gathered* column) noexcept nogil

# How many of the n cells at `places` have at most `limit` bytes in a var field: at least one. Only offsets are read.
cdef Status measure(View view, Buffer buffer, int field, const Place* places, size_t n, uint64_t limit, Access* access,
                    size_t* cells, uint32_t* fragment) noexcept nogil

# The cells of `field` at places[0..n), in that order, appended to column. A place whose present[i] is not 1 gives zeros or
# nothing (present may be NULL: all are). Stops before a var column exceeds `limit` bytes, but never before the first cell;
# *done says how many. On a fault *fragment is where.
cdef Status gather(View view, Buffer buffer, int field, const Place* places, const int* present, size_t n, uint64_t limit,
                   Access* access, Gathered* column, size_t* done, uint32_t* fragment) noexcept nogil

"""Runs of keys and values that stand in memory already, read cell by cell without an object of each."""

from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t

from tilekv.kvcore.base.wire cimport load32
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.values.keys cimport KeyCell

cdef enum FeedKind:
    FEED_FIXED = 0              # cell i is `width` bytes at base + i * width
    FEED_VAR = 1                # base[starts[i]:ends[i]]
    FEED_VIEWS = 2              # Arrow's string and binary views: 16 bytes at base + 16 * i
    FEED_OBJECTS = 3            # Python objects, to be converted one by one

cdef struct Feed:
    FeedKind kind
    const uint8_t* base
    uint64_t width
    const int64_t* starts
    const int64_t* ends
    const void** blocks         # of views
    const uint8_t* types        # of keys: the datatype of each, or NULL when all have `type`
    uint8_t type
    const uint8_t* valid        # a byte a cell, 0 for a null; NULL when none is
    int null                    # the field that says which cells are null


cdef class Cells:
    """A run of cells. Immutable."""
    cdef Feed feed
    cdef Py_ssize_t n
    cdef list objects           # FEED_OBJECTS
    cdef bint numbers           # of keys: see Layout
    cdef object owner           # of the memory that feed leads into
    # Cells lo to hi.
    cdef Cells slice(self, Py_ssize_t lo, Py_ssize_t hi)


cdef inline void feed_cell(const Feed* feed, int64_t i, const uint8_t** data, uint64_t* size) noexcept nogil:
    """REQUIRES: not FEED_OBJECTS."""
    cdef const uint8_t* view
    if feed.kind == FEED_FIXED:
        data[0] = feed.base + i * feed.width
        size[0] = feed.width
    elif feed.kind == FEED_VAR:
        data[0] = feed.base + feed.starts[i]
        size[0] = feed.ends[i] - feed.starts[i]
    else:
        view = feed.base + 16 * i
        size[0] = load32(view)
        if size[0] <= 12:
            data[0] = view + 4
        else:
            data[0] = <const uint8_t*>feed.blocks[2 + load32(view + 8)] + load32(view + 12)


cdef inline void feed_key(const Feed* feed, int64_t i, KeyRef* key) noexcept nogil:
    """REQUIRES: not FEED_OBJECTS."""
    feed_cell(feed, i, &key.data, &key.size)
    key.type = feed.types[i] if feed.types != NULL else feed.type


# Key i. Returns the object that owns the bytes: keep it, and the Cells, while key.ref is used.
cdef object cells_key(Cells cells, Py_ssize_t i, KeyCell* key)

# For whoever fills them.
cdef Cells no_cells()
# objects: nobody else may change the list.
cdef Cells object_cells(list objects, bint numbers=*)
# Keys in memory; types (uint8, n) and offsets (int64, n + 1) as NumPy arrays.
cdef Cells gathered_keys(object types, object offsets, object data, bint numbers)
# The rows of a contiguous array; for keys its datatype too.
cdef Cells fixed_cells(object array)
# The numbers, bools or times of a NumPy array as keys; None for anything else.
cdef Cells array_keys(object array, bint numbers)
# The same keys, in memory that nobody else writes to.
cdef Cells kept_keys(Cells cells)
# n cells, with these at rows[i] (int64, ascending); the others are nulls. null: the field that says so.
cdef Cells spread_cells(Cells cells, object rows, Py_ssize_t n, int null)
# Cells of int64 ends, n + 1, in bytes; of a column that was read.
cdef Cells ended_cells(object offsets, object data)
cdef Py_ssize_t count_cells(list pieces) noexcept


cdef inline uintptr_t address(object array) except? 0:
    """Where a contiguous NumPy array begins."""
    return array.__array_interface__["data"][0]

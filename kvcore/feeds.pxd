"""Keys and values that stand in memory already: NumPy and Arrow arrays, read cell by cell without an object of each.

What Arrow hands over is checked before it is used: offsets rise, indices and views point into what they index, text is UTF-8.
The sizes of its buffers are not part of the interface, so those of offsets and data are the producer's word.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.arrow cimport ArrowArray, ArrowArrayStream, ArrowSchema
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.values cimport Column, KeyCell
from tilekv.kvcore.wire cimport load32

cdef enum FeedKind:
    FEED_FIXED = 0              # cell i is `width` bytes at base + i * width
    FEED_VAR = 1                # base[offsets[i]:offsets[i + 1]]
    FEED_VIEWS = 2              # Arrow's string and binary views: 16 bytes at base + 16 * i
    FEED_OBJECTS = 3            # Python objects, to be converted one by one

cdef struct Feed:
    FeedKind kind
    const uint8_t* base
    uint64_t width
    const int64_t* offsets
    const void** blocks         # of views
    const int64_t* index        # of a dictionary: cell i is cell index[i] of the rest; NULL for none
    const uint8_t* types        # of keys: the datatype of each, or NULL when all have `type`
    uint8_t type


cdef class Cells:
    """A run of cells. Immutable."""
    cdef Feed feed
    cdef Py_ssize_t n
    cdef list objects           # FEED_OBJECTS
    cdef object owner           # of the memory that feed leads into
    # Cells lo to hi.
    cdef Cells cut(self, Py_ssize_t lo, Py_ssize_t hi)


cdef inline void feed_cell(const Feed* feed, int64_t i, const uint8_t** data, uint64_t* size) noexcept nogil:
    """REQUIRES: not FEED_OBJECTS."""
    cdef const uint8_t* view
    if feed.index != NULL:
        i = feed.index[i]
    if feed.kind == FEED_FIXED:
        data[0] = feed.base + i * feed.width
        size[0] = feed.width
    elif feed.kind == FEED_VAR:
        data[0] = feed.base + feed.offsets[i]
        size[0] = feed.offsets[i + 1] - feed.offsets[i]
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

# objects: nobody else may change the list.
cdef Cells object_cells(list objects)
# Keys in memory; types (uint8, n) and offsets (int64, n + 1) as NumPy arrays.
cdef Cells gathered_keys(object types, object offsets, object data)

# Runs of cells of whatever may be given as keys (column None) or as a column: an array, an Arrow array or stream, any iterable.
# `what` begins the messages. All that can be checked without converting objects is checked.
cdef list cells_of(object given, Column column, str what)
cdef Py_ssize_t count_cells(list pieces) noexcept
# Whether it is handed over by the Arrow PyCapsule protocol.
cdef bint is_arrow(object given) except -1


cdef class ArrowTypes:
    cdef ArrowSchema schema


cdef class ArrowChunk:
    cdef ArrowArray array
    cdef ArrowTypes types


cdef class ArrowReader:
    """The arrays of one Arrow stream, or the one array."""
    cdef ArrowArrayStream stream
    cdef readonly ArrowTypes types
    cdef ArrowChunk only
    # The next array; None at the end.
    cdef ArrowChunk next(self)


cdef ArrowReader open_arrow(object given)
# The names of a table's columns.
cdef list table_names(ArrowReader reader)
# Column number i of a table's next rows.
cdef Cells table_cells(ArrowChunk chunk, Py_ssize_t i, Column column, str what)

"""Runs of cells, copied into columns: what batches, scans, iteration and consolidation are made from. Runs without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.codec.pipeline cimport Status, Windows
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext, Pin
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer

cdef enum:
    FEW_CURSORS = 8

# n cells, from cell `skip` of runs[0] on. A run is a CellAddress: neighbours in one tile, or one cell of a buffer.
cdef struct Selection:
    const CellAddress* runs
    size_t skip
    size_t n
    # NULL: the cells are read into a column in their order. Otherwise cell i becomes the column's cell number index[i], each
    # number from 0 to n - 1 is there once, every run is a single cell and `skip` is 0.
    const uint64_t* index
    bint keep                   # what is decoded stays in the cache: for keys that are asked for; a scan passes it by

# Leave out the first n cells. REQUIRES a selection without an index.
cdef void selection_advance(Selection* selection, size_t n) noexcept nogil


# Where a reader of one field stands in one fragment: the open tile's offsets and the open chunk. Neighbours in a chunk share it,
# however cells of several fragments alternate.
cdef struct FieldCursor:
    bint has_windows
    uint64_t windows_tile
    Windows windows
    Pin windows_pin
    uint64_t cells              # of that tile
    uint64_t total              # bytes of that tile
    bint has_chunk
    uint64_t chunk_tile
    uint64_t index              # of the chunk, in the file
    uint64_t start, end         # its bytes, in the tile
    const uint8_t* data
    Pin pin                     # in the cache or in place,
    Out own                     # or decoded here

cdef struct FieldCursors:              # of one field; one thread at a time
    FieldCursor few[FEW_CURSORS]
    FieldCursor* at
    size_t n
    bint keep                   # see Selection
    uint32_t failed_in          # the fragment of the last fault

cdef Status cursors_open(FieldCursors* cursors, Snapshot snapshot, bint keep) noexcept nogil
cdef void cursors_close(FieldCursors* cursors, Snapshot snapshot) noexcept nogil

# In all of these: the cells of one field, with cursors opened for it. After a fault `context` says what, cursors.failed_in where.

# *count: how many of the first cells have at most `limit` bytes in a var field, at least one; *size: their bytes. Reads offsets
# only, and does not look at the index.
cdef Status measure(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                    uint64_t limit, ReadContext* context, size_t* count, uint64_t* size) noexcept nogil
# ends[i]: where cell i of the column ends when the cells of a var field stand one after the other.
cdef Status gather_ends(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                        ReadContext* context, int64_t* ends) noexcept nogil
# `size` bytes of a var field, from byte `first` of the selection's first cell on through the cells after it. CORRUPT when they
# are fewer. With an index: all bytes, `first` is 0, and `ends` is what gather_ends gave; without one `ends` is not looked at.
cdef Status gather_bytes(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                         const int64_t* ends, uint64_t first, uint64_t size, ReadContext* context, uint8_t* out) noexcept nogil
# The cells of a fixed field.
cdef Status gather_fixed(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                         ReadContext* context, uint8_t* out) noexcept nogil

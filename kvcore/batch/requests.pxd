"""Cells of keys in any order: read in the order in which they stand, put where they were asked for. Runs without the GIL.

In the order asked, every cell waits for its own lines of offsets, directory and chunk, and a chunk that does not stay in the
cache is decoded once a cell; in the order of addresses neighbours share them. 200,000 of 1,000,000 values of 100 bytes take
0.14 us each instead of 0.80, and with a cache of 8 MB 0.5 to 0.9 instead of 2.8.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tilekv.kvcore.codec.pipeline cimport Status
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunks cimport ReadContext
from tilekv.kvcore.read.column_reader cimport FieldCursors
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer

cdef struct Spot:
    uint64_t number             # the cell's number among those of all fragments
    uint64_t index              # of its key among those asked for


cdef class Asked:
    """n cells, one a run; left out are those whose present[i] is not PRESENT (NULL: none)."""
    cdef size_t n
    cdef CellAddress* runs      # in the order of addresses
    cdef Spot* spots            # likewise
    cdef int _order(self, Snapshot snapshot, const CellAddress* addresses, const int* present) noexcept nogil

cdef Asked ask(Snapshot snapshot, const CellAddress* addresses, const int* present, size_t n)

# In all of these: one field, with cursors opened for it. After a fault `context` says what, cursors.failed_in where.

# ends[i]: where the cell of key i ends when the cells of a var field stand one after the other.
cdef Status asked_ends(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, ReadContext* context,
                       int64_t* ends) noexcept nogil
# The bytes of a var field, where `ends` says.
cdef Status asked_bytes(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, const int64_t* ends,
                        ReadContext* context, uint8_t* out) noexcept nogil
# The cells of a fixed field.
cdef Status asked_fixed(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, ReadContext* context,
                        uint8_t* out) noexcept nogil

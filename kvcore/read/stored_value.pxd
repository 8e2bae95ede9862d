"""The bytes of one value, where they are stored: any part of it is read without the rest."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer


cdef class StoredValue:
    """A cell of a var field. Immutable; any number of threads may read. It holds what it reads from, and so outlives the handle,
    and what is written, merged or vacuumed meanwhile."""
    cdef Snapshot snapshot
    cdef tuple held                 # the buffers, one of which may have it
    cdef int slot                   # of the bytes
    cdef uint32_t fragment
    cdef uint64_t tile
    cdef uint64_t start             # of its bytes in the tile
    cdef const uint8_t* data        # in a buffer; else NULL
    cdef readonly uint64_t size
    # n bytes from byte `at` on. REQUIRES at + n <= size. Without the GIL while it decodes.
    cdef int read(self, uint64_t at, uint64_t n, uint8_t* into) except -1

# Of a cell that was found. context: of the look-up. held: all buffers that there are; rows: one of them.
cdef StoredValue stored_value(Snapshot snapshot, tuple held, Buffer rows, int field, const CellAddress* address,
                              ReadContext* context)

"""Where cells are: what a look-up finds, what a merge gives, and what columns are read from."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.write.memtable cimport Entry

cdef extern from "read/address.h" nogil:
    # n cells of one tile that follow one another; one in the buffer, and of a key that was looked up. 24 bytes.
    ctypedef struct CellAddress "tkv_cell_address":
        uint32_t fragment       # in Snapshot.at, newest first; or IN_BUFFER, or NOWHERE
        uint32_t n              # at least one
        # in a fragment:
        uint64_t tile
        uint32_t cell           # the first, in the tile
        # in the buffer, in the same places:
        const uint8_t* record
        uint32_t key_size
        uint8_t type            # of the key; with TOMBSTONE for a delete

cdef enum:
    IN_BUFFER = 0xFFFFFFFF
    NOWHERE = 0xFFFFFFFE        # a cell that is left out: zeros, or nothing


cdef inline void address_of_entry(const Entry* entry, CellAddress* address) noexcept nogil:
    """Where an entry of the buffer is."""
    address.fragment = IN_BUFFER
    address.n = 1
    address.record = entry.record
    address.key_size = entry.key_size
    address.type = entry.type


cdef inline Entry entry_at(const CellAddress* address) noexcept nogil:
    """The entry at an address in the buffer."""
    cdef Entry entry
    entry.record = address.record
    entry.key_size = address.key_size
    entry.type = address.type
    return entry

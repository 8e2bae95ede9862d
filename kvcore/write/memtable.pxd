"""The write buffer: an append-only log of records in arenas, and a key table over it.

    record  [key bytes][row]                 in a block that is neither moved nor reused while the buffer or a reader has it
    row     [fixed fields, packed][u64 end of each var field's bytes][var bytes]         none for a delete
    entry   {record, key size, type}         16 bytes, in the order of the calls; the last entry of a key counts

The key table is brought up to date when a key is looked up: a program that only writes never pays for it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.format.layout cimport Layout, TOMBSTONE
from tilekv.kvcore.hashing.digest cimport KeyRef

cdef enum:
    SLOW_TO_FREE = 8 << 20      # bytes: a tenth of a millisecond. Taking the GIL anew may cost five, when others want it

cdef struct Block:              # of the arena
    void* at
    uint64_t size

cdef struct Entry:
    const uint8_t* record
    uint32_t key_size
    uint8_t type                # with TOMBSTONE for a delete


cdef class Buffer:
    """REQUIRES the GIL, but for field(), and for room() as is said there. Who reads all of it without the GIL has a
    SortedBuffer, which shares the records."""
    cdef readonly Layout layout
    cdef uint32_t* places       # by field: offset in the fixed part, or number of the var field
    cdef uint32_t fixed_bytes
    cdef uint32_t nvar
    cdef bint hidden            # whether rows have fields that room() fills
    cdef uint32_t expires_at    # where in a row its moment of expiry is; only with layout.expires
    cdef uint32_t valid_at      # where in a row the bytes are that say which values are null; only with layout.nullable
    cdef Entry* entries
    cdef readonly size_t n      # entries, overwritten ones included
    cdef size_t _room
    cdef readonly uint64_t size     # bytes of records and entries
    cdef Block* _blocks
    cdef size_t _nblocks
    cdef uint8_t* _free         # in the last block
    cdef uint64_t _left
    cdef uint64_t _block        # size of the next block
    cdef uint32_t* _table       # entry number + 1 at its hash, 0 for none; linear probing
    cdef uint64_t _mask
    cdef size_t _used           # slots taken: distinct keys indexed
    cdef size_t _indexed        # entries that are in the table
    cdef size_t _pins
    cdef Entry** _retired       # entries that were pinned when there was no more room
    cdef size_t _nretired
    # A record with room for a row of row_size bytes behind the key (0 for a delete), which the caller fills, but for what is
    # hidden: it never expires, and no value is null. NULL when there
    # cannot be one, and refuse() says why. Without the GIL for a buffer that no other thread knows of.
    cdef uint8_t* room(self, const KeyRef* key, bint delete, uint64_t row_size) noexcept nogil
    cdef int refuse(self, const KeyRef* key, uint64_t row_size) except -1
    # room() that raises.
    cdef uint8_t* add(self, const KeyRef* key, bint delete, uint64_t row_size) except NULL
    # Gives the entries from number `first` on a moment of expiry each: moments[i], or moments[0] to all when n is 1.
    # REQUIRES: layout.expires, and nobody reads them yet.
    cdef void expire(self, size_t first, const int64_t* moments, size_t n) noexcept nogil
    # All at once: the entries of `other`, which is empty afterwards.
    cdef int absorb(self, Buffer other) except -1
    # The newest entry of a key, NULL when it has none.
    cdef int find(self, const KeyRef* key, const Entry** entry) except -1
    # The entries, which stay where they are, whoever writes, until they are unpinned as often.
    cdef const Entry* pin(self) noexcept
    cdef void unpin(self) noexcept
    # The moment of an entry; NEVER where the layout has none. REQUIRES: not a delete.
    cdef int64_t expires(self, const Entry* entry) noexcept nogil
    # A field of an entry's row. REQUIRES: not a delete.
    cdef void field(self, const Entry* entry, int field, const uint8_t** data, uint64_t* size) noexcept nogil
    cdef void _free_all(self) noexcept nogil
    cdef void _fill_hidden(self, uint8_t* row) noexcept nogil
    cdef uint8_t* _open_block(self, uint64_t n) noexcept nogil
    cdef int _grow(self, size_t n) noexcept nogil
    cdef Entry* _move(self, size_t room) noexcept nogil
    cdef int _check_count(self, size_t n) except -1
    cdef int _index(self) except -1
    cdef uint64_t _slot(self, const KeyRef* key) noexcept nogil


cdef inline int find_entry(Buffer newest, Buffer frozen, const KeyRef* key, const Entry** entry) except -1:
    """The newest entry of a key in two buffers, NULL when it has none. frozen: older than the other; None when there is none."""
    newest.find(key, entry)
    if entry[0] == NULL and frozen is not None:
        frozen.find(key, entry)
    return 0


cdef inline bint is_gone(Buffer buffer, const Entry* entry, int64_t now) noexcept nogil:
    """Whether an entry of this buffer, or of one of the same layout, is a delete or expires by a moment (ms since 1970; at 0
    nothing does)."""
    return entry.type & TOMBSTONE or (now and buffer.expires(entry) <= now)


cdef inline void entry_key(const Entry* entry, KeyRef* key) noexcept nogil:
    key.data = entry.record
    key.size = entry.key_size
    key.type = entry.type & 0x7F

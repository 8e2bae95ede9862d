"""The visible fragments of a handle, and how a key is found in them: newest fragment first, one look-up or many.

The search within one fragment is here too (probe_fragment: the tile, the cell, match_key), since only calls within a module are
cheap enough for a look-up.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.cache cimport ChunkCache
from tilekv.kvcore.codec.pipeline cimport CodecPool, Status
from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext, FragmentData
from tilekv.kvcore.read.digest_index cimport DigestIndex
from tilekv.kvcore.read.fragment cimport Fragment

cdef enum Found:
    MISSING = 0
    PRESENT = 1
    DELETED = 2                 # the newest cell of the key is a tombstone
    FAULT = -1                  # context says what, address.fragment where
    UNOPENED = -2               # address.fragment must be opened first: Snapshot.open_fragment() with the GIL, then again
    DEFERRED = -3               # probe_block() only: a chunk would have to be decoded

cdef enum:
    # Keys that are looked up together, each step for all of them before the next begins: enough to keep the memory busy, few
    # enough that what was fetched is still in the first-level cache when it is used.
    BLOCK = 128
    FIELDS = 8                  # of a block that are read together, for the same reasons


cdef struct FieldRef:           # of those that are read together
    int field
    int valid                   # which of those before it says what cells are null; -1: read them all

cdef inline FieldRef plain_field(int field) noexcept nogil:
    cdef FieldRef plain
    plain.field = field
    plain.valid = -1
    return plain


cdef inline uint64_t null_cell() noexcept nogil:
    """The size of a cell that is null, and so is not read."""
    return UINT64_MAX


cdef class Snapshot:
    """The visible fragments, newest first. Whoever uses a pointer into a fragment holds the Snapshot.

    Two things are made later, and nothing else changes: a fragment may be opened when it is first needed, and the digest index is
    made once the keys that were looked for, times the fragments that each is searched in, are a sixteenth of the cells. It takes
    10 ns a cell of one fragment and 50 of 26, and by then searching without it has cost as much.
    """
    cdef list _fragments        # Fragment, or the name of one that is not open
    cdef object _open
    cdef public object behind   # has another thread make the index; None: who looks up does
    cdef Layout layout
    cdef ChunkCache cache
    cdef CodecPool codecs
    cdef size_t n
    cdef FragmentData** at      # NULL: not open
    cdef DigestIndex* index     # NULL until it is made; published by an atomic store
    cdef bint remote            # a fragment is elsewhere
    cdef uint64_t searched      # fragments that a key costs a search in: of those with filters two, however many
    cdef uint64_t asked         # keys looked for so far, times these
    cdef uint64_t enough        # of them to make an index
    # Before n keys are looked for.
    cdef int expect(self, uint64_t n) except -1
    # The newest cell of a key in all fragments; DELETED when it expires by context.now. REQUIRES, as do all that look for keys:
    # between cache_enter() and cache_exit(). field: one whose cell will be wanted next and is fetched meanwhile, or -1.
    cdef Found probe(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                     CellAddress* address) noexcept nogil
    # The same for n <= BLOCK keys whose found[i] is not PRESENT or DELETED already, in found and addresses. defer: leave as
    # DEFERRED what is not in memory. For FAULT and UNOPENED stops at *at.
    cdef Found probe_block(self, const KeyRef* keys, size_t n, const uint64_t* c0, const uint64_t* c1, bint defer,
                           ReadContext* context, int* found, CellAddress* addresses, size_t* at) noexcept nogil
    # Have brought, in one round, what the search for those of n keys that are MISSING will read of fragments that are elsewhere.
    cdef void plan_keys(self, size_t n, const int* found, const uint64_t* c0, const uint64_t* c1,
                        ReadContext* context) noexcept nogil
    # Ask the system for what the search for those of n keys that are MISSING will read, of files here that may have to be waited
    # for, and do not wait.
    cdef void plan_block(self, size_t n, const int* found, const uint64_t* c0, const uint64_t* c1,
                         ReadContext* context) noexcept nogil
    cdef bint is_new(self) noexcept nogil
    cdef Found search_block(self, const KeyRef* keys, size_t n, const uint64_t* c0, const uint64_t* c1, ReadContext* context,
                            int* found, CellAddress* addresses, size_t* at) noexcept nogil
    cdef Found stop_block(self, size_t n, int* found, CellAddress* addresses, size_t fragment, size_t* at,
                          Found why) noexcept nogil
    # Where the cells of nfields <= FIELDS fields are in memory for those of n addresses that are PRESENT in a fragment:
    # data[k * BLOCK + i] is NULL if it is not. Of one that is null it is NULL and its size null_cell(). All misses of all fields
    # overlap.
    cdef void resolve(self, const FieldRef* fields, size_t nfields, size_t n, const int* found, const CellAddress* addresses,
                      const uint8_t** data, uint64_t* sizes) noexcept nogil
    cdef void _fetch(self, int field, size_t n, const int* found, const CellAddress* addresses, const uint8_t** valid,
                     const uint8_t** data, uint64_t* sizes) noexcept nogil
    cdef void _follow(self, int field, size_t n, const int* found, const CellAddress* addresses, const uint8_t** data,
                      uint64_t* sizes) noexcept nogil
    cdef int open_fragment(self, uint32_t fragment) except -1
    # PRESENT, DELETED or MISSING; opens what it must and raises for a FAULT.
    cdef Found get(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                   CellAddress* address) except *
    # PRESENT for a cell that is there, or DELETED, when it expires by context.now; or FAULT.
    cdef Found unexpired(self, ReadContext* context, const CellAddress* address) noexcept nogil
    cdef Found newest(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                      CellAddress* address) noexcept nogil
    cdef raise_fault(self, const ReadContext* context, uint32_t fragment)

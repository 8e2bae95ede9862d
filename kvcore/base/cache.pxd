"""Decoded chunks, and cells of them, within a byte budget, shared by the fragments of a handle. All of it runs without the GIL.

The fragment of a chunk has a pointer to it: its home. There are two ways to read a chunk:

* cache_find() takes the lock and pins it. A pinned chunk is not evicted; cache_release() unpins it.
* Between cache_enter() and cache_exit() a home may be followed without lock or pin. This is epoch-based reclamation with two
  counts of readers: a reader is counted under the epoch in which it came. When a chunk is evicted, its home is emptied at once,
  but the chunk is in limbo, and not freed, until each of the two counts has been seen at zero after the eviction. By then every
  reader is gone that could have loaded the pointer.

Where the budget holds all chunks that are looked up, that is all. Else a chunk is large beside the cell that is wanted of it, and
keys in use that lie in a hundred times as many chunks as fit would all be decoded anew each time. So a full cache keeps the cell
(cell_keep), in the ring where what is used again stays. Its chunk passes: it is kept for as long as a thirty-second of the budget
lasts, where who looks up in the order of the digests finds the next cells, and longer if it was used while it passed.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "base/atomic.h" nogil:
    void tkv_count(int64_t* at, int64_t n) noexcept
    uint8_t tkv_flag(const uint8_t* at) noexcept
    void tkv_set_flag(uint8_t* at, uint8_t value) noexcept


cdef extern from "base/slabs.h" nogil:
    ctypedef struct tkv_slabs:
        pass


cdef enum:
    KEPT = 0                    # the ring of what stays if it is used again
    PASSING = 1                 # the ring of chunks that go in the order in which they came
    WAYS = 6                    # cells of a set


# One decoded chunk, or a cell. Its bytes follow the struct in the same allocation, next to what says which they are.
cdef struct Chunk:
    int pins                    # guarded by the cache's lock, as are all fields up to `previous`
    int ring                    # KEPT or PASSING
    uint8_t* recent             # beside the home: set by whoever reads the chunk; the hand takes one away when it passes
    Chunk** home                # the pointer to it, of its fragment or of a set; NULL when it is in no ring
    Chunk* next
    Chunk* previous
    uint64_t owner              # of a cell: see cell_find(); of a chunk 0
    uint64_t tile               # of a cell
    uint64_t start              # its first cell or byte in its tile
    uint64_t size


cdef inline uint8_t* chunk_data(Chunk* chunk) noexcept nogil:
    return <uint8_t*>(chunk + 1)


# The cells of one set of hashes, in 64 bytes: a line of the processor's cache, or two where the sets are not in large pages.
cdef struct CellSet:
    Chunk* homes[WAYS]
    uint8_t tags[WAYS]          # eight bits more of the hash: who looks for a cell touches no other
    uint8_t recent[WAYS]
    uint8_t spilled             # a flag: it was full, and some of its cells may be in their second set
    uint8_t unused[3]


# Eviction by clock: a hand walks the ring, spares what was touched since its last visit (cells since its third last, for a chunk
# is touched for all of its cells, and takes the room of thirty), and skips what is pinned.
# A pinned chunk is never evicted.
cdef struct Cache:
    void* lock
    tkv_slabs* slabs            # what chunks are made of
    uint64_t budget             # bytes
    uint64_t used               # bytes of what is in the rings, and what cache_reserve() took
    uint64_t reserved           # of these what cache_reserve() took, and the sets
    uint64_t passing            # bytes of the chunks that pass
    Chunk* hands[2]             # of the rings; of PASSING the oldest
    CellSet* sets               # NULL until the cache is full for the first time
    uint64_t nsets              # a power of two; 0: the budget is too small for any
    uint64_t owners             # given out
    # Evicted chunks that are not freed yet, chained by `next`. A chunk goes to `limbo`. Once both counts of readers have been
    # seen at zero, `older_limbo` is freed, `limbo` becomes `older_limbo`, and both must be seen at zero anew: so a chunk waits
    # for a whole round that began after it was evicted.
    Chunk* older_limbo
    Chunk* limbo
    uint64_t waiting            # bytes of both
    bint seen[2]                # the count of this epoch has been at zero in this round
    uint8_t epoch               # a flag: the count of new readers; it changes so that the other count can fall to zero
    int64_t readers[2]

# A reader of homes. Returns what cache_exit() wants back. May be nested; takes no lock, and the GIL may be taken inside.
cdef inline int cache_enter(Cache* cache) noexcept nogil:
    cdef int epoch = tkv_flag(&cache.epoch) & 1
    tkv_count(&cache.readers[epoch], 1)
    return epoch


cdef inline void cache_exit(Cache* cache, int epoch) noexcept nogil:
    tkv_count(&cache.readers[epoch], -1)


# A chunk not at any home yet, the caller's until cache_insert() or chunk_free(). NULL when memory is out.
cdef Chunk* chunk_new(Cache* cache, uint64_t size) noexcept nogil
cdef void chunk_free(Cache* cache, Chunk* chunk) noexcept nogil
# The chunk at home, pinned; NULL when it is not there.
cdef Chunk* cache_find(Cache* cache, Chunk** home) noexcept nogil
# Puts a chunk at home and pins it. When another thread was faster, `chunk` is freed and the other's is returned. passing: it is
# wanted for one small cell, and passes where there is no room that is free.
cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home, uint8_t* recent, bint passing) noexcept nogil
cdef void cache_release(Cache* cache, Chunk* chunk) noexcept nogil
# A number that no fragment of this cache has had. Cells are known by it, so that those of a fragment that is gone are found by
# nobody, and go as anything does that is not used.
cdef uint64_t cache_owner(Cache* cache) noexcept nogil
# The bytes of a cell that was kept, or NULL. owner: cache_owner() of its fragment, with its slot. REQUIRES: as with homes.
cdef const uint8_t* cell_find(Cache* cache, uint64_t owner, uint64_t tile, uint64_t start, uint64_t size) noexcept nogil
# Copies a cell's bytes. Nothing is done when there is no memory, or no place.
cdef void cell_keep(Cache* cache, uint64_t owner, uint64_t tile, uint64_t start, const uint8_t* data,
                    uint64_t size) noexcept nogil
# Forgets all chunks of n homes, which are about to be freed. REQUIRES: none of them is pinned, nobody reads them.
cdef void cache_drop(Cache* cache, Chunk** homes, size_t n) noexcept nogil
# Whether n more bytes fit without eviction; a hint.
cdef bint cache_has_room(Cache* cache, uint64_t n) noexcept nogil
# Counts n bytes that are no chunk as used, or gives back -n. False, and nothing is done, if n is more than half of the budget.
cdef bint cache_reserve(Cache* cache, int64_t n) noexcept nogil


cdef class ChunkCache:
    """Owns a Cache; the fragments that use it keep it alive."""
    cdef Cache cache

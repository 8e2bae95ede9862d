"""Decoded chunks within a byte budget, shared by the fragments of a handle. Everything here runs without the GIL.

The fragment of a chunk has a pointer to it: its home. There are two ways to read a chunk:

* cache_find() takes the lock and pins it. A pinned chunk is not evicted; cache_release() unpins it.
* Between cache_enter() and cache_exit() a home may be followed without lock or pin. This is epoch-based reclamation with two
  counts of readers: a reader is counted under the epoch in which it came. When a chunk is evicted, its home is emptied at once,
  but the chunk is in limbo, and not freed, until each of the two counts has been seen at zero after the eviction. By then every
  reader is gone that could have loaded the pointer.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "base/atomic.h" nogil:
    void tkv_count(int64_t* at, int64_t n) noexcept
    uint8_t tkv_flag(const uint8_t* at) noexcept
    void tkv_set_flag(uint8_t* at, uint8_t value) noexcept


cdef extern from "base/slabs.h" nogil:
    ctypedef struct tkv_slabs:
        pass


# One decoded chunk. Its bytes follow the struct in the same allocation.
cdef struct Chunk:
    uint64_t size
    uint64_t start              # its first cell or byte in its tile; only its fragment uses it
    int pins                    # guarded by the cache's lock, as are all fields below
    uint8_t* recent             # a flag of the fragment: set by whoever reads the chunk, cleared when the hand passes
    Chunk** home                # the fragment's pointer to it; NULL when it is not in the ring
    Chunk* next
    Chunk* previous


cdef inline uint8_t* chunk_data(Chunk* chunk) noexcept nogil:
    return <uint8_t*>(chunk + 1)


# Eviction by clock: a hand walks the ring, spares what was touched since its last visit, and skips what is pinned.
# A pinned chunk is never evicted.
cdef struct Cache:
    void* lock
    tkv_slabs* slabs            # what chunks are made of
    uint64_t budget             # bytes
    uint64_t used               # bytes of the chunks in the ring, and what cache_reserve() took
    Chunk* hand
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
# Puts a chunk at home and pins it. When another thread was faster, `chunk` is freed and the other's is returned.
cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home, uint8_t* recent) noexcept nogil
cdef void cache_release(Cache* cache, Chunk* chunk) noexcept nogil
# Forgets all chunks of n homes, which are about to be freed. REQUIRES: none of them is pinned, nobody reads them.
cdef void cache_drop(Cache* cache, Chunk** homes, size_t n) noexcept nogil
# Whether n more bytes fit without eviction; a hint.
cdef bint cache_has_room(Cache* cache, uint64_t n) noexcept nogil
# Counts n bytes that are no chunk as used, or gives back -n. False, and nothing is done, if n is more than half of the budget.
cdef bint cache_reserve(Cache* cache, int64_t n) noexcept nogil


cdef class ChunkCache:
    """Owns a Cache; the fragments that use it keep it alive."""
    cdef Cache cache

"""Decoded chunks within a byte budget, shared by the fragments of a handle. Everything here runs without the GIL."""

from libc.stdint cimport uint8_t, uint64_t


# One decoded chunk. `data` follows the struct in the same allocation.
cdef struct Chunk:
    uint8_t* data
    uint64_t size
    uint64_t start              # its first cell or byte in its tile; the owner's business
    int pins                    # guarded by the cache's lock, as are all fields below
    bint recent                 # touched since the hand last passed
    Chunk** home                # where its fragment finds it; NULL once evicted
    Chunk* next
    Chunk* previous


# A chunk not in any cache yet, owned by the caller until chunk_insert or chunk_free. NULL when memory is out.
cdef Chunk* chunk_new(uint64_t size) noexcept nogil
cdef void chunk_free(Chunk* chunk) noexcept nogil


# Eviction by clock: a hand walks the ring, spares what was touched since its last visit, and skips what is pinned.
# A pinned chunk is never evicted.
cdef struct Cache:
    void* lock
    uint64_t budget             # bytes
    uint64_t used               # bytes of the chunks in the ring
    Chunk* hand

# The chunk at home, pinned; NULL when it is not there.
cdef Chunk* cache_find(Cache* cache, Chunk** home) noexcept nogil
# Puts a chunk at home and pins it. When another thread was faster, `chunk` is freed and the other's is returned.
cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home) noexcept nogil
cdef void cache_release(Cache* cache, Chunk* chunk) noexcept nogil
# Forgets all chunks of n homes, which are about to be freed. REQUIRES: none of them is pinned.
cdef void cache_drop(Cache* cache, Chunk** homes, size_t n) noexcept nogil


cdef class ChunkCache:
    """Owns a Cache; the fragments that use it keep it alive."""
    cdef Cache cache

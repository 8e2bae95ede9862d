cimport cython

from libc.stdlib cimport free, malloc


cdef extern from "lock.h" nogil:
    void* tkv_lock_alloc()
    void tkv_lock_free(void* lock)
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)


cdef Chunk* chunk_new(uint64_t size) noexcept nogil:
    cdef Chunk* chunk = <Chunk*>malloc(sizeof(Chunk) + size)
    if chunk == NULL:
        return NULL
    chunk.data = <uint8_t*>(chunk + 1)
    chunk.size = size
    chunk.pins = 0
    chunk.recent = False
    chunk.home = NULL
    return chunk


cdef void chunk_free(Chunk* chunk) noexcept nogil:
    free(chunk)


cdef void unlink(Cache* cache, Chunk* chunk) noexcept nogil:
    chunk.home[0] = NULL
    cache.used -= chunk.size
    if chunk.next == chunk:
        cache.hand = NULL
        return
    chunk.previous.next = chunk.next
    chunk.next.previous = chunk.previous
    if cache.hand == chunk:
        cache.hand = chunk.next


cdef Chunk* cache_find(Cache* cache, Chunk** home) noexcept nogil:
    cdef Chunk* chunk
    tkv_lock_acquire(cache.lock)
    chunk = home[0]
    if chunk != NULL:
        chunk.pins += 1
        chunk.recent = True
    tkv_lock_release(cache.lock)
    return chunk


cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home) noexcept nogil:
    cdef Chunk* present
    cdef Chunk* at
    cdef uint64_t turn
    tkv_lock_acquire(cache.lock)
    present = home[0]
    if present != NULL:
        present.pins += 1
        tkv_lock_release(cache.lock)
        chunk_free(chunk)
        return present
    # Room first, so that the newcomer is not looked at. Two turns of the hand see every chunk with `recent` cleared.
    turn = 2 * cache.used
    while cache.used + chunk.size > cache.budget and cache.hand != NULL:
        at = cache.hand
        cache.hand = at.next
        if turn < at.size:
            break
        turn -= at.size if at.size else 1
        if at.pins:
            continue
        if at.recent:
            at.recent = False
            continue
        unlink(cache, at)
        chunk_free(at)
    chunk.pins = 1
    chunk.recent = False
    chunk.home = home
    home[0] = chunk
    if cache.hand == NULL:
        chunk.next = chunk.previous = chunk
        cache.hand = chunk
    else:
        chunk.next = cache.hand
        chunk.previous = cache.hand.previous
        chunk.previous.next = chunk
        chunk.next.previous = chunk
    cache.used += chunk.size
    tkv_lock_release(cache.lock)
    return chunk


cdef void cache_release(Cache* cache, Chunk* chunk) noexcept nogil:
    tkv_lock_acquire(cache.lock)
    chunk.pins -= 1
    if chunk.pins == 0 and cache.used > cache.budget:
        # It was let in above the budget because everything else was pinned.
        unlink(cache, chunk)
        chunk_free(chunk)
    tkv_lock_release(cache.lock)


cdef void cache_drop(Cache* cache, Chunk** homes, size_t n) noexcept nogil:
    cdef size_t i
    cdef Chunk* chunk
    tkv_lock_acquire(cache.lock)
    for i in range(n):
        chunk = homes[i]
        if chunk != NULL:
            unlink(cache, chunk)
            chunk_free(chunk)
    tkv_lock_release(cache.lock)


@cython.final
cdef class ChunkCache:
    def __cinit__(self, uint64_t budget):
        self.cache.budget = budget
        self.cache.lock = tkv_lock_alloc()
        if self.cache.lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        # Fragments drop their chunks before they let go of the cache, so the ring is empty by now.
        if self.cache.lock != NULL:
            tkv_lock_free(self.cache.lock)

    @property
    def budget(self):
        """Bytes of decoded chunks to keep."""
        return self.cache.budget

    @property
    def used(self):
        """Bytes of decoded chunks held now. Above `budget` only while more than that is in use by readers."""
        return self.cache.used

cimport cython


cdef extern from "base/lock.h" nogil:
    void* tkv_lock_alloc()
    void tkv_lock_free(void* lock)
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)


cdef extern from "base/atomic.h" nogil:
    void tkv_store_release(void** at, void* value)
    int64_t tkv_counted(const int64_t* at)
    void tkv_clear_pointer(void** at)

cdef extern from "base/slabs.h" nogil:
    tkv_slabs* tkv_slabs_new(uint64_t budget)
    void tkv_slabs_free(tkv_slabs* slabs)
    void* tkv_piece_alloc(tkv_slabs* slabs, size_t n)
    void tkv_piece_free(tkv_slabs* slabs, void* piece, size_t n)

cdef enum:
    WAITING = 4 << 20           # bytes of evicted chunks that may wait, beside a quarter of the budget


cdef Chunk* chunk_new(Cache* cache, uint64_t size) noexcept nogil:
    cdef Chunk* chunk = <Chunk*>tkv_piece_alloc(cache.slabs, sizeof(Chunk) + size)
    if chunk == NULL:
        return NULL
    chunk.size = size
    chunk.pins = 0
    chunk.home = NULL
    return chunk


cdef void chunk_free(Cache* cache, Chunk* chunk) noexcept nogil:
    tkv_piece_free(cache.slabs, chunk, sizeof(Chunk) + chunk.size)


cdef void unlink(Cache* cache, Chunk* chunk) noexcept nogil:
    assert chunk.home != NULL and chunk.home[0] == chunk
    assert chunk.pins == 0 and cache.used >= chunk.size
    tkv_clear_pointer(<void**>chunk.home)
    chunk.home = NULL
    cache.used -= chunk.size
    if chunk.next == chunk:
        cache.hand = NULL
        return
    chunk.previous.next = chunk.next
    chunk.next.previous = chunk.previous
    if cache.hand == chunk:
        cache.hand = chunk.next


cdef void evict(Cache* cache, Chunk* chunk) noexcept nogil:
    unlink(cache, chunk)
    chunk.next = cache.limbo
    cache.limbo = chunk
    cache.waiting += chunk.size


cdef void free_chain(Cache* cache, Chunk* chunk) noexcept nogil:
    cdef Chunk* following
    while chunk != NULL:
        following = chunk.next
        assert chunk.pins == 0 and cache.waiting >= chunk.size
        cache.waiting -= chunk.size
        chunk_free(cache, chunk)
        chunk = following


cdef void reclaim(Cache* cache) noexcept nogil:
    """Free the chunks in limbo that no reader can have a pointer to.

    A reader is counted before it loads from a home, and until it is done. So whoever loaded a pointer before the home was emptied
    was under one of the two counts at that time. Once each of them has been zero at some moment after that, it is done.
    """
    cdef int i
    for i in range(2):
        assert tkv_counted(&cache.readers[i]) >= 0
        if tkv_counted(&cache.readers[i]) == 0:
            cache.seen[i] = True
    if cache.seen[0] and cache.seen[1]:
        free_chain(cache, cache.older_limbo)
        cache.older_limbo = cache.limbo
        cache.limbo = NULL
        cache.seen[0] = cache.seen[1] = False
    elif cache.seen[1 - cache.epoch]:
        tkv_set_flag(&cache.epoch, 1 - cache.epoch)


cdef Chunk* cache_find(Cache* cache, Chunk** home) noexcept nogil:
    cdef Chunk* chunk
    tkv_lock_acquire(cache.lock)
    chunk = home[0]
    if chunk != NULL:
        chunk.pins += 1
        tkv_set_flag(chunk.recent, 1)
    tkv_lock_release(cache.lock)
    return chunk


cdef void make_room(Cache* cache, uint64_t n) noexcept nogil:
    """Evict until n more bytes fit, or the hand has gone twice round: by then it has met every chunk with `recent` cleared."""
    cdef uint64_t left = 2 * cache.used
    cdef Chunk* at
    while cache.used + n > cache.budget and cache.hand != NULL:
        at = cache.hand
        cache.hand = at.next
        if left < at.size:
            break
        left -= at.size if at.size else 1
        if at.pins:
            continue
        if tkv_flag(at.recent):
            tkv_set_flag(at.recent, 0)
            continue
        evict(cache, at)


cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home, uint8_t* recent) noexcept nogil:
    cdef Chunk* present
    tkv_lock_acquire(cache.lock)
    chunk.pins = 1
    chunk.recent = recent
    present = home[0]
    if present != NULL:
        present.pins += 1
        tkv_lock_release(cache.lock)
        chunk_free(cache, chunk)
        return present
    reclaim(cache)
    if cache.waiting > WAITING + cache.budget // 4:
        # A reader has been at work for long, and evicting would free nothing: this chunk is not cached, only its reader has it.
        tkv_lock_release(cache.lock)
        return chunk
    make_room(cache, chunk.size)        # first, so that the new chunk is not evicted
    tkv_set_flag(recent, 0)
    chunk.home = home
    tkv_store_release(<void**>home, chunk)
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
    cdef bint own
    tkv_lock_acquire(cache.lock)
    assert chunk.pins > 0
    chunk.pins -= 1
    own = chunk.home == NULL
    if not own and chunk.pins == 0 and cache.used > cache.budget:
        evict(cache, chunk)             # it was cached beyond the budget because all others were pinned
        reclaim(cache)
    tkv_lock_release(cache.lock)
    if own:
        chunk_free(cache, chunk)


cdef void cache_drop(Cache* cache, Chunk** homes, size_t n) noexcept nogil:
    cdef size_t i
    cdef Chunk* chunk
    tkv_lock_acquire(cache.lock)
    for i in range(n):
        chunk = homes[i]
        if chunk != NULL:
            unlink(cache, chunk)
            chunk_free(cache, chunk)
    tkv_lock_release(cache.lock)


cdef bint cache_has_room(Cache* cache, uint64_t n) noexcept nogil:
    cdef bint fits
    tkv_lock_acquire(cache.lock)
    fits = cache.used <= cache.budget and n <= cache.budget - cache.used
    tkv_lock_release(cache.lock)
    return fits


cdef bint cache_reserve(Cache* cache, int64_t n) noexcept nogil:
    cdef bint fits
    tkv_lock_acquire(cache.lock)
    fits = n <= 0 or <uint64_t>n <= cache.budget // 2
    if fits:
        if n > 0:
            make_room(cache, <uint64_t>n)
        cache.used += <uint64_t>n
    tkv_lock_release(cache.lock)
    return fits


@cython.final
cdef class ChunkCache:
    def __cinit__(self, uint64_t budget):
        self.cache.budget = budget
        self.cache.lock = tkv_lock_alloc()
        self.cache.slabs = tkv_slabs_new(budget)
        if self.cache.lock == NULL or self.cache.slabs == NULL:
            raise MemoryError

    def __dealloc__(self):
        # Fragments drop their chunks before they let go of the cache, so the ring is empty by now.
        assert self.cache.hand == NULL and self.cache.readers[0] == 0 and self.cache.readers[1] == 0
        free_chain(&self.cache, self.cache.older_limbo)
        free_chain(&self.cache, self.cache.limbo)
        tkv_slabs_free(self.cache.slabs)
        tkv_lock_free(self.cache.lock)

    @property
    def budget(self):
        """Bytes to keep: decoded chunks, and digest indexes."""
        return self.cache.budget

    @property
    def used(self):
        """Bytes held now. Above `budget` only while more than that is in use by readers."""
        return self.cache.used

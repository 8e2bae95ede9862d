cimport cython
from libc.string cimport memcpy, memset


cdef extern from "base/lock.h" nogil:
    void* tkv_lock_alloc()
    void tkv_lock_free(void* lock)
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)


cdef extern from "base/atomic.h" nogil:
    void* tkv_load_acquire(void* const* at)
    void tkv_store_release(void** at, void* value)
    int64_t tkv_counted(const int64_t* at)
    void tkv_clear_pointer(void** at)

cdef extern from "base/slabs.h" nogil:
    tkv_slabs* tkv_slabs_new(uint64_t budget)
    void tkv_slabs_free(tkv_slabs* slabs)
    void* tkv_piece_alloc(tkv_slabs* slabs, size_t n)
    void tkv_piece_free(tkv_slabs* slabs, void* piece, size_t n)
    uint64_t tkv_slabs_bytes(const tkv_slabs* slabs)

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef enum:
    WAITING = 4 << 20           # bytes of evicted chunks that may wait, beside a quarter of the budget
    PASSING_SHARE = 32          # of the budget
    ROUNDS = 3                  # of the hand, that spare a cell that was used
    PATIENCE = 64               # it spares no more in a row: a million cells, all in use, must not hold the lock for long
    MORE = 4                    # that go with one that comes, where slabs are to become empty
    SET_SHARE = 2048            # bytes of the budget for each set: a thirty-second for all
    LEAST_SETS = 64             # with fewer there are none


cdef Chunk* chunk_new(Cache* cache, uint64_t size) noexcept nogil:
    cdef Chunk* chunk = <Chunk*>tkv_piece_alloc(cache.slabs, sizeof(Chunk) + size)
    if chunk == NULL:
        return NULL
    chunk.size = size
    chunk.owner = 0
    chunk.pins = 0
    chunk.ring = KEPT
    chunk.home = NULL
    return chunk


cdef void chunk_free(Cache* cache, Chunk* chunk) noexcept nogil:
    tkv_piece_free(cache.slabs, chunk, sizeof(Chunk) + chunk.size)


cdef inline uint64_t cost(const Chunk* chunk) noexcept nogil:
    """What it counts as: of a cell the struct is the larger part."""
    return chunk.size + (sizeof(Chunk) if chunk.owner else 0)


cdef void link(Cache* cache, Chunk* chunk) noexcept nogil:
    """Behind all others: the hand comes to it last."""
    cdef Chunk* hand = cache.hands[chunk.ring]
    if hand == NULL:
        chunk.next = chunk.previous = chunk
        cache.hands[chunk.ring] = chunk
    else:
        chunk.next = hand
        chunk.previous = hand.previous
        chunk.previous.next = chunk
        chunk.next.previous = chunk
    cache.used += cost(chunk)
    if chunk.ring == PASSING:
        cache.passing += cost(chunk)


cdef void unlink(Cache* cache, Chunk* chunk) noexcept nogil:
    assert cache.used >= cost(chunk)
    cache.used -= cost(chunk)
    if chunk.ring == PASSING:
        assert cache.passing >= cost(chunk)
        cache.passing -= cost(chunk)
    if chunk.next == chunk:
        cache.hands[chunk.ring] = NULL
        return
    chunk.previous.next = chunk.next
    chunk.next.previous = chunk.previous
    if cache.hands[chunk.ring] == chunk:
        cache.hands[chunk.ring] = chunk.next


cdef void leave(Cache* cache, Chunk* chunk) noexcept nogil:
    """It is at home no longer."""
    assert chunk.home != NULL and chunk.home[0] == chunk and chunk.pins == 0
    tkv_clear_pointer(<void**>chunk.home)
    chunk.home = NULL
    unlink(cache, chunk)


cdef void evict(Cache* cache, Chunk* chunk) noexcept nogil:
    leave(cache, chunk)
    chunk.next = cache.limbo
    cache.limbo = chunk
    cache.waiting += cost(chunk)


cdef void free_chain(Cache* cache, Chunk* chunk) noexcept nogil:
    cdef Chunk* following
    while chunk != NULL:
        following = chunk.next
        assert chunk.pins == 0 and cache.waiting >= cost(chunk)
        cache.waiting -= cost(chunk)
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


cdef inline bint is_scattered(const Cache* cache) noexcept nogil:
    """Whether what is kept stands here and there in slabs that are more than an eighth larger than their part of the budget: of
    the chunks of a slab cells may have driven out all but a few, which is memory all the same. That may cost a quarter."""
    cdef uint64_t room = cache.budget - min(cache.reserved, cache.budget)
    return (tkv_slabs_bytes(cache.slabs) > room + room // 8 + cache.waiting
            and cache.used - min(cache.reserved, cache.used) > room - room // 4)


cdef void make_room(Cache* cache, uint64_t n) noexcept nogil:
    """Evict until n more bytes fit, or the hand has been round: then all are pinned. What passes goes if that was not enough. Of
    scattered ones some more, in the order in which they came, which is that of the slabs."""
    cdef uint64_t left = (ROUNDS + 1) * cache.used      # by then PATIENCE spares nothing
    cdef int spared = 0, more = MORE if is_scattered(cache) else 0
    cdef Chunk* at
    while (cache.used + n > cache.budget or more) and cache.hands[KEPT] != NULL:
        at = cache.hands[KEPT]
        cache.hands[KEPT] = at.next
        if left < cost(at):
            break
        left -= max(cost(at), <uint64_t>1)
        if at.pins:
            continue
        if tkv_flag(at.recent) and spared < PATIENCE:
            tkv_set_flag(at.recent, tkv_flag(at.recent) - 1)
            spared += 1
            continue
        if cache.used + n <= cache.budget:
            more -= 1
        evict(cache, at)
        spared = 0
    if cache.used + n > cache.budget:
        make_passing_room(cache, cache.used + n - cache.budget, False)


cdef void make_passing_room(Cache* cache, uint64_t n, bint keep) noexcept nogil:
    """Let n bytes of what passes go, oldest first. What is pinned, perhaps for as long as a client is slow, counts as new. keep:
    what was used while it passed stays."""
    cdef uint64_t before = cache.passing, left = cache.passing
    cdef Chunk* oldest
    while before - cache.passing < n and cache.hands[PASSING] != NULL and left >= cost(cache.hands[PASSING]):
        oldest = cache.hands[PASSING]
        left -= max(cost(oldest), <uint64_t>1)
        if oldest.pins:
            cache.hands[PASSING] = oldest.next
        elif keep and tkv_flag(oldest.recent):
            unlink(cache, oldest)
            oldest.ring = KEPT
            tkv_set_flag(oldest.recent, 0)
            link(cache, oldest)
        else:
            evict(cache, oldest)


cdef bint may_evict(Cache* cache) noexcept nogil:
    """Whether evicting frees memory. It does not while a reader has been at work for long."""
    reclaim(cache)
    return cache.waiting <= WAITING + cache.budget // 4


cdef void settle(Cache* cache, Chunk* chunk, Chunk** home, uint8_t* recent) noexcept nogil:
    """The chunk is at home from now on. REQUIRES: there is room."""
    chunk.recent = recent
    tkv_set_flag(recent, 0)
    chunk.home = home
    tkv_store_release(<void**>home, chunk)
    link(cache, chunk)


cdef Chunk* cache_insert(Cache* cache, Chunk* chunk, Chunk** home, uint8_t* recent, bint passing) noexcept nogil:
    cdef uint64_t share = cache.budget // PASSING_SHARE
    cdef Chunk* present
    tkv_lock_acquire(cache.lock)
    chunk.pins = 1
    present = home[0]
    if present != NULL:
        present.pins += 1
        tkv_lock_release(cache.lock)
        chunk_free(cache, chunk)
        return present
    if not may_evict(cache):
        # This chunk is not cached, only its reader has it.
        tkv_lock_release(cache.lock)
        return chunk
    # Their share counts as taken: what a cell has driven out must not let a whole chunk in.
    if passing and cache.nsets and (cache.used - cache.passing + share + chunk.size > cache.budget or is_scattered(cache)):
        chunk.ring = PASSING
        if cache.passing + chunk.size > share:
            make_passing_room(cache, cache.passing + chunk.size - share, True)
    make_room(cache, chunk.size)        # first, so that the new chunk is not evicted
    settle(cache, chunk, home, recent)
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
            leave(cache, chunk)
            chunk_free(cache, chunk)
    tkv_lock_release(cache.lock)


cdef inline uint64_t cell_hash(uint64_t owner, uint64_t tile, uint64_t start) noexcept nogil:
    """Steele and others' mixing of 64 bits (SplitMix64) of the sum of each times an odd number."""
    cdef uint64_t h = owner * 0x9E3779B97F4A7C15U + tile * 0xC2B2AE3D27D4EB4FU + start * 0x165667B19E3779F9U
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBU
    return h ^ (h >> 31)


cdef inline bint is_cell(const Chunk* chunk, uint64_t owner, uint64_t tile, uint64_t start, uint64_t size) noexcept nogil:
    return chunk.owner == owner and chunk.tile == tile and chunk.start == start and chunk.size == size


cdef uint64_t cache_owner(Cache* cache) noexcept nogil:
    cdef uint64_t owner
    tkv_lock_acquire(cache.lock)
    cache.owners += 1
    owner = cache.owners
    tkv_lock_release(cache.lock)
    return owner


cdef inline uint64_t first_set(const Cache* cache, uint64_t h) noexcept nogil:
    return (h >> 8) & (cache.nsets - 1)


cdef inline uint64_t second_set(const Cache* cache, uint64_t h) noexcept nogil:
    return (h >> 36) & (cache.nsets - 1)


cdef const uint8_t* cell_in(CellSet* cells, uint64_t h, uint64_t owner, uint64_t tile, uint64_t start,
                            uint64_t size) noexcept nogil:
    cdef Chunk* chunk
    cdef int way
    for way in range(WAYS):
        if tkv_flag(&cells.tags[way]) != <uint8_t>h:
            continue
        chunk = <Chunk*>tkv_load_acquire(<void* const*>&cells.homes[way])
        if chunk != NULL and is_cell(chunk, owner, tile, start, size):
            if tkv_flag(&cells.recent[way]) != ROUNDS:
                tkv_set_flag(&cells.recent[way], ROUNDS)
            return chunk_data(chunk)
    return NULL


cdef const uint8_t* cell_find(Cache* cache, uint64_t owner, uint64_t tile, uint64_t start, uint64_t size) noexcept nogil:
    cdef CellSet* sets = <CellSet*>tkv_load_acquire(<void* const*>&cache.sets)
    cdef CellSet* cells
    cdef const uint8_t* data
    cdef uint64_t h
    if sets == NULL:
        return NULL
    h = cell_hash(owner, tile, start)
    cells = sets + first_set(cache, h)
    data = cell_in(cells, h, owner, tile, start, size)
    if data == NULL and tkv_flag(&cells.spilled):
        data = cell_in(sets + second_set(cache, h), h, owner, tile, start, size)
    return data


cdef bint make_sets(Cache* cache) noexcept nogil:
    """Whether there are sets."""
    cdef CellSet* cells
    if cache.sets == NULL and cache.nsets:
        cells = <CellSet*>tkv_pages_alloc(cache.nsets * sizeof(CellSet))
        if cells != NULL:
            memset(cells, 0, cache.nsets * sizeof(CellSet))
            cache.used += cache.nsets * sizeof(CellSet)
            cache.reserved += cache.nsets * sizeof(CellSet)
            tkv_store_release(<void**>&cache.sets, cells)
    return cache.sets != NULL


cdef int empty_way(const CellSet* cells) noexcept nogil:
    """-1: there is none."""
    cdef int way
    for way in range(WAYS):
        if cells.homes[way] == NULL:
            return way
    return -1


cdef int idle_way(CellSet* cells, int first) noexcept nogil:
    """One whose cell was not used lately, else any; -1: all are pinned."""
    cdef int i, way, chosen = -1
    for i in range(WAYS):
        way = (first + i) % WAYS
        if cells.homes[way].pins:
            continue
        if not tkv_flag(&cells.recent[way]):
            return way
        tkv_set_flag(&cells.recent[way], 0)
        if chosen < 0:
            chosen = way
    return chosen


cdef CellSet* choose_set(Cache* cache, uint64_t h, int* way) noexcept nogil:
    """Where to put a cell. With one set each, cells that fill two thirds of the places would drive out a fifth of each other."""
    cdef CellSet* cells = cache.sets + first_set(cache, h)
    cdef CellSet* second = cache.sets + second_set(cache, h)
    way[0] = empty_way(cells)
    if way[0] >= 0:
        return cells
    way[0] = empty_way(second)
    if way[0] >= 0:
        tkv_set_flag(&cells.spilled, True)
        return second
    way[0] = idle_way(cells, <int>(h >> 58))
    return cells


cdef bint place_cell(Cache* cache, Chunk* chunk) noexcept nogil:
    cdef uint64_t h = cell_hash(chunk.owner, chunk.tile, chunk.start)
    cdef CellSet* cells
    cdef int way = -1
    if not make_sets(cache) or not may_evict(cache):
        return False
    if cell_find(cache, chunk.owner, chunk.tile, chunk.start, chunk.size) != NULL:
        return False                                            # another thread was faster
    cells = choose_set(cache, h, &way)
    if way < 0:
        return False
    if cells.homes[way] != NULL:
        evict(cache, cells.homes[way])
    make_room(cache, cost(chunk))
    tkv_set_flag(&cells.tags[way], <uint8_t>h)
    settle(cache, chunk, &cells.homes[way], &cells.recent[way])
    return True


cdef void cell_keep(Cache* cache, uint64_t owner, uint64_t tile, uint64_t start, const uint8_t* data,
                    uint64_t size) noexcept nogil:
    cdef Chunk* chunk = chunk_new(cache, size)
    cdef bint placed
    if chunk == NULL:
        return
    chunk.owner = owner
    chunk.tile = tile
    chunk.start = start
    memcpy(chunk_data(chunk), data, size)
    tkv_lock_acquire(cache.lock)
    placed = place_cell(cache, chunk)
    tkv_lock_release(cache.lock)
    if not placed:
        chunk_free(cache, chunk)


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
        cache.reserved += <uint64_t>n
    tkv_lock_release(cache.lock)
    return fits


@cython.final
cdef class ChunkCache:
    def __cinit__(self, uint64_t budget):
        self.cache.budget = budget
        self.cache.lock = tkv_lock_alloc()
        self.cache.slabs = tkv_slabs_new(budget)
        self.cache.nsets = LEAST_SETS
        while self.cache.nsets * 2 <= budget // SET_SHARE:
            self.cache.nsets *= 2
        if self.cache.nsets > budget // SET_SHARE:
            self.cache.nsets = 0
        if self.cache.lock == NULL or self.cache.slabs == NULL:
            raise MemoryError

    def __dealloc__(self):
        # Fragments drop their chunks before they let go of the cache: what is left are cells.
        assert self.cache.hands[PASSING] == NULL and self.cache.readers[0] == 0 and self.cache.readers[1] == 0
        while self.cache.hands[KEPT] != NULL:
            assert self.cache.hands[KEPT].owner
            evict(&self.cache, self.cache.hands[KEPT])
        if self.cache.sets != NULL:
            tkv_pages_free(self.cache.sets, self.cache.nsets * sizeof(CellSet))
        free_chain(&self.cache, self.cache.older_limbo)
        free_chain(&self.cache, self.cache.limbo)
        tkv_slabs_free(self.cache.slabs)
        tkv_lock_free(self.cache.lock)

    @property
    def budget(self):
        """Bytes to keep: decoded chunks and cells, and digest indexes."""
        return self.cache.budget

    @property
    def used(self):
        """Bytes held now. Above `budget` only while more than that is in use by readers."""
        return self.cache.used

    @property
    def slab_bytes(self):
        """Bytes of the slabs that chunks and cells are cut out of, but for the last one of each size."""
        return tkv_slabs_bytes(self.cache.slabs)

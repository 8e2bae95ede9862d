cimport cython
from libc.stdint cimport UINT64_MAX, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tilekv.kvcore.base.cache cimport cache_reserve
from tilekv.kvcore.base.wire cimport load32, load64
from tilekv.kvcore.codec.pipeline cimport NO_MEMORY, OK
from tilekv.kvcore.format.layout cimport SLOT_OFFSETS, TOMBSTONE
from tilekv.kvcore.hashing.coords cimport bounded, compare_keys, lower_bound
from tilekv.kvcore.read.address cimport IN_BUFFER
from tilekv.kvcore.read.chunks cimport (Pin, SlotView, Span, context_close, chunk_index, fragment_cell, fragment_coords,
                                        fragment_key, tile_cells, unpin)
from tilekv.kvcore.read.digest_index cimport (ENTRIES, entry_matches, entry_number, index_bucket, index_build, index_bytes,
                                              index_fragment, index_free)
from tilekv.kvcore.read.resident cimport resident_cell, resident_coords, resident_extent, resident_key

cdef extern from "base/atomic.h" nogil:
    void* tkv_load_acquire(void* const* at)
    void tkv_store_release(void** at, void* value)

cdef extern from "base/prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef enum:
    FEW = 4                     # cells of one digest that are compared one after another; more are searched by halves
    LINE = 64
    STORED = 192                # bytes of a stored chunk: the processor sees by itself that it goes on
    MOST_LINES = 8              # of a value that are fetched ahead; the processor sees by itself that a longer one goes on
    # Between the steps of probe_block(), beside what Found has:
    CANDIDATE = 10              # the index has a cell at addresses[i]
    UNSURE = 11                 # the index does not know


cdef Found match_key(FragmentData* fragment, uint64_t tile, uint64_t cell, const KeyRef* key, ReadContext* context,
                     int* difference, bint* delete) noexcept nogil:
    """*difference: the stored key against `key`. PRESENT, or FAULT."""
    cdef Span span
    cdef KeyRef stored
    if resident_key(fragment, tile, cell, &stored):
        difference[0] = compare_keys(&stored, key)
        delete[0] = (stored.type & TOMBSTONE) != 0
        return PRESENT
    if fragment_key(fragment, tile, cell, context, &span, &stored) != OK:
        return FAULT
    difference[0] = compare_keys(&stored, key)
    delete[0] = (stored.type & TOMBSTONE) != 0
    unpin(fragment, &span.pin)
    return PRESENT


cdef Found find_key(FragmentData* fragment, uint64_t tile, uint64_t lo, uint64_t hi, const KeyRef* key, ReadContext* context,
                    CellAddress* address) noexcept nogil:
    """Among cells [lo, hi) of a tile, whose coordinates are all equal and whose keys ascend."""
    cdef uint64_t middle
    cdef int difference = 0
    cdef bint delete = False
    cdef bint linear = hi - lo <= FEW
    while lo < hi:
        middle = lo if linear else lo + (hi - lo) // 2
        if match_key(fragment, tile, middle, key, context, &difference, &delete) == FAULT:
            return FAULT
        if difference == 0:
            address.tile = tile
            address.cell = <uint32_t>middle
            address.n = 1
            return DELETED if delete else PRESENT
        if linear or difference < 0:
            lo = middle + 1
        else:
            hi = middle
    return MISSING


cdef Found first_cell_after(FragmentData* fragment, uint64_t tile, const KeyRef* key, uint64_t c0, uint64_t c1,
                            ReadContext* context, bint* after) noexcept nogil:
    """*after: whether the first cell of a tile comes after (c0, c1, key). PRESENT, or FAULT."""
    cdef Pin pin
    cdef uint64_t first
    cdef int difference = 0
    cdef bint delete = False
    if fragment.leaves[4 * tile] != c0:
        after[0] = fragment.leaves[4 * tile] > c0
        return PRESENT
    if fragment_coords(fragment, tile, 1, context, &pin) != OK:
        return FAULT
    first = (<const uint64_t*>pin.data)[0]
    unpin(fragment, &pin)
    if first != c1:
        after[0] = first > c1
        return PRESENT
    if match_key(fragment, tile, 0, key, context, &difference, &delete) == FAULT:
        return FAULT
    after[0] = difference > 0
    return PRESENT


cdef Found probe_fragment(FragmentData* fragment, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                          CellAddress* address) noexcept nogil:
    """Tile by the leaves of the R-tree, cell by interpolation among its first coordinates, then the stored key.

    The leaves are 32 bytes a tile and stay in cache; a tile's first coordinates are 8 KB, of which a search touches two
    or three lines (sqrt(1024) / 2 = 16 cells is the expected miss of the first guess). Cells with equal coordinates may
    cross tiles; every step among them is a search by halves, so that keys made to collide cost a logarithm each.
    """
    cdef const uint64_t* leaves = fragment.leaves
    cdef uint64_t tile = lower_bound(leaves + 1, 4, 0, fragment.ntiles, c0)     # the first that ends at c0 or later
    cdef uint64_t last = tile, middle, n, lo, hi
    cdef const uint64_t* words
    cdef Pin pin
    cdef bint after = False
    if tile == fragment.ntiles or leaves[4 * tile] > c0:
        return MISSING
    if leaves[4 * tile + 1] == c0 and tile + 1 < fragment.ntiles and leaves[4 * tile + 4] == c0:
        last = lower_bound(leaves, 4, tile, fragment.ntiles, c0 + 1) - 1        # c0 is at most 2^64-2
    while tile < last:                          # the last tile whose first cell does not come after the key
        middle = tile + (last - tile + 1) // 2
        if first_cell_after(fragment, middle, key, c0, c1, context, &after) == FAULT:
            return FAULT
        if after:
            last = middle - 1
        else:
            tile = middle
    n = tile_cells(fragment, tile)
    fetch_near(fragment, tile, n, c0)
    if column_of(fragment, tile, 0, context, &pin) != OK:
        return FAULT
    words = <const uint64_t*>pin.data
    lo = bounded(words, 1, 0, n, leaves[4 * tile], leaves[4 * tile + 1], c0)
    hi = equal_end(words, lo, n, c0)
    unpin(fragment, &pin)
    if lo == hi:
        return MISSING
    if column_of(fragment, tile, 1, context, &pin) != OK:
        return FAULT
    words = <const uint64_t*>pin.data
    lo = lower_bound(words, 1, lo, hi, c1)
    hi = equal_end(words, lo, hi, c1)
    unpin(fragment, &pin)
    if field >= 0 and lo < hi:
        fetch_stored(fragment, 0, tile, lo)
        fetch_stored(fragment, field, tile, lo)
    return find_key(fragment, tile, lo, hi, key, context, address)


cdef inline void fetch_near(const FragmentData* f, uint64_t tile, uint64_t n, uint64_t c0) noexcept nogil:
    """The second coordinates where the first guess falls, while the first ones are searched."""
    cdef const uint64_t* words = resident_coords(f, tile, 1)
    cdef uint64_t low = f.leaves[4 * tile], high = f.leaves[4 * tile + 1]
    if words != NULL and low < c0 <= high:
        tkv_prefetch(words + <size_t>(<double>(c0 - low) / <double>(high - low) * <double>(n - 1)))


cdef inline Status column_of(FragmentData* fragment, uint64_t tile, int dimension, ReadContext* context, Pin* pin) noexcept nogil:
    pin.chunk = NULL
    pin.data = <const uint8_t*>resident_coords(fragment, tile, dimension)
    return OK if pin.data != NULL else fragment_coords(fragment, tile, dimension, context, pin)


cdef inline uint64_t equal_end(const uint64_t* words, uint64_t lo, uint64_t hi, uint64_t value) noexcept nogil:
    """The end of the run of `value` that begins at lo, if it does: nearly always one cell."""
    if lo == hi or words[lo] != value:
        return lo
    if lo + 1 == hi or words[lo + 1] != value:
        return lo + 1
    return lower_bound(words, 1, lo, hi, value + 1)


cdef inline void locate(const DigestIndex* index, uint64_t number, uint64_t capacity, CellAddress* address) noexcept nogil:
    address.fragment = <uint32_t>index_fragment(index, number)
    number -= index.first[address.fragment]
    address.tile = number // capacity
    address.cell = <uint32_t>(number - address.tile * capacity)
    address.n = 1


cdef inline void fetch_type(const FragmentData* f, const CellAddress* address) noexcept nogil:
    cdef const SlotView* s = &f.slots[f.key_type]
    cdef const uint8_t* data
    if s.in_place and s.first_chunk == NULL:
        data = <const uint8_t*>tkv_load_acquire(&s.ready[address.tile])
        if data != NULL:
            tkv_prefetch(data + address.cell)


cdef inline void fetch_word(const FragmentData* f, int field, const CellAddress* address) noexcept nogil:
    """Ask for a cell of a field whose cells are words without filters."""
    cdef const SlotView* s = &f.slots[field]
    cdef const uint8_t* data
    if s.in_place and s.first_chunk == NULL:
        data = <const uint8_t*>tkv_load_acquire(&s.ready[address.tile])
        if data != NULL:
            tkv_prefetch(data + 8 * address.cell)


cdef inline void fetch_extent(const FragmentData* f, int field, const CellAddress* address) noexcept nogil:
    cdef const SlotView* s = &f.slots[field]
    cdef const uint8_t* data
    if s.in_place and f.kinds[field].kind == SLOT_OFFSETS:
        data = <const uint8_t*>tkv_load_acquire(<void* const*>&s.windows[address.tile].data)
        if data != NULL and s.windows[address.tile].nbytes:
            tkv_prefetch(data + address.cell * s.windows[address.tile].nbytes)


cdef inline void fetch_stored(const FragmentData* f, int field, uint64_t tile, uint64_t cell) noexcept nogil:
    """The stored chunk of a cell that is not in memory: with a small cache nearly every get decodes two, and the value's comes
    while the key's is decoded."""
    cdef int slot = field
    cdef const SlotView* s
    cdef uint64_t index, start = cell, end = 0, position
    if f.kinds[field].kind == SLOT_OFFSETS:
        slot = f.nf + 1 + field
        if not resident_extent(f, field, tile, cell, &start, &end) or start == end:
            return
    s = &f.slots[slot]
    if s.in_place or s.first_chunk == NULL or s.width != 4 or s.file.base == NULL:
        return
    index = chunk_index(f, slot, tile, start)
    if index < s.nchunks and tkv_load_acquire(<void* const*>&s.homes[index]) == NULL:
        position = s.tile_at[tile] + load32(s.chunks + 8 * index + 4)
        if position < s.file.size:
            fetch_bytes(s.file.base + position, STORED)


cdef inline void fetch_bytes(const uint8_t* data, uint64_t size) noexcept nogil:
    cdef uint64_t line = 0
    while line < size + LINE and line < MOST_LINES * LINE:
        tkv_prefetch(data + line)
        line += LINE


cdef inline void fetch_ahead(const FragmentData* f, int field, const CellAddress* address) noexcept nogil:
    """What a get will read, all at once: the stored key's type and bytes, which are compared next, and the value after them."""
    cdef const uint8_t* data
    cdef uint64_t size = 0
    fetch_type(f, address)
    fetch_extent(f, 0, address)
    fetch_extent(f, field, address)
    data = resident_cell(f, 0, address.tile, address.cell, &size)
    if data != NULL:
        tkv_prefetch(data)
    data = resident_cell(f, field, address.tile, address.cell, &size)
    if data != NULL:
        fetch_bytes(data, size)


@cython.final
@cython.no_gc                   # in no cycle; the collector would empty the list that keeps its fragments
cdef class Snapshot:
    def __cinit__(self, Layout layout not None, ChunkCache cache not None, CodecPool codecs not None, fragments, open=None):
        """fragments: newest first, each a Fragment, or a name of which `open` makes one when it is first needed."""
        cdef Fragment fragment
        cdef size_t i
        self.layout = layout
        self.cache = cache
        self.codecs = codecs
        self._open = open
        self._fragments = list(fragments)
        self.n = len(self._fragments)
        self.at = <FragmentData**>calloc(self.n + 1, sizeof(void*))
        if self.at == NULL:
            raise MemoryError
        for i in range(self.n):
            item = self._fragments[i]
            if not isinstance(item, str):
                fragment = item
                self.at[i] = &fragment.data
        self.enough = UINT64_MAX
        if self.n and all([not isinstance(item, str) for item in self._fragments]):
            self.enough = sum([fragment.cells for fragment in self._fragments]) // 16 + 1

    def __dealloc__(self):
        if self.index != NULL:
            cache_reserve(&self.cache.cache, -<int64_t>self.index.bytes)
            index_free(self.index)
        free(self.at)

    @property
    def indexed(self):
        """Whether there is an index of the cells by now."""
        return tkv_load_acquire(<void**>&self.index) != NULL

    @property
    def names(self):
        """The names of the fragments, newest first."""
        return [item if isinstance(item, str) else item.name for item in self._fragments]

    @property
    def fragments(self):
        """The fragments, newest first, all of them open."""
        cdef size_t i
        for i in range(self.n):
            self.open_fragment(<uint32_t>i)
        return tuple(self._fragments)

    @property
    def opened(self):
        """The fragments that are open, by name."""
        return {item.name: item for item in self._fragments if not isinstance(item, str)}

    cdef int open_fragment(self, uint32_t i) except -1:
        cdef Fragment fragment
        if self.at[i] == NULL:
            fragment = self._open(self._fragments[i])
            if self.at[i] == NULL:                              # another thread may have been faster: its pointers are in use
                self._fragments[i] = fragment
                self.at[i] = &fragment.data
        return 0

    cdef int expect(self, uint64_t n) except -1:
        self.asked += n * self.n
        if self.asked >= self.enough:
            self._make_index()
        return 0

    cdef int _make_index(self) except -1:
        """Once, and not at all when it would take more than half of the cache's budget or the coordinates cannot be read: whoever
        searches them will say so."""
        cdef ReadContext context
        cdef DigestIndex* index = NULL
        cdef uint64_t bytes = index_bytes(sum([fragment.cells for fragment in self._fragments]))
        self.enough = UINT64_MAX
        if not cache_reserve(&self.cache.cache, <int64_t>bytes):
            return 0
        memset(&context, 0, sizeof(context))
        try:
            with nogil:
                index = index_build(self.at, self.n, &context)
            if index != NULL:
                tkv_store_release(<void**>&self.index, index)
        except BaseException:
            self.enough = 0                                     # interrupted: whoever looks up the next key makes it
            raise
        finally:
            context_close(&context, &self.codecs.pool)
            if index == NULL:
                cache_reserve(&self.cache.cache, -<int64_t>bytes)
        return 0

    cdef Found probe(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                     CellAddress* address) noexcept nogil:
        cdef Found found = self.newest(key, c0, c1, field, context, address)
        return self.unexpired(context, address) if found == PRESENT and context.now else found

    cdef Found unexpired(self, ReadContext* context, const CellAddress* address) noexcept nogil:
        cdef FragmentData* f = self.at[address.fragment]
        cdef int field = self.layout.expires
        cdef uint64_t size = 0
        cdef int64_t moment
        cdef Span span
        cdef const uint8_t* data = resident_cell(f, field, address.tile, address.cell, &size)
        if data != NULL:
            moment = <int64_t>load64(data)
        else:
            if fragment_cell(f, field, address.tile, address.cell, context, &span) != OK:
                return FAULT
            moment = <int64_t>load64(span.data)
            unpin(f, &span.pin)
        return DELETED if moment <= context.now else PRESENT

    cdef Found newest(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                      CellAddress* address) noexcept nogil:
        """The newest cell of a key, expired or not."""
        cdef const DigestIndex* index = <const DigestIndex*>tkv_load_acquire(<void**>&self.index)
        cdef const uint64_t* bucket
        cdef size_t i
        cdef int k, difference = 0
        cdef bint delete = False
        cdef Found found
        if index != NULL:
            bucket = index_bucket(index, c0)
            for k in range(ENTRIES):
                if bucket[k] << 1 == 0:
                    return MISSING
                if entry_matches(bucket[k], c1):
                    locate(index, entry_number(bucket[k]), self.layout.capacity, address)
                    if field >= 0:
                        fetch_ahead(self.at[address.fragment], field, address)
                    if context.now:
                        fetch_word(self.at[address.fragment], self.layout.expires, address)
                    if match_key(self.at[address.fragment], address.tile, address.cell, key, context, &difference,
                                 &delete) == FAULT:
                        return FAULT
                    if difference == 0:
                        return DELETED if delete else PRESENT
                    break
            else:
                if not bucket[0] >> 63:
                    return MISSING
        for i in range(self.n):
            address.fragment = <uint32_t>i
            if self.at[i] == NULL:
                return UNOPENED
            found = probe_fragment(self.at[i], key, c0, c1, field, context, address)
            if found != MISSING:
                return found
        return MISSING

    cdef Found probe_block(self, const KeyRef* keys, size_t n, const uint64_t* c0, const uint64_t* c1, bint defer,
                           ReadContext* context, int* found, CellAddress* addresses, size_t* at) noexcept nogil:
        """Every step fetches for all keys what the next will read, so that the misses of a block overlap: 4 times faster than
        key by key when nothing is in the processor's caches."""
        cdef const DigestIndex* index = <const DigestIndex*>tkv_load_acquire(<void**>&self.index)
        cdef const uint64_t* bucket
        cdef KeyRef stored[BLOCK]
        cdef const uint8_t* word
        cdef uint64_t size = 0
        cdef FragmentData* f
        cdef size_t i
        cdef int k
        if index == NULL:
            for i in range(n):
                if found[i] <= MISSING:
                    found[i] = UNSURE
        else:
            for i in range(n):
                tkv_prefetch(index_bucket(index, c0[i]))
            for i in range(n):
                if found[i] > MISSING:
                    continue
                bucket = index_bucket(index, c0[i])
                found[i] = UNSURE if bucket[0] >> 63 else MISSING
                for k in range(ENTRIES):
                    if bucket[k] << 1 == 0:
                        break
                    if entry_matches(bucket[k], c1[i]):
                        found[i] = CANDIDATE
                        locate(index, entry_number(bucket[k]), self.layout.capacity, &addresses[i])
                        f = self.at[addresses[i].fragment]
                        fetch_type(f, &addresses[i])
                        fetch_extent(f, 0, &addresses[i])
                        if context.now:
                            fetch_word(f, self.layout.expires, &addresses[i])
                        break
            for i in range(n):
                if found[i] == CANDIDATE:
                    f = self.at[addresses[i].fragment]
                    if resident_key(f, addresses[i].tile, addresses[i].cell, &stored[i]):
                        tkv_prefetch(stored[i].data)
                        tkv_prefetch(stored[i].data + stored[i].size)
                    else:
                        found[i] = DEFERRED if defer else UNSURE
            for i in range(n):
                if found[i] == CANDIDATE:
                    if compare_keys(&stored[i], &keys[i]) != 0:
                        found[i] = UNSURE
                    else:
                        found[i] = DELETED if stored[i].type & TOMBSTONE else PRESENT
            if context.now:
                for i in range(n):
                    if found[i] != PRESENT or addresses[i].fragment == IN_BUFFER:
                        continue
                    word = resident_cell(self.at[addresses[i].fragment], self.layout.expires, addresses[i].tile,
                                         addresses[i].cell, &size)
                    if word == NULL:
                        found[i] = DEFERRED if defer else UNSURE
                    elif <int64_t>load64(word) <= context.now:
                        found[i] = DELETED
        for i in range(n):
            if found[i] == UNSURE:
                at[0] = i
                found[i] = self.probe(&keys[i], c0[i], c1[i], -1, context, &addresses[i])
                if found[i] < 0:
                    return <Found>found[i]
        return MISSING

    cdef void resolve(self, int field, size_t n, const int* found, const CellAddress* addresses, const uint8_t** data,
                      uint64_t* sizes) noexcept nogil:
        cdef size_t i
        for i in range(n):
            if found[i] == PRESENT and addresses[i].fragment != IN_BUFFER:
                fetch_extent(self.at[addresses[i].fragment], field, &addresses[i])
        for i in range(n):
            data[i] = NULL
            if found[i] != PRESENT or addresses[i].fragment == IN_BUFFER:
                continue
            data[i] = resident_cell(self.at[addresses[i].fragment], field, addresses[i].tile, addresses[i].cell, &sizes[i])
            if data[i] != NULL:
                fetch_bytes(data[i], sizes[i])

    cdef Found get(self, const KeyRef* key, uint64_t c0, uint64_t c1, int field, ReadContext* context,
                   CellAddress* address) except *:
        cdef Found found = self.probe(key, c0, c1, field, context, address)
        while found == UNOPENED:
            self.open_fragment(address.fragment)
            found = self.probe(key, c0, c1, field, context, address)
        if found == FAULT:
            self.raise_fault(context, address.fragment)
        return found

    cdef raise_fault(self, const ReadContext* context, uint32_t fragment):
        cdef Fragment failed
        if context.status == NO_MEMORY:
            raise MemoryError
        failed = self._fragments[fragment]
        failed.raise_fault(context)

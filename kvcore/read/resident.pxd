"""Cells whose chunks are in memory, checked and decoded: found without a lock, a pin or a call.

REQUIRES, for all of these: the caller is between cache_enter() and cache_exit() of the fragment's cache, and uses pointers from
here only until cache_exit(). NULL and False mean that a chunk is not in memory, or that a cell has more than one: fragment_cell()
and the others of `chunks` handle every case.
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.base.cache cimport Chunk, cell_find, chunk_data, tkv_flag, tkv_set_flag
from tilekv.kvcore.codec.bitwidth cimport Windows, window_at
from tilekv.kvcore.format.layout cimport SLOT_OFFSETS
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.chunk_reader cimport FragmentData, SlotView, chunk_index, chunk_start, tile_cells

cdef extern from "base/atomic.h" nogil:
    void* tkv_load_acquire(void* const* at)


cdef inline const uint64_t* resident_coords(const FragmentData* f, uint64_t tile, int dimension) noexcept nogil:
    cdef const SlotView* s = &f.slots[f.nf]
    if not s.in_place:
        return NULL
    return <const uint64_t*>tkv_load_acquire(&s.ready[2 * tile + dimension])


cdef inline const uint64_t* cached_coords(const FragmentData* f, uint64_t tile, int dimension) noexcept nogil:
    """The same of a fragment that is elsewhere, whose coordinates are in the cache or nowhere."""
    cdef const SlotView* s = &f.slots[f.nf]
    cdef Chunk* chunk
    if s.in_place:
        return <const uint64_t*>tkv_load_acquire(&s.ready[2 * tile + dimension])
    chunk = <Chunk*>tkv_load_acquire(<void* const*>&s.homes[2 * tile + dimension])
    return NULL if chunk == NULL else <const uint64_t*>chunk_data(chunk)


cdef inline bint resident_extent(const FragmentData* f, int field, uint64_t tile, uint64_t j, uint64_t* start,
                                 uint64_t* end) noexcept nogil:
    """As fragment_extent()."""
    cdef const SlotView* s = &f.slots[field]
    cdef const Windows* windows
    cdef uint64_t total
    if not s.in_place:
        return False
    windows = &s.windows[tile]
    if tkv_load_acquire(<void* const*>&windows.data) == NULL:
        return False
    total = f.slots[f.nf + 1 + field].raw_size[tile]
    start[0] = window_at(windows, j)
    end[0] = window_at(windows, j + 1) if j + 1 < tile_cells(f, tile) else total
    return start[0] <= end[0] <= total


cdef inline const uint8_t* resident_bytes(const FragmentData* f, int slot, uint64_t tile, uint64_t at, uint64_t n) noexcept nogil:
    """n bytes from byte `at` of a tile of a bytes slot, if one chunk holds them; with n == 0 any pointer. A fixed slot likewise,
    with `at` and n in cells."""
    cdef const SlotView* s = &f.slots[slot]
    cdef uint64_t index, first = 0
    cdef const uint8_t* data
    cdef Chunk* chunk
    if n == 0:
        return <const uint8_t*>f.leaves
    if not s.in_place and f.cache.sets != NULL:
        # Of a store beyond the cache the cell is there more often than its chunk, whose place takes two misses to find.
        data = cell_find(f.cache, f.owner + slot, tile, at, n * f.kinds[slot].width)
        if data != NULL:
            return data
    index = chunk_index(f, slot, tile, at)
    if s.first_chunk != NULL:
        if index >= s.nchunks or (index + 1 < s.first_chunk[tile + 1] and at + n > chunk_start(s, index + 1)):
            return NULL
        first = chunk_start(s, index)
    if s.in_place:
        data = <const uint8_t*>tkv_load_acquire(&s.ready[index])
        if data == NULL:
            return NULL
    else:
        # A chunk in its home was checked against the directory: its header is a cache line that need not be touched.
        chunk = <Chunk*>tkv_load_acquire(<void* const*>&s.homes[index])
        if chunk == NULL:
            return NULL
        if not tkv_flag(&s.recent[index]):
            tkv_set_flag(&s.recent[index], 1)
        data = chunk_data(chunk)
    return data + (at - first) * f.kinds[slot].width


cdef inline const uint8_t* resident_cell(const FragmentData* f, int field, uint64_t tile, uint64_t j,
                                         uint64_t* size) noexcept nogil:
    """As fragment_cell()."""
    cdef uint64_t start = 0, end = 0
    if f.kinds[field].kind != SLOT_OFFSETS:
        size[0] = f.kinds[field].width
        return resident_bytes(f, field, tile, j, 1)
    if not resident_extent(f, field, tile, j, &start, &end):
        return NULL
    size[0] = end - start
    return resident_bytes(f, f.nf + 1 + field, tile, start, end - start)


cdef inline bint resident_key(const FragmentData* f, uint64_t tile, uint64_t j, KeyRef* key) noexcept nogil:
    """As fragment_key()."""
    cdef const uint8_t* type = resident_bytes(f, f.key_type, tile, j, 1)
    if type == NULL:
        return False
    key.type = type[0]
    key.data = resident_cell(f, 0, tile, j, &key.size)
    return key.data != NULL

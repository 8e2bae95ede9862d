from libc.math cimport sqrt
from libc.stdint cimport uint8_t
from libc.string cimport memset

from tilekv.kvcore.base.cache cimport cell_find, tkv_flag
from tilekv.kvcore.base.file cimport Wanted, file_cached, file_fetch, wanted_add, wanted_fetch, wanted_free
from tilekv.kvcore.codec.bitwidth cimport Windows, window_at
from tilekv.kvcore.codec.pipeline cimport OK
from tilekv.kvcore.format.footer cimport NOT_UNIFORM, TRAILER
from tilekv.kvcore.format.layout cimport SLOT_OFFSETS
from tilekv.kvcore.hashing.coords cimport bounded
from tilekv.kvcore.read.chunk_reader cimport (SlotView, chunk_index, chunk_start, fragment_place, is_cold, note_cached,
                                              tile_cells, uniform_of)
from tilekv.kvcore.read.resident cimport cached_coords

cdef extern from "base/atomic.h" nogil:
    void* tkv_load_acquire(void* const* at)

cdef enum:
    GUESS = 64 << 10            # raw bytes: a wider guess is not read, since the offsets will say it exactly
    AHEAD = 8 << 20             # stored bytes of a long value that are asked for at once

cdef inline bint is_at_hand(const SlotView* s, uint64_t index) noexcept nogil:
    """Whether a chunk is decoded, or in place and checked."""
    if s.in_place:
        return tkv_load_acquire(&s.ready[index]) != NULL
    return tkv_load_acquire(<void* const*>&s.homes[index]) != NULL


cdef void add_chunks(Plan* plan, int slot, uint64_t first, uint64_t last) noexcept nogil:
    """Chunks first to last of the tile, but those at the ends that are at hand."""
    cdef const SlotView* s = &plan.f.slots[slot]
    cdef uint64_t position = 0, end = 0, stored = 0, start = 0, raw = 0
    cdef Range* added
    while first < last and is_at_hand(s, first):
        first += 1
    while first < last and is_at_hand(s, last):
        last -= 1
    if plan.n == RANGES or is_at_hand(s, first):
        return
    if (fragment_place(plan.f, slot, plan.tile, first, &position, &stored, &start, &raw) != OK
            or fragment_place(plan.f, slot, plan.tile, last, &end, &stored, &start, &raw) != OK or end < position):
        return                                                  # whoever reads it will say what is wrong
    added = &plan.ranges[plan.n]
    added.slot = slot
    added.offset = position
    added.n = end + stored - position
    plan.n += 1


cdef void add_in_place(Plan* plan, int slot, const uint8_t* at, uint64_t n) noexcept nogil:
    """Bytes that are used where they are mapped and were checked: the system may have dropped them since."""
    cdef const SlotView* s = &plan.f.slots[slot]
    if n == 0 or plan.n == RANGES or s.file.base == NULL or at < s.file.base or at + n > s.file.base + s.file.size:
        return                                                  # they are in memory, and of no file
    plan.ranges[plan.n].slot = slot
    plan.ranges[plan.n].offset = at - s.file.base
    plan.ranges[plan.n].n = n
    plan.n += 1


cdef void add_span(Plan* plan, int slot, uint64_t start, uint64_t end) noexcept nogil:
    """Cells, or bytes of a bytes slot, from start to end of the tile."""
    cdef const SlotView* s = &plan.f.slots[slot]
    cdef uint64_t first, last, width
    if start >= end or s.nchunks == 0:
        return
    first = chunk_index(plan.f, slot, plan.tile, start)
    last = chunk_index(plan.f, slot, plan.tile, end - 1)
    if s.in_place and first == last < s.nchunks and is_at_hand(s, first):
        width = plan.f.kinds[slot].width
        if s.first_chunk != NULL:
            start -= chunk_start(s, first)
            end -= chunk_start(s, first)
        add_in_place(plan, slot, <const uint8_t*>s.ready[first] + start * width, (end - start) * width)
    elif first <= last < s.nchunks:
        add_chunks(plan, slot, first, last)


cdef void add_cell(Plan* plan, int slot, uint64_t start, uint64_t end) noexcept nogil:
    """add_span(), unless that is one cell and the cache has kept it."""
    cdef FragmentData* f = plan.f
    if (plan.hi != plan.lo + 1 or f.slots[slot].in_place or f.cache.sets == NULL
            or cell_find(f.cache, f.owner + slot, plan.tile, start, (end - start) * f.kinds[slot].width) == NULL):
        add_span(plan, slot, start, end)


cdef void add_field(Plan* plan, int field) noexcept nogil:
    cdef FragmentData* f = plan.f
    cdef const SlotView* s = &f.slots[field]
    cdef const SlotView* bytes
    cdef const Windows* windows
    cdef uint64_t n = tile_cells(f, plan.tile), total, size, start, end, more
    if f.kinds[field].kind != SLOT_OFFSETS:
        add_cell(plan, field, plan.lo, plan.hi)
        return
    bytes = &f.slots[f.nf + 1 + field]
    total = bytes.raw_size[plan.tile]
    size = uniform_of(bytes, plan.tile)
    if size != NOT_UNIFORM:
        add_cell(plan, f.nf + 1 + field, plan.lo * size, min(plan.hi * size, total))
        return
    if s.in_place and tkv_load_acquire(<void* const*>&s.windows[plan.tile].data) != NULL:
        windows = &s.windows[plan.tile]
        add_in_place(plan, field, <const uint8_t*>windows.data + plan.lo * windows.nbytes, (plan.hi - plan.lo) * windows.nbytes)
        if windows.nbytes == 0 or is_here(plan):
            start = window_at(windows, plan.lo)
            end = window_at(windows, plan.hi) if plan.hi < n else total
            if start <= end <= total:
                add_cell(plan, f.nf + 1 + field, start, end)
            return
    elif s.first_chunk == NULL and (s.in_place or not is_at_hand(s, plan.tile)):
        add_chunks_of_offsets(plan, field)
    # Sizes vary, so bytes stray as far again as cells do.
    more = (plan.hi - plan.lo) // 4
    start = plan.lo - min(plan.lo, more)
    end = min(plan.hi + more, n)
    if total // n * (end - start) <= GUESS:
        add_span(plan, f.nf + 1 + field, <uint64_t>(<double>total / <double>n * <double>start),
                 min(<uint64_t>(<double>total / <double>n * <double>end) + 1, total))


cdef bint is_here(const Plan* plan) noexcept nogil:
    """Whether what was added last is in memory."""
    cdef const Range* last = &plan.ranges[plan.n - 1]
    return plan.n == 0 or file_cached(&plan.f.slots[last.slot].file, last.offset, last.n)


cdef void add_chunks_of_offsets(Plan* plan, int field) noexcept nogil:
    """The offsets of the tile, of which in place there is no flag but their windows."""
    cdef uint64_t position = 0, stored = 0, start = 0, raw = 0
    if plan.n == RANGES or fragment_place(plan.f, field, plan.tile, plan.tile, &position, &stored, &start, &raw) != OK:
        return
    plan.ranges[plan.n].slot = field
    plan.ranges[plan.n].offset = position
    plan.ranges[plan.n].n = stored
    plan.n += 1


cdef void add_cells(Plan* plan, const ReadContext* context) noexcept nogil:
    """The key type, the key, and the wanted fields."""
    cdef int field
    if uniform_of(&plan.f.slots[plan.f.key_type], plan.tile) == NOT_UNIFORM:
        add_cell(plan, plan.f.key_type, plan.lo, plan.hi)
    add_field(plan, 0)
    if context.wanted != NULL:
        for field in range(plan.f.key_type - 1, 0, -1):
            if context.wanted[field]:
                add_field(plan, field)


cdef void gather(Plan* plan, Wanted* wanted) noexcept nogil:
    """What is elsewhere; of a file that was not read yet its trailer too."""
    cdef int i
    cdef const SlotView* s
    for i in range(plan.n):
        s = &plan.f.slots[plan.ranges[i].slot]
        wanted_add(wanted, &s.file, plan.ranges[i].offset, plan.ranges[i].n)
        if not tkv_flag(&s.bound):
            wanted_add(wanted, &s.file, s.size, TRAILER)


cdef void bring(Plan* plan, const ReadContext* context) noexcept nogil:
    """What of it is not here."""
    cdef int i
    cdef const Range* one
    cdef Wanted wanted
    cdef bint cold = False
    if plan.f.remote:
        if plan.n == 0:
            note_cached(plan.f)
            return
        if context.gathered != NULL:
            gather(plan, context.gathered)
            return
        memset(&wanted, 0, sizeof(wanted))
        gather(plan, &wanted)
        wanted_fetch(&wanted)
        wanted_free(&wanted)
        return
    for i in range(plan.n):
        one = &plan.ranges[i]
        if is_cold(plan.f, one.slot, one.offset, one.n):
            file_fetch(&plan.f.slots[one.slot].file, one.offset, one.n)
            cold = True
    if not cold:
        note_cached(plan.f)


cdef void search_plan(Plan* plan, FragmentData* f, uint64_t tile, uint64_t c0, const ReadContext* context) noexcept nogil:
    cdef uint64_t n = tile_cells(f, tile), low = f.leaves[4 * tile], high = f.leaves[4 * tile + 1]
    cdef double part = 0, guess, stray
    if low < c0 <= high:
        part = <double>(c0 - low) / <double>(high - low)
    guess = part * <double>(n - 1)
    # Of cells that fall where they like, so many lie before c0, give or take three deviations: 997 of 1,000 times.
    stray = 3 * sqrt(max(part * (1 - part), 1e-3) * <double>n)
    plan.f = f
    plan.tile = tile
    plan.lo = <uint64_t>max(guess - stray, 0.0)
    plan.hi = min(<uint64_t>(guess + stray) + 2, n)
    plan.n = 0
    if is_at_hand(&f.slots[f.nf], 2 * tile) and f.slots[f.nf].in_place:
        add_in_place(plan, f.nf, <const uint8_t*>f.slots[f.nf].ready[2 * tile] + 8 * plan.lo, 8 * (plan.hi - plan.lo))
    else:
        add_chunks(plan, f.nf, 2 * tile, 2 * tile)
    add_cells(plan, context)


cdef void cell_plan(Plan* plan, FragmentData* f, uint64_t tile, uint64_t cell, const ReadContext* context) noexcept nogil:
    plan.f = f
    plan.tile = tile
    plan.lo = cell
    plan.hi = cell + 1
    plan.n = 0
    add_cells(plan, context)


cdef void plan_search(FragmentData* f, uint64_t tile, uint64_t c0, const ReadContext* context) noexcept nogil:
    cdef Plan plan
    cdef uint64_t n, cell
    cdef const uint64_t* words
    if not f.distant:
        return
    search_plan(&plan, f, tile, c0, context)
    words = cached_coords(f, tile, 0)
    if words != NULL and (not f.slots[f.nf].in_place or (
            plan.n and plan.ranges[0].slot == f.nf
            and file_cached(&f.slots[f.nf].file, plan.ranges[0].offset, plan.ranges[0].n))):
        # The cell can be found without a wait, and of it less is read than of where it must be.
        n = tile_cells(f, tile)
        cell = bounded(words, 1, 0, n, f.leaves[4 * tile], f.leaves[4 * tile + 1], c0)
        if cell == n or words[cell] != c0:
            return
        cell_plan(&plan, f, tile, cell, context)
    bring(&plan, context)


cdef void plan_cell(FragmentData* f, uint64_t tile, uint64_t cell, const ReadContext* context) noexcept nogil:
    cdef Plan plan
    if f.distant:
        cell_plan(&plan, f, tile, cell, context)
        bring(&plan, context)


cdef void plan_bytes(FragmentData* f, int slot, uint64_t tile, uint64_t start, uint64_t n) noexcept nogil:
    cdef Plan plan
    if not f.slots[slot].file.distant:
        return
    plan.f = f
    plan.tile = tile
    plan.n = 0
    add_span(&plan, slot, start, start + n)
    if plan.n and is_cold(f, slot, plan.ranges[0].offset, plan.ranges[0].n):
        file_fetch(&f.slots[slot].file, plan.ranges[0].offset, min(plan.ranges[0].n, <uint64_t>AHEAD))

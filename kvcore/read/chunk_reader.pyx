from libc.errno cimport errno
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcmp, memcpy

from tilekv.kvcore.base.cache cimport (PASSING, cache_enter, cache_exit, cache_find, cache_has_room, cache_insert, cache_release,
                                       cell_find, cell_keep, chunk_data, chunk_free, chunk_new, tkv_flag, tkv_set_flag)
from tilekv.kvcore.base.file cimport (FILE_GONE, FILE_IO, FILE_NO_MEMORY, FILE_OK, FILE_UNFETCHED, FileStatus, file_bytes,
                                      file_fetch, file_follow, file_renew)
from tilekv.kvcore.base.wire cimport load32, load64, out_free, out_room
from tilekv.kvcore.codec.chunk cimport PLAIN_HEADER, check_chunk, decode_chunk, open_windows, plain_chunk
from tilekv.kvcore.codec.pipeline cimport CORRUPT, NO_MEMORY, OK, codec_acquire, codec_release, window_at
from tilekv.kvcore.format.footer cimport TRAILER, trailer_fits
from tilekv.kvcore.format.layout cimport COORDS_TILE, SLOT_BYTES, SLOT_COORDS, SLOT_OFFSETS, TILE_COUNT, Slot, chunk_fits


cdef extern from "base/atomic.h" nogil:
    void* tkv_load_acquire(void* const* at)
    void tkv_store_release(void** at, void* value)

cdef extern from "base/lock.h" nogil:
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)


cdef enum:
    PAGE = 4096                 # bytes, the least that systems have
    LARGE = 8                   # a chunk is large beside an eighth of it


cdef void context_close(ReadContext* context, Pool* codecs) noexcept nogil:
    if context.codec != NULL:
        codec_release(codecs, context.codec)
        context.codec = NULL
    out_free(&context.stored)
    out_free(&context.joined)


cdef void plain_windows(Windows* windows, const uint8_t* words) noexcept nogil:
    windows.minima = words
    windows.data = words
    windows.shift = 63
    windows.nbytes = 8


cdef bint offsets_ascend(const Windows* windows, uint64_t n, uint64_t total) noexcept nogil:
    cdef uint64_t i, offset, before = 0
    for i in range(n):
        offset = window_at(windows, i)
        if offset < before or offset > total or (i == 0 and offset):
            return False
        before = offset
    return True


cdef void find_stride(Windows* windows, uint64_t n, uint64_t total) noexcept nogil:
    """When all cells have one size, as keys often do, their offsets are multiples of it: they are computed from then on instead
    of read, which saves a cache miss a lookup."""
    cdef uint64_t i, stride = total // n
    for i in range(n):
        if window_at(windows, i) != i * stride:
            return
    if n * stride == total:
        windows.stride = stride
        windows.nbytes = 0


cdef const uint8_t* uniform_types(FragmentData* f, uint64_t tile) noexcept nogil:
    """The key types of a tile of which the metadata says that they are one, if the same is at hand; else NULL."""
    cdef uint32_t type = uniform_of(&f.slots[f.key_type], tile)
    cdef const uint8_t* same = <const uint8_t*>tkv_load_acquire(&f.same_types)
    return same if same != NULL and type == same[0] else NULL


cdef const uint8_t* shared_types(FragmentData* f, uint64_t tile, const uint8_t* types) noexcept nogil:
    """Where to read the key types of a tile. In most tiles all keys have one type, the same as in the other tiles. For such a
    tile the types of the first full one are read instead: those lines stay in the processor's cache."""
    cdef uint64_t n = tile_cells(f, tile)
    cdef const uint8_t* same = <const uint8_t*>tkv_load_acquire(&f.same_types)
    if memcmp(types, types + 1, n - 1) != 0:
        return types
    if same != NULL:
        return same if same[0] == types[0] else types
    if n == f.capacity:
        tkv_store_release(&f.same_types, <void*>types)
    return types


cdef Status fail(ReadContext* context, Status status, int slot, uint64_t offset) noexcept nogil:
    context.status = status
    context.slot = slot
    context.offset = offset
    return status


cdef Status fragment_place(FragmentData* f, int slot, uint64_t tile, uint64_t index, uint64_t* position, uint64_t* stored,
                           uint64_t* start, uint64_t* raw) noexcept nogil:
    """Where a chunk is and what it holds, checked against the file and the tile: nothing here is trusted."""
    cdef const SlotView* s = &f.slots[slot]
    cdef const Slot* kind = &f.kinds[slot]
    cdef uint64_t cells = tile_cells(f, tile)
    cdef uint64_t begin = s.tile_at[tile]
    cdef uint64_t end = s.tile_at[tile + 1] if tile + 1 < f.ntiles else s.size
    cdef uint64_t total = s.raw_size[tile] if kind.kind == SLOT_BYTES else cells    # in units of `start`
    cdef uint64_t at, after, first, following, unit = kind.width
    if end > s.size or begin > end:
        return CORRUPT
    if kind.kind == SLOT_COORDS:
        if end - begin != COORDS_TILE + 16 * cells:
            return CORRUPT
        stored[0] = PLAIN_HEADER + 8 * cells
        position[0] = begin + TILE_COUNT + (index & 1) * stored[0]
        start[0] = 0
        raw[0] = 8 * cells
        return OK
    if s.first_chunk == NULL:
        at = TILE_COUNT
        first = 0
        after = end - begin
        following = total
    else:
        if index < s.first_chunk[tile] or index >= s.first_chunk[tile + 1] or s.first_chunk[tile + 1] > s.nchunks:
            return CORRUPT
        if s.width == 4:
            first = load32(s.chunks + 8 * index)
            at = load32(s.chunks + 8 * index + 4)
            following = load32(s.chunks + 8 * index + 8) if index + 1 < s.first_chunk[tile + 1] else total
            after = load32(s.chunks + 8 * index + 12) if index + 1 < s.first_chunk[tile + 1] else end - begin
        else:
            first = load64(s.chunks + 16 * index)
            at = load64(s.chunks + 16 * index + 8)
            following = load64(s.chunks + 16 * index + 16) if index + 1 < s.first_chunk[tile + 1] else total
            after = load64(s.chunks + 16 * index + 24) if index + 1 < s.first_chunk[tile + 1] else end - begin
    if after > end - begin or at >= after or following <= first or following > total:
        return CORRUPT
    position[0] = begin + at
    stored[0] = after - at
    start[0] = first
    if following - first > (<uint64_t>1 << 32) // unit:
        return CORRUPT
    raw[0] = (following - first) * unit
    return OK if chunk_fits(kind, raw[0], stored[0]) else CORRUPT


cdef inline Status status_of(FileStatus got) noexcept nogil:
    if got == FILE_GONE:
        return <Status>READ_GONE
    if got == FILE_UNFETCHED:
        return <Status>READ_UNFETCHED
    if got == FILE_IO:
        return <Status>READ_FAILED
    return NO_MEMORY if got == FILE_NO_MEMORY else CORRUPT


cdef Status fragment_bytes(FragmentData* f, int slot, uint64_t offset, uint64_t n, ReadContext* context,
                           const uint8_t** at) noexcept nogil:
    cdef FileStatus got = file_bytes(&f.slots[slot].file, offset, n, &context.stored, at)
    if got == FILE_OK:
        return OK
    context.error = errno if got == FILE_IO else 0
    return fail(context, status_of(got), slot, offset)


cdef Status renewed(FragmentData* f, int slot, uint64_t offset, uint64_t n, ReadContext* context) noexcept nogil:
    """OK when n bytes that fail their check, perhaps damaged on their way, have come once more. Else what is wrong."""
    cdef FileStatus got = file_renew(&f.slots[slot].file, offset, n)
    return OK if got == FILE_OK else fail(context, status_of(got), slot, offset)


cdef Status fragment_bound(FragmentData* f, int slot, ReadContext* context) noexcept nogil:
    cdef SlotView* s = &f.slots[slot]
    cdef const uint8_t* at = NULL
    cdef Status status
    if tkv_flag(&s.bound):
        return OK
    status = fragment_bytes(f, slot, s.size, TRAILER, context, &at)
    if status == OK and not trailer_fits(at, f.uuid, slot):
        status = renewed(f, slot, s.size, TRAILER, context)
        if status == OK:
            status = fragment_bytes(f, slot, s.size, TRAILER, context, &at)
        if status == OK and not trailer_fits(at, f.uuid, slot):
            status = fail(context, CORRUPT, slot, s.size)
    if status != OK:
        return status
    tkv_set_flag(&s.bound, True)                # every thread that looks finds the same
    return OK


cdef Status stored_chunk(FragmentData* f, int slot, uint64_t tile, uint64_t index, ReadContext* context, const uint8_t** at,
                         uint64_t* stored, uint64_t* start, uint64_t* raw) noexcept nogil:
    cdef SlotView* s = &f.slots[slot]
    cdef uint64_t position = 0
    cdef Status status = fragment_place(f, slot, tile, index, &position, stored, start, raw)
    if status != OK:
        return fail(context, status, slot, s.tile_at[tile])
    status = fragment_bound(f, slot, context)
    if status != OK:
        return status
    context.slot = slot
    context.offset = position
    if s.file.distant and s.file.file == NULL:                  # the system reads ahead by itself of what is read by pread
        file_follow(&s.file, s.streams, position, stored[0])
        if (s.file.remote == NULL and (position & (PAGE - 1)) + stored[0] > PAGE and may_be_cold(f)
                and is_cold(f, slot, position, stored[0])):
            file_fetch(&s.file, position, stored[0])            # page by page it would be waited for several times
    return fragment_bytes(f, slot, position, stored[0], context, at)


cdef Status fragment_decode(FragmentData* f, int slot, uint64_t tile, uint64_t index, ReadContext* context, uint8_t* into,
                            uint64_t raw) noexcept nogil:
    """Chunk `index`, whose raw size the caller has from fragment_place(), decoded into `into`."""
    cdef const uint8_t* at = NULL
    cdef uint64_t stored = 0, start = 0, size = 0
    cdef Status status = stored_chunk(f, slot, tile, index, context, &at, &stored, &start, &size)
    if status != OK:
        return status
    if size != raw:
        return fail(context, CORRUPT, slot, context.offset)
    if context.codec == NULL:
        context.codec = codec_acquire(f.codecs)
        if context.codec == NULL:
            return fail(context, NO_MEMORY, slot, context.offset)
    status = decode_chunk(&f.kinds[slot].pipeline, context.codec, at, stored, into, raw, True)
    if status == CORRUPT:
        status = renewed(f, slot, context.offset, stored, context)
        if status == OK:
            status = fragment_bytes(f, slot, context.offset, stored, context, &at)
        if status != OK:
            return status
        status = decode_chunk(&f.kinds[slot].pipeline, context.codec, at, stored, into, raw, True)
    return status if status == OK else fail(context, status, slot, context.offset)


cdef Status fragment_chunk(FragmentData* f, int slot, uint64_t tile, uint64_t index, uint64_t wanted, ReadContext* context,
                           Pin* pin) noexcept nogil:
    cdef SlotView* s = &f.slots[slot]
    cdef const uint8_t* at = NULL
    cdef uint64_t stored = 0, position = 0
    cdef Windows windows
    cdef Chunk* chunk
    cdef Status status
    pin.chunk = NULL
    # What has been checked or decoded before costs a load or two; where it stands in the file is not looked up again.
    if not s.in_place:
        chunk = cache_find(f.cache, &s.homes[index])
        if chunk != NULL:
            pin.chunk = chunk
            pin.data = chunk_data(chunk)
            pin.size = chunk.size
            pin.start = chunk.start
            return OK
    elif s.first_chunk == NULL:
        pin.data = <const uint8_t*>tkv_load_acquire(&s.ready[index])
        if pin.data != NULL:
            pin.start = 0
            pin.size = s.raw_size[tile] if s.raw_size != NULL else tile_cells(f, tile) * f.kinds[slot].width
            return OK
        if slot == f.key_type:
            pin.data = uniform_types(f, tile)
            if pin.data != NULL:
                pin.start = 0
                pin.size = tile_cells(f, tile)
                tkv_store_release(&s.ready[index], <void*>pin.data)
                return OK
    status = fragment_place(f, slot, tile, index, &position, &stored, &pin.start, &pin.size)
    if status != OK:
        return fail(context, status, slot, s.tile_at[tile])
    if s.in_place:
        pin.data = <const uint8_t*>tkv_load_acquire(&s.ready[index])
        if pin.data != NULL:
            return OK
        status = stored_chunk(f, slot, tile, index, context, &at, &stored, &pin.start, &pin.size)
        if status != OK:
            return status
        pin.data = plain_chunk(at, stored, pin.size) if check_chunk(at, stored) == OK else NULL
        if pin.data == NULL:
            return fail(context, CORRUPT, slot, context.offset)
        if slot == f.key_type and s.first_chunk == NULL:
            pin.data = shared_types(f, tile, pin.data)
        tkv_store_release(&s.ready[index], <void*>pin.data)
        return OK
    chunk = chunk_new(f.cache, pin.size)
    if chunk == NULL:
        return fail(context, NO_MEMORY, slot, position)
    chunk.start = pin.start
    status = fragment_decode(f, slot, tile, index, context, chunk_data(chunk), pin.size)
    if status == OK and f.kinds[slot].kind == SLOT_OFFSETS:
        plain_windows(&windows, chunk_data(chunk))
        if not offsets_ascend(&windows, pin.size // 8, f.slots[f.nf + 1 + slot].raw_size[tile]):
            status = fail(context, CORRUPT, slot, position)
    if status != OK:
        chunk_free(f.cache, chunk)
        return status
    pin.chunk = cache_insert(f.cache, chunk, &s.homes[index], &s.recent[index], wanted <= pin.size // LARGE)
    pin.data = chunk_data(pin.chunk)
    return OK


cdef void unpin(FragmentData* f, Pin* pin) noexcept nogil:
    if pin.chunk != NULL:
        cache_release(f.cache, pin.chunk)
        pin.chunk = NULL


cdef Status fragment_chunk_at(FragmentData* f, int slot, uint64_t tile, uint64_t at, uint64_t wanted, ReadContext* context,
                              Pin* pin) noexcept nogil:
    cdef Status status = fragment_chunk(f, slot, tile, chunk_index(f, slot, tile, at), wanted, context, pin)
    if status == OK and not pin.start <= at < pin.start + pin.size // f.kinds[slot].width:
        unpin(f, pin)
        return fail(context, CORRUPT, slot, f.slots[slot].tile_at[tile])
    return status


cdef Status fragment_coords(FragmentData* f, uint64_t tile, int dimension, ReadContext* context, Pin* pin) noexcept nogil:
    return fragment_chunk(f, f.nf, tile, 2 * tile + dimension, UINT64_MAX, context, pin)


cdef void keep_windows(FragmentData* f, Windows* kept, const Windows* windows) noexcept nogil:
    tkv_lock_acquire(f.cache.lock)
    if kept.data == NULL:                                       # else another thread found the same, and somebody may read it
        kept.minima = windows.minima
        kept.stride = windows.stride
        kept.shift = windows.shift
        kept.nbytes = windows.nbytes
        tkv_store_release(<void**>&kept.data, <void*>windows.data)
    tkv_lock_release(f.cache.lock)


cdef Status fragment_offsets(FragmentData* f, int field, uint64_t tile, ReadContext* context, Windows* windows,
                             Pin* pin) noexcept nogil:
    cdef SlotView* s = &f.slots[field]
    cdef Windows* kept = &s.windows[tile]                       # in place only
    cdef const uint8_t* at = NULL
    cdef uint64_t stored = 0, start = 0, raw = 0
    cdef Status status
    pin.chunk = NULL
    if s.in_place:
        windows.data = <const uint8_t*>tkv_load_acquire(<void**>&kept.data)
        if windows.data != NULL:
            windows[0] = kept[0]
            return OK
    if uniform_of(&f.slots[f.nf + 1 + field], tile) != NOT_UNIFORM:
        windows.minima = windows.data = <const uint8_t*>f.leaves    # any valid pointer: nothing is read through it
        windows.stride = uniform_of(&f.slots[f.nf + 1 + field], tile)
        windows.shift = 63
        windows.nbytes = 0
        if s.in_place:
            keep_windows(f, kept, windows)
        return OK
    if s.first_chunk != NULL:
        return fail(context, CORRUPT, field, s.tile_at[tile])      # offsets are one chunk a tile
    if s.in_place:
        status = stored_chunk(f, field, tile, tile, context, &at, &stored, &start, &raw)
        if status != OK:
            return status
        status = check_chunk(at, stored)
        if status == OK and f.kinds[field].pipeline.n:
            status = open_windows(at, stored, raw, windows)
        elif status == OK:
            at = plain_chunk(at, stored, raw)
            status = OK if at != NULL else CORRUPT
            plain_windows(windows, at)
        if status == OK and not offsets_ascend(windows, raw // 8, f.slots[f.nf + 1 + field].raw_size[tile]):
            status = CORRUPT
        if status != OK:
            return fail(context, status, field, context.offset)
        find_stride(windows, raw // 8, f.slots[f.nf + 1 + field].raw_size[tile])
        keep_windows(f, kept, windows)
        return OK
    status = fragment_chunk(f, field, tile, tile, UINT64_MAX, context, pin)
    plain_windows(windows, pin.data)
    return status


cdef Status fragment_extent(FragmentData* f, int field, uint64_t tile, uint64_t j, ReadContext* context, uint64_t* start,
                            uint64_t* end) noexcept nogil:
    cdef Windows windows
    cdef Pin pin
    cdef uint64_t total = f.slots[f.nf + 1 + field].raw_size[tile]
    cdef Status status = fragment_offsets(f, field, tile, context, &windows, &pin)
    if status != OK:
        return status
    start[0] = window_at(&windows, j)
    end[0] = window_at(&windows, j + 1) if j + 1 < tile_cells(f, tile) else total
    unpin(f, &pin)
    if start[0] > end[0] or end[0] > total:
        return fail(context, CORRUPT, field, f.slots[field].tile_at[tile])
    return OK


cdef Status fragment_copy(FragmentData* f, int slot, uint64_t tile, uint64_t start, uint64_t n, ReadContext* context,
                          uint8_t* out) noexcept nogil:
    cdef const SlotView* s = &f.slots[slot]
    cdef uint64_t index, position = 0, stored = 0, first = 0, raw = 0, skip, part
    cdef bint fits = n >= DIRECT and n <= f.cache.budget // 2
    cdef bint keep = fits and cache_has_room(f.cache, n)
    cdef Pin pin
    cdef Status status
    if n == 0:
        return OK
    index = chunk_index(f, slot, tile, start)
    while True:
        status = fragment_place(f, slot, tile, index, &position, &stored, &first, &raw)
        if status != OK or not first <= start < first + raw:
            return fail(context, CORRUPT, slot, s.tile_at[tile])
        skip = start - first
        part = min(raw - skip, n)
        # A copy more is a tenth of the decoding, but what is read once must not drive out what is read again and again. A chunk
        # that went past the cache has its flag set without a home: when it is read again it is cached as any other.
        if (part == raw and raw >= DIRECT and not keep and not chunk_at_hand(f, slot, index)
                and not (fits and tkv_flag(&s.recent[index]))):
            status = fragment_decode(f, slot, tile, index, context, out, raw)
            tkv_set_flag(&s.recent[index], 1)
        else:
            status = fragment_chunk(f, slot, tile, index, UINT64_MAX, context, &pin)
            if status == OK:
                memcpy(out, pin.data + skip, part)
                unpin(f, &pin)
        if status != OK:
            return status
        out += part
        start += part
        n -= part
        if n == 0:
            return OK
        index += 1


cdef void keep_cell(FragmentData* f, int slot, uint64_t tile, uint64_t at, const Pin* pin, const uint8_t* data,
                    uint64_t size) noexcept nogil:
    if pin.chunk != NULL and pin.chunk.ring == PASSING:
        cell_keep(f.cache, f.owner + slot, tile, at, data, size)


cdef bint copy_cell(FragmentData* f, int slot, uint64_t tile, uint64_t at, uint64_t size, uint8_t* out) noexcept nogil:
    cdef const uint8_t* data
    cdef int epoch
    if f.cache.sets == NULL:
        return False
    epoch = cache_enter(f.cache)
    data = cell_find(f.cache, f.owner + slot, tile, at, size)
    if data != NULL:
        memcpy(out, data, size)
    cache_exit(f.cache, epoch)
    return data != NULL


cdef Status fragment_cell(FragmentData* f, int field, uint64_t tile, uint64_t j, ReadContext* context, Span* span) noexcept nogil:
    cdef uint64_t start = 0, end = 0
    cdef int slot = field
    cdef uint32_t width = f.kinds[field].width
    cdef Status status
    cdef uint8_t* into
    span.pin.chunk = NULL
    if f.kinds[field].kind != SLOT_OFFSETS:
        status = fragment_chunk_at(f, field, tile, j, width, context, &span.pin)
        if status == OK:
            span.data = span.pin.data + (j - span.pin.start) * width
            span.size = width
            keep_cell(f, field, tile, j, &span.pin, span.data, width)
        return status
    status = fragment_extent(f, field, tile, j, context, &start, &end)
    if status != OK:
        return status
    span.size = end - start
    if span.size == 0:
        span.data = <const uint8_t*>f.leaves              # any valid pointer: nothing is read through it
        return OK
    slot = f.nf + 1 + field
    status = fragment_chunk_at(f, slot, tile, start, span.size, context, &span.pin)
    if status != OK:
        return status
    if end <= span.pin.start + span.pin.size:
        span.data = span.pin.data + (start - span.pin.start)
        keep_cell(f, slot, tile, start, &span.pin, span.data, span.size)
        return OK
    unpin(f, &span.pin)
    context.joined.size = 0
    into = out_room(&context.joined, span.size)
    if into == NULL:
        return fail(context, NO_MEMORY, slot, 0)
    span.data = into
    return fragment_copy(f, slot, tile, start, span.size, context, into)


cdef Status fragment_key(FragmentData* f, uint64_t tile, uint64_t j, ReadContext* context, Span* span,
                         KeyRef* key) noexcept nogil:
    cdef Status status = fragment_cell(f, f.key_type, tile, j, context, span)
    if status != OK:
        return status
    key.type = span.data[0]
    unpin(f, &span.pin)
    status = fragment_cell(f, 0, tile, j, context, span)
    key.data = span.data
    key.size = span.size
    return status


cdef bint chunk_at_hand(const FragmentData* f, int slot, uint64_t index) noexcept nogil:
    return f.slots[slot].in_place or tkv_load_acquire(<void* const*>&f.slots[slot].homes[index]) != NULL

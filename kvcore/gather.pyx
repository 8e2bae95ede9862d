from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tilekv.kvcore.buffer cimport Entry
from tilekv.kvcore.codec cimport CORRUPT, NO_MEMORY, OK, window_at
from tilekv.kvcore.fragment cimport (DIRECT, FragmentData, fragment_chunk_at, fragment_copy, fragment_offsets, tile_cells,
                                     unpin)
from tilekv.kvcore.search cimport IN_BUFFER
from tilekv.kvcore.wire cimport out64, out_free, out_room


cdef Status lanes_open(Lanes* lanes, View view) noexcept nogil:
    memset(lanes, 0, sizeof(Lanes))
    lanes.n = view.n
    lanes.at = lanes.few
    if view.n > FEW_LANES:
        lanes.at = <Lane*>calloc(view.n, sizeof(Lane))
        if lanes.at == NULL:
            return NO_MEMORY
    return OK


cdef void lanes_close(Lanes* lanes, View view) noexcept nogil:
    cdef size_t i
    if lanes.at == NULL:
        return
    for i in range(lanes.n):
        if lanes.at[i].has_windows:
            unpin(view.at[i], &lanes.at[i].windows_pin)
        if lanes.at[i].has_chunk:
            unpin(view.at[i], &lanes.at[i].chunk)
    if lanes.at != lanes.few:
        free(lanes.at)
    lanes.at = NULL


cdef Status lane_extent(Lanes* lanes, View view, Buffer buffer, int field, const Place* place, Access* access,
                        const uint8_t** data, uint64_t* start, uint64_t* end) noexcept nogil:
    cdef Entry entry
    cdef FragmentData* f
    cdef Lane* lane
    cdef uint64_t total
    cdef Status status
    data[0] = NULL
    start[0] = 0
    if place.fragment == IN_BUFFER:
        entry.record = <const uint8_t*>place.tile
        entry.key_size = <uint32_t>place.cell
        data[0] = entry.record
        end[0] = entry.key_size
        if field:
            buffer.field(&entry, field, data, end)
        return OK
    lanes.failed_in = place.fragment
    f = view.at[place.fragment]
    lane = &lanes.at[place.fragment]
    if not lane.has_windows or lane.windows_tile != place.tile:
        if lane.has_windows:
            unpin(f, &lane.windows_pin)
        lane.has_windows = False
        status = fragment_offsets(f, field, place.tile, access, &lane.windows, &lane.windows_pin)
        if status != OK:
            return status
        lane.has_windows = True
        lane.windows_tile = place.tile
    total = f.slots[f.nf + 1 + field].raw_size[place.tile]
    start[0] = window_at(&lane.windows, place.cell)
    end[0] = window_at(&lane.windows, place.cell + 1) if place.cell + 1 < tile_cells(f, place.tile) else total
    if start[0] > end[0] or end[0] > total:
        access.status = CORRUPT
        access.slot = field
        access.offset = f.slots[field].tile_at[place.tile]
        return CORRUPT
    return OK


cdef Status lane_copy(Lanes* lanes, View view, int field, const Place* place, uint64_t start, uint64_t size, Access* access,
                      uint8_t* out) noexcept nogil:
    cdef FragmentData* f = view.at[place.fragment]
    cdef Lane* lane = &lanes.at[place.fragment]
    cdef uint32_t width = f.kinds[field].width
    cdef bint var = view.layout.is_var(field)
    cdef int slot = view.layout.bytes_slot(field) if var else field
    cdef uint64_t here
    cdef Status status
    if size == 0:
        return OK
    lanes.failed_in = place.fragment
    if var and size > DIRECT:
        return fragment_copy(f, slot, place.tile, start, size, access, out)
    if not (lane.has_chunk and lane.chunk_tile == place.tile and lane.chunk.start <= start
            and start < lane.chunk.start + lane.chunk.size // (1 if var else width)):
        if lane.has_chunk:
            unpin(f, &lane.chunk)
        lane.has_chunk = False
        status = fragment_chunk_at(f, slot, place.tile, start, access, &lane.chunk)
        if status != OK:
            return status
        lane.has_chunk = True
        lane.chunk_tile = place.tile
    if not var:
        memcpy(out, lane.chunk.data + (start - lane.chunk.start) * width, size)
        return OK
    here = lane.chunk.start + lane.chunk.size - start
    if size > here:                             # a cell of several pieces that begins or ends in this one
        return fragment_copy(f, slot, place.tile, start, size, access, out)
    memcpy(out, lane.chunk.data + (start - lane.chunk.start), size)
    return OK


cdef void gathered_free(Gathered* column) noexcept nogil:
    out_free(&column.data)
    out_free(&column.ends)


cdef Status measure(View view, Buffer buffer, int field, const Place* places, size_t n, uint64_t limit, Access* access,
                    size_t* cells, uint32_t* fragment) noexcept nogil:
    cdef Lanes lanes
    cdef const uint8_t* data = NULL
    cdef uint64_t start = 0, end = 0, total = 0
    cdef size_t i
    cdef Status status = lanes_open(&lanes, view)
    if status != OK:
        access.status = status
        return status
    for i in range(n):
        status = lane_extent(&lanes, view, buffer, field, &places[i], access, &data, &start, &end)
        if status != OK:
            break
        total += end - start
        if total > limit and i:
            n = i
            break
    lanes_close(&lanes, view)
    fragment[0] = lanes.failed_in
    cells[0] = n
    return status


cdef Status gather(View view, Buffer buffer, int field, const Place* places, const int* present, size_t n, uint64_t limit,
                   Access* access, Gathered* column, size_t* done, uint32_t* fragment) noexcept nogil:
    cdef Lanes lanes
    cdef bint var = view.layout.is_var(field)
    cdef uint64_t start = 0, size, end = 0
    cdef const uint8_t* data = NULL
    cdef uint8_t* out
    cdef const Place* place
    cdef Entry entry
    cdef bint absent
    cdef size_t i
    cdef Status status = lanes_open(&lanes, view)
    if status != OK:
        access.status = status
        return status
    for i in range(n):
        place = &places[i]
        data = NULL
        start = 0
        size = 0 if var else view.layout.slots[field].width
        absent = present != NULL and present[i] != 1
        if absent:
            pass
        elif var:
            status = lane_extent(&lanes, view, buffer, field, place, access, &data, &start, &end)
            if status != OK:
                break
            size = end - start
        elif place.fragment == IN_BUFFER:
            entry.record = <const uint8_t*>place.tile
            entry.key_size = <uint32_t>place.cell
            buffer.field(&entry, field, &data, &size)
        else:
            start = place.cell
        if var and i and column.data.size + size > limit:
            n = i
            break
        out = out_room(&column.data, size)
        if out == NULL:
            status = NO_MEMORY
        elif data != NULL:
            memcpy(out, data, size)
        elif absent:
            memset(out, 0, size)
        else:
            status = lane_copy(&lanes, view, field, place, start, size, access, out)
        column.data.size += size
        if status == OK and var and out64(&column.ends, column.data.size) < 0:
            status = NO_MEMORY
        if status != OK:
            break
    lanes_close(&lanes, view)
    fragment[0] = lanes.failed_in
    done[0] = n
    if status == NO_MEMORY:
        access.status = NO_MEMORY
    return status

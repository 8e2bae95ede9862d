from libc.string cimport memcpy, memset

from tilekv.kvcore.buffer cimport Entry
from tilekv.kvcore.codec cimport NO_MEMORY, OK
from tilekv.kvcore.fragment cimport (DIRECT, FragmentData, Pin, fragment_chunk_at, fragment_copy, fragment_extent,
                                     unpin)
from tilekv.kvcore.layout cimport Slot
from tilekv.kvcore.search cimport IN_BUFFER
from tilekv.kvcore.wire cimport out64, out_free, out_room


cdef void gathered_free(Gathered* column) noexcept nogil:
    out_free(&column.data)
    out_free(&column.ends)


cdef Status cell_extent(View view, Buffer layout_of, int field, const Place* place, Access* access, const uint8_t** data,
                        uint64_t* start, uint64_t* end) noexcept nogil:
    """A var cell: in the buffer *data and [0, end); in a fragment NULL and [start, end) of its tile's bytes."""
    cdef Entry entry
    data[0] = NULL
    start[0] = 0
    if place.fragment != IN_BUFFER:
        return fragment_extent(view.at[place.fragment], field, place.tile, place.cell, access, start, end)
    entry.record = <const uint8_t*>place.tile
    entry.key_size = <uint32_t>place.cell
    data[0] = entry.record
    end[0] = entry.key_size
    if field:
        layout_of.field(&entry, field, data, end)
    return OK


cdef Status measure(View view, Buffer layout_of, int field, const Place* places, size_t n, uint64_t limit, Access* access,
                    size_t* cells, uint32_t* fragment) noexcept nogil:
    cdef const uint8_t* data = NULL
    cdef uint64_t start = 0, end = 0, total = 0
    cdef size_t i
    cdef Status status
    for i in range(n):
        fragment[0] = places[i].fragment
        status = cell_extent(view, layout_of, field, &places[i], access, &data, &start, &end)
        if status != OK:
            return status
        total += end - start
        if total > limit and i:
            n = i
            break
    cells[0] = n
    return OK


cdef Status gather(View view, Buffer layout_of, int field, const Place* places, const int* present, size_t n, uint64_t limit,
                   Access* access, Gathered* column, size_t* done, uint32_t* fragment) noexcept nogil:
    """Neighbours in a chunk share one pin: a scan takes the cache's lock once a chunk, not once a cell."""
    cdef const Slot* kind = &view.layout.slots[field]
    cdef bint var = view.layout.is_var(field)
    cdef int slot = view.layout.bytes_slot(field) if var else field
    cdef uint64_t start = 0, end = 0, size, pinned_tile = 0
    cdef const uint8_t* data = NULL
    cdef uint8_t* out
    cdef const Place* place
    cdef FragmentData* f
    cdef FragmentData* pinned = NULL
    cdef Pin pin
    cdef Entry entry
    cdef Status status = OK
    cdef size_t i
    for i in range(n):
        place = &places[i]
        data = NULL
        size = 0 if var else kind.width
        f = NULL
        if present != NULL and present[i] != 1:
            pass
        elif var:
            fragment[0] = place.fragment
            status = cell_extent(view, layout_of, field, place, access, &data, &start, &end)
            if status != OK:
                break
            size = end - start
            f = NULL if data != NULL else view.at[place.fragment]
        elif place.fragment == IN_BUFFER:
            entry.record = <const uint8_t*>place.tile
            entry.key_size = <uint32_t>place.cell
            layout_of.field(&entry, field, &data, &size)
        else:
            fragment[0] = place.fragment
            f = view.at[place.fragment]
            start = place.cell
        if var and i and column.data.size + size > limit:
            n = i
            break
        out = out_room(&column.data, size)
        if out == NULL:
            status = NO_MEMORY
            break
        if f == NULL:
            if data != NULL:
                memcpy(out, data, size)
            else:
                memset(out, 0, size)
        elif size:
            if pinned == NULL or pinned != f or pinned_tile != place.tile or start < pin.start or (
                    start >= pin.start + pin.size // (1 if var else kind.width)):
                if pinned != NULL:
                    unpin(pinned, &pin)
                pinned = NULL
                if size <= DIRECT or not var:
                    status = fragment_chunk_at(f, slot, place.tile, start, access, &pin)
                    if status != OK:
                        break
                    pinned = f
                    pinned_tile = place.tile
            if not var:
                memcpy(out, pin.data + (start - pin.start) * kind.width, size)
            elif pinned != NULL and end <= pin.start + pin.size:
                memcpy(out, pin.data + (start - pin.start), size)
            else:
                status = fragment_copy(f, slot, place.tile, start, size, access, out)
                if status != OK:
                    break
        column.data.size += size
        if var and out64(&column.ends, column.data.size) < 0:
            status = NO_MEMORY
            break
    if pinned != NULL:
        unpin(pinned, &pin)
    done[0] = n if status == OK else 0
    if status == NO_MEMORY:
        access.status = NO_MEMORY
    return status

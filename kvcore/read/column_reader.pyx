from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tilekv.kvcore.base.wire cimport load16, load32, load64, out_free, out_room
from tilekv.kvcore.codec.pipeline cimport CORRUPT, NO_MEMORY, OK, WINDOW_HEADER, window_at
from tilekv.kvcore.read.address cimport IN_BUFFER, NOWHERE, entry_at
from tilekv.kvcore.read.chunk_reader cimport (DIRECT, FragmentData, chunk_at_hand, chunk_index, copy_cell, fragment_chunk,
                                              fragment_decode, fragment_offsets, fragment_place, keep_cell, tile_cells, unpin)
from tilekv.kvcore.write.memtable cimport Entry


cdef void selection_advance(Selection* selection, size_t n) noexcept nogil:
    selection.n -= n
    n += selection.skip
    while selection.n and n >= selection.runs.n:
        n -= selection.runs.n
        selection.runs += 1
    selection.skip = n


cdef Status cursors_open(FieldCursors* cursors, Snapshot snapshot, bint keep) noexcept nogil:
    memset(cursors, 0, sizeof(FieldCursors))
    cursors.n = snapshot.n
    cursors.keep = keep
    cursors.at = cursors.few
    if snapshot.n > FEW_CURSORS:
        cursors.at = <FieldCursor*>calloc(snapshot.n, sizeof(FieldCursor))
        if cursors.at == NULL:
            return NO_MEMORY
    return OK


cdef void cursors_close(FieldCursors* cursors, Snapshot snapshot) noexcept nogil:
    cdef size_t i
    if cursors.at == NULL:
        return
    for i in range(cursors.n):
        if cursors.at[i].has_windows:
            unpin(snapshot.at[i], &cursors.at[i].windows_pin)
        if cursors.at[i].has_chunk:
            unpin(snapshot.at[i], &cursors.at[i].pin)
        out_free(&cursors.at[i].own)
    if cursors.at != cursors.few:
        free(cursors.at)
    cursors.at = NULL


cdef Status damaged(ReadContext* context, const FragmentData* f, int slot, uint64_t tile) noexcept nogil:
    context.status = CORRUPT
    context.slot = slot
    context.offset = f.slots[slot].tile_at[tile]
    return CORRUPT


# --- where cells are ----------------------------------------------------------------------------------------------------

cdef void buffered(Buffer buffer, int field, const CellAddress* run, const uint8_t** data, uint64_t* size) noexcept nogil:
    """A field of a cell in the write buffer."""
    cdef Entry entry = entry_at(run)
    if field == 0:
        data[0] = entry.record
        size[0] = entry.key_size
    elif field == buffer.layout.key_type:
        data[0] = &run.type
        size[0] = 1
    else:
        buffer.field(&entry, field, data, size)


cdef Status open_tile(FieldCursors* cursors, Snapshot snapshot, int field, const CellAddress* run,
                      ReadContext* context) noexcept nogil:
    """The offsets of a run's tile."""
    cdef FragmentData* f = snapshot.at[run.fragment]
    cdef FieldCursor* cursor = &cursors.at[run.fragment]
    cdef Status status
    cursors.failed_in = run.fragment
    if cursor.has_windows:
        unpin(f, &cursor.windows_pin)
    cursor.has_windows = False
    status = fragment_offsets(f, field, run.tile, context, &cursor.windows, &cursor.windows_pin)
    if status != OK:
        return status
    cursor.has_windows = True
    cursor.windows_tile = run.tile
    cursor.cells = tile_cells(f, run.tile)
    cursor.total = f.slots[f.nf + 1 + field].raw_size[run.tile]
    return OK


cdef inline Status run_extent(FieldCursors* cursors, Snapshot snapshot, int field, const CellAddress* run, uint64_t skip,
                              uint64_t n, ReadContext* context, uint64_t* start, uint64_t* end) noexcept nogil:
    """n cells of a fragment's run, from cell `skip` of it: [start, end) of their tile's bytes."""
    cdef FieldCursor* cursor = &cursors.at[run.fragment]
    cdef uint64_t cell = run.cell + skip
    cdef Status status
    if not cursor.has_windows or cursor.windows_tile != run.tile:
        status = open_tile(cursors, snapshot, field, run, context)
        if status != OK:
            return status
    start[0] = window_at(&cursor.windows, cell)
    end[0] = window_at(&cursor.windows, cell + n) if cell + n < cursor.cells else cursor.total
    if start[0] > end[0] or end[0] > cursor.total:
        cursors.failed_in = run.fragment
        return damaged(context, snapshot.at[run.fragment], field, run.tile)
    return OK


cdef Status measure(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                    uint64_t limit, ReadContext* context, size_t* count, uint64_t* size) noexcept nogil:
    cdef const CellAddress* run = selection.runs
    cdef const uint8_t* data = NULL
    cdef uint64_t start = 0, end = 0
    cdef size_t skip = selection.skip, n, done = 0
    cdef Status status
    size[0] = 0
    while done < selection.n:
        n = min(run.n - skip, selection.n - done)
        start = end = 0
        if run.fragment == IN_BUFFER:
            buffered(buffer, field, run, &data, &end)
        elif run.fragment != NOWHERE:
            while True:
                status = run_extent(cursors, snapshot, field, run, skip, n, context, &start, &end)
                if status != OK:
                    return status
                if size[0] + end - start <= limit or n == 1:
                    break
                n = (n + 1) // 2                # by halves: no more than the limit, though perhaps less
        if size[0] + end - start > limit and done:
            break
        size[0] += end - start
        done += n
        skip += n
        if size[0] > limit:
            break
        if skip == run.n:
            run += 1
            skip = 0
    count[0] = done
    return OK


cdef int64_t window_ends(const Windows* windows, uint64_t cell, size_t n, uint64_t bias, uint64_t least, uint64_t most,
                         int64_t* ends) noexcept nogil:
    """ends[i] = bias + the offset of cell + i. Negative unless they ascend from `least` to `most`, both below 2^63."""
    cdef size_t at = 0, many, i
    cdef uint64_t base
    cdef int64_t bad = 0, last = least
    cdef const uint8_t* p
    while at < n:
        i = cell + at
        p = windows.data + i * windows.nbytes
        many = n - at
        base = bias
        if windows.nbytes != 8 and windows.nbytes:
            many = min(many, ((i >> windows.shift) + 1 << windows.shift) - i)
            base += load64(windows.minima + WINDOW_HEADER * (i >> windows.shift))
        # A loop for each width, without a branch and without a call: the compiler makes vectors of them.
        if windows.nbytes == 4:
            for i in range(many):
                ends[at + i] = <int64_t>(base + load32(p + 4 * i))
        elif windows.nbytes == 2:
            for i in range(many):
                ends[at + i] = <int64_t>(base + load16(p + 2 * i))
        elif windows.nbytes == 1:
            for i in range(many):
                ends[at + i] = <int64_t>(base + p[i])
        elif windows.nbytes == 0:
            base += (cell + at) * windows.stride
            for i in range(many):
                ends[at + i] = <int64_t>(base + i * windows.stride)
        else:
            for i in range(many):
                ends[at + i] = <int64_t>(base + load64(p + 8 * i))
        at += many
    # The first that is out of order shows its sign: as long as none is, both sides of each difference are in [least, most].
    for i in range(n):
        bad |= <int64_t>(<uint64_t>ends[i] - <uint64_t>last) | <int64_t>(most - <uint64_t>ends[i])
        last = ends[i]
    return bad


cdef Status gather_ends(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                        ReadContext* context, int64_t* ends) noexcept nogil:
    cdef const CellAddress* run = selection.runs
    cdef const uint64_t* index = selection.index
    cdef const uint8_t* data = NULL
    cdef uint64_t start = 0, end = 0, total = 0
    cdef size_t skip = selection.skip, n, done = 0, i
    cdef Status status
    while done < selection.n:
        n = min(run.n - skip, selection.n - done)
        start = end = 0
        if run.fragment == IN_BUFFER:
            buffered(buffer, field, run, &data, &end)
        elif run.fragment != NOWHERE:
            status = run_extent(cursors, snapshot, field, run, skip, n, context, &start, &end)
            if status != OK:
                return status
            if n > 1 and window_ends(&cursors.at[run.fragment].windows, run.cell + skip + 1, n - 1, total - start, total,
                                     total + end - start, ends + done) < 0:
                cursors.failed_in = run.fragment
                return damaged(context, snapshot.at[run.fragment], field, run.tile)
        total += end - start
        done += n
        if index == NULL:
            ends[done - 1] = <int64_t>total
        else:
            ends[index[done - 1]] = <int64_t>(end - start)
        run += 1
        skip = 0
    if index != NULL:
        for i in range(1, selection.n):
            ends[i] += ends[i - 1]
    return OK


# --- what they hold -----------------------------------------------------------------------------------------------------

cdef Status cursor_read(FieldCursors* cursors, Snapshot snapshot, int slot, uint32_t fragment, uint64_t tile, uint64_t start,
                        uint64_t size, ReadContext* context, uint8_t* out) noexcept nogil:
    """`size` bytes of a tile from byte `start` of it. A chunk that is wanted whole is decoded where it is wanted."""
    cdef FragmentData* f = snapshot.at[fragment]
    cdef FieldCursor* cursor = &cursors.at[fragment]
    cdef uint64_t unit = f.kinds[slot].width
    cdef uint64_t index, position = 0, stored = 0, first = 0, raw = 0, part = 0
    cdef uint8_t* into
    cdef bint whole, decoded = False
    cdef Status status
    cursors.failed_in = fragment
    while True:
        if cursor.has_chunk and cursor.chunk_tile == tile and cursor.start <= start < cursor.end:
            part = min(cursor.end - start, size)
            memcpy(out, cursor.data + (start - cursor.start), part)
            if decoded and part == size:
                keep_cell(f, slot, tile, start // unit, &cursor.pin, out, size)
        elif cursors.keep and copy_cell(f, slot, tile, start // unit, size, out):
            return OK
        else:
            if cursor.has_chunk and cursor.chunk_tile == tile and cursor.end == start:
                index = cursor.index + 1
            else:
                index = chunk_index(f, slot, tile, start // unit)
            unpin(f, &cursor.pin)
            cursor.has_chunk = False
            status = fragment_place(f, slot, tile, index, &position, &stored, &first, &raw)
            first *= unit
            if status != OK or not first <= start < first + raw:
                return damaged(context, f, slot, tile)
            cursor.chunk_tile = tile
            cursor.index = index
            cursor.start = first
            cursor.end = first + raw
            whole = start == first and raw <= size
            if chunk_at_hand(f, slot, index) or (cursors.keep and raw < DIRECT) or (raw > DIRECT and not whole):
                status = fragment_chunk(f, slot, tile, index, size, context, &cursor.pin)
                cursor.data = cursor.pin.data
                decoded = cursors.keep
            elif whole:
                status = fragment_decode(f, slot, tile, index, context, out, raw)
                part = raw
                cursor.start = cursor.end               # nothing of it is kept but where the next one begins
            else:
                cursor.own.size = 0
                into = out_room(&cursor.own, raw)
                if into == NULL:
                    context.status = NO_MEMORY
                    context.slot = slot
                    context.offset = position
                    return NO_MEMORY
                status = fragment_decode(f, slot, tile, index, context, into, raw)
                cursor.data = into
            if status != OK:
                return status
            cursor.has_chunk = True
            if cursor.start < cursor.end:
                continue
        size -= part
        if size == 0:
            return OK
        out += part
        start += part


cdef Status gather_bytes(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                         const int64_t* ends, uint64_t first, uint64_t size, ReadContext* context, uint8_t* out) noexcept nogil:
    cdef const CellAddress* run = selection.runs
    cdef const uint64_t* index = selection.index
    cdef const uint8_t* data = NULL
    cdef uint8_t* column = out
    cdef uint64_t start = 0, end = 0, part
    cdef size_t skip = selection.skip, n, done = 0
    cdef int slot = snapshot.layout.bytes_slot(field)
    cdef const FieldCursor* cursor
    cdef const CellAddress* last = NULL
    cdef Status status
    if index != NULL:
        size = 0                                    # of a cell, from here on: what it still lacks
    while done < selection.n and (size or index != NULL):
        n = min(run.n - skip, selection.n - done)
        if index != NULL:
            if size:
                break
            start = ends[index[done] - 1] if index[done] else 0
            size = ends[index[done]] - start
            out = column + start
        if run.fragment == IN_BUFFER:
            buffered(buffer, field, run, &data, &end)
            part = min(end - min(first, end), size)
            memcpy(out, data + first, part)
            out += part
            size -= part
        elif run.fragment != NOWHERE:
            status = run_extent(cursors, snapshot, field, run, skip, n, context, &start, &end)
            if status != OK:
                return status
            last = run
            start += min(first, end - start)
            part = min(end - start, size)
            cursor = &cursors.at[run.fragment]
            if cursor.has_chunk and cursor.chunk_tile == run.tile and cursor.start <= start < start + part <= cursor.end:
                memcpy(out, cursor.data + (start - cursor.start), part)
            elif part:
                status = cursor_read(cursors, snapshot, slot, run.fragment, run.tile, start, part, context, out)
                if status != OK:
                    return status
            out += part
            size -= part
        first = 0
        done += n
        run += 1
        skip = 0
    if size and last != NULL:                       # the file has changed since it was measured
        cursors.failed_in = last.fragment
        return damaged(context, snapshot.at[last.fragment], field, last.tile)
    return OK


cdef Status gather_fixed(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, const Selection* selection,
                         ReadContext* context, uint8_t* out) noexcept nogil:
    cdef const CellAddress* run = selection.runs
    cdef const uint64_t* index = selection.index
    cdef const uint8_t* data = NULL
    cdef uint8_t* column = out
    cdef uint64_t width = snapshot.layout.slots[field].width, size = 0
    cdef size_t skip = selection.skip, n, done = 0
    cdef Status status
    while done < selection.n:
        n = min(run.n - skip, selection.n - done)
        if index != NULL:
            out = column + index[done] * width
        if run.fragment == IN_BUFFER:
            buffered(buffer, field, run, &data, &size)
            memcpy(out, data, width)
        elif run.fragment == NOWHERE:
            memset(out, 0, n * width)
        else:
            status = cursor_read(cursors, snapshot, field, run.fragment, run.tile, (run.cell + skip) * width, n * width, context,
                                 out)
            if status != OK:
                return status
        out += n * width
        done += n
        run += 1
        skip = 0
    return OK

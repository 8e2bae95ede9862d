cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.wire cimport out64, out_free, out_room
from tilekv.kvcore.codec.chunk cimport encode_chunk
from tilekv.kvcore.codec.pipeline cimport NO_MEMORY, OK, TOO_LARGE, UNSUPPORTED, Codec, Status, codec_acquire, codec_release
from tilekv.kvcore.format.layout cimport (MAX_CHUNK, SLOT_BYTES, SLOT_COORDS, SLOT_FIXED, SLOT_OFFSETS, TILE_COUNT, Slot,
                                          chunk_fits)

cdef enum:
    LONG_CHUNK = 1 << 17         # bytes a chunk of a cell that is longer than MAX_CHUNK: what is read of it at least


cdef class CellSource:
    def __len__(self):
        return self.n

    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil:
        return -1

    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil:
        return -1

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        return -1

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        return -1

    cdef fault(self):
        raise NotImplementedError


@cython.final
cdef class ChunkPlan:
    def __dealloc__(self):
        free(self.chunks)

    cdef PlannedChunk* add(self) except NULL nogil:
        cdef PlannedChunk* grown
        if self.n == self.capacity:
            grown = <PlannedChunk*>realloc(self.chunks, max(self.capacity * 2, <size_t>64) * sizeof(PlannedChunk))
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.chunks = grown
            self.capacity = max(self.capacity * 2, <size_t>64)
        self.n += 1
        memset(&self.chunks[self.n - 1], 0, sizeof(PlannedChunk))
        return &self.chunks[self.n - 1]

    def extend(self, ChunkPlan other not None):
        """Add the chunks of the next part of a long cell."""
        cdef PlannedChunk* chunk
        cdef size_t i
        for i in range(other.n):
            chunk = self.add()
            chunk[0] = other.chunks[i]

    def count(self):
        """How many chunks there are, as the first of the only tile says it: in the file's first bytes."""
        self.chunks[0].opens = self.n
        return int(self.n).to_bytes(TILE_COUNT, "little")

    def runs(self, uint64_t size):
        """(first, last + 1) of runs of chunks of about `size` raw bytes."""
        cdef size_t first = 0, i
        cdef uint64_t total = 0
        found = []
        for i in range(self.n):
            total += self.chunks[i].raw
            if total >= size:
                found.append((first, i + 1))
                first = i + 1
                total = 0
        if first < self.n:
            found.append((first, self.n))
        return found


@cython.final
cdef class StreamedBytes(CellSource):
    def __cinit__(self, int slot, uint64_t start, bytes data not None, uint64_t chunks=1):
        """Bytes from `start` on of a cell of more than MAX_CHUNK; chunks: of the whole cell, as far as that is known."""
        cdef uint64_t at = 0
        cdef PlannedChunk* chunk
        self.n = 1
        self.held = data
        self.data = <const uint8_t*>PyBytes_AS_STRING(data)
        self.start = start
        self.plan = ChunkPlan.__new__(ChunkPlan)
        self.plan.slot = slot
        while at < <uint64_t>len(data):
            chunk = self.plan.add()
            chunk.skip = chunk.start = start + at
            chunk.raw = min(<uint64_t>LONG_CHUNK, len(data) - at)
            if start + at == 0:
                chunk.opens = chunks
            at += chunk.raw

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        memcpy(out, self.data + (skip - self.start), n)
        return 0

    def encode(self, Layout layout not None, CodecPool codecs not None):
        """The stored bytes of the part, as an Encoded. Runs without the GIL."""
        return encode(layout, self, self.plan, 0, self.plan.n, codecs)


cdef ChunkPlan plan_chunks(Layout layout, int slot_number, CellSource source, uint64_t first_tile):
    """The chunks of one slot. `first_tile`: how many tiles the fragment has already; all of them are full. Without the GIL."""
    cdef ChunkPlan plan = ChunkPlan.__new__(ChunkPlan)
    cdef int status
    plan.slot = slot_number
    with nogil:
        status = plan_slot(plan, layout, &layout.slots[slot_number], source, first_tile)
    if status == SOURCE_FAILED:
        source.fault()
    return plan


cdef int plan_slot(ChunkPlan plan, Layout layout, const Slot* slot, CellSource source, uint64_t tile) except -1 nogil:
    cdef size_t lo = 0, hi
    cdef uint64_t* lengths = NULL
    if slot.kind == SLOT_BYTES:
        lengths = <uint64_t*>malloc(min(layout.capacity, source.n + 1) * sizeof(uint64_t))
        if lengths == NULL:
            raise MemoryError
    try:
        while lo < source.n:
            hi = min(lo + layout.capacity, source.n)
            if slot.kind == SLOT_BYTES:
                if source.lengths(slot.field, lo, hi, lengths) < 0:
                    return SOURCE_FAILED
                plan_bytes(plan, slot.chunk_bytes, lengths, lo, hi, tile)
            elif slot.kind == SLOT_COORDS:
                plan_cells(plan, hi - lo, 8, lo, hi, tile)
                plan_cells(plan, hi - lo, 8, lo, hi, tile)
                plan.chunks[plan.n - 2].opens = 2
                plan.chunks[plan.n - 1].opens = 0
                plan.chunks[plan.n - 1].skip = 1
            else:
                plan_cells(plan, max(slot.chunk_bytes // slot.width, <uint64_t>1), slot.width, lo, hi, tile)
            lo = hi
            tile += 1
    finally:
        free(lengths)
    return 0


cdef int plan_cells(ChunkPlan plan, uint64_t cells, uint32_t width, size_t lo, size_t hi, uint64_t tile) except -1 nogil:
    cdef size_t first = plan.n, at = lo
    cdef PlannedChunk* chunk
    while at < hi:
        chunk = plan.add()
        chunk.cell = at
        chunk.start = at - lo
        chunk.raw = min(cells, hi - at) * width
        chunk.tile = tile
        at += cells
    plan.chunks[first].opens = plan.n - first
    return 0


cdef int plan_bytes(ChunkPlan plan, uint64_t target, const uint64_t* lengths, size_t lo, size_t hi,
                    uint64_t tile) except -1 nogil:
    """Whole cells up to `target` bytes a chunk; a cell of more than MAX_CHUNK bytes alone, in chunks of LONG_CHUNK."""
    cdef size_t first = plan.n, cell
    cdef uint64_t at = 0, n, skip, differ = 0
    cdef PlannedChunk* chunk = NULL
    for cell in range(lo, hi):
        differ |= lengths[cell - lo] ^ lengths[0]
    for cell in range(lo, hi):
        n = lengths[cell - lo]
        if n == 0:
            continue
        if n > MAX_CHUNK:
            skip = 0
            while skip < n:
                chunk = plan.add()
                chunk.cell = cell
                chunk.skip = skip
                chunk.start = at + skip
                chunk.raw = min(<uint64_t>LONG_CHUNK, n - skip)
                chunk.tile = tile
                skip += chunk.raw
            chunk = NULL
        else:
            if chunk == NULL or chunk.raw + n > target:
                chunk = plan.add()
                chunk.cell = cell
                chunk.start = at
                chunk.tile = tile
            chunk.raw += n
        at += n
    if plan.n == first:
        chunk = plan.add()
        chunk.cell = lo
        chunk.tile = tile
        chunk.empty = True
    else:
        plan.chunks[first].opens = plan.n - first
    if not differ:
        plan.chunks[first].uniform = lengths[0] + 1
    return 0


@cython.final
cdef class Encoded:
    def __dealloc__(self):
        out_free(&self.out)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.out.data, self.out.size, 1, flags)

    def __len__(self):
        return self.out.size


cdef Status gather_run(const Slot* slot, CellSource source, const PlannedChunk* chunks, size_t n, uint8_t* raw) noexcept nogil:
    """The raw bytes of n chunks, one after the other: their cells are neighbours, so one call gets them all."""
    cdef uint64_t* words = <uint64_t*>raw
    cdef uint64_t total = 0, at = 0, length, j
    cdef const PlannedChunk* chunk
    cdef size_t i
    cdef int failed = 0
    for i in range(n):
        total += chunks[i].raw
    if total == 0:
        return OK
    if slot.kind == SLOT_BYTES:
        failed = source.bytes(slot.field, chunks[0].cell, chunks[0].skip, total, raw)
    elif slot.kind == SLOT_FIXED:
        failed = source.fixed(slot.field, chunks[0].cell, chunks[0].cell + total // slot.width, raw)
    elif slot.kind == SLOT_OFFSETS:
        failed = source.lengths(slot.field, chunks[0].cell, chunks[0].cell + total // 8, words)
        for i in range(n):                                      # a tile each: its offsets begin at 0
            at = 0
            for j in range(chunks[i].raw // 8):
                length = words[j]
                words[j] = at
                at += length
            words += chunks[i].raw // 8
    else:
        for i in range(n):
            chunk = &chunks[i]
            failed = source.coords(chunk.cell, chunk.cell + chunk.raw // 8, NULL if chunk.skip else words,
                                   words if chunk.skip else NULL)
            if failed < 0:
                break
            words += chunk.raw // 8
    return <Status>SOURCE_FAILED if failed < 0 else OK


cdef Status encode_run(Layout layout, CellSource source, ChunkPlan plan, size_t first, size_t last, Codec* codec, Out* out,
                       Out* raw) noexcept nogil:
    cdef const Slot* slot = &layout.slots[plan.slot]
    cdef PlannedChunk* chunk
    cdef size_t i, before, begin
    cdef uint64_t total = 0
    cdef uint8_t* at
    cdef Status status
    for i in range(first, last):
        total += plan.chunks[i].raw
    at = out_room(raw, total)
    if at == NULL:
        return NO_MEMORY
    i = first
    while i < last and plan.chunks[i].empty:
        i += 1
    status = gather_run(slot, source, &plan.chunks[i], last - i, at)
    if status != OK:
        return status
    for i in range(first, last):
        chunk = &plan.chunks[i]
        before = out.size
        if chunk.opens or chunk.empty:
            if out64(out, chunk.opens) < 0:
                return NO_MEMORY
        if not chunk.empty:
            if slot.field == layout.key_type and memcmp(at, at + 1, chunk.raw - 1) == 0:
                chunk.uniform = at[0] + 1
            begin = out.size
            status = encode_chunk(&slot.pipeline, codec, at, chunk.raw, out)
            if status == OK and not chunk_fits(slot, chunk.raw, out.size - begin):
                status = UNSUPPORTED
            if status != OK:
                return status
            at += chunk.raw
        chunk.stored = out.size - before
    return OK


def encode(Layout layout not None, CellSource source not None, ChunkPlan plan not None, size_t first, size_t last,
           CodecPool codecs not None):
    """The stored bytes of chunks [first, last) of `plan`, as an Encoded. Runs without the GIL."""
    cdef Encoded encoded = Encoded.__new__(Encoded)
    cdef Out raw
    cdef Codec* codec
    cdef Status status = NO_MEMORY
    if last > plan.n:
        raise IndexError(last)
    raw.data = NULL
    raw.size = raw.capacity = 0
    with nogil:
        codec = codec_acquire(&codecs.pool)
        if codec != NULL:
            status = encode_run(layout, source, plan, first, last, codec, &encoded.out, &raw)
            codec_release(&codecs.pool, codec)
        out_free(&raw)
    if status == OK:
        return encoded
    if status == NO_MEMORY:
        raise MemoryError
    if status == TOO_LARGE:
        raise ValueError("a chunk of more than 4 GiB")
    if status == UNSUPPORTED:
        raise ValueError("a filter that this build cannot write")
    source.fault()


LONG_CELL = <int>MAX_CHUNK                  # a cell of more bytes stands alone,
LONG_CELL_CHUNK = <int>LONG_CHUNK           # in chunks of so many

tkv_refuse_bare(ChunkPlan)
tkv_refuse_bare(Encoded)

cimport cython
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from tilekv.kvcore.base.crc32c cimport tkv_crc32c
from tilekv.kvcore.base.wire cimport load64, out8, out32, out64, out_bytes, out_free, store32
from tilekv.kvcore.format.constants cimport (BLOCK_MAGIC, FANOUT, FORMAT_VERSION, PRIVATE_META, RTREE_AT,
                                             TAG_BOUND, TAG_CHUNKS, TAG_IDENTITY, TAG_SOURCES)
from tilekv.kvcore.format.datatypes cimport CHAR, UINT64
from tilekv.kvcore.format.layout cimport SLOT_BYTES, TILE_COUNT
from tilekv.kvcore.format.tile cimport CellSource, PlannedChunk, ChunkPlan, plan_cuts


cdef int check(int status) except -1:
    if status < 0:
        raise MemoryError
    return 0


cdef int pad(Out* out, size_t to) except -1:
    while out.size % to:
        check(out8(out, 0))
    return 0


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ needs the layout
cdef class FragmentBuilder:
    def __cinit__(self, Layout layout not None):
        self.layout = layout
        self.states = <SlotState*>calloc(layout.nslots, sizeof(SlotState))
        if self.states == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int slot
        if self.states != NULL:
            for slot in range(self.layout.nslots):
                out_free(&self.states[slot].tile_at)
                out_free(&self.states[slot].raw_size)
                out_free(&self.states[slot].first_chunk)
                out_free(&self.states[slot].chunks)
        free(self.states)
        out_free(&self.mbrs)

    def add(self, CellSource source not None, run=None):
        """Plan one window of cells: the ChunkPlan of every slot, in slot order.

        run: plans the slots as `map` does, and what it gives is returned: Workers.map_all has threads do it.

        ValueError after a window that did not fill its last tile.
        """
        cdef uint64_t first_tile = self._tiles
        cdef size_t lo = 0, hi
        cdef uint64_t capacity = self.layout.capacity
        cdef uint64_t* c0
        cdef uint64_t* c1
        cdef uint64_t low, high
        cdef size_t i
        if self.cells % capacity:
            raise ValueError("only the last window may leave its tile unfilled")
        c0 = <uint64_t*>malloc(2 * min(capacity, max(source.n, <size_t>1)) * sizeof(uint64_t))
        if c0 == NULL:
            raise MemoryError
        c1 = c0 + min(capacity, max(source.n, <size_t>1))
        try:
            while lo < source.n:
                hi = min(lo + capacity, source.n)
                if source.coords(lo, hi, c0, c1) < 0:
                    source.fault()
                low = high = c1[0]
                for i in range(1, hi - lo):
                    low = min(low, c1[i])
                    high = max(high, c1[i])
                check(out64(&self.mbrs, c0[0]))
                check(out64(&self.mbrs, c0[hi - lo - 1]))
                check(out64(&self.mbrs, low))
                check(out64(&self.mbrs, high))
                lo = hi
                self._tiles += 1
        finally:
            free(c0)
        self.cells += source.n
        self.tombstones += source.tombstones
        plan = _Plan(self.layout, source, first_tile)
        return [plan(file) for file in self.layout.files] if run is None else run(plan, self.layout.files)

    def written(self, ChunkPlan cuts not None):
        """All chunks of `cuts` are in their file: note where. Call once for each ChunkPlan of a window, after its last run."""
        cdef SlotState* state = &self.states[cuts.slot]
        cdef bint var = self.layout.slots[cuts.slot].kind == SLOT_BYTES
        cdef bint opens
        cdef size_t i
        cdef PlannedChunk* cut
        cdef uint64_t raw = 0
        for i in range(cuts.n):
            cut = &cuts.cuts[i]
            opens = cut.opens or cut.empty
            if opens:
                state.tile_start = state.size
                check(out64(&state.tile_at, state.size))
                check(out32(&state.first_chunk, <uint32_t>state.nchunks))
                raw = 0
                if cut.opens != 1 and cuts.slot != self.layout.coords:
                    state.many = True
            if not cut.empty:
                check(out64(&state.chunks, cut.start))
                check(out64(&state.chunks, state.size + (TILE_COUNT if opens else 0) - state.tile_start))
                state.nchunks += 1
                raw += cut.raw
            state.size += cut.stored
            if var and (i + 1 == cuts.n or cuts.cuts[i + 1].opens or cuts.cuts[i + 1].empty):
                check(out64(&state.raw_size, raw))
        if state.nchunks > 0xFFFFFFFF:
            raise ValueError("more than 4,294,967,295 chunks in one file of a fragment")

    @staticmethod
    def trailer(bytes uuid not None, uint32_t slot):
        """What ends the file of a slot, so that it is taken for no other fragment's and no other attribute's."""
        return uuid + slot.to_bytes(4, "little")

    def metadata(self, bytes uuid not None, uint64_t t1, uint64_t t2, sources=(), bint bound=True):
        """The metadata file, as bytes. uuid: 16 bytes; t1, t2: ms; sources: names of the fragments a consolidation read; bound:
        every data file ends in its trailer()."""
        cdef Out out, footer
        cdef int na = self.layout.nf, f, slot
        cdef uint64_t first
        cdef uint64_t bounds[4]
        cdef size_t i, block
        cdef uint32_t crc
        if len(uuid) != 16 or t1 > t2 or not self.cells:
            raise ValueError("a fragment has 16 bytes of uuid, t1 <= t2 and at least one cell")
        out.data = footer.data = NULL
        out.size = out.capacity = footer.size = footer.capacity = 0
        try:
            memcpy(bounds, self.mbrs.data, 32)
            for i in range(1, self._tiles):
                bounds[1] = max(bounds[1], load64(self.mbrs.data + 32 * i + 8))
                bounds[2] = min(bounds[2], load64(self.mbrs.data + 32 * i + 16))
                bounds[3] = max(bounds[3], load64(self.mbrs.data + 32 * i + 24))
            check(out32(&footer, FORMAT_VERSION))
            check(out8(&footer, 0))                             # dense
            check(out8(&footer, 0))                             # null non-empty domain
            check(out_bytes(&footer, bounds, 32))
            check(out64(&footer, self._tiles))
            first = self.cells - (self._tiles - 1) * self.layout.capacity
            check(out64(&footer, first))
            for f in range(na + 1):                             # the coordinates are entry na, as they are slot nf
                check(out64(&footer, self.states[f].size))
            for f in range(na):
                check(out64(&footer, self.states[na + 1 + f].size))
            check(out_bytes(&out, b"\0\0\0", RTREE_AT))
            check(out64(&footer, out.size))
            self._rtree(&out)
            for f in range(na + 1):
                pad(&out, 8)
                check(out64(&footer, out.size))
                self._vector(&out, &self.states[f].tile_at)
            for f in range(na):
                pad(&out, 8)
                check(out64(&footer, out.size))
                self._vector(&out, &self.states[na + 1 + f].tile_at)
            for f in range(na):
                pad(&out, 8)
                check(out64(&footer, out.size))
                self._vector(&out, &self.states[na + 1 + f].raw_size)
            pad(&out, 8)
            block = out.size
            check(out32(&out, TAG_IDENTITY))
            check(out32(&out, 48))
            check(out_bytes(&out, <const char*>uuid, 16))
            check(out64(&out, t1))
            check(out64(&out, t2))
            check(out64(&out, self.cells))
            check(out64(&out, self.tombstones))
            if sources:
                names = b"".join(len(name).to_bytes(4, "little") + name for name in (s.encode() for s in sources))
                check(out32(&out, TAG_SOURCES))
                check(out32(&out, len(names)))
                check(out_bytes(&out, <const char*>names, len(names)))
                pad(&out, 8)
            if bound:
                check(out32(&out, TAG_BOUND))
                check(out32(&out, 0))
            for slot in range(self.layout.nslots):
                if self.states[slot].many:
                    self._directory(&out, slot)
            if out.size - block > 0xFFFFFFFF:
                raise ValueError("the chunk directory of one fragment is over 4 GiB")
            check(out32(&out, <uint32_t>(out.size - block)))
            crc = tkv_crc32c(0, out.data + block, out.size - block)
            check(out32(&out, tkv_crc32c(crc, footer.data, footer.size)))
            check(out32(&out, BLOCK_MAGIC))
            check(out_bytes(&out, footer.data, footer.size))
            return out.data[:out.size]
        finally:
            out_free(&out)
            out_free(&footer)

    cdef int _generic_tile(self, Out* out, const void* payload, size_t n) except -1:
        if n > 0xFFFFFFFF:
            raise ValueError("more than 536,870,910 tiles in one fragment")
        check(out32(out, FORMAT_VERSION))
        check(out64(out, 8 + 12 + PRIVATE_META + n))
        check(out64(out, n))
        check(out8(out, CHAR))
        check(out64(out, 1))                                    # cell size
        check(out8(out, 0))                                     # not encrypted
        check(out32(out, 8))
        check(out32(out, 0))                                    # the empty pipeline
        check(out32(out, 0))
        check(out64(out, 1))
        check(out32(out, <uint32_t>n))
        check(out32(out, <uint32_t>n))
        check(out32(out, PRIVATE_META))
        check(out32(out, tkv_crc32c(0, payload, n)))
        check(out_bytes(out, b"\0\0\0\0\0\0", 6))
        return check(out_bytes(out, payload, n))

    cdef int _vector(self, Out* out, const Out* values) except -1:
        cdef Out payload
        payload.data = NULL
        payload.size = payload.capacity = 0
        try:
            check(out64(&payload, values.size // 8))
            if values.size:
                check(out_bytes(&payload, values.data, values.size))
            return self._generic_tile(out, payload.data, payload.size)
        finally:
            out_free(&payload)

    cdef int _rtree(self, Out* out) except -1:
        """Levels from the root to the leaves; a node's MBR is the union of FANOUT below it."""
        cdef Out payload
        cdef uint64_t* level
        cdef uint64_t* above
        cdef size_t n = self._tiles, i
        below = (<const char*>self.mbrs.data)[:32 * n]
        levels = [below]
        payload.data = NULL
        payload.size = payload.capacity = 0
        while n > 1:
            level = <uint64_t*><char*>below
            merged = bytearray(32 * ((n + FANOUT - 1) // FANOUT))
            above = <uint64_t*><char*>merged
            for i in range(n):
                if i % FANOUT == 0:
                    memcpy(above + 4 * (i // FANOUT), level + 4 * i, 32)
                    continue
                union_mbr(above + 4 * (i // FANOUT), level + 4 * i)
            below = bytes(merged)
            levels.append(below)
            n = (n + FANOUT - 1) // FANOUT
        try:
            check(out32(&payload, 2))
            check(out32(&payload, FANOUT))
            check(out8(&payload, UINT64))
            check(out32(&payload, len(levels)))
            for below in reversed(levels):
                check(out64(&payload, len(below) // 32))
                check(out_bytes(&payload, <const char*>below, len(below)))
            return self._generic_tile(out, payload.data, payload.size)
        finally:
            out_free(&payload)

    cdef int _directory(self, Out* out, int slot) except -1:
        cdef SlotState* state = &self.states[slot]
        cdef uint32_t width = 4
        cdef size_t i, at
        for i in range(2 * state.nchunks):
            if load64(state.chunks.data + 8 * i) > 0xFFFFFFFF:
                width = 8
                break
        check(out32(out, TAG_CHUNKS))
        check(out32(out, 0))                                    # the length, set below
        at = out.size
        check(out32(out, slot))
        check(out32(out, width))
        check(out64(out, state.nchunks))
        check(out_bytes(out, state.first_chunk.data, state.first_chunk.size))
        check(out32(out, <uint32_t>state.nchunks))
        pad(out, 8)
        for i in range(2 * state.nchunks):
            if width == 8:
                check(out64(out, load64(state.chunks.data + 8 * i)))
            else:
                check(out32(out, <uint32_t>load64(state.chunks.data + 8 * i)))
        if out.size - at > 0xFFFFFFF0:
            raise ValueError("the chunk directory of one file is over 4 GiB")
        store32(out.data + at - 4, <uint32_t>(out.size - at))
        return pad(out, 8)


@cython.final
cdef class _Plan:
    """What a thread calls: the ChunkPlan of a slot."""
    cdef Layout layout
    cdef CellSource source
    cdef uint64_t first_tile

    def __cinit__(self, Layout layout, CellSource source, uint64_t first_tile):
        self.layout = layout
        self.source = source
        self.first_tile = first_tile

    def __call__(self, file):
        return plan_cuts(self.layout, file[0], self.source, self.first_tile)


cdef inline void union_mbr(uint64_t* into, const uint64_t* other) noexcept nogil:
    into[0] = min(into[0], other[0])
    into[1] = max(into[1], other[1])
    into[2] = min(into[2], other[2])
    into[3] = max(into[3], other[3])

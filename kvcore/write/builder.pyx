cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from tilekv.kvcore.base.wire cimport out32, out64, out_bytes, out_free
from tilekv.kvcore.format.bloom cimport bloom_add, bloom_begin, bloom_seal
from tilekv.kvcore.format.footer cimport NOT_UNIFORM, FileTable, Metadata, need, write_metadata
from tilekv.kvcore.format.layout cimport SLOT_BYTES, TILE_COUNT
from tilekv.kvcore.format.tile cimport SOURCE_FAILED, CellSource, PlannedChunk, ChunkPlan, plan_chunks


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ needs the layout
cdef class FragmentBuilder:
    def __cinit__(self, Layout layout not None, uint64_t cells=0, uint64_t low=0, uint64_t width=0):
        """cells: about how many there will be, for a Bloom filter over them; 0: there is none. low, width: their first
        coordinates lie among the `width` from `low` on; a width of 0 stands for 2^64."""
        self.layout = layout
        self.states = <SlotState*>calloc(layout.nslots, sizeof(SlotState))
        if self.states == NULL:
            raise MemoryError
        self._expected = cells
        if cells and bloom_begin(&self._bloom, &self._pages, cells, low, width) < 0:
            raise MemoryError

    def __dealloc__(self):
        cdef int slot
        if self.states != NULL:
            for slot in range(self.layout.nslots):
                out_free(&self.states[slot].tile_at)
                out_free(&self.states[slot].raw_size)
                out_free(&self.states[slot].first_chunk)
                out_free(&self.states[slot].chunks)
                out_free(&self.states[slot].uniform)
        free(self.states)
        out_free(&self.mbrs)
        out_free(&self._pages)

    def add(self, CellSource source not None, workers=None):
        """Plan one portion of cells: the ChunkPlan of every slot, in slot order.

        workers: a Workers whose threads plan the slots; else this one does.

        ValueError after a portion that did not fill its last tile.
        """
        cdef uint64_t first_tile = self._tiles
        cdef uint64_t capacity = self.layout.capacity
        cdef uint64_t* c0
        cdef int status
        if self.cells % capacity:
            raise ValueError("only the last portion may leave its tile unfilled")
        c0 = <uint64_t*>malloc(2 * min(capacity, max(source.n, <size_t>1)) * sizeof(uint64_t))
        if c0 == NULL:
            raise MemoryError
        with nogil:
            status = self._add_boxes(source, capacity, c0, c0 + min(capacity, max(source.n, <size_t>1)))
        free(c0)
        if status == SOURCE_FAILED:
            source.fault()
        need(status)
        self.cells += source.n
        self.tombstones += source.tombstones
        planner = _Planner(self.layout, source, first_tile)
        return [planner(file) for file in self.layout.files] if workers is None else workers.map_all(planner, self.layout.files)

    cdef int _add_boxes(self, CellSource source, uint64_t capacity, uint64_t* c0, uint64_t* c1) noexcept nogil:
        """The MBR of each tile of a portion. -1: no memory; SOURCE_FAILED. c0, c1: room for the coordinates of a tile."""
        cdef size_t lo = 0, hi, i
        cdef uint64_t box[4]
        while lo < source.n:
            hi = min(lo + capacity, source.n)
            if source.coords(lo, hi, c0, c1) < 0:
                return SOURCE_FAILED
            box[0] = c0[0]
            box[1] = c0[hi - lo - 1]
            box[2] = box[3] = c1[0]
            for i in range(1, hi - lo):
                box[2] = min(box[2], c1[i])
                box[3] = max(box[3], c1[i])
            if self._bloom.blocks:
                for i in range(hi - lo):
                    bloom_add(&self._bloom, &self._pages, c0[i], c1[i])
            if out_bytes(&self.mbrs, box, sizeof(box)) < 0:
                return -1
            lo = hi
            self._tiles += 1
        return 0

    def written(self, ChunkPlan plan not None):
        """All chunks of `plan` are in their file: note where. Call once for each ChunkPlan of a portion, after its last run."""
        cdef SlotState* state = &self.states[plan.slot]
        cdef int status
        with nogil:
            status = note_chunks(state, plan, self.layout.slots[plan.slot].kind == SLOT_BYTES, plan.slot == self.layout.coords,
                                 plan.slot == self.layout.key_type)
        need(status)
        if state.nchunks > 0xFFFFFFFF:
            raise ValueError("more than 4,294,967,295 chunks in one file of a fragment")

    def metadata(self, bytes uuid not None, uint64_t t1, uint64_t t2, sources=(), bint bound=True, uint64_t expired=0,
                 bint filtered=True, str first_output not None=""):
        """The metadata file, as bytes. uuid: 16 bytes; t1, t2: ms; sources: names of the fragments a consolidation read; bound:
        every data file ends in its trailer(); expired: the moment by which what had expired was left out, in ms, or 0; filtered:
        with the Bloom filter, unless there are over twice as many cells as were expected, of which it would let too many pass;
        first_output: of the same consolidation, which has the list of its sources instead."""
        cdef Metadata metadata
        cdef SlotState* state
        cdef FileTable* table
        cdef int slot
        if len(uuid) != 16 or t1 > t2 or not self.cells:
            raise ValueError("a fragment has 16 bytes of uuid, t1 <= t2 and at least one cell")
        metadata = Metadata(self.layout)
        metadata.uuid = <const uint8_t*><const char*>uuid
        metadata.t1 = t1
        metadata.t2 = t2
        metadata.ntiles = self._tiles
        metadata.last_tile_cells = self.cells - (self._tiles - 1) * self.layout.capacity
        metadata.cells = self.cells
        metadata.tombstones = self.tombstones
        metadata.boxes = <const uint64_t*>self.mbrs.data
        metadata.sources = tuple(sources)
        metadata.first_output = first_output
        metadata.bound = bound
        metadata.expired = expired
        if filtered and self._bloom.blocks and self.cells // 2 <= self._expected:
            bloom_seal(&self._bloom, &self._pages)
            metadata.bloom = self._bloom
            metadata.bloom.data = self._pages.data
        for slot, _, is_bytes in self.layout.files:
            state = &self.states[slot]
            table = &metadata.files[slot]
            if state.tile_at.size != 8 * self._tiles or (is_bytes and state.raw_size.size != 8 * self._tiles):
                raise ValueError("written() comes before metadata(), for every ChunkPlan")
            table.size = state.size
            table.tile_at = <const uint64_t*>state.tile_at.data
            table.raw_size = <const uint64_t*>state.raw_size.data
            table.first_chunk = <const uint32_t*>state.first_chunk.data if state.many else NULL
            table.chunks = state.chunks.data
            table.nchunks = state.nchunks
            if state.uniform.size:
                table.uniform = <const uint32_t*>state.uniform.data
                table.nuniform = self._tiles
        return write_metadata(metadata)


cdef int note_chunks(SlotState* state, ChunkPlan plan, bint var, bint coords, bint types) noexcept nogil:
    """-1: no memory."""
    cdef bint opens
    cdef size_t i
    cdef const PlannedChunk* chunk
    cdef uint64_t raw = 0, common = 0
    cdef int failed = 0                                         # -1 once anything was
    for i in range(plan.n):
        chunk = &plan.chunks[i]
        opens = chunk.opens or chunk.empty
        if opens:
            state.tile_start = state.size
            failed |= out64(&state.tile_at, state.size)
            failed |= out32(&state.first_chunk, <uint32_t>state.nchunks)
            raw = 0
            common = chunk.uniform
            if chunk.opens != 1 and not coords:
                state.many = True
        if not chunk.empty:
            failed |= out64(&state.chunks, chunk.start)
            failed |= out64(&state.chunks, state.size + (TILE_COUNT if opens else 0) - state.tile_start)
            state.nchunks += 1
            raw += chunk.raw
        state.size += chunk.stored
        if var and (i + 1 == plan.n or plan.chunks[i + 1].opens or plan.chunks[i + 1].empty):
            failed |= out64(&state.raw_size, raw)
        if types and chunk.uniform != common:
            common = 0
        if (var or types) and (i + 1 == plan.n or plan.chunks[i + 1].opens or plan.chunks[i + 1].empty):
            failed |= out32(&state.uniform, <uint32_t>(common - 1) if 0 < common <= NOT_UNIFORM else NOT_UNIFORM)
    return failed


@cython.final
cdef class _Planner:
    """What a thread calls: the ChunkPlan of a slot."""
    cdef Layout layout
    cdef CellSource source
    cdef uint64_t first_tile

    def __cinit__(self, Layout layout, CellSource source, uint64_t first_tile):
        self.layout = layout
        self.source = source
        self.first_tile = first_tile

    def __call__(self, file):
        return plan_chunks(self.layout, file[0], self.source, self.first_tile)

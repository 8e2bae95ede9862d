cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from tilekv.kvcore.base.signals cimport CELLS
from tilekv.kvcore.codec.pipeline cimport NO_MEMORY, OK
from tilekv.kvcore.format.layout cimport TOMBSTONE
from tilekv.kvcore.hashing.coords cimport lower_bound
from tilekv.kvcore.merge.collisions cimport Tied, new_ties
from tilekv.kvcore.read.address cimport address_of_entry
from tilekv.kvcore.read.chunk_reader cimport context_close, fragment_chunk_at, fragment_coords, tile_cells, unpin

cdef enum:
    ROUND = 4096                # cells of a round: 128 KiB of pairs
    LEAST_STEP = 16             # cells of one source in a round, however many sources there are

cdef uint64_t END = <uint64_t>-1        # behind every list; of the coordinates themselves, all are less


cdef inline bint is_deleted(Merge merge, const Source* source, size_t cell) noexcept nogil:
    """Whether the newest cell of a key is one that this merge leaves out: a delete, or an expired one."""
    if source.fragment == NULL:
        if source.entries[cell].type & TOMBSTONE:
            return not merge.tombstones
        return merge.now and merge.rows.expires(&source.entries[cell]) <= merge.now
    return ((source.types != NULL and source.types[cell] & TOMBSTONE)
            or (source.moments != NULL and source.moments[cell] <= merge.now))


cdef inline uint64_t pair_id(Merge merge, const Source* source, size_t cell) noexcept nogil:
    return <uint64_t>(source - merge.sources) << 32 | (cell - source.base)


cdef inline void add_run(Merge merge, CellAddress* runs, size_t* count, const Source* source, uint64_t tile, size_t cell,
                         size_t n) noexcept nogil:
    """n cells of a tile, joined to the run before when they follow it. REQUIRES: n is 1 in a buffer."""
    cdef uint32_t fragment = <uint32_t>(source - merge.sources - merge.nbuffers)
    cdef CellAddress* run = &runs[count[0]]
    cdef CellAddress* last
    if source.fragment == NULL:
        address_of_entry(&source.entries[cell], run)
    else:
        last = run - 1
        if count[0] and last.fragment == fragment and last.tile == tile and last.cell + last.n == cell:
            last.n += <uint32_t>n
            return
        run.fragment = fragment
        run.tile = tile
        run.cell = <uint32_t>cell
        run.n = <uint32_t>n
    count[0] += 1


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ follows pointers into the snapshot's fragments
cdef class Merge:
    def __cinit__(self, Snapshot snapshot not None, tuple buffers=(), bint tombstones=False, int64_t now=0, low=0, high=None):
        """now: what expires by this moment (ms since 1970) is left out; 0: nothing is. Only where cells may expire. low, high:
        coordinates, c0 << 64 | c1, of 0 to 2^128: the first that is merged, and the first that is not; None: all from low on."""
        cdef SortedBuffer buffer
        cdef uint32_t i
        cdef size_t room
        cdef Source* source
        fragments = snapshot.fragments                              # opens them all
        self.snapshot = snapshot
        self.buffers = buffers
        self.nbuffers = len(buffers)
        for buffer in buffers:
            self.rows = buffer.buffer
        self.tombstones = tombstones
        self.now = now if snapshot.layout.expires >= 0 else 0
        self.ranged = low > 0 or high is not None
        split(low, self.low)
        split(1 << 128 if high is None else high, self.high)
        self.ties = new_ties(snapshot, self.rows)
        self.nsources = self.nbuffers + snapshot.n
        room = max(<size_t>ROUND, self.nsources * LEAST_STEP) + self.nsources
        self.sources = <Source*>calloc(self.nsources + 1, sizeof(Source))              # there may be none
        self.running = <uint32_t*>malloc((self.nsources + 1) * sizeof(uint32_t))
        self.lists = <size_t*>malloc((2 * self.nsources + 1) * sizeof(size_t))
        self.pairs[0] = <Pair*>malloc(room * sizeof(Pair))
        self.pairs[1] = <Pair*>malloc(room * sizeof(Pair))
        if (self.sources == NULL or self.running == NULL or self.lists == NULL or self.pairs[0] == NULL
                or self.pairs[1] == NULL):
            raise MemoryError
        for i in range(<uint32_t>self.nsources):
            source = &self.sources[i]
            if i < self.nbuffers:
                buffer = buffers[i]
                if buffer.n == 0:
                    continue
                source.entries = buffer.entries
                source.c0 = buffer.c0
                source.c1 = buffer.c1
                source.n = buffer.n
                if self.ranged:
                    self._clip(source)
                    if source.cell == source.n:
                        continue
                source.may_delete = buffer.tombstones != 0 or self.now != 0
            else:
                source.fragment = snapshot.at[i - self.nbuffers]
                source.has_deletes = fragments[i - self.nbuffers].tombstones != 0 and not tombstones
                source.may_delete = source.has_deletes or self.now != 0
                source.tiles = source.fragment.ntiles
                if self.ranged:
                    source.tile = lower_bound(source.fragment.leaves + 1, 4, 0, source.tiles, self.low[0])
                    if self.high[0] < END:
                        source.tiles = lower_bound(source.fragment.leaves, 4, 0, source.tiles, self.high[0] + 1)
                    if source.tile >= source.tiles:
                        continue
                if self._open_tile(source) < 0:
                    self.raise_fault()
            self.running[self.nrunning] = i
            self.nrunning += 1

    def __dealloc__(self):
        cdef size_t i
        if self.sources != NULL:
            for i in range(self.nsources):
                self._close_tile(&self.sources[i])
                free(self.sources[i].types)
                free(self.sources[i].moments)
        free(self.sources)
        free(self.running)
        free(self.lists)
        free(self.pairs[0])
        free(self.pairs[1])
        if self.snapshot is not None:
            context_close(&self.context, &self.snapshot.codecs.pool)

    cdef raise_fault(self):
        # The cursor stands between two cells, or between two tiles: it is at its end from here on.
        self.stop()
        if self.fault_at == 0:
            raise MemoryError
        self.snapshot.raise_fault(&self.context, self.fault_at - 1)

    # --- tiles --------------------------------------------------------------------------------------------------------

    cdef void _close_tile(self, Source* source) noexcept nogil:
        if source.fragment != NULL:
            unpin(source.fragment, &source.pins[0])
            unpin(source.fragment, &source.pins[1])

    cdef int _open_tile(self, Source* source) noexcept nogil:
        cdef int dimension
        self.fault_at = <uint32_t>(source - self.sources - self.nbuffers) + 1
        for dimension in range(2):
            if fragment_coords(source.fragment, source.tile, dimension, &self.context, &source.pins[dimension]) != OK:
                return -1
        source.c0 = <const uint64_t*>source.pins[0].data
        source.c1 = <const uint64_t*>source.pins[1].data
        source.cell = 0
        source.n = tile_cells(source.fragment, source.tile)
        if self.ranged:
            self._clip(source)
        if source.has_deletes and self._read_field(source, source.fragment.key_type, 1, &source.types) < 0:
            return -1
        if self.now:
            return self._read_field(source, self.snapshot.layout.expires, 8, <uint8_t**>&source.moments)
        return 0

    cdef void _clip(self, Source* source) noexcept nogil:
        """Leave of the cells from `cell` to `n` those in the range: perhaps none."""
        cdef size_t n = source.n
        source.cell = lower_bound(source.c0, 1, 0, n, self.low[0])
        while source.cell < n and source.c0[source.cell] == self.low[0] and source.c1[source.cell] < self.low[1]:
            source.cell += 1
        source.n = lower_bound(source.c0, 1, source.cell, n, self.high[0])
        while source.n < n and source.c0[source.n] == self.high[0] and source.c1[source.n] < self.high[1]:
            source.n += 1

    cdef int _read_field(self, Source* source, int field, uint64_t width, uint8_t** cells) noexcept nogil:
        """A fixed field of the open tile, in *cells, which is made when it is NULL."""
        cdef size_t at = 0, n
        cdef Pin pin
        if cells[0] == NULL:
            cells[0] = <uint8_t*>malloc(tile_cells(source.fragment, 0) * width)         # no tile has more
            if cells[0] == NULL:
                self.fault_at = 0
                return -1
        while at < source.n:
            if fragment_chunk_at(source.fragment, field, source.tile, at, UINT64_MAX, &self.context, &pin) != OK:
                return -1
            n = min(pin.start + pin.size // width - at, source.n - at)
            memcpy(cells[0] + at * width, pin.data + (at - pin.start) * width, n * width)
            unpin(source.fragment, &pin)
            at += n
        return 0

    # --- rounds -------------------------------------------------------------------------------------------------------

    cdef int _round(self) noexcept nogil:
        """Take the next cells. 1 when there were some, whether any of them wins or not; 0 at the end, -1 after a fault."""
        cdef size_t i, kept = 0, step, left, end, lists = 0, at = 0, k
        cdef Source* source
        cdef Source* only = NULL
        cdef uint64_t bound = END
        cdef bint bounded = False
        cdef Pair* pair
        for i in range(self.nrunning):
            source = &self.sources[self.running[i]]
            while source.cell == source.n and source.fragment != NULL and source.tile + 1 < source.tiles:
                self._close_tile(source)
                source.tile += 1
                if self._open_tile(source) < 0:
                    return -1
            if source.cell == source.n:
                continue
            self.running[kept] = self.running[i]
            kept += 1
        self.nrunning = kept
        if kept == 0:
            return 0
        if kept == 1:
            source = &self.sources[self.running[0]]
            self.straight = source
            self.straight_at = source.cell
            self.straight_end = source.cell = source.n
            return 1
        # Before the bound no source has cells beyond its open tile, nor more than its part of the round.
        step = max(ROUND // kept, <size_t>LEAST_STEP)
        for i in range(kept):
            source = &self.sources[self.running[i]]
            left = source.n - source.cell
            if left > step:
                end = source.cell + step
            elif source.fragment != NULL and source.tile + 1 < source.tiles:
                end = source.n - 1
            else:
                continue
            bounded = True
            bound = min(bound, source.c0[end])
        for i in range(kept):
            source = &self.sources[self.running[i]]
            source.base = source.cell
            end = min(source.n, source.cell + step)
            if bounded:
                end = lower_bound(source.c0, 1, source.cell, end, bound)
            if end == source.cell:
                continue
            source.cell = end
            self.lists[lists] = at
            self.lists[self.nsources + lists] = end - source.base
            at += end - source.base + 1
            lists += 1
            only = source
        if lists == 0:
            return self._tie()
        if lists == 1:
            self.straight = only
            self.straight_at = only.base
            self.straight_end = only.cell
            return 1
        pair = self.pairs[0]
        for i in range(kept):
            source = &self.sources[self.running[i]]
            if source.cell == source.base:
                continue
            for k in range(source.cell - source.base):
                pair.c0 = min(source.c0[source.base + k], END - 1)      # damage aside, it is less
                pair.id = <uint64_t>self.running[i] << 32 | k
                pair += 1
            pair.c0 = END
            pair += 1
        return self._merge_lists(lists)

    cdef int _merge_lists(self, size_t n) noexcept nogil:
        cdef size_t* begins = self.lists
        cdef size_t* lengths = self.lists + self.nsources
        cdef size_t i
        cdef Pair* pairs = self.pairs[0]
        cdef Pair* merged = self.pairs[1]
        cdef uint64_t same = 0
        while n > 1:
            for i in range(n // 2):
                merge_two(pairs + begins[2 * i], pairs + begins[2 * i + 1], lengths[2 * i] + lengths[2 * i + 1],
                          merged + begins[2 * i])
                begins[i] = begins[2 * i]
                lengths[i] = lengths[2 * i] + lengths[2 * i + 1]
            if n % 2:
                memcpy(merged + begins[n - 1], pairs + begins[n - 1], (lengths[n - 1] + 1) * sizeof(Pair))
                begins[n // 2] = begins[n - 1]
                lengths[n // 2] = lengths[n - 1]
            n = (n + 1) // 2
            pairs, merged = merged, pairs
        self.won = pairs
        self.won_at = 0
        self.nwon = lengths[0]
        for i in range(1, self.nwon):
            same |= pairs[i].c0 == pairs[i - 1].c0
        for i in range(self.nrunning):
            same |= self.sources[self.running[i]].may_delete
        return self._settle() if same else 1

    cdef int _settle(self) noexcept nogil:
        """Of the cells that were merged, leave the newest of each key, and no deletes."""
        cdef size_t i = 0, j, k, kept = 0
        cdef Pair* won = self.won
        cdef Source* source
        while i < self.nwon:
            j = i + 1
            while j < self.nwon and won[j].c0 == won[i].c0:
                j += 1
            source = &self.sources[won[i].id >> 32]
            if j == i + 1:
                won[kept] = won[i]
                kept += not is_deleted(self, source, source.base + <uint32_t>won[i].id)
                i = j
                continue
            self.ties.clear()
            for k in range(i, j):
                source = &self.sources[won[k].id >> 32]
                if self._add_tied(source, source.base + <uint32_t>won[k].id) < 0:
                    return -1
            if self._choose() < 0:
                return -1
            for k in range(self.ties.n):
                won[kept].c0 = won[i].c0
                won[kept].id = self.ties.cells[k].id
                kept += 1
            i = j
        self.nwon = kept
        return 1

    # --- equal coordinates --------------------------------------------------------------------------------------------

    cdef int _tie(self) noexcept nogil:
        """Take all cells with the least coordinates there are: no other coordinate comes before those that end an open tile, and
        cells like these may stand in the next tile too."""
        cdef Source* source
        cdef Source* least = &self.sources[self.running[0]]
        cdef uint64_t c0, c1
        cdef size_t i
        for i in range(1, self.nrunning):
            source = &self.sources[self.running[i]]
            if source.c0[source.cell] < least.c0[least.cell] or (
                    source.c0[source.cell] == least.c0[least.cell] and source.c1[source.cell] < least.c1[least.cell]):
                least = source
        c0 = least.c0[least.cell]
        c1 = least.c1[least.cell]
        self.ties.clear()
        self.tied_c0 = c0
        for i in range(self.nrunning):
            source = &self.sources[self.running[i]]
            while source.c0[source.cell] == c0 and source.c1[source.cell] == c1:
                if self._add_tied(source, source.cell) < 0:
                    return -1
                source.cell += 1
                if source.cell < source.n:
                    continue
                if source.fragment == NULL or source.tile + 1 == source.tiles:
                    break
                self._close_tile(source)
                source.tile += 1
                if self._open_tile(source) < 0:
                    return -1
        if self._choose() < 0:
            return -1
        self.tied_at = 0
        self.ntied = self.ties.n
        return 1

    cdef int _add_tied(self, Source* source, size_t cell) noexcept nogil:
        cdef CellAddress run
        cdef size_t count = 0
        add_run(self, &run, &count, source, source.tile, cell, 1)
        if self.ties.add(&run, source.c1[cell], pair_id(self, source, cell), is_deleted(self, source, cell)) == OK:
            return 0
        self.fault_at = 0
        return -1

    cdef int _choose(self) noexcept nogil:
        if self.ties.choose(&self.context) == OK:
            return 0
        self.fault_at = 0 if self.context.status == NO_MEMORY else self.ties.fault_in + 1
        return -1

    # --- what comes of it ---------------------------------------------------------------------------------------------

    cdef Py_ssize_t next(self, CellAddress* runs, size_t* nruns, uint64_t* out0, uint64_t* out1, size_t room) noexcept nogil:
        cdef size_t n = 0, m, i, cell
        cdef const Source* source
        cdef const Tied* tied
        cdef int got
        nruns[0] = 0
        while n < room:
            if self.tied_at < self.ntied:
                tied = &self.ties.cells[self.tied_at]
                runs[nruns[0]] = self.ties.runs[tied.age]
                nruns[0] += 1
                if out0 != NULL:
                    out0[n] = self.tied_c0
                    out1[n] = tied.c1
                self.tied_at += 1
                n += 1
            elif self.won_at < self.nwon:
                m = min(self.nwon - self.won_at, room - n)
                for i in range(self.won_at, self.won_at + m):
                    source = &self.sources[self.won[i].id >> 32]
                    cell = source.base + <uint32_t>self.won[i].id
                    add_run(self, runs, nruns, source, source.tile, cell, 1)
                    if out0 != NULL:
                        out0[n] = source.c0[cell]
                        out1[n] = source.c1[cell]
                    n += 1
                self.won_at += m
            elif self.straight_at < self.straight_end:
                source = self.straight
                cell = self.straight_at
                m = min(self.straight_end - cell, room - n)
                if source.fragment == NULL or source.types != NULL or source.moments != NULL:
                    if is_deleted(self, source, cell):
                        self.straight_at += 1
                        continue
                    i = 1
                    while i < m and source.fragment != NULL and not is_deleted(self, source, cell + i):
                        i += 1
                    m = i
                add_run(self, runs, nruns, source, source.tile, cell, m)
                if out0 != NULL:
                    memcpy(out0 + n, source.c0 + cell, 8 * m)
                    memcpy(out1 + n, source.c1 + cell, 8 * m)
                self.straight_at += m
                n += m
            else:
                got = self._round()
                if got < 0:
                    return -1
                if got == 0:
                    break
        return n

    @property
    def consumed(self):
        """How many cells of the fragments lie behind."""
        cdef size_t i
        cdef uint64_t total = 0
        for i in range(self.nbuffers, self.nsources):
            total += self.sources[i].tile * self.sources[i].fragment.capacity + self.sources[i].cell
        return total

    def stop(self):
        """Leave out all that is left."""
        self.nrunning = self.ntied = self.tied_at = self.nwon = self.won_at = self.straight_at = self.straight_end = 0

    def live(self):
        """How many of the cells that are left stand in each fragment, newest first, consuming them; not of buffered ones."""
        return consume(self)[:self.snapshot.n]

    def count(self):
        """How many cells are left, consuming them: for len()."""
        return sum(consume(self))

    def any(self):
        """Whether a cell is left."""
        cdef CellAddress run
        cdef size_t nruns = 0
        cdef Py_ssize_t n = self.next(&run, &nruns, NULL, NULL, 1)
        if n < 0:
            self.raise_fault()
        return n > 0


cdef int split(object coordinates, uint64_t* words) except -1:
    """c0 and c1; what is beyond all coordinates is the last pair there could be, which no cell has."""
    coordinates = min(coordinates, (1 << 128) - 1)
    words[0] = coordinates >> 64
    words[1] = coordinates & (1 << 64) - 1
    return 0


cdef void merge_two(const Pair* a, const Pair* b, size_t n, Pair* merged) noexcept nogil:
    """n pairs of two lists that END stands behind, and END behind them; from `a` first where they are equal."""
    cdef const Pair* least
    cdef size_t i
    cdef bint later
    for i in range(n):
        later = b.c0 < a.c0
        least = a
        if later:
            least = b
        merged[i] = least[0]
        b += later
        a += not later
    merged[n].c0 = END


cdef list consume(Merge merge):
    """How many cells are left in each fragment, then in the buffers."""
    cdef CellAddress runs[256]
    cdef Py_ssize_t n = 1, part
    cdef size_t nruns = 0, i
    cdef uint64_t* sums = <uint64_t*>calloc(merge.snapshot.n + 1, sizeof(uint64_t))
    if sums == NULL:
        raise MemoryError
    try:
        while n > 0:
            part = 0
            with nogil:
                while n > 0 and part < CELLS:
                    n = merge.next(runs, &nruns, NULL, NULL, 256)
                    part += n
                    for i in range(nruns):
                        sums[min(<size_t>runs[i].fragment, merge.snapshot.n)] += runs[i].n
            PyErr_CheckSignals()
        if n < 0:
            merge.raise_fault()
        return [sums[i] for i in range(merge.snapshot.n + 1)]
    finally:
        free(sums)

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

from tilekv.kvcore.buffer cimport Entry, entry_key
from tilekv.kvcore.codec cimport OK
from tilekv.kvcore.coords cimport compare_keys
from tilekv.kvcore.fragment cimport Span, access_close, fragment_cell, fragment_coords, fragment_key, tile_cells, unpin
from tilekv.kvcore.layout cimport TOMBSTONE
from tilekv.kvcore.search cimport IN_BUFFER
from tilekv.kvcore.wire cimport out_bytes, out_free


cdef inline void source_place(Merge merge, uint32_t number, Place* place) noexcept nogil:
    """Where the head of a source is."""
    cdef const Source* source = &merge.sources[number]
    cdef const Entry* entry
    if source.fragment == NULL:
        entry = &merge.buffer.entries[source.cell]
        place.fragment = IN_BUFFER
        place.type = entry.type
        place.tile = <uint64_t>entry.record
        place.cell = entry.key_size
        return
    place.fragment = number - 1
    place.tile = source.tile
    place.cell = source.cell


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ follows pointers into the view's fragments
cdef class Merge:
    def __cinit__(self, View view not None, SortedBuffer buffer not None, bint tombstones=False):
        cdef uint32_t i
        cdef Source* source
        fragments = view.fragments                              # opens them all
        self.view = view
        self.buffer = buffer
        self.tombstones = tombstones
        self.nsources = view.n + 1
        self.sources = <Source*>calloc(self.nsources, sizeof(Source))
        self.heap = <uint32_t*>malloc(self.nsources * sizeof(uint32_t))
        if self.sources == NULL or self.heap == NULL:
            raise MemoryError
        for i in range(<uint32_t>self.nsources):
            source = &self.sources[i]
            if i == 0:
                if buffer.n == 0:
                    continue
                source.c0 = buffer.c0
                source.c1 = buffer.c1
                source.n = buffer.n
                source.may_delete = buffer.tombstones != 0
            else:
                source.fragment = view.at[i - 1]
                source.may_delete = fragments[i - 1].tombstones != 0
                if self._open_tile(i) < 0:
                    self.raise_fault()
            self.heap[self.nheap] = i
            self.nheap += 1
        for i in range(<uint32_t>self.nheap):
            self._sift(self.nheap - 1 - i)

    def __dealloc__(self):
        cdef size_t i
        if self.sources != NULL:
            for i in range(self.nsources):
                if self.sources[i].fragment != NULL:
                    unpin(self.sources[i].fragment, &self.sources[i].pins[0])
                    unpin(self.sources[i].fragment, &self.sources[i].pins[1])
        free(self.sources)
        free(self.heap)
        free(self.tied)
        out_free(&self.keys)
        if self.view is not None:
            access_close(&self.access, &self.view.codecs.pool)

    cdef raise_fault(self):
        # The cursor stands between two cells, or between two tiles: it is at its end from here on.
        self.nheap = self.ntied = self.tied_at = 0
        if self.fault_at == 0:
            raise MemoryError
        self.view.raise_fault(&self.access, self.fault_at - 1)

    cdef int _open_tile(self, uint32_t number) noexcept nogil:
        cdef Source* source = &self.sources[number]
        cdef int dimension
        self.fault_at = number
        for dimension in range(2):
            if fragment_coords(source.fragment, source.tile, dimension, &self.access, &source.pins[dimension]) != OK:
                return -1
        source.c0 = <const uint64_t*>source.pins[0].data
        source.c1 = <const uint64_t*>source.pins[1].data
        source.cell = 0
        source.n = tile_cells(source.fragment, source.tile)
        return 0

    cdef bint _before(self, uint32_t a, uint32_t b) noexcept nogil:
        cdef const Source* x = &self.sources[a]
        cdef const Source* y = &self.sources[b]
        if x.c0[x.cell] != y.c0[y.cell]:
            return x.c0[x.cell] < y.c0[y.cell]
        if x.c1[x.cell] != y.c1[y.cell]:
            return x.c1[x.cell] < y.c1[y.cell]
        return a < b

    cdef void _sift(self, size_t at) noexcept nogil:
        cdef uint32_t moving = self.heap[at]
        cdef size_t child
        while True:
            child = 2 * at + 1
            if child >= self.nheap:
                break
            if child + 1 < self.nheap and self._before(self.heap[child + 1], self.heap[child]):
                child += 1
            if self._before(moving, self.heap[child]):
                break
            self.heap[at] = self.heap[child]
            at = child
        self.heap[at] = moving

    cdef int _advance(self) noexcept nogil:
        """Past the least head."""
        cdef uint32_t number = self.heap[0]
        cdef Source* source = &self.sources[number]
        source.cell += 1
        if source.cell == source.n:
            if source.fragment != NULL:
                unpin(source.fragment, &source.pins[0])
                unpin(source.fragment, &source.pins[1])
                source.tile += 1
            if source.fragment == NULL or source.tile == source.fragment.ntiles:
                self.nheap -= 1
                self.heap[0] = self.heap[self.nheap]
                if self.nheap == 0:
                    return 0
            elif self._open_tile(number) < 0:
                return -1
        self._sift(0)
        return 0

    cdef int _deleted(self, uint32_t number, const Place* place) noexcept nogil:
        cdef Source* source = &self.sources[number]
        cdef Span span
        cdef bint deleted
        if self.tombstones or not source.may_delete:
            return 0
        if source.fragment == NULL:
            return (self.buffer.entries[source.cell].type & TOMBSTONE) != 0
        self.fault_at = number
        if fragment_cell(source.fragment, source.fragment.key_type, place.tile, place.cell, &self.access, &span) != OK:
            return -1
        deleted = (span.data[0] & TOMBSTONE) != 0
        unpin(source.fragment, &span.pin)
        return deleted

    cdef int _tie(self, uint64_t c0, uint64_t c1) noexcept nogil:
        """Take every cell with these coordinates; leave in `tied` the newest of each key that is not deleted, in key order."""
        cdef Source* source
        cdef Candidate* tied
        cdef KeyRef key
        cdef Span span
        cdef uint32_t number
        cdef int deleted
        cdef size_t i, kept = 0
        self.ntied = self.tied_at = self.keys.size = 0
        self.tied_c0 = c0
        self.tied_c1 = c1
        while self.nheap:
            number = self.heap[0]
            source = &self.sources[number]
            if source.c0[source.cell] != c0 or source.c1[source.cell] != c1:
                break
            self.fault_at = 0
            if self.ntied == self.tied_room:
                tied = <Candidate*>realloc(self.tied, (2 * self.tied_room + 4) * sizeof(Candidate))
                if tied == NULL:
                    return -1
                self.tied = tied
                self.tied_room = 2 * self.tied_room + 4
            tied = &self.tied[self.ntied]
            tied.source = number
            source_place(self, number, &tied.place)
            deleted = self._deleted(number, &tied.place)
            if deleted < 0:
                return -1
            if source.fragment == NULL:
                entry_key(&self.buffer.entries[source.cell], &tied.key)
                if out_bytes(&self.keys, tied.key.data, tied.key.size) < 0:
                    return -1
            else:
                self.fault_at = number
                if fragment_key(source.fragment, source.tile, source.cell, &self.access, &span, &tied.key) != OK:
                    return -1
                self.fault_at = 0
                if out_bytes(&self.keys, tied.key.data, tied.key.size) < 0:
                    unpin(source.fragment, &span.pin)
                    return -1
                unpin(source.fragment, &span.pin)
            tied.key_at = self.keys.size - tied.key.size
            tied.key.type = (tied.key.type & ~TOMBSTONE) | (TOMBSTONE if deleted else 0)
            self.ntied += 1
            if self._advance() < 0:
                return -1
        for i in range(self.ntied):
            self.tied[i].key.data = self.keys.data + self.tied[i].key_at
        sort_candidates(self.tied, self.ntied)
        for i in range(self.ntied):
            if i and compare_keys(&self.tied[i].key, &key) == 0:
                continue                                        # an older cell of the same key
            key = self.tied[i].key
            if not key.type & TOMBSTONE:
                self.tied[kept] = self.tied[i]
                kept += 1
        self.ntied = kept
        return 0

    cdef Py_ssize_t next(self, Place* places, uint64_t* out0, uint64_t* out1, size_t room) noexcept nogil:
        cdef size_t n = 0
        cdef uint32_t number
        cdef const Source* source
        cdef const Source* other
        cdef Place place
        cdef uint64_t c0, c1
        cdef size_t child
        cdef bint alone
        cdef int deleted
        while n < room:
            if self.tied_at < self.ntied:
                if places != NULL:
                    places[n] = self.tied[self.tied_at].place
                if out0 != NULL:
                    out0[n] = self.tied_c0
                if out1 != NULL:
                    out1[n] = self.tied_c1
                self.tied_at += 1
                n += 1
                continue
            if self.nheap == 0:
                break
            number = self.heap[0]
            source = &self.sources[number]
            c0 = source.c0[source.cell]
            c1 = source.c1[source.cell]
            alone = True
            if source.cell + 1 < source.n:
                alone = source.c0[source.cell + 1] != c0 or source.c1[source.cell + 1] != c1
            elif source.fragment != NULL and source.tile + 1 < source.fragment.ntiles:
                alone = source.fragment.leaves[4 * (source.tile + 1)] != c0
            for child in range(1, min(<size_t>3, self.nheap)):
                other = &self.sources[self.heap[child]]
                if other.c0[other.cell] == c0 and other.c1[other.cell] == c1:
                    alone = False
            if not alone:
                if self._tie(c0, c1) < 0:
                    return -1
                continue
            source_place(self, number, &place)
            deleted = self._deleted(number, &place)
            if deleted < 0 or self._advance() < 0:
                return -1
            if not deleted:
                if places != NULL:
                    places[n] = place
                if out0 != NULL:
                    out0[n] = c0
                if out1 != NULL:
                    out1[n] = c1
                n += 1
        return n

    @property
    def consumed(self):
        """How many cells of the fragments lie behind."""
        cdef size_t i
        cdef uint64_t total = 0
        cdef const Source* source
        for i in range(1, self.nsources):
            source = &self.sources[i]
            if source.tile == source.fragment.ntiles:
                total += source.fragment.cells
            else:
                total += source.tile * source.fragment.capacity + source.cell
        return total

    def stop(self):
        """Leave out all that is left."""
        self.nheap = self.ntied = self.tied_at = 0

    def count(self):
        """How many cells are left, consuming them: for len()."""
        cdef Py_ssize_t n, total = 0
        while True:
            with nogil:
                n = self.next(NULL, NULL, NULL, 1 << 20)
            if n < 0:
                self.raise_fault()
            if n == 0:
                return total
            total += n

    def live(self):
        """How many of the cells that are left stand in each fragment, newest first, consuming them; not of buffered ones."""
        cdef Place places[256]
        cdef Py_ssize_t n = 1, i
        cdef list counts = [0] * self.view.n
        cdef uint64_t* sums = <uint64_t*>calloc(self.view.n + 1, sizeof(uint64_t))
        if sums == NULL:
            raise MemoryError
        try:
            with nogil:
                while n > 0:
                    n = self.next(places, NULL, NULL, 256)
                    for i in range(n):
                        if places[i].fragment != IN_BUFFER:
                            sums[places[i].fragment] += 1
            if n < 0:
                self.raise_fault()
            for i in range(<Py_ssize_t>self.view.n):
                counts[i] = sums[i]
            return counts
        finally:
            free(sums)

    def any(self):
        """Whether a cell is left."""
        cdef Py_ssize_t n = self.next(NULL, NULL, NULL, 1)
        if n < 0:
            self.raise_fault()
        return n > 0


cdef inline bint candidate_before(const Candidate* a, const Candidate* b) noexcept nogil:
    cdef int difference = compare_keys(&a.key, &b.key)
    return difference < 0 or (difference == 0 and a.source < b.source)


cdef void sort_candidates(Candidate* items, size_t n) noexcept nogil:
    """Heap sort: usually two items, but an attacker of an MD5 store may bring thousands."""
    cdef size_t start = n // 2, end = n, root, child
    cdef Candidate item
    while end > 1:
        if start:
            start -= 1
        else:
            end -= 1
            item = items[end]
            items[end] = items[0]
            items[0] = item
        root = start
        item = items[root]
        while True:
            child = 2 * root + 1
            if child >= end:
                break
            if child + 1 < end and candidate_before(&items[child], &items[child + 1]):
                child += 1
            if not candidate_before(&item, &items[child]):
                break
            items[root] = items[child]
            root = child
        items[root] = item

cimport cython
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.signals cimport CELLS, check_signals
from tilekv.kvcore.base.wire cimport load64
from tilekv.kvcore.format.layout cimport KEY_FIELD, TOMBSTONE
from tilekv.kvcore.hashing.coords cimport (MOST_BUCKETS, Item, bucket_count, bucket_shift, compare_keys, count_buckets,
                                           fill_buckets, place_buckets, sort_buckets)
from tilekv.kvcore.hashing.digest cimport DigestKind, KeyRef, digest_keys
from tilekv.kvcore.write.memtable cimport SLOW_TO_FREE, entry_key

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef extern from "base/prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef enum:
    DIGESTED = 256              # keys at a time
    LINE = 64                   # bytes of memory that come together
    AHEAD = 12                  # cells: a line takes 100 ns to come
    MOST_AHEAD = 256            # bytes of a record that are asked for
    LEAST_SHARE = 1 << 15       # entries of a thread: two milliseconds, a thread takes a tenth of one to start


cdef enum:                      # the steps of sorting
    DIGEST, PLACE, ORDER


cdef int compare_entries(const void* log, uint32_t a, uint32_t b) noexcept nogil:
    cdef KeyRef left, right
    entry_key(&(<const Entry*>log)[a], &left)
    entry_key(&(<const Entry*>log)[b], &right)
    return compare_keys(&left, &right)


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ needs the buffer
cdef class SortedBuffer(CellSource):
    cdef int _sort(self, workers) except -1:
        cdef size_t n = self.buffer.n
        cdef Py_ssize_t shares = 1 if workers is None else workers.most
        cdef size_t i
        self.room = n
        self.reach = min(self.buffer.size // max(n, <size_t>1), <uint64_t>MOST_AHEAD)
        self._log = self.buffer.pin()
        self._pins = True
        self._nshares = max(min(<size_t>max(shares, 1), n // LEAST_SHARE), <size_t>1)
        self._shares = <Share*>calloc(self._nshares, sizeof(Share))
        self._places = <uint32_t*>malloc(self._nshares * MOST_BUCKETS * sizeof(uint32_t))
        self.c0 = <uint64_t*>tkv_pages_alloc(n * sizeof(uint64_t) + 1)
        self.c1 = <uint64_t*>tkv_pages_alloc(n * sizeof(uint64_t) + 1)
        self._items = <Item*>tkv_pages_alloc(n * sizeof(Item) + 1)
        if self._shares == NULL or self._places == NULL or self.c0 == NULL or self.c1 == NULL or self._items == NULL:
            raise MemoryError
        self.entries = <Entry*>self._items
        for i in range(self._nshares):
            self._shares[i].lo = n * i // self._nshares
            self._shares[i].hi = n * (i + 1) // self._nshares
        self._shift = bucket_shift(n)
        self._all(workers, DIGEST)
        place_buckets(self._places, self._nshares, self._shift)
        self._all(workers, PLACE)
        self._divide()
        self._all(workers, ORDER)
        with nogil:
            self._join()
        self._done()
        return 0

    cdef int _all(self, workers, int what) except -1:
        cdef _Step step = _Step.__new__(_Step)
        step.cells = self
        step.what = what
        if self._nshares == 1:
            step(0)
            return 0
        for _ in workers.map_all(step, range(self._nshares)):
            pass
        return 0

    cdef int _step(self, int what, size_t number) except -1 nogil:
        cdef Share* share = &self._shares[number]
        cdef uint32_t* places = self._places + number * MOST_BUCKETS
        if what == DIGEST:
            digest_log(self.buffer.layout.digest, self._log + share.lo, share.hi - share.lo,
                       self.c0 + share.lo, self.c1 + share.lo)
            count_buckets(self.c0, share.lo, share.hi, self._shift, places)
        elif what == PLACE:
            fill_buckets(self.c0, self.c1, share.lo, share.hi, self._shift, places, self._items)
        else:
            places = self._places + (self._nshares - 1) * MOST_BUCKETS
            sort_buckets(self._items, self.room, places, share.bucket, share.last, self._shift, compare_entries, self._log)
            self._keep_last(share)
        return 0

    cdef void _divide(self) noexcept nogil:
        """The buckets, so that shares have about as many cells."""
        cdef const uint32_t* ends = self._places + (self._nshares - 1) * MOST_BUCKETS
        cdef size_t buckets = bucket_count(self._shift), bucket = 0, i
        cdef Share* share
        for i in range(self._nshares):
            share = &self._shares[i]
            share.bucket = bucket
            share.start = ends[bucket - 1] if bucket else 0
            while bucket < buckets and (i + 1 == self._nshares or ends[bucket] <= share.hi):
                bucket += 1
            share.last = bucket
            share.end = ends[bucket - 1] if bucket else 0

    cdef int _keep_last(self, Share* share) except -1 nogil:
        """Equal keys stand in the order of the calls: the last of them is the cell."""
        cdef const Item* items = self._items + share.start
        cdef Entry* entries = <Entry*>items
        cdef size_t n = share.end - share.start, kept = 0, i
        cdef uint64_t* c0 = self.c0 + share.start
        cdef uint64_t* c1 = self.c1 + share.start
        cdef const Item* at
        cdef Entry entry
        for i in range(n):
            at = &items[i]
            if (i + 1) % CELLS == 0:
                check_signals()
            if i + AHEAD < n:
                tkv_prefetch(&self._log[at[AHEAD].index])
            if (i + 1 < n and at.c0 == at[1].c0 and at.c1 == at[1].c1
                    and compare_entries(self._log, at.index, at[1].index) == 0):
                continue
            entry = self._log[at.index]
            c0[kept] = at.c0
            c1[kept] = at.c1
            entries[kept] = entry
            share.tombstones += (entry.type & TOMBSTONE) != 0
            kept += 1
        share.kept = kept
        return 0

    cdef void _join(self) noexcept nogil:
        """What the shares kept, one after the other."""
        cdef Share* share
        cdef size_t i
        for i in range(self._nshares):
            share = &self._shares[i]
            if self.n < share.start:
                memmove(self.c0 + self.n, self.c0 + share.start, share.kept * sizeof(uint64_t))
                memmove(self.c1 + self.n, self.c1 + share.start, share.kept * sizeof(uint64_t))
            if share.start:
                memmove(self.entries + self.n, self._items + share.start, share.kept * sizeof(Entry))
            self.n += share.kept
            self.tombstones += share.tombstones

    cdef void _done(self) noexcept:
        """What was for sorting. Not before every thread is: one may still be at work when a signal has ended the wait for it."""
        if self._pins:
            self.buffer.unpin()
        self._pins = False
        free(self._places)
        free(self._shares)
        self._places = NULL
        self._shares = NULL

    def __dealloc__(self):
        self._done()
        if self.room * sizeof(Item) < SLOW_TO_FREE:
            self._free_all()
        else:
            with nogil:                                         # as of a Buffer
                self._free_all()

    cdef void _free_all(self) noexcept nogil:
        tkv_pages_free(self.c0, self.room * sizeof(uint64_t) + 1)
        tkv_pages_free(self.c1, self.room * sizeof(uint64_t) + 1)
        tkv_pages_free(self._items, self.room * sizeof(Item) + 1)

    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil:
        if c0 != NULL:
            memcpy(c0, self.c0 + lo, (hi - lo) * 8)
        if c1 != NULL:
            memcpy(c1, self.c1 + lo, (hi - lo) * 8)
        return 0

    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil:
        cdef uint32_t width = self.buffer.layout.slots[field].width
        cdef uint32_t place = self.buffer.places[field]
        cdef const Entry* entry
        cdef size_t i
        if field == self.buffer.layout.key_type:
            for i in range(lo, hi):
                out[i - lo] = self.entries[i].type
            return 0
        for i in range(lo, hi):
            entry = &self.entries[i]
            if i + AHEAD < self.n:
                tkv_prefetch(entry[AHEAD].record + entry[AHEAD].key_size + place)
            if entry.type & TOMBSTONE:
                memset(out, 0, width)
            else:
                memcpy(out, entry.record + entry.key_size + place, width)
            out += width
        return 0

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        cdef uint64_t end_at = self.buffer.fixed_bytes + 8 * <uint64_t>self.buffer.places[field]
        cdef bint first = self.buffer.places[field] == 0
        cdef const Entry* entry = self.entries + lo
        cdef const uint8_t* end
        cdef size_t i
        for i in range(hi - lo):
            if field == KEY_FIELD:
                out[i] = entry.key_size
            elif entry.type & TOMBSTONE:
                out[i] = 0
            else:
                end = entry.record + entry.key_size + end_at
                out[i] = load64(end) - (0 if first else load64(end - 8))
            if field != KEY_FIELD and lo + i + AHEAD < self.n:
                tkv_prefetch(entry[AHEAD].record + entry[AHEAD].key_size + end_at)
            entry += 1
        return 0

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        cdef uint64_t end_at = self.buffer.fixed_bytes + 8 * <uint64_t>self.buffer.places[field]
        cdef uint64_t data_at = self.buffer.fixed_bytes + 8 * <uint64_t>self.buffer.nvar
        cdef bint first = self.buffer.places[field] == 0
        cdef const Entry* entry = self.entries + cell
        cdef const uint8_t* data
        cdef uint64_t size, start, part
        while n:
            if cell + AHEAD < self.n:
                ask_for(entry[AHEAD].record + (0 if field == KEY_FIELD else entry[AHEAD].key_size),
                        min(entry[AHEAD].key_size, <uint32_t>MOST_AHEAD) if field == KEY_FIELD else self.reach)
            data = entry.record
            size = entry.key_size
            if field != KEY_FIELD:
                size = 0
                if not entry.type & TOMBSTONE:
                    data += entry.key_size
                    start = 0 if first else load64(data + end_at - 8)
                    size = load64(data + end_at) - start
                    data += data_at + start
            part = min(size - skip, n)
            memcpy(out, data + skip, part)
            out += part
            n -= part
            skip = 0
            cell += 1
            entry += 1
        return 0


cpdef SortedBuffer sort_buffer(Buffer buffer, workers=None):
    """The buffer's entries as the cells of a fragment, sorted by the threads of `workers`, or by this one."""
    cdef SortedBuffer cells = SortedBuffer.__new__(SortedBuffer)
    cells.buffer = buffer
    cells._sort(workers)
    return cells


@cython.final
cdef class _Step:
    """What a thread calls: a share of one step."""
    cdef SortedBuffer cells
    cdef int what

    def __call__(self, size_t share):
        with nogil:
            self.cells._step(self.what, share)


cdef inline void ask_for(const uint8_t* at, uint64_t n) noexcept nogil:
    """Records of neighbours in order are anywhere in the arena: each would be waited for. n: bytes, from `at` on."""
    cdef uint64_t k = 0
    while k <= n:
        tkv_prefetch(at + k)
        k += LINE


cdef int digest_log(DigestKind kind, const Entry* log, size_t n, uint64_t* c0, uint64_t* c1) except -1 nogil:
    """By blocks whose references stay in the first-level cache."""
    cdef KeyRef keys[DIGESTED]
    cdef size_t start = 0, i, block
    while start < n:
        block = min(<size_t>DIGESTED, n - start)
        for i in range(block):
            entry_key(&log[start + i], &keys[i])
        digest_keys(kind, keys, block, c0 + start, c1 + start)
        start += block
        if start % CELLS == 0:
            check_signals()
    return 0


tkv_refuse_bare(SortedBuffer)
tkv_refuse_bare(_Step)

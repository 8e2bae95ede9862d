cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from tilekv.errors import InvalidValueError

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.signals cimport CELLS, ROWS, check_signals
from tilekv.kvcore.base.wire cimport load64, store64
from tilekv.kvcore.format.layout cimport KEY_FIELD, NEVER, TOMBSTONE
from tilekv.kvcore.hashing.coords cimport (MOST_BUCKETS, Item, bucket_count, bucket_shift, compare_keys, count_buckets,
                                           fill_buckets, place_buckets, sort_buckets)
from tilekv.kvcore.hashing.digest cimport DigestKind, digest_keys, table_hash

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef extern from "base/prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef enum:
    FIRST_BLOCK = 1 << 12       # a handle that writes one key should not cost a megabyte
    LAST_BLOCK = 8 << 20        # blocks double up to here, from 2 MiB on with large pages; a larger record has its own
    LONGEST_KEY = 0xFFFFFFFF
    MOST_ENTRIES = 0xFFFFFFF0   # the table and the sort number them in 32 bits
    DIGESTED = 256              # keys at a time
    LINE = 64                   # bytes of memory that come together
    AHEAD = 12                  # cells: a line takes 100 ns to come
    MOST_AHEAD = 256            # bytes of a record that are asked for
    SLOW_TO_FREE = 8 << 20      # bytes: a tenth of a millisecond. Taking the GIL anew may cost five, when others want it
    LEAST_SHARE = 1 << 15       # entries of a thread: two milliseconds, a thread takes a tenth of one to start


cdef enum:                      # the steps of sorting
    DIGEST, PLACE, ORDER


@cython.final
cdef class Buffer:
    def __cinit__(self, Layout layout not None):
        cdef int f
        self.layout = layout
        self._block = FIRST_BLOCK
        self.places = <uint32_t*>calloc(layout.nf, sizeof(uint32_t))
        if self.places == NULL:
            raise MemoryError
        for f in range(1, layout.nf - 1):
            if layout.is_var(f):
                self.places[f] = self.nvar
                self.nvar += 1
            else:
                self.places[f] = self.fixed_bytes
                self.fixed_bytes += layout.slots[f].width
        if layout.expires >= 0:
            self.expires_at = self.places[layout.expires]
        if layout.nullable:
            self.valid_at = self.places[layout.first_valid]
        self.hidden = layout.expires >= 0 or layout.nullable > 0

    def __dealloc__(self):
        # Nobody reaches it any more. The system takes milliseconds to take back a large buffer, and others write meanwhile.
        if self.size < SLOW_TO_FREE:
            self._free_all()
        else:
            with nogil:
                self._free_all()

    cdef void _free_all(self) noexcept nogil:
        cdef size_t i
        for i in range(self._nblocks):
            tkv_pages_free(self._blocks[i].at, self._blocks[i].size)
        for i in range(self._nretired):
            free(self._retired[i])
        free(self._blocks)
        free(self._retired)
        free(self.entries)
        free(self.places)
        free(self._table)

    cdef uint8_t* _allocate(self, uint64_t n) noexcept nogil:
        cdef Block* blocks
        cdef Block block
        cdef uint8_t* at
        cdef bint alone
        if n > self._left:
            blocks = <Block*>realloc(self._blocks, (self._nblocks + 1) * sizeof(Block))
            if blocks == NULL:
                return NULL
            self._blocks = blocks
            alone = n > self._block // 2
            block.size = n if alone else self._block
            block.at = tkv_pages_alloc(block.size)
            if block.at == NULL:
                return NULL
            blocks[self._nblocks] = block
            self._nblocks += 1
            if alone:
                return <uint8_t*>block.at                       # the open block stays open
            self._free = <uint8_t*>block.at
            self._left = self._block
            self._block = min(self._block * 2, <uint64_t>LAST_BLOCK)
        at = self._free
        self._free += n
        self._left -= n
        return at

    cdef int _grow(self, size_t n) noexcept nogil:
        cdef size_t room = max(self._room * 2, self.n + n, <size_t>16)
        cdef Entry* entries
        if self.n + n <= self._room:
            return 0
        if self.n + n > MOST_ENTRIES:
            return -1
        if self._pins:
            entries = self._move(room)
        else:
            entries = <Entry*>realloc(self.entries, room * sizeof(Entry))
        if entries == NULL:
            return -1
        self.entries = entries
        self._room = room
        return 0

    cdef Entry* _move(self, size_t room) noexcept nogil:
        """A copy with more room; who has pinned the entries goes on reading the old ones."""
        cdef Entry** retired = <Entry**>realloc(self._retired, (self._nretired + 1) * sizeof(Entry*))
        cdef Entry* entries
        if retired == NULL:
            return NULL
        self._retired = retired
        entries = <Entry*>malloc(room * sizeof(Entry))
        if entries != NULL:
            memcpy(entries, self.entries, self.n * sizeof(Entry))
            retired[self._nretired] = self.entries
            self._nretired += 1
        return entries

    cdef const Entry* pin(self) noexcept:
        self._pins += 1
        return self.entries

    cdef void unpin(self) noexcept:
        self._pins -= 1

    cdef uint8_t* room(self, const KeyRef* key, bint delete, uint64_t row_size) noexcept nogil:
        cdef uint8_t* record
        if key.size > LONGEST_KEY or self._grow(1) < 0:
            return NULL
        record = self._allocate(max(key.size + row_size, <uint64_t>1))
        if record == NULL:
            return NULL
        memcpy(record, key.data, key.size)
        self.entries[self.n].record = record
        self.entries[self.n].key_size = <uint32_t>key.size
        self.entries[self.n].type = key.type | (TOMBSTONE if delete else 0)
        self.n += 1
        self.size += key.size + row_size + sizeof(Entry)
        if self.hidden and not delete:
            self._fill_hidden(record + key.size)
        return record + key.size

    cdef void _fill_hidden(self, uint8_t* row) noexcept nogil:
        if self.layout.expires >= 0:
            store64(row + self.expires_at, <uint64_t>NEVER)
        memset(row + self.valid_at, 1, self.layout.nullable)

    cdef int refuse(self, const KeyRef* key, uint64_t row_size) except -1:
        if key.size > LONGEST_KEY:
            raise InvalidValueError(f"a key of {key.size} bytes; the longest is {<uint64_t>LONGEST_KEY:,}")
        self._check_count(1)
        raise MemoryError(f"no memory for a record of {key.size + row_size} bytes")

    cdef int _check_count(self, size_t n) except -1:
        if self.n + n > MOST_ENTRIES:
            raise InvalidValueError(f"more than {<uint64_t>MOST_ENTRIES:,} entries between two flushes")
        return 0

    cdef uint8_t* add(self, const KeyRef* key, bint delete, uint64_t row_size) except NULL:
        cdef uint8_t* row = self.room(key, delete, row_size)
        if row == NULL:
            self.refuse(key, row_size)
        return row

    cdef void expire(self, size_t first, const int64_t* moments, size_t n) noexcept nogil:
        cdef size_t i
        cdef uint8_t* row
        for i in range(first, self.n):
            row = <uint8_t*>self.entries[i].record + self.entries[i].key_size
            if not self.entries[i].type & TOMBSTONE:
                store64(row + self.expires_at, <uint64_t>moments[0 if n == 1 else i - first])

    cdef int64_t expires(self, const Entry* entry) noexcept nogil:
        if self.layout.expires < 0:
            return NEVER
        return <int64_t>load64(entry.record + entry.key_size + self.expires_at)

    cdef int absorb(self, Buffer other) except -1:
        cdef Block* blocks
        self._check_count(other.n)
        if self.n and self._grow(other.n) < 0:
            raise MemoryError
        blocks = <Block*>realloc(self._blocks, (self._nblocks + other._nblocks + 1) * sizeof(Block))
        if blocks == NULL:
            raise MemoryError
        self._blocks = blocks
        if other._nblocks:
            memcpy(blocks + self._nblocks, other._blocks, other._nblocks * sizeof(Block))
        if self.n == 0:
            self.entries, other.entries = other.entries, self.entries
            self._room, other._room = other._room, self._room
        elif other.n:
            memcpy(self.entries + self.n, other.entries, other.n * sizeof(Entry))
        self._nblocks += other._nblocks
        self.n += other.n
        self.size += other.size
        if other._left > self._left:
            self._free = other._free
            self._left = other._left
        self._block = max(self._block, other._block)
        other._nblocks = other.n = other._left = other.size = 0
        return 0

    cdef uint64_t _slot(self, const KeyRef* key) noexcept nogil:
        """Where the key is in the table, or the free slot where it belongs."""
        cdef uint64_t at = table_hash(key) & self._mask
        cdef KeyRef other
        while self._table[at]:
            entry_key(&self.entries[self._table[at] - 1], &other)
            if other.size == key.size and compare_keys(&other, key) == 0:
                break
            at = (at + 1) & self._mask
        return at

    cdef int _index(self) except -1:
        cdef uint64_t slots = max(self._mask + 1, <uint64_t>64), at
        cdef size_t n = self.n                                  # there is room for these; a signal's handler may add more
        cdef uint32_t* table
        cdef KeyRef key
        if self._table == NULL or 2 * (self._used + n - self._indexed) > self._mask:
            while slots < 3 * (self._used + n - self._indexed):
                slots *= 2
            table = <uint32_t*>calloc(slots, sizeof(uint32_t))
            if table == NULL:
                raise MemoryError
            free(self._table)
            self._table = table
            self._mask = slots - 1
            self._indexed = self._used = 0
        while self._indexed < n:
            entry_key(&self.entries[self._indexed], &key)
            at = self._slot(&key)
            self._used += self._table[at] == 0
            self._indexed += 1
            self._table[at] = <uint32_t>self._indexed
            if self._indexed % ROWS == 0:
                PyErr_CheckSignals()
        return 0

    cdef int find(self, const KeyRef* key, const Entry** entry) except -1:
        cdef uint32_t number
        entry[0] = NULL
        if self.n == 0:
            return 0
        while self._indexed < self.n:
            self._index()
        number = self._table[self._slot(key)]
        if number:
            entry[0] = &self.entries[number - 1]
        return 0

    cdef void field(self, const Entry* entry, int field, const uint8_t** data, uint64_t* size) noexcept nogil:
        cdef const uint8_t* row = entry.record + entry.key_size
        cdef const uint8_t* ends = row + self.fixed_bytes
        cdef uint32_t place = self.places[field]
        cdef uint64_t start
        if not self.layout.is_var(field):
            data[0] = row + place
            size[0] = self.layout.slots[field].width
            return
        start = load64(ends + 8 * (place - 1)) if place else 0
        data[0] = ends + 8 * self.nvar + start
        size[0] = load64(ends + 8 * place) - start


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

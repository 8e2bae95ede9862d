cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from tilekv.errors import InvalidValueError

from tilekv.kvcore.coords cimport Item, compare_keys, sort_cells
from tilekv.kvcore.digest cimport DigestKind, digest_keys, table_hash
from tilekv.kvcore.layout cimport KEY_FIELD, TOMBSTONE
from tilekv.kvcore.signals cimport CELLS, ROWS, check_signals
from tilekv.kvcore.wire cimport load64

cdef extern from "pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef extern from "prefetch.h" nogil:
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

    def __dealloc__(self):
        cdef size_t i
        for i in range(self._nblocks):
            tkv_pages_free(self._blocks[i].at, self._blocks[i].size)
        free(self._blocks)
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
        entries = <Entry*>realloc(self.entries, room * sizeof(Entry))
        if entries == NULL:
            return -1
        self.entries = entries
        self._room = room
        return 0

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
        return record + key.size

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
cdef class SortedBuffer(CellSource):
    def __cinit__(self, Buffer buffer not None):
        """Digests, sorts and keeps the last entry of every key: the GIL is not held."""
        cdef size_t n = buffer.n
        # `entries` may move when somebody writes meanwhile, so the copy is taken first. It is sorted below.
        cdef Entry* log = <Entry*>tkv_pages_alloc(n * sizeof(Entry) + 1)
        self.buffer = buffer
        self.reach = min(buffer.size // max(n, <size_t>1), <uint64_t>MOST_AHEAD)
        if log == NULL:
            raise MemoryError
        if n:
            memcpy(log, buffer.entries, n * sizeof(Entry))
        try:
            with nogil:
                self._sort(log, n)
        finally:
            tkv_pages_free(log, n * sizeof(Entry) + 1)

    cdef int _sort(self, const Entry* log, size_t n) except -1 nogil:
        """The arrays of coordinates hold those of the log first: they are free again once the items are made of them."""
        cdef Item* items = <Item*>tkv_pages_alloc(n * sizeof(Item) + 1)
        self.room = n
        self.c0 = <uint64_t*>tkv_pages_alloc(n * sizeof(uint64_t) + 1)
        self.c1 = <uint64_t*>tkv_pages_alloc(n * sizeof(uint64_t) + 1)
        self.entries = <Entry*>tkv_pages_alloc(n * sizeof(Entry) + 1)
        try:
            if items == NULL or self.c0 == NULL or self.c1 == NULL or self.entries == NULL:
                raise MemoryError
            digest_log(self.buffer.layout.digest, log, n, self.c0, self.c1)
            sort_cells(self.c0, self.c1, n, compare_entries, log, items)
            self._keep_last(log, items, n)
        finally:
            tkv_pages_free(items, n * sizeof(Item) + 1)
        return 0

    cdef int _keep_last(self, const Entry* log, const Item* items, size_t n) except -1 nogil:
        """Equal keys stand in the order of the calls: the last of them is the cell."""
        cdef size_t i, kept = 0
        cdef const Item* at
        cdef const Entry* entry
        for i in range(n):
            at = &items[i]
            if (i + 1) % CELLS == 0:
                check_signals()
            if i + AHEAD < n:
                tkv_prefetch(&log[at[AHEAD].index])
            if i + 1 < n and at.c0 == at[1].c0 and at.c1 == at[1].c1 and compare_entries(log, at.index, at[1].index) == 0:
                continue
            entry = &log[at.index]
            self.c0[kept] = at.c0
            self.c1[kept] = at.c1
            self.entries[kept] = entry[0]
            self.tombstones += (entry.type & TOMBSTONE) != 0
            kept += 1
        self.n = kept
        return 0

    def __dealloc__(self):
        tkv_pages_free(self.c0, self.room * sizeof(uint64_t) + 1)
        tkv_pages_free(self.c1, self.room * sizeof(uint64_t) + 1)
        tkv_pages_free(self.entries, self.room * sizeof(Entry) + 1)

    def __len__(self):
        return self.n

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

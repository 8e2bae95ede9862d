cimport cython
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from tilekv.errors import InvalidValueError

from tilekv.kvcore.coords cimport compare_keys, sort_cells
from tilekv.kvcore.digest cimport digest_keys, table_hash
from tilekv.kvcore.layout cimport TOMBSTONE
from tilekv.kvcore.wire cimport load64

cdef enum:
    FIRST_BLOCK = 1 << 12       # a handle that writes one key should not cost a megabyte
    LAST_BLOCK = 1 << 20        # blocks double up to here; a larger record has a block of its own


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
            free(self._blocks[i])
        free(self._blocks)
        free(self.entries)
        free(self.places)
        free(self._table)

    cdef uint8_t* _allocate(self, uint64_t n) except NULL:
        cdef void** blocks
        cdef void* block
        cdef uint8_t* at
        cdef bint alone
        if n > self._left:
            blocks = <void**>realloc(self._blocks, (self._nblocks + 1) * sizeof(void*))
            if blocks == NULL:
                raise MemoryError
            self._blocks = blocks
            alone = n > self._block // 2
            block = malloc(n if alone else self._block)
            if block == NULL:
                raise MemoryError(f"no memory for a record of {n} bytes")
            blocks[self._nblocks] = block
            self._nblocks += 1
            if alone:
                return <uint8_t*>block                          # the open block stays open
            self._free = <uint8_t*>block
            self._left = self._block
            self._block = min(self._block * 2, <uint64_t>LAST_BLOCK)
        at = self._free
        self._free += n
        self._left -= n
        return at

    cdef int _grow(self, size_t n) except -1:
        cdef size_t room = max(self._room * 2, self.n + n, <size_t>16)
        cdef Entry* entries
        if self.n + n <= self._room:
            return 0
        if self.n + n > 0xFFFFFFF0:
            raise InvalidValueError("more than 4,294,967,280 entries between two flushes")
        entries = <Entry*>realloc(self.entries, room * sizeof(Entry))
        if entries == NULL:
            raise MemoryError
        self.entries = entries
        self._room = room
        return 0

    cdef uint8_t* add(self, const KeyRef* key, bint delete, uint64_t row_size) except NULL:
        cdef uint8_t* record
        if key.size > 0xFFFFFFFF:
            raise InvalidValueError(f"a key of {key.size} bytes; the longest is 4,294,967,295")
        self._grow(1)
        record = self._allocate(max(key.size + row_size, <uint64_t>1))
        memcpy(record, key.data, key.size)
        self.entries[self.n].record = record
        self.entries[self.n].key_size = <uint32_t>key.size
        self.entries[self.n].type = key.type | (TOMBSTONE if delete else 0)
        self.n += 1
        self.size += key.size + row_size + sizeof(Entry)
        return record + key.size

    cdef int absorb(self, Buffer other) except -1:
        cdef void** blocks
        self._grow(other.n)
        blocks = <void**>realloc(self._blocks, (self._nblocks + other._nblocks + 1) * sizeof(void*))
        if blocks == NULL:
            raise MemoryError
        self._blocks = blocks
        if other._nblocks:
            memcpy(blocks + self._nblocks, other._blocks, other._nblocks * sizeof(void*))
        if other.n:
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
        cdef uint32_t* table
        cdef KeyRef key
        if self._table == NULL or 2 * (self._used + self.n - self._indexed) > self._mask:
            while slots < 3 * (self._used + self.n - self._indexed):
                slots *= 2
            table = <uint32_t*>calloc(slots, sizeof(uint32_t))
            if table == NULL:
                raise MemoryError
            free(self._table)
            self._table = table
            self._mask = slots - 1
            self._indexed = self._used = 0
        while self._indexed < self.n:
            entry_key(&self.entries[self._indexed], &key)
            at = self._slot(&key)
            self._used += self._table[at] == 0
            self._indexed += 1
            self._table[at] = <uint32_t>self._indexed
        return 0

    cdef int find(self, const KeyRef* key, const Entry** entry) except -1:
        cdef uint32_t number
        entry[0] = NULL
        if self.n == 0:
            return 0
        if self._indexed < self.n:
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


@cython.final
cdef class SortedBuffer(CellSource):
    def __cinit__(self, Buffer buffer not None):
        """Digests, sorts and keeps the last entry of every key: the GIL is not held."""
        cdef int status
        self.buffer = buffer
        cdef size_t n = buffer.n
        # `entries` may move when somebody writes meanwhile, so the copy is taken first. It is sorted below.
        cdef Entry* log = <Entry*>malloc(n * sizeof(Entry) + 1)
        if log == NULL:
            raise MemoryError
        if n:
            memcpy(log, buffer.entries, n * sizeof(Entry))
        with nogil:
            status = self._sort(log, n)
            free(log)
        if status < 0:
            raise MemoryError

    cdef int _sort(self, const Entry* log, size_t n) noexcept nogil:
        cdef KeyRef* keys = <KeyRef*>malloc(n * sizeof(KeyRef) + 1)
        cdef uint64_t* c0 = <uint64_t*>malloc(2 * n * sizeof(uint64_t) + 1)
        cdef uint64_t* c1 = c0 + n
        cdef uint32_t* order = <uint32_t*>malloc(n * sizeof(uint32_t) + 1)
        cdef size_t i, kept = 0
        cdef uint32_t at, after
        cdef int status = -1
        self.c0 = <uint64_t*>malloc(n * sizeof(uint64_t) + 1)
        self.c1 = <uint64_t*>malloc(n * sizeof(uint64_t) + 1)
        self.entries = <Entry*>malloc(n * sizeof(Entry) + 1)
        if keys != NULL and c0 != NULL and order != NULL and self.c0 != NULL and self.c1 != NULL and self.entries != NULL:
            for i in range(n):
                entry_key(&log[i], &keys[i])
            digest_keys(self.buffer.layout.digest, keys, n, c0, c1)
            status = sort_cells(c0, c1, keys, n, order)
        if status == 0:
            for i in range(n):
                at = order[i]
                if i + 1 < n:
                    after = order[i + 1]
                    if c0[at] == c0[after] and c1[at] == c1[after] and compare_keys(&keys[at], &keys[after]) == 0:
                        continue                                # equal keys stand in the order of the calls: the last is kept
                self.c0[kept] = c0[at]
                self.c1[kept] = c1[at]
                self.entries[kept] = log[at]
                self.tombstones += (log[at].type & TOMBSTONE) != 0
                kept += 1
        self.n = kept
        free(keys)
        free(c0)
        free(order)
        return status

    def __dealloc__(self):
        free(self.c0)
        free(self.c1)
        free(self.entries)

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
            if entry.type & TOMBSTONE:
                memset(out, 0, width)
            else:
                memcpy(out, entry.record + entry.key_size + place, width)
            out += width
        return 0

    cdef void _cell(self, int field, size_t i, const uint8_t** data, uint64_t* size) noexcept nogil:
        cdef const Entry* entry = &self.entries[i]
        data[0] = entry.record
        size[0] = entry.key_size
        if field != 0:
            if entry.type & TOMBSTONE:
                size[0] = 0
            else:
                self.buffer.field(entry, field, data, size)

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        cdef const uint8_t* data = NULL
        cdef size_t i
        for i in range(lo, hi):
            self._cell(field, i, &data, &out[i - lo])
        return 0

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        cdef const uint8_t* data = NULL
        cdef uint64_t size = 0, part
        while n:
            self._cell(field, cell, &data, &size)
            part = min(size - skip, n)
            memcpy(out, data + skip, part)
            out += part
            n -= part
            skip = 0
            cell += 1
        return 0

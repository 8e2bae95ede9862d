cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from tilekv.errors import InvalidValueError

from tilekv.kvcore.base.signals cimport ROWS
from tilekv.kvcore.base.wire cimport load64, store64
from tilekv.kvcore.format.layout cimport NEVER, TOMBSTONE
from tilekv.kvcore.hashing.coords cimport compare_keys
from tilekv.kvcore.hashing.digest cimport table_hash

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef enum:
    FIRST_BLOCK = 1 << 12       # a handle that writes one key should not cost a megabyte
    LAST_BLOCK = 8 << 20        # blocks double up to here, from 2 MiB on with large pages; a larger record has its own
    LONGEST_KEY = 0xFFFFFFFF
    MOST_ENTRIES = 0xFFFFFFF0   # the table and the sort number them in 32 bits


cdef inline uint8_t* allocate(Buffer buffer, uint64_t n) noexcept nogil:
    """n bytes that never move. No method: gcc would inline it, or not, by how long the module is."""
    cdef uint8_t* at = buffer._free
    if n > buffer._left:
        return buffer._open_block(n)
    buffer._free += n
    buffer._left -= n
    return at


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

    cdef uint8_t* _open_block(self, uint64_t n) noexcept nogil:
        """n bytes of a new block."""
        cdef Block* blocks = <Block*>realloc(self._blocks, (self._nblocks + 1) * sizeof(Block))
        cdef Block block
        cdef bint alone = n > self._block // 2
        if blocks == NULL:
            return NULL
        self._blocks = blocks
        block.size = n if alone else self._block
        block.at = tkv_pages_alloc(block.size)
        if block.at == NULL:
            return NULL
        blocks[self._nblocks] = block
        self._nblocks += 1
        if alone:
            return <uint8_t*>block.at                           # the open block stays open
        self._free = <uint8_t*>block.at + n
        self._left = self._block - n
        self._block = min(self._block * 2, <uint64_t>LAST_BLOCK)
        return <uint8_t*>block.at

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
        record = allocate(self, max(key.size + row_size, <uint64_t>1))
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

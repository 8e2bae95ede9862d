cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.batch.readers cimport make_batch, make_rows
from tilekv.kvcore.batch.results cimport column_of, into_array, sealed, with_validity
from tilekv.kvcore.read.address cimport IN_BUFFER, CellAddress, entry_at
from tilekv.kvcore.read.lookup cimport Lookup, LookupPipeline
from tilekv.kvcore.read.snapshot cimport BLOCK, DEFERRED, PRESENT
from tilekv.kvcore.values.column cimport KIND_BYTES, Column
from tilekv.kvcore.values.input_cells cimport Cells, count_cells, kept_keys
from tilekv.kvcore.write.memtable cimport Entry


# --- as objects ---------------------------------------------------------------------------------------------------------

@cython.final
cdef class Resident:
    """Where a block of values is in memory, column by column."""
    cdef tuple columns
    cdef tuple every            # the columns, and behind them the validity of those that may have nulls
    cdef bint bare              # a value is that of the only column, else a dict
    cdef Py_ssize_t width
    cdef const uint8_t** data   # BLOCK for each of them
    cdef uint64_t* sizes

    def __cinit__(self, tuple columns not None, bint bare):
        self.columns = columns
        self.every = with_validity(columns)
        self.bare = bare
        self.width = len(self.every)
        self.data = <const uint8_t**>malloc((self.width + 1) * BLOCK * sizeof(void*))
        self.sizes = <uint64_t*>malloc((self.width + 1) * BLOCK * sizeof(uint64_t))
        if self.data == NULL or self.sizes == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.data)
        free(self.sizes)

    cdef bint has(self, size_t i) noexcept:
        cdef Py_ssize_t k
        for k in range(self.width):
            if self.data[k * BLOCK + i] == NULL:
                return False
        return True

    cdef object row(self, size_t i):
        cdef Column column
        cdef Py_ssize_t k = 0
        if self.width > len(self.columns):
            return self.row_of_nulls(i)
        if self.bare:
            column = self.columns[0]
            if column.kind == KIND_BYTES:
                return PyBytes_FromStringAndSize(<const char*>self.data[i], self.sizes[i])
            return column.load(self.data[i], self.sizes[i])
        row = {}
        for column in self.columns:
            row[column.name] = column.load(self.data[k * BLOCK + i], self.sizes[k * BLOCK + i])
            k += 1
        return row

    cdef object row_of_nulls(self, size_t i):
        """row() where a column may have nulls."""
        cdef Column column
        cdef Py_ssize_t k = 0, valid = len(self.columns)
        row = {}
        value = None
        for column in self.columns:
            value = None
            if not column.valid or self.data[valid * BLOCK + i][0]:
                value = column.load(self.data[k * BLOCK + i], self.sizes[k * BLOCK + i])
            row[column.name] = value
            valid += column.valid != 0
            k += 1
        return value if self.bare else row


cdef size_t append_block(Lookup lookup, Resident values, size_t start, size_t n, object default, list result, int64_t* later,
                         uint64_t* where) except <size_t>-1:
    """The values that are in memory, and the default in place of all others. Those of them that are to be read later go into
    `later`, by their number in the lookup, and what they are read in the order of into `where`: c0, or 0 for what is buffered
    and may have no digest. Returns how many they are."""
    cdef Snapshot snapshot = lookup.snapshot
    cdef Column column
    cdef size_t i, k = 0, late = 0
    cdef int epoch = cache_enter(&snapshot.cache.cache)
    try:
        for column in values.every:
            snapshot.resolve(column.field, n, lookup.found + start, lookup.addresses + start, values.data + k * BLOCK,
                             values.sizes + k * BLOCK)
            k += 1
        for i in range(n):
            if lookup.found[start + i] == PRESENT and values.has(i):
                result.append(values.row(i))
                continue
            if lookup.found[start + i] == PRESENT or lookup.found[start + i] == DEFERRED:
                later[late] = <int64_t>(start + i)
                where[late] = 0 if lookup.addresses[start + i].fragment == IN_BUFFER else lookup.c0[start + i]
                late += 1
            result.append(default)
    finally:
        cache_exit(&snapshot.cache.cache, epoch)
    return late


cdef int append_rows(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, bint bare, Cells keys, object default,
                     list result, bint threaded, int64_t now) except -1:
    """First what is in memory already, in the order asked. What is left is looked up again in the order of digests, in which it
    is stored: each chunk is decoded once, however small the cache is."""
    cdef size_t n = keys.n, start = 0, at, late = 0, found, i
    cdef Py_ssize_t first = len(result)
    cdef int64_t[::1] later = np.empty(n + 1, np.int64)
    cdef uint64_t[::1] where = np.empty(n + 1, np.uint64)
    cdef Lookup lookup
    cdef Resident values = Resident(columns, bare)
    cdef LookupPipeline pipeline
    snapshot.expect(n)
    pipeline = LookupPipeline(snapshot, buffer, frozen, [keys], True, threaded, now)
    while True:
        lookup = pipeline.next()
        if lookup is None:
            break
        for at in range(0, lookup.n, BLOCK):
            found = append_block(lookup, values, at, min(<size_t>BLOCK, lookup.n - at), default, result, &later[late],
                                 &where[late])
            for i in range(late, late + found):
                later[i] += start
            late += found
        start += lookup.n
    if late == 0:
        return 0
    later = np.asarray(later[:late])[np.argsort(where[:late])]
    pipeline = LookupPipeline(snapshot, buffer, frozen, [keys], False, threaded, now)
    pipeline.order(&later[0], late)
    start = 0
    while True:
        lookup = pipeline.next()
        if lookup is None:
            return 0
        rows = make_rows(snapshot, buffer, columns, bare, lookup.addresses, lookup.found, lookup.n)
        for i in range(lookup.n):
            if lookup.found[i] == PRESENT:
                result[first + later[start + i]] = rows[i]
        start += lookup.n


# --- as columns ---------------------------------------------------------------------------------------------------------

cdef enum:
    LEAP = 64 << 20             # bytes that a column may be given more than twice what it needs

cdef enum Outcome:
    TAKEN = 0
    FULL = 1                    # `need` bytes are wanted
    ELSEWHERE = 2               # a cell is not in memory


@cython.final
cdef class ColumnBuilder:
    """A column of n cells while it is filled with what is in memory, cell after cell."""
    cdef Column column
    cdef size_t n, done         # cells
    cdef uint64_t width         # bytes of a cell, 0 when they vary
    cdef uint64_t used, room, need      # bytes
    cdef object data, offsets
    cdef uint8_t* out
    cdef int64_t* ends          # NULL with a width
    cdef bint failed            # not all of it was in memory

    def __cinit__(self, Column column not None, size_t n):
        self.column = column
        self.n = n
        self.width = column.width
        if self.width == 0:
            self.offsets = np.empty(n + 1, np.int64)
            self.ends = <int64_t*>into_array(self.offsets)
            self.ends[0] = 0
            self.ends += 1
        self._move(n * self.width)

    cdef int _grow(self) except -1:
        """Cells to come are taken to be like those that came, and a little larger; but for one large cell not all are."""
        cdef double like = <double>self.need / <double>(self.done + BLOCK) * <double>(self.n + BLOCK)
        return self._move(<uint64_t>min(1.05 * like, <double>max(2 * self.need, <uint64_t>LEAP)) + 1)

    cdef int _move(self, uint64_t room) except -1:
        cdef object data = np.empty(room, np.uint8)
        cdef uint8_t* out = into_array(data)
        if self.used:
            memcpy(out, self.out, self.used)
        self.data = data
        self.out = out
        self.room = room
        return 0

    cdef int take(self, Lookup lookup) except -1:
        """All cells of a lookup, or none any more when one of them is not in memory."""
        cdef size_t at = 0
        cdef Outcome outcome
        while not self.failed and at < lookup.n:
            with nogil:
                outcome = self._blocks(lookup, &at)
            if outcome == ELSEWHERE:
                self.failed = True
                self.data = self.offsets = None
            elif outcome == FULL:
                self._grow()
        return 0

    cdef Outcome _blocks(self, Lookup lookup, size_t* at) noexcept nogil:
        cdef size_t n
        cdef int epoch
        cdef Outcome outcome
        while at[0] < lookup.n:
            n = min(<size_t>BLOCK, lookup.n - at[0])
            epoch = cache_enter(&lookup.snapshot.cache.cache)
            outcome = self._block(lookup, at[0], n)
            cache_exit(&lookup.snapshot.cache.cache, epoch)
            if outcome != TAKEN:
                return outcome
            at[0] += n
            self.done += n
        return TAKEN

    cdef Outcome _block(self, Lookup lookup, size_t start, size_t n) noexcept nogil:
        cdef const uint8_t* data[BLOCK]
        cdef uint64_t sizes[BLOCK]
        cdef uint64_t total = 0
        cdef const CellAddress* address
        cdef Entry entry
        cdef uint8_t* out
        cdef size_t i
        lookup.snapshot.resolve(self.column.field, n, lookup.found + start, lookup.addresses + start, data, sizes)
        for i in range(n):
            address = &lookup.addresses[start + i]
            if lookup.found[start + i] != PRESENT:
                sizes[i] = self.width
            elif address.fragment == IN_BUFFER:
                entry = entry_at(address)
                lookup.buffer.field(&entry, self.column.field, &data[i], &sizes[i])
            elif data[i] == NULL:
                return ELSEWHERE
            total += sizes[i]
        self.need = self.used + total
        if self.need > self.room:
            return FULL
        out = self.out + self.used
        for i in range(n):
            if data[i] != NULL:
                memcpy(out, data[i], sizes[i])
            else:
                memset(out, 0, sizes[i])
            out += sizes[i]
            if self.ends != NULL:
                self.ends[self.done + i] = out - self.out
        self.used = self.need
        return TAKEN

    cdef object array(self):
        """The column, as batch/readers makes those that it reads."""
        if self.width == 0:
            self.data.resize(self.used, refcheck=False)
        return column_of(self.column, self.n, self.offsets, self.data)


cdef Batch look_up_batch(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, list pieces, bint mask,
                         bint threaded, int64_t now):
    """Columns are filled while the next part is looked up, as long as all of one is in memory. Of the others the cells are taken
    in the order in which they are stored, once it is known where they all are."""
    cdef size_t n = count_cells(pieces), i, at = 0
    cdef uint8_t[::1] held = np.empty((n + 1) * sizeof(CellAddress), np.uint8)
    cdef CellAddress* addresses = <CellAddress*>&held[0]
    cdef int[::1] found = np.empty(n + 1, np.intc)
    cdef Lookup lookup
    cdef ColumnBuilder builder
    cdef LookupPipeline pipeline
    cdef Batch batch
    cdef Cells cells
    cdef list builders = [ColumnBuilder(column, n) for column in with_validity(columns)]
    snapshot.expect(n)
    # The batch keeps the keys, and an array may be filled with others.
    pieces = [kept_keys(cells) for cells in pieces]
    pipeline = LookupPipeline(snapshot, buffer, frozen, pieces, False, threaded, now)
    while True:
        lookup = pipeline.next()
        if lookup is None:
            break
        if not mask:
            for i in range(lookup.n):
                if lookup.found[i] != PRESENT:
                    raise lookup.not_found(i)
        memcpy(&addresses[at], lookup.addresses, lookup.n * sizeof(CellAddress))
        memcpy(&found[at], lookup.found, lookup.n * sizeof(int))
        at += lookup.n
        for builder in builders:
            builder.take(lookup)
    batch = make_batch(snapshot, buffer, columns, addresses, &found[0], n, pieces,
                       {builder.column.name: builder.array() for builder in builders if not builder.failed})
    batch.found = sealed(np.asarray(found)[:n] == PRESENT, np.bool_, n)
    return batch

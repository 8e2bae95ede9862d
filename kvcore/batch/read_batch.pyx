cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.base.memory cimport PooledMemory, new_memory
from tilekv.kvcore.base.wire cimport Out, load64, out_free, out_room, store64
from tilekv.kvcore.batch.readers cimport make_batch
from tilekv.kvcore.batch.results cimport column_of, into_array, sealed, wanted_fields
from tilekv.kvcore.read.address cimport IN_BUFFER, CellAddress, entry_at
from tilekv.kvcore.read.batch_lookup cimport Continuation, Lookup, LookupPipeline
from tilekv.kvcore.read.snapshot cimport BLOCK, FIELDS, PRESENT, FieldRef, null_cell, plain_field
from tilekv.kvcore.values.input_cells cimport Cells, count_cells, kept_keys
from tilekv.kvcore.values.values cimport Column
from tilekv.kvcore.write.memtable cimport Entry

cdef enum:
    LEAP = 64 << 20             # bytes that a column may be given more than twice what it needs
    PART_BYTES = 4 << 20        # that the cells of a part have together before the caller takes the rest from where it is

cdef int64_t ELSEWHERE = -1     # a cell is not in memory


# --- blocks of cells ----------------------------------------------------------------------------------------------------

cdef int64_t fill_in(Lookup lookup, int field, uint64_t width, size_t start, size_t n, const uint8_t** data,
                     uint64_t* sizes) noexcept nogil:
    """Adds to what Snapshot.resolve() has found of a field what a buffer has, and the sizes of what is not there or null. Returns
    the bytes of all, or ELSEWHERE."""
    cdef int64_t total = 0
    cdef const CellAddress* address
    cdef Entry entry
    cdef size_t i
    for i in range(n):
        if data[i] == NULL:
            address = &lookup.addresses[start + i]
            if lookup.found[start + i] != PRESENT or sizes[i] == null_cell():
                sizes[i] = width
            elif address.fragment == IN_BUFFER:
                entry = entry_at(address)
                lookup.buffer.field(&entry, field, &data[i], &sizes[i])
            else:
                return ELSEWHERE
        total += sizes[i]
    return total


cdef void copy_cells(const uint8_t** data, const uint64_t* sizes, size_t n, uint64_t width, uint8_t* out) noexcept nogil:
    """One after the other, zeros where there is none."""
    cdef size_t i
    if width == 8:
        for i in range(n):
            store64(out + 8 * i, load64(data[i]) if data[i] != NULL else 0)
        return
    if width == 1:
        for i in range(n):
            out[i] = data[i][0] if data[i] != NULL else 0
        return
    for i in range(n):
        if data[i] != NULL:
            memcpy(out, data[i], sizes[i])
        else:
            memset(out, 0, sizes[i])
        out += sizes[i]


# --- parts --------------------------------------------------------------------------------------------------------------

cdef struct PartColumn:
    int field
    bint nullable               # the column before this one says which of its cells are null
    uint64_t width              # bytes of a cell, 0 when they vary
    uint8_t* whole              # with a width: where the cells of all parts go; else NULL
    size_t done                 # cells: the first ones of the part
    Out data                    # without a width: the bytes,
    Out ends                    # and a uint64 for each cell, where it ends in them


@cython.final
cdef class PartColumns(Continuation):
    """The cells of one part of the keys, as far as they are in memory and not too many, copied by the thread that has found them:
    so two threads wait for memory, not one. The rest is left to the caller."""
    cdef PartColumn* columns
    cdef size_t n
    cdef list builders          # whose memory is written to, also when the caller has given up

    def __cinit__(self, list builders not None):
        cdef ColumnBuilder builder
        cdef PartColumn* column
        self.columns = <PartColumn*>calloc(len(builders) + 1, sizeof(PartColumn))
        if self.columns == NULL:
            raise MemoryError
        self.builders = builders
        for builder in builders:
            column = &self.columns[self.n]
            column.field = builder.field
            column.nullable = builder.column.valid != 0
            column.width = builder.width
            column.whole = builder.out if builder.width else NULL
            self.n += 1

    def __dealloc__(self):
        cdef size_t k
        if self.columns != NULL:
            for k in range(self.n):
                out_free(&self.columns[k].data)
                out_free(&self.columns[k].ends)
        free(self.columns)

    cdef void resume(self, Lookup lookup) noexcept nogil:
        cdef size_t start = 0, k, n
        cdef uint64_t bytes = 0
        cdef int epoch
        for k in range(self.n):
            self.columns[k].done = 0
            self.columns[k].data.size = self.columns[k].ends.size = 0
        while start < lookup.n:
            n = min(<size_t>BLOCK, lookup.n - start)
            epoch = cache_enter(&lookup.snapshot.cache.cache)
            k = 0
            while k < self.n:
                k = self._block(lookup, k, start, n, &bytes)
            cache_exit(&lookup.snapshot.cache.cache, epoch)
            start += n

    cdef size_t _block(self, Lookup lookup, size_t k, size_t start, size_t n, uint64_t* bytes) noexcept nogil:
        """Of the columns from number k on, some that have all cells so far. Returns where the next ones begin."""
        cdef const uint8_t* data[FIELDS * BLOCK]
        cdef uint64_t sizes[FIELDS * BLOCK]
        cdef FieldRef fields[FIELDS]
        cdef PartColumn* columns[FIELDS]
        cdef size_t nfields = 0, i
        while k < self.n and nfields < FIELDS:
            if self.columns[k].done == start:
                fields[nfields] = plain_field(self.columns[k].field)
                if self.columns[k].nullable and nfields and columns[nfields - 1] == &self.columns[k - 1]:
                    fields[nfields].valid = <int>nfields - 1
                columns[nfields] = &self.columns[k]
                nfields += 1
            k += 1
        lookup.snapshot.resolve(fields, nfields, n, lookup.found + start, lookup.addresses + start, data, sizes)
        for i in range(nfields):
            take_cells(columns[i], lookup, start, n, data + i * BLOCK, sizes + i * BLOCK, bytes)
        return k


cdef void take_cells(PartColumn* column, Lookup lookup, size_t start, size_t n, const uint8_t** data, uint64_t* sizes,
                     uint64_t* bytes) noexcept nogil:
    """All of the n cells, or none."""
    cdef int64_t total = fill_in(lookup, column.field, column.width, start, n, data, sizes)
    cdef uint8_t* out
    cdef uint64_t* ends
    cdef uint64_t end
    cdef size_t i
    if total == ELSEWHERE:
        return
    if column.width:
        copy_cells(data, sizes, n, column.width, column.whole + (lookup.first + start) * column.width)
        column.done += n
        return
    if bytes[0] + total > PART_BYTES:
        return
    out = out_room(&column.data, total)
    ends = <uint64_t*>out_room(&column.ends, 8 * n)
    if out == NULL or ends == NULL:
        return
    copy_cells(data, sizes, n, 0, out)
    end = column.data.size
    for i in range(n):
        end += sizes[i]
        ends[i] = end
    column.data.size += total
    column.ends.size += 8 * n
    column.done += n
    bytes[0] += total


# --- columns ------------------------------------------------------------------------------------------------------------

@cython.final
cdef class ColumnBuilder:
    """A column of n cells while it is filled with what is in memory, cell after cell."""
    cdef Column column
    cdef int field
    cdef size_t n, done         # cells
    cdef uint64_t width         # bytes of a cell, 0 when they vary
    cdef uint64_t used          # bytes
    cdef PooledMemory data
    cdef PooledMemory offsets   # None with a width
    cdef uint8_t* out
    cdef int64_t* ends
    cdef bint failed            # not all of it was in memory

    def __cinit__(self, Column column not None, size_t n):
        self.column = column
        self.field = column.field
        self.n = n
        self.width = column.width
        if self.width == 0:
            self.offsets = new_memory((n + 1) * sizeof(int64_t))
            self.ends = <int64_t*>self.offsets.at
            self.ends[0] = 0
            self.ends += 1
        self._move(n * self.width)

    cdef int _grow(self, size_t cells, uint64_t need) except -1:
        """To `need` bytes at least, which so many cells have. Cells to come are taken to be like those that came, and a little
        larger; but for one large cell not all are."""
        cdef double like = <double>need / <double>cells * <double>self.n
        return self._move(max(need, <uint64_t>min(1.05 * like, <double>max(2 * need, <uint64_t>LEAP))))

    cdef int _move(self, uint64_t room) except -1:
        cdef PooledMemory data = new_memory(room)
        if self.used:
            memcpy(data.at, self.out, self.used)
        self.data = data
        self.out = data.at
        return 0

    cdef int take_part(self, const PartColumn* part) except -1:
        """The cells that were copied."""
        cdef const uint64_t* ends = <const uint64_t*>part.ends.data
        cdef uint64_t size = part.done * self.width if self.width else part.data.size
        cdef size_t i
        if self.failed or part.done == 0:
            return 0
        if self.width == 0:
            if self.used + size > self.data.size:
                self._grow(self.done + part.done, self.used + size)
            with nogil:
                memcpy(self.out + self.used, part.data.data, size)
                for i in range(part.done):
                    self.ends[self.done + i] = <int64_t>(self.used + ends[i])
        self.used += size
        self.done += part.done
        return 0

    cdef int take(self, Lookup lookup, size_t at) except -1:
        """All cells of a lookup from number `at` on, or none any more when one of them is not in memory."""
        cdef int64_t total
        while not self.failed and at < lookup.n:
            with nogil:
                total = self._blocks(lookup, &at)
            if total == ELSEWHERE:
                self.failed = True
            elif total:
                self._grow(self.done + min(<size_t>BLOCK, lookup.n - at), self.used + total)
        return 0

    cdef int64_t _blocks(self, Lookup lookup, size_t* at) noexcept nogil:
        """0, ELSEWHERE, or how many bytes the next block has, for which there is no room."""
        cdef size_t n
        cdef int epoch
        cdef int64_t total
        while at[0] < lookup.n:
            n = min(<size_t>BLOCK, lookup.n - at[0])
            epoch = cache_enter(&lookup.snapshot.cache.cache)
            total = self._block(lookup, at[0], n)
            cache_exit(&lookup.snapshot.cache.cache, epoch)
            if total:
                return total
            at[0] += n
            self.done += n
        return 0

    cdef int64_t _block(self, Lookup lookup, size_t start, size_t n) noexcept nogil:
        cdef const uint8_t* data[BLOCK]
        cdef uint64_t sizes[BLOCK]
        cdef int64_t total
        cdef size_t i
        cdef FieldRef field = plain_field(self.field)
        lookup.snapshot.resolve(&field, 1, n, lookup.found + start, lookup.addresses + start, data, sizes)
        total = fill_in(lookup, self.field, self.width, start, n, data, sizes)
        if total == ELSEWHERE or self.used + total > self.data.size:
            return total
        copy_cells(data, sizes, n, self.width, self.out + self.used)
        if self.width == 0:
            for i in range(n):
                self.used += sizes[i]
                self.ends[self.done + i] = <int64_t>self.used
        else:
            self.used += total
        return 0

    cdef object array(self):
        """The column, as batch/readers makes those that it reads."""
        self.data.shrink(self.used)
        return column_of(self.column, self.n, self.offsets, self.data)


cdef Batch read_batch(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, list pieces, bint mask,
                      bint threaded, int64_t now):
    """Columns are filled part by part, as long as all of one is in memory. Of the others the cells are taken in the order in
    which they are stored, once it is known where they all are."""
    cdef size_t n = count_cells(pieces), i, k
    cdef PooledMemory held = new_memory(n * (sizeof(CellAddress) + sizeof(int)))
    cdef CellAddress* addresses = <CellAddress*>held.at
    cdef int* found = <int*>(addresses + n)
    cdef Lookup lookup
    cdef ColumnBuilder builder
    cdef PartColumns part
    cdef LookupPipeline pipeline
    cdef Batch batch
    cdef Cells cells
    cdef Column column
    cdef list builders = []
    for column in columns:
        if column.valid:
            builders.append(ColumnBuilder(column.validity, n))
        builders.append(ColumnBuilder(column, n))
    snapshot.expect(n)
    # The batch keeps the keys, and an array may be filled with others.
    pieces = [kept_keys(cells) for cells in pieces]
    pipeline = LookupPipeline(snapshot, buffer, frozen, pieces, False, threaded, now,
                              wanted_fields(snapshot.layout, columns))
    for lookup in pipeline.lookups:
        lookup.then = PartColumns(builders)
    while True:
        lookup = pipeline.next()
        if lookup is None:
            break
        if not mask:
            for i in range(lookup.n):
                if lookup.found[i] != PRESENT:
                    raise lookup.not_found(i)
        memcpy(addresses + lookup.first, lookup.addresses, lookup.n * sizeof(CellAddress))
        memcpy(found + lookup.first, lookup.found, lookup.n * sizeof(int))
        part = lookup.then
        k = 0
        for builder in builders:
            builder.take_part(&part.columns[k])
            builder.take(lookup, part.columns[k].done)
            k += 1
    batch = make_batch(snapshot, buffer, columns, addresses, found, n, pieces,
                       {builder.column.name: builder.array() for builder in builders if not builder.failed})
    there = np.empty(n, np.bool_)
    is_there(found, n, into_array(there))
    batch.found = sealed(there, np.bool_, n)
    return batch


cdef void is_there(const int* found, size_t n, uint8_t* there) noexcept nogil:
    cdef size_t i
    for i in range(n):
        there[i] = found[i] == PRESENT

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.batch.readers cimport make_rows
from tilekv.kvcore.batch.results cimport wanted_fields, with_validity
from tilekv.kvcore.read.address cimport IN_BUFFER
from tilekv.kvcore.read.batch_lookup cimport Lookup, LookupPipeline
from tilekv.kvcore.read.snapshot cimport BLOCK, DEFERRED, FIELDS, PRESENT, FieldRef, plain_field
from tilekv.kvcore.values.values cimport KIND_BYTES, Column


@cython.final
cdef class Resident:
    """Where a block of values is in memory, column by column."""
    cdef tuple columns
    cdef tuple every            # the columns, and behind them the validity of those that may have nulls
    cdef bint bare              # a value is that of the only column, else a dict
    cdef bint blobs             # and of bytes, none of them null
    cdef Py_ssize_t width
    cdef FieldRef* fields
    cdef const uint8_t** data   # BLOCK for each of them
    cdef uint64_t* sizes

    def __cinit__(self, tuple columns not None, bint bare):
        cdef Py_ssize_t k
        self.columns = columns
        self.every = with_validity(columns)
        self.bare = bare
        self.width = len(self.every)
        self.blobs = bare and self.width == 1 and (<Column>columns[0]).kind == KIND_BYTES
        self.fields = <FieldRef*>malloc((self.width + 1) * sizeof(FieldRef))
        self.data = <const uint8_t**>malloc((self.width + 1) * BLOCK * sizeof(void*))
        self.sizes = <uint64_t*>malloc((self.width + 1) * BLOCK * sizeof(uint64_t))
        if self.fields == NULL or self.data == NULL or self.sizes == NULL:
            raise MemoryError
        for k in range(self.width):
            self.fields[k] = plain_field((<Column>self.every[k]).field)

    def __dealloc__(self):
        free(self.fields)
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
        if self.blobs:
            return PyBytes_FromStringAndSize(<const char*>self.data[i], self.sizes[i])
        if self.width > len(self.columns):
            return self.row_of_nulls(i)
        if self.bare:
            column = self.columns[0]
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
    cdef size_t i, k = 0, late = 0
    cdef int epoch = cache_enter(&snapshot.cache.cache)
    try:
        while k < <size_t>values.width:
            snapshot.resolve(values.fields + k, min(<size_t>FIELDS, values.width - k), n, lookup.found + start,
                             lookup.addresses + start, values.data + k * BLOCK, values.sizes + k * BLOCK)
            k += FIELDS
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
    wanted = wanted_fields(snapshot.layout, columns)
    pipeline = LookupPipeline(snapshot, buffer, frozen, [keys], True, threaded, now, wanted)
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
    pipeline = LookupPipeline(snapshot, buffer, frozen, [keys], False, threaded, now, wanted)
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

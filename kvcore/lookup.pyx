cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from tilekv.errors import KeyNotFoundError

from tilekv.kvcore.buffer cimport Entry
from tilekv.kvcore.cache cimport cache_enter, cache_exit
from tilekv.kvcore.columns cimport make_batch, make_rows
from tilekv.kvcore.digest cimport digest_keys
from tilekv.kvcore.feeds cimport FEED_OBJECTS, cells_key, count_cells
from tilekv.kvcore.fragment cimport access_close
from tilekv.kvcore.layout cimport TOMBSTONE
from tilekv.kvcore.search cimport BLOCK, DEFERRED, DELETED, FAULT, IN_BUFFER, MISSING, PRESENT, UNOPENED
from tilekv.kvcore.signals cimport CELLS, ROWS
from tilekv.kvcore.values cimport KIND_BYTES, Column, load_key

cdef extern from "prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef enum:
    BLOB = 40                   # datatype code of bytes keys
    AHEAD = 12                  # key objects lie anywhere: they are fetched this many keys before they are read
    # Keys between two requests for the GIL: whoever else wants it may keep it for milliseconds each time.
    PART = 4096


@cython.final
cdef class Lookup:
    def __cinit__(self, View view not None, Buffer buffer not None, size_t room):
        self.view = view
        self.buffer = buffer
        self.room = room
        self.held = []
        self.cells = <KeyCell*>malloc(room * sizeof(KeyCell) + 1)
        self.keys = <KeyRef*>malloc(room * sizeof(KeyRef) + 1)
        self.c0 = <uint64_t*>malloc(2 * room * sizeof(uint64_t) + 1)
        self.c1 = self.c0 + room
        self.found = <int*>calloc(room + 1, sizeof(int))
        self.places = <Place*>calloc(room + 1, sizeof(Place))
        if self.cells == NULL or self.keys == NULL or self.c0 == NULL or self.found == NULL or self.places == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.cells)
        free(self.keys)
        free(self.c0)
        free(self.found)
        free(self.places)

    cdef int clear(self) except -1:
        memset(self.found, 0, self.n * sizeof(int))
        memset(self.places, 0, self.n * sizeof(Place))
        self.held.clear()
        self.n = 0
        return 0

    cdef int add(self, Cells cells, const int64_t* order, size_t start, size_t n) except -1:
        cdef bint objects = cells.feed.kind == FEED_OBJECTS
        cdef const Entry* entry = NULL
        cdef size_t i, k = self.n
        cdef void* item = NULL
        for i in range(start, start + n):
            if i % ROWS == 0:
                PyErr_CheckSignals()
            if objects:
                if i + AHEAD < start + n:
                    item = PyList_GET_ITEM(cells.objects, <Py_ssize_t>(i + AHEAD if order == NULL else order[i + AHEAD]))
                    tkv_prefetch(item)
                    tkv_prefetch(<const uint8_t*>item + 63)
                item = PyList_GET_ITEM(cells.objects, <Py_ssize_t>(i if order == NULL else order[i]))
                if PyBytes_CheckExact(<object>item):
                    self.keys[k].data = <const uint8_t*>PyBytes_AS_STRING(<object>item)
                    self.keys[k].size = PyBytes_GET_SIZE(<object>item)
                    self.keys[k].type = BLOB
                    k += 1
                    continue
            owner = cells_key(cells, i if order == NULL else order[i], &self.cells[k])
            self.keys[k] = self.cells[k].ref
            if owner is not cells and not (objects and <void*>owner == item):
                self.held.append(owner)
            k += 1
        if self.buffer.n:
            for i in range(self.n, k):
                self.buffer.find(&self.keys[i], &entry)
                if entry != NULL:
                    self.found[i] = DELETED if entry.type & TOMBSTONE else PRESENT
                    self.places[i].fragment = IN_BUFFER
                    self.places[i].type = entry.type
                    self.places[i].tile = <uint64_t>entry.record
                    self.places[i].cell = entry.key_size
        self.n = k
        return 0

    cdef int find(self, bint defer) except -1:
        cdef Access access
        cdef Found found
        cdef size_t at = 0
        if self.view.n == 0:
            return 0
        memset(&access, 0, sizeof(access))
        try:
            while at < self.n:
                PyErr_CheckSignals()
                with nogil:
                    found = self._find_blocks(defer, &access, &at, min(self.n - at, <size_t>CELLS) + at)
                if found == UNOPENED:
                    self.view.open_fragment(self.places[at].fragment)
                elif found == FAULT:
                    self.view.raise_fault(&access, self.places[at].fragment)
        finally:
            access_close(&access, &self.view.codecs.pool)
        return 0

    cdef Found _find_blocks(self, bint defer, Access* access, size_t* at, size_t end) noexcept nogil:
        """Look up the keys from *at to `end`; stops there with FAULT or UNOPENED."""
        cdef size_t start, stop = 0, n
        cdef Found found = MISSING
        cdef int turn
        while at[0] < end and found == MISSING:
            start = at[0]
            n = min(<size_t>BLOCK, end - start)
            digest_keys(self.view.layout.digest, self.keys + start, n, self.c0 + start, self.c1 + start)
            turn = cache_enter(&self.view.cache.cache)
            found = self.view.find_block(self.keys + start, n, self.c0 + start, self.c1 + start, defer, access,
                                         self.found + start, self.places + start, &stop)
            cache_exit(&self.view.cache.cache, turn)
            at[0] = start + (n if found == MISSING else stop)
        return found


cdef class Resident:
    """Where a block of values is in memory, column by column."""
    cdef tuple columns
    cdef Py_ssize_t width
    cdef const uint8_t** data   # BLOCK for each column
    cdef uint64_t* sizes

    def __cinit__(self, tuple columns not None):
        self.columns = columns
        self.width = len(columns)
        self.data = <const uint8_t**>malloc(self.width * BLOCK * sizeof(void*))
        self.sizes = <uint64_t*>malloc(self.width * BLOCK * sizeof(uint64_t))
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
        cdef Column column = self.columns[0]
        cdef Py_ssize_t k = 0
        if self.width == 1:
            if column.kind == KIND_BYTES:
                return PyBytes_FromStringAndSize(<const char*>self.data[i], self.sizes[i])
            return column.load(self.data[i], self.sizes[i])
        row = {}
        for column in self.columns:
            row[column.name] = column.load(self.data[k * BLOCK + i], self.sizes[k * BLOCK + i])
            k += 1
        return row


cdef size_t append_block(Lookup lookup, Resident values, size_t start, size_t n, object default, list result, int64_t* later,
                         uint64_t* where) except <size_t>-1:
    """The values that are in memory; of the others the number and c0 to later and where. Returns how many they are."""
    cdef View view = lookup.view
    cdef Column column
    cdef size_t i, k = 0, late = 0
    cdef int turn = cache_enter(&view.cache.cache)
    try:
        for column in values.columns:
            view.resolve(column.field, n, lookup.found + start, lookup.places + start, values.data + k * BLOCK,
                         values.sizes + k * BLOCK)
            k += 1
        for i in range(n):
            if lookup.found[start + i] == PRESENT and values.has(i):
                result.append(values.row(i))
                continue
            if lookup.found[start + i] == PRESENT or lookup.found[start + i] == DEFERRED:
                later[late] = <int64_t>(start + i)
                where[late] = lookup.c0[start + i]
                late += 1
            result.append(default)
    finally:
        cache_exit(&view.cache.cache, turn)
    return late


cdef int append_rows(View view, Buffer buffer, tuple columns, Cells keys, object default, list result) except -1:
    """First what is in memory already, in the order asked. What is left is looked up again in the order of digests, in which it
    is stored: each chunk is decoded once, however small the cache is."""
    cdef size_t n = keys.n, start, at, part, late = 0, found, i
    cdef Py_ssize_t first = len(result)
    cdef int64_t[::1] later = np.empty(n + 1, np.int64)
    cdef uint64_t[::1] where = np.empty(n + 1, np.uint64)
    cdef Lookup lookup = Lookup(view, buffer, min(n, <size_t>PART))
    cdef Resident values = Resident(columns)
    view.expect(n)
    for start in range(0, n, PART):
        PyErr_CheckSignals()
        lookup.clear()
        lookup.add(keys, NULL, start, min(<size_t>PART, n - start))
        lookup.find(True)
        for at in range(0, lookup.n, BLOCK):
            part = min(<size_t>BLOCK, lookup.n - at)
            found = append_block(lookup, values, at, part, default, result, &later[late], &where[late])
            for i in range(late, late + found):
                later[i] += start
            late += found
    if late == 0:
        return 0
    later = np.asarray(later[:late])[np.argsort(where[:late])]
    for start in range(0, late, PART):
        PyErr_CheckSignals()
        lookup.clear()
        lookup.add(keys, &later[0], start, min(<size_t>PART, late - start))
        lookup.find(False)
        rows = make_rows(view, buffer, columns, lookup.places, lookup.found, lookup.n)
        for i in range(lookup.n):
            if lookup.found[i] == PRESENT:
                result[first + later[start + i]] = rows[i]
    return 0


cdef Batch look_up_batch(View view, Buffer buffer, tuple columns, list pieces, bint mask):
    """Looked up in parts, so that keys and digests stay in the processor's cache: only where each cell is, is kept of all."""
    cdef size_t n = count_cells(pieces), start, i, at = 0
    cdef Lookup lookup = Lookup(view, buffer, min(n, <size_t>PART))
    cdef uint8_t[::1] held = np.empty((n + 1) * sizeof(Place), np.uint8)
    cdef Place* places = <Place*>&held[0]
    cdef int[::1] found = np.empty(n + 1, np.intc)
    cdef Cells cells
    cdef Batch batch
    view.expect(n)
    for cells in pieces:
        for start in range(0, cells.n, PART):
            lookup.clear()
            lookup.add(cells, NULL, start, min(<size_t>PART, <size_t>cells.n - start))
            lookup.find(False)
            if not mask:
                for i in range(lookup.n):
                    if lookup.found[i] != PRESENT:
                        raise KeyNotFoundError(load_key(&lookup.keys[i]))
            memcpy(&places[at], lookup.places, lookup.n * sizeof(Place))
            memcpy(&found[at], lookup.found, lookup.n * sizeof(int))
            at += lookup.n
    batch = make_batch(view, buffer, columns, places, &found[0], n)
    batch._pieces = pieces
    batch.found = np.asarray(found)[:n] == PRESENT
    return batch

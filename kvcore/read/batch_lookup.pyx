cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.base.signals cimport ROWS
from tilekv.kvcore.format.datatypes cimport BLOB
from tilekv.kvcore.hashing.digest cimport digest_keys
from tilekv.kvcore.read.address cimport address_of_entry
from tilekv.kvcore.read.chunk_reader cimport context_close
from tilekv.kvcore.read.snapshot cimport BLOCK, DELETED, MISSING, PRESENT, UNOPENED
from tilekv.kvcore.values.input_cells cimport FEED_OBJECTS, Cells, count_cells, feed_key
from tilekv.kvcore.values.keys cimport asked_cell, load_key
from tilekv.kvcore.write.memtable cimport Entry, find_entry, is_gone
from tilekv.kvcore.values.keys import key_not_found

cdef extern from "base/prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef extern from "read/work_ring.h" nogil:
    enum:
        TKV_RING_JOBS
    tkv_ring* tkv_ring_start(void (*run)(void*) noexcept nogil, void** jobs, int n, bint threaded)
    void tkv_ring_ready(tkv_ring* ring, int i)
    void tkv_ring_await(tkv_ring* ring, int i)
    void tkv_ring_stop(tkv_ring* ring)

cdef enum:
    AHEAD = 12                  # key objects lie anywhere: they are fetched this many keys before they are read
    # Keys between two requests for the GIL: whoever else wants it may keep it for milliseconds each time.
    PART = 4096


cdef class Continuation:
    cdef void resume(self, Lookup lookup) noexcept nogil:
        pass


@cython.final
cdef class Lookup:
    def __cinit__(self, Snapshot snapshot not None, Buffer buffer not None, Buffer frozen, size_t room, bint defer, int64_t now,
                  bytes wanted not None):
        self.defer = defer
        self.context.now = now
        self.wanted = wanted
        self.context.wanted = <const uint8_t*>PyBytes_AS_STRING(wanted)
        self.context.first = max(wanted.find(1), 1)
        self.snapshot = snapshot
        self.buffer = buffer
        self.frozen = frozen
        self.room = room
        self.held = []
        self.refused = {}
        self.cells = <KeyCell*>malloc(room * sizeof(KeyCell) + 1)
        self.keys = <KeyRef*>malloc(room * sizeof(KeyRef) + 1)
        self.c0 = <uint64_t*>malloc(2 * room * sizeof(uint64_t) + 1)
        self.c1 = self.c0 + room
        self.found = <int*>calloc(room + 1, sizeof(int))
        self.addresses = <CellAddress*>calloc(room + 1, sizeof(CellAddress))
        if self.cells == NULL or self.keys == NULL or self.c0 == NULL or self.found == NULL or self.addresses == NULL:
            raise MemoryError

    def __dealloc__(self):
        context_close(&self.context, &self.snapshot.codecs.pool)
        free(self.cells)
        free(self.keys)
        free(self.c0)
        free(self.found)
        free(self.addresses)

    cdef int _clear(self) except -1:
        memset(self.found, 0, self.n * sizeof(int))
        memset(self.addresses, 0, self.n * sizeof(CellAddress))
        self.held.clear()
        self.refused.clear()
        self.n = self.at = 0
        return 0

    cdef int add(self, Cells cells, const int64_t* order, size_t start, size_t n) except -1:
        cdef bint objects = cells.feed.kind == FEED_OBJECTS
        cdef size_t i, k = 0
        cdef void* item = NULL
        self._clear()
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
                self._object(<object>item, k)
            else:
                feed_key(&cells.feed, i if order == NULL else order[i], &self.keys[k])
            k += 1
        find_buffered(self.buffer, self.frozen, self.keys, k, self.context.now, self.found, self.addresses)
        self.n = k
        return 0

    cdef int _object(self, object item, size_t k) except -1:
        cdef KeyRef* key = &self.cells[k].ref
        owner = asked_cell(item, &self.cells[k], self.snapshot.layout.numbers)
        if key.data == NULL:                                    # no key can be found here
            self.refused[k] = item
            self.found[k] = DELETED
            key.type = BLOB
            key.data = <const uint8_t*>b""
            key.size = 0
        elif owner is not item:
            self.held.append(owner)
        self.keys[k] = key[0]
        return 0

    cdef object not_found(self, size_t k):
        item = self.refused[k] if k in self.refused else load_key(&self.keys[k], self.snapshot.layout.numbers)
        return key_not_found(item, self.snapshot.layout.numbers)

    cdef int settle(self) except -1:
        while self.stopped != MISSING:
            PyErr_CheckSignals()
            if self.stopped == UNOPENED:
                self.snapshot.open_fragment(self.addresses[self.at].fragment)
            else:
                self.snapshot.raise_fault(&self.context, self.addresses[self.at].fragment)
            with nogil:
                find_all(self)
        return 0

    cdef void find(self) noexcept nogil:
        self.stopped = find_keys(self.snapshot, self.keys, self.n, self.c0, self.c1, self.defer, &self.context, self.found,
                                 self.addresses, &self.at)
        context_close(&self.context, &self.snapshot.codecs.pool)


cdef int find_buffered(Buffer buffer, Buffer frozen, const KeyRef* keys, size_t n, int64_t now, int* found,
                       CellAddress* addresses) except -1:
    cdef const Entry* entry = NULL
    cdef size_t i
    if not buffer.n and frozen is None:
        return 0
    for i in range(n):
        if found[i] != MISSING:
            continue
        find_entry(buffer, frozen, &keys[i], &entry)
        if entry != NULL:
            found[i] = DELETED if is_gone(buffer, entry, now) else PRESENT
            address_of_entry(entry, &addresses[i])
    return 0


cdef Found find_keys(Snapshot snapshot, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1, bint defer,
                     ReadContext* context, int* found, CellAddress* addresses, size_t* at) noexcept nogil:
    cdef size_t start, many, stop = 0, ahead = at[0]
    cdef Found stopped = MISSING
    cdef int epoch
    if snapshot.remote:
        digest_keys(snapshot.layout.digest, keys + ahead, n - ahead, c0 + ahead, c1 + ahead)
        epoch = cache_enter(&snapshot.cache.cache)
        snapshot.plan_keys(n - ahead, found + ahead, c0 + ahead, c1 + ahead, context)
        cache_exit(&snapshot.cache.cache, epoch)
        ahead = n
    while at[0] < n and snapshot.n and stopped == MISSING:
        start = at[0]
        many = min(<size_t>BLOCK, n - start)
        epoch = cache_enter(&snapshot.cache.cache)
        # While this block is searched, the disk is at work for the next one.
        if ahead == start:
            ahead = plan_next(snapshot, keys, n, c0, c1, context, found, ahead)
        if ahead == start + many and ahead < n:
            ahead = plan_next(snapshot, keys, n, c0, c1, context, found, ahead)
        stopped = snapshot.probe_block(keys + start, many, c0 + start, c1 + start, defer, context, found + start,
                                       addresses + start, &stop)
        cache_exit(&snapshot.cache.cache, epoch)
        at[0] = start + (many if stopped == MISSING else stop)
    return stopped


cdef size_t plan_next(Snapshot snapshot, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1, ReadContext* context,
                      const int* found, size_t start) noexcept nogil:
    """Digest a block of keys, and ask for what the search for them will read. Returns where it ends."""
    cdef size_t many = min(<size_t>BLOCK, n - start)
    digest_keys(snapshot.layout.digest, keys + start, many, c0 + start, c1 + start)
    snapshot.plan_block(many, found + start, c0 + start, c1 + start, context)
    return start + many


cdef void find_all(Lookup lookup) noexcept nogil:
    lookup.find()
    if lookup.stopped == MISSING and lookup.then is not None:
        lookup.then.resume(lookup)


@cython.final
@cython.no_gc_clear             # the thread uses the lookups until __dealloc__ has stopped it
cdef class LookupPipeline:
    def __cinit__(self, Snapshot snapshot not None, Buffer buffer not None, Buffer frozen, list pieces not None, bint defer,
                  bint threaded, int64_t now, bytes wanted not None):
        cdef size_t n = count_cells(pieces), i
        cdef size_t room = min(n, <size_t>PART)
        cdef void* jobs[TKV_RING_JOBS]
        self.pieces = pieces
        self.nlookups = min((n + PART - 1) // PART, <size_t>TKV_RING_JOBS)
        self.lookups = [Lookup(snapshot, buffer, frozen, room, defer, now, wanted) for _ in range(self.nlookups)]
        for i in range(self.nlookups):
            jobs[i] = <void*>self.lookups[i]
        self.ring = tkv_ring_start(<void (*)(void*) noexcept nogil>find_all, jobs, <int>self.nlookups,
                                   threaded and self.nlookups == TKV_RING_JOBS)
        if self.ring == NULL:
            raise MemoryError

    def __dealloc__(self):
        with nogil:
            tkv_ring_stop(self.ring)

    cdef int order(self, const int64_t* numbers, size_t n) except -1:
        self.numbers = numbers
        self.count = n
        return 0

    cdef Lookup next(self):
        cdef Lookup lookup
        cdef int i
        PyErr_CheckSignals()
        while self.added < self.given + self.nlookups and self._add(self.lookups[self.added % self.nlookups]):
            tkv_ring_ready(self.ring, <int>(self.added % self.nlookups))
            self.added += 1
        if self.given == self.added:
            return None
        i = <int>(self.given % self.nlookups)
        lookup = self.lookups[i]
        with nogil:
            tkv_ring_await(self.ring, i)
        self.given += 1
        lookup.settle()
        return lookup

    cdef bint _add(self, Lookup lookup) except -1:
        cdef Cells cells
        cdef size_t n
        while self.piece < len(self.pieces):
            cells = self.pieces[self.piece]
            n = <size_t>cells.n if self.numbers == NULL else self.count
            if self.start < n:
                n = min(<size_t>PART, n - self.start)
                lookup.add(cells, self.numbers, self.start, n)
                lookup.first = self.keys
                self.keys += n
                self.start += n
                return True
            self.piece += 1
            self.start = 0
        return False

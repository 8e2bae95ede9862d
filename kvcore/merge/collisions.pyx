cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.wire cimport out_free, out_room
from tilekv.kvcore.codec.pipeline cimport NO_MEMORY, OK
from tilekv.kvcore.format.layout cimport KEY_FIELD
from tilekv.kvcore.hashing.coords cimport compare_keys
from tilekv.kvcore.read.column_reader cimport gather_bytes, gather_ends, gather_fixed, cursors_close, cursors_open


cdef Ties new_ties(Snapshot snapshot, Buffer rows):
    cdef Ties ties = Ties.__new__(Ties)
    ties.snapshot = snapshot
    ties.rows = rows
    if cursors_open(&ties.keys, snapshot, False) != OK or cursors_open(&ties.types, snapshot, False) != OK:
        raise MemoryError
    return ties


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ follows pointers into the snapshot's fragments
cdef class Ties:
    def __dealloc__(self):
        if self.snapshot is not None:
            cursors_close(&self.keys, self.snapshot)
            cursors_close(&self.types, self.snapshot)
        free(self.cells)
        free(self.runs)
        out_free(&self.ends)
        out_free(&self.data)
        out_free(&self.codes)

    cdef void clear(self) noexcept nogil:
        self.n = 0

    cdef Status add(self, const CellAddress* run, uint64_t c1, uint64_t id, bint deleted) noexcept nogil:
        cdef size_t room = 2 * self.room + 4
        cdef Tied* cells
        cdef CellAddress* runs
        if self.n == self.room:
            cells = <Tied*>realloc(self.cells, room * sizeof(Tied))
            if cells == NULL:
                return NO_MEMORY
            self.cells = cells
            runs = <CellAddress*>realloc(self.runs, room * sizeof(CellAddress))
            if runs == NULL:
                return NO_MEMORY
            self.runs = runs
            self.room = room
        self.runs[self.n] = run[0]
        cells = &self.cells[self.n]
        cells.c1 = c1
        cells.id = id
        cells.age = self.n
        cells.deleted = deleted
        self.n += 1
        return OK

    cdef Status choose(self, ReadContext* context) noexcept nogil:
        cdef Tied* cells = self.cells
        cdef Tied last
        cdef size_t i, kept = 0
        cdef Status status
        if self.n == 1:
            self.n = not cells.deleted
            return OK
        status = self._read_keys(context)
        if status != OK:
            context.status = status
            return status
        sort_tied(cells, self.n)
        for i in range(self.n):
            if i and cells[i].c1 == last.c1 and compare_keys(&cells[i].key, &last.key) == 0:
                continue                                        # an older cell of the same key
            last = cells[i]
            if not last.deleted:
                cells[kept] = last
                kept += 1
        self.n = kept
        return OK

    cdef Status _read_keys(self, ReadContext* context) noexcept nogil:
        cdef Selection selection
        cdef int64_t* ends = <int64_t*>out_room(&self.ends, 8 * self.n)
        cdef uint8_t* codes = out_room(&self.codes, self.n)
        cdef uint8_t* data
        cdef size_t i, start = 0
        cdef Status status
        selection.runs = self.runs
        selection.skip = 0
        selection.n = self.n
        selection.index = NULL
        if ends == NULL or codes == NULL:
            return NO_MEMORY
        status = gather_ends(&self.keys, self.snapshot, self.rows, KEY_FIELD, &selection, context, ends)
        self.fault_in = self.keys.failed_in
        if status != OK:
            return status
        data = out_room(&self.data, ends[self.n - 1])
        if data == NULL:
            return NO_MEMORY
        status = gather_bytes(&self.keys, self.snapshot, self.rows, KEY_FIELD, &selection, NULL, 0, ends[self.n - 1], context,
                              data)
        self.fault_in = self.keys.failed_in
        if status != OK:
            return status
        status = gather_fixed(&self.types, self.snapshot, self.rows, self.snapshot.layout.key_type, &selection, context, codes)
        self.fault_in = self.types.failed_in
        for i in range(self.n):
            self.cells[i].key.data = data + start
            self.cells[i].key.size = ends[i] - start
            self.cells[i].key.type = codes[i]
            start = ends[i]
        return status


cdef inline bint tied_before(const Tied* a, const Tied* b) noexcept nogil:
    cdef int difference
    if a.c1 != b.c1:
        return a.c1 < b.c1
    difference = compare_keys(&a.key, &b.key)
    return difference < 0 or (difference == 0 and a.age < b.age)


cdef void sort_tied(Tied* items, size_t n) noexcept nogil:
    """Heap sort: usually a few items, but an attacker of an MD5 store may bring thousands."""
    cdef size_t start = n // 2, end = n, root, child
    cdef Tied item
    while end > 1:
        if start:
            start -= 1
        else:
            end -= 1
            item = items[end]
            items[end] = items[0]
            items[0] = item
        root = start
        item = items[root]
        while True:
            child = 2 * root + 1
            if child >= end:
                break
            if child + 1 < end and tied_before(&items[child], &items[child + 1]):
                child += 1
            if not tied_before(&item, &items[child]):
                break
            items[root] = items[child]
            root = child
        items[root] = item


tkv_refuse_bare(Ties)

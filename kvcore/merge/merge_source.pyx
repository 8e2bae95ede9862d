cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tilekv.kvcore.codec.pipeline cimport OK
from tilekv.kvcore.format.layout cimport TOMBSTONE
from tilekv.kvcore.hashing.coords cimport lower_bound
from tilekv.kvcore.read.chunk_reader cimport context_close
from tilekv.kvcore.read.column_reader cimport gather_bytes, gather_ends, gather_fixed, cursors_close, cursors_open


@cython.final
cdef class MergedCells(CellSource):
    def __cinit__(self, Merge merge not None, Py_ssize_t room):
        """Takes up to `room` cells from the merge; `len` says how many, 0 at its end. ValueError when deletes of a buffer could
        be among them: they have no rows to read."""
        cdef Py_ssize_t n
        cdef size_t i, at = 0
        cdef uint8_t* types
        if merge.tombstones and merge.buffers:
            raise ValueError("the deletes of a buffer are not written by a merge")
        self.snapshot = merge.snapshot
        self.buffers = merge.buffers
        self.rows = merge.rows
        self.runs = <CellAddress*>malloc(room * sizeof(CellAddress))
        self.begins = <uint64_t*>malloc(room * sizeof(uint64_t))
        self.c0 = <uint64_t*>malloc(room * sizeof(uint64_t))
        self.c1 = <uint64_t*>malloc(room * sizeof(uint64_t))
        if self.runs == NULL or self.begins == NULL or self.c0 == NULL or self.c1 == NULL:
            raise MemoryError
        with nogil:
            n = merge.next(self.runs, &self.nruns, self.c0, self.c1, room)
            for i in range(self.nruns):
                self.begins[i] = at
                at += self.runs[i].n
        if n < 0:
            merge.raise_fault()
        self.n = n
        if not merge.tombstones or n == 0:
            return
        types = <uint8_t*>malloc(n)
        if types == NULL:
            raise MemoryError
        try:
            if self.fixed(self.snapshot.layout.key_type, 0, n, types) < 0:
                self.fault()
            for i in range(<size_t>n):
                self.tombstones += (types[i] & TOMBSTONE) != 0
        finally:
            free(types)

    def __dealloc__(self):
        free(self.runs)
        free(self.begins)
        free(self.c0)
        free(self.c1)

    def __len__(self):
        return self.n

    @property
    def low(self):
        """The first coordinate of its first cell. REQUIRES: there is one."""
        return self.c0[0]

    def begins_after(self, MergedCells other not None):
        """Whether its first cell has other coordinates than the last of `other`: equal ones never part between fragments."""
        return self.c0[0] != other.c0[other.n - 1] or self.c1[0] != other.c1[other.n - 1]

    cdef fault(self):
        self.snapshot.raise_fault(&self.failure, self.failed_in)

    cdef Status _begin(self, ReadContext* context, FieldCursors* cursors, size_t lo, size_t n,
                       Selection* selection) noexcept nogil:
        """What a call reads with, and cells lo to lo + n."""
        cdef size_t first = lower_bound(self.begins, 1, 0, self.nruns, lo + 1) - 1
        selection.runs = self.runs + first
        selection.skip = lo - self.begins[first]
        selection.n = n
        selection.index = NULL
        selection.keep = False
        memset(context, 0, sizeof(ReadContext))
        context.status = cursors_open(cursors, self.snapshot, False)
        return context.status

    cdef int _end(self, ReadContext* context, FieldCursors* cursors, Status status) noexcept nogil:
        """Give back what a call took. A fault is kept for fault(), without the memory that goes with the context; of two threads
        that fail at once, either will do."""
        if status != OK:
            self.failure.status = status
            self.failure.slot = context.slot
            self.failure.offset = context.offset
            self.failure.error = context.error
            self.failed_in = cursors.failed_in
        cursors_close(cursors, self.snapshot)
        context_close(context, &self.snapshot.codecs.pool)
        return 0 if status == OK else -1

    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil:
        if c0 != NULL:
            memcpy(c0, self.c0 + lo, (hi - lo) * 8)
        if c1 != NULL:
            memcpy(c1, self.c1 + lo, (hi - lo) * 8)
        return 0

    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil:
        cdef ReadContext context
        cdef FieldCursors cursors
        cdef Selection selection
        cdef Status status = self._begin(&context, &cursors, lo, hi - lo, &selection)
        if status == OK:
            status = gather_fixed(&cursors, self.snapshot, self.rows, field, &selection, &context, out)
        return self._end(&context, &cursors, status)

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        cdef ReadContext context
        cdef FieldCursors cursors
        cdef Selection selection
        cdef size_t i
        cdef Status status = self._begin(&context, &cursors, lo, hi - lo, &selection)
        if status == OK:
            status = gather_ends(&cursors, self.snapshot, self.rows, field, &selection, &context, <int64_t*>out)
        if status == OK:
            for i in range(hi - lo - 1, 0, -1):
                out[i] -= out[i - 1]
        return self._end(&context, &cursors, status)

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        cdef ReadContext context
        cdef FieldCursors cursors
        cdef Selection selection
        cdef Status status = self._begin(&context, &cursors, cell, self.n - cell, &selection)
        if status == OK:
            status = gather_bytes(&cursors, self.snapshot, self.rows, field, &selection, NULL, skip, n, &context, out)
        return self._end(&context, &cursors, status)

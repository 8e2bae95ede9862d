cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tilekv.kvcore.codec cimport OK
from tilekv.kvcore.coords cimport lower_bound
from tilekv.kvcore.fragment cimport access_close
from tilekv.kvcore.gather cimport gather_bytes, gather_ends, gather_fixed, lanes_close, lanes_open
from tilekv.kvcore.layout cimport TOMBSTONE


@cython.final
cdef class MergedCells(CellSource):
    def __cinit__(self, Merge merge not None, Py_ssize_t room):
        """Takes up to `room` cells from the merge; `len` says how many, 0 at its end."""
        cdef Py_ssize_t n
        cdef size_t i, at = 0
        cdef uint8_t* types
        self.view = merge.view
        self.buffer = merge.buffer.buffer
        self.runs = <Run*>malloc(room * sizeof(Run))
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
            if self.fixed(self.view.layout.key_type, 0, n, types) < 0:
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

    def begins_after(self, MergedCells other not None):
        """Whether its first cell has other coordinates than the last of `other`: equal ones never part between fragments."""
        return self.c0[0] != other.c0[other.n - 1] or self.c1[0] != other.c1[other.n - 1]

    cdef fault(self):
        self.view.raise_fault(&self.failure, self.failed_in)

    cdef Status _begin(self, Access* access, Lanes* lanes, size_t lo, size_t n, Stretch* stretch) noexcept nogil:
        """What a call reads with, and cells lo to lo + n."""
        cdef size_t first = lower_bound(self.begins, 1, 0, self.nruns, lo + 1) - 1
        stretch.runs = self.runs + first
        stretch.skip = lo - self.begins[first]
        stretch.n = n
        stretch.keep = False
        memset(access, 0, sizeof(Access))
        access.status = lanes_open(lanes, self.view, False)
        return access.status

    cdef int _end(self, Access* access, Lanes* lanes, Status status) noexcept nogil:
        """Give back what a call took. A fault is kept for fault(), without the memory that goes with the access; of two threads
        that fail at once, either will do."""
        if status != OK:
            self.failure.status = status
            self.failure.slot = access.slot
            self.failure.offset = access.offset
            self.failure.error = access.error
            self.failed_in = lanes.failed_in
        lanes_close(lanes, self.view)
        access_close(access, &self.view.codecs.pool)
        return 0 if status == OK else -1

    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil:
        if c0 != NULL:
            memcpy(c0, self.c0 + lo, (hi - lo) * 8)
        if c1 != NULL:
            memcpy(c1, self.c1 + lo, (hi - lo) * 8)
        return 0

    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil:
        cdef Access access
        cdef Lanes lanes
        cdef Stretch stretch
        cdef Status status = self._begin(&access, &lanes, lo, hi - lo, &stretch)
        if status == OK:
            status = gather_fixed(&lanes, self.view, self.buffer, field, &stretch, &access, out)
        return self._end(&access, &lanes, status)

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        cdef Access access
        cdef Lanes lanes
        cdef Stretch stretch
        cdef size_t i
        cdef Status status = self._begin(&access, &lanes, lo, hi - lo, &stretch)
        if status == OK:
            status = gather_ends(&lanes, self.view, self.buffer, field, &stretch, &access, <int64_t*>out)
        if status == OK:
            for i in range(hi - lo - 1, 0, -1):
                out[i] -= out[i - 1]
        return self._end(&access, &lanes, status)

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        cdef Access access
        cdef Lanes lanes
        cdef Stretch stretch
        cdef Status status = self._begin(&access, &lanes, cell, self.n - cell, &stretch)
        if status == OK:
            status = gather_bytes(&lanes, self.view, self.buffer, field, &stretch, skip, n, &access, out)
        return self._end(&access, &lanes, status)

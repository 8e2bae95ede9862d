cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.signals cimport check_signals
from tilekv.kvcore.base.wire cimport Out, out_free, out_room
from tilekv.kvcore.codec.pipeline cimport NO_MEMORY, OK
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext, context_close
from tilekv.kvcore.read.column_reader cimport (cursors_close, cursors_open, gather_bytes, gather_ends, gather_fixed, measure,
                                               selection_advance)
from tilekv.kvcore.values.key_filter cimport comes_before
from tilekv.kvcore.values.keys cimport load_key
from tilekv.kvcore.write.sorted_buffer cimport SortedBuffer

cdef enum:
    PART_CELLS = 1 << 18        # of a part, about: 5 MB of keys, some ms of work
    ROOM = 4096                 # cells that a merge is asked for at a time
    PORTION = 1 << 20           # bytes of keys that are gathered at a time, or one key


@cython.final
cdef class FoundKeys:
    def __dealloc__(self):
        out_free(&self.data)
        out_free(&self.ends)
        out_free(&self.types)

    def __len__(self):
        return self.n

    cdef void point(self, KeyRef* keys) noexcept nogil:
        """keys[0..n): each leads into `data`."""
        cdef const uint64_t* ends = <const uint64_t*>self.ends.data
        cdef uint64_t start = 0
        cdef size_t i
        for i in range(self.n):
            keys[i].type = self.types.data[i]
            keys[i].data = self.data.data + start
            keys[i].size = ends[i] - start
            start = ends[i]


@cython.final
cdef class KeyScan:
    def part(self, number):
        """The keys of part `number` that are asked for."""
        cdef FoundKeys found = FoundKeys.__new__(FoundKeys)
        found.numbers = self.numbers
        low, high = [(at << 128) // self.parts for at in (number, number + 1)]
        self._gather(Merge(self.snapshot, self.buffers, self.tombstones, self.now, low, high), found)
        return found

    cdef int _gather(self, Merge merge, FoundKeys found) except -1:
        cdef CellAddress* runs = <CellAddress*>malloc(ROOM * sizeof(CellAddress))
        cdef FieldCursors keys, types
        cdef ReadContext context
        cdef Selection rest, cells
        cdef Out raw[3]
        cdef size_t nruns = 0, count = 0
        cdef uint64_t size = 0
        cdef Py_ssize_t n = 1
        cdef Status status = OK
        cdef int key_type = self.snapshot.layout.key_type
        cdef const FieldCursors* failed = &keys
        if runs == NULL:
            raise MemoryError
        memset(raw, 0, sizeof(raw))
        memset(&context, 0, sizeof(context))
        memset(&rest, 0, sizeof(rest))
        status = cursors_open(&keys, self.snapshot, False)
        status = cursors_open(&types, self.snapshot, False) or status
        try:
            with nogil:
                while status == OK:
                    if rest.n == 0:
                        n = merge.next(runs, &nruns, NULL, NULL, ROOM)
                        if n <= 0:
                            break
                        rest.runs = runs
                        rest.skip = 0
                        rest.n = n
                        check_signals()
                    failed = &keys
                    status = measure(&keys, self.snapshot, merge.rows, 0, &rest, PORTION, &context, &count, &size)
                    if status != OK:
                        break
                    cells = rest
                    cells.n = count
                    raw[0].size = raw[1].size = raw[2].size = 0
                    if (out_room(&raw[0], size + 1) == NULL or out_room(&raw[1], 8 * count) == NULL
                            or out_room(&raw[2], count) == NULL):
                        status = context.status = NO_MEMORY
                        break
                    status = gather_ends(&keys, self.snapshot, merge.rows, 0, &cells, &context, <int64_t*>raw[1].data)
                    if status == OK:
                        status = gather_bytes(&keys, self.snapshot, merge.rows, 0, &cells, NULL, 0, size, &context, raw[0].data)
                    if status == OK:
                        failed = &types
                        status = gather_fixed(&types, self.snapshot, merge.rows, key_type, &cells, &context, raw[2].data)
                    if status == OK:
                        status = context.status = self._keep(&cells, raw, found)
                    selection_advance(&rest, count)
            if n < 0:
                merge.raise_fault()
            if status == NO_MEMORY:
                raise MemoryError
            if status != OK:
                self.snapshot.raise_fault(&context, failed.failed_in)
        finally:
            cursors_close(&keys, self.snapshot)
            cursors_close(&types, self.snapshot)
            context_close(&context, &self.snapshot.codecs.pool)
            out_free(&raw[0])
            out_free(&raw[1])
            out_free(&raw[2])
            free(runs)
        return 0

    cdef Status _keep(self, const Selection* cells, const Out* raw, FoundKeys found) noexcept nogil:
        """Of cells whose keys, their ends and their types are in `raw`, those that are asked for."""
        cdef const int64_t* ends = <const int64_t*>raw[1].data
        cdef uint8_t* data = out_room(&found.data, ends[cells.n - 1] if cells.n else 0)
        cdef uint64_t* until = <uint64_t*>out_room(&found.ends, 8 * cells.n)
        cdef uint8_t* types = out_room(&found.types, cells.n)
        cdef uint64_t start = 0, size = found.data.size
        cdef KeyRef key
        cdef size_t i, n = 0
        if data == NULL or until == NULL or types == NULL:
            return NO_MEMORY
        for i in range(cells.n):
            key.type = raw[2].data[i]
            key.data = raw[0].data + start
            key.size = <uint64_t>ends[i] - start
            start = <uint64_t>ends[i]
            if self.filter is None or self.filter.matches(&key):
                memcpy(data, key.data, key.size)
                data += key.size
                size += key.size
                until[n] = size
                types[n] = key.type
                n += 1
        found.data.size = size
        found.ends.size += 8 * n
        found.types.size += n
        found.n += n
        return OK

    def keys(self, list found, limit, bint ordered):
        """The first `limit` keys (all for None) of these parts as objects; ordered: in the order of the keys."""
        cdef FoundKeys part
        cdef size_t n = sum(map(len, found)), at = 0, i, most
        cdef KeyRef* keys = <KeyRef*>malloc((n + 1) * sizeof(KeyRef))
        if keys == NULL:
            raise MemoryError
        try:
            for part in found:
                part.point(keys + at)
                at += part.n
            if ordered:
                with nogil:
                    qsort(keys, n, sizeof(KeyRef), order)
            most = n if limit is None else min(n, limit)
            return [load_key(&keys[i], self.numbers) for i in range(most)]
        finally:
            free(keys)


cdef int order(const void* a, const void* b) noexcept nogil:
    return -1 if comes_before(<const KeyRef*>a, <const KeyRef*>b) else 1


cdef KeyScan new_key_scan(Snapshot snapshot, tuple buffers, KeyFilter filter, int64_t now):
    cdef KeyScan scan = KeyScan.__new__(KeyScan)
    cdef SortedBuffer buffer
    scan.snapshot = snapshot
    scan.buffers = buffers
    scan.filter = filter
    scan.now = now
    scan.numbers = snapshot.layout.numbers
    cells = sum([fragment.cells for fragment in snapshot.fragments]) + sum([buffer.n for buffer in buffers])
    scan.parts = cells // PART_CELLS + 1
    return scan


tkv_refuse_bare(FoundKeys)
tkv_refuse_bare(KeyScan)

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.codec.pipeline cimport OK
from tilekv.kvcore.read.address cimport IN_BUFFER, NOWHERE
from tilekv.kvcore.read.column_reader cimport Stretch, gather_bytes, gather_ends, gather_fixed
from tilekv.kvcore.read.snapshot cimport PRESENT

cdef enum:
    DIGIT = 11                  # bits a pass of the sort: its counters stay in the first-level cache


cdef Asked ask(Snapshot snapshot, const CellAddress* addresses, const int* present, size_t n):
    cdef Asked asked = Asked.__new__(Asked)
    cdef int failed
    asked.n = n
    asked.runs = <CellAddress*>malloc(n * sizeof(CellAddress) + 1)
    asked.spots = <Spot*>malloc(n * sizeof(Spot) + 1)
    if asked.runs == NULL or asked.spots == NULL:
        raise MemoryError
    with nogil:
        failed = asked._order(snapshot, addresses, present)
    if failed:
        raise MemoryError
    return asked


@cython.final
cdef class Asked:
    def __dealloc__(self):
        free(self.runs)
        free(self.spots)

    cdef int _order(self, Snapshot snapshot, const CellAddress* addresses, const int* present) noexcept nogil:
        cdef uint64_t* first = <uint64_t*>malloc((snapshot.n + 1) * sizeof(uint64_t))     # number of each fragment's first cell
        cdef Spot* spare = <Spot*>malloc(self.n * sizeof(Spot) + 1)
        cdef const CellAddress* address
        cdef CellAddress* run
        cdef uint64_t most = 1
        cdef size_t i
        if first == NULL or spare == NULL:
            free(first)
            free(spare)
            return -1
        for i in range(snapshot.n):
            first[i] = most
            most += snapshot.at[i].cells if snapshot.at[i] != NULL else 0       # no key was found in one that is not open
        for i in range(self.n):
            address = &addresses[i]
            self.spots[i].index = i
            self.spots[i].number = 0
            if (present == NULL or present[i] == PRESENT) and address.fragment != IN_BUFFER:
                self.spots[i].number = (first[address.fragment] + address.tile * snapshot.at[address.fragment].capacity
                                        + address.cell)
        self.spots = sort_spots(self.spots, spare, self.n, most)
        for i in range(self.n):
            address = &addresses[self.spots[i].index]
            run = &self.runs[i]
            if present == NULL or present[self.spots[i].index] == PRESENT:
                run[0] = address[0]
            else:
                run.n = 1
                run.fragment = NOWHERE
        free(first)
        return 0


cdef Spot* sort_spots(Spot* spots, Spot* spare, size_t n, uint64_t most) noexcept nogil:
    """Sorts by number; frees the one of the two that it does not return."""
    cdef size_t counts[1 << DIGIT]
    cdef size_t i, digit, total, count
    cdef int shift = 0
    cdef bint sorted = True
    for i in range(1, n):
        sorted = sorted and spots[i - 1].number <= spots[i].number
    while not sorted and most >> shift:
        memset(counts, 0, sizeof(counts))
        for i in range(n):
            counts[spots[i].number >> shift & ((1 << DIGIT) - 1)] += 1
        total = 0
        for i in range(<size_t>1 << DIGIT):
            count = counts[i]
            counts[i] = total
            total += count
        for i in range(n):
            digit = spots[i].number >> shift & ((1 << DIGIT) - 1)
            spare[counts[digit]] = spots[i]
            counts[digit] += 1
        spots, spare = spare, spots
        shift += DIGIT
    free(spare)
    return spots


cdef Status asked_ends(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, ReadContext* context,
                       int64_t* ends) noexcept nogil:
    cdef Stretch one
    cdef size_t i
    cdef Status status
    one.skip = 0
    one.n = 1
    one.keep = True
    for i in range(asked.n):
        one.runs = &asked.runs[i]
        status = gather_ends(cursors, snapshot, buffer, field, &one, context, &ends[asked.spots[i].index])
        if status != OK:
            return status
    for i in range(1, asked.n):
        ends[i] += ends[i - 1]
    return OK


cdef Status asked_bytes(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, const int64_t* ends,
                        ReadContext* context, uint8_t* out) noexcept nogil:
    cdef Stretch one
    cdef int64_t start
    cdef size_t i, index
    cdef Status status
    one.skip = 0
    one.n = 1
    one.keep = True
    for i in range(asked.n):
        index = asked.spots[i].index
        start = ends[index - 1] if index else 0
        one.runs = &asked.runs[i]
        status = gather_bytes(cursors, snapshot, buffer, field, &one, 0, ends[index] - start, context, out + start)
        if status != OK:
            return status
    return OK


cdef Status asked_fixed(FieldCursors* cursors, Snapshot snapshot, Buffer buffer, int field, Asked asked, ReadContext* context,
                        uint8_t* out) noexcept nogil:
    cdef uint64_t width = snapshot.layout.slots[field].width
    cdef Stretch one
    cdef size_t i
    cdef Status status
    one.skip = 0
    one.n = 1
    one.keep = True
    for i in range(asked.n):
        one.runs = &asked.runs[i]
        status = gather_fixed(cursors, snapshot, buffer, field, &one, context, out + asked.spots[i].index * width)
        if status != OK:
            return status
    return OK


tkv_refuse_bare(Asked)

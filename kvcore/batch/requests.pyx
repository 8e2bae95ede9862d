cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.read.address cimport IN_BUFFER, NOWHERE
from tilekv.kvcore.read.snapshot cimport PRESENT

cdef enum:
    DIGIT = 11                  # bits a pass of the sort: its counters stay in the first-level cache

cdef struct NumberedCell:
    uint64_t number             # of the cell among those of all fragments, from 1 on; 0 when it is in none
    uint64_t index              # of its key among those asked for


@cython.final
cdef class SortedCells:
    def __dealloc__(self):
        free(<void*>self.selection.runs)
        free(<void*>self.selection.index)


cdef SortedCells sort_cells(Snapshot snapshot, const CellAddress* addresses, const int* present, size_t n):
    cdef SortedCells cells = SortedCells.__new__(SortedCells)
    cdef int failed
    with nogil:
        failed = fill_selection(&cells.selection, snapshot, addresses, present, n)
    if failed:
        raise MemoryError
    return cells


cdef int fill_selection(Selection* selection, Snapshot snapshot, const CellAddress* addresses, const int* present,
                        size_t n) noexcept nogil:
    """Negative without memory. What selection.runs and selection.index point to is the caller's to free, either way."""
    cdef uint64_t* first = <uint64_t*>malloc((snapshot.n + 1) * sizeof(uint64_t))     # number of each fragment's first cell
    cdef NumberedCell* numbered = <NumberedCell*>malloc(n * sizeof(NumberedCell) + 1)
    cdef NumberedCell* spare = <NumberedCell*>malloc(n * sizeof(NumberedCell) + 1)
    cdef CellAddress* runs = <CellAddress*>malloc(n * sizeof(CellAddress) + 1)
    cdef uint64_t* index
    cdef const CellAddress* address
    cdef uint64_t most = 1
    cdef size_t i
    selection.runs = runs
    selection.skip = 0
    selection.n = n
    selection.keep = True
    if first == NULL or numbered == NULL or spare == NULL or runs == NULL:
        free(first)
        free(numbered)
        free(spare)
        return -1
    for i in range(snapshot.n):
        first[i] = most
        most += snapshot.at[i].cells if snapshot.at[i] != NULL else 0       # no key was found in one that is not open
    for i in range(n):
        address = &addresses[i]
        numbered[i].index = i
        numbered[i].number = 0
        if (present == NULL or present[i] == PRESENT) and address.fragment != IN_BUFFER:
            numbered[i].number = (first[address.fragment] + address.tile * snapshot.at[address.fragment].capacity
                                  + address.cell)
    free(first)
    sort_numbered(&numbered, &spare, n, most)
    index = <uint64_t*>spare                        # memory that the sort has touched already
    for i in range(n):
        index[i] = numbered[i].index
    free(numbered)
    selection.index = index
    for i in range(n):
        if present == NULL or present[index[i]] == PRESENT:
            runs[i] = addresses[index[i]]
        else:
            runs[i].n = 1
            runs[i].fragment = NOWHERE
    return 0


cdef void sort_numbered(NumberedCell** items, NumberedCell** spare, size_t n, uint64_t most) noexcept nogil:
    """Sorts items[0] by numbers of at most `most`. Swaps it with spare[0], which is as large, once a pass."""
    cdef size_t counts[1 << DIGIT]
    cdef NumberedCell* numbered = items[0]
    cdef NumberedCell* into = spare[0]
    cdef size_t i, digit, total, count
    cdef int shift = 0
    cdef bint sorted = True
    for i in range(1, n):
        sorted = sorted and numbered[i - 1].number <= numbered[i].number
    while not sorted and most >> shift:
        memset(counts, 0, sizeof(counts))
        for i in range(n):
            counts[numbered[i].number >> shift & ((1 << DIGIT) - 1)] += 1
        total = 0
        for i in range(<size_t>1 << DIGIT):
            count = counts[i]
            counts[i] = total
            total += count
        for i in range(n):
            digit = numbered[i].number >> shift & ((1 << DIGIT) - 1)
            into[counts[digit]] = numbered[i]
            counts[digit] += 1
        numbered, into = into, numbered
        shift += DIGIT
    items[0] = numbered
    spare[0] = into


tkv_refuse_bare(SortedCells)

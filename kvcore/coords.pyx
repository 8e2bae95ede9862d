from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    RADIX_BITS = 11             # 2,048 counters: they and the write fronts stay in the first-level cache
    SMALL = 24                  # insertion sort below, merge sort above


cdef struct Item:
    uint64_t c0
    uint32_t index


cdef struct Cells:
    const uint64_t* c1
    const KeyRef* keys


cdef int compare_keys(const KeyRef* a, const KeyRef* b) noexcept nogil:
    cdef int difference = <int>(a.type & 0x7F) - <int>(b.type & 0x7F)
    cdef uint64_t n = a.size if a.size < b.size else b.size
    if difference:
        return difference
    if n:
        difference = memcmp(a.data, b.data, n)
        if difference:
            return difference
    return (a.size > b.size) - (a.size < b.size)


cdef inline bint before(const Cells* cells, const Item* a, const Item* b) noexcept nogil:
    cdef int difference
    if a.c0 != b.c0:
        return a.c0 < b.c0
    if cells.c1[a.index] != cells.c1[b.index]:
        return cells.c1[a.index] < cells.c1[b.index]
    difference = compare_keys(&cells.keys[a.index], &cells.keys[b.index])
    if difference:
        return difference < 0
    return a.index < b.index


cdef void merge_sort(const Cells* cells, Item* items, Item* spare, size_t n) noexcept nogil:
    """Any n cells, in n log n whatever the keys: a thousand keys of one digest come through here."""
    cdef size_t i, j, half, out
    cdef Item item
    if n <= SMALL:
        for i in range(1, n):
            item = items[i]
            j = i
            while j > 0 and before(cells, &item, &items[j - 1]):
                items[j] = items[j - 1]
                j -= 1
            items[j] = item
        return
    half = n // 2
    merge_sort(cells, items, spare, half)
    merge_sort(cells, items + half, spare, n - half)
    memcpy(spare, items, half * sizeof(Item))
    i = 0
    j = half
    out = 0
    while i < half:
        if j < n and before(cells, &items[j], &spare[i]):
            items[out] = items[j]
            j += 1
        else:
            items[out] = spare[i]
            i += 1
        out += 1


cdef int sort_cells(const uint64_t* c0, const uint64_t* c1, const KeyRef* keys, size_t n, uint32_t* order) noexcept nogil:
    """Radix passes over the top bits of c0, then a comparison sort of the few runs that those bits left together.

    Digests are uniform, so log2(n) + 4 bits leave one cell in sixteen beside another. 1,000,000 cells: three passes.
    """
    cdef Item* items = <Item*>malloc(2 * n * sizeof(Item) + 1)
    cdef Item* spare
    cdef Item* swap
    cdef Cells cells
    cdef uint32_t counts[1 << RADIX_BITS]
    cdef uint32_t sum, count
    cdef size_t i, j, digit
    cdef int passes, shift, bits = 4, p
    if items == NULL:
        return -1
    spare = items + n
    while (<size_t>1 << (bits - 4)) < n:
        bits += 1
    passes = (bits + RADIX_BITS - 1) // RADIX_BITS
    for i in range(n):
        items[i].c0 = c0[i]
        items[i].index = <uint32_t>i
    for p in range(passes):
        shift = 64 - RADIX_BITS * (passes - p)
        memset(counts, 0, sizeof(counts))
        for i in range(n):
            counts[(items[i].c0 >> shift) & ((1 << RADIX_BITS) - 1)] += 1
        sum = 0
        for digit in range(<size_t>1 << RADIX_BITS):
            count = counts[digit]
            counts[digit] = sum
            sum += count
        for i in range(n):
            digit = (items[i].c0 >> shift) & ((1 << RADIX_BITS) - 1)
            spare[counts[digit]] = items[i]
            counts[digit] += 1
        swap = items
        items = spare
        spare = swap
    shift = 64 - RADIX_BITS * passes
    cells.c1 = c1
    cells.keys = keys
    i = 0
    while i < n:
        j = i + 1
        while j < n and items[j].c0 >> shift == items[i].c0 >> shift:
            j += 1
        if j - i > 1:
            merge_sort(&cells, items + i, spare, j - i)
        i = j
    for i in range(n):
        order[i] = items[i].index
    free(items if items < spare else spare)
    return 0


def sorted_order(coordinates, keys):
    """The permutation that sorts cells, as a list: for tests. coordinates: (c0, c1) pairs; keys: (type, bytes) pairs."""
    cdef size_t n = len(coordinates), i
    cdef uint64_t* words = <uint64_t*>malloc(2 * n * sizeof(uint64_t) + 1)
    cdef KeyRef* refs = <KeyRef*>malloc(n * sizeof(KeyRef) + 1)
    cdef uint32_t* order = <uint32_t*>malloc(n * sizeof(uint32_t) + 1)
    cdef bytes key
    cdef int status
    try:
        if words == NULL or refs == NULL or order == NULL:
            raise MemoryError
        held = list(keys)
        for i in range(n):
            words[i], words[n + i] = coordinates[i]
            refs[i].type, key = held[i]
            refs[i].data = <const uint8_t*><const char*>key
            refs[i].size = len(key)
        with nogil:
            status = sort_cells(words, words + n, refs, n, order)
        if status < 0:
            raise MemoryError
        return [order[i] for i in range(n)]
    finally:
        free(words)
        free(refs)
        free(order)


def first_not_below(const uint64_t[::1] values not None, uint64_t key):
    """The first index whose value is >= key, else the length: for tests."""
    if values.shape[0] == 0:
        return 0
    return lower_bound(&values[0], 1, 0, values.shape[0], key)

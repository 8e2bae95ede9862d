from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from tilekv.kvcore.base.signals cimport CELLS, check_signals

cdef enum:
    SMALL = 24                  # insertion sort up to here


cdef struct Order:              # of coordinates that are equal
    CompareCells compare
    const void* cells


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


cdef inline bint before(const Order* order, const Item* a, const Item* b) noexcept nogil:
    cdef int difference
    if a.c0 != b.c0:
        return a.c0 < b.c0
    if a.c1 != b.c1:
        return a.c1 < b.c1
    difference = order.compare(order.cells, a.index, b.index)
    if difference:
        return difference < 0
    return a.index < b.index


cdef void insertion_sort(const Order* order, Item* items, size_t n) noexcept nogil:
    cdef size_t i, j
    cdef Item item
    for i in range(1, n):
        if not before(order, &items[i], &items[i - 1]):
            continue
        item = items[i]
        j = i
        while j > 0 and before(order, &item, &items[j - 1]):
            items[j] = items[j - 1]
            j -= 1
        items[j] = item


cdef void merge_sort(const Order* order, Item* items, Item* spare, size_t n) noexcept nogil:
    """Any n cells, in n log n whatever the keys: a thousand keys of one digest come through here."""
    cdef size_t i = 0, j, half = n // 2, out = 0
    if n <= SMALL:
        insertion_sort(order, items, n)
        return
    merge_sort(order, items, spare, half)
    merge_sort(order, items + half, spare, n - half)
    memcpy(spare, items, half * sizeof(Item))
    j = half
    while i < half:
        if j < n and before(order, &items[j], &spare[i]):
            items[out] = items[j]
            j += 1
        else:
            items[out] = spare[i]
            i += 1
        out += 1


cdef inline int radix_bits(size_t n) noexcept nogil:
    """So that parts of n uniform cells have two to four, or as many as the bits leave."""
    cdef int bits = 1
    while bits < RADIX_BITS and (<size_t>4 << bits) <= n:
        bits += 1
    return bits


cdef void radix_sort(const Order* order, Item* items, Item* spare, size_t n, int shift) noexcept nogil:
    """By the bits of c0 below `shift`: all n agree in those above. spare: room for n more.

    Digests are uniform. A part that got more than half of its cells was not, or has no bits left: merge sort takes any.
    """
    cdef uint32_t ends[1 << RADIX_BITS]
    cdef int bits
    cdef uint32_t sum = 0, count
    cdef size_t i, digit, mask
    if n <= SMALL:
        insertion_sort(order, items, n)
        return
    bits = radix_bits(n)
    if bits > shift:
        merge_sort(order, items, spare, n)
        return
    shift -= bits
    mask = (<size_t>1 << bits) - 1
    memset(ends, 0, sizeof(uint32_t) << bits)
    for i in range(n):
        ends[(items[i].c0 >> shift) & mask] += 1
    for digit in range(mask + 1):
        count = ends[digit]
        ends[digit] = sum
        sum += count
    for i in range(n):
        digit = (items[i].c0 >> shift) & mask
        spare[ends[digit]] = items[i]
        ends[digit] += 1
    memcpy(items, spare, n * sizeof(Item))
    sort_parts(order, items, spare, n, ends, mask + 1, shift)


cdef void sort_parts(const Order* order, Item* items, Item* spare, size_t n, const uint32_t* ends, size_t parts,
                     int shift) noexcept nogil:
    cdef size_t start = 0, part, i
    for i in range(parts):
        part = ends[i] - start
        sort_part(order, items + start, spare, part, n, shift)
        start = ends[i]


cdef void sort_part(const Order* order, Item* items, Item* spare, size_t part, size_t n, int shift) noexcept nogil:
    if part > SMALL and part > n // 2:
        merge_sort(order, items, spare, part)
    elif part > 1:
        radix_sort(order, items, spare, part, shift)


cdef int bucket_shift(size_t n) noexcept nogil:
    return 64 - radix_bits(n)


cdef void count_buckets(const uint64_t* c0, size_t lo, size_t hi, int shift, uint32_t* counts) noexcept nogil:
    cdef size_t i
    memset(counts, 0, bucket_count(shift) * sizeof(uint32_t))
    for i in range(lo, hi):
        counts[c0[i] >> shift] += 1


cdef void place_buckets(uint32_t* counts, size_t shares, int shift) noexcept nogil:
    cdef uint32_t sum = 0, count
    cdef size_t bucket, share
    for bucket in range(bucket_count(shift)):
        for share in range(shares):
            count = counts[share * MOST_BUCKETS + bucket]
            counts[share * MOST_BUCKETS + bucket] = sum
            sum += count


cdef void fill_buckets(const uint64_t* c0, const uint64_t* c1, size_t lo, size_t hi, int shift, uint32_t* next,
                       Item* items) noexcept nogil:
    cdef Item* item
    cdef size_t i, bucket
    for i in range(lo, hi):
        bucket = c0[i] >> shift
        item = &items[next[bucket]]
        next[bucket] += 1
        item.c0 = c0[i]
        item.c1 = c1[i]
        item.index = <uint32_t>i


cdef int sort_buckets(Item* items, size_t n, const uint32_t* ends, size_t first, size_t last, int shift, CompareCells compare,
                      const void* cells) except -1 nogil:
    cdef Order order
    cdef Item* spare
    cdef size_t i, begin = ends[first - 1] if first else 0, start = begin, looked = begin, most = 0
    order.compare = compare
    order.cells = cells
    for i in range(first, last):
        most = max(most, ends[i] - start)
        start = ends[i]
    spare = <Item*>malloc(most * sizeof(Item) + 1)
    if spare == NULL:
        raise MemoryError
    try:
        start = begin
        for i in range(first, last):
            sort_part(&order, items + start, spare, ends[i] - start, n, shift)
            start = ends[i]
            if start - looked > CELLS:
                looked = start
                check_signals()
    finally:
        free(spare)
    return 0

"""128-bit coordinates: their order, how they are sorted, each with the number that it had, and search in sorted ones."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.hashing.digest cimport KeyRef

# Order of keys whose coordinates are equal: type without the tombstone bit, then bytes, then length. Below, at or above zero.
cdef int compare_keys(const KeyRef* a, const KeyRef* b) noexcept nogil


cdef struct Item:               # a cell that is being sorted
    uint64_t c0
    uint64_t c1
    uint32_t index              # its number before

# compare_keys of two cells by index: asked only when their coordinates are equal.
ctypedef int (*CompareCells)(const void* cells, uint32_t a, uint32_t b) noexcept nogil

# Cells are sorted by (c0, c1, key type, key bytes, index) in steps, each of which several threads take for a share of the cells,
# or of the buckets: cells are counted by the top bits of c0, the counts of all shares become places, the cells are put there, and
# every bucket is sorted by itself. 1,000,000 cells: 2,048 buckets, each sorted into 128 parts, of four cells.
cdef enum:
    RADIX_BITS = 11             # 2,048 counters: they and the write fronts stay in the second-level cache
    MOST_BUCKETS = 1 << RADIX_BITS

# For n cells, n < 2^32: the bucket of one is c0 >> bucket_shift(n).
cdef int bucket_shift(size_t n) noexcept nogil
# counts[MOST_BUCKETS] of cells [lo, hi).
cdef void count_buckets(const uint64_t* c0, size_t lo, size_t hi, int shift, uint32_t* counts) noexcept nogil
# counts[shares][MOST_BUCKETS] become where each share's next cell of a bucket goes, so that cells keep their order in a bucket.
cdef void place_buckets(uint32_t* counts, size_t shares, int shift) noexcept nogil
# The items of cells [lo, hi). next: the share's places, which become the ends of its cells.
cdef void fill_buckets(const uint64_t* c0, const uint64_t* c1, size_t lo, size_t hi, int shift, uint32_t* next,
                       Item* items) noexcept nogil
# Sorts buckets [first, last) of items[0..n). ends: of the last share. Raises MemoryError, and what a signal's handler raises.
cdef int sort_buckets(Item* items, size_t n, const uint32_t* ends, size_t first, size_t last, int shift, CompareCells compare,
                      const void* cells) except -1 nogil


cdef inline size_t bucket_count(int shift) noexcept nogil:
    return <size_t>1 << (64 - shift)


cdef enum:
    # Steps of interpolation before binary search takes over: uniform digests need three or four, and a store made to
    # mislead the guesses costs these and log2(n) more.
    MAX_GUESSES = 6


cdef inline size_t lower_bound(const uint64_t* values, size_t stride, size_t lo, size_t hi, uint64_t key) noexcept nogil:
    """The first i in [lo, hi) with values[i * stride] >= key, else hi; the values ascend."""
    if lo >= hi:
        return hi
    return bounded(values, stride, lo, hi, values[lo * stride], values[(hi - 1) * stride], key)


cdef inline size_t bounded(const uint64_t* values, size_t stride, size_t lo, size_t hi, uint64_t low, uint64_t high,
                           uint64_t key) noexcept nogil:
    """lower_bound() of a range that is not empty and whose first and last values are known."""
    cdef int guesses = 0
    cdef size_t at
    cdef uint64_t value
    if key <= low:
        return lo
    if key > high:
        return hi
    hi -= 1                     # from here: values[lo] < key <= values[hi]
    while hi - lo > 8 and guesses < MAX_GUESSES:
        at = lo + <size_t>(<double>(key - low) / <double>(high - low) * <double>(hi - lo))
        if at <= lo:
            at = lo + 1
        elif at >= hi:
            at = hi - 1
        value = values[at * stride]
        if value < key:
            lo = at
            low = value
        else:
            hi = at
            high = value
        guesses += 1
    while hi - lo > 1:
        at = lo + (hi - lo) // 2
        if values[at * stride] < key:
            lo = at
        else:
            hi = at
    return hi

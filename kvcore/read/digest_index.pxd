"""An index of all cells of a snapshot by digest: one cache line a lookup, however many fragments there are.

    bucket   8 entries of 8 bytes, one cache line; the bucket of a digest is c0 scaled to the number of buckets
    entry    bit 63: in the first entry of a bucket, one of the bucket's cells is in the next one, or is left out
             bits 48 to 62: the top bits of c1
             bits 0 to 47: number of the cell, counted over the fragments, newest first, plus 1; 0 for an empty entry

Fragments are sorted by c0, so each of them is entered in one pass from the first bucket to the last: 10 ns a cell. A cell whose
digest has an entry from a newer fragment is left out. 4 cells a bucket on average leave 2 % of the buckets too small; what these
have no room for is in the next bucket, and few cells find that full too. A lookup that ends between two such, or finds another
key of the same digest, goes through the fragments as if there were no index.
"""

from libc.stdint cimport uint64_t

from tilekv.kvcore.codec.pipeline cimport Status
from tilekv.kvcore.read.chunk_reader cimport ReadContext, FragmentData

cdef extern from "base/scale.h" nogil:
    # The integer part of a * n / 2^64.
    uint64_t tkv_scale(uint64_t a, uint64_t n) noexcept

cdef enum:
    ENTRIES = 8
    NUMBER_BITS = 48
    TAG_SHIFT = 49              # of c1
    CELL_BYTES = 16             # of the index for each cell
    LARGE_PAGE = 2 << 20

# Immutable once built.
cdef struct DigestIndex:
    uint64_t* entries           # in large pages, and so in lines, from 2 MiB on
    uint64_t buckets
    uint64_t bytes
    size_t n                    # fragments
    uint64_t* first             # n + 1: the number of each fragment's first cell, and of all cells


cdef inline uint64_t index_bytes(uint64_t cells) noexcept nogil:
    """Of the entries. REQUIRES: cells < 2^48."""
    cdef uint64_t bytes = (cells * CELL_BYTES // 64 + 1) * 64
    return bytes if bytes < LARGE_PAGE else (bytes + LARGE_PAGE - 1) // LARGE_PAGE * LARGE_PAGE


# NULL when memory is out or a fragment's coordinates cannot be read: there is no index then. Raises what the handler of a signal
# raises.
cdef DigestIndex* index_build(FragmentData** at, size_t n, ReadContext* context) except? NULL nogil
cdef void index_free(DigestIndex* index) noexcept nogil


cdef inline const uint64_t* index_bucket(const DigestIndex* index, uint64_t c0) noexcept nogil:
    return index.entries + ENTRIES * tkv_scale(c0, index.buckets)


cdef inline uint64_t* next_bucket(const DigestIndex* index, const uint64_t* bucket) noexcept nogil:
    """Where goes what a bucket has no room for."""
    bucket += ENTRIES
    return <uint64_t*>(bucket if bucket < index.entries + ENTRIES * index.buckets else index.entries)


cdef inline bint entry_matches(uint64_t entry, uint64_t c1) noexcept nogil:
    """The entry is not empty and may be of this digest."""
    return entry << 1 >> TAG_SHIFT == c1 >> TAG_SHIFT and entry << 1 != 0


cdef inline uint64_t index_find(const DigestIndex* index, uint64_t c0, uint64_t c1, bint* sure) noexcept nogil:
    """The entry that may be of this digest; 0 when there is none, and *sure is False when a cell may be all the same."""
    cdef const uint64_t* bucket = index_bucket(index, c0)
    cdef int _attempt, k
    sure[0] = True
    for _attempt in range(2):
        for k in range(ENTRIES):
            if bucket[k] << 1 == 0:
                return 0
            if entry_matches(bucket[k], c1):
                return bucket[k]
        if not bucket[0] >> 63:
            return 0
        bucket = next_bucket(index, bucket)
    sure[0] = False
    return 0


cdef inline uint64_t entry_number(uint64_t entry) noexcept nogil:
    return (entry & ((<uint64_t>1 << NUMBER_BITS) - 1)) - 1


cdef inline size_t index_fragment(const DigestIndex* index, uint64_t number) noexcept nogil:
    """The fragment of a cell by its number."""
    cdef size_t lo = 0, hi = index.n, middle
    while hi - lo > 1:
        middle = (lo + hi) // 2
        if index.first[middle] <= number:
            lo = middle
        else:
            hi = middle
    return lo

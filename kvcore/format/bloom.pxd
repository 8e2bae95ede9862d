"""A Bloom filter over the digests of a fragment: a key that it does not know is not there, at the price of a cache line.

Of 10 bits a key, 1 % of the keys that are not there pass. Blocks are chosen by c0, so a sorted fragment fills them in order, and
the bits in a block by c1: the digest is the hash.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.cache cimport tkv_flag
from tilekv.kvcore.base.wire cimport Out

cdef extern from "format/bloom.h" nogil:
    uint64_t tkv_high_product(uint64_t a, uint64_t b)
    bint tkv_bloom_has(const uint8_t* block, uint32_t hash)

cdef enum:
    BLOOM_BLOCK = 32            # bytes
    BLOOM_BITS = 10             # a key
    # Blocks of a page of 4 KiB, behind which its CRC-32C stands, and zeros that fill a block.
    BLOOM_PAGE = 127


cdef struct Bloom:
    const uint8_t* data         # its pages
    uint64_t blocks             # 0: there is none
    uint64_t low                # the c0 at which the first block begins
    uint64_t factor             # blocks for each c0 from there on, times 2^64
    uint8_t* checked            # a flag for each page, that its checksum has held


cdef inline uint64_t bloom_pages(uint64_t blocks) noexcept nogil:
    return (blocks + BLOOM_PAGE - 1) // BLOOM_PAGE


cdef inline uint64_t bloom_bytes(uint64_t blocks) noexcept nogil:
    """Of a filter's pages, the last one as long as it must be."""
    return BLOOM_BLOCK * (blocks + bloom_pages(blocks))


cdef inline uint64_t bloom_block(const Bloom* bloom, uint64_t c0) noexcept nogil:
    return min(tkv_high_product(c0 - bloom.low, bloom.factor), bloom.blocks - 1)


cdef inline const uint8_t* bloom_at(const Bloom* bloom, uint64_t block) noexcept nogil:
    return bloom.data + BLOOM_BLOCK * (block + block // BLOOM_PAGE)


# Whether a page's checksum holds, which is noted.
cdef bint bloom_check(const Bloom* bloom, uint64_t page) noexcept nogil
# Room for about `cells` of the `width` coordinates from low on (0 stands for 2^64), all zero, in `out`. -1: no memory.
cdef int bloom_begin(Bloom* bloom, Out* out, uint64_t cells, uint64_t low, uint64_t width) noexcept nogil
# REQUIRES, for these two: bloom_begin() with the same `out`.
cdef void bloom_add(Bloom* bloom, Out* out, uint64_t c0, uint64_t c1) noexcept nogil
cdef void bloom_seal(Bloom* bloom, Out* out) noexcept nogil


cdef inline bint bloom_may_have(const Bloom* bloom, uint64_t c0, uint64_t c1) noexcept nogil:
    """False when no cell has these coordinates. What is damaged knows nothing: the cells themselves are looked at, and `verify`
    says what is wrong."""
    cdef uint64_t block
    if bloom.blocks == 0:
        return True
    block = bloom_block(bloom, c0)
    return tkv_bloom_has(bloom_at(bloom, block), <uint32_t>c1) or (
        not tkv_flag(&bloom.checked[block // BLOOM_PAGE]) and not bloom_check(bloom, block // BLOOM_PAGE))

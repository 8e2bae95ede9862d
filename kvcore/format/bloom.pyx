from libc.string cimport memcmp, memset

from tilekv.kvcore.base.cache cimport tkv_set_flag
from tilekv.kvcore.base.crc32c cimport tkv_crc32c
from tilekv.kvcore.base.wire cimport load32, out_room, store32

cdef extern from "format/bloom.h" nogil:
    uint64_t tkv_high_ratio(uint64_t a, uint64_t b)
    void tkv_bloom_set(uint8_t* block, uint32_t hash)


cdef const uint8_t[BLOOM_BLOCK] zeros


cdef inline uint64_t page_bytes(const Bloom* bloom, uint64_t page) noexcept nogil:
    """Of a page's blocks."""
    return BLOOM_BLOCK * min(<uint64_t>BLOOM_PAGE, bloom.blocks - page * BLOOM_PAGE)


cdef bint bloom_check(const Bloom* bloom, uint64_t page) noexcept nogil:
    cdef const uint8_t* at = bloom_at(bloom, page * BLOOM_PAGE)
    cdef uint64_t n = page_bytes(bloom, page)
    if tkv_crc32c(0, at, n) != load32(at + n) or memcmp(at + n + 4, zeros, BLOOM_BLOCK - 4) != 0:
        return False
    tkv_set_flag(&bloom.checked[page], 1)
    return True


cdef int bloom_begin(Bloom* bloom, Out* out, uint64_t cells, uint64_t low, uint64_t width) noexcept nogil:
    cdef uint64_t n
    bloom.blocks = cells * BLOOM_BITS // (8 * BLOOM_BLOCK) + 1
    bloom.low = low
    bloom.factor = bloom.blocks if width == 0 else tkv_high_ratio(bloom.blocks, width)
    n = bloom_bytes(bloom.blocks)
    out.size = 0
    if out_room(out, n) == NULL:
        bloom.blocks = 0
        return -1
    memset(out.data, 0, n)
    out.size = n
    return 0


cdef void bloom_add(Bloom* bloom, Out* out, uint64_t c0, uint64_t c1) noexcept nogil:
    cdef uint64_t block = bloom_block(bloom, c0)
    tkv_bloom_set(out.data + BLOOM_BLOCK * (block + block // BLOOM_PAGE), <uint32_t>c1)


cdef void bloom_seal(Bloom* bloom, Out* out) noexcept nogil:
    cdef uint64_t page, n
    cdef uint8_t* at
    for page in range(bloom_pages(bloom.blocks)):
        at = out.data + BLOOM_BLOCK * page * (BLOOM_PAGE + 1)
        n = page_bytes(bloom, page)
        store32(at + n, tkv_crc32c(0, at, n))

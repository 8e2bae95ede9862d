from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tilekv.kvcore.base.signals cimport CELLS
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.read.chunk_reader cimport ReadContext, FragmentData, Pin, fragment_coords, tile_cells, unpin

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef uint64_t TOO_SMALL = <uint64_t>1 << 63


cdef void index_free(DigestIndex* index) noexcept nogil:
    if index != NULL:
        tkv_pages_free(index.entries, index.bytes)
        free(index.first)
        free(index)


cdef Status same_digest(const DigestIndex* index, FragmentData** at, uint64_t number, uint64_t c0, uint64_t c1,
                        ReadContext* context, bint* same) noexcept nogil:
    cdef size_t i = index_fragment(index, number)
    cdef uint64_t cell = (number - index.first[i]) % at[i].capacity
    cdef uint64_t tile = (number - index.first[i]) // at[i].capacity
    cdef uint64_t words[2]
    cdef int dimension
    cdef Pin pin
    cdef Status status
    for dimension in range(2):
        status = fragment_coords(at[i], tile, dimension, context, &pin)
        if status != OK:
            return status
        words[dimension] = (<const uint64_t*>pin.data)[cell]
        unpin(at[i], &pin)
    same[0] = words[0] == c0 and words[1] == c1
    return OK


cdef Status enter(DigestIndex* index, FragmentData** at, uint64_t number, uint64_t c0, uint64_t c1,
                  ReadContext* context) noexcept nogil:
    cdef uint64_t* bucket = <uint64_t*>index_bucket(index, c0)
    cdef int _attempt, k
    cdef bint same = False
    cdef Status status
    for _attempt in range(2):
        for k in range(ENTRIES):
            if bucket[k] << 1 == 0:
                bucket[k] |= (c1 >> TAG_SHIFT) << NUMBER_BITS | (number + 1)
                return OK
            if entry_matches(bucket[k], c1):
                status = same_digest(index, at, entry_number(bucket[k]), c0, c1, context, &same)
                if status != OK or same:
                    return status
        bucket[0] |= TOO_SMALL
        bucket = next_bucket(index, bucket)
    return OK


cdef Status enter_tile(DigestIndex* index, FragmentData** at, size_t i, uint64_t tile, ReadContext* context) noexcept nogil:
    cdef uint64_t j, n = tile_cells(at[i], tile), number = index.first[i] + tile * at[i].capacity
    cdef Pin c0, c1
    cdef Status status = fragment_coords(at[i], tile, 0, context, &c0)
    if status != OK:
        return status
    status = fragment_coords(at[i], tile, 1, context, &c1)
    if status == OK:
        for j in range(n):
            status = enter(index, at, number + j, (<const uint64_t*>c0.data)[j], (<const uint64_t*>c1.data)[j], context)
            if status != OK:
                break
        unpin(at[i], &c1)
    unpin(at[i], &c0)
    return status


cdef DigestIndex* index_build(FragmentData** at, size_t n, ReadContext* context) except? NULL nogil:
    cdef DigestIndex* index = <DigestIndex*>calloc(1, sizeof(DigestIndex))
    cdef size_t i
    cdef uint64_t tile, cells = 0
    if index == NULL:
        return NULL
    index.n = n
    index.first = <uint64_t*>calloc(n + 1, sizeof(uint64_t))
    if index.first == NULL:
        index_free(index)
        return NULL
    for i in range(n):
        index.first[i + 1] = index.first[i] + at[i].cells
    index.buckets = index.first[n] * CELL_BYTES // 64 + 1
    index.bytes = index_bytes(index.first[n])
    index.entries = <uint64_t*>tkv_pages_alloc(index.bytes)
    if index.entries == NULL:
        index_free(index)
        return NULL
    memset(index.entries, 0, index.bytes)
    for i in range(n):
        for tile in range(at[i].ntiles):
            if enter_tile(index, at, i, tile, context) != OK:
                index_free(index)
                return NULL
            cells += tile_cells(at[i], tile)
            if cells > CELLS:
                cells = 0
                with gil:
                    try:
                        PyErr_CheckSignals()
                    except BaseException:
                        index_free(index)
                        raise
    return index

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.read.chunk_reader cimport ReadContext, FragmentData, Pin, fragment_coords, tile_cells, unpin

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef enum:
    # 512 KiB of the index: they stay in a core's cache while the cells of every fragment are entered. With a pass over all of it
    # for each fragment a cell took 130 ns of 26 fragments with 1,800,000 cells.
    BUCKETS_AT_ONCE = 8 << 10

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


cdef Status enter(DigestIndex* index, FragmentData** at, uint64_t number, uint64_t c0, uint64_t c1, uint64_t* bucket,
                  ReadContext* context) noexcept nogil:
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


cdef struct Cursor:             # the next cell of a fragment to be entered
    uint64_t tile
    uint64_t cell


cdef Status enter_until(DigestIndex* index, FragmentData** at, size_t i, Cursor* cursor, const uint64_t* end,
                        ReadContext* context) noexcept nogil:
    """Enter the cells of a fragment from the cursor on whose bucket is before `end`."""
    cdef uint64_t n = 0, number
    cdef uint64_t* bucket
    cdef Pin c0, c1
    cdef Status status = OK
    while status == OK and cursor.tile < at[i].ntiles:
        status = fragment_coords(at[i], cursor.tile, 0, context, &c0)
        if status != OK:
            break
        status = fragment_coords(at[i], cursor.tile, 1, context, &c1)
        if status == OK:
            n = tile_cells(at[i], cursor.tile)
            number = index.first[i] + cursor.tile * at[i].capacity
            while cursor.cell < n:
                bucket = <uint64_t*>index_bucket(index, (<const uint64_t*>c0.data)[cursor.cell])
                if bucket >= end:
                    break
                status = enter(index, at, number + cursor.cell, (<const uint64_t*>c0.data)[cursor.cell],
                               (<const uint64_t*>c1.data)[cursor.cell], bucket, context)
                if status != OK:
                    break
                cursor.cell += 1
            unpin(at[i], &c1)
        unpin(at[i], &c0)
        if status != OK or cursor.cell < n:
            break
        cursor.tile += 1
        cursor.cell = 0
    return status


cdef DigestIndex* index_build(FragmentData** at, size_t n, ReadContext* context) except? NULL nogil:
    cdef DigestIndex* index = <DigestIndex*>calloc(1, sizeof(DigestIndex))
    cdef Cursor* cursors
    cdef uint64_t at_bucket = 0
    cdef size_t i
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
    cursors = <Cursor*>calloc(n + 1, sizeof(Cursor))
    if cursors == NULL:
        index_free(index)
        return NULL
    while at_bucket < index.buckets:
        at_bucket = min(at_bucket + BUCKETS_AT_ONCE, index.buckets)
        for i in range(n):
            if enter_until(index, at, i, &cursors[i], index.entries + ENTRIES * at_bucket, context) != OK:
                free(cursors)
                index_free(index)
                return NULL
        with gil:
            try:
                PyErr_CheckSignals()
            except BaseException:
                free(cursors)
                index_free(index)
                raise
    free(cursors)
    return index

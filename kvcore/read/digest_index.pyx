from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tilekv.kvcore.base.signals cimport CELLS
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.read.chunks cimport ReadContext, FragmentData, Pin, fragment_coords, tile_cells, unpin

cdef extern from "base/pages.h" nogil:
    void* tkv_pages_alloc(size_t n)
    void tkv_pages_free(void* at, size_t n)

cdef uint64_t TOO_SMALL = <uint64_t>1 << 63


cdef void table_free(DigestIndex* table) noexcept nogil:
    if table != NULL:
        tkv_pages_free(table.entries, table.bytes)
        free(table.first)
        free(table)


cdef Status same_digest(const DigestIndex* table, FragmentData** at, uint64_t number, uint64_t c0, uint64_t c1,
                        ReadContext* context, bint* same) noexcept nogil:
    cdef size_t i = table_fragment(table, number)
    cdef uint64_t cell = (number - table.first[i]) % at[i].capacity
    cdef uint64_t tile = (number - table.first[i]) // at[i].capacity
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


cdef Status enter(DigestIndex* table, FragmentData** at, uint64_t number, uint64_t c0, uint64_t c1,
                  ReadContext* context) noexcept nogil:
    cdef uint64_t* bucket = table.entries + ENTRIES * tkv_scale(c0, table.buckets)
    cdef int k
    cdef bint same = False
    cdef Status status
    for k in range(ENTRIES):
        if bucket[k] << 1 == 0:
            bucket[k] |= (c1 >> TAG_SHIFT) << NUMBER_BITS | (number + 1)
            return OK
        if entry_matches(bucket[k], c1):
            status = same_digest(table, at, entry_number(bucket[k]), c0, c1, context, &same)
            if status != OK or same:
                return status
    bucket[0] |= TOO_SMALL
    return OK


cdef Status enter_tile(DigestIndex* table, FragmentData** at, size_t i, uint64_t tile, ReadContext* context) noexcept nogil:
    cdef uint64_t j, n = tile_cells(at[i], tile), number = table.first[i] + tile * at[i].capacity
    cdef Pin c0, c1
    cdef Status status = fragment_coords(at[i], tile, 0, context, &c0)
    if status != OK:
        return status
    status = fragment_coords(at[i], tile, 1, context, &c1)
    if status == OK:
        for j in range(n):
            status = enter(table, at, number + j, (<const uint64_t*>c0.data)[j], (<const uint64_t*>c1.data)[j], context)
            if status != OK:
                break
        unpin(at[i], &c1)
    unpin(at[i], &c0)
    return status


cdef DigestIndex* table_build(FragmentData** at, size_t n, ReadContext* context) except? NULL nogil:
    cdef DigestIndex* table = <DigestIndex*>calloc(1, sizeof(DigestIndex))
    cdef size_t i
    cdef uint64_t tile, cells = 0
    if table == NULL:
        return NULL
    table.n = n
    table.first = <uint64_t*>calloc(n + 1, sizeof(uint64_t))
    if table.first == NULL:
        table_free(table)
        return NULL
    for i in range(n):
        table.first[i + 1] = table.first[i] + at[i].cells
    table.buckets = table.first[n] * CELL_BYTES // 64 + 1
    table.bytes = table_bytes(table.first[n])
    table.entries = <uint64_t*>tkv_pages_alloc(table.bytes)
    if table.entries == NULL:
        table_free(table)
        return NULL
    memset(table.entries, 0, table.bytes)
    for i in range(n):
        for tile in range(at[i].ntiles):
            if enter_tile(table, at, i, tile, context) != OK:
                table_free(table)
                return NULL
            cells += tile_cells(at[i], tile)
            if cells > CELLS:
                cells = 0
                with gil:
                    try:
                        PyErr_CheckSignals()
                    except BaseException:
                        table_free(table)
                        raise
    return table

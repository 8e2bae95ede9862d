from libc.string cimport memcmp, memcpy, memset

from tilekv.kvcore.base.wire cimport Cursor, cursor, take
from tilekv.kvcore.codec.filters cimport CORRUPT, OK, UNSUPPORTED

cdef enum:
    COUNT = 2                   # bytes of a count
    LONGEST_RUN = 65535


cdef size_t bound_runs(const Pipeline* pipeline, size_t n) noexcept nogil:
    return n + n // pipeline.cell_bytes * COUNT


cdef uint64_t ratio_runs(const Pipeline* pipeline) noexcept nogil:
    cdef uint64_t cell = pipeline.cell_bytes
    return LONGEST_RUN * cell // (cell + COUNT) + 1


cdef Status compress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil:
    cdef size_t cell = step.pipeline.cell_bytes
    cdef const uint8_t* end = data + n
    cdef const uint8_t* run
    cdef uint8_t* at = to
    cdef size_t count
    if n % cell != 0:
        return UNSUPPORTED
    while data < end:
        run = data
        data += cell
        count = 1
        while data < end and count < <size_t>LONGEST_RUN and memcmp(data, run, cell) == 0:
            data += cell
            count += 1
        memcpy(at, run, cell)
        at[cell] = <uint8_t>(count >> 8)
        at[cell + 1] = <uint8_t>count
        at += cell + COUNT
    written[0] = at - to
    return OK


cdef void repeat(const uint8_t* cell, size_t bytes_, uint8_t* to, size_t n) noexcept nogil:
    """Fills n bytes, which are whole cells, in copies that double."""
    cdef size_t done = bytes_, more
    if bytes_ == 1:
        memset(to, cell[0], n)
        return
    memcpy(to, cell, bytes_)
    while done < n:
        more = min(done, n - done)
        memcpy(to + done, to, more)
        done += more


cdef Status decompress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef size_t cell = step.pipeline.cell_bytes
    cdef Cursor c = cursor(data, n)
    cdef const uint8_t* run
    cdef size_t bytes_
    while c.left > 0:
        run = take(&c, cell + COUNT)
        if run == NULL:
            return CORRUPT
        bytes_ = cell * (<size_t>run[cell] << 8 | run[cell + 1])
        if bytes_ == 0 or bytes_ > size:
            return CORRUPT
        repeat(run, cell, to, bytes_)
        to += bytes_
        size -= bytes_
    return OK if size == 0 else CORRUPT

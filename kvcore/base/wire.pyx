"""The growing output buffer."""

from libc.stdint cimport SIZE_MAX
from libc.stdlib cimport free, realloc

cdef extern from "base/poison.h" nogil:
    void tkv_poison(void* at, size_t n)


cdef uint8_t* out_room(Out* out, size_t n) noexcept nogil:
    cdef size_t capacity
    cdef uint8_t* data
    if out.data == NULL or n > out.capacity - out.size:
        if n > SIZE_MAX - out.size:
            return NULL
        capacity = max(out.size + n, out.capacity + out.capacity // 2, <size_t>256)
        data = <uint8_t*>realloc(out.data, capacity)
        if data == NULL:
            return NULL
        out.data = data
        out.capacity = capacity
    return out.data + out.size


cdef int out_bytes(Out* out, const void* data, size_t n) noexcept nogil:
    cdef uint8_t* at = out_room(out, n)
    if at == NULL:
        return -1
    if n > 0:  # data may be NULL then
        memcpy(at, data, n)
    out.size += n
    return 0


cdef int out8(Out* out, uint8_t v) noexcept nogil:
    return out_bytes(out, &v, 1)


cdef int out32(Out* out, uint32_t v) noexcept nogil:
    return out_bytes(out, &v, 4)


cdef int out64(Out* out, uint64_t v) noexcept nogil:
    return out_bytes(out, &v, 8)


cdef void out_free(Out* out) noexcept nogil:
    tkv_poison(out.data, out.capacity)
    free(out.data)
    out.data = NULL
    out.size = 0
    out.capacity = 0

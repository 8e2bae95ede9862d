"""The growing output buffer, and CRC-32C for Python."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport SIZE_MAX
from libc.stdlib cimport free, realloc

cdef extern from "base/crc32c.h" nogil:
    uint32_t tkv_crc32c_tables(uint32_t crc, const void* data, size_t n)

cdef extern from "base/poison.h" nogil:
    void tkv_spoil(void* at, size_t n)


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
    tkv_spoil(out.data, out.capacity)
    free(out.data)
    out.data = NULL
    out.size = 0
    out.capacity = 0


def crc32c(data, uint32_t crc=0):
    """CRC-32C of `data`, continuing from `crc`: crc32c(b, crc32c(a)) == crc32c(a + b).

    Castagnoli's polynomial, reflected, as RFC 3720 appendix B.4 has it. `data` is any C-contiguous buffer. OverflowError when
    `crc` is not a 32-bit unsigned integer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = tkv_crc32c(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


def crc32c_software(data, uint32_t crc=0):
    """crc32c() by tables alone, on every machine: what crc32c() is tested against."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = tkv_crc32c_tables(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc

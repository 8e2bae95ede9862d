"""Little-endian loads and stores, and the bounds-checked cursor.

Every byte that comes from disk is parsed through a Cursor: a read past the end sets `failed`, returns
zero and moves nothing, so a decoder cannot overrun by construction. Check `failed` once, after a group of reads.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint16_t load16(const void* p) noexcept nogil:
    cdef uint16_t v = 0
    memcpy(&v, p, 2)
    return v


cdef inline uint32_t load32(const void* p) noexcept nogil:
    cdef uint32_t v = 0
    memcpy(&v, p, 4)
    return v


cdef inline uint64_t load64(const void* p) noexcept nogil:
    cdef uint64_t v = 0
    memcpy(&v, p, 8)
    return v


cdef inline void store32(void* p, uint32_t v) noexcept nogil:
    memcpy(p, &v, 4)


cdef inline void store64(void* p, uint64_t v) noexcept nogil:
    memcpy(p, &v, 8)


cdef struct Cursor:
    const uint8_t* at
    size_t left
    bint failed                 # a read went past the end; the value it returned is zero


cdef inline Cursor cursor(const uint8_t* data, size_t n) noexcept nogil:
    cdef Cursor c
    c.at = data
    c.left = n
    c.failed = False
    return c


cdef inline const uint8_t* take(Cursor* c, size_t n) noexcept nogil:
    """The next n bytes, or NULL (and `failed`) when fewer are left."""
    cdef const uint8_t* p = c.at
    if c.failed or n > c.left:
        c.failed = True
        return NULL
    c.at += n
    c.left -= n
    return p


cdef inline uint8_t take8(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 1)
    return p[0] if p != NULL else 0


cdef inline uint16_t take16(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 2)
    return load16(p) if p != NULL else 0


cdef inline uint32_t take32(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 4)
    return load32(p) if p != NULL else 0


cdef inline uint64_t take64(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 8)
    return load64(p) if p != NULL else 0


# A growing output buffer: malloc'ed, owned by whoever declared it, released with out_free().
cdef struct Out:
    uint8_t* data
    size_t size
    size_t capacity


# Makes room for n more bytes and returns where they go, without counting them; NULL when memory is out.
cdef uint8_t* out_room(Out* out, size_t n) noexcept nogil
# Appends n bytes; -1 when memory is out.
cdef int out_bytes(Out* out, const void* data, size_t n) noexcept nogil
cdef int out8(Out* out, uint8_t v) noexcept nogil
cdef int out32(Out* out, uint32_t v) noexcept nogil
cdef int out64(Out* out, uint64_t v) noexcept nogil
cdef void out_free(Out* out) noexcept nogil

"""Memory that results are made in."""

from libc.stdint cimport uint8_t


cdef class PooledMemory:
    """Bytes, which go to the next result when nobody uses them any more. Who takes them as a buffer cannot write to them."""
    cdef uint8_t* at
    cdef size_t size
    cdef size_t room
    # Only the first n from here on.
    cdef int shrink(self, size_t n) except -1

# n bytes of anything.
cdef PooledMemory new_memory(size_t n)

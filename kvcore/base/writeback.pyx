"""Beginning to write a file to its disk before it is synced."""

from libc.stdint cimport uint64_t

cdef extern from "base/writeback.h" nogil:
    void tkv_begin_writing(int fd, uint64_t offset, uint64_t n)


def begin_writing(int fd, uint64_t offset, uint64_t n):
    """Have the system begin to write `n` bytes from `offset` of an open file to its disk.

    It promises nothing, and says nothing of errors: fsync does. Nothing happens where the system has no such call.
    """
    with nogil:
        tkv_begin_writing(fd, offset, n)

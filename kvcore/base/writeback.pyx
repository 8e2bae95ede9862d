"""Writing the dirty pages of files to their disks."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cdef extern from "base/writeback.h" nogil:
    ctypedef struct tkv_sync:
        int fd
        int error

    void tkv_begin_writing(int fd, uint64_t offset, uint64_t n)
    void tkv_sync_all(tkv_sync* all, size_t n)


def begin_writing(int fd, uint64_t offset, uint64_t n):
    """Have the system begin to write `n` bytes from `offset` of an open file to its disk.

    It promises nothing, and says nothing of errors: fsync does. Nothing happens where the system has no such call.
    """
    with nogil:
        tkv_begin_writing(fd, offset, n)


def sync_all(fds):
    """Sync open files and folders, all at the same time: they take about as long as one.

    Returns
    -------
    list of int
        For each what fsync said: 0, or its errno.
    """
    cdef list numbers = list(fds)
    cdef size_t n = len(numbers), i
    cdef tkv_sync* syncs = <tkv_sync*> calloc(n + 1, sizeof(tkv_sync))
    if syncs == NULL:
        raise MemoryError
    try:
        for i in range(n):
            syncs[i].fd = numbers[i]
        with nogil:
            tkv_sync_all(syncs, n)
        return [syncs[i].error for i in range(n)]
    finally:
        free(syncs)

"""The loop of a server: what has come of all that are ready, run in one batch, then sent."""

from libc.stdint cimport int64_t

from tilekv.kvcore.serve.batch cimport Batch, Connection


cdef class Loop:
    cdef readonly Batch batch
    cdef readonly dict connections      # by descriptor
    cdef list slots                     # the same; None where there is none
    cdef object server
    cdef int epoll
    cdef list todo                      # connections that are to be run, sent, or both
    cdef list last                      # of them those whose next command is a long one
    cdef Connection busy                # whose long command is under way, while others are answered
    cdef public bint stopped
    cdef public bint synced             # writes are flushed before they are answered
    cdef public double period           # seconds between two ticks
    cdef readonly size_t received       # bytes that are kept of what has come, of all connections
    cdef public size_t most_received
    cdef public size_t most_backlog     # bytes that a client may send before it reads what it has asked for
    cdef public int64_t bulk            # most bytes of one argument
    cdef readonly size_t bytes_in
    cdef readonly size_t bytes_out
    cdef int _take(self, Connection connection) except -1
    cdef int _list(self, Connection connection) except -1
    cdef int _finish(self, Connection connection) except -1
    cdef int _run_all(self) except -1

"""RESP, the protocol of Redis: requests into offsets, replies into bytes, and the patterns of keys.

A request is an array of strings, `*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n`, or a line of words. What a client announces costs
nothing: room is taken as bytes come.
"""

from libc.stdint cimport int64_t

cdef enum Parsed:
    UNFINISHED = 0              # more bytes are needed
    REQUEST = 1                 # args[:n]; n may be 0: nothing was asked
    INLINE = 2                  # a line: the one argument
    BROKEN = -1                 # `error` says why
    NO_MEMORY = -2

cdef struct Argument:           # size bytes at this offset from the request's first byte
    size_t at
    size_t size

cdef struct Limits:
    int64_t arguments           # most of one request
    int64_t bulk                # most bytes of one argument
    int64_t line                # most bytes of a line
    bint known                  # the client has said who it is: errors are called so

cdef struct Request:            # being read; zeroed before the first use
    Argument* args
    size_t n
    size_t room
    size_t at                   # bytes of it that have been looked at; of a whole one, all of its bytes
    int64_t left                # arguments to come
    int64_t bulk                # bytes of the one that has begun; -1: none has
    bint begun                  # its first line was read
    char error[80]

# Goes on with the request that begins at `data`, of which n bytes have come. After a whole one call request_next().
cdef Parsed parse_request(Request* request, const char* data, size_t n, const Limits* limits) noexcept nogil
cdef void request_next(Request* request) noexcept nogil
cdef void request_free(Request* request) noexcept nogil
# A whole number as Redis reads them: no sign but a minus, no leading zero. False when it is none, or does not fit.
cdef bint read_number(const char* data, size_t n, int64_t* number) noexcept nogil
# The digits of a number; how many.
cdef size_t write_number(char* into, int64_t number) noexcept nogil
# Redis's patterns: * ? [a-z] [^a] and \\ before what stands for itself.
cdef bint glob_matches(const char* pattern, size_t m, const char* text, size_t n) noexcept nogil

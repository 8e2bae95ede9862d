"""The two buffers of a connection: what has come and is not answered, what is answered and not sent."""

from libc.stdint cimport int64_t

from tilekv.kvcore.serve.resp cimport Limits, Request

cdef enum:
    REFERRED = 16 << 10         # bytes of an object from which on it is sent from where it is, and not copied

cdef struct Segment:            # of what is to be sent
    void* owner                 # holds `data`, with a reference; NULL: it is of `out`
    const char* data
    size_t at                   # in `data`, or in `out`
    size_t size

cdef struct Mark:               # how far the replies have come, to take back what follows
    size_t written
    size_t nsegments
    size_t last
    size_t pending

cdef struct Channel:            # zeroed before channel_open()
    int fd
    char* come                  # [start, end) is not answered yet
    size_t start
    size_t end
    size_t room
    Request request             # that begins at `start`
    Limits limits
    char* out
    size_t written              # bytes of `out`
    size_t out_room
    Segment* segments           # [sent, nsegments) are to be sent
    size_t sent
    size_t nsegments
    size_t segments_room
    size_t pending              # bytes that are to be sent
    bint ended                  # the client sends no more, or is gone
    bint lost                   # nothing can be sent any more
    bint starved                # there was no memory

cdef int channel_open(Channel* channel, int fd) noexcept nogil
# Reads what has come, at most some megabytes. `most`: bytes that the buffer may grow to. How many came; -1: it is full.
cdef int64_t channel_receive(Channel* channel, size_t most) noexcept nogil
# Sends what there is, as far as the system takes it, about a megabyte; how many bytes. What was sent is freed by channel_tidy().
cdef int64_t channel_send(Channel* channel) noexcept nogil
cdef void channel_tidy(Channel* channel) noexcept
cdef void channel_close(Channel* channel) noexcept
# Room for n bytes more of `out`, which put_written() then counts; NULL when there is no memory.
cdef char* put_room(Channel* channel, size_t n) noexcept nogil
cdef int put_written(Channel* channel, size_t n) noexcept nogil
cdef int put_bytes(Channel* channel, const void* data, size_t n) noexcept nogil
# `:5`, `$5`, `*5`, with its line end.
cdef int put_header(Channel* channel, char mark, int64_t number) noexcept nogil
# All of a bytes object: by reference when it is large.
cdef int put_object(Channel* channel, bytes data) except -1
# n bytes that stay where they are as long as `owner` lives: by reference.
cdef int put_held(Channel* channel, object owner, const void* data, size_t n) except -1
cdef Mark put_mark(Channel* channel) noexcept nogil
cdef void put_back(Channel* channel, const Mark* mark) noexcept

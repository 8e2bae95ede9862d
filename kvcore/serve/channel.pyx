from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from tilekv.kvcore.serve.resp cimport request_free, request_next, write_number

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from "serve/epoll.h" nogil:
    int MSG_NOSIGNAL

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    int MSG_DONTWAIT
    ssize_t recv(int fd, void* into, size_t n, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)

cdef enum:
    FIRST_ROOM = 16 << 10
    KEPT_ROOM = 64 << 10        # of a buffer that is empty: what is larger is given back
    ONE_READ = 4 << 20          # bytes that one connection may take of a round
    ONE_SEND = 1 << 20          # after so many bytes others come first, however fast a client reads
    PIECES = 64                 # segments of one call
    HEADER = 24


cdef int channel_open(Channel* channel, int fd) noexcept nogil:
    memset(channel, 0, sizeof(Channel))
    channel.fd = fd
    request_next(&channel.request)
    channel.come = <char*>malloc(FIRST_ROOM)
    channel.room = FIRST_ROOM
    return 0 if channel.come != NULL else -1


cdef bint make_room(Channel* channel, size_t most) noexcept nogil:
    """Room to read into; False when the buffer is as large as it may be."""
    cdef size_t room
    cdef char* grown
    if channel.start:
        memmove(channel.come, channel.come + channel.start, channel.end - channel.start)
        channel.end -= channel.start
        channel.start = 0
    if channel.room - channel.end >= FIRST_ROOM // 2:
        return True
    room = min(2 * channel.room, most)
    if room <= channel.end:
        return False
    grown = <char*>realloc(channel.come, room)
    if grown == NULL:
        channel.starved = True
        return False
    channel.come = grown
    channel.room = room
    return True


cdef int64_t channel_receive(Channel* channel, size_t most) noexcept nogil:
    cdef size_t total = 0, asked
    cdef ssize_t n
    cdef char* smaller
    if channel.start == channel.end:
        channel.start = channel.end = 0
        if channel.room > KEPT_ROOM:
            smaller = <char*>realloc(channel.come, FIRST_ROOM)
            if smaller != NULL:
                channel.come = smaller
                channel.room = FIRST_ROOM
    while total < ONE_READ:
        if channel.room - channel.end < FIRST_ROOM // 2 and not make_room(channel, most):
            return -1
        asked = channel.room - channel.end
        n = recv(channel.fd, channel.come + channel.end, asked, MSG_DONTWAIT)
        if n > 0:
            channel.end += <size_t>n
            total += <size_t>n
            if <size_t>n < asked:
                break
        elif n < 0 and errno == EINTR:
            continue
        else:
            if n == 0 or errno != EAGAIN:
                channel.ended = True
            break
    return <int64_t>total


cdef int64_t channel_send(Channel* channel) noexcept nogil:
    cdef iovec vectors[PIECES]
    cdef msghdr message
    cdef Segment* segment
    cdef size_t n, total = 0, left
    cdef ssize_t taken
    cdef const char* base
    memset(&message, 0, sizeof(message))
    message.msg_iov = vectors
    while channel.sent < channel.nsegments and total < ONE_SEND and not channel.lost:
        n = 0
        while n < PIECES and channel.sent + n < channel.nsegments:
            segment = &channel.segments[channel.sent + n]
            base = channel.out if segment.owner == NULL else segment.data
            vectors[n].iov_base = <void*>(base + segment.at)
            vectors[n].iov_len = segment.size
            n += 1
        message.msg_iovlen = n
        taken = sendmsg(channel.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if taken < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                channel.lost = True
            break
        left = <size_t>taken
        total += left
        channel.pending -= left
        while left:
            segment = &channel.segments[channel.sent]
            if left < segment.size:
                segment.at += left
                segment.size -= left
                break
            left -= segment.size
            channel.sent += 1
    return <int64_t>total


cdef void move_down(Channel* channel) noexcept nogil:
    """Use `out` from its beginning again: of a client that never reads all, it would grow for ever."""
    cdef size_t i, first = channel.written
    for i in range(channel.sent, channel.nsegments):
        if channel.segments[i].owner == NULL:
            first = channel.segments[i].at
            break
    if first < KEPT_ROOM or 2 * first < channel.written:
        return
    memmove(channel.out, channel.out + first, channel.written - first)
    channel.written -= first
    for i in range(channel.sent, channel.nsegments):
        if channel.segments[i].owner == NULL:
            channel.segments[i].at -= first


cdef void channel_tidy(Channel* channel) noexcept:
    cdef size_t i
    cdef char* smaller
    for i in range(channel.sent):
        if channel.segments[i].owner != NULL:
            Py_DECREF(<object>channel.segments[i].owner)
            channel.segments[i].owner = NULL
    if channel.sent < channel.nsegments:
        if channel.sent > PIECES:
            memmove(channel.segments, channel.segments + channel.sent, (channel.nsegments - channel.sent) * sizeof(Segment))
            channel.nsegments -= channel.sent
            channel.sent = 0
        move_down(channel)
        return
    channel.sent = channel.nsegments = channel.written = 0
    if channel.out_room > KEPT_ROOM:
        smaller = <char*>realloc(channel.out, FIRST_ROOM)
        if smaller != NULL:
            channel.out = smaller
            channel.out_room = FIRST_ROOM


cdef void channel_close(Channel* channel) noexcept:
    channel.sent = channel.nsegments
    channel_tidy(channel)
    free(channel.come)
    free(channel.out)
    free(channel.segments)
    request_free(&channel.request)
    memset(channel, 0, sizeof(Channel))
    channel.fd = -1
    channel.lost = channel.ended = True


cdef bint add_segment(Channel* channel, void* owner, const char* data, size_t at, size_t size) noexcept nogil:
    cdef size_t room
    cdef Segment* grown
    if channel.nsegments == channel.segments_room:
        room = max(2 * channel.segments_room, <size_t>4)
        grown = <Segment*>realloc(channel.segments, room * sizeof(Segment))
        if grown == NULL:
            channel.starved = True
            return False
        channel.segments = grown
        channel.segments_room = room
    channel.segments[channel.nsegments].owner = owner
    channel.segments[channel.nsegments].data = data
    channel.segments[channel.nsegments].at = at
    channel.segments[channel.nsegments].size = size
    channel.nsegments += 1
    channel.pending += size
    return True


cdef char* put_room(Channel* channel, size_t n) noexcept nogil:
    cdef size_t room
    cdef char* grown
    if channel.out_room - channel.written < n:
        room = max(2 * channel.out_room, channel.written + n, <size_t>FIRST_ROOM // 16)
        grown = <char*>realloc(channel.out, room)
        if grown == NULL:
            channel.starved = True
            return NULL
        channel.out = grown
        channel.out_room = room
    return channel.out + channel.written


cdef int put_written(Channel* channel, size_t n) noexcept nogil:
    cdef Segment* last
    cdef size_t at = channel.written
    channel.written += n
    if channel.nsegments > channel.sent:
        last = &channel.segments[channel.nsegments - 1]
        if last.owner == NULL and last.at + last.size == at:
            last.size += n
            channel.pending += n
            return 0
    return 0 if add_segment(channel, NULL, NULL, at, n) else -1


cdef int put_bytes(Channel* channel, const void* data, size_t n) noexcept nogil:
    cdef char* at = put_room(channel, n)
    if at == NULL:
        return -1
    memcpy(at, data, n)
    return put_written(channel, n)


cdef int put_header(Channel* channel, char mark, int64_t number) noexcept nogil:
    cdef char* at = put_room(channel, HEADER)
    cdef size_t n
    if at == NULL:
        return -1
    at[0] = mark
    n = 1 + write_number(at + 1, number)
    at[n] = c"\r"
    at[n + 1] = c"\n"
    return put_written(channel, n + 2)


cdef int put_object(Channel* channel, bytes data) except -1:
    cdef size_t n = PyBytes_GET_SIZE(data)
    if n < REFERRED:
        if put_bytes(channel, PyBytes_AS_STRING(data), n) < 0:
            raise MemoryError
        return 0
    return put_held(channel, data, PyBytes_AS_STRING(data), n)


cdef int put_held(Channel* channel, object owner, const void* data, size_t n) except -1:
    if not add_segment(channel, <void*>owner, <const char*>data, 0, n):
        raise MemoryError
    Py_INCREF(owner)
    return 0


cdef Mark put_mark(Channel* channel) noexcept nogil:
    cdef Mark mark
    mark.written = channel.written
    mark.nsegments = channel.nsegments
    mark.last = channel.segments[channel.nsegments - 1].size if channel.nsegments > channel.sent else 0
    mark.pending = channel.pending
    return mark


cdef void put_back(Channel* channel, const Mark* mark) noexcept:
    cdef size_t i
    for i in range(mark.nsegments, channel.nsegments):
        if channel.segments[i].owner != NULL:
            Py_DECREF(<object>channel.segments[i].owner)
    channel.nsegments = mark.nsegments
    channel.written = mark.written
    channel.pending = mark.pending
    if channel.nsegments > channel.sent:
        channel.segments[channel.nsegments - 1].size = mark.last

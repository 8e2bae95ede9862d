cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from cpython.exc cimport PyErr_CheckSignals

from tilekv.kvcore.serve.batch cimport monotonic
from tilekv.kvcore.serve.channel cimport Channel, channel_receive, channel_send, channel_tidy

cdef extern from "base/clock.h" nogil:
    int64_t tkv_now_ms()

cdef extern from "serve/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    int epoll_ctl(int epoll, int what, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int milliseconds)

cdef enum:
    EVENTS = 512                # of one round
    ROOM_AGAIN = 1 << 18        # bytes that are not sent: with fewer, a client whose commands waited for it is run again
    BEFORE_AUTH = 1 << 18       # bytes that are kept of a client that has not said who it is


@cython.final
cdef class Loop:
    def __cinit__(self, server, int epoll):
        """epoll: the descriptor of an epoll object, which is the caller's. server: see Server."""
        self.server = server
        self.epoll = epoll
        self.batch = Batch(server)
        self.connections = {}
        self.slots = []
        self.todo = []
        self.last = []
        self.period = 0.1
        self.most_received = 1 << 30
        self.most_backlog = 64 << 20
        self.bulk = 512 << 20

    def watch(self, int fd):
        """Tell the server (`readable`) when there is something to read of a descriptor that is no connection."""
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = EPOLLIN
        event.data.fd = fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, "epoll_ctl")

    def attach(self, Connection connection not None):
        """A client has come."""
        cdef int fd = connection.channel.fd
        connection.interest = EPOLLIN
        self.watch(fd)
        self.connections[fd] = connection
        while len(self.slots) <= fd:
            self.slots.append(None)
        self.slots[fd] = connection
        self.received += connection.channel.room

    def resume(self, Connection connection not None):
        """What a connection has waited for is done, or something was written to it, or it is to be closed."""
        if not connection.channel.lost:
            self._list(connection)

    def take_writes(self):
        """Writes are taken again: run those that have waited."""
        cdef Connection connection
        for connection in self.connections.values():
            if connection.parked:
                connection.parked = False
                self._list(connection)

    def shed(self, double seconds):
        """Close clients that have read nothing for so long of what they have asked for, while all together hold too much."""
        cdef Connection connection
        cdef list found
        if self.batch.pending <= self.batch.most_pending:
            for connection in self.connections.values():
                if connection.held and connection.channel.pending < ROOM_AGAIN:
                    self._list(connection)
            return
        found = [c for c in self.connections.values() if c.unsent and monotonic() - c.progress > seconds]
        for connection in sorted(found, key=lambda c: -c.unsent):
            if self.batch.pending <= self.batch.most_pending:
                break
            self.server.told("a client does not read what it has asked for, and is closed")
            self.close(connection)

    def breathe(self, Connection connection not None):
        """Answer others, while a long command of a connection is under way."""
        self.busy = connection
        try:
            self.step(0)
        finally:
            self.busy = None

    def close(self, Connection connection not None):
        """Let a client go at once."""
        cdef epoll_event event
        cdef int fd = connection.channel.fd
        if self.connections.pop(fd, None) is None:
            return
        self.slots[fd] = None
        memset(&event, 0, sizeof(event))
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)
        self.received -= connection.channel.room
        self.batch.pending -= connection.counted
        connection.counted = 0
        connection.channel.lost = True
        connection.socket.close()
        self.server.lost(connection)

    def run(self):
        """Until `stopped`."""
        cdef double due = monotonic() + self.period
        while not self.stopped:
            self.step(max(due - monotonic(), 0))
            if self.batch.now >= due:
                self.server.tick()
                due = monotonic() + self.period

    def step(self, double seconds):
        """Wait for so long until something has come, and answer it."""
        cdef epoll_event events[EVENTS]
        cdef Connection connection
        cdef int n, i, milliseconds
        milliseconds = 0 if self.todo or self.last or seconds <= 0 else <int>(seconds * 1000) + 1
        with nogil:
            n = epoll_wait(self.epoll, events, EVENTS, milliseconds)
        if n < 0 and errno != EINTR:
            raise OSError(errno, "epoll_wait")
        PyErr_CheckSignals()
        self.batch.now = monotonic()
        self.batch.clock_ms = tkv_now_ms()
        for i in range(n):
            connection = self.slots[events[i].data.fd] if events[i].data.fd < len(self.slots) else None
            if connection is None:
                self.server.readable(events[i].data.fd)
                continue
            if connection is self.busy:
                continue                                        # its command refers to what it has sent, where that is now
            self._list(connection)
            if events[i].events & (EPOLLERR | EPOLLHUP):
                connection.hung = True
            if events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP):
                self._take(connection)
        if self.todo:
            self._run_all()
        if self.last and self.busy is None:
            connection = self.last.pop(0)
            connection.alone = False
            if self.slots[connection.channel.fd] is connection:
                self.todo, kept = [connection], self.todo
                self.batch.alone = True
                try:
                    self._run_all()
                finally:
                    self.batch.alone = False
                    self.todo += kept

    cdef int _list(self, Connection connection) except -1:
        if not connection.listed and connection is not self.busy:
            connection.listed = True
            self.todo.append(connection)
        return 0

    cdef int _take(self, Connection connection) except -1:
        """Read what has come."""
        cdef Channel* channel = &connection.channel
        cdef size_t room = channel.room
        cdef size_t others = self.received - room
        cdef size_t most = BEFORE_AUTH
        cdef int64_t n
        if channel.ended:
            return 0
        if channel.limits.known:
            most = <size_t>self.bulk + (1 << 20)
            if connection.held:
                most = min(most, self.most_backlog)
        most = max(min(most, self.most_received - others if self.most_received > others else 0), room)
        with nogil:
            n = channel_receive(channel, most)
        connection.at = channel.start                           # what was kept may have moved
        self.received = others + channel.room
        if n > 0:
            self.bytes_in += <size_t>n
            connection.active = self.batch.now
        elif n < 0 and (connection.held or channel.starved or channel.request.begun or not channel.limits.known):
            # It sends and does not read, or there is no room for a request that has begun.
            self.server.told("a client is closed: there is no room for what it sends")
            channel.lost = True
        return 0

    cdef int _run_all(self) except -1:
        cdef list todo = self.todo
        cdef Connection connection
        cdef Batch batch = self.batch
        self.todo = []
        for connection in todo:
            connection.listed = False
            if connection.held and connection.channel.pending < ROOM_AGAIN and batch.pending < batch.most_pending:
                connection.held = False
            batch.run(connection)
            if connection.alone and connection not in self.last:
                self.last.append(connection)
        batch.settle()
        if batch.wrote:
            batch.wrote = False
            if self.synced and not self.server.commit():
                # What was not flushed is not answered.
                for connection in todo:
                    if connection.wrote:
                        connection.channel.lost = True
        for connection in todo:
            connection.wrote = False
            self._finish(connection)
        return 0

    cdef int _finish(self, Connection connection) except -1:
        """Send what is answered, and see what else there is to do for a connection."""
        cdef Channel* channel = &connection.channel
        cdef epoll_event event
        cdef size_t before
        cdef int64_t sent = 0
        cdef int interest
        if self.slots[channel.fd] is not connection:
            return 0                                            # it was closed meanwhile
        if channel.pending and not channel.lost:
            with nogil:
                sent = channel_send(channel)
            channel_tidy(channel)
            if sent > 0:
                self.bytes_out += <size_t>sent
                connection.progress = self.batch.now
        before = connection.counted
        connection.counted = channel.pending
        self.batch.pending += channel.pending
        self.batch.pending -= before
        if channel.pending == 0 and not channel.lost:
            connection.progress = self.batch.now
            if connection.closing or (channel.ended and not (connection.more or connection.held or connection.waiting
                                                             or connection.parked or connection.alone)):
                channel.lost = True
        if channel.lost or channel.starved or connection.hung:
            self.close(connection)
            return 0
        if connection.more or (connection.held and channel.pending < ROOM_AGAIN and self.batch.pending < self.batch.most_pending):
            self._list(connection)
        interest = 0
        if not channel.ended and not connection.closing and not ((connection.waiting or connection.parked)
                                                                 and channel.end - channel.start > (1 << 16)):
            interest |= EPOLLIN
        if channel.pending:
            interest |= EPOLLOUT
        if interest != connection.interest:
            memset(&event, 0, sizeof(event))
            event.events = <uint32_t>interest
            event.data.fd = channel.fd
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, channel.fd, &event)
            connection.interest = interest
        return 0

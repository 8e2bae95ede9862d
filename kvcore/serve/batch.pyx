cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free, realloc
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from tilekv.errors import InvalidValueError, TileKVError

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.base.wire cimport store64
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.format.layout cimport NEVER
from tilekv.kvcore.hashing.coords cimport compare_keys
from tilekv.kvcore.hashing.digest cimport table_hash
from tilekv.kvcore.read.address cimport IN_BUFFER, entry_at
from tilekv.kvcore.read.batch_lookup cimport find_buffered, find_keys
from tilekv.kvcore.read.chunk_reader cimport (DIRECT, FragmentData, Pin, Span, context_close, fragment_cell, fragment_chunk_at,
                                              fragment_copy, fragment_extent, unpin)
from tilekv.kvcore.read.plan cimport plan_bytes
from tilekv.kvcore.read.snapshot cimport (BLOCK, DELETED, MISSING, PRESENT, UNOPENED, FieldRef, Found,
                                          plain_field)
from tilekv.kvcore.serve.channel cimport (REFERRED, Mark, channel_close, channel_open, put_back,
                                          put_bytes, put_header, put_held, put_mark, put_object, put_room, put_written)
from tilekv.kvcore.serve.resp cimport (BROKEN, INLINE, NO_MEMORY, UNFINISHED, Argument, Parsed, Request, parse_request,
                                       read_number, request_next, write_number)
from tilekv.kvcore.values.values cimport KIND_BYTES, KIND_TEXT, Column
from tilekv.kvcore.write.memtable cimport Entry
from tilekv.kvcore.serve.resp import split_line

cdef extern from "base/utf8.h" nogil:
    bint tkv_utf8_valid(const uint8_t* at, size_t n)

cdef enum:
    FIELD = 1                   # of the one attribute
    ROOM_FOR_REPLIES = 1 << 20  # bytes of a client that are not sent: with more, its next command waits
    MOST_REPLY = 256 << 20      # bytes of one reply
    MOST_OPERATIONS = 1 << 14   # of a batch
    MOST_REQUESTS = 1 << 13     # of a connection before others are run
    MANY_KEYS = 16              # a command that reads more is a long one
    SLICE = 256                 # keys between two looks at the clock
    LONGEST_HEADER = 32
    KEPT_KEYS = 1 << 16

_NAMES = (b"", b"GET", b"MGET", b"EXISTS", b"DEL", b"SET", b"MSET", b"PING")


cdef double monotonic() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <double>t.tv_sec + 1e-9 * <double>t.tv_nsec


cdef class Keyspace:
    def __cinit__(self, Handle handle not None, *_):         # what is behind it is a subclass's
        self.handle = handle
        self.strings = serves(handle)
        self.text = self.strings and (<Column>handle._columns[0]).kind == KIND_TEXT
        self.expires = handle._layout.expires >= 0
        self.watched = {}

    def written(self):
        """Note that something was written into the handle by others than the batch."""
        self.writes += 1
        if self.dirty_since == 0:
            self.dirty_since = monotonic()


def serves(Handle handle not None):
    """Whether a store has one attribute of bytes or text, none of them null."""
    cdef Column column = handle._columns[0]
    return len(handle._columns) == 1 and column.kind in (KIND_BYTES, KIND_TEXT) and column.valid == 0


@cython.final
cdef class Connection:
    def __cinit__(self, socket, session=None):
        self.socket = socket
        self.session = session
        if channel_open(&self.channel, socket.fileno()) < 0:
            raise MemoryError
        self.active = self.progress = monotonic()

    def __dealloc__(self):
        channel_close(&self.channel)

    def limit(self, int64_t arguments, int64_t bulk, int64_t line, bint known):
        """How much a request of this client may have."""
        self.channel.limits.arguments = arguments
        self.channel.limits.bulk = bulk
        self.channel.limits.line = line
        self.channel.limits.known = known

    def write(self, bytes reply not None):
        """Have bytes sent; the loop does it."""
        if self.postponed is not None:
            self.postponed.append(reply)
        elif not self.channel.lost:
            put_object(&self.channel, reply)

    @property
    def unsent(self):
        """Bytes that are answered and not sent."""
        return self.channel.pending

    @property
    def unanswered(self):
        """Bytes that have come and are not answered."""
        return self.channel.end - self.channel.start

    @property
    def lost(self):
        """Whether nothing can be sent any more."""
        return self.channel.lost


cdef int tell_postponed(Connection connection) except -1:
    """What it is told stands behind the reply to its long command."""
    cdef list postponed = connection.postponed
    connection.postponed = None
    for reply in postponed:
        connection.write(reply)
    return 0


cdef inline bint is_word(const char* data, const Argument* argument, const char* word, size_t n) noexcept nogil:
    """Whether an argument is a word of capital letters, in whatever case."""
    cdef size_t i
    if argument.size != n:
        return False
    for i in range(n):
        if data[argument.at + i] & ~0x20 != word[i]:
            return False
    return True


cdef Kind kind_of(const char* data, const Request* request) noexcept nogil:
    """The kind of a command that may wait in a batch, as far as its name and the number of its arguments say."""
    cdef const Argument* args = request.args
    cdef size_t n = request.n
    if args[0].size == 3:
        if n == 2 and is_word(data, args, "GET", 3):
            return GET
        if (n == 3 or n == 5) and is_word(data, args, "SET", 3):
            return SET
        if n >= 2 and is_word(data, args, "DEL", 3):
            return DEL
    elif args[0].size == 4:
        if n >= 2 and is_word(data, args, "MGET", 4):
            return MGET
        if n >= 3 and n % 2 and is_word(data, args, "MSET", 4):
            return MSET
        if n == 1 and is_word(data, args, "PING", 4):
            return PING
    elif args[0].size == 5:
        if n == 4 and is_word(data, args, "SETEX", 5):
            return SET
    elif args[0].size == 6:
        if n >= 2 and is_word(data, args, "EXISTS", 6):
            return EXISTS
        if n >= 2 and is_word(data, args, "UNLINK", 6):
            return DEL
        if n == 4 and is_word(data, args, "PSETEX", 6):
            return SET
    return OTHER


cdef bint moment_of(const char* data, const Request* request, int64_t now, int64_t* moment) noexcept nogil:
    """When what a SET, SETEX or PSETEX sets expires; False when Python has to look at its arguments."""
    cdef const Argument* args = request.args
    cdef const Argument* number = &args[2]
    cdef int64_t n = 0, unit = 1
    moment[0] = NEVER
    if request.n == 3:
        return True
    if request.n == 5:
        number = &args[4]
        if is_word(data, &args[3], "EX", 2):
            unit = 1000
        elif not is_word(data, &args[3], "PX", 2):
            return False
    elif args[0].size == 5:
        unit = 1000
    if not read_number(data + number.at, number.size, &n) or n <= 0 or n > (<int64_t>1 << 45) // unit:
        return False
    moment[0] = now + n * unit
    return True


@cython.final
@cython.no_gc_clear             # __dealloc__ needs the snapshot
cdef class HeldValue:
    def __dealloc__(self):
        if self.fragment != NULL:
            unpin(self.fragment, &self.pin)


@cython.final
cdef class Batch:
    def __cinit__(self, server):
        self.server = server
        self.slower_than = 10000
        self.most_pending = 128 << 20
        self.most_seconds = 0.002

    def __dealloc__(self):
        free(self.operations)
        self._release()

    def note_write(self, Connection connection not None):
        """A command that Python has run for a connection has written something."""
        self.wrote = connection.wrote = True

    def reset(self):
        """Begin to count anew."""
        self.commands = 0
        memset(self.calls, 0, sizeof(self.calls))
        memset(self.seconds, 0, sizeof(self.seconds))

    def counts(self):
        """Of the commands that wait in a batch, by name: how often they were called, and in how many seconds. Those that were
        answered together share their time."""
        return {name.decode().lower(): (self.calls[kind], self.seconds[kind])
                for kind, name in enumerate(_NAMES) if kind and self.calls[kind]}

    cdef int run(self, Connection connection) except -1:
        cdef Channel* channel = &connection.channel
        cdef Request* request = &channel.request
        cdef Parsed parsed
        cdef Kind kind
        cdef size_t done = 0, at
        connection.more = False
        if connection.alone and not self.alone:
            return 0
        while not (connection.held or connection.waiting or connection.closing or connection.parked or channel.lost):
            if channel.pending > ROOM_FOR_REPLIES or (channel.pending and self.pending > self.most_pending):
                self.settle()
                connection.held = True
                break
            if done == MOST_REQUESTS:
                connection.more = True
                break
            at = connection.at
            parsed = parse_request(request, channel.come + at, channel.end - at, &channel.limits)
            if parsed == UNFINISHED:
                break
            done += 1
            if parsed == BROKEN or parsed == NO_MEMORY:
                self.settle()
                if connection.at != at:                         # what came before is run once more
                    continue
                text = request.error.decode() if parsed == BROKEN else "no memory for the request"
                put_object(channel, b"-ERR Protocol error: %b\r\n" % text.encode())
                connection.closing = True
                break
            if request.n == 0:
                connection.at += request.at
                request_next(request)
                if self.noperations == 0:
                    channel.start = connection.at
                continue
            kind = OTHER
            if parsed != INLINE and connection.fast and connection.careful == 0:
                kind = kind_of(channel.come + at, request)
            if (kind == MGET or kind == EXISTS or kind == DEL) and request.n > MANY_KEYS and not self.alone:
                connection.alone = True
                break
            if kind != OTHER and self._add(connection, kind):
                continue
            if connection.at == at and not connection.parked:
                self._run_other(connection, parsed == INLINE)
        return 0

    cdef bint _add(self, Connection connection, Kind kind) except -1:
        """Have a command wait in the batch. False when Python has to run it, or it has to wait longer: then nothing was done."""
        cdef Channel* channel = &connection.channel
        cdef const char* data = channel.come + connection.at
        cdef Request* request = &channel.request
        cdef const Argument* args = request.args
        cdef Keyspace space = connection.keyspace
        cdef Operation* operation
        cdef Operation* grown
        cdef KeyRef key
        cdef int64_t moment = NEVER
        cdef size_t i, same, start = connection.at, room
        if kind != PING:
            if space is None:
                return False
            if kind == SET or kind == MSET or kind == DEL:
                if space.refusal is not None or space.read_only:
                    return False
                if space.stalled:
                    connection.parked = True
                    return False
            if kind == SET:
                if not moment_of(data, request, self.clock_ms, &moment) or (moment != NEVER and not space.expires):
                    return False
            if space.text and (kind == SET or kind == MSET):
                if kind == SET:
                    i = 3 if request.n == 4 else 2
                    if not tkv_utf8_valid(<const uint8_t*>data + args[i].at, args[i].size):
                        return False
                else:
                    for i in range(2, request.n, 2):
                        if not tkv_utf8_valid(<const uint8_t*>data + args[i].at, args[i].size):
                            return False
            if self.noperations and (self.space is not space or self.noperations >= MOST_OPERATIONS):
                self.settle()
                if connection.at != start:
                    return False
            self.space = space
            if self.nwrites and kind != SET and kind != MSET and self._any_pending(connection, 1, 1):
                self.settle()
                if connection.at != start:
                    return False
        if self.noperations == self.operations_room:
            room = max(2 * self.operations_room, <size_t>64)
            grown = <Operation*>realloc(self.operations, room * sizeof(Operation))
            if grown == NULL:
                raise MemoryError
            self.operations = grown
            self.operations_room = room
        self._reserve(request.n, request.n)
        operation = &self.operations[self.noperations]
        operation.connection = <void*>connection
        operation.kind = kind
        operation.start = start
        operation.first_key = self.nkeys
        operation.first_write = self.nwrites
        if kind == SET:
            key_at(data, &args[1], &key)
            i = 3 if request.n == 4 else 2
            self._add_write(&key, data + args[i].at, args[i].size, moment, 0)
        elif kind == MSET:
            for i in range(1, request.n, 2):
                key_at(data, &args[i], &key)
                self._add_write(&key, data + args[i + 1].at, args[i + 1].size, NEVER, 0)
        elif kind != PING:
            if kind == GET or kind == MGET:
                self.values = True
            for i in range(1, request.n):
                self._add_key(data + args[i].at, args[i].size)
                if kind == DEL:
                    if request.n > 2:
                        same = self._pending_write(&self.keys[self.nkeys - 1])
                        if same:                                # twice in one command: it is gone by then
                            self.found[self.nkeys - 1] = DELETED
                            continue
                    self._add_write(&self.keys[self.nkeys - 1], NULL, 0, 0, self.nkeys - 1)
        operation.nkeys = self.nkeys - operation.first_key
        operation.nwrites = self.nwrites - operation.first_write
        self.noperations += 1
        connection.at += request.at
        request_next(request)
        if self.alone:
            self.settle()
            self.alone = False
        return True

    cdef int _run_other(self, Connection connection, bint line) except -1:
        """Run a command by Python, after all that came before."""
        cdef Channel* channel = &connection.channel
        cdef Request* request = &channel.request
        cdef const char* data
        cdef double begun
        cdef size_t i, at = connection.at
        cdef list words
        self.settle()
        if connection.at != at:
            return 0
        data = channel.come + connection.at
        words = [PyBytes_FromStringAndSize(data + request.args[i].at, request.args[i].size) for i in range(request.n)]
        if connection.keyspace is not None and connection.keyspace.stalled and not line and self.server.writes(words[0]):
            connection.parked = True
            return 0
        connection.at += request.at
        channel.start = connection.at
        request_next(request)
        if connection.careful:
            connection.careful -= 1
        if line:
            try:
                words = split_line(words[0])
            except ValueError as error:
                put_object(channel, b"-ERR Protocol error: %b\r\n" % str(error).encode())
                connection.closing = True
                return 0
            if not words:
                return 0
        self.commands += 1
        begun = monotonic()
        reply = self.server.execute(connection, words)
        if reply is not None and not channel.lost:
            put_object(channel, reply)
        if self.slower_than >= 0:
            begun = 1e6 * (monotonic() - begun)
            if begun >= self.slower_than:
                self.server.slow(connection, words, <int64_t>begun)
        return 0

    # --- what waits ---

    cdef int _reserve(self, size_t keys, size_t writes) except -1:
        """Room for so many more."""
        cdef size_t room
        if self.nkeys + keys > self.keys_room:
            room = max(2 * self.keys_room, self.nkeys + keys, <size_t>128)
            self.keys = <KeyRef*>grow(self.keys, room * sizeof(KeyRef))
            self.c0 = <uint64_t*>grow(self.c0, room * sizeof(uint64_t))
            self.c1 = <uint64_t*>grow(self.c1, room * sizeof(uint64_t))
            self.found = <int*>grow(self.found, room * sizeof(int))
            self.addresses = <CellAddress*>grow(self.addresses, room * sizeof(CellAddress))
            self.data = <const uint8_t**>grow(self.data, room * sizeof(void*))
            self.sizes = <uint64_t*>grow(self.sizes, room * sizeof(uint64_t))
            self.keys_room = room
        if self.nwrites + writes > self.writes_room:
            room = max(2 * self.writes_room, self.nwrites + writes, <size_t>128)
            self.writes = <Write*>grow(self.writes, room * sizeof(Write))
            self.writes_room = room
        return 0

    cdef void _add_key(self, const char* data, size_t size) noexcept:
        cdef KeyRef* key = &self.keys[self.nkeys]
        key.data = <const uint8_t*>data
        key.size = size
        key.type = CHAR if tkv_utf8_valid(key.data, size) else BLOB
        self.found[self.nkeys] = MISSING
        memset(&self.addresses[self.nkeys], 0, sizeof(CellAddress))
        self.nkeys += 1

    cdef void _add_write(self, const KeyRef* key, const char* value, size_t size, int64_t moment, size_t number) noexcept:
        cdef Write* write = &self.writes[self.nwrites]
        write.key = key[0]
        write.value = value
        write.size = size
        write.moment = moment
        write.number = number
        self.nwrites += 1

    cdef int _index(self) except -1:
        cdef size_t slots = max(self.slots, <size_t>64), at
        cdef uint32_t* table
        if self.table == NULL or 2 * self.nwrites > self.slots:
            while slots < 4 * self.nwrites:
                slots *= 2
            table = <uint32_t*>calloc(slots, sizeof(uint32_t))
            if table == NULL:
                raise MemoryError
            free(self.table)
            self.table = table
            self.slots = slots
            self.indexed = 0
        while self.indexed < self.nwrites:
            at = self._slot(&self.writes[self.indexed].key)
            self.indexed += 1
            self.table[at] = <uint32_t>self.indexed
        return 0

    cdef size_t _slot(self, const KeyRef* key) noexcept:
        cdef size_t at = table_hash(key) & (self.slots - 1)
        cdef const KeyRef* other
        while self.table[at]:
            other = &self.writes[self.table[at] - 1].key
            if other.size == key.size and compare_keys(other, key) == 0:
                break
            at = (at + 1) & (self.slots - 1)
        return at

    cdef size_t _pending_write(self, const KeyRef* key) except <size_t>-1:
        """The number of the newest write of a key that waits, from 1; 0 when none does."""
        if self.nwrites == 0:
            return 0
        if self.indexed < self.nwrites:
            self._index()
        return self.table[self._slot(key)]

    cdef bint _any_pending(self, Connection connection, size_t first, size_t step) except -1:
        """Whether a write of one of a command's keys waits."""
        cdef const char* data = connection.channel.come + connection.at
        cdef const Request* request = &connection.channel.request
        cdef KeyRef key
        cdef size_t i
        for i in range(first, request.n, step):
            key_at(data, &request.args[i], &key)
            if self._pending_write(&key):
                return True
        return False

    # --- settling ---

    cdef int settle(self) except -1:
        """Answer all that waits."""
        cdef Keyspace space = self.space
        cdef Connection connection
        cdef Operation* operation
        cdef size_t i, at
        cdef FieldRef field = plain_field(FIELD)
        cdef Kind first
        cdef double begun
        cdef uint64_t answered[KINDS]
        cdef uint64_t total = self.noperations
        cdef int epoch = -1
        if self.noperations == 0:
            return 0
        memset(answered, 0, sizeof(answered))
        begun = self.breathed = monotonic()
        first = self.operations[0].kind
        connection = <Connection>self.operations[0].connection
        if self.nkeys:
            try:
                self._find(connection)
                if self.alone and self.nwrites:
                    self._find_changed(connection)
            except (TileKVError, OSError, MemoryError):
                self._redo()
                if connection.postponed is not None:
                    tell_postponed(connection)
                return 0
            if self.values and self.snapshot.n:
                epoch = cache_enter(&self.snapshot.cache.cache)
                for at in range(0, self.nkeys, BLOCK):
                    if self.alone:
                        self._breathe(connection)
                    self.snapshot.resolve(&field, 1, min(<size_t>BLOCK, self.nkeys - at), self.found + at, self.addresses + at,
                                          self.data + at, self.sizes + at)
        try:
            for i in range(self.noperations):
                operation = &self.operations[i]
                connection = <Connection>operation.connection
                if connection.held:
                    continue                                    # one before it was put off
                if connection.channel.pending > ROOM_FOR_REPLIES:
                    self._put_off(operation, connection)
                    continue
                connection.channel.start = connection.at        # _put_off() of a later one sets it back
                answered[<int>operation.kind] += 1
                self.commands += 1
                self._answer(operation, connection)
        finally:
            if epoch >= 0:
                cache_exit(&self.snapshot.cache.cache, epoch)
            if self.snapshot is not None:
                context_close(&self.context, &self.snapshot.codecs.pool)
            if self.nwrites:
                if space.dirty_since == 0:
                    space.dirty_since = begun
                self.wrote = True
            self._clear()
            if connection.postponed is not None:
                tell_postponed(connection)
        if space is not None and space.dirty_since != 0:
            try:
                space.handle._flush_if_full()
                if space.handle._frozen is not None and space.handle._buffer.size > space.handle._budget:
                    space.stalled = True                        # until one of the two buffers is flushed
            except (TileKVError, OSError, MemoryError) as error:
                self.server.failed(error)
        begun = monotonic() - begun
        for i in range(KINDS):
            self.calls[i] += answered[i]
            self.seconds[i] += begun * <double>answered[i] / <double>total
        if 0 <= self.slower_than <= 1e6 * begun:
            self.server.slow(connection, [_NAMES[<int>first], b"... and others of one round"], <int64_t>(1e6 * begun))
        return 0

    cdef int _breathe(self, Connection connection) except -1:
        """Now and then, while a long command of a connection is under way, answer others."""
        cdef bint wrote = self.wrote
        if monotonic() - self.breathed < self.most_seconds:
            return 0
        if self.others is None:
            self.others = Batch(self.server)
        if connection.postponed is None:
            connection.postponed = []
        self.wrote = self.alone = False
        self._exchange(self.others)
        try:
            self.server.loop.breathe(connection)
        finally:
            self._clear()
            self._exchange(self.others)
            self.alone = True
            self.wrote |= wrote
            self.breathed = monotonic()
        return 0

    cdef void _exchange(self, Batch other) noexcept:
        """Let another batch have what waits here, and take what it has."""
        self.space, other.space = other.space, self.space
        self.snapshot, other.snapshot = other.snapshot, self.snapshot
        self.buffer, other.buffer = other.buffer, self.buffer
        self.frozen, other.frozen = other.frozen, self.frozen
        self.operations, other.operations = other.operations, self.operations
        self.noperations, other.noperations = other.noperations, self.noperations
        self.operations_room, other.operations_room = other.operations_room, self.operations_room
        self.keys, other.keys = other.keys, self.keys
        self.nkeys, other.nkeys = other.nkeys, self.nkeys
        self.keys_room, other.keys_room = other.keys_room, self.keys_room
        self.c0, other.c0 = other.c0, self.c0
        self.c1, other.c1 = other.c1, self.c1
        self.found, other.found = other.found, self.found
        self.addresses, other.addresses = other.addresses, self.addresses
        self.data, other.data = other.data, self.data
        self.sizes, other.sizes = other.sizes, self.sizes
        self.writes, other.writes = other.writes, self.writes
        self.nwrites, other.nwrites = other.nwrites, self.nwrites
        self.writes_room, other.writes_room = other.writes_room, self.writes_room
        self.table, other.table = other.table, self.table
        self.slots, other.slots = other.slots, self.slots
        self.indexed, other.indexed = other.indexed, self.indexed
        self.values, other.values = other.values, self.values
        self.context, other.context = other.context, self.context

    cdef void _clear(self) noexcept:
        if self.indexed:
            memset(self.table, 0, self.slots * sizeof(uint32_t))
            self.indexed = 0
        self.noperations = self.nkeys = self.nwrites = 0
        self.values = False
        self.snapshot = None
        self.buffer = self.frozen = None
        if self.keys_room > KEPT_KEYS or self.writes_room > KEPT_KEYS:
            self._release()

    cdef void _release(self) noexcept:
        """Give back the room that a command of very many keys has taken."""
        free(self.keys)
        free(self.c0)
        free(self.c1)
        free(self.found)
        free(self.addresses)
        free(self.data)
        free(self.sizes)
        free(self.writes)
        free(self.table)
        self.keys = NULL
        self.c0 = self.c1 = NULL
        self.found = NULL
        self.addresses = NULL
        self.data = NULL
        self.sizes = NULL
        self.writes = NULL
        self.table = NULL
        self.keys_room = self.writes_room = self.slots = 0

    cdef void _put_off(self, Operation* operation, Connection connection) noexcept:
        """There is no room for the reply: the request, and those behind it, are read again when there is."""
        connection.held = True
        connection.at = connection.channel.start = operation.start
        request_next(&connection.channel.request)

    cdef int _redo(self) except -1:
        """A look-up has met a fault: every command is run by itself, so that those are answered that can be."""
        cdef Connection connection
        cdef size_t i
        cdef set seen = set()
        if self.snapshot is not None:
            context_close(&self.context, &self.snapshot.codecs.pool)
        for i in range(self.noperations):
            connection = <Connection>self.operations[i].connection
            connection.careful += 1
            connection.more = True
            if connection not in seen:
                seen.add(connection)
                connection.at = connection.channel.start = self.operations[i].start
                request_next(&connection.channel.request)
        self._clear()
        return 0

    cdef int _find(self, Connection connection) except -1:
        cdef Handle handle = self.space.handle
        cdef size_t at = 0, end = self.nkeys
        cdef Found stopped
        self.snapshot = handle._require_snapshot()
        self.buffer = handle._buffer
        self.frozen = handle._frozen
        self.snapshot.expect(self.nkeys)
        memset(&self.context, 0, sizeof(ReadContext))
        self.context.now = handle._now()
        self.context.first = FIELD
        if self.values:
            self.context.wanted = <const uint8_t*>PyBytes_AS_STRING(handle._wanted)
        find_buffered(self.buffer, self.frozen, self.keys, self.nkeys, self.context.now, self.found, self.addresses)
        while self.snapshot.n and at < self.nkeys:
            if self.alone:
                self._breathe(connection)
                end = min(at + SLICE, self.nkeys)
            with nogil:
                stopped = find_keys(self.snapshot, self.keys, end, self.c0, self.c1, False, &self.context, self.found,
                                    self.addresses, &at)
            if stopped == UNOPENED:
                self.snapshot.open_fragment(self.addresses[at].fragment)
            elif stopped != MISSING:
                self.snapshot.raise_fault(&self.context, self.addresses[at].fragment)
        return 0

    cdef int _find_changed(self, Connection connection) except -1:
        """What others have written while a long command that writes was looking: it is to do all at one moment, which is now."""
        cdef Handle handle = self.space.handle
        cdef size_t i
        cdef int* found
        if handle._buffer is self.buffer and handle._frozen is self.frozen:
            found = <int*>calloc(self.nkeys, sizeof(int))
            if found == NULL:
                raise MemoryError
            try:
                find_buffered(self.buffer, self.frozen, self.keys, self.nkeys, self.context.now, found, self.addresses)
                for i in range(self.nkeys):
                    if found[i] != MISSING:
                        self.found[i] = found[i]
            finally:
                free(found)
            return 0
        # It has been flushed meanwhile: all is looked up again, and nobody is answered in between.
        context_close(&self.context, &self.snapshot.codecs.pool)
        memset(self.found, 0, self.nkeys * sizeof(int))                 # MISSING
        self.alone = False
        try:
            self._find(connection)
        finally:
            self.alone = True
        return 0

    cdef int _answer(self, Operation* operation, Connection connection) except -1:
        cdef Channel* channel = &connection.channel
        cdef size_t i, end = operation.first_key + operation.nkeys, n = 0
        cdef Mark mark = put_mark(channel)
        cdef Write* write
        try:
            if operation.kind == GET:
                self._answer_value(connection, operation.first_key)
            elif operation.kind == MGET:
                if put_header(channel, c"*", operation.nkeys) < 0:
                    raise MemoryError
                for i in range(operation.first_key, end):
                    if self.alone:
                        self._breathe(connection)
                    self._answer_value(connection, i)
                    if channel.pending - mark.pending > MOST_REPLY:
                        raise InvalidValueError(f"the reply would have more than {<int>MOST_REPLY >> 20} MB: ask for fewer keys")
            elif operation.kind == PING:
                put_bytes(channel, "+PONG\r\n", 7)
            elif operation.kind == EXISTS:
                for i in range(operation.first_key, end):
                    n += self.found[i] == PRESENT
                put_header(channel, c":", n)
            else:
                # Once for all writes of a command: nobody freezes the buffer between them.
                self.space.handle._check_writable()
                for i in range(operation.first_write, operation.first_write + operation.nwrites):
                    write = &self.writes[i]
                    if write.value != NULL or self.found[write.number] == PRESENT:
                        self._write(write)
                        connection.wrote = True
                        n += 1
                if operation.kind == SET or operation.kind == MSET:
                    put_bytes(channel, "+OK\r\n", 5)
                else:
                    put_header(channel, c":", n)
        except (TileKVError, OSError, MemoryError) as error:
            put_back(channel, &mark)
            put_object(channel, self.server.failed(error))
        return 0

    cdef int _answer_value(self, Connection connection, size_t i) except -1:
        cdef Channel* channel = &connection.channel
        cdef const uint8_t* data = self.data[i]
        cdef uint64_t size = self.sizes[i]
        cdef Entry entry
        cdef char* at
        cdef size_t n
        if self.found[i] != PRESENT:
            self.space.misses += 1
            if put_bytes(channel, "_\r\n" if connection.resp3 else "$-1\r\n", 3 if connection.resp3 else 5) < 0:
                raise MemoryError
            return 0
        self.space.hits += 1
        if self.addresses[i].fragment == IN_BUFFER:
            entry = entry_at(&self.addresses[i])
            self.buffer.field(&entry, FIELD, &data, &size)
        elif data == NULL:
            return self._read_value(connection, i)
        elif size >= REFERRED and self._answer_held(connection, i):
            return 0
        if size >= REFERRED:
            return answer_object(channel, PyBytes_FromStringAndSize(<const char*>data, size))
        at = put_room(channel, size + LONGEST_HEADER)
        if at == NULL:
            raise MemoryError
        n = begin_bulk(at, size)
        memcpy(at + n, data, size)
        return end_bulk(channel, at, n + size)

    cdef bint _answer_held(self, Connection connection, size_t i) except -1:
        """A large value that is in memory is sent from where it is. False when it is in several pieces: then nothing was done."""
        cdef CellAddress* address = &self.addresses[i]
        cdef FragmentData* f = self.snapshot.at[address.fragment]
        cdef int slot = self.snapshot.layout.bytes_slot(FIELD)
        cdef Channel* channel = &connection.channel
        cdef HeldValue held
        cdef uint64_t start = 0, end = 0
        cdef Pin pin
        if (fragment_extent(f, FIELD, address.tile, address.cell, &self.context, &start, &end) != OK
                or fragment_chunk_at(f, slot, address.tile, start, UINT64_MAX, &self.context, &pin) != OK):
            self.snapshot.raise_fault(&self.context, address.fragment)
        held = HeldValue.__new__(HeldValue)
        held.snapshot = self.snapshot
        held.fragment = f
        held.pin = pin
        if end > pin.start + pin.size:
            return False
        if put_header(channel, c"$", end - start) < 0:
            raise MemoryError
        put_held(channel, held, pin.data + (start - pin.start), end - start)
        if put_bytes(channel, "\r\n", 2) < 0:
            raise MemoryError
        return True

    cdef int _read_value(self, Connection connection, size_t i) except -1:
        """A value that is not in memory."""
        cdef CellAddress* address = &self.addresses[i]
        cdef FragmentData* f = self.snapshot.at[address.fragment]
        cdef int slot = self.snapshot.layout.bytes_slot(FIELD)
        cdef Channel* channel = &connection.channel
        cdef uint64_t start = 0, end = 0, n
        cdef size_t header = 0
        cdef Status status
        cdef Span span
        cdef bytes value = None
        cdef uint8_t* into
        cdef char* at = NULL
        if fragment_extent(f, FIELD, address.tile, address.cell, &self.context, &start, &end) != OK:
            self.snapshot.raise_fault(&self.context, address.fragment)
        n = end - start
        if n >= REFERRED:
            value = PyBytes_FromStringAndSize(NULL, n)
            into = <uint8_t*>PyBytes_AS_STRING(value)
        else:
            at = put_room(channel, n + LONGEST_HEADER)
            if at == NULL:
                raise MemoryError
            header = begin_bulk(at, n)
            into = <uint8_t*>at + header
        with nogil:
            if n >= DIRECT:
                plan_bytes(f, slot, address.tile, start, n)
                status = fragment_copy(f, slot, address.tile, start, n, &self.context, into)
            else:
                status = fragment_cell(f, FIELD, address.tile, address.cell, &self.context, &span)
                if status == OK:
                    memcpy(into, span.data, n)
                    unpin(f, &span.pin)
        if status != OK:
            self.snapshot.raise_fault(&self.context, address.fragment)
        if n >= REFERRED:
            return answer_object(channel, value)
        return end_bulk(channel, at, header + n)

    cdef int _write(self, const Write* write) except -1:
        """REQUIRES: the handle takes writes."""
        cdef Handle handle = self.space.handle
        cdef Buffer buffer
        cdef uint8_t* row
        cdef uint8_t* ends
        buffer = handle._buffer
        if write.value == NULL:
            buffer.add(&write.key, True, 0)
        else:
            row = buffer.add(&write.key, False, buffer.fixed_bytes + 8 + write.size)
            ends = row + buffer.fixed_bytes
            store64(ends, write.size)
            memcpy(ends + 8, write.value, write.size)
            if write.moment != NEVER:
                store64(row + buffer.expires_at, <uint64_t>write.moment)
        self.space.writes += 1
        if self.space.watched:
            self.server.touched(self.space, PyBytes_FromStringAndSize(<const char*>write.key.data, write.key.size))
        return 0


cdef void* grow(void* at, size_t n) except NULL:
    cdef void* grown = realloc(at, n)
    if grown == NULL:
        raise MemoryError
    return grown


cdef inline void key_at(const char* data, const Argument* argument, KeyRef* key) noexcept nogil:
    key.data = <const uint8_t*>data + argument.at
    key.size = argument.size
    key.type = CHAR if tkv_utf8_valid(key.data, key.size) else BLOB


cdef inline size_t begin_bulk(char* at, uint64_t size) noexcept nogil:
    """What stands before a string of so many bytes; how long that is."""
    cdef size_t n = 1 + write_number(at + 1, size)
    at[0] = c"$"
    at[n] = c"\r"
    at[n + 1] = c"\n"
    return n + 2


cdef inline int end_bulk(Channel* channel, char* at, size_t n) except -1:
    """The line end behind the n bytes that were written from `at` on."""
    at[n] = c"\r"
    at[n + 1] = c"\n"
    if put_written(channel, n + 2) < 0:
        raise MemoryError
    return 0


cdef int answer_object(Channel* channel, bytes value) except -1:
    if put_header(channel, c"$", len(value)) < 0:
        raise MemoryError
    put_object(channel, value)
    if put_bytes(channel, "\r\n", 2) < 0:
        raise MemoryError
    return 0


tkv_refuse_bare(HeldValue)

"""Commands of all connections that are ready at one moment, answered with one look-up, and their writes.

GET, MGET, EXISTS, DEL, SET, SETEX, PSETEX and MSET of a Keyspace wait in a Batch, as offsets into what has come, until it is
settled: then all their keys are looked up together, the values go into the replies from where they are stored, and the writes go
into the handle's buffer. No object is made of a key or a value, but of a value that is sent by reference. What is asked for is
answered as if the commands had been run one after another, connection by connection. All else is run by Python, after a settle.

A read never depends on a write of its own batch: one that would settles the batch first. So the commands of a connection can be
put off, from any of them on, when there is no room for more replies.

A long MGET or EXISTS is alone in its batch, and runs after all others of its round. It reads a snapshot, and what the buffers had
when it began; so others are answered meanwhile, every few milliseconds.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.handle cimport Handle
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport FragmentData, Pin, ReadContext
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.serve.channel cimport Channel
from tilekv.kvcore.write.memtable cimport Buffer

cdef enum Kind:                 # of a command
    OTHER = 0                   # that Python runs
    GET = 1
    MGET = 2
    EXISTS = 3
    DEL = 4
    SET = 5
    MSET = 6
    PING = 7
    KINDS = 8

cdef struct Write:
    KeyRef key
    const char* value           # NULL: a delete, of the key of that number if it is found
    size_t size
    int64_t moment
    size_t number

cdef struct Operation:
    void* connection            # borrowed: who runs the loop has it
    Kind kind
    size_t start                # of the request in what has come
    size_t first_key
    size_t nkeys
    size_t first_write
    size_t nwrites


cdef double monotonic() noexcept nogil


cdef class Keyspace:
    """A store that is served, as the batch needs it."""
    cdef readonly Handle handle
    cdef readonly bint strings          # its values are strings; else Python runs all commands
    cdef readonly bint text             # values are text
    cdef readonly bint expires          # entries may expire
    cdef public bint read_only
    cdef public object refusal          # bytes: what writes are answered with; None: they are taken
    cdef public bint stalled            # writes wait
    cdef public dict watched            # by key, bytes: who watches it
    cdef public double dirty_since      # of the monotonic clock: the first write that is not flushed; 0: there is none
    cdef public uint64_t writes
    cdef public uint64_t hits
    cdef public uint64_t misses


cdef class Connection:
    """A client."""
    cdef Channel channel
    cdef readonly object socket
    cdef public object session
    cdef public Keyspace keyspace       # whose commands may wait in a batch; None: Python runs all
    cdef public bint fast               # and the connection is in no state in which commands mean something else
    cdef public bint resp3
    cdef public bint waiting            # for something slow, after which `Loop.resume` is called
    cdef public bint closing            # once all that is answered was sent
    cdef readonly bint held             # until more of the replies are read
    cdef readonly bint parked           # until writes are taken again
    cdef bint alone                     # its next command is a long one, which is run when all others were
    cdef list postponed                 # what it is told while its long command is being answered; None: nothing is
    cdef bint more                      # it has requests that could be run at once
    cdef bint wrote                     # since the last commit
    cdef bint hung                      # neither side can send
    cdef bint listed                    # among those to be run or sent
    cdef int interest                   # what epoll watches
    cdef size_t counted                 # of its bytes that are not sent, in Batch.pending
    cdef size_t careful                 # so many requests are run by Python: their batch has met a fault
    cdef size_t at                      # where the next request begins; before it, those that wait in a batch
    cdef readonly double active         # of the monotonic clock: when something came
    cdef readonly double progress       # when something was sent


cdef class HeldValue:
    """Holds a value where it is, in a map or in the cache, until it was sent."""
    cdef Snapshot snapshot              # which holds the fragment
    cdef FragmentData* fragment
    cdef Pin pin


cdef class Batch:
    cdef object server
    cdef Keyspace space
    cdef Operation* operations
    cdef size_t noperations
    cdef size_t operations_room
    cdef KeyRef* keys
    cdef size_t nkeys
    cdef size_t keys_room
    cdef uint64_t* c0
    cdef uint64_t* c1
    cdef int* found
    cdef CellAddress* addresses
    cdef const uint8_t** data
    cdef uint64_t* sizes
    cdef Write* writes
    cdef size_t nwrites
    cdef size_t writes_room
    cdef uint32_t* table                # number + 1 of the newest write of a key at its hash
    cdef size_t slots
    cdef size_t indexed                 # writes that are in it
    cdef bint values                    # some of the keys are asked for their values
    cdef Snapshot snapshot              # while it is settled, with the buffers
    cdef Buffer buffer
    cdef Buffer frozen
    cdef ReadContext context
    cdef bint alone                     # what waits, or is to be run next, is one long command
    cdef Batch others                   # has what waits, while others are answered
    cdef double breathed                # of the monotonic clock: when others were answered
    cdef public double most_seconds     # between two such moments
    cdef double now                     # of the monotonic clock
    cdef int64_t clock_ms               # of the clock by which the handles' look-ups leave out what has expired
    cdef readonly size_t pending        # bytes of all connections that are to be sent
    cdef readonly uint64_t commands
    cdef uint64_t calls[KINDS]
    cdef double seconds[KINDS]
    cdef bint wrote                     # since the last commit
    cdef public int64_t slower_than     # microseconds after which a command is told of; -1: none is
    cdef public size_t most_pending
    # Runs what has come of a connection, as far as there is room for replies.
    cdef int run(self, Connection connection) except -1
    cdef int settle(self) except -1
    cdef int _breathe(self, Connection connection) except -1
    cdef void _exchange(self, Batch other) noexcept
    cdef bint _add(self, Connection connection, Kind kind) except -1
    cdef int _run_other(self, Connection connection, bint line) except -1
    cdef int _reserve(self, size_t keys, size_t writes) except -1
    cdef void _add_key(self, const char* data, size_t size) noexcept
    cdef void _add_write(self, const KeyRef* key, const char* value, size_t size, int64_t moment, size_t number) noexcept
    cdef size_t _pending_write(self, const KeyRef* key) except <size_t>-1
    cdef bint _any_pending(self, Connection connection, size_t first, size_t step) except -1
    cdef int _index(self) except -1
    cdef size_t _slot(self, const KeyRef* key) noexcept
    cdef void _clear(self) noexcept
    cdef void _release(self) noexcept
    cdef int _find(self, Connection connection) except -1
    cdef int _find_changed(self, Connection connection) except -1
    cdef int _answer(self, Operation* operation, Connection connection) except -1
    cdef int _answer_value(self, Connection connection, size_t i) except -1
    cdef bint _answer_held(self, Connection connection, size_t i) except -1
    cdef int _read_value(self, Connection connection, size_t i) except -1
    cdef int _write(self, const Write* write) except -1
    cdef void _put_off(self, Operation* operation, Connection connection) noexcept
    cdef int _redo(self) except -1

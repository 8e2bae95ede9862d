"""Where the cells of many keys are: looked up some thousands of keys at a time, in blocks, by one thread or two."""

from libc.stdint cimport int64_t, uint64_t

from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext
from tilekv.kvcore.read.snapshot cimport Found, Snapshot
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.values.keys cimport KeyCell
from tilekv.kvcore.write.memtable cimport Buffer

cdef extern from "read/work_ring.h" nogil:
    ctypedef struct tkv_ring:
        pass


cdef class Lookup


cdef class Continuation:
    """What else is done with the keys of a Lookup by the thread that has looked them up."""
    # Once all of them are looked up, and nothing has stopped that; again when the next ones have been.
    cdef void resume(self, Lookup lookup) noexcept nogil


cdef class Lookup:
    """Keys of one snapshot and where they are. `room` keys at most; used again for the next ones."""
    cdef Snapshot snapshot
    cdef Buffer buffer
    cdef Buffer frozen          # or None: see Handle
    cdef size_t room
    cdef bint defer             # see Snapshot.probe_block()
    cdef size_t n
    cdef size_t first           # how many keys the lookups before had
    cdef list held              # what keys point into, beside what they were taken from
    cdef bytes wanted
    cdef dict refused           # objects that cannot be keys, by number: they are not found
    cdef KeyCell* cells
    cdef KeyRef* keys
    cdef uint64_t* c0
    cdef uint64_t* c1
    cdef int* found             # Found
    cdef CellAddress* addresses
    cdef size_t at              # keys looked up so far
    cdef Found stopped          # MISSING, or why find() did not go on
    cdef ReadContext context
    cdef Continuation then      # or None; set before the first keys are added
    # Instead of what was there, numbers start to start + n of `cells`; or, with an order, numbers order[start] and so on.
    cdef int add(self, Cells cells, const int64_t* order, size_t start, size_t n) except -1
    # Looks up all that are left, as far as it can.
    cdef void find(self) noexcept nogil
    # Opens fragments and goes on, or raises what find() met.
    cdef int settle(self) except -1
    # The error for a key that is not there.
    cdef object not_found(self, size_t k)
    cdef int _object(self, object item, size_t k) except -1
    cdef int _clear(self) except -1


# Which of n keys, of those whose found[i] is MISSING, have an entry in memory, and where: PRESENT, or DELETED, which an entry
# that expires by `now` is, too.
cdef int find_buffered(Buffer buffer, Buffer frozen, const KeyRef* keys, size_t n, int64_t now, int* found,
                       CellAddress* addresses) except -1
# Where keys at[0] to n are, of those whose found[i] is MISSING: as Snapshot.probe_block() says, for any number. c0, c1: room for
# their digests. Stops at at[0] and returns why; MISSING when all are done.
cdef Found find_keys(Snapshot snapshot, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1, bint defer,
                     ReadContext* context, int* found, CellAddress* addresses, size_t* at) noexcept nogil


cdef class LookupPipeline:
    """Many keys, looked up some at a time, before they are asked for: with `threaded` by a helper thread, while the caller makes
    objects of those that were found."""
    cdef list pieces            # Cells
    cdef list lookups           # a ring
    cdef size_t nlookups
    cdef tkv_ring* ring
    cdef const int64_t* numbers
    cdef size_t count
    cdef size_t piece, start    # of the next part
    cdef size_t added, given    # parts
    cdef size_t keys            # of the parts that were added
    # Before the first next(): of the one piece, only those n, in that order. `numbers` is the caller's.
    cdef int order(self, const int64_t* numbers, size_t n) except -1
    # The next part, valid until the call after; None at the end.
    cdef Lookup next(self)
    cdef bint _add(self, Lookup lookup) except -1

"""How many keys more, or fewer, there are since a snapshot was taken, by what was written since: the rest is not looked at."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tilekv.kvcore.batch.key_scan cimport FoundKeys, KeyScan, new_key_scan
from tilekv.kvcore.format.layout cimport TOMBSTONE
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.batch_lookup cimport find_keys
from tilekv.kvcore.read.chunk_reader cimport ReadContext, context_close
from tilekv.kvcore.read.snapshot cimport MISSING, PRESENT, UNOPENED, Found, Snapshot


# What is done with the keys of one part.
cdef struct Room:
    KeyRef* keys
    uint64_t* c0
    uint64_t* c1
    int* found
    CellAddress* addresses


def count_change(Snapshot base not None, int64_t then, Snapshot young not None, tuple buffers not None):
    """How many keys more there are in `base` with what was written since than in `base`; negative when there are fewer.

    Parameters
    ----------
    base : Snapshot
        Older than all of the rest.
    then : int
        What has expired by this moment, in ms since 1970, does not count in `base`; 0: all does. What was written since counts
        whenever it expires.
    young : Snapshot
        The fragments that were written since.
    buffers : tuple of SortedBuffer
        What was written and not flushed, newest first.

    Raises
    ------
    CorruptionError, OSError, MemoryError
        As look-ups do.
    """
    cdef KeyScan written = new_key_scan(young, buffers, None, 0)
    cdef int64_t change = 0
    cdef object number
    written.tombstones = True
    for number in range(written.parts):
        change += part_change(base, then, written.part(number))
    return change


cdef int64_t part_change(Snapshot base, int64_t then, FoundKeys written) except? -1:
    """Of keys that were written: those that are new less those of `base` that were deleted."""
    cdef ReadContext context
    cdef Room room
    cdef Found stopped
    cdef size_t i, at = 0, n = written.n
    cdef int64_t change = 0
    memset(&context, 0, sizeof(context))
    memset(&room, 0, sizeof(room))
    context.now = then
    try:
        room.keys = <KeyRef*>calloc(n + 1, sizeof(KeyRef))
        room.c0 = <uint64_t*>calloc(n + 1, sizeof(uint64_t))
        room.c1 = <uint64_t*>calloc(n + 1, sizeof(uint64_t))
        room.found = <int*>calloc(n + 1, sizeof(int))               # MISSING
        room.addresses = <CellAddress*>calloc(n + 1, sizeof(CellAddress))
        if room.keys == NULL or room.c0 == NULL or room.c1 == NULL or room.found == NULL or room.addresses == NULL:
            raise MemoryError
        written.point(room.keys)
        for i in range(n):
            room.keys[i].type &= ~TOMBSTONE
        while base.n and at < n:
            with nogil:
                stopped = find_keys(base, room.keys, n, room.c0, room.c1, False, &context, room.found, room.addresses, &at)
            if stopped == UNOPENED:
                base.open_fragment(room.addresses[at].fragment)
            elif stopped != MISSING:
                base.raise_fault(&context, room.addresses[at].fragment)
        for i in range(n):
            change += not written.types.data[i] & TOMBSTONE
            change -= room.found[i] == PRESENT
        return change
    finally:
        context_close(&context, &base.codecs.pool)
        free(room.keys)
        free(room.c0)
        free(room.c1)
        free(room.found)
        free(room.addresses)

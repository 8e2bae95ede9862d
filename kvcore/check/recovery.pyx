"""What can still be proven of a damaged fragment: cells that are right, and keys that are not in it."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.format.layout cimport TOMBSTONE
from tilekv.kvcore.hashing.digest cimport KeyRef, digest_keys
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport (ReadContext, FragmentData, Pin, Span, context_close, fragment_coords,
                                              fragment_key, tile_cells, unpin)
from tilekv.kvcore.read.fragment cimport Fragment
from tilekv.kvcore.read.snapshot cimport DELETED as TOMB
from tilekv.kvcore.read.snapshot cimport FAULT, MISSING, PRESENT, Found, Snapshot
from tilekv.kvcore.values.keys cimport KeyCell, key_cell, load_key


# What states() says of a key.
ABSENT, SET, DELETED, UNKNOWN = range(4)


def proven_keys(Fragment fragment not None, uint64_t tile):
    """The keys of a tile that a look-up finds, as (those that are set, those that are deleted, how many cells of the tile are
    neither): their chunks are whole, and so are the coordinates, which are their digest; the second ones count where several
    cells have one c0. MemoryError."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t j, n
    cdef uint64_t digest[2]
    cdef ReadContext context
    cdef Pin pins[2]
    cdef const uint64_t* c0
    cdef const uint64_t* c1
    cdef Span span
    cdef KeyRef key
    cdef bint deleted, whole, alone
    cdef list present = []
    cdef list deletes = []
    if tile >= f.ntiles:
        raise IndexError(tile)
    n = tile_cells(f, tile)
    memset(&context, 0, sizeof(context))
    memset(pins, 0, sizeof(pins))
    try:
        if not readable(fragment, &context, fragment_coords(f, tile, 0, &context, &pins[0])):
            return present, deletes, n
        whole = readable(fragment, &context, fragment_coords(f, tile, 1, &context, &pins[1]))
        c0 = <const uint64_t*>pins[0].data
        c1 = <const uint64_t*>pins[1].data
        for j in range(n):
            if not readable(fragment, &context, fragment_key(f, tile, j, &context, &span, &key)):
                continue
            deleted = (key.type & TOMBSTONE) != 0
            key.type &= ~TOMBSTONE
            digest_keys(fragment.layout.digest, &key, 1, &digest[0], &digest[1])
            try:
                alone = (j == 0 or c0[j - 1] != c0[j]) and (j + 1 == n or c0[j + 1] != c0[j])
                if c0[j] == digest[0] and (alone or (whole and c1[j] == digest[1])):
                    (deletes if deleted else present).append(load_key(&key, fragment.layout.numbers))
            finally:
                unpin(f, &span.pin)
        return present, deletes, n - len(present) - len(deletes)
    finally:
        unpin(f, &pins[0])
        unpin(f, &pins[1])
        context_close(&context, f.codecs)


cdef bint readable(Fragment fragment, const ReadContext* context, Status status) except -1:
    fragment.demand(context, status)
    return status == OK


def states(Snapshot snapshot not None, keys):
    """What a snapshot of one fragment has to say of each key, as bytes of ABSENT, SET, DELETED and UNKNOWN. MemoryError."""
    cdef ReadContext context
    cdef KeyCell cell
    cdef CellAddress address
    cdef Found found
    cdef uint64_t c0 = 0, c1 = 0
    cdef int epoch
    cdef Fragment fragment = snapshot.fragments[0]
    answers = bytearray()
    memset(&context, 0, sizeof(context))
    context.doubts = True
    try:
        for key in keys:
            _held = key_cell(key, &cell, snapshot.layout.numbers)
            digest_keys(snapshot.layout.digest, &cell.ref, 1, &c0, &c1)
            epoch = cache_enter(&snapshot.cache.cache)
            found = snapshot.probe(&cell.ref, c0, c1, -1, &context, &address)
            cache_exit(&snapshot.cache.cache, epoch)
            if found == FAULT:
                readable(fragment, &context, context.status)
            answers.append(SET if found == PRESENT else DELETED if found == TOMB else ABSENT if found == MISSING else UNKNOWN)
        return bytes(answers)
    finally:
        context_close(&context, &snapshot.codecs.pool)

"""What can still be proven of a damaged fragment: cells that are right, and keys that are not in it."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from tilekv.kvcore.cache cimport cache_enter, cache_exit
from tilekv.kvcore.codec cimport OK, Status
from tilekv.kvcore.digest cimport KeyRef, digest_keys
from tilekv.kvcore.fragment cimport (Access, Fragment, FragmentData, Pin, Span, access_close, fragment_coords, fragment_key,
                                     tile_cells, unpin)
from tilekv.kvcore.layout cimport TOMBSTONE
from tilekv.kvcore.search cimport DELETED as TOMB
from tilekv.kvcore.search cimport FAULT, MISSING, PRESENT, Found, Place, View
from tilekv.kvcore.keys cimport KeyCell, key_cell, load_key
from tilekv.kvcore.wire cimport load64


# What states() says of a key.
ABSENT, SET, DELETED, UNKNOWN = range(4)


def proven_keys(Fragment fragment not None, uint64_t tile):
    """The keys of a tile whose chunks are whole and whose coordinates are their digest, as (those that are set, those that are
    deleted, how many cells of the tile are neither). MemoryError."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t j, n
    cdef uint64_t digest[2]
    cdef Access access
    cdef Pin pins[2]
    cdef Span span
    cdef KeyRef key
    cdef bint deleted
    cdef list present = []
    cdef list deletes = []
    if tile >= f.ntiles:
        raise IndexError(tile)
    n = tile_cells(f, tile)
    memset(&access, 0, sizeof(access))
    memset(pins, 0, sizeof(pins))
    try:
        for j in range(2):
            if not readable(fragment, &access, fragment_coords(f, tile, <int>j, &access, &pins[j])):
                return present, deletes, n
        for j in range(n):
            if not readable(fragment, &access, fragment_key(f, tile, j, &access, &span, &key)):
                continue
            deleted = (key.type & TOMBSTONE) != 0
            key.type &= ~TOMBSTONE
            digest_keys(fragment.layout.digest, &key, 1, &digest[0], &digest[1])
            try:
                if load64(pins[0].data + 8 * j) == digest[0] and load64(pins[1].data + 8 * j) == digest[1]:
                    (deletes if deleted else present).append(load_key(&key, fragment.layout.numbers))
            finally:
                unpin(f, &span.pin)
        return present, deletes, n - len(present) - len(deletes)
    finally:
        unpin(f, &pins[0])
        unpin(f, &pins[1])
        access_close(&access, f.codecs)


cdef bint readable(Fragment fragment, const Access* access, Status status) except -1:
    fragment.demand(access, status)
    return status == OK


def states(View view not None, keys):
    """What a view of one fragment has to say of each key, as bytes of ABSENT, SET, DELETED and UNKNOWN. MemoryError."""
    cdef Access access
    cdef KeyCell cell
    cdef Place place
    cdef Found found
    cdef uint64_t c0 = 0, c1 = 0
    cdef int turn
    cdef Fragment fragment = view.fragments[0]
    answers = bytearray()
    memset(&access, 0, sizeof(access))
    try:
        for key in keys:
            _held = key_cell(key, &cell, view.layout.numbers)
            digest_keys(view.layout.digest, &cell.ref, 1, &c0, &c1)
            turn = cache_enter(&view.cache.cache)
            found = view.find(&cell.ref, c0, c1, -1, &access, &place)
            cache_exit(&view.cache.cache, turn)
            if found == FAULT:
                readable(fragment, &access, access.status)
            answers.append(SET if found == PRESENT else DELETED if found == TOMB else ABSENT if found == MISSING else UNKNOWN)
        return bytes(answers)
    finally:
        access_close(&access, &view.codecs.pool)

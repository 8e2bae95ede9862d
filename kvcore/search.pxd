"""Finding keys in fragments: newest fragment first, one lookup or many."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.cache cimport ChunkCache
from tilekv.kvcore.codec cimport CodecPool, Status
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.fragment cimport Access, Fragment, FragmentData
from tilekv.kvcore.layout cimport Layout

cdef enum Found:
    MISSING = 0
    PRESENT = 1
    DELETED = 2                 # the newest cell of the key is a tombstone
    FAULT = -1                  # access says what, place.fragment where
    UNOPENED = -2               # place.fragment must be opened first: View.open_fragment() with the GIL, then again

cdef enum:
    IN_BUFFER = 0xFFFFFFFF

# Where a cell is.
cdef struct Place:
    uint32_t fragment           # in View.at, newest first; or IN_BUFFER
    uint8_t type                # of the key, in the buffer only
    uint64_t tile               # in the buffer: the address of the record
    uint64_t cell               # in the tile; in the buffer: the size of the key


cdef class View:
    """A snapshot: the visible fragments, newest first. Whoever uses a pointer into a fragment holds the View.

    Fragments are open from the start, or opened when first needed; otherwise a View does not change.
    """
    cdef list _fragments        # Fragment, or the name of one that is not open
    cdef object _open
    cdef Layout layout
    cdef ChunkCache cache
    cdef CodecPool codecs
    cdef size_t n
    cdef FragmentData** at      # NULL: not open
    # The newest cell of a key in all fragments.
    cdef Found find(self, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access, Place* place) noexcept nogil
    cdef int open_fragment(self, uint32_t fragment) except -1
    # PRESENT, DELETED or MISSING; opens what it must and raises for a FAULT.
    cdef Found look_up(self, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access, Place* place) except *
    cdef raise_fault(self, const Access* access, uint32_t fragment)

# A key in one fragment: PRESENT or DELETED with its tile and cell.
cdef Found find_in(FragmentData* fragment, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access,
                   Place* place) noexcept nogil

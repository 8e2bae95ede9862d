"""K-way merge: the newest cell of every key over a write buffer and fragments, in the order of coordinates and keys."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.buffer cimport SortedBuffer
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.fragment cimport Access, FragmentData, Pin
from tilekv.kvcore.search cimport Found, Place, View
from tilekv.kvcore.wire cimport Out

cdef struct Source:             # one sorted run of cells; the buffer is source 0 and newest, fragment i is source i + 1
    FragmentData* fragment      # NULL: the buffer
    const uint64_t* c0          # of the open tile, or of the whole buffer
    const uint64_t* c1
    Pin pins[2]
    uint64_t tile
    uint64_t cell               # next cell of the tile
    uint64_t n                  # cells of the tile
    bint may_delete             # it has tombstones

cdef struct Candidate:          # one of several cells with equal coordinates
    uint32_t source
    Place place
    size_t key_at               # its key in Merge.keys
    KeyRef key


cdef class Merge:
    """A cursor over a View and a SortedBuffer . One thread at a time; holds both, so it outlives reopen() and close().

    Each step compares the heads of a binary heap of sources: log2(sources) comparisons a cell. Keys are only looked at
    when two heads have equal coordinates.
    """
    cdef View view
    cdef SortedBuffer buffer
    cdef bint tombstones        # deletes are cells too: for consolidation
    cdef Source* sources
    cdef size_t nsources
    cdef uint32_t* heap         # sources that have a cell left, least head first
    cdef size_t nheap
    cdef Access access
    cdef uint32_t fault_at      # the source that failed
    cdef Candidate* tied        # winners among equal coordinates that wait for room in a window
    cdef size_t ntied, tied_at, tied_room
    cdef uint64_t tied_c0, tied_c1
    cdef Out keys
    # The next winners and their coordinates, at most `room`: how many there are, 0 at the end, -1 after a fault. Each of the
    # three arrays may be NULL.
    cdef Py_ssize_t next(self, Place* places, uint64_t* c0, uint64_t* c1, size_t room) noexcept nogil
    cdef raise_fault(self)
    cdef int _open_tile(self, uint32_t source) noexcept nogil
    cdef bint _before(self, uint32_t a, uint32_t b) noexcept nogil
    cdef void _sift(self, size_t at) noexcept nogil
    cdef int _advance(self) noexcept nogil
    cdef int _tie(self, uint64_t c0, uint64_t c1) noexcept nogil
    cdef int _deleted(self, uint32_t source, const Place* place) noexcept nogil

"""K-way merge: the newest cell of every key over write buffers and fragments, in the order of coordinates and keys."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.merge.collisions cimport Ties
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext, FragmentData, Pin
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer, Entry
from tilekv.kvcore.write.sorted_buffer cimport SortedBuffer

cdef struct Source:             # cells in order: first the buffers, then the fragments, newest first
    FragmentData* fragment      # NULL: a buffer
    const Entry* entries        # of a buffer
    const uint64_t* c0          # of the open tile, or of a whole buffer
    const uint64_t* c1
    Pin pins[2]
    uint8_t* types              # of the keys of the open tile, when deletes are to be left out and it has some; else NULL
    int64_t* moments            # of expiry, of the cells of the open tile; NULL: none of them expires in this merge
    uint64_t tile
    size_t cell                 # the first cell of the tile that no round has taken
    size_t n                    # cells of the tile
    size_t base                 # its first cell in the round
    size_t tiles                # of the fragment, before the end of the range
    bint has_deletes            # it has tombstones
    bint may_delete             # it has tombstones, or cells that expire

cdef struct Pair:               # a cell of a round
    uint64_t c0
    uint64_t id                 # source << 32 | number among the source's cells of the round


cdef class Merge:
    """A cursor over a Snapshot and any number of SortedBuffers. One thread at a time; holds them all, so it outlives reopen() and
    close(). The first buffer is the newest, and each is newer than all fragments.

    It goes by rounds. A round takes from every source the cells before a bound that all of them have open: some thousands in
    all, so that they stay in the cache of a core. Where one source has them all, they are a straight run and nothing is compared.
    Else they are merged two lists at a time by the first coordinate, newest first among equals, without a branch that depends
    on the data: the cells of ten fragments are counted in 24 ns each, where a heap, which guesses wrong at every other step,
    took 44. Cells with equal coordinates are told apart by their keys.
    """
    cdef Snapshot snapshot
    cdef tuple buffers          # of the snapshot's layout
    cdef size_t nbuffers
    cdef Buffer rows            # reads a row of any of them, as they have one layout; None when there are none
    cdef bint tombstones        # deletes are cells too: for consolidation
    cdef int64_t now            # what expires by this moment (ms since 1970) is left out; 0: nothing is
    cdef bint ranged            # only coordinates from (low[0], low[1]) on and before (high[0], high[1]) are merged
    cdef uint64_t low[2]
    cdef uint64_t high[2]
    cdef Source* sources
    cdef size_t nsources
    cdef uint32_t* running      # sources that have a cell left, newest first
    cdef size_t nrunning
    cdef ReadContext context
    cdef uint32_t fault_at      # the fragment that failed, counted from 1; 0: there was no memory
    # What the last round gave and has not been handed out: a straight run of one source, or pairs, or tied cells.
    cdef Source* straight
    cdef size_t straight_at, straight_end
    cdef Pair* won
    cdef size_t won_at, nwon
    cdef Ties ties
    cdef size_t tied_at, ntied
    cdef uint64_t tied_c0
    # room to work in
    cdef Pair* pairs[2]
    cdef size_t* lists          # of the round, by number: where each begins among the pairs; then how long each is
    # The next winners, at most `room` cells, as at most `room` runs: how many cells there are, 0 at the end, -1 after a
    # fault. Their coordinates too, unless NULL.
    cdef Py_ssize_t next(self, CellAddress* runs, size_t* nruns, uint64_t* c0, uint64_t* c1, size_t room) noexcept nogil
    cdef raise_fault(self)
    cdef void _close_tile(self, Source* source) noexcept nogil
    cdef int _open_tile(self, Source* source) noexcept nogil
    cdef void _clip(self, Source* source) noexcept nogil
    cdef int _read_field(self, Source* source, int field, uint64_t width, uint8_t** cells) noexcept nogil
    cdef int _round(self) noexcept nogil
    cdef int _merge_lists(self, size_t n) noexcept nogil
    cdef int _settle(self) noexcept nogil
    cdef int _tie(self) noexcept nogil
    cdef int _add_tied(self, Source* source, size_t cell) noexcept nogil
    cdef int _choose(self) noexcept nogil

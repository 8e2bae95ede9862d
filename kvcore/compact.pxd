"""What a consolidation streams from old fragments into a new one: windows of a merge, as cells to be written."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.buffer cimport Buffer, SortedBuffer
from tilekv.kvcore.codec cimport Status
from tilekv.kvcore.fragment cimport Access
from tilekv.kvcore.gather cimport Lanes, Run, Stretch
from tilekv.kvcore.merge cimport Merge
from tilekv.kvcore.search cimport View
from tilekv.kvcore.tile cimport CellSource


cdef class MergedCells(CellSource):
    """The next cells of a merge, in order. Several threads may read: a call has its own Access and Lanes.

    REQUIRES: the merge has no buffered cells; a consolidation flushes first.
    """
    cdef View view
    cdef Buffer buffer          # empty: extents want one
    cdef Run* runs
    cdef uint64_t* begins       # by run: its first cell
    cdef size_t nruns
    cdef uint64_t* c0
    cdef uint64_t* c1
    cdef Access failure         # what went wrong, for fault()
    cdef uint32_t failed_in
    cdef Status _begin(self, Access* access, Lanes* lanes, size_t lo, size_t n, Stretch* stretch) noexcept nogil
    cdef int _end(self, Access* access, Lanes* lanes, Status status) noexcept nogil

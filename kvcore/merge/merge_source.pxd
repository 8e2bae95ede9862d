"""What a consolidation streams from old fragments into a new one: a portion of a merge at a time, as cells to be written."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.codec.pipeline cimport Status
from tilekv.kvcore.format.tile cimport CellSource
from tilekv.kvcore.merge.merge cimport Merge
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext
from tilekv.kvcore.read.column_reader cimport FieldCursors, Selection
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer


cdef class MergedCells(CellSource):
    """The next cells of a merge, in order. Several threads may read: a call has its own ReadContext and FieldCursors.
    """
    cdef Snapshot snapshot
    cdef tuple buffers          # of the merge: rows are read where they are
    cdef Buffer rows
    cdef CellAddress* runs
    cdef uint64_t* begins       # by run: its first cell
    cdef size_t nruns
    cdef uint64_t* c0
    cdef uint64_t* c1
    cdef ReadContext failure         # what went wrong, for fault()
    cdef uint32_t failed_in
    cdef Status _begin(self, ReadContext* context, FieldCursors* cursors, size_t lo, size_t n,
                       Selection* selection) noexcept nogil
    cdef int _end(self, ReadContext* context, FieldCursors* cursors, Status status) noexcept nogil

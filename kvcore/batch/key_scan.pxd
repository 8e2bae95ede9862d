"""The keys of a snapshot and its buffers that a filter asks for, with no object for any other.

A merge of a range of digests gives the cells that are there, newest ones, without what is deleted or expired; their keys are
gathered as a scan gathers them, and those that match are kept as bytes. Ranges are independent, so several threads take one each.
"""

from libc.stdint cimport int64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.codec.pipeline cimport Status
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.merge.merge cimport Merge
from tilekv.kvcore.read.column_reader cimport FieldCursors, Selection
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.values.key_filter cimport KeyFilter


cdef class FoundKeys:
    """The keys of a part that were asked for, in the order of their digests."""
    cdef Out data               # their bytes, one after the other
    cdef Out ends               # u64 a key
    cdef Out types              # u8 a key
    cdef size_t n
    cdef bint numbers           # see Layout
    cdef void point(self, KeyRef* keys) noexcept nogil


cdef class KeyScan:
    """Immutable; any number of threads may take parts."""
    cdef Snapshot snapshot
    cdef tuple buffers          # see Handle._buffers()
    cdef KeyFilter filter       # None: all
    cdef bint tombstones        # deletes are keys, too: their types say so
    cdef int64_t now            # what expires by then is left out; 0: nothing
    cdef bint numbers           # see Layout
    cdef readonly object parts  # how many there are
    cdef int _gather(self, Merge merge, FoundKeys found) except -1
    cdef Status _keep(self, const Selection* cells, const Out* raw, FoundKeys found) noexcept nogil

cdef KeyScan new_key_scan(Snapshot snapshot, tuple buffers, KeyFilter filter, int64_t now)

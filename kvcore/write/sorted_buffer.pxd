"""The write buffer in the order of a fragment: what a flush writes, and what scans and iterators read of it."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.format.tile cimport CellSource
from tilekv.kvcore.hashing.coords cimport Item
from tilekv.kvcore.write.memtable cimport Buffer, Entry

cdef struct Share:              # of a thread
    size_t lo                   # its entries of the log
    size_t hi
    size_t bucket               # its buckets
    size_t last
    size_t start                # its items
    size_t end
    size_t kept                 # of them, from `start` on
    size_t tombstones


cdef class SortedBuffer(CellSource):
    """The newest entry of every key of a Buffer, in the order of a fragment. A snapshot: later writes do not change it."""
    cdef Buffer buffer
    cdef uint64_t* c0           # n words each; before the sort they are those of the log's entries, in the order of the log
    cdef uint64_t* c1
    # In the memory of the sorted items: an entry is smaller than an item, and is written where items have been read already.
    cdef Entry* entries
    cdef size_t room            # cells that there is memory for
    cdef uint64_t reach         # bytes of an average record, as many as are prefetched
    # While it is made:
    cdef const Entry* _log
    cdef bint _pins             # the buffer's
    cdef Item* _items
    cdef uint32_t* _places      # of each share; then the ends of buckets
    cdef Share* _shares
    cdef size_t _nshares
    cdef int _shift
    cdef int _sort(self, workers) except -1
    cdef int _all(self, workers, int what) except -1
    cdef int _step(self, int what, size_t number) except -1 nogil
    cdef void _divide(self) noexcept nogil
    cdef int _keep_last(self, Share* share) except -1 nogil
    cdef void _join(self) noexcept nogil
    cdef void _done(self) noexcept
    cdef void _free_all(self) noexcept nogil


# Computes digests, sorts by them, and keeps the last entry of every key. The GIL is held between these steps only. workers: each
# of its threads does a share of every step; without them this thread does all.
cpdef SortedBuffer sort_buffer(Buffer buffer, workers=*)

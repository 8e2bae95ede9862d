"""Many keys at once: looked up in blocks, and made into objects or columns."""

from libc.stdint cimport int64_t, uint64_t

from tilekv.kvcore.buffer cimport Buffer
from tilekv.kvcore.columns cimport Batch
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.feeds cimport Cells
from tilekv.kvcore.fragment cimport Access
from tilekv.kvcore.search cimport Found, Place, View
from tilekv.kvcore.values cimport KeyCell


cdef class Lookup:
    """Keys of one snapshot and where they are. `room` keys at most; used again for the next ones."""
    cdef View view
    cdef Buffer buffer
    cdef size_t room
    cdef size_t n
    cdef list held              # what keys point into, beside what they were taken from
    cdef KeyCell* cells
    cdef KeyRef* keys
    cdef uint64_t* c0
    cdef uint64_t* c1
    cdef int* found             # Found
    cdef Place* places
    # n keys more, numbers start to start + n of `cells`; or, with an order, numbers order[start] and so on.
    cdef int add(self, Cells cells, const int64_t* order, size_t start, size_t n) except -1
    # Looks all of them up. defer: see View.find_block().
    cdef int find(self, bint defer) except -1
    cdef Found _find_blocks(self, bint defer, Access* access, size_t* at, size_t end) noexcept nogil
    cdef int clear(self) except -1

# The values of keys, in the order asked, appended to result; `default` for those that are not there.
cdef int append_rows(View view, Buffer buffer, tuple columns, Cells keys, object default, list result) except -1
# Columns of keys, in the order asked. KeyError for the first that is missing, or with mask: zero or empty.
cdef Batch look_up_batch(View view, Buffer buffer, tuple columns, list pieces, bint mask)

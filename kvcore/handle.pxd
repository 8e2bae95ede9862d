"""The compiled base of Store: everything that happens once per key."""

from libc.stdint cimport uint64_t

from tilekv.kvcore.buffer cimport Buffer, SortedBuffer
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.fragment cimport Access
from tilekv.kvcore.layout cimport Layout
from tilekv.kvcore.merge cimport Merge
from tilekv.kvcore.search cimport Found, Place, View


cdef class Handle:
    """A snapshot (View) and, when writable, a write buffer over it.

    The buffer is touched with the GIL held only. While a flush encodes it without the GIL, `_busy` is set: readers go on,
    writers wait for `_lock`. A reader takes its own reference to the View, so flush, reopen and close never pull one away.
    """
    # constant after construction
    cdef readonly Layout _layout
    cdef readonly tuple _columns        # Column of each attribute, in schema order
    cdef bint _single                   # one attribute: values are bare
    cdef readonly bint _writable
    cdef readonly uint64_t _budget      # bytes of buffer after which a write flushes
    cdef readonly object _lock          # RLock: held by flush, reopen and close; writers wait on it while _busy
    # guarded by the GIL
    cdef readonly View _view              # None once closed
    cdef readonly Buffer _buffer
    cdef public bint _busy
    cdef uint64_t _generation           # of the process: see forked()

    cdef View _snapshot(self)
    cdef int _check_writable(self) except -1
    cdef Found _find(self, View view, Buffer buffer, const KeyRef* key, int field, Access* access, Place* place) except *
    cdef object _get(self, key, default)
    cdef object _row(self, View view, Buffer buffer, const Place* place, Access* access)
    cdef int _after_write(self) except -1
    cdef Merge _merge(self)


cdef class Window:
    """Takes cells from a merge, some rows or some bytes of them at a time: a thousand values may be a thousand megabytes."""
    cdef Merge merge
    cdef Place* places
    cdef Py_ssize_t room
    cdef Py_ssize_t n           # places that the merge has given
    cdef Py_ssize_t at          # how many of them are used
    # The next cells, as many of the columns' bytes as are made at a time: how many there are at *places, 0 at the end.
    cdef Py_ssize_t next(self, tuple columns, Place** places) except -1


cdef class CellIterator:
    """Iterates over the keys, values or items of a snapshot; lazy, a window of cells at a time."""
    cdef tuple columns
    cdef Window window          # None at the end, and while a window is made
    cdef bint filling           # a thread is in _fill(), perhaps without the GIL
    cdef int what
    cdef list ready
    cdef Py_ssize_t at
    cdef int _fill(self) except -1


cdef class Scan:
    """All rows of a snapshot."""
    cdef View view
    cdef SortedBuffer buffer
    cdef tuple columns
    cdef Py_ssize_t rows

"""The compiled base of Store: everything that happens once per key."""

from libc.stdint cimport int64_t, uint64_t

from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.merge.merge cimport Merge
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext
from tilekv.kvcore.read.snapshot cimport Found, Snapshot
from tilekv.kvcore.values.values cimport Column
from tilekv.kvcore.write.memtable cimport Buffer
from tilekv.kvcore.write.sorted_buffer cimport SortedBuffer


cdef class Handle:
    """A snapshot (Snapshot) and, when writable, a write buffer over it.

    A flush freezes the buffer: it lies between the snapshot and a new one, and nobody writes into it any more. Look-ups ask the
    new one, the frozen one, the snapshot. When its fragment is there the snapshot has it and the frozen buffer goes, in one step;
    when the flush fails it stays, and the next flush writes it first. So nobody waits for a flush, but who writes while both
    buffers are full.

    Buffers are touched with the GIL held only, but for what a flush sorts and encodes. Readers take their own references to
    all three at once, so flush, reopen and close never pull one away.
    """
    # constant after construction
    cdef readonly Layout _layout
    cdef readonly tuple _columns        # Column of each attribute, in schema order
    cdef readonly object _frames        # see _attach()
    cdef bint _single                   # one attribute: values are bare
    cdef readonly bint _writable
    cdef readonly uint64_t _budget      # bytes of buffer: above it a flush behind the writers begins
    cdef bint _threaded                 # whether a second thread may help with a batch
    cdef readonly object _lock          # RLock: held by flush, reopen and close
    # guarded by the GIL
    cdef readonly Snapshot _snapshot    # None once closed
    cdef readonly Buffer _buffer
    cdef readonly Buffer _frozen        # None: nothing is frozen
    cdef public object _failure         # what a flush behind its writers met, until it has been raised
    cdef public bint _failed            # the flush of what is frozen has failed: a write over the budget begins it again
    cdef public bint _busy              # a flush or a close is under way, in the thread that holds the lock
    cdef public bint _closing           # writers wait for the lock: what is written after the last flush would be lost
    cdef uint64_t _generation           # of the process: see _forked()
    cdef int64_t _moment                # that is shown (ms since 1970); -1: now

    cdef Snapshot _require_snapshot(self)
    # What expires by then is not there; 0 where nothing expires.
    cdef int64_t _now(self) noexcept
    # `expire` as moments: in an array that it returns, *n of them, one for all or one each.
    cdef object _expiring(self, object expire, size_t rows, const int64_t** moments, size_t* n)
    cdef int _check_writable(self) except -1
    cdef bytes _wanted          # for ReadContext.wanted
    cdef Found _find(self, Snapshot snapshot, Buffer buffer, Buffer frozen, const KeyRef* key, int field, ReadContext* context,
                     CellAddress* address) except *
    cdef object _get(self, key, default)
    cdef Column _text_column(self, object attr)
    cdef int64_t _expiry(self, object key) except -1
    cdef bint _no_column(self, str name) except -1
    cdef bint _has(self, object key) except -1
    cpdef object _meant(self, object key)
    cdef list _all_meant(self, list pieces)
    cdef int _hidden(self, Snapshot snapshot, Buffer buffer, const CellAddress* address, int field, ReadContext* context,
                     void* cell) except -1
    cdef object _row(self, Snapshot snapshot, Buffer buffer, const CellAddress* address, ReadContext* context)
    cdef int _flush_if_full(self) except -1
    cdef tuple _buffers(self)
    cdef Merge _merge(self)

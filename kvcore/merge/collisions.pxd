"""Cells with equal coordinates, told apart by their keys: the newest of each that is not deleted."""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.codec.pipeline cimport Status
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport CellAddress
from tilekv.kvcore.read.chunk_reader cimport ReadContext
from tilekv.kvcore.read.column_reader cimport FieldCursors, Selection
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer

cdef struct Tied:
    uint64_t c1                 # the first coordinates are equal; these need not be
    uint64_t id                 # whatever the merge knows it by
    size_t age                  # of two cells of a key the one that was added first is newer
    bint deleted
    KeyRef key


cdef class Ties:
    """Keys are read through cursors that stay open: a store whose every key was set ten times has all its keys compared."""
    cdef Snapshot snapshot
    cdef Buffer rows            # see Merge
    cdef Tied* cells
    cdef size_t n
    cdef size_t room
    cdef CellAddress* runs       # by age
    cdef FieldCursors keys, types
    cdef Out ends, data, codes  # of the keys, by age
    cdef uint32_t fault_in      # fragment of the last fault
    cdef void clear(self) noexcept nogil
    # Another cell, in `run` alone. NO_MEMORY when there is none.
    cdef Status add(self, const CellAddress* run, uint64_t c1, uint64_t id, bint deleted) noexcept nogil
    # Leaves the winners, in the order of c1 and keys. After a fault `context` says what, fault_in where.
    cdef Status choose(self, ReadContext* context) noexcept nogil
    cdef Status _read_keys(self, ReadContext* context) noexcept nogil

cdef Ties new_ties(Snapshot snapshot, Buffer rows)

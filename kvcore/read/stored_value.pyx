cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.read.address cimport IN_BUFFER, entry_at
from tilekv.kvcore.read.chunk_reader cimport FragmentData, context_close, fragment_copy, fragment_extent
from tilekv.kvcore.read.plan cimport plan_bytes
from tilekv.kvcore.write.memtable cimport Entry


@cython.final
@cython.no_gc                       # in no cycle; the collector would take away what it reads from
cdef class StoredValue:
    cdef int read(self, uint64_t at, uint64_t n, uint8_t* into) except -1:
        cdef FragmentData* f
        cdef ReadContext context
        cdef Status status
        if n == 0:
            return 0
        if self.data != NULL:
            memcpy(into, self.data + at, n)
            return 0
        f = self.snapshot.at[self.fragment]
        memset(&context, 0, sizeof(context))
        try:
            with nogil:
                plan_bytes(f, self.slot, self.tile, self.start + at, n)
                status = fragment_copy(f, self.slot, self.tile, self.start + at, n, &context, into)
            if status != OK:
                self.snapshot.raise_fault(&context, self.fragment)
        finally:
            context_close(&context, &self.snapshot.codecs.pool)
        return 0

    def part(self, uint64_t start, uint64_t stop):
        """Bytes start to stop. ValueError unless start <= stop <= size."""
        if not start <= stop <= self.size:
            raise ValueError(f"bytes {start} to {stop} of a value of {self.size}")
        found = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(stop - start))
        self.read(start, stop - start, <uint8_t*>PyBytes_AS_STRING(found))
        return found

    def part_into(self, uint64_t start, buffer):
        """As many bytes from `start` on as there are and the buffer holds: how many."""
        cdef Py_buffer given
        cdef uint64_t n
        PyObject_GetBuffer(buffer, &given, PyBUF_WRITABLE)
        try:
            n = min(self.size - min(start, self.size), <uint64_t>given.len)
            self.read(start, n, <uint8_t*>given.buf)
        finally:
            PyBuffer_Release(&given)
        return n


cdef StoredValue stored_value(Snapshot snapshot, tuple held, Buffer rows, int field, const CellAddress* address,
                              ReadContext* context):
    cdef StoredValue value = StoredValue.__new__(StoredValue)
    cdef Entry entry
    cdef uint64_t end = 0
    value.snapshot = snapshot
    value.held = held
    if address.fragment == IN_BUFFER:
        entry = entry_at(address)
        rows.field(&entry, field, &value.data, &value.size)
        return value
    value.fragment = address.fragment
    value.tile = address.tile
    value.slot = snapshot.layout.bytes_slot(field)
    if fragment_extent(snapshot.at[address.fragment], field, address.tile, address.cell, context, &value.start, &end) != OK:
        snapshot.raise_fault(context, address.fragment)
    value.size = end - value.start
    return value


tkv_refuse_bare(StoredValue)

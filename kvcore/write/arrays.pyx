cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tilekv.kvcore.format.layout cimport TOMBSTONE

cdef enum:
    ANY_SIZE = <size_t>-1


@cython.final
cdef class ArrayCells(CellSource):
    def __cinit__(self, Layout layout not None, c0, c1, columns not None):
        """c0, c1: the coordinates, u64, ascending. columns: by field, n cells as they are stored or, for a var field,
        (n + 1 starts as u64, bytes). Any contiguous buffers. ValueError when they do not fit each other or the layout.

        The order of the cells is not checked.
        """
        cdef int f
        cdef size_t i
        cdef const uint8_t* types
        self.layout = layout
        self.columns = <ArrayColumn*>calloc(layout.nf, sizeof(ArrayColumn))
        if self.columns == NULL:
            raise MemoryError
        if len(columns) != layout.nf:
            raise ValueError(f"{layout.nf} fields, but {len(columns)} columns")
        self._hold(c0, &self.c0, ANY_SIZE)
        if self.c0.len % 8:
            raise ValueError("coordinates are 8 bytes each")
        self.n = self.c0.len // 8
        self._hold(c1, &self.c1, 8 * self.n)
        for f in range(layout.nf):
            if layout.is_var(f):
                starts, data = columns[f]
                self._hold_var(starts, data, &self.columns[f])
            else:
                self._hold(columns[f], &self.columns[f].data, self.n * layout.slots[f].width)
        types = <const uint8_t*>self.columns[layout.key_type].data.buf
        for i in range(self.n):
            self.tombstones += (types[i] & TOMBSTONE) != 0

    def __dealloc__(self):
        cdef int f
        PyBuffer_Release(&self.c0)
        PyBuffer_Release(&self.c1)
        if self.columns != NULL:
            for f in range(self.layout.nf):
                PyBuffer_Release(&self.columns[f].data)
                PyBuffer_Release(&self.columns[f].starts)
        free(self.columns)

    def __len__(self):
        return self.n

    cdef int _hold(self, object array, Py_buffer* view, size_t size) except -1:
        PyObject_GetBuffer(array, view, PyBUF_SIMPLE)
        if size != <size_t>ANY_SIZE and <size_t>view.len != size:
            raise ValueError(f"a column of {self.n} cells should have {size} bytes, not {view.len}")
        return 0

    cdef int _hold_var(self, object starts, object data, ArrayColumn* column) except -1:
        cdef const uint64_t* at
        cdef size_t i
        self._hold(starts, &column.starts, 8 * (self.n + 1))
        self._hold(data, &column.data, ANY_SIZE)
        at = <const uint64_t*>column.starts.buf
        if at[0] != 0 or at[self.n] != <uint64_t>column.data.len:
            raise ValueError("the cells of a column do not fill its bytes")
        for i in range(self.n):
            if at[i] > at[i + 1]:
                raise ValueError("a cell ends before it begins")
        return 0

    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil:
        if c0 != NULL:
            memcpy(c0, <const uint64_t*>self.c0.buf + lo, (hi - lo) * 8)
        if c1 != NULL:
            memcpy(c1, <const uint64_t*>self.c1.buf + lo, (hi - lo) * 8)
        return 0

    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil:
        cdef size_t width = self.layout.slots[field].width
        memcpy(out, <const uint8_t*>self.columns[field].data.buf + lo * width, (hi - lo) * width)
        return 0

    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil:
        cdef const uint64_t* starts = <const uint64_t*>self.columns[field].starts.buf
        cdef size_t i
        for i in range(lo, hi):
            out[i - lo] = starts[i + 1] - starts[i]
        return 0

    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil:
        cdef const ArrayColumn* column = &self.columns[field]
        memcpy(out, <const uint8_t*>column.data.buf + (<const uint64_t*>column.starts.buf)[cell] + skip, n)
        return 0

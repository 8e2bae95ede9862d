cimport cython
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from tilekv.errors import KeyNotFoundError

from tilekv.kvcore.codec cimport OK, Status
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.fragment cimport Access, FragmentData, Span, access_close, fragment_cell, unpin
from tilekv.kvcore.gather cimport Gathered, gather, gathered_free
from tilekv.kvcore.search cimport IN_BUFFER, PRESENT
from tilekv.kvcore.values cimport load_key
from tilekv.kvcore.wire cimport load64

cdef enum:
    BLOCK_BYTES = 8 << 20       # bytes of one column that are copied before objects are made of them


@cython.final
cdef class VarColumn:
    """A column of variable-length cells: cell i is data[offsets[i]:offsets[i + 1]]; offsets int64 (n + 1), data uint8."""
    cdef readonly object offsets
    cdef readonly object data
    cdef Column _column

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, Py_ssize_t i):
        """Cell i as a Python object."""
        cdef Py_ssize_t n = len(self.offsets) - 1
        cdef const uint8_t[::1] data = self.data
        cdef const int64_t[::1] offsets = self.offsets
        if i < 0:
            i += n
        if not 0 <= i < n:
            raise IndexError(i)
        return self._column.load(&data[0] + offsets[i] if data.shape[0] else <const uint8_t*>b"", offsets[i + 1] - offsets[i])

    def to_list(self):
        """All cells as Python objects."""
        return [self[i] for i in range(len(self))]


@cython.final
cdef class Batch:
    def __len__(self):
        return len(self._keys) if self._keys is not None else len(next(iter(self._arrays.values()), ()))

    def __getitem__(self, str name not None):
        """A column: a NumPy array of n rows (the cell's shape behind), or a VarColumn for bytes, text and variable length."""
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyNotFoundError(f"no column {name!r} in this batch; it has {', '.join(map(repr, self._arrays))}") from None

    def __iter__(self):
        return iter(self._arrays)

    @property
    def keys(self):
        """The keys of the rows, as a list."""
        return self._keys

    def __repr__(self):
        return f"<tilekv batch of {len(self)} rows: {', '.join(self._arrays)}>"


cdef object column_array(Column column, Gathered* gathered, size_t n):
    """A gathered column as NumPy: a copy, since the arrays outlive the scratch."""
    cdef VarColumn var
    data = np.empty(gathered.data.size, np.uint8)
    cdef uint8_t[::1] into = data
    cdef int64_t[::1] ends
    if gathered.data.size:
        memcpy(&into[0], gathered.data.data, gathered.data.size)
    if column.shape is not None and column.dtype is not None:
        return data.view(column.dtype).reshape((n, *column.shape))
    var = VarColumn.__new__(VarColumn)
    var._column = column
    var.data = data
    var.offsets = np.zeros(n + 1, np.int64)
    ends = var.offsets
    if n:
        memcpy(&ends[1], gathered.ends.data, 8 * n)
    return var


cdef int key_type(View view, const Place* place, Access* access) except -1:
    cdef Span span
    cdef int type
    cdef FragmentData* f
    if place.fragment == IN_BUFFER:
        return place.type
    f = view.at[place.fragment]
    if fragment_cell(f, f.key_type, place.tile, place.cell, access, &span) != OK:
        view.raise_fault(access, place.fragment)
    type = span.data[0]
    unpin(f, &span.pin)
    return type


cdef list make_objects(View view, Buffer buffer, Column column, const Place* places, const int* present, size_t n):
    """A column of n cells as Python objects, or the keys when column is None. None where present[i] is not PRESENT."""
    cdef Gathered gathered
    cdef Access access
    cdef Status status = OK
    cdef size_t done = 0, at = 0, i
    cdef uint32_t fragment = 0
    cdef int field = 0 if column is None else column.field
    cdef uint32_t width = view.layout.slots[field].width
    cdef bint var = view.layout.is_var(field)
    cdef uint64_t start, end
    cdef KeyRef key
    cdef list result = PyList_New(n)
    memset(&gathered, 0, sizeof(gathered))
    memset(&access, 0, sizeof(access))
    try:
        while at < n:
            gathered.data.size = gathered.ends.size = 0
            with nogil:
                status = gather(view, buffer, field, places + at, present + at if present != NULL else NULL, n - at, BLOCK_BYTES,
                                &access, &gathered, &done, &fragment)
            if status != OK:
                view.raise_fault(&access, fragment)
            end = 0
            for i in range(done):
                start = end
                end = load64(gathered.ends.data + 8 * i) if var else start + width
                if present != NULL and present[at + i] != PRESENT:
                    item = None
                elif column is not None:
                    item = column.load(gathered.data.data + start, end - start)
                else:
                    key.data = gathered.data.data + start
                    key.size = end - start
                    key.type = key_type(view, &places[at + i], &access)
                    item = load_key(&key)
                Py_INCREF(item)
                PyList_SET_ITEM(result, at + i, item)
            at += done
    finally:
        gathered_free(&gathered)
        access_close(&access, &view.codecs.pool)
    return result


cdef list make_rows(View view, Buffer buffer, tuple columns, const Place* places, const int* present, size_t n):
    """Values of n cells: bare for one attribute, else dicts."""
    if len(columns) == 1:
        return make_objects(view, buffer, columns[0], places, present, n)
    names = [column.name for column in columns]
    lists = [make_objects(view, buffer, column, places, present, n) for column in columns]
    return [dict(zip(names, row)) for row in zip(*lists)]


cdef Batch make_batch(View view, Buffer buffer, tuple columns, const Place* places, const int* present, size_t n):
    """Columns of n cells."""
    cdef Batch batch = Batch.__new__(Batch)
    cdef Gathered gathered
    cdef Access access
    cdef Status status = OK
    cdef size_t done = 0
    cdef uint32_t fragment = 0
    cdef int field
    cdef Column column
    batch.columns = columns
    batch._arrays = {}
    for column in columns:
        memset(&gathered, 0, sizeof(gathered))
        memset(&access, 0, sizeof(access))
        field = column.field
        try:
            with nogil:
                status = gather(view, buffer, field, places, present, n, <uint64_t>-1, &access, &gathered, &done, &fragment)
            if status != OK:
                view.raise_fault(&access, fragment)
            batch._arrays[column.name] = column_array(column, &gathered, n)
        finally:
            gathered_free(&gathered)
            access_close(&access, &view.codecs.pool)
    return batch

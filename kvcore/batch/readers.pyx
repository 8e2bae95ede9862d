cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.wire cimport out_free, out_room
from tilekv.kvcore.batch.requests cimport SortedCells, sort_cells
from tilekv.kvcore.batch.results cimport ANY_TYPE, NO_TYPE, VarColumn, are_plain, column_of, into_array, new_batch, with_validity
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.format.layout cimport KEY_FIELD
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport NOWHERE
from tilekv.kvcore.read.chunk_reader cimport ReadContext, context_close
from tilekv.kvcore.read.column_reader cimport (FieldCursors, cursors_close, cursors_open, gather_bytes, gather_ends, gather_fixed,
                                               measure, selection_advance)
from tilekv.kvcore.values.input_cells cimport gathered_keys
from tilekv.kvcore.values.keys cimport load_key
from tilekv.kvcore.values.values cimport KIND_BYTES, Column

cdef enum:
    BLOCK_BYTES = 8 << 20       # bytes of one column that are copied before objects are made of them


# How stored keys are gathered: bytes, whatever their type.
cdef Column KEYS = Column("__key", KEY_FIELD, CHAR, None, None)


# --- one field ----------------------------------------------------------------------------------------------------------

cdef int finish(Snapshot snapshot, FieldCursors* cursors, ReadContext* context, Status status) except -1:
    """Give back what reading a field took, and raise what it met."""
    cursors_close(cursors, snapshot)
    context_close(context, &snapshot.codecs.pool)
    if status != OK:
        context.status = status
        snapshot.raise_fault(context, cursors.failed_in)
    return 0


cdef int64_t read_ends(Snapshot snapshot, Buffer buffer, int field, const Selection* selection, int64_t* ends) except -1:
    """The bytes that the cells of a field take. Where each ends in a var field goes to `ends`, which is NULL for a fixed one."""
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    if ends == NULL:
        return selection.n * <int64_t>snapshot.layout.slots[field].width
    if selection.n == 0:
        return 0
    memset(&context, 0, sizeof(context))
    with nogil:
        status = cursors_open(&cursors, snapshot, selection.keep)
        if status == OK:
            status = gather_ends(&cursors, snapshot, buffer, field, selection, &context, ends)
    finish(snapshot, &cursors, &context, status)
    return ends[selection.n - 1]


cdef int read_bytes(Snapshot snapshot, Buffer buffer, int field, const Selection* selection, const int64_t* ends, int64_t size,
                    uint8_t* out) except -1:
    """Those `size` bytes, when read_ends() has been asked how many there are and where cells end."""
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    if size == 0:
        return 0
    memset(&context, 0, sizeof(context))
    with nogil:
        status = cursors_open(&cursors, snapshot, selection.keep)
        if status == OK and ends == NULL:
            status = gather_fixed(&cursors, snapshot, buffer, field, selection, &context, out)
        elif status == OK:
            status = gather_bytes(&cursors, snapshot, buffer, field, selection, ends, 0, size, &context, out)
    return finish(snapshot, &cursors, &context, status)


cdef size_t fitting(Snapshot snapshot, Buffer buffer, tuple columns, bint keys, const Selection* selection,
                    uint64_t limit) except 0:
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    cdef Column column
    cdef Selection part = selection[0]
    cdef uint64_t size = 0
    cdef int field
    cdef list fields = [column.field for column in columns if snapshot.layout.is_var(column.field)]
    if keys:
        fields.append(KEY_FIELD)
    for field in fields:
        memset(&context, 0, sizeof(context))
        with nogil:
            status = cursors_open(&cursors, snapshot, selection.keep)
            if status == OK:
                status = measure(&cursors, snapshot, buffer, field, &part, limit, &context, &part.n, &size)
        finish(snapshot, &cursors, &context, status)
    return part.n


# --- as objects ---------------------------------------------------------------------------------------------------------

cdef Rows new_rows(tuple columns, bint bare):
    cdef Rows rows = Rows.__new__(Rows)
    cdef Column column
    rows.columns = columns
    rows.names = [column.name for column in columns]
    rows.bare = bare
    rows.nullable = any([column.valid for column in columns])
    rows.nfields = len(columns) + 2
    rows.fields = <Gathered*>calloc(rows.nfields + len(columns), sizeof(Gathered))
    if rows.fields == NULL:
        raise MemoryError
    return rows


@cython.final
cdef class Rows:
    def __dealloc__(self):
        cdef size_t i
        if self.fields != NULL:
            for i in range(self.nfields + len(self.columns)):
                out_free(&self.fields[i].data)
                out_free(&self.fields[i].ends)
        free(self.fields)

    cdef int fill(self, Snapshot snapshot, Buffer buffer, const Selection* selection, bint keys) except -1:
        cdef Column column
        cdef size_t i = 0
        self.n = 0
        for column in self.columns:
            self._field(snapshot, buffer, column.field, selection, &self.fields[i])
            if column.valid:
                self._field(snapshot, buffer, column.valid, selection, &self.fields[self.nfields + i])
            i += 1
        self.numbers = snapshot.layout.numbers
        if keys:
            self._field(snapshot, buffer, KEY_FIELD, selection, &self.fields[i])
            self._field(snapshot, buffer, snapshot.layout.key_type, selection, &self.fields[i + 1])
        self.n = selection.n
        return 0

    cdef int _field(self, Snapshot snapshot, Buffer buffer, int field, const Selection* selection, Gathered* into) except -1:
        cdef int64_t* ends = NULL
        cdef int64_t size
        if snapshot.layout.is_var(field):
            ends = <int64_t*>out_room(&into.ends, 8 * selection.n)
            if ends == NULL:
                raise MemoryError
        size = read_ends(snapshot, buffer, field, selection, ends)
        if out_room(&into.data, size) == NULL:
            raise MemoryError
        return read_bytes(snapshot, buffer, field, selection, ends, size, into.data.data)

    cdef object key(self, size_t i):
        cdef const Gathered* keys = &self.fields[self.nfields - 2]
        cdef const int64_t* ends = <const int64_t*>keys.ends.data
        cdef int64_t start = ends[i - 1] if i else 0
        cdef KeyRef key
        key.type = self.fields[self.nfields - 1].data.data[i]
        key.data = keys.data.data + start
        key.size = ends[i] - start
        if key.type == BLOB:
            return PyBytes_FromStringAndSize(<const char*>key.data, key.size)
        return load_key(&key, self.numbers)

    cdef object value(self, size_t i):
        cdef Py_ssize_t number
        if self.bare:
            return self._cell(0, i)
        return {self.names[number]: self._cell(number, i) for number in range(len(self.columns))}

    cdef object _cell(self, Py_ssize_t number, size_t i):
        cdef Column column = self.columns[number]
        cdef const Gathered* cells = &self.fields[number]
        cdef const int64_t* ends
        cdef int64_t start, end
        if self.nullable and column.valid and not self.fields[self.nfields + number].data.data[i]:
            return None
        if column.width:
            start = i * <int64_t>column.width
            end = start + column.width
        else:
            ends = <const int64_t*>cells.ends.data
            start = ends[i - 1] if i else 0
            end = ends[i]
        if column.kind == KIND_BYTES:
            return PyBytes_FromStringAndSize(<const char*>cells.data.data + start, end - start)
        return column.load(cells.data.data + start, end - start)


cdef list make_rows(Snapshot snapshot, Buffer buffer, tuple columns, bint bare, const CellAddress* addresses, const int* present,
                    size_t n):
    cdef list result = [None] * <Py_ssize_t>n
    cdef Rows rows = new_rows(columns, bare)
    cdef SortedCells cells = sort_cells(snapshot, addresses, present, n)
    cdef Selection rest = cells.selection
    cdef Selection part
    cdef size_t at = 0, i
    rest.index = NULL                   # only the objects are put where they were asked for
    while rest.n:
        part = rest
        part.n = fitting(snapshot, buffer, columns, False, &rest, BLOCK_BYTES)
        rows.fill(snapshot, buffer, &part, False)
        for i in range(part.n):
            if part.runs[i].fragment != NOWHERE:
                result[cells.selection.index[at + i]] = rows.value(i)
        at += part.n
        selection_advance(&rest, part.n)
    return result


# --- as columns ---------------------------------------------------------------------------------------------------------

cdef object read_column(Snapshot snapshot, Buffer buffer, Column column, const Selection* selection):
    """A column as NumPy, gathered into the arrays themselves."""
    cdef int64_t* ends = NULL
    cdef int64_t size
    offsets = None
    if snapshot.layout.is_var(column.field):
        offsets = np.empty(selection.n + 1, np.int64)
        ends = <int64_t*>into_array(offsets)
        ends[0] = 0
        ends += 1
    size = read_ends(snapshot, buffer, column.field, selection, ends)
    data = np.empty(size, np.uint8)
    read_bytes(snapshot, buffer, column.field, selection, ends, size, into_array(data))
    return column_of(column, selection.n, offsets, data)


cdef object read_types(Snapshot snapshot, Buffer buffer, const Selection* selection):
    """The types of the keys."""
    types = np.empty(selection.n, np.uint8)
    read_bytes(snapshot, buffer, snapshot.layout.key_type, selection, NULL, selection.n, into_array(types))
    return types


cdef Batch make_batch(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present,
                      size_t n, list pieces, dict arrays):
    cdef SortedCells cells = None
    cdef Column column
    cdef dict every = {}
    for column in with_validity(columns):
        array = arrays.get(column.name)
        if array is None:
            cells = sort_cells(snapshot, addresses, present, n) if cells is None else cells
            array = read_column(snapshot, buffer, column, &cells.selection)
        every[column.name] = array
    return new_batch(columns, every, pieces)


cdef Batch make_scanned(Snapshot snapshot, Buffer buffer, tuple columns, const Selection* selection):
    cdef Column column
    cdef VarColumn keys = read_column(snapshot, buffer, KEYS, selection)
    arrays = {column.name: read_column(snapshot, buffer, column, selection) for column in with_validity(columns)}
    types = read_types(snapshot, buffer, selection)
    return new_batch(columns, arrays, [gathered_keys(types, keys.offsets, keys.data, snapshot.layout.numbers)])


cdef int key_form(Snapshot snapshot, Buffer buffer, const Selection* selection, int* type, bint* plain) except -1:
    cdef VarColumn keys
    for found in np.unique(read_types(snapshot, buffer, selection)).tolist():
        type[0] = found if type[0] == ANY_TYPE or type[0] == <int>found else NO_TYPE
    if plain[0] and type[0] != NO_TYPE and type[0] != BLOB:
        keys = read_column(snapshot, buffer, KEYS, selection)
        plain[0] = are_plain(type[0], keys.offsets, keys.data)
    return 0


tkv_refuse_bare(Rows)

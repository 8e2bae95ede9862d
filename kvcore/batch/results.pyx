cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from typing import Any

import numpy as np

from tilekv.errors import KeyNotFoundError, WrongTypeError, shown

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.signals cimport ROWS
from tilekv.kvcore.batch.requests cimport Asked, ask, asked_bytes, asked_ends, asked_fixed
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.format.layout cimport KEY_FIELD
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.read.address cimport NOWHERE, CellAddress
from tilekv.kvcore.read.chunks cimport ReadContext, context_close
from tilekv.kvcore.read.column_reader cimport (FieldCursors, gather_bytes, gather_ends, gather_fixed, cursors_close,
                                               cursors_open, measure, stretch_advance)
from tilekv.kvcore.values.arrow_export cimport (Node, array_capsules, array_node, blob_node, column_node, described, is_text,
                                                null_node, record_node, schema_capsule, stream_capsule)
from tilekv.kvcore.values.cells cimport KIND_BYTES
from tilekv.kvcore.values.input_cells cimport cells_key, count_cells, gathered_keys
from tilekv.kvcore.values.keys cimport KeyCell, asked_cell, load_key
from tilekv.kvcore.values.arrow_export import KEY_TYPE_KEY as _KEY_TYPE_KEY
from tilekv.kvcore.format.datatypes import DTYPES as _DTYPES
from tilekv.kvcore.base.wire cimport out64, out_bytes, out_free, out_room

cdef enum:
    BLOCK_BYTES = 8 << 20       # bytes of one column that are copied before objects are made of them


# How stored keys are gathered: bytes, whatever their type.
cdef Column KEYS = Column("__key", KEY_FIELD, CHAR, None, None)


@cython.final
cdef class Sealed:
    """The memory of an array, to be read: no array over it can be made writable."""
    cdef Py_buffer array

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.array.buf, self.array.len, 1, flags)

    def __dealloc__(self):
        PyBuffer_Release(&self.array)


cdef object sealed(object array, object dtype, object shape):
    """Whoever took it through Arrow relies on what was checked."""
    cdef Sealed memory = Sealed.__new__(Sealed)
    PyObject_GetBuffer(array, &memory.array, PyBUF_SIMPLE)
    return np.ndarray(shape, dtype, memory)


@cython.final
cdef class VarColumn:
    """A column of n cells of bytes, text or variable length: cell i is ``data[offsets[i]:offsets[i + 1]]``.

    Offers `__arrow_c_array__`: text as large_utf8, bytes as large_binary, arrays as large_list.

    Attributes
    ----------
    offsets : numpy.ndarray
        int64, of shape (n + 1,), in bytes; read-only.
    data : numpy.ndarray
        uint8, of shape (offsets[n],); read-only.
    """
    cdef readonly object offsets
    cdef readonly object data
    cdef Column _column

    @cython.binding(False)
    @cython.embedsignature(True)
    def __len__(self):
        """How many cells there are."""
        return len(self.offsets) - 1

    @cython.binding(False)
    @cython.embedsignature(True)
    def __getitem__(self, index, /):
        """Cell i as bytes, str or a 1-d array; a negative i counts from the end. IndexError when there is none."""
        cdef Py_ssize_t n = len(self.offsets) - 1
        cdef Py_ssize_t i
        if not PyIndex_Check(index):
            raise WrongTypeError(f"a cell is asked for by its number, not by {type(index).__name__}; slice to_list()")
        i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += n
        if not 0 <= i < n:
            raise IndexError(i)
        return self._cells(i, i + 1)[0]

    def to_list(self) -> list[Any]:
        """All cells as Python objects.

        Returns
        -------
        list
            n of bytes, str or one-dimensional numpy.ndarray.

        Raises
        ------
        CorruptionError
            When a cell of text is not UTF-8.
        """
        return self._cells(0, len(self.offsets) - 1)

    cdef list _cells(self, Py_ssize_t first, Py_ssize_t last):
        cdef const uint8_t[::1] data = self.data
        cdef const int64_t[::1] offsets = self.offsets
        cdef const uint8_t* base = &data[0] if data.shape[0] else <const uint8_t*>b""
        cdef Py_ssize_t i
        cdef list cells = []
        for i in range(first, last):
            cells.append(self._column.load(base + offsets[i], offsets[i + 1] - offsets[i]))
        return cells

    def __reduce__(self):
        raise WrongTypeError("a VarColumn is not copied or pickled: its offsets and data are, and so is to_list()")

    def __arrow_c_schema__(self) -> object:
        """The type as an Arrow PyCapsule."""
        return schema_capsule(column_node(self._column, self.offsets, self.data, None))

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Type and cells as Arrow PyCapsules; a requested schema is ignored, as the protocol allows."""
        return array_capsules(column_node(self._column, self.offsets, self.data, None))


@cython.final
cdef class Batch:
    """Columns of n rows: ``batch[name]`` is one of them. Made by `Store.read` and `Store.scan`.

    Offers the Arrow PyCapsule protocol: pyarrow.table(batch), polars.DataFrame(batch). Nothing but bools, dates and keys is
    copied. When all keys are of one type they are the first column, `key` (`__key` beside an attribute of that name); arrays,
    text that is not UTF-8 and other keys that Arrow has no array of are bytes, with their datatype code in their field's
    metadata, `tilekv.key_type`. Null is what `found` says is missing, and NaT. Times in units that Arrow lacks are int64 with the
    dtype in their field's metadata, `tilekv.dtype`.

    Attributes
    ----------
    columns : tuple
        What the columns are, in their order. Each element has a ``name``; the ``dtype`` of one number or time of it, None for
        bytes and text; and the ``shape`` of a cell, None for variable length.
    found : numpy.ndarray or None
        bool, of shape (n,): which keys were there, with ``missing="mask"``; else None.
    """

    @cython.binding(False)
    @cython.embedsignature(True)
    def __len__(self):
        """How many rows there are."""
        return count_cells(self._pieces)

    @cython.binding(False)
    @cython.embedsignature(True)
    def __getitem__(self, name, /):
        """A column: a read-only NumPy array of shape (n, ...), the attribute's shape behind, or a `VarColumn` for bytes, text and
        variable length.

        KeyNotFoundError, a KeyError, when there is none of that name.
        """
        if not isinstance(name, str):
            raise WrongTypeError(f"a column is asked for by name, not {shown(name)}")
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyNotFoundError(f"no column {name!r} in this batch; it has {', '.join(map(repr, self._arrays))}") from None

    @cython.binding(False)
    @cython.embedsignature(True)
    def __iter__(self):
        """An iterator over the columns' names."""
        return iter(self._arrays)

    @property
    def keys(self) -> list[Any]:
        """The keys of the rows, as a list of n; what was asked for, or made of what is stored."""
        if self._keys is None:
            self._keys = key_objects(self._pieces)
        return self._keys

    def __repr__(self):
        return f"<tilekv batch of {len(self)} rows: {', '.join(self._arrays)}>"

    def __reduce__(self):
        raise WrongTypeError("a Batch is not copied or pickled: its columns are, and so is pyarrow.table(batch)")

    def __arrow_c_schema__(self) -> object:
        """The type of the rows, a struct, as an Arrow PyCapsule."""
        return schema_capsule(batch_node(self, ANY_TYPE, False))

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Type and rows, a struct array, as Arrow PyCapsules; a requested schema is ignored, as the protocol allows."""
        return array_capsules(batch_node(self, ANY_TYPE, False))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow PyCapsule: a stream of one array. A requested schema is ignored, as the protocol allows."""
        node = batch_node(self, ANY_TYPE, False)
        return stream_capsule(node, iter((node,)))


cdef list key_objects(list pieces):
    cdef Cells cells
    cdef KeyCell key
    cdef Py_ssize_t i
    cdef list keys = []
    for cells in pieces:
        if cells.objects is not None:
            keys.extend(cells.objects)
            continue
        for i in range(cells.n):
            if i % ROWS == 0:
                PyErr_CheckSignals()
            _held = cells_key(cells, i, &key)
            keys.append(load_key(&key.ref, cells.numbers))
    return keys


# --- as Arrow arrays ----------------------------------------------------------------------------------------------------

cdef Node batch_node(Batch batch, int type, bint plain):
    """The rows; for type and plain see key_node."""
    cdef Column column
    cdef list children = []
    names = [column.name for column in batch.columns]
    keys = key_node("__key" if "key" in names else "key", batch._pieces, type, plain)
    if keys is not None:
        children.append(keys)
    for column in batch.columns:
        values = batch._arrays[column.name]
        if isinstance(values, VarColumn):
            children.append(column_node(column, (<VarColumn>values).offsets, (<VarColumn>values).data, batch.found))
        else:
            children.append(column_node(column, None, values, batch.found))
    return record_node(len(batch), children)


cdef Node key_node(str name, list pieces, int type, bint plain):
    """All keys as one array; None when they are of several types. What `type` and `plain` would be is found out for ANY_TYPE; for
    NO_TYPE there is no array. plain: see are_plain."""
    cdef Out data, ends
    cdef Cells cells
    cdef KeyCell key
    cdef Py_ssize_t i, n = 0
    cdef int64_t[::1] into
    cdef bint known = type != ANY_TYPE
    if type == NO_TYPE:
        return None
    if not known and count_cells(pieces) == 0:
        return null_node(name)
    memset(&data, 0, sizeof(data))
    memset(&ends, 0, sizeof(ends))
    try:
        for cells in pieces:
            for i in range(cells.n):
                if cells.objects is None:
                    _held = cells_key(cells, i, &key)
                else:
                    _held = asked_cell(cells.objects[i], &key, cells.numbers)
                if key.ref.data == NULL:                        # asked for, though it cannot be a key
                    return None
                if type == ANY_TYPE:
                    type = key.ref.type
                if key.ref.type != type:
                    return None
                n += 1
                if out_bytes(&data, key.ref.data, key.ref.size) < 0 or out64(&ends, data.size) < 0:
                    raise MemoryError
        blob = np.empty(data.size, np.uint8)
        if data.size:
            memcpy(into_array(blob), data.data, data.size)
        offsets = np.zeros(n + 1, np.int64)
        into = offsets
        if n:
            memcpy(&into[1], ends.data, 8 * n)
        if not (plain if known else are_plain(type, offsets, blob)):
            return described(blob_node(name, b"Z", offsets, blob, None), _KEY_TYPE_KEY, str(type).encode())
        if type == CHAR or type == BLOB:
            return blob_node(name, b"U" if type == CHAR else b"Z", offsets, blob, None)
        return array_node(name, blob.view(_DTYPES[type]), None)
    finally:
        out_free(&data)
        out_free(&ends)


cdef bint are_plain(int type, object offsets, object data) except -1:
    """Whether an Arrow array of their own holds keys of a type, and gives them back: text that is UTF-8, bytes, single numbers
    and times. Others come as bytes, with their type in the metadata of the field."""
    if type == CHAR:
        return is_text(offsets, data)
    dtype = _DTYPES.get(type)
    if type == BLOB or dtype is None:
        return type == BLOB
    if (np.diff(offsets) != dtype.itemsize).any():
        return False
    if dtype.kind == "b":
        return not (data > 1).any()
    if dtype.kind not in "mM":
        return True
    counts = data.view(np.int64)
    return not np.isnat(data.view(dtype)).any() and (dtype != "M8[D]" or not (counts.astype(np.int32) != counts).any())


def batch_nodes(batches, int type, bint plain):
    """The batches of one scan as Nodes of one type."""
    for batch in batches:
        yield batch_node(batch, type, plain)


cdef object scan_stream(Batch empty, object batches, int type, bint plain):
    return stream_capsule(batch_node(empty, type, plain), batch_nodes(batches, type, plain))


# --- reading ------------------------------------------------------------------------------------------------------------

cdef int finish(Snapshot snapshot, FieldCursors* cursors, ReadContext* context, Status status) except -1:
    """Give back what reading a field took, and raise what it met."""
    cursors_close(cursors, snapshot)
    context_close(context, &snapshot.codecs.pool)
    if status != OK:
        context.status = status
        snapshot.raise_fault(context, cursors.failed_in)
    return 0


# In these, the cells are a stretch, or `asked` when that is not None.

cdef int read_ends(Snapshot snapshot, Buffer buffer, int field, const Stretch* stretch, Asked asked, int64_t* ends) except -1:
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    memset(&context, 0, sizeof(context))
    with nogil:
        status = cursors_open(&cursors, snapshot, asked is not None or stretch.keep)
        if status == OK and asked is not None:
            status = asked_ends(&cursors, snapshot, buffer, field, asked, &context, ends)
        elif status == OK:
            status = gather_ends(&cursors, snapshot, buffer, field, stretch, &context, ends)
    return finish(snapshot, &cursors, &context, status)


cdef int read_bytes(Snapshot snapshot, Buffer buffer, int field, const Stretch* stretch, Asked asked, const int64_t* ends,
                    size_t n, uint8_t* out) except -1:
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    memset(&context, 0, sizeof(context))
    if n == 0:
        return 0
    with nogil:
        status = cursors_open(&cursors, snapshot, asked is not None or stretch.keep)
        if status == OK and asked is not None:
            status = asked_bytes(&cursors, snapshot, buffer, field, asked, ends, &context, out)
        elif status == OK:
            status = gather_bytes(&cursors, snapshot, buffer, field, stretch, 0, ends[n - 1], &context, out)
    return finish(snapshot, &cursors, &context, status)


cdef int read_fixed(Snapshot snapshot, Buffer buffer, int field, const Stretch* stretch, Asked asked, uint8_t* out) except -1:
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    memset(&context, 0, sizeof(context))
    with nogil:
        status = cursors_open(&cursors, snapshot, asked is not None or stretch.keep)
        if status == OK and asked is not None:
            status = asked_fixed(&cursors, snapshot, buffer, field, asked, &context, out)
        elif status == OK:
            status = gather_fixed(&cursors, snapshot, buffer, field, stretch, &context, out)
    return finish(snapshot, &cursors, &context, status)


cdef size_t fitting(Snapshot snapshot, Buffer buffer, tuple columns, bint keys, const Stretch* stretch, uint64_t limit) except 0:
    cdef ReadContext context
    cdef FieldCursors cursors
    cdef Status status
    cdef Column column
    cdef Stretch part = stretch[0]
    cdef uint64_t size = 0
    cdef int field
    cdef list fields = [column.field for column in columns if snapshot.layout.is_var(column.field)]
    if keys:
        fields.append(KEY_FIELD)
    for field in fields:
        memset(&context, 0, sizeof(context))
        with nogil:
            status = cursors_open(&cursors, snapshot, stretch.keep)
            if status == OK:
                status = measure(&cursors, snapshot, buffer, field, &part, limit, &context, &part.n, &size)
        finish(snapshot, &cursors, &context, status)
    return part.n


# --- as objects ---------------------------------------------------------------------------------------------------------

cdef Rows new_rows(tuple columns):
    cdef Rows rows = Rows.__new__(Rows)
    cdef Column column
    rows.columns = columns
    rows.names = [column.name for column in columns]
    rows.nfields = len(columns) + 2
    rows.fields = <Gathered*>calloc(rows.nfields, sizeof(Gathered))
    if rows.fields == NULL:
        raise MemoryError
    return rows


@cython.final
cdef class Rows:
    def __dealloc__(self):
        cdef size_t i
        if self.fields != NULL:
            for i in range(self.nfields):
                out_free(&self.fields[i].data)
                out_free(&self.fields[i].ends)
        free(self.fields)

    cdef int fill(self, Snapshot snapshot, Buffer buffer, const Stretch* stretch, bint keys) except -1:
        cdef Column column
        cdef size_t i = 0
        self.n = 0
        for column in self.columns:
            self._field(snapshot, buffer, column.field, stretch, &self.fields[i])
            i += 1
        self.numbers = snapshot.layout.numbers
        if keys:
            self._field(snapshot, buffer, KEY_FIELD, stretch, &self.fields[i])
            self._field(snapshot, buffer, snapshot.layout.key_type, stretch, &self.fields[i + 1])
        self.n = stretch.n
        return 0

    cdef int _field(self, Snapshot snapshot, Buffer buffer, int field, const Stretch* stretch, Gathered* into) except -1:
        cdef bint var = snapshot.layout.is_var(field)
        cdef uint64_t size = stretch.n * <uint64_t>snapshot.layout.slots[field].width
        cdef int64_t* ends = NULL
        if var:
            ends = <int64_t*>out_room(&into.ends, 8 * stretch.n)
            if ends == NULL:
                raise MemoryError
            read_ends(snapshot, buffer, field, stretch, None, ends)
            size = ends[stretch.n - 1]
        if out_room(&into.data, size) == NULL:
            raise MemoryError
        if var:
            return read_bytes(snapshot, buffer, field, stretch, None, ends, stretch.n, into.data.data)
        return read_fixed(snapshot, buffer, field, stretch, None, into.data.data)

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
        if len(self.columns) == 1:
            return self._cell(0, i)
        return {self.names[number]: self._cell(number, i) for number in range(len(self.columns))}

    cdef object _cell(self, Py_ssize_t number, size_t i):
        cdef Column column = self.columns[number]
        cdef const Gathered* cells = &self.fields[number]
        cdef const int64_t* ends
        cdef int64_t start, end
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


cdef list make_rows(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present, size_t n):
    cdef list result = [None] * <Py_ssize_t>n
    cdef Rows rows = new_rows(columns)
    cdef Asked asked = ask(snapshot, addresses, present, n)
    cdef Stretch rest, part
    cdef size_t at = 0, i, index
    rest.runs = asked.runs
    rest.skip = 0
    rest.n = n
    rest.keep = True
    while rest.n:
        part = rest
        part.n = fitting(snapshot, buffer, columns, False, &rest, BLOCK_BYTES)
        rows.fill(snapshot, buffer, &part, False)
        for i in range(part.n):
            index = asked.spots[at + i].index
            if asked.runs[at + i].fragment != NOWHERE:
                result[index] = rows.value(i)
        at += part.n
        stretch_advance(&rest, part.n)
    return result


# --- as columns ---------------------------------------------------------------------------------------------------------

cdef object read_column(Snapshot snapshot, Buffer buffer, Column column, const Stretch* stretch, Asked asked, size_t n):
    """A column of n cells as NumPy, gathered into the arrays themselves."""
    cdef int64_t* into
    if not snapshot.layout.is_var(column.field):
        data = np.empty(n * snapshot.layout.slots[column.field].width, np.uint8)
        read_fixed(snapshot, buffer, column.field, stretch, asked, into_array(data))
        return column_of(column, n, None, data)
    offsets = np.empty(n + 1, np.int64)
    into = <int64_t*>into_array(offsets)
    into[0] = 0
    read_ends(snapshot, buffer, column.field, stretch, asked, into + 1)
    data = np.empty(into[n], np.uint8)
    read_bytes(snapshot, buffer, column.field, stretch, asked, into + 1, n, into_array(data))
    return column_of(column, n, offsets, data)


cdef object column_of(Column column, size_t n, object offsets, object data):
    cdef VarColumn var
    if offsets is None:
        return sealed(data, column.dtype, (n, *column.shape))
    var = VarColumn.__new__(VarColumn)
    var._column = column
    var.offsets = sealed(offsets, np.int64, n + 1)
    var.data = sealed(data, np.uint8, len(data))
    return var


cdef Batch make_batch(Snapshot snapshot, Buffer buffer, tuple columns, const CellAddress* addresses, const int* present, size_t n,
                      list pieces, dict arrays):
    cdef Batch batch = Batch.__new__(Batch)
    cdef Asked asked = None
    cdef Column column
    batch.columns = columns
    batch._pieces = pieces
    batch._arrays = {}
    for column in columns:
        array = arrays.get(column.name)
        if array is None:
            asked = ask(snapshot, addresses, present, n) if asked is None else asked
            array = read_column(snapshot, buffer, column, NULL, asked, n)
        batch._arrays[column.name] = array
    return batch


cdef Batch make_scanned(Snapshot snapshot, Buffer buffer, tuple columns, const Stretch* stretch):
    cdef Batch batch = Batch.__new__(Batch)
    cdef Column column
    cdef VarColumn keys = read_column(snapshot, buffer, KEYS, stretch, None, stretch.n)
    batch.columns = columns
    batch._arrays = {column.name: read_column(snapshot, buffer, column, stretch, None, stretch.n) for column in columns}
    batch._pieces = [gathered_keys(read_types(snapshot, buffer, stretch), keys.offsets, keys.data, snapshot.layout.numbers)]
    return batch


cdef object read_types(Snapshot snapshot, Buffer buffer, const Stretch* stretch):
    types = np.empty(stretch.n, np.uint8)
    read_fixed(snapshot, buffer, snapshot.layout.key_type, stretch, None, into_array(types))
    return types


cdef int key_form(Snapshot snapshot, Buffer buffer, const Stretch* stretch, int* type, bint* plain) except -1:
    cdef VarColumn keys
    for found in np.unique(read_types(snapshot, buffer, stretch)).tolist():
        type[0] = found if type[0] == ANY_TYPE or type[0] == <int>found else NO_TYPE
    if plain[0] and type[0] != NO_TYPE and type[0] != BLOB:
        keys = read_column(snapshot, buffer, KEYS, stretch, None, stretch.n)
        plain[0] = are_plain(type[0], keys.offsets, keys.data)
    return 0


tkv_refuse_bare(Sealed)
tkv_refuse_bare(VarColumn)
tkv_refuse_bare(Batch)
tkv_refuse_bare(Rows)

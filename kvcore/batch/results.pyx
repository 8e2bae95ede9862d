cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from tilekv.errors import KeyNotFoundError, WrongTypeError, shown

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.memory cimport PooledMemory, new_memory
from tilekv.kvcore.base.signals cimport ROWS
from tilekv.kvcore.base.wire cimport Out, out_bytes, out_free
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.values.arrow_export cimport (Node, array_capsules, array_node, blob_node, column_node, described, is_text,
                                                null_node, record_node, schema_capsule, stream_capsule)
from tilekv.kvcore.values.input_cells cimport (FEED_OBJECTS, Cells, Feed, cells_key, count_cells, ended_cells, feed_key,
                                               fixed_cells, gathered_keys)
from tilekv.kvcore.values.keys cimport KeyCell, asked_cell, load_key
from tilekv.kvcore.values.arrow_export import KEY_TYPE_KEY as _KEY_TYPE_KEY
from tilekv.kvcore.format.datatypes import DTYPES as _DTYPES


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


cdef object column_of(Column column, size_t n, object offsets, object data):
    cdef VarColumn var
    if offsets is None:
        return sealed(data, column.dtype, (n, *column.shape))
    var = VarColumn.__new__(VarColumn)
    var._column = column
    var.offsets = sealed(offsets, np.int64, n + 1)
    var.data = sealed(data, np.uint8, len(data))
    return var


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
    @cython.binding(False)
    @cython.embedsignature(True)
    def __len__(self):
        """How many cells there are."""
        return len(self.offsets) - 1

    @cython.binding(False)
    @cython.embedsignature(True)
    def __getitem__(self, index, /):
        """Cell i: bytes, str or a 1-d array, None for a null; a negative i counts from the end. IndexError when there is none."""
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
            n of bytes, str or one-dimensional numpy.ndarray; None for a null.

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
        if self._valid is not None:
            for i in np.flatnonzero(~self._valid[first:last]):
                cells[i] = None
        return cells

    def __reduce__(self):
        raise WrongTypeError("a VarColumn is not copied or pickled: its offsets and data are, and so is to_list()")

    def __arrow_c_schema__(self) -> object:
        """The type as an Arrow PyCapsule."""
        return schema_capsule(column_node(self._column, self.offsets, self.data, self._valid))

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Type and cells as Arrow PyCapsules; a requested schema is ignored, as the protocol allows."""
        return array_capsules(column_node(self._column, self.offsets, self.data, self._valid))


@cython.final
cdef class Batch:
    """Columns of n rows: ``batch[name]`` is one of them. Made by `Store.read` and `Store.scan`.

    Offers the Arrow PyCapsule protocol: pyarrow.table(batch), polars.DataFrame(batch). Nothing but bools, dates and keys is
    copied. When all keys are of one type they are the first column, `key` (`__key` beside an attribute of that name); arrays,
    text that is not UTF-8 and other keys that Arrow has no array of are bytes, with their datatype code in their field's
    metadata, ``tilekv.key_type``. Null is what `valid` says is null and `found` is missing, and NaT. Times in units that Arrow
    lacks are int64 with the dtype in their field's metadata, ``tilekv.dtype``.

    Attributes
    ----------
    columns : tuple
        What the columns are, in their order. Each element has a ``name``; the ``dtype`` of one number or time of it, None for
        bytes and text; and the ``shape`` of a cell, None for variable length.
    found : numpy.ndarray or None
        bool, of shape (n,): which keys were there, with ``missing="mask"``; else None.
    valid : mapping
        By attribute that may be null (`Attr` with ``nullable=True``), and no other: bool, of shape (n,), False where the value is
        null, or its key is not there. What the column has there is zero or empty.
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
    def valid(self) -> Mapping[str, Any]:
        return MappingProxyType(self._valid)

    @property
    def keys(self) -> list[Any]:
        """The keys of the rows, as a list of n; what was asked for, or made of what is stored."""
        if self._keys is None:
            self._keys = key_objects(self._pieces)
        return self._keys

    cdef Cells cells(self, str name):
        cdef Cells cells
        cdef Column column = [column for column in self.columns if column.name == name][0]
        values = self._arrays[name]
        if isinstance(values, VarColumn):
            cells = ended_cells(values.offsets, values.data)
        else:
            cells = fixed_cells(values)
        if column.valid:
            valid = self._valid[name]
            cells.feed.valid = into_array(valid)
            cells.feed.null = column.valid
            cells.owner = (cells.owner, valid)
        return cells

    cdef str _key_name(self):
        """What the column of the keys is called."""
        cdef Column column
        cdef set names = {column.name for column in self.columns}
        if self.frames is not None and self.frames.key is not None and self.frames.key not in names:
            return self.frames.key
        return "__key" if "key" in names else "key"

    def _repr_html_(self):
        """What a notebook shows: a table of the first rows, with pictures where values are such."""
        return self._made("html")

    def to_arrow(self) -> object:
        """The rows as a pyarrow Table; of a store that was made of a frame, with that frame's columns and types.

        MissingPackageError when pyarrow is not installed.
        """
        return self._made("arrow")

    def to_pandas(self) -> object:
        """The rows as a pandas DataFrame; of a store that was made of a frame, with that frame's columns, index and types.

        MissingPackageError when pandas or pyarrow is not installed.
        """
        return self._made("pandas")

    def to_polars(self) -> object:
        """The rows as a polars DataFrame; of a store that was made of a frame, with that frame's columns and types.

        MissingPackageError when polars is not installed.
        """
        return self._made("polars")

    cdef object _made(self, str kind):
        if self.frames is None:
            raise WrongTypeError("this batch is of no store")
        return self.frames.make(kind, self)

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


cdef Batch new_batch(tuple columns, dict arrays, list pieces):
    cdef Batch batch = Batch.__new__(Batch)
    cdef Column column
    batch.columns = columns
    batch._arrays = arrays
    batch._pieces = pieces
    batch._valid = {}
    for column in columns:
        if column.valid and column.name not in batch._valid:
            valid = arrays.pop(column.validity.name) != 0
            valid = batch._valid[column.name] = sealed(valid, np.bool_, len(valid))
            values = arrays[column.name]
            if isinstance(values, VarColumn):
                (<VarColumn>values)._valid = valid
    return batch


cdef tuple with_validity(tuple columns):
    cdef Column column
    cdef list validity = [column.validity for column in columns if column.valid]
    return columns + tuple(validity) if validity else columns


cdef bytes wanted_fields(Layout layout, tuple columns):
    """For ReadContext.wanted: what is read of a cell to make these columns."""
    cdef Column column
    wanted = bytearray(layout.nf)
    for column in with_validity(columns):
        wanted[column.field] = 1
    return bytes(wanted)


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
    keys = key_node(batch._key_name(), batch._pieces, type, plain)
    if keys is not None:
        children.append(keys)
    for column in batch.columns:
        values = batch._arrays[column.name]
        found = batch._valid.get(column.name, batch.found)      # where a key is missing, nothing is valid
        if isinstance(values, VarColumn):
            children.append(column_node(column, (<VarColumn>values).offsets, (<VarColumn>values).data, found))
        else:
            children.append(column_node(column, None, values, found))
    return record_node(len(batch), children)


cdef Node key_node(str name, list pieces, int type, bint plain):
    """All keys as one array; None when they are of several types. What `type` and `plain` would be is found out for ANY_TYPE; for
    NO_TYPE there is no array. plain: see are_plain."""
    cdef Cells cells
    cdef Py_ssize_t n = count_cells(pieces), at = 0
    cdef PooledMemory memory
    cdef int64_t* ends
    cdef uint8_t* out
    cdef bint known = type != ANY_TYPE
    if type == NO_TYPE:
        return None
    if not known and n == 0:
        return null_node(name)
    pieces = [gathered(cells) if cells.feed.kind == FEED_OBJECTS else cells for cells in pieces]
    memory = new_memory((n + 1) * sizeof(int64_t))
    ends = <int64_t*>memory.at
    ends[0] = 0
    offsets = np.ndarray(n + 1, np.int64, memory)
    for cells in pieces:
        if cells is None:
            return None
        with nogil:
            type = measure_keys(&cells.feed, cells.n, type, ends + at)
        if type == NO_TYPE:
            return None
        at += cells.n
    memory = new_memory(ends[n])
    out = memory.at
    blob = np.ndarray(ends[n], np.uint8, memory)
    at = 0
    for cells in pieces:
        with nogil:
            copy_keys(&cells.feed, cells.n, ends + at, out)
        at += cells.n
    if not (plain if known else are_plain(type, offsets, blob)):
        return described(blob_node(name, b"Z", offsets, blob, None), [(_KEY_TYPE_KEY, str(type).encode())])
    if type == CHAR or type == BLOB:
        return blob_node(name, b"U" if type == CHAR else b"Z", offsets, blob, None)
    return array_node(name, blob.view(_DTYPES[type]), None)


cdef Cells gathered(Cells cells):
    """Keys that are objects, in memory; None when one of them cannot be a key: it was asked for all the same."""
    cdef Out data
    cdef KeyCell key
    cdef Py_ssize_t i
    types, offsets = np.empty(cells.n, np.uint8), np.zeros(cells.n + 1, np.int64)
    cdef uint8_t* type = into_array(types)
    cdef int64_t* ends = <int64_t*>into_array(offsets) + 1
    memset(&data, 0, sizeof(data))
    try:
        for i in range(cells.n):
            _held = asked_cell(cells.objects[i], &key, cells.numbers)
            if key.ref.data == NULL:
                return None
            if out_bytes(&data, key.ref.data, key.ref.size) < 0:
                raise MemoryError
            type[i] = key.ref.type
            ends[i] = data.size
        blob = np.empty(data.size, np.uint8)
        if data.size:
            memcpy(into_array(blob), data.data, data.size)
        return gathered_keys(types, offsets, blob, cells.numbers)
    finally:
        out_free(&data)


cdef int measure_keys(const Feed* feed, Py_ssize_t n, int type, int64_t* ends) noexcept nogil:
    """Where each of n keys ends, behind ends[0]. Returns their type, which is `type` unless that is ANY_TYPE; NO_TYPE when one
    has another."""
    cdef KeyRef key
    cdef Py_ssize_t i
    for i in range(n):
        feed_key(feed, i, &key)
        if type == ANY_TYPE:
            type = key.type
        if key.type != type:
            return NO_TYPE
        ends[i + 1] = ends[i] + <int64_t>key.size
    return type


cdef void copy_keys(const Feed* feed, Py_ssize_t n, const int64_t* ends, uint8_t* out) noexcept nogil:
    """To where measure_keys() said that they end: never more than there is room for."""
    cdef KeyRef key
    cdef Py_ssize_t i
    for i in range(n):
        feed_key(feed, i, &key)
        memcpy(out + ends[i], key.data, ends[i + 1] - ends[i])


cdef bint are_plain(int type, object offsets, object data) except -1:
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


cdef object scan_schema(Batch empty, int type, bint plain):
    return schema_capsule(batch_node(empty, type, plain))


cdef object scan_stream(Batch empty, object batches, int type, bint plain):
    return stream_capsule(batch_node(empty, type, plain), batch_nodes(batches, type, plain))


tkv_refuse_bare(Sealed)
tkv_refuse_bare(VarColumn)
tkv_refuse_bare(Batch)

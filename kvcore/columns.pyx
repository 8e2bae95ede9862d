cimport cython
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

import numpy as np

from tilekv.errors import InvalidValueError, KeyNotFoundError

from tilekv.kvcore.arrow cimport (Node, array_capsules, array_node, blob_node, column_node, null_node, record_node,
                                  schema_capsule, stream_capsule)
from tilekv.kvcore.codec cimport OK, Status
from tilekv.kvcore.feeds cimport cells_key, count_cells, gathered_keys
from tilekv.kvcore.digest cimport KeyRef
from tilekv.kvcore.fragment cimport Access, FragmentData, Span, access_close, fragment_cell, unpin
from tilekv.kvcore.gather cimport Gathered, gather, gathered_free
from tilekv.kvcore.layout cimport KEY_FIELD
from tilekv.kvcore.search cimport IN_BUFFER, PRESENT
from tilekv.kvcore.values cimport KeyCell, load_key
from tilekv.kvcore.values import DTYPES as _DTYPES
from tilekv.kvcore.wire cimport Out, load64, out64, out_bytes, out_free

cdef extern from "utf8.h" nogil:
    bint tkv_utf8_valid(const uint8_t* at, size_t n)

cdef enum:
    CHAR = 4                    # datatype codes of str and bytes keys
    BLOB = 40
    BLOCK_BYTES = 8 << 20       # bytes of one column that are copied before objects are made of them


# How stored keys are gathered: bytes, whatever their type.
cdef Column KEYS = Column("__key", KEY_FIELD, CHAR, None, None)


@cython.final
cdef class VarColumn:
    """A column of variable-length cells: cell i is data[offsets[i]:offsets[i + 1]]; offsets int64 (n + 1), data uint8.

    Offers `__arrow_c_array__`: text as large_utf8, bytes as large_binary, arrays as large_list.
    """
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

    def __arrow_c_schema__(self):
        """The type as an Arrow PyCapsule."""
        return schema_capsule(column_node(self._column, self.offsets, self.data, None))

    def __arrow_c_array__(self, requested_schema=None):
        """Type and cells as Arrow PyCapsules; a requested schema is ignored, as the protocol allows."""
        return array_capsules(column_node(self._column, self.offsets, self.data, None))


@cython.final
cdef class Batch:
    """Columns of some rows: `batch[name]` is a NumPy array of n rows, or a VarColumn for bytes, text and variable length.

    Offers the Arrow PyCapsule protocol: pyarrow.table(batch), polars.DataFrame(batch). Nothing but bools, dates and keys is
    copied. When all keys are of one type they are the first column, `key` (`__key` in a store with an attribute of that name).
    Null is what `found` says is missing, and NaT. Times in units that Arrow lacks are int64 with the dtype in their field's
    metadata, `tilekv.dtype`.
    """

    def __len__(self):
        return count_cells(self._pieces)

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
        if self._keys is None:
            self._keys = key_objects(self._pieces)
        return self._keys

    def __repr__(self):
        return f"<tilekv batch of {len(self)} rows: {', '.join(self._arrays)}>"

    def __arrow_c_schema__(self):
        """The type of the rows, a struct, as an Arrow PyCapsule."""
        return schema_capsule(batch_node(self, ANY_TYPE))

    def __arrow_c_array__(self, requested_schema=None):
        """Type and rows, a struct array, as Arrow PyCapsules; a requested schema is ignored, as the protocol allows."""
        return array_capsules(batch_node(self, ANY_TYPE))

    def __arrow_c_stream__(self, requested_schema=None):
        """The rows as an Arrow PyCapsule: a stream of one array. A requested schema is ignored, as the protocol allows."""
        node = batch_node(self, ANY_TYPE)
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
            _held = cells_key(cells, i, &key)
            keys.append(load_key(&key.ref))
    return keys


# --- as Arrow arrays ----------------------------------------------------------------------------------------------------

cdef Node batch_node(Batch batch, int type):
    cdef Column column
    cdef list children = []
    names = [column.name for column in batch.columns]
    keys = key_node("__key" if "key" in names else "key", batch._pieces, type)
    if keys is not None:
        children.append(keys)
    for column in batch.columns:
        values = batch._arrays[column.name]
        if isinstance(values, VarColumn):
            children.append(column_node(column, (<VarColumn>values).offsets, (<VarColumn>values).data, batch.found))
        else:
            children.append(column_node(column, None, values, batch.found))
    return record_node(len(batch), children)


cdef Node key_node(str name, list pieces, int type):
    """All keys as one array; None when they are of several types, or one that Arrow has no array of. `type` is a datatype to
    insist on, ANY_TYPE, or NO_TYPE for no array."""
    cdef Out data, ends
    cdef Cells cells
    cdef KeyCell key
    cdef Py_ssize_t i, n = 0, width = 0
    cdef int64_t[::1] into
    cdef bint same = type != NO_TYPE, wide = True, text = True
    if same and count_cells(pieces) == 0 and type == ANY_TYPE:
        return null_node(name)
    memset(&data, 0, sizeof(data))
    memset(&ends, 0, sizeof(ends))
    try:
        for cells in pieces:
            for i in range(cells.n):
                if not same:
                    break
                _held = cells_key(cells, i, &key)
                if type == ANY_TYPE:
                    type = key.ref.type
                if n == 0:
                    width = key.ref.size
                n += 1
                same = key.ref.type == type
                wide = wide and <uint64_t>width == key.ref.size
                text = text and (type != CHAR or tkv_utf8_valid(key.ref.data, key.ref.size))
                if out_bytes(&data, key.ref.data, key.ref.size) < 0 or out64(&ends, data.size) < 0:
                    raise MemoryError
        if not same:
            return None
        blob = np.empty(data.size, np.uint8)
        if data.size:
            memcpy(<void*><uintptr_t>blob.__array_interface__["data"][0], data.data, data.size)
        if type == CHAR or type == BLOB:
            if not text:
                return None
            offsets = np.zeros(n + 1, np.int64)
            into = offsets
            if n:
                memcpy(&into[1], ends.data, 8 * n)
            return blob_node(name, b"U" if type == CHAR else b"Z", offsets, blob, None)
        dtype = _DTYPES.get(type)
        if dtype is None or not wide or (n and width != dtype.itemsize):
            return None
        return array_node(name, blob.view(dtype), None)
    finally:
        out_free(&data)
        out_free(&ends)


def batch_nodes(batches, int type):
    """The batches of one scan as Nodes of one type."""
    cdef Batch batch
    for batch in batches:
        node = batch_node(batch, type)
        if type != NO_TYPE and len((<Node>node).children) == len(batch.columns):
            raise InvalidValueError("the keys of this store do not fit one Arrow column, since some are arrays, or text that is "
                                    "not UTF-8: take the batches of scan() one by one")
        yield node


cdef object scan_stream(Batch empty, object batches, int type):
    return stream_capsule(batch_node(empty, type), batch_nodes(batches, type))


# --- cells at places ----------------------------------------------------------------------------------------------------

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


cdef int common_type(View view, const Place* places, size_t n, int type) except -3:
    cdef Access access
    cdef size_t i
    cdef int found
    memset(&access, 0, sizeof(access))
    try:
        for i in range(n):
            found = key_type(view, &places[i], &access)
            if type == ANY_TYPE:
                type = found
            elif type != found:
                return NO_TYPE
    finally:
        access_close(&access, &view.codecs.pool)
    return type


cdef Cells make_keys(View view, Buffer buffer, const Place* places, size_t n):
    cdef Gathered gathered
    cdef Access access
    cdef Status status = OK
    cdef size_t done = 0, i
    cdef uint32_t fragment = 0
    cdef VarColumn keys
    cdef uint8_t[::1] into
    types = np.empty(n, np.uint8)
    into = types
    memset(&gathered, 0, sizeof(gathered))
    memset(&access, 0, sizeof(access))
    try:
        with nogil:
            status = gather(view, buffer, KEY_FIELD, places, NULL, n, <uint64_t>-1, &access, &gathered, &done, &fragment)
        if status != OK:
            view.raise_fault(&access, fragment)
        keys = column_array(KEYS, &gathered, n)
        for i in range(n):
            into[i] = key_type(view, &places[i], &access)
    finally:
        gathered_free(&gathered)
        access_close(&access, &view.codecs.pool)
    return gathered_keys(types, keys.offsets, keys.data)


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

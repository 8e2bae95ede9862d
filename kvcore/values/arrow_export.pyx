cimport cython
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF, PyObject
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport INT64_MIN, int32_t, uint8_t, uintptr_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcpy, memset, strdup

import struct

import numpy as np

from tilekv.errors import CorruptionError, OutOfRangeError

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.values.arrow cimport ARROW_FLAG_NULLABLE, ArrowArray, ArrowArrayStream, ArrowSchema
from tilekv.kvcore.values.arrow_types cimport format_for
from tilekv.kvcore.values.values cimport KIND_BYTES, KIND_TEXT, not_text

cdef extern from "values/arrow.h":
    void tkv_schema_release(ArrowSchema* schema) noexcept nogil
    void tkv_array_release(ArrowArray* array) noexcept nogil
    void tkv_stream_release(ArrowArrayStream* stream) noexcept nogil
    void tkv_schema_capsule_free(object capsule) noexcept
    void tkv_array_capsule_free(object capsule) noexcept
    void tkv_stream_capsule_free(object capsule) noexcept

cdef extern from "base/utf8.h" nogil:
    bint tkv_ascii(const uint8_t* at, size_t n)
    bint tkv_utf8_valid(const uint8_t* at, size_t n)


cdef int64_t NOT_A_TIME = INT64_MIN

# Metadata of a column.
DTYPE_KEY = b"tilekv.dtype"     # of an int64 that is a time in a unit Arrow lacks: which
KEY_TYPE_KEY = b"tilekv.key_type"   # of bytes that are keys of another type: its datatype code, in decimal


@cython.final
cdef class Node:
    pass


# --- from columns to nodes ----------------------------------------------------------------------------------------------

cdef Node make_node(str name, bytes format, int64_t length, tuple buffers, list children, int64_t nulls=0):
    cdef Node node = Node.__new__(Node)
    node.name = name
    node.format = format
    node.length = length
    node.buffers = buffers
    node.children = children
    node.nulls = nulls
    node.flags = ARROW_FLAG_NULLABLE
    return node


cdef Node type_node(str name, bytes format, int64_t flags, list children, Node dictionary):
    cdef Node node = make_node(name, format, 0, (), children)
    node.flags = flags
    node.dictionary = dictionary
    return node


cdef Node column_node(Column column, object offsets, object data, object found):
    cdef Node child
    if offsets is None:
        return array_node(column.name, data, found, column.zone)
    if column.kind == KIND_TEXT:
        if not is_text(offsets, data):
            raise not_text(column.name, "Arrow has no text of other bytes")
        return blob_node(column.name, b"U", offsets, data, found)
    if column.kind == KIND_BYTES:
        return blob_node(column.name, b"Z", offsets, data, found)
    size = column.dtype.itemsize
    if size > 1:
        offsets, rest = np.divmod(offsets, size)
        if rest.any():
            raise CorruptionError(f"{column.name}_var.tdb", None, f"a cell is no array of {column.dtype}")
    child = array_node("item", data.view(column.dtype), None, column.zone)
    bits, nulls = validity(found)
    return make_node(column.name, b"+L", len(offsets) - 1, (bits, offsets), [child], nulls)


cdef bint is_text(const int64_t[::1] offsets, const uint8_t[::1] data) noexcept:
    """All of the bytes are UTF-8, and no cell begins within a character."""
    cdef Py_ssize_t i, n = data.shape[0]
    cdef bint valid = True
    if n == 0:
        return True
    with nogil:
        if not tkv_ascii(&data[0], n):              # where every byte is a character, offsets need no look
            valid = tkv_utf8_valid(&data[0], n)
            for i in range(offsets.shape[0]):
                if offsets[i] < n and data[offsets[i]] & 0xC0 == 0x80:
                    valid = False
    return valid


cdef Node blob_node(str name, bytes format, object offsets, object data, object found):
    bits, nulls = validity(found)
    return make_node(name, format, len(offsets) - 1, (bits, offsets, data), [], nulls)


cdef Node array_node(str name, object array, object found, bytes zone=None):
    if array.ndim > 1:
        bits, nulls = validity(found)
        child = array_node("item", array.reshape(-1, *array.shape[2:]), None, zone)
        return make_node(name, b"+w:%d" % array.shape[1], len(array), (bits,), [child], nulls)
    dtype = array.dtype
    if dtype.kind in "mM":
        there = ~np.isnat(array)                                # NaT is a null, as it is for everyone who brings NumPy to Arrow
        found = there if found is None else found & there
    bits, nulls = validity(found)
    if dtype.kind == "b":
        return make_node(name, b"b", len(array), (bits, np.packbits(array, bitorder="little")), [], nulls)
    format = format_for(dtype)
    if dtype.str[1:] == "M8[D]":
        return make_node(name, b"tdD", len(array), (bits, days(name, array)), [], nulls)
    if format is not None:
        if zone is not None and dtype.kind == "M":
            format += zone
        return make_node(name, format, len(array), (bits, array), [], nulls)
    return described(make_node(name, b"l", len(array), (bits, array), [], nulls), [(DTYPE_KEY, dtype.name.encode())])


cdef Node described(Node node, list pairs):
    cdef list parts = [struct.pack("<i", len(pairs))]
    for pair in pairs:
        for text in pair:
            parts += [struct.pack("<i", len(text)), text]
    node.metadata = b"".join(parts)
    return node


cdef object days(str name, object array):
    """datetime64[D] as the int32 of an Arrow date."""
    cdef const int64_t[::1] numbers = array.view(np.int64)
    narrow = np.empty(len(array), np.int32)
    cdef int32_t[::1] out = narrow
    cdef Py_ssize_t i
    cdef bint fits = True
    with nogil:
        for i in range(numbers.shape[0]):
            out[i] = <int32_t>numbers[i]
            fits &= out[i] == numbers[i] or numbers[i] == NOT_A_TIME
    if not fits:
        wrong = (narrow != array.view(np.int64)) & ~np.isnat(array)
        raise OutOfRangeError(f"column {name!r} holds {array[wrong][0]}, which an Arrow date cannot: take it as a NumPy array")
    return narrow


cdef tuple validity(object found):
    """(bitmap or None, how many are missing)."""
    missing = 0 if found is None else len(found) - int(np.count_nonzero(found))
    return (np.packbits(found, bitorder="little") if missing else None), missing


cdef Node null_node(str name):
    return make_node(name, b"n", 0, (), [])


cdef Node record_node(Py_ssize_t n, list children):
    return make_node("", b"+s", n, (None,), children)


# --- from nodes to C structs --------------------------------------------------------------------------------------------

cdef int fill_schema(Node node, ArrowSchema* out) except -1:
    cdef Node child
    cdef ArrowSchema* into
    cdef char* metadata
    cdef size_t i
    memset(out, 0, sizeof(ArrowSchema))
    out.release = tkv_schema_release
    try:
        name = node.name.encode("utf-8")
        out.format = strdup(<const char*>node.format)
        out.name = strdup(<const char*>name)
        if out.format == NULL or out.name == NULL:
            raise MemoryError
        if node.metadata is not None:
            metadata = <char*>malloc(len(node.metadata))
            if metadata == NULL:
                raise MemoryError
            memcpy(metadata, <const char*>node.metadata, len(node.metadata))
            out.metadata = metadata
        out.flags = node.flags
        if node.dictionary is not None:
            into = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
            if into == NULL:
                raise MemoryError
            out.dictionary = into
            fill_schema(node.dictionary, into)
        out.children = <ArrowSchema**>calloc(len(node.children) + 1, sizeof(void*))
        if out.children == NULL:
            raise MemoryError
        out.n_children = len(node.children)
        for i, child in enumerate(node.children):
            into = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
            if into == NULL:
                raise MemoryError
            out.children[i] = into
            fill_schema(child, into)
    except BaseException:
        if out.release != NULL:
            out.release(out)
        raise
    return 0


cdef int fill_array(Node node, ArrowArray* out) except -1:
    cdef Node child
    cdef ArrowArray* into
    cdef size_t i
    memset(out, 0, sizeof(ArrowArray))
    out.release = tkv_array_release
    try:
        out.length = node.length
        out.null_count = node.nulls
        Py_INCREF(node.buffers)
        out.private_data = <void*>node.buffers
        out.buffers = <const void**>calloc(len(node.buffers) + 1, sizeof(void*))
        out.children = <ArrowArray**>calloc(len(node.children) + 1, sizeof(void*))
        if out.buffers == NULL or out.children == NULL:
            raise MemoryError
        out.n_buffers = len(node.buffers)
        for i, buffer in enumerate(node.buffers):
            if buffer is not None:
                out.buffers[i] = <const void*><uintptr_t>buffer.__array_interface__["data"][0]
        out.n_children = len(node.children)
        for i, child in enumerate(node.children):
            into = <ArrowArray*>calloc(1, sizeof(ArrowArray))
            if into == NULL:
                raise MemoryError
            out.children[i] = into
            fill_array(child, into)
    except BaseException:
        if out.release != NULL:
            out.release(out)
        raise
    return 0


@cython.final
cdef class Stream:
    """What an ArrowArrayStream makes its arrays from."""
    cdef Node schema
    cdef object nodes
    cdef bytes error            # of the last call that failed, for get_last_error


cdef int stream_failed(Stream stream, error) noexcept:
    stream.error = f"{type(error).__name__}: {error}".encode("utf-8", "replace").replace(b"\0", b"")
    return ENOMEM if isinstance(error, MemoryError) else EIO


cdef int stream_schema(ArrowArrayStream* self, ArrowSchema* out) noexcept with gil:
    cdef Stream stream = <Stream><PyObject*>self.private_data
    try:
        fill_schema(stream.schema, out)
    except BaseException as error:
        return stream_failed(stream, error)
    return 0


cdef int stream_next(ArrowArrayStream* self, ArrowArray* out) noexcept with gil:
    cdef Stream stream = <Stream><PyObject*>self.private_data
    out.release = NULL
    try:
        node = next(stream.nodes, None)
        if node is not None:
            fill_array(node, out)
    except BaseException as error:
        return stream_failed(stream, error)
    return 0


cdef const char* stream_error(ArrowArrayStream* self) noexcept with gil:
    cdef Stream stream = <Stream><PyObject*>self.private_data
    if stream.error is None:
        return NULL
    return stream.error


# --- capsules -----------------------------------------------------------------------------------------------------------

cdef object schema_capsule(Node node):
    # Zeroed: until it is filled, the capsule's destructor finds nothing to release.
    cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    capsule = PyCapsule_New(schema, "arrow_schema", tkv_schema_capsule_free)
    fill_schema(node, schema)
    return capsule


cdef tuple array_capsules(Node node):
    cdef ArrowArray* array
    schema = schema_capsule(node)
    array = <ArrowArray*>calloc(1, sizeof(ArrowArray))
    if array == NULL:
        raise MemoryError
    capsule = PyCapsule_New(array, "arrow_array", tkv_array_capsule_free)
    fill_array(node, array)
    return schema, capsule


cdef object stream_capsule(Node schema, object nodes):
    cdef ArrowArrayStream* out = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
    cdef Stream stream = Stream.__new__(Stream)
    if out == NULL:
        raise MemoryError
    capsule = PyCapsule_New(out, "arrow_array_stream", tkv_stream_capsule_free)
    stream.schema = schema
    stream.nodes = nodes
    Py_INCREF(stream)
    out.private_data = <void*>stream
    out.get_schema = stream_schema
    out.get_next = stream_next
    out.get_last_error = stream_error
    out.release = tkv_stream_release
    return capsule


tkv_refuse_bare(Node)
tkv_refuse_bare(Stream)

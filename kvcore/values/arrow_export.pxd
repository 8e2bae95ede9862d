"""Columns as Arrow arrays for others: the C data and stream interfaces, handed out in PyCapsules.

A Node is one Arrow array with its type. Its buffers are NumPy arrays, which an exported ArrowArray keeps alive and does not copy.
Every exported struct owns what it points to, and its children one by one, so a consumer may move or release them in any order.
"""

from libc.stdint cimport int64_t, uint8_t

from tilekv.kvcore.values.values cimport Column


cdef class Node:
    """One Arrow array with its type. Immutable."""
    cdef str name
    cdef bytes format
    cdef bytes metadata         # as the interface encodes it, or None
    cdef int64_t length
    cdef int64_t nulls
    cdef tuple buffers          # NumPy arrays; None for the validity of an array without nulls
    cdef list children
    cdef int64_t flags
    cdef Node dictionary        # of a type only, which has no cells: ArrowTree


# A column of n cells: `data` is an array of shape (n, *column.shape), or with offsets (int64, n + 1, in bytes) the bytes of cells
# of variable length. found: bool array, False where the cell is missing; None when all are there.
cdef Node column_node(Column column, object offsets, object data, object found)
# Text ("U") or bytes ("Z") of variable length; offsets int64, n + 1.
cdef Node blob_node(str name, bytes format, object offsets, object data, object found)
# An array of numbers, times or bools of shape (n, *sides). zone: bytes, of times that are instants.
cdef Node array_node(str name, object array, object found, bytes zone=*)
# `node` with metadata: pairs of bytes.
cdef Node described(Node node, list pairs)
# Whether every cell is UTF-8.
cdef bint is_text(const int64_t[::1] offsets, const uint8_t[::1] data) noexcept
# No cells, of no type.
cdef Node null_node(str name)
# A type, without cells.
cdef Node type_node(str name, bytes format, int64_t flags, list children, Node dictionary)
# Rows.
cdef Node record_node(Py_ssize_t n, list children)

cdef object schema_capsule(Node node)
cdef tuple array_capsules(Node node)            # (schema, array)
# nodes: an iterator over Nodes of the type of `schema`; an exception becomes the stream's error.
cdef object stream_capsule(Node schema, object nodes)

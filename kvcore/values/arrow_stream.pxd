"""What the Arrow PyCapsule protocol hands over: one array, or a stream of them, and their types."""

from tilekv.kvcore.values.arrow cimport ArrowArray, ArrowArrayStream, ArrowSchema


cdef class ArrowTypes:
    cdef ArrowSchema schema


cdef class ArrowChunk:
    cdef ArrowArray array
    cdef ArrowTypes types


cdef class ArrowReader:
    """The arrays of one Arrow stream, or the one array."""
    cdef ArrowArrayStream stream
    cdef readonly ArrowTypes types
    cdef ArrowChunk only
    # The next array; None at the end.
    cdef ArrowChunk next(self)


# Whether it is handed over by the protocol, or makes a pyarrow array of itself, as the arrays of pandas' own types do.
cdef bint is_arrow(object given) except -1
# A table as something that is: pyarrow's Dataset and Scanner have a reader, polars' LazyFrame collects.
cdef object table_of(object given)
# The columns by name of a DataFrame of pandas or polars, each in its own type; None for any other table.
cdef dict frame_columns(object table)
cdef ArrowReader open_arrow(object given)
# The names of a table's columns.
cdef list table_names(ArrowReader reader)

"""What `read` and `scan` return: a Batch of columns, each a NumPy array or a VarColumn. Arrow can take them too."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t

from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.values.values cimport Column

cdef enum:                      # what key_node() and scan_stream() take in place of a datatype of keys
    ANY_TYPE = -1               # not known yet
    NO_TYPE = -2                # the keys are of several types


cdef class VarColumn:
    """A column of cells of variable size."""
    cdef readonly object offsets        # int64, one more than there are cells
    cdef readonly object data           # uint8; cell i is data[offsets[i]:offsets[i + 1]]
    cdef Column _column
    cdef object _valid                  # a bool array, False where the cell is null; None when none may be
    cdef list _cells(self, Py_ssize_t first, Py_ssize_t last)


cdef class Batch:
    """Rows of columns, the result of read() and scan()."""
    cdef readonly tuple columns         # of Column
    cdef dict _arrays                   # by name: a NumPy array, or a VarColumn
    cdef readonly object found          # of read() only: a bool array
    cdef dict _valid                    # by name, of columns that may have nulls: a bool array, False where a cell is null
    cdef list _pieces                   # the keys, a list of Cells
    cdef list _keys                     # the keys as objects, None until somebody asks for them
    cdef object frames                  # what makes frames of it, and knows what the keys are called; see Handle._attach()
    cdef str _key_name(self)
    cdef object _made(self, str kind)
    # A column as cells to be written.
    cdef Cells cells(self, str name)

cdef inline uint8_t* into_array(object array) except? NULL:
    """The address of the first byte of a contiguous NumPy array of numbers. REQUIRES of the caller not to write when it is empty.

    Taken from its buffer: `__array_interface__` makes a dict, which costs 16,000 instructions.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    PyBuffer_Release(&view)
    return <uint8_t*>view.buf


# The bytes of a contiguous array of numbers as an array that nobody can write to.
cdef object sealed(object array, object dtype, object shape)
# A column of n cells out of its parts: int64 offsets (n + 1) and uint8 bytes, or None and n * width bytes.
cdef object column_of(Column column, size_t n, object offsets, object data)
# arrays: by name, those of the columns' validity among them.
cdef Batch new_batch(tuple columns, dict arrays, list pieces)
# The columns, and behind them the validity of those that may have nulls.
cdef tuple with_validity(tuple columns)
cdef bytes wanted_fields(Layout layout, tuple columns)

# Whether keys of a type have an Arrow array of their own, which gives them back: text that is UTF-8, bytes, single numbers and
# times. Other keys are passed as bytes, with their type in the metadata of the field.
cdef bint are_plain(int type, object offsets, object data) except -1
# An Arrow stream of the Batches of a scan. type and plain: what key_form() of `readers` found out about all their keys. `empty`
# is a Batch without rows, for the schema.
cdef object scan_stream(Batch empty, object batches, int type, bint plain)
# The type of its arrays.
cdef object scan_schema(Batch empty, int type, bint plain)

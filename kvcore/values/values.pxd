"""Python objects to cells of an attribute, and back, each checked against the type and range (docs/design.md 3)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.values.exact cimport Zone

cdef enum Kind:
    KIND_BYTES = 0
    KIND_TEXT = 1               # strict UTF-8
    KIND_INT = 2
    KIND_FLOAT32 = 3
    KIND_FLOAT64 = 4
    KIND_BOOL = 5
    KIND_TIME = 6               # datetimes and timedeltas
    KIND_ARRAY = 7              # fixed shapes and variable length

cdef struct Cell:               # of a value: `size` bytes at `data`, in `word` or in the object that Column.cell() returned
    const uint8_t* data
    uint64_t size
    uint8_t word[8]
    Zone zone                   # of the times that this call gave before; 0 at first
    int null                    # of a null, whose size is 0: the field that says so; 0: it is none


cdef class Column:
    """How the cells of one attribute become Python objects and back. Immutable."""
    cdef readonly str name
    cdef readonly int field
    cdef readonly int valid             # the field that says which cells are null: 0 there; 0 where none may be
    cdef Column validity                # that field as a column; None where none may be
    cdef readonly object dtype          # numpy.dtype of one element; None for bytes and text
    cdef readonly tuple shape           # of a cell; () for scalars, None for variable length
    cdef readonly bytes zone            # of times that are instants, as Arrow has it: where they are shown; None of others
    cdef Kind kind
    cdef Kind element                   # of a number or time: the kind of one element
    cdef uint32_t width                 # bytes of a fixed cell, 0 when variable
    cdef uint32_t step                  # bytes of an element
    cdef bint signed
    # What a cell is, in words.
    cdef str takes(self)
    # The cell of `value`, which lives as long as the object returned and `cell`. Errors name the attribute.
    cdef object cell(self, object value, Cell* cell)
    cdef int _element(self, object value, uint8_t* word, Zone* zone) except -1
    cdef int _integer(self, object value, uint8_t* word) except -1
    cdef object _array(self, object value, Zone* zone)
    cdef int _fill(self, tuple elements, tuple shape, uint8_t** at, Zone* zone) except -1
    # The cells of a whole column from a NumPy array: contiguous, or None when they must be converted one by one.
    cdef object array(self, object values)
    cdef object load(self, const uint8_t* data, uint64_t size)

# The error for a stored cell of a text attribute that is not UTF-8. tilekv stores none, but TileDB takes any bytes for text.
cdef object not_text(str name, str reason)

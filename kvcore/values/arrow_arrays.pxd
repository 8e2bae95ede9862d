"""Elements of Arrow arrays as NumPy: numbers, times, bools, and lists of them; and which of an array's elements are asked for.

`at` says which: a slice, of step 1, or int64 positions, in any order and as often as they come: those that a dictionary, runs
or views lead to. What no position leads to may be anything, null too. `what` begins the messages.
"""

from libc.stdint cimport int64_t

from tilekv.kvcore.values.arrow cimport ArrowArray, ArrowSchema
from tilekv.kvcore.values.values cimport Column

cdef enum:
    MOST_DEEP_TYPES = 32        # of types within types

# The array has this many buffers or more, and children.
cdef int check_array(const ArrowArray* array, int64_t buffers, int64_t children, str what) except -1
# No element is beyond the array.
cdef int check_at(const ArrowArray* array, object at, str what) except -1
cdef int refuse_nulls(const ArrowArray* array, object at, str what) except -1
# `at` without nulls, and which of `rows` these are: int64, or None for all, which `at` is the positions of.
cdef tuple without_nulls(const ArrowArray* array, object at, object rows, str what)
cdef Py_ssize_t count_at(object at) except? -1
# The elements themselves, of a buffer of fixed width: in place for a slice.
cdef object picked(const ArrowArray* array, int buffer, object dtype, object at, str what)
# Where the bytes or the children of elements begin and end: two int64 arrays. width: bytes of an offset.
cdef tuple ends_of(const ArrowArray* array, int width, object at, str what)
# Positions in the dictionary, or in the values of runs.
cdef object positions_of(const ArrowSchema* schema, const ArrowArray* array, object at, str what)
cdef bint is_list(str format) noexcept
# (how long each list is, which elements of the child they have, one list after the other).
cdef tuple lists_of(const ArrowSchema* schema, const ArrowArray* array, object at, str what)
# Shape (n, *sides) for an attribute (or keys, column None); None for other types than numbers, times and bools.
cdef object elements(const ArrowSchema* schema, const ArrowArray* array, object at, tuple sides, Column column, str what,
                     int depth=*)

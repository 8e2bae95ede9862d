"""Whatever may be given as keys or as a column, as runs of cells: arrays, Arrow, any iterable."""

from tilekv.kvcore.values.values cimport Column

# Raises for what has no rows: it is one object, an array of no dimension, memory that cannot be iterated.
cdef int check_many(object given, str what) except -1
# Runs of cells of whatever may be given as keys (column None) or as a column: an array, an Arrow array or stream, any iterable.
# numbers: of keys, see Layout. `what` begins the messages. All that can be checked without converting objects is checked.
cdef list cells_of(object given, Column column, bint numbers, str what)

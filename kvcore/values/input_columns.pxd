"""Whatever may be given as keys or as a column, as runs of cells: arrays, Arrow, any iterable."""

from tilekv.kvcore.values.cells cimport Column

# Runs of cells of whatever may be given as keys (column None) or as a column: an array, an Arrow array or stream, any iterable.
# numbers: of keys, see Layout. `what` begins the messages. All that can be checked without converting objects is checked.
cdef list cells_of(object given, Column column, bint numbers, str what)

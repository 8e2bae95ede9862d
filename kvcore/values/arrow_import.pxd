"""Arrow arrays as cells: the C data interface, taken in.

What Arrow hands over is checked before it is used: offsets rise, indices and views point into what they index, text is UTF-8.
The sizes of its buffers are not part of the interface, so those of offsets and data are the producer's word.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tilekv.kvcore.values.arrow cimport ArrowArray, ArrowSchema
from tilekv.kvcore.values.arrow_stream cimport ArrowChunk
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.values.values cimport Column

# Elements of an Arrow array (`at`: see arrow_arrays) as keys (column None; numbers: see Layout) or as cells of an attribute.
cdef Cells import_cells(ArrowChunk chunk, const ArrowSchema* schema, const ArrowArray* array, object at, Column column,
                        bint numbers, str what)
# Column number i of a table's next rows.
cdef Cells table_cells(ArrowChunk chunk, Py_ssize_t i, Column column, bint numbers, str what)

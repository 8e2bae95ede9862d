"""What was found of many keys, in the order asked: as objects, or as columns."""

from tilekv.kvcore.batch.results cimport Batch
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.write.memtable cimport Buffer

# threaded, of both: whether a second thread may help.

# The values of keys appended to result; `default` for those that are not there.
cdef int append_rows(Snapshot snapshot, Buffer buffer, tuple columns, Cells keys, object default, list result,
                     bint threaded) except -1
# Columns of keys. KeyError for the first that is missing, or with mask: zero or empty.
cdef Batch look_up_batch(Snapshot snapshot, Buffer buffer, tuple columns, list pieces, bint mask, bint threaded)

"""What was found of many keys, in the order asked: as objects, or as columns."""

from tilekv.kvcore.buffer cimport Buffer
from tilekv.kvcore.columns cimport Batch
from tilekv.kvcore.cells cimport Cells
from tilekv.kvcore.search cimport View

# threaded, of both: whether a second thread may help.

# The values of keys appended to result; `default` for those that are not there.
cdef int append_rows(View view, Buffer buffer, tuple columns, Cells keys, object default, list result, bint threaded) except -1
# Columns of keys. KeyError for the first that is missing, or with mask: zero or empty.
cdef Batch look_up_batch(View view, Buffer buffer, tuple columns, list pieces, bint mask, bint threaded)

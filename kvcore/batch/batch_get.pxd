"""What was found of many keys, in the order asked: as objects, or as columns."""

from libc.stdint cimport int64_t

from tilekv.kvcore.batch.results cimport Batch
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.write.memtable cimport Buffer

# Of both: buffer and frozen are the handle's (frozen may be None); threaded: whether a second thread may help;
# now: what expires by this moment is not there (0: nothing expires).

# The values of keys appended to result; `default` for those that are not there. bare: a value is that of the only column, else
# a dict.
cdef int append_rows(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, bint bare, Cells keys, object default,
                     list result, bint threaded, int64_t now) except -1
# Columns of keys. KeyError for the first that is missing, or with mask: zero or empty.
cdef Batch look_up_batch(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, list pieces, bint mask,
                         bint threaded, int64_t now)

"""The values of many keys as objects, in the order asked: what is in memory first, then what must be read."""

from libc.stdint cimport int64_t

from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.values.input_cells cimport Cells
from tilekv.kvcore.write.memtable cimport Buffer

# The values of keys appended to result; `default` for those that are not there. bare: a value is that of the only column, else
# a dict. buffer and frozen are the handle's (frozen may be None); threaded: whether a second thread may help; now: what expires
# by this moment is not there (0: nothing expires).
cdef int append_rows(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, bint bare, Cells keys, object default,
                     list result, bint threaded, int64_t now) except -1

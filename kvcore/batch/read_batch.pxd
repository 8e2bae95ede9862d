"""The values of many keys as columns, in the order asked: those of which all is in memory as they are found, then the others.

100,000 of 886,000 rows, of five columns with nulls, take a quarter of a microsecond of the processor's time each, and DuckDB's
join with them about four times that (`python -m bench.frames`). Each row is a dozen lines of memory in as many places: that the
lines of 128 rows and of all columns are asked for together is what makes it so, and that no result has to be made of pages that
are new.
"""

from libc.stdint cimport int64_t

from tilekv.kvcore.batch.results cimport Batch
from tilekv.kvcore.read.snapshot cimport Snapshot
from tilekv.kvcore.write.memtable cimport Buffer

# Columns of keys. KeyError for the first that is missing, or with mask: zero or empty. buffer, frozen, threaded, now: as
# append_rows() has them.
cdef Batch read_batch(Snapshot snapshot, Buffer buffer, Buffer frozen, tuple columns, list pieces, bint mask,
                      bint threaded, int64_t now)

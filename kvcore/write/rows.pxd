"""Rows of a write buffer from Python objects and arrays: one, or many at once."""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.values.values cimport Cell, Column
from tilekv.kvcore.write.memtable cimport Buffer

cdef enum:
    FEW_CELLS = 16              # attributes whose cells fit the struct itself

cdef struct Row:                # zeroed before first use
    Cell few[FEW_CELLS]
    Cell* many                  # when there are more
    Cell* cells                 # one of the two, in schema order

# Converts a value: bare, a dict, or a tuple in schema order. Returns what owns the bytes: keep it while the row is used.
cdef object convert_row(tuple columns, object value, Row* row)
cdef void row_free(Row* row) noexcept nogil
# Appends a converted row. Runs no Python code: nothing happens between the caller's last check and this.
cdef int append_row(Buffer buffer, tuple columns, const KeyRef* key, const Row* row) except -1

# What put_many and delete_many are given, checked and appended to a buffer of its own, which the caller absorbs when all is well.
cdef int stage_pairs(Buffer staged, tuple columns, object pairs) except -1
cdef int stage_rows(Buffer staged, tuple columns, object keys, object values) except -1
# given: a column by name, of arrays, Arrow arrays or iterables. Cells of arrays are copied from where they stand.
cdef int stage_columns(Buffer staged, tuple columns, object keys, dict given) except -1
# Runs of cells, as many of each: the keys, then every attribute in the order of the schema.
cdef int stage_runs(Buffer staged, tuple columns, list runs) except -1
# An Arrow table: the keys in the column named `key`, the attributes in the others.
cdef int stage_table(Buffer staged, tuple columns, object table, str key) except -1
# The cells of a column that is given for n keys. InvalidValueError when they are not as many.
cdef list column_cells(object given, Column column, Py_ssize_t n)
cdef int stage_deletes(Buffer staged, list keys) except -1

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from collections.abc import Iterable, Mapping

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.values cimport KIND_BYTES, Column, KeyCell, key_cell
from tilekv.kvcore.values import CODES as _CODES
from tilekv.kvcore.wire cimport store64


cdef void row_free(Row* row) noexcept nogil:
    free(row.many)
    row.many = NULL


cdef int row_open(Row* row, size_t n) except -1:
    row.cells = row.few
    if n > FEW_CELLS:
        row.many = <Cell*>malloc(n * sizeof(Cell))
        if row.many == NULL:
            raise MemoryError
        row.cells = row.many
    return 0


cdef object convert_row(tuple columns, object value, Row* row):
    cdef Column column
    cdef size_t i = 0
    if row.cells == NULL:
        row_open(row, len(columns))
    if len(columns) == 1:
        column = columns[0]
        return column.cell(value, row.cells[0].word, &row.cells[0].data, &row.cells[0].size)
    held = []
    for column, item in zip(columns, row_values(columns, value)):
        held.append(column.cell(item, row.cells[i].word, &row.cells[i].data, &row.cells[i].size))
        i += 1
    return held


cdef object row_values(tuple columns, object value):
    """The attributes' values in schema order."""
    if isinstance(value, tuple):
        if len(value) != len(columns):
            raise InvalidValueError(f"{len(columns)} values expected, in the order of the schema "
                                    f"({', '.join([column.name for column in columns])}); {len(value)} given")
        return value
    if not isinstance(value, Mapping):
        raise WrongTypeError(f"a value of this store is a dict or a tuple of {len(columns)} attributes, "
                             f"not {type(value).__name__}")
    check_names(columns, value, "attributes")
    return [value[column.name] for column in columns]


cdef int check_names(tuple columns, object given, str what) except -1:
    """`given`, a mapping by name, has every attribute and nothing else."""
    names = [column.name for column in columns]
    missing = [repr(name) for name in names if name not in given]
    if not missing and len(given) == len(names):
        return 0
    unknown = [repr(name) for name in given if name not in names]
    raise InvalidValueError("; ".join(filter(None, (
        f"{what} missing: {', '.join(missing)}" if missing else "",
        f"{what} unknown: {', '.join(unknown)}" if unknown else ""))))


cdef int append_row(Buffer buffer, tuple columns, const KeyRef* key, const Row* row) except -1:
    cdef size_t i, n = len(columns)
    cdef uint64_t size = buffer.fixed_bytes + 8 * buffer.nvar, end = 0
    cdef uint8_t* at
    cdef uint8_t* ends
    for i in range(n):
        if buffer.layout.is_var(<int>i + 1):                    # attribute i is field i + 1
            size += row.cells[i].size
    at = buffer.add(key, False, size)
    ends = at + buffer.fixed_bytes
    for i in range(n):
        if not buffer.layout.is_var(<int>i + 1):
            memcpy(at + buffer.places[i + 1], row.cells[i].data, row.cells[i].size)
            continue
        memcpy(ends + 8 * buffer.nvar + end, row.cells[i].data, row.cells[i].size)
        end += row.cells[i].size
        store64(ends + 8 * buffer.places[i + 1], end)
    return 0


cdef int stage_pairs(Buffer staged, tuple columns, object pairs) except -1:
    cdef KeyCell cell
    cdef Row row
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise WrongTypeError(f"put_many without values takes a mapping or (key, value) pairs, not {type(pairs).__name__}")
    memset(&row, 0, sizeof(row))
    try:
        for pair in pairs.items() if isinstance(pairs, Mapping) else pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise WrongTypeError("put_many without values takes a mapping or (key, value) pairs")
            key, value = pair
            _held = key_cell(key, &cell)
            _kept = convert_row(columns, value, &row)
            append_row(staged, columns, &cell.ref, &row)
    finally:
        row_free(&row)
    return 0


cdef int stage_rows(Buffer staged, tuple columns, object keys, object values) except -1:
    cdef KeyCell cell
    cdef Row row
    cdef Column column = columns[0]
    cdef bint plain = len(columns) == 1 and column.kind == KIND_BYTES
    cdef uint64_t n
    cdef uint8_t* at
    check_many(keys, "keys")
    check_many(values, "values")
    memset(&row, 0, sizeof(row))
    try:
        for key, value in zip(keys, values, strict=True):
            _held = key_cell(key, &cell)
            if plain and PyBytes_Check(value):
                # A row of one bytes attribute is its length and its bytes: no need to collect cells.
                n = PyBytes_GET_SIZE(value)
                at = staged.add(&cell.ref, False, 8 + n)
                store64(at, n)
                memcpy(at + 8, PyBytes_AS_STRING(value), n)
                continue
            _kept = convert_row(columns, value, &row)
            append_row(staged, columns, &cell.ref, &row)
    finally:
        row_free(&row)
    return 0


cdef int check_many(object given, str what) except -1:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise WrongTypeError(f"{what} must be a list or an array, not one {type(given).__name__}")
    return 0


cdef struct Feed:               # a column of cells that stand in an array; base NULL: a list of objects instead
    const uint8_t* base
    uint64_t size


cdef int stage_columns(Buffer staged, tuple columns, object keys, dict given) except -1:
    """Cells of arrays are copied from where they stand: no object is made of them."""
    cdef KeyCell cell
    cdef Row row
    cdef Feed key_feed
    cdef Feed* feeds
    cdef Column column
    cdef Feed* feed
    cdef list lists = []
    cdef Py_ssize_t i, k, n, width = len(columns)
    check_names(columns, given, "columns")
    check_many(keys, "keys")
    key_array = key_column(keys)
    keys = keys if key_array is not None or isinstance(keys, (list, tuple)) else list(keys)
    n = len(keys)
    key_feed.base = NULL
    key_feed.size = 0
    if key_array is not None:
        feed_of(key_array, &key_feed)
        cell.ref.type = _CODES[key_array.dtype.str]
        cell.ref.size = key_feed.size
    feeds = <Feed*>malloc(width * sizeof(Feed))
    if feeds == NULL:
        raise MemoryError
    memset(&row, 0, sizeof(row))
    try:
        row_open(&row, width)
        for k in range(width):
            column = columns[k]
            values = given[column.name]
            check_many(values, f"column {column.name!r}")
            array = column.array(values) if isinstance(values, np.ndarray) else None
            if array is None and not isinstance(values, (list, tuple)):
                values = values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind in "SU" else list(values)
            if array is not None:
                values = array
            if len(values) != n:
                raise InvalidValueError(f"{n} keys, but {len(values)} values in column {column.name!r}")
            lists.append(values)
            feeds[k].base = NULL
            if array is not None:
                feed_of(array, &feeds[k])
        for i in range(n):
            if key_feed.base != NULL:
                cell.ref.data = key_feed.base + i * key_feed.size
            else:
                _held = key_cell(keys[i], &cell)
            kept = []
            for k in range(width):
                feed = &feeds[k]
                if feed.base != NULL:
                    row.cells[k].data = feed.base + i * feed.size
                    row.cells[k].size = feed.size
                else:
                    column = columns[k]
                    kept.append(column.cell(lists[k][i], row.cells[k].word, &row.cells[k].data, &row.cells[k].size))
            append_row(staged, columns, &cell.ref, &row)
    finally:
        row_free(&row)
        free(feeds)
    return 0


cdef object key_column(object keys):
    """A NumPy array of numbers as contiguous little-endian keys, each of its datatype; None for anything else."""
    if not isinstance(keys, np.ndarray) or keys.ndim != 1:
        return None
    little = keys.dtype.newbyteorder("<")
    return np.ascontiguousarray(keys, little) if little.str in _CODES else None


cdef int feed_of(object array, Feed* feed) except -1:
    cdef const uint8_t[::1] view
    feed.size = array.nbytes // len(array) if len(array) else 0
    feed.base = <const uint8_t*>b""
    if array.nbytes:
        view = array.reshape(-1).view(np.uint8)
        feed.base = &view[0]                                    # the caller holds the array
    return 0


cdef int stage_deletes(Buffer staged, object keys) except -1:
    cdef KeyCell cell
    check_many(keys, "keys")
    for key in keys:
        _held = key_cell(key, &cell)
        staged.add(&cell.ref, True, 0)
    return 0

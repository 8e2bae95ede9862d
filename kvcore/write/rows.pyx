from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.sequence cimport PySequence_Fast_ITEMS
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import re
from collections.abc import Iterable, Mapping, Sized
from itertools import islice, zip_longest

from tilekv.errors import InvalidValueError, WrongTypeError, shown

from tilekv.kvcore.base.signals cimport CELLS, ROWS
from tilekv.kvcore.base.wire cimport store64
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR, INT64
from tilekv.kvcore.values.arrow_import cimport table_cells
from tilekv.kvcore.values.arrow_stream cimport (
    ArrowChunk, ArrowReader, frame_columns, is_arrow, open_arrow, table_names, table_of
)
from tilekv.kvcore.values.exact cimport numpy_form
from tilekv.kvcore.values.input_cells cimport FEED_OBJECTS, Cells, Feed, cells_key, count_cells, feed_cell, feed_key
from tilekv.kvcore.values.input_columns cimport cells_of, check_many
from tilekv.kvcore.values.keys cimport KeyCell, key_cell
from tilekv.kvcore.values.values cimport KIND_BYTES, KIND_TEXT, Column, Kind

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) noexcept
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) noexcept

cdef extern from "base/prefetch.h" nogil:
    void tkv_prefetch(const void* at)

cdef enum:
    NEAR = 8                    # rows between asking for an object's bytes and using them; its first line comes FAR ahead
    FAR = 16
    LINE = 64                   # bytes of memory that come together
    MOST_AHEAD = 512            # bytes of an object that are asked for: the processor guesses the rest

_LISTS = (list, tuple)
# What pandas calls an index without a name, which a frame gets by leaving out rows; no attribute has such a name.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_NONE = object()                # where the shorter of two iterables has nothing left


cdef void row_free(Row* row) noexcept nogil:
    free(row.many)
    row.many = NULL


cdef int row_open(Row* row, size_t n) except -1:
    row.cells = row.few
    if n > FEW_CELLS:
        row.many = <Cell*>calloc(n, sizeof(Cell))
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
        return column.cell(value, &row.cells[0])
    held = []
    for column, item in zip(columns, row_values(columns, value)):
        held.append(column.cell(item, &row.cells[i]))
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
    """`given`, a mapping by name or a list of names, has every attribute and nothing else."""
    names = [column.name for column in columns]
    missing = [repr(name) for name in names if name not in given]
    if not missing and len(given) == len(names):
        return 0
    unknown = [shown(name) for name in given if not isinstance(name, str) or name not in names]
    raise InvalidValueError("; ".join(filter(None, (
        f"{what} missing: {', '.join(missing)}" if missing else "",
        f"{what} unknown: {', '.join(unknown)}" if unknown else ""))))


cdef int append_row(Buffer buffer, tuple columns, const KeyRef* key, const Row* row) except -1:
    if put_row(buffer, len(columns), key, row) < 0:
        buffer.refuse(key, row_size(buffer, len(columns), row))
    return 0


cdef uint64_t row_size(Buffer buffer, size_t n, const Row* row) noexcept nogil:
    cdef uint64_t size = buffer.fixed_bytes + 8 * buffer.nvar
    cdef size_t i
    for i in range(n):
        if buffer.layout.is_var(<int>i + 1):                    # attribute i is field i + 1
            size += row.cells[i].size
    return size


cdef int put_row(Buffer buffer, size_t n, const KeyRef* key, const Row* row) noexcept nogil:
    """Append a row of n attributes; -1 when there is no room for it."""
    cdef uint8_t* at = buffer.room(key, False, row_size(buffer, n, row))
    cdef uint8_t* ends = at + buffer.fixed_bytes
    cdef uint64_t end = 0
    cdef size_t i
    if at == NULL:
        return -1
    for i in range(n):
        if not buffer.layout.is_var(<int>i + 1):
            memcpy(at + buffer.places[i + 1], row.cells[i].data, row.cells[i].size)
            continue
        memcpy(ends + 8 * buffer.nvar + end, row.cells[i].data, row.cells[i].size)
        end += row.cells[i].size
        store64(ends + 8 * buffer.places[i + 1], end)
    if buffer.layout.nullable:
        put_nulls(buffer, n, row, at)
    return 0


cdef void put_nulls(Buffer buffer, size_t n, const Row* row, uint8_t* at) noexcept nogil:
    """Say which values are null; those of a fixed size are zero. No bytes are written of any other yet."""
    cdef size_t i
    for i in range(n):
        if row.cells[i].null:
            at[buffer.places[row.cells[i].null]] = 0
            if not buffer.layout.is_var(<int>i + 1):
                memset(at + buffer.places[i + 1], 0, buffer.layout.slots[i + 1].width)


cdef int stage_pairs(Buffer staged, tuple columns, object pairs) except -1:
    cdef KeyCell cell
    cdef Row row
    if not isinstance(pairs, Mapping) and is_arrow(pairs):
        raise WrongTypeError("put_many of an Arrow table needs the name of the column that holds the keys: key=")
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise WrongTypeError(f"put_many without values takes a mapping or (key, value) pairs, not {type(pairs).__name__}")
    if type(pairs) is dict:
        return stage_rows(staged, columns, list(pairs), list(pairs.values()))
    memset(&row, 0, sizeof(row))
    try:
        for pair in pairs.items() if isinstance(pairs, Mapping) else pairs:
            if not isinstance(pair, (tuple, list)):
                raise WrongTypeError(f"put_many without values takes a mapping or (key, value) pairs, not {type(pair).__name__}")
            if len(pair) != 2:
                raise InvalidValueError(f"put_many takes pairs of a key and a value, not of {len(pair)} objects")
            key, value = pair
            if staged.n % ROWS == 0:
                PyErr_CheckSignals()
            _held = key_cell(key, &cell, staged.layout.numbers)
            _kept = convert_row(columns, value, &row)
            append_row(staged, columns, &cell.ref, &row)
    finally:
        row_free(&row)
    return 0


cdef int stage_rows(Buffer staged, tuple columns, object keys, object values) except -1:
    cdef KeyCell cell
    cdef Row row
    cdef Column column = columns[0]
    cdef Py_ssize_t done = 0
    check_many(keys, "keys")
    check_many(values, "values")
    if len(columns) == 1 and (in_memory(keys) or in_memory(values)):
        return stage_columns(staged, columns, keys, {column.name: values})
    if isinstance(keys, Sized) and isinstance(values, Sized) and len(keys) != len(values):
        raise InvalidValueError(f"{len(keys)} keys, but {len(values)} values")
    if are_plain(columns, keys, values):
        done = stage_quick(staged, column.kind, keys, values)
        if done == len(keys):
            return 0
        keys = islice(keys, done, None)                         # steps over them one by one: 18 ns a row
        values = islice(values, done, None)
    memset(&row, 0, sizeof(row))
    try:
        for key, value in zip_longest(keys, values, fillvalue=_NONE):
            if staged.n % ROWS == 0:
                PyErr_CheckSignals()
            if key is _NONE or value is _NONE:
                raise InvalidValueError(f"{staged.n} keys, but more values" if key is _NONE else
                                        f"{staged.n} values, but more keys")
            _held = key_cell(key, &cell, staged.layout.numbers)
            _kept = convert_row(columns, value, &row)
            append_row(staged, columns, &cell.ref, &row)
    finally:
        row_free(&row)
    return 0


cdef bint are_plain(tuple columns, object keys, object values) except -1:
    """Whether stage_quick() can take them, if they are of one length."""
    cdef Column column = columns[0]
    return (len(columns) == 1 and (column.kind == KIND_BYTES or column.kind == KIND_TEXT)
            and type(keys) in _LISTS and type(values) in _LISTS)


cdef Py_ssize_t stage_quick(Buffer staged, Kind kind, object keys, object values) except -1:
    """The first rows of two lists (or tuples) of one length, as far as their objects are read without running Python code, so
    that neither list can change: how many. For one attribute of bytes or text: a row of it is what is fixed, a
    length and the bytes.

    The objects may be anywhere in memory: 1,000,000 keys of 20 bytes in random order and values of 100 take 0.075 s when each is
    asked for ahead of its turn, 0.135 s when not.
    """
    cdef PyObject** key = PySequence_Fast_ITEMS(keys)
    cdef PyObject** value = PySequence_Fast_ITEMS(values)
    cdef Py_ssize_t n = len(keys), i
    cdef KeyCell cell
    cdef const uint8_t* data = NULL
    cdef uint64_t size = 0
    cdef uint8_t* at
    for i in range(n):
        if i % ROWS == 0:
            PyErr_CheckSignals()
            if len(keys) != n or len(values) != n:
                return i
            key = PySequence_Fast_ITEMS(keys)
            value = PySequence_Fast_ITEMS(values)
        if i + FAR < n:
            tkv_prefetch(key[i + FAR])
            tkv_prefetch(value[i + FAR])
            ask_for_bytes(key[i + NEAR])
            ask_for_bytes(value[i + NEAR])
        if not quick_key(<object>key[i], &cell):
            return i
        if not (quick_bytes if kind == KIND_BYTES else quick_text)(<object>value[i], &data, &size):
            return i
        at = staged.add(&cell.ref, False, staged.fixed_bytes + 8 + size) + staged.fixed_bytes
        store64(at, size)
        memcpy(at + 8, data, size)
    return n


cdef inline bint quick_bytes(object item, const uint8_t** data, uint64_t* size) noexcept:
    if not PyBytes_CheckExact(item):
        return False
    data[0] = <const uint8_t*>PyBytes_AS_STRING(item)
    size[0] = PyBytes_GET_SIZE(item)
    return True


cdef inline bint quick_text(object item, const uint8_t** data, uint64_t* size) noexcept:
    cdef Py_ssize_t n = 0
    if not PyUnicode_CheckExact(item):
        return False
    data[0] = <const uint8_t*>PyUnicode_AsUTF8AndSize(item, &n)
    size[0] = n
    if data[0] == NULL:
        PyErr_Clear()                                           # column.cell() and key_cell() know what to do
    return data[0] != NULL


cdef inline bint quick_key(object item, KeyCell* cell) noexcept:
    cdef int overflow = 0
    cdef long long number
    if quick_bytes(item, &cell.ref.data, &cell.ref.size):
        cell.ref.type = BLOB
        return True
    if quick_text(item, &cell.ref.data, &cell.ref.size):
        cell.ref.type = CHAR
        return True
    if not PyLong_CheckExact(item):
        return False
    number = PyLong_AsLongLongAndOverflow(item, &overflow)
    memcpy(cell.word, &number, 8)
    cell.ref.type = INT64
    cell.ref.data = cell.word
    cell.ref.size = 8
    return overflow == 0


cdef inline void ask_for_bytes(PyObject* item) noexcept:
    """The lines after the first, which has come."""
    cdef const char* at = <const char*>item
    cdef const char* end
    if not PyBytes_CheckExact(<object>item):
        return
    end = PyBytes_AS_STRING(<object>item) + min(PyBytes_GET_SIZE(<object>item), <Py_ssize_t>MOST_AHEAD)
    at += LINE
    while at < end:
        tkv_prefetch(at)
        at += LINE


cdef bint in_memory(object given) except -1:
    return numpy_form(given) is not None or is_arrow(given)


cdef list column_cells(object given, Column column, Py_ssize_t n):
    cdef list pieces = cells_of(given, column, False, f"column {column.name!r}")
    cdef Py_ssize_t found = count_cells(pieces)
    if found != n:
        raise InvalidValueError(f"{n} keys, but {found} values in column {column.name!r}")
    return pieces


cdef int stage_columns(Buffer staged, tuple columns, object keys, dict given) except -1:
    cdef Column column
    cdef list runs
    cdef Py_ssize_t n, done
    check_names(columns, given, "columns")
    column = columns[0]
    values = given[column.name]
    if are_plain(columns, keys, values) and len(keys) == len(values):
        done = stage_quick(staged, column.kind, keys, values)
        keys = keys[done:]
        given = {column.name: values[done:]}
    runs = [cells_of(keys, None, staged.layout.numbers, "keys")]
    n = count_cells(runs[0])
    for column in columns:
        runs.append(column_cells(given[column.name], column, n))
    return stage_runs(staged, columns, runs)


cdef int stage_runs(Buffer staged, tuple columns, list runs) except -1:
    cdef Row row
    memset(&row, 0, sizeof(row))
    try:
        row_open(&row, len(columns))
        for cells in aligned(runs):
            stage_cells(staged, columns, cells, &row)
    finally:
        row_free(&row)
    return 0


def aligned(runs):
    """Columns of runs of cells, cut where any of them begins another: lists of Cells of one length, one of each column."""
    cdef Cells cells
    cdef Py_ssize_t n
    cdef list at = [0] * len(runs)                              # cells used of the first run of each
    runs = [[cells for cells in pieces if cells.n] for pieces in runs]
    while all(runs):
        n = min([(<Cells>pieces[0]).n - used for pieces, used in zip(runs, at)])
        yield [pieces[0] if (<Cells>pieces[0]).n == n else (<Cells>pieces[0]).slice(used, used + n)
               for pieces, used in zip(runs, at)]
        for i, pieces in enumerate(runs):
            at[i] += n
            if at[i] == (<Cells>pieces[0]).n:
                del pieces[0]
                at[i] = 0


cdef int stage_table(Buffer staged, tuple columns, object table, str key) except -1:
    cdef ArrowReader reader
    cdef ArrowChunk chunk
    cdef Column column
    cdef Row row
    if not isinstance(table, Mapping):
        table = table_of(table)
    named = table if isinstance(table, Mapping) else frame_columns(table)
    if named is not None:
        key = key_column(columns, named, key)
        return stage_columns(staged, columns, named[key],
                             {name: named[name] for name in named if name != key and not is_index(name)})
    reader = open_arrow(table)
    places = {name: i for i, name in enumerate(table_names(reader))}
    key = key_column(columns, places, key)
    check_names(columns, [name for name in places if name != key and not is_index(name)], "columns")
    memset(&row, 0, sizeof(row))
    try:
        row_open(&row, len(columns))
        while True:
            chunk = reader.next()
            if chunk is None:
                return 0
            cells = [table_cells(chunk, places[key], None, staged.layout.numbers, f"the key column {key!r}")]
            for column in columns:
                cells.append(table_cells(chunk, places[column.name], column, False, f"column {column.name!r}"))
            stage_cells(staged, columns, cells, &row)
    finally:
        row_free(&row)


cdef bint is_index(object name) except -1:
    return isinstance(name, str) and _PANDAS_INDEX.fullmatch(name) is not None


cdef str key_column(tuple columns, object names, str key):
    """The name of the column of keys that is called `key`: beside an attribute `key` a batch names it `__key`."""
    cdef Column column
    if key == "key" and "__key" in names and key in [column.name for column in columns]:
        return "__key"
    if key not in names:
        raise InvalidValueError(f"the table has no column {key!r} for the keys; it has {', '.join(map(repr, names))}")
    return key


cdef int stage_cells(Buffer staged, tuple columns, list cells, Row* row) except -1:
    """Rows from Cells of one length: the keys and, in schema order, every attribute. Without the GIL when none are objects. `row`
    is open, and knows of the pieces of these columns before."""
    cdef Cells keys = cells[0]
    cdef Cells some
    cdef KeyCell key
    cdef Column column
    cdef list lists = []        # of the columns that are Python objects
    cdef Py_ssize_t i = 0, k, end, width = len(columns)
    cdef bint plain = keys.feed.kind != FEED_OBJECTS
    cdef bint nullable = staged.layout.nullable > 0
    cdef int status
    cdef const Feed** feeds = <const Feed**>malloc(width * sizeof(Feed*))
    if feeds == NULL:
        raise MemoryError
    try:
        for k in range(width):
            some = cells[k + 1]
            feeds[k] = &some.feed
            lists.append(some.objects)
            plain = plain and some.feed.kind != FEED_OBJECTS
        while plain and i < keys.n:
            end = min(i + <Py_ssize_t>CELLS, keys.n)
            with nogil:
                status = put_feeds(staged, &keys.feed, feeds, width, &key.ref, row, i, end)
            if status < 0:
                staged.refuse(&key.ref, row_size(staged, width, row))
            PyErr_CheckSignals()
            i = end
        for i in range(i, keys.n):
            if i % ROWS == 0:
                PyErr_CheckSignals()
            _held = cells_key(keys, i, &key)
            kept = []
            for k in range(width):
                if feeds[k].kind == FEED_OBJECTS:
                    column = columns[k]
                    kept.append(column.cell(lists[k][i], &row.cells[k]))
                else:
                    feed_cell(feeds[k], i, &row.cells[k].data, &row.cells[k].size)
                    if nullable:
                        mark_null(feeds[k], i, &row.cells[k])
            append_row(staged, columns, &key.ref, row)
    finally:
        free(feeds)
    return 0


cdef inline void mark_null(const Feed* feed, Py_ssize_t i, Cell* cell) noexcept nogil:
    cell.null = 0
    if feed.valid != NULL and not feed.valid[i]:
        cell.null = feed.null
        cell.size = 0


cdef int put_feeds(Buffer staged, const Feed* keys, const Feed** feeds, Py_ssize_t width, KeyRef* key, Row* row,
                   Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    """Rows start to end. -1 when there is no room for the row that key and row hold then."""
    cdef Py_ssize_t i, k
    cdef bint nullable = staged.layout.nullable > 0
    for i in range(start, end):
        feed_key(keys, i, key)
        for k in range(width):
            feed_cell(feeds[k], i, &row.cells[k].data, &row.cells[k].size)
        if nullable:
            for k in range(width):
                mark_null(feeds[k], i, &row.cells[k])
        if put_row(staged, width, key, row) < 0:
            return -1
    return 0


cdef int stage_deletes(Buffer staged, list keys) except -1:
    cdef Cells cells
    cdef KeyCell key
    cdef Py_ssize_t i
    for cells in keys:
        for i in range(cells.n):
            if i % ROWS == 0:
                PyErr_CheckSignals()
            _held = cells_key(cells, i, &key)
            staged.add(&key.ref, True, 0)
    return 0

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_REFCNT
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tilekv.errors import WrongTypeError

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.batch.readers cimport fitting, key_form, make_scanned, new_rows
from tilekv.kvcore.batch.results cimport ANY_TYPE, NO_TYPE, Batch, scan_schema, scan_stream
from tilekv.kvcore.read.column_reader cimport selection_advance

cdef enum:
    COPIED_CELLS = 1024         # that an iterator takes of a merge at first; later as many for each fragment,
    MOST_SHARES = 16            # but for no more fragments than this
    COPIED_BYTES = 8 << 20      # bytes of one column that it copies at a time, or one cell
    BATCH_BYTES = 64 << 20      # bytes of one column that scan() gives at a time, or one cell


@cython.final
cdef class MergeCursor:
    def __cinit__(self, Merge merge not None, Py_ssize_t room, Py_ssize_t most):
        """room, most: cells that the merge is asked for at first, and once it has doubled often enough."""
        self.merge = merge
        self.room = room
        self.most = most
        self.runs = <CellAddress*>malloc(most * sizeof(CellAddress))
        if self.runs == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.runs)

    cdef bint next(self, tuple columns, bint keys, uint64_t limit, Selection* cells) except -1:
        cdef Py_ssize_t n
        cdef size_t nruns = 0
        if self.rest.n == 0:
            with nogil:
                n = self.merge.next(self.runs, &nruns, NULL, NULL, self.room)
            if n < 0:
                self.merge.raise_fault()
            if n == 0:
                return False
            self.rest.runs = self.runs
            self.rest.skip = 0
            self.rest.n = n
            self.rest.index = NULL
            self.rest.keep = False
            self.room = min(2 * self.room, self.most)
        cells[0] = self.rest
        cells.n = fitting(self.merge.snapshot, self.merge.rows, columns, keys, &self.rest, limit)
        selection_advance(&self.rest, cells.n)
        return True


@cython.final
cdef class CellIterator:
    def __iter__(self):
        """Itself."""
        return self

    def __next__(self):
        """The next key, value or (key, value)."""
        # What is made of a cell may run Python code, and so this iterator: rows are kept, and moved on from, first.
        cdef Rows rows = self.rows
        cdef size_t i = self.at
        if rows is None or i == rows.n:
            rows = self._fill()
            if rows is None:
                raise StopIteration
            i = 0
        self.at = i + 1
        if self.what == ITEMS:
            return rows.key(i), rows.value(i)
        return rows.key(i) if self.what == KEYS else rows.value(i)

    cdef Rows _fill(self):
        """The next rows, None at the end. After a fault the iterator is at its end, as a generator is."""
        cdef MergeCursor cursor = self.cursor
        cdef Rows rows = self.rows
        cdef Merge merge
        cdef Selection cells
        if self.filling:
            raise ValueError("iterator already executing: another thread is in it")
        self.rows = None
        if cursor is None:
            return None
        self.filling = True
        self.cursor = None
        try:
            PyErr_CheckSignals()                                # list(db) never comes back to the interpreter
            merge = cursor.merge
            if not cursor.next(self.columns, self.what != VALUES, COPIED_BYTES, &cells):
                return None
            if rows is None or Py_REFCNT(rows) > 1:             # another thread may be making an object of it
                rows = new_rows(self.columns, len(self.columns) == 1)
            rows.fill(merge.snapshot, merge.rows, &cells, self.what != VALUES)
            self.rows = rows
            self.cursor = cursor
        finally:
            self.filling = False
        return rows


@cython.final
cdef class Scan:
    """The store as it was when `Store.scan` was called, or the range of digests that was asked for.

    Iterating gives Batches, from the start every time; `__arrow_c_stream__` gives all rows to whoever takes Arrow, a batch at a
    time. Both raise CorruptionError, SnapshotGone and OSError, as `Store.get` does.
    """

    @cython.binding(False)
    @cython.embedsignature(True)
    def __iter__(self):
        """An iterator over the rows as Batches, from the first."""
        merge = Merge(self.snapshot, self.buffers, False, self.now, self.low, self.high)
        return _batches(MergeCursor(merge, self.rows, self.rows), self.columns, self.frames)

    def _of(self, tuple columns):
        """The same rows, of other columns."""
        return new_scan(self.snapshot, self.buffers, columns, self.rows, self.now, self.frames, self.low, self.high)

    def __reduce__(self):
        raise WrongTypeError("a Scan is not copied or pickled: call scan() of a handle there")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow PyCapsule, a stream of batches; a requested schema is ignored, as the protocol allows.

        The keys are a column of it when all are of one type, and bytes when one of them has no Arrow array of that type: the keys
        are read twice to find out.
        """
        empty, type, plain = self._form()
        return scan_stream(empty, iter(self), type, plain)

    def __arrow_c_schema__(self) -> object:
        """The type of the rows, a struct, as an Arrow PyCapsule. The keys are read to find out of what type they are."""
        empty, type, plain = self._form()
        return scan_schema(empty, type, plain)

    cdef tuple _form(self):
        cdef MergeCursor cursor = MergeCursor(Merge(self.snapshot, self.buffers, False, self.now, self.low, self.high), self.rows,
                                              self.rows)
        cdef Selection cells
        cdef Batch empty
        cdef int type = ANY_TYPE
        cdef bint plain = True
        while type != NO_TYPE and cursor.next((), True, BATCH_BYTES, &cells):
            key_form(self.snapshot, cursor.merge.rows, &cells, &type, &plain)
        memset(&cells, 0, sizeof(cells))
        empty = make_scanned(self.snapshot, cursor.merge.rows, self.columns, &cells)
        empty.frames = self.frames
        return empty, type, plain


def _batches(MergeCursor cursor, tuple columns, object frames):
    cdef Selection cells
    cdef Batch batch
    cdef Merge merge = cursor.merge
    while cursor.next(columns, True, BATCH_BYTES, &cells):
        batch = make_scanned(merge.snapshot, merge.rows, columns, &cells)
        batch.frames = frames
        yield batch


cdef CellIterator iterate_cells(Merge merge, tuple columns, int what):
    cdef CellIterator iterator = CellIterator.__new__(CellIterator)
    iterator.columns = columns
    # A portion that every fragment has a part in ends in the middle of a chunk of each, which the next one decodes again.
    iterator.cursor = MergeCursor(merge, COPIED_CELLS, COPIED_CELLS * min(max(<Py_ssize_t>merge.snapshot.n, 1), MOST_SHARES))
    iterator.what = what
    return iterator


cdef Scan new_scan(Snapshot snapshot, tuple buffers, tuple columns, Py_ssize_t rows, int64_t now, object frames, object low,
                   object high):
    cdef Scan scan = Scan.__new__(Scan)
    scan.snapshot = snapshot
    scan.buffers = buffers
    scan.columns = columns
    scan.rows = rows
    scan.now = now
    scan.frames = frames
    scan.low = low
    scan.high = high
    return scan


tkv_refuse_bare(CellIterator)
tkv_refuse_bare(Scan)

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t
from cpython.long cimport PyLong_Check
from libc.string cimport memcpy, memset

import os
from collections.abc import Iterable
from threading import RLock
from typing import Any

import numpy as np

from tilekv.errors import ClosedError, InvalidValueError, ReadOnlyError, WrongTypeError, shown

from tilekv.kvcore.base.cache cimport cache_enter, cache_exit
from tilekv.kvcore.batch.get_many cimport append_rows
from tilekv.kvcore.batch.key_scan cimport new_key_scan
from tilekv.kvcore.batch.read_batch cimport read_batch
from tilekv.kvcore.batch.results cimport Batch, wanted_fields
from tilekv.kvcore.batch.scan cimport KEYS, Scan, iterate_cells, new_scan
from tilekv.kvcore.codec.pipeline cimport OK, Status
from tilekv.kvcore.format.datatypes cimport INT64
from tilekv.kvcore.format.layout cimport NEVER
from tilekv.kvcore.hashing.digest cimport digest_keys
from tilekv.kvcore.read.address cimport IN_BUFFER, address_of_entry, entry_at
from tilekv.kvcore.read.chunk_reader cimport (DIRECT, FragmentData, Span, context_close, fragment_cell, fragment_copy,
                                              fragment_extent, unpin)
from tilekv.kvcore.read.plan cimport plan_bytes
from tilekv.kvcore.read.resident cimport resident_cell
from tilekv.kvcore.read.snapshot cimport DELETED, MISSING, PRESENT
from tilekv.kvcore.read.stored_value cimport StoredValue, stored_value
from tilekv.kvcore.values.input_cells cimport Cells, count_cells, object_cells
from tilekv.kvcore.values.input_columns cimport cells_of
from tilekv.kvcore.values.key_filter cimport KeyFilter
from tilekv.kvcore.values.keys cimport KeyCell, asked_cell, key_cell
from tilekv.kvcore.values.values cimport KIND_BYTES, KIND_TEXT, Column
from tilekv.kvcore.write.memtable cimport Entry, find_entry, is_gone
from tilekv.kvcore.write.rows cimport (Row, append_row, column_cells, convert_row, row_free, stage_columns, stage_deletes,
                                       stage_pairs, stage_rows, stage_runs, stage_table)
from tilekv.kvcore.write.sorted_buffer cimport sort_buffer
from tilekv.kvcore.format.datatypes import CODES as _CODES
from tilekv.kvcore.values.keys import Key, key_not_found

cdef extern from "base/clock.h" nogil:
    int64_t tkv_now_ms()

cdef enum:
    FIRST = 1                   # field of the first attribute
    MOST_ROWS = 1 << 24         # of a batch of scan(), whatever is asked for: the addresses of its cells take 24 bytes each

# Integers as keys may be, in a store that keeps exact types: (dtype, datatype code).
_INTEGERS = [(dtype, code) for dtype, code in _CODES.items() if dtype[1] in "iu"]
_LEAST = {dtype: int(np.iinfo(dtype).min) for dtype, _ in _INTEGERS}
_MOST = {dtype: int(np.iinfo(dtype).max) for dtype, _ in _INTEGERS}

# Bumped in the child after every fork. A counter costs a load a call where getpid costs a system call.
cdef uint64_t generation = 0


def _forked():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)


cdef object _whole(str name, object number):
    """None, or a whole number as an int."""
    if number is None:
        return None
    if isinstance(number, (bool, np.bool_)) or not isinstance(number, (int, np.integer)):
        raise WrongTypeError(f"{name} is an int, not {type(number).__name__}")
    return int(number)


cdef object _bound(str name, object digest):
    """A digest as the coordinates that it makes."""
    if isinstance(digest, bytes):
        if len(digest) != 16:
            raise InvalidValueError(f"{name} is a digest of 16 bytes, not of {len(digest)}")
        return int.from_bytes(digest[:8], "little") << 64 | int.from_bytes(digest[8:], "little")
    number = _whole(name, digest)
    if not 0 <= number <= 1 << 128:
        raise InvalidValueError(f"{name} is a digest, as an int of 0 to 2**128, not {shown(number)}")
    return number


cdef object no_moments():
    return InvalidValueError("this store keeps no moments of expiry: they take a schema with expires=True")


cdef inline void access_open(ReadContext* context, int64_t now) noexcept nogil:
    memset(context, 0, sizeof(ReadContext))
    context.now = now


cdef class Handle:
    def __cinit__(self, *args, **kwargs):
        self._lock = RLock()
        self._generation = generation

    def _attach(self, Layout layout not None, tuple columns not None, bint writable, uint64_t budget, size_t threads,
                moment=None, frames=None):
        """What does not change while the handle lives. Once, before anything else. budget: bytes of the write buffer. threads:
        most that one operation uses. moment: the one that is shown (ms since 1970), None for now; at 0 nothing has expired.
        frames: what makes frames of rows, by make(kind, rows); its `key` is what the keys are called, or None."""
        self._layout = layout
        self._columns = columns
        self._single = len(columns) == 1
        self._wanted = wanted_fields(layout, columns)
        self._writable = writable
        self._budget = budget
        self._threaded = threads > 1
        self._frames = frames
        self._moment = -1 if moment is None else min(max(moment, 0), NEVER - 1)
        self._buffer = Buffer(layout)

    # --- one key ------------------------------------------------------------------------------------------------------

    cdef Snapshot _require_snapshot(self):
        """The snapshot to read from. Raises when closed; after a fork, reopens first."""
        if self._generation != generation:
            self._after_fork()
        if self._snapshot is None:
            raise ClosedError("this store is closed")
        return self._snapshot

    cdef int64_t _now(self) noexcept:
        if self._layout.expires < 0:
            return 0
        return tkv_now_ms() if self._moment < 0 else self._moment

    def _clock(self):
        """The moment, in ms, by which this handle's look-ups leave out what has expired. Moments from now on are counted from it:
        another clock may be ahead of it by some ms, in which what expires at once would still be there."""
        return self._now()

    cdef object _expiring(self, object expire, size_t rows, const int64_t** moments, size_t* n):
        cdef const int64_t[::1] words
        if self._layout.expires < 0:
            raise no_moments()
        words = self._moments(expire, rows)
        moments[0] = &words[0] if len(words) else NULL
        n[0] = len(words)
        return words

    def _moments(self, expire, rows):
        raise NotImplementedError

    def _inherited(self):
        """Whether this is a forked child that has not used the handle yet."""
        return self._generation != generation

    def _after_fork(self):
        raise NotImplementedError

    def _before_write(self):
        raise NotImplementedError

    def _flush_behind(self):
        raise NotImplementedError

    def _start_over(self, Snapshot snapshot):
        """In a forked child: nothing of the parent's is used again, its lock and its buffers included."""
        cdef Buffer empty = Buffer(self._layout)
        _buffer, _frozen = self._buffer, self._frozen               # others may run while they are freed: afterwards
        self._generation = generation
        self._lock = RLock()
        self._failed = self._busy = self._closing = False
        self._failure = None
        self._snapshot = snapshot
        self._buffer = empty
        self._frozen = None

    cdef int _check_writable(self) except -1:
        """Before a write, and again right before the buffer takes it."""
        self._require_snapshot()
        if not self._writable:
            raise ReadOnlyError("this store is open for reading only: open it with mode 'a' to write")
        while self._failure is not None or self._closing or (self._frozen is not None and self._buffer.size > self._budget):
            self._before_write()
            self._require_snapshot()
        return 0

    cdef Found _find(self, Snapshot snapshot, Buffer buffer, Buffer frozen, const KeyRef* key, int field, ReadContext* context,
                     CellAddress* address) except *:
        """The newest cell of a key, buffers first. Raises for a FAULT. field: see Snapshot.probe()."""
        cdef const Entry* entry = NULL
        cdef uint64_t c0 = 0, c1 = 0
        if buffer.n or frozen is not None:
            find_entry(buffer, frozen, key, &entry)
            if entry != NULL:
                address_of_entry(entry, address)
                return DELETED if is_gone(buffer, entry, context.now) else PRESENT
        if snapshot.n == 0:
            return MISSING
        digest_keys(self._layout.digest, key, 1, &c0, &c1)
        return snapshot.get(key, c0, c1, field, context, address)

    cdef int _hidden(self, Snapshot snapshot, Buffer buffer, const CellAddress* address, int field, ReadContext* context,
                     void* cell) except -1:
        """Copy the cell of a hidden field, whose width is fixed. REQUIRES: as _row()."""
        cdef Entry entry
        cdef const uint8_t* data = NULL
        cdef uint64_t size = 0
        cdef Span span
        if address.fragment == IN_BUFFER:
            entry = entry_at(address)
            buffer.field(&entry, field, &data, &size)
        else:
            data = resident_cell(snapshot.at[address.fragment], field, address.tile, address.cell, &size)
        if data != NULL:
            memcpy(cell, data, size)
            return 0
        if fragment_cell(snapshot.at[address.fragment], field, address.tile, address.cell, context, &span) != OK:
            snapshot.raise_fault(context, address.fragment)
        memcpy(cell, span.data, span.size)
        unpin(snapshot.at[address.fragment], &span.pin)
        return 0

    cdef object _row(self, Snapshot snapshot, Buffer buffer, const CellAddress* address, ReadContext* context):
        """The value at an address: bare, or a dict. REQUIRES: between cache_enter() and cache_exit()."""
        cdef Column column
        cdef Entry entry
        cdef const uint8_t* data = NULL
        cdef uint64_t size = 0, start = 0, end = 0
        cdef FragmentData* f
        cdef Span span
        cdef uint8_t* into
        cdef Status status
        cdef bint nullable = self._layout.nullable > 0
        cdef uint8_t valid = 1
        row = None if self._single else {}
        for column in self._columns:
            if nullable and column.valid:
                self._hidden(snapshot, buffer, address, column.valid, context, &valid)
                if not valid:
                    if self._single:
                        return None
                    row[column.name] = None
                    continue
            if address.fragment == IN_BUFFER:
                entry = entry_at(address)
                buffer.field(&entry, column.field, &data, &size)
                value = column.load(data, size)
            else:
                f = snapshot.at[address.fragment]
                value = None
                data = resident_cell(f, column.field, address.tile, address.cell, &size)
                if data != NULL:
                    value = column.load(data, size)
                elif column.kind == KIND_BYTES:
                    # A long value comes into its object without the GIL and, if the cache has no room for it, past the cache.
                    if fragment_extent(f, column.field, address.tile, address.cell, context, &start, &end) != OK:
                        snapshot.raise_fault(context, address.fragment)
                    if end - start >= DIRECT:
                        value = PyBytes_FromStringAndSize(NULL, end - start)
                        into = <uint8_t*>PyBytes_AS_STRING(value)
                        with nogil:
                            plan_bytes(f, snapshot.layout.bytes_slot(column.field), address.tile, start, end - start)
                            status = fragment_copy(f, snapshot.layout.bytes_slot(column.field), address.tile, start, end - start,
                                                   context, into)
                        if status != OK:
                            snapshot.raise_fault(context, address.fragment)
                if value is None:
                    if fragment_cell(f, column.field, address.tile, address.cell, context, &span) != OK:
                        snapshot.raise_fault(context, address.fragment)
                    try:
                        value = column.load(span.data, span.size)
                    finally:
                        unpin(f, &span.pin)
            if self._single:
                return value
            row[column.name] = value
        return row

    cdef object _get(self, key, default):
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef KeyCell cell
        cdef ReadContext context
        cdef CellAddress address
        cdef int epoch
        if not self._layout.numbers:
            key = self._meant(key)
        _held = asked_cell(key, &cell, self._layout.numbers)
        if cell.ref.data == NULL:
            return default
        snapshot.expect(1)
        access_open(&context, self._now())
        context.wanted = <const uint8_t*>PyBytes_AS_STRING(self._wanted)
        epoch = cache_enter(&snapshot.cache.cache)
        try:
            if self._find(snapshot, buffer, frozen, &cell.ref, FIRST, &context, &address) != PRESENT:
                return default
            return self._row(snapshot, buffer, &address, &context)
        finally:
            cache_exit(&snapshot.cache.cache, epoch)
            context_close(&context, &snapshot.codecs.pool)

    @cython.binding(False)
    @cython.embedsignature(True)
    def __getitem__(self, key, /):
        """The value of a key: bare for one attribute, else a dict.

        KeyNotFoundError, a KeyError, when it is not there; else it raises as `get` does.
        """
        value = self._get(key, self)
        if value is self:
            raise key_not_found(key, self._layout.numbers)
        return value

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or `default` when it is not there.

        Parameters
        ----------
        key : str, bytes, int, float, NumPy scalar, 1-d numpy.ndarray or Key
            What cannot be a key is not there.
        default : object

        Returns
        -------
        object
            Bare for one attribute, else a dict by attribute; for its types see `Store`. None for a null.

        Raises
        ------
        ClosedError
            When the store is closed.
        CorruptionError
            When what is stored of the key is damaged.
        SnapshotGone
            When its fragment was vacuumed before it was first used.
        OSError
            When the system cannot read.
        """
        return self._get(key, default)

    def get_range(self, key: Any, start: int = 0, stop: int | None = None, attr: str | None = None) -> bytes | None:
        """A part of the bytes of a value; of a large one only what the part needs is read.

        Parameters
        ----------
        key : str, bytes, int, float, NumPy scalar, 1-d numpy.ndarray or Key
        start : int
            As of the slice ``value[start:stop]``: a negative one counts from the end, and what lies beyond that is left out.
        stop : int, optional
            Likewise; the end unless given.
        attr : str, optional
            The attribute, of bytes or of text, whose bytes are its UTF-8; needed when there are several.

        Returns
        -------
        bytes or None
            None for a null.

        Raises
        ------
        KeyNotFoundError
            When the key is not there.
        WrongTypeError, InvalidValueError
            For arguments that are refused; for an attribute that is unknown, or neither bytes nor text.
        ClosedError, CorruptionError, SnapshotGone, OSError
            As of `get`.
        """
        cdef StoredValue value
        first, last = _whole("start", start), _whole("stop", stop)
        value = self._stored(key, attr)
        if value is None:
            return None
        begin, end, _ = slice(first, last).indices(value.size)
        return value.part(begin, max(begin, end))

    def _stored(self, key, attr):
        """The value of a key where it is stored, as a StoredValue; None for a null. KeyNotFoundError when it is not there."""
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef Column column = self._text_column(attr)
        cdef KeyCell cell
        cdef ReadContext context
        cdef CellAddress address
        cdef uint8_t valid = 1
        cdef int epoch
        meant = key if self._layout.numbers else self._meant(key)
        _held = asked_cell(meant, &cell, self._layout.numbers)
        if cell.ref.data == NULL:
            raise key_not_found(key, self._layout.numbers)
        snapshot.expect(1)
        access_open(&context, self._now())
        epoch = cache_enter(&snapshot.cache.cache)
        try:
            if self._find(snapshot, buffer, frozen, &cell.ref, -1, &context, &address) != PRESENT:
                raise key_not_found(key, self._layout.numbers)
            if column.valid:
                self._hidden(snapshot, buffer, &address, column.valid, &context, &valid)
            return stored_value(snapshot, (buffer, frozen), buffer, column.field, &address, &context) if valid else None
        finally:
            cache_exit(&snapshot.cache.cache, epoch)
            context_close(&context, &snapshot.codecs.pool)

    cdef Column _text_column(self, object attr):
        """The attribute of that name, or the only one, which is of bytes or text."""
        cdef Column column
        if attr is not None and not isinstance(attr, str):
            raise WrongTypeError(f"attr is the name of an attribute, not {type(attr).__name__}")
        if attr is None and not self._single:
            names = ", ".join([repr(column.name) for column in self._columns])
            raise InvalidValueError(f"the store has several attributes, choose one with attr=: {names}")
        column = self._chosen(None if attr is None else [attr])[0]
        if column.kind != KIND_BYTES and column.kind != KIND_TEXT:
            raise WrongTypeError(f"attribute {column.name!r} is {column.takes()}: parts are those of bytes and text")
        return column

    @cython.binding(False)
    @cython.embedsignature(True)
    def __contains__(self, key, /):
        """Whether a key is there; no value is read. What cannot be a key is not. Raises as `get` does."""
        if not self._layout.numbers:
            key = self._meant(key)
        return self._has(key)

    cdef bint _has(self, object key) except -1:
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef KeyCell cell
        cdef ReadContext context
        cdef CellAddress address
        cdef int epoch
        _held = asked_cell(key, &cell, self._layout.numbers)
        if cell.ref.data == NULL:
            return False
        snapshot.expect(1)
        access_open(&context, self._now())
        epoch = cache_enter(&snapshot.cache.cache)
        try:
            return self._find(snapshot, buffer, frozen, &cell.ref, -1, &context, &address) == PRESENT
        finally:
            cache_exit(&snapshot.cache.cache, epoch)
            context_close(&context, &snapshot.codecs.pool)

    cpdef object _meant(self, object key):
        """In a store that keeps exact types: the integer that a look-up by an int finds, of the int's own type or of another."""
        if not PyLong_Check(key) or key is True or key is False or self._has(key):
            return key
        for dtype, code in _INTEGERS:
            if _LEAST[dtype] <= key <= _MOST[dtype]:
                other = Key(code, np.array(key, dtype).tobytes())
                if self._has(other):
                    return other
        return key

    cdef list _all_meant(self, list pieces):
        cdef Cells cells
        return [cells if cells.objects is None or self._layout.numbers else
                object_cells([self._meant(key) for key in cells.objects]) for cells in pieces]

    @cython.binding(False)
    @cython.embedsignature(True)
    def __setitem__(self, key, value, /):
        """Set the value of a key: bare for one attribute, else a dict, or a tuple in the order of the schema.

        Raises as `put_many` does.
        """
        cdef KeyCell cell
        cdef Row row
        self._check_writable()
        memset(&row, 0, sizeof(row))
        try:
            _held = key_cell(key, &cell, self._layout.numbers)
            _kept = convert_row(self._columns, value, &row)
            # Converting may have run Python code, and so a flush or a close: look again.
            self._check_writable()
            append_row(self._buffer, self._columns, &cell.ref, &row)
        finally:
            row_free(&row)
        self._flush_if_full()

    def set(self, key: Any, value: Any, expire: Any = None) -> None:
        """Set a key, until a moment. ``db[key] = value`` sets it for good.

        Parameters
        ----------
        key, value : object
            As of ``db[key] = value``.
        expire : float, datetime.timedelta, datetime.datetime, numpy.timedelta64 or numpy.datetime64, optional
            Seconds from now, or a span; or the moment itself, a datetime without a zone in local time: the entry is as if deleted
            from then on. None: never. Kept in ms. Only in a store whose schema says ``expires=True``.

        Raises
        ------
        WrongTypeError, InvalidValueError, OutOfRangeError
            For what is refused, and for `expire` in a store that keeps no moments.
        ReadOnlyError, ClosedError, OSError
            As of ``db[key] = value``.
        """
        cdef KeyCell cell
        cdef Row row
        cdef const int64_t* moments = NULL
        cdef size_t n = 0
        if expire is None:
            self[key] = value
            return
        self._check_writable()
        _words = self._expiring(expire, 1, &moments, &n)
        memset(&row, 0, sizeof(row))
        try:
            _held = key_cell(key, &cell, self._layout.numbers)
            _kept = convert_row(self._columns, value, &row)
            self._check_writable()                              # as in __setitem__
            append_row(self._buffer, self._columns, &cell.ref, &row)
            self._buffer.expire(self._buffer.n - 1, moments, n)
        finally:
            row_free(&row)
        self._flush_if_full()

    cdef int64_t _expiry(self, object key) except -1:
        """The moment of a key that is there; 0 for one that is not."""
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef KeyCell cell
        cdef ReadContext context
        cdef CellAddress address
        cdef int64_t moment = NEVER
        cdef int epoch
        if not self._layout.numbers:
            key = self._meant(key)
        _held = asked_cell(key, &cell, self._layout.numbers)
        if cell.ref.data == NULL:
            return 0
        snapshot.expect(1)
        access_open(&context, self._now())
        epoch = cache_enter(&snapshot.cache.cache)
        try:
            if self._find(snapshot, buffer, frozen, &cell.ref, -1, &context, &address) != PRESENT:
                return 0
            if self._layout.expires >= 0:
                self._hidden(snapshot, buffer, &address, self._layout.expires, &context, &moment)
            return max(moment, <int64_t>1)
        finally:
            cache_exit(&snapshot.cache.cache, epoch)
            context_close(&context, &snapshot.codecs.pool)

    def _expires(self, key):
        """The moment of a key in ms, NEVER if it has none. KeyNotFoundError when it is not there."""
        cdef int64_t moment = self._expiry(key)
        if moment == 0:
            raise key_not_found(key, self._layout.numbers)
        return moment

    def _sorted_row(self, key, value):
        """The cells of a fragment of one key, as a flush has them."""
        cdef Buffer staged = Buffer(self._layout)
        stage_pairs(staged, self._columns, [(key, value)])
        return sort_buffer(staged)

    def _sorted_rows(self, list keys, list values, expires):
        """The cells of a fragment of several keys, and their moments as `_apply` takes them, where the store keeps some."""
        cdef Buffer staged = Buffer(self._layout)
        cdef const int64_t[::1] words = expires
        stage_rows(staged, self._columns, keys, values)
        if self._layout.expires >= 0:
            staged.expire(0, &words[0], len(words))
        return sort_buffer(staged)

    def _sorted_delete(self, key):
        """The cell of a fragment that deletes one key."""
        cdef Buffer staged = Buffer(self._layout)
        stage_deletes(staged, cells_of([key], None, self._layout.numbers, "keys"))
        return sort_buffer(staged)

    def _streamed(self, key, attr, values):
        """The cells of a fragment of one key whose value comes from a stream: sorted, as a flush has them, with an empty cell for
        the stream's attribute; and that attribute's slot. values: by name, of the other attributes."""
        cdef Column column
        self._check_writable()
        for column in self._columns:
            if column.name == attr and column.kind != KIND_BYTES:
                raise WrongTypeError(f"attribute {column.name!r} is {column.takes()}: a stream is of bytes")
        row = dict(values)
        row[attr] = b""
        cells = self._sorted_row(key, b"" if self._single else row)
        return cells, self._layout.bytes_slot([column.name for column in self._columns].index(attr) + FIRST)

    def _apply(self, puts, list keys, list values, expires, deletes):
        """Puts; then values with the moments in `expires`, an int64 array of ms; then deletes: in one step."""
        cdef Buffer staged = Buffer(self._layout)
        cdef const int64_t[::1] words = expires
        cdef size_t first
        self._check_writable()
        stage_pairs(staged, self._columns, puts)
        first = staged.n
        if keys:
            if self._layout.expires < 0:
                raise no_moments()
            stage_rows(staged, self._columns, keys, values)
            staged.expire(first, &words[0], len(words))
        pieces = cells_of(deletes, None, self._layout.numbers, "keys")
        stage_deletes(staged, pieces)
        if not self._layout.numbers:
            stage_deletes(staged, self._all_meant(pieces))
        self._check_writable()
        self._buffer.absorb(staged)
        self._flush_if_full()

    @cython.binding(False)
    @cython.embedsignature(True)
    def __delitem__(self, key, /):
        """Delete a key.

        KeyNotFoundError, a KeyError, when it is not there; else it raises as `get` and `delete_many` do.
        """
        cdef KeyCell cell
        self._check_writable()
        if not self._layout.numbers:
            key = self._meant(key)
        if not self._has(key):
            raise key_not_found(key, self._layout.numbers)
        _held = key_cell(key, &cell, self._layout.numbers)
        self._check_writable()                                  # as in __setitem__
        self._buffer.add(&cell.ref, True, 0)
        self._flush_if_full()

    cdef int _flush_if_full(self) except -1:
        if self._buffer.size > self._budget or (self._failed and self._left_over()):
            self._flush_behind()
        return 0

    # --- many keys ----------------------------------------------------------------------------------------------------

    def put_many(self, keys: Any, values: Any = None, /, *, expire: Any = None, **columns: Any) -> None:
        """Set many keys at once; the last of equal keys wins. All is checked before anything is buffered.

        * ``put_many(keys, values)``: values bare, or dicts or tuples when there are several attributes
        * ``put_many(keys, name=column, ...)``: a column for every attribute
        * ``put_many(table, key="name")``: keys in one column of a table, attributes in the others
        * ``put_many(mapping)`` or ``put_many(pairs)``

        Parameters
        ----------
        keys : iterable of keys, numpy.ndarray, Arrow array or stream, table, mapping, or iterable of pairs
            An array's elements are keys: numbers of any width those of Python's int and float. A table is Arrow's (pyarrow,
            polars, pandas; also a Dataset, a LazyFrame) or a dict of columns; an index of pandas without a name is left out.
        values : iterable, optional
            As many as keys.
        expire : float, datetime.timedelta, datetime.datetime, numpy.timedelta64, numpy.datetime64, or a column of them, optional
            When the entries are as if deleted, as of `set`; in a column None is never. Only where the schema says
            ``expires=True``; elsewhere it is one of the ``columns``.
        **columns : list, numpy.ndarray, or what has ``__arrow_c_stream__`` or ``__arrow_c_array__``
            By attribute: n cells each, as many as keys; an array has the shape (n, ...), the attribute's shape behind, and any
            dtype whose values the attribute's holds exactly. ``key`` alone, a str: the table's column of keys.

        Raises
        ------
        WrongTypeError
            For a key or value of a type that does not fit.
        InvalidValueError
            For nulls of what is not nullable, lengths that differ, and attributes that are missing or unknown.
        OutOfRangeError
            For a number that does not fit its attribute.
        ReadOnlyError
            When the store is open for reading.
        ClosedError
            When the store is closed.
        OSError
            All that `flush` raises: when the flush of an earlier full buffer failed, or both buffers are full and flushing fails.
            Nothing of this call is taken then.
        """
        cdef Buffer staged = Buffer(self._layout)
        cdef const int64_t* moments = NULL
        cdef size_t n = 0
        self._check_writable()
        if expire is not None and self._layout.expires < 0 and not self._no_column("expire"):
            columns["expire"], expire = expire, None
        if values is None and len(columns) == 1 and isinstance(columns.get("key"), str):
            stage_table(staged, self._columns, keys, columns["key"])
        elif columns:
            if values is not None:
                raise WrongTypeError("put_many takes values or columns, not both")
            stage_columns(staged, self._columns, keys, columns)
        elif values is not None:
            stage_rows(staged, self._columns, keys, values)
        else:
            stage_pairs(staged, self._columns, keys)
        if expire is not None:
            _words = self._expiring(expire, staged.n, &moments, &n)
            if n:
                staged.expire(0, moments, n)
        self._check_writable()
        self._buffer.absorb(staged)
        self._flush_if_full()

    cdef bint _no_column(self, str name) except -1:
        cdef Column column
        return name not in [column.name for column in self._columns]

    def update_many(self, keys: Any, /, **columns: Any) -> None:
        """Set some attributes of keys that are there, and leave the others as they are: their newest values are read, after
        `reopen`, and set again, with nulls and moments of expiry.

        Another writer's value that comes between the two is lost. All is checked before anything is buffered; the last of equal
        keys wins.

        Parameters
        ----------
        keys : iterable of keys, numpy.ndarray, Arrow array or stream
        **columns : list, numpy.ndarray, or what has ``__arrow_c_stream__`` or ``__arrow_c_array__``
            By attribute: n cells each, as of `put_many`.

        Raises
        ------
        KeyNotFoundError
            For the first key that is not there.
        WrongTypeError, InvalidValueError, OutOfRangeError
            As of `put_many`; when no attribute is given, and for one that is unknown.
        ReadOnlyError, ClosedError, CorruptionError, SnapshotGone, OSError
            As of `put_many` and `get`.
        """
        cdef Buffer staged = Buffer(self._layout)
        cdef Buffer buffer, frozen
        cdef Snapshot snapshot
        cdef Column column
        cdef Batch batch
        cdef list runs, kept
        cdef const int64_t[::1] moments
        cdef Py_ssize_t n
        self._check_writable()
        if not columns:
            raise InvalidValueError("update_many takes a column for each attribute that is to be set")
        self._chosen(list(columns))
        kept = [column for column in self._columns if column.name not in columns]
        if self._layout.expires >= 0:
            kept.append(Column("__expires", self._layout.expires, INT64, np.dtype("<i8"), ()))
        pieces = cells_of(keys, None, self._layout.numbers, "keys")
        n = count_cells(pieces)
        given = {}
        for column in self._columns:
            if column.name in columns:
                given[column.name] = column_cells(columns[column.name], column, n)
        self.reopen()
        snapshot = self._require_snapshot()
        buffer, frozen = self._buffer, self._frozen
        batch = read_batch(snapshot, buffer, frozen, tuple(kept), self._all_meant(pieces), False, self._threaded, self._now())
        runs = [batch._pieces]
        for column in self._columns:
            runs.append(given[column.name] if column.name in given else [batch.cells(column.name)])
        stage_runs(staged, self._columns, runs)
        if self._layout.expires >= 0 and n:
            moments = batch._arrays["__expires"]
            staged.expire(0, &moments[0], n)
        self._check_writable()
        self._buffer.absorb(staged)
        self._flush_if_full()

    def reopen(self):
        raise NotImplementedError

    def delete_many(self, keys: Iterable[Any]) -> None:
        """Delete many keys at once, without looking them up: missing ones are fine.

        Parameters
        ----------
        keys : iterable of keys, numpy.ndarray, Arrow array or stream

        Raises
        ------
        WrongTypeError, InvalidValueError
            For what cannot be a key, and for nulls; nothing is deleted then.
        ReadOnlyError
            When the store is open for reading.
        ClosedError
            When the store is closed.
        OSError
            All that `flush` raises: when the flush of an earlier full buffer failed, or both buffers are full and flushing fails.
            Nothing of this call is taken then.
        """
        cdef Buffer staged = Buffer(self._layout)
        self._check_writable()
        pieces = cells_of(keys, None, self._layout.numbers, "keys")
        stage_deletes(staged, pieces)
        if not self._layout.numbers:
            stage_deletes(staged, self._all_meant(pieces))
        self._check_writable()
        self._buffer.absorb(staged)
        self._flush_if_full()

    def get_many(self, keys: Iterable[Any], default: Any = None, attrs: Iterable[str] | None = None) -> list[Any]:
        """The values of many keys.

        Parameters
        ----------
        keys : iterable of keys, numpy.ndarray, Arrow array or stream
        default : object
            In place of those that are not there, or cannot be.
        attrs : iterable of str, optional
            The attributes wanted; all unless given.

        Returns
        -------
        list
            n values for n keys, in the order asked, each as `get` gives it: a dict of those wanted where the store has several.

        Raises
        ------
        WrongTypeError, InvalidValueError
            When `keys` is one str or bytes or cannot be iterated, and for nulls in it; for unknown attributes.
        ClosedError, CorruptionError, SnapshotGone, OSError
            As of `get`.
        """
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef Cells cells
        cdef list result = []
        cdef tuple columns = self._chosen(attrs)
        cdef bint bare = self._single and len(columns) == 1
        now = self._now()
        for cells in self._all_meant(cells_of(keys, None, self._layout.numbers, "keys")):
            append_rows(snapshot, buffer, frozen, columns, bare, cells, default, result, self._threaded, now)
        return result

    def read(self, keys: Iterable[Any], attrs: Iterable[str] | None = None, missing: str = "raise") -> Batch:
        """Columns of many keys.

        Parameters
        ----------
        keys : iterable of keys, numpy.ndarray, Arrow array or stream
        attrs : iterable of str, optional
            The attributes wanted; all unless given.
        missing : {"raise", "mask"}
            Raise for the first key that is not there; or give zero or an empty cell, and ``found``, a bool array.

        Returns
        -------
        Batch
            n rows for n keys, in the order asked.

        Raises
        ------
        KeyNotFoundError
            For a key that is not there, with ``missing="raise"``.
        WrongTypeError, InvalidValueError
            For arguments that are refused, unknown attributes, and nulls in `keys`.
        ClosedError, CorruptionError, SnapshotGone, OSError
            As of `get`.
        """
        cdef Snapshot snapshot = self._require_snapshot()
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef Batch batch
        cdef list pieces
        if not isinstance(missing, str) or missing not in ("raise", "mask"):
            raise InvalidValueError(f"missing is 'raise' or 'mask', not {shown(missing)}")
        columns = self._chosen(attrs)
        pieces = cells_of(keys, None, self._layout.numbers, "keys")
        batch = read_batch(snapshot, buffer, frozen, columns, self._all_meant(pieces), missing == "mask", self._threaded,
                           self._now())
        if not self._layout.numbers:
            batch._pieces = pieces
        batch.frames = self._frames
        return batch

    def _chosen(self, attrs):
        if attrs is None:
            return self._columns
        if isinstance(attrs, str) or not isinstance(attrs, Iterable):
            raise WrongTypeError(f"attrs is a list of attribute names, not {type(attrs).__name__}")
        attrs = list(attrs)
        if not all([isinstance(name, str) for name in attrs]):
            raise WrongTypeError("attrs is a list of attribute names, which are str")
        by_name = {column.name: column for column in self._columns}
        unknown = [repr(name) for name in attrs if name not in by_name]
        if unknown:
            raise InvalidValueError(f"no attribute {', '.join(unknown)}; the store has {', '.join(map(repr, by_name))}")
        return tuple([by_name[name] for name in attrs])

    # --- all keys -----------------------------------------------------------------------------------------------------

    cdef tuple _buffers(self):
        """What is written and not flushed, as a merge takes it: newest first, none to two."""
        cdef Buffer buffer = self._buffer
        cdef Buffer frozen = self._frozen
        cdef tuple newest = (sort_buffer(buffer),) if buffer.n else ()
        return newest if frozen is None else newest + (sort_buffer(frozen),)

    def _layers(self):
        """Snapshot and buffers as they are now."""
        cdef Snapshot snapshot = self._require_snapshot()
        return snapshot, self._buffers()

    cdef Merge _merge(self):
        """A cursor over snapshot and buffers as they are now."""
        cdef Snapshot snapshot = self._require_snapshot()
        return Merge(snapshot, self._buffers(), False, self._now())

    def _check_process(self):
        """After a fork, reopen: the lock may be held by a thread that does not exist here."""
        if self._generation != generation:
            self._after_fork()

    def _open_snapshot(self):
        """The snapshot, for whoever manages the handle. Raises when closed; after a fork, reopens first."""
        return self._require_snapshot()

    # --- for whoever flushes: each is one step for every other thread and for an interrupt, all of it or nothing ---

    def _left_over(self):
        """Whether what a flush that failed has left, with what came since, is more than the budget."""
        return self._frozen is not None and self._frozen.size + self._buffer.size > self._budget

    def _unflushed(self):
        """Entries that are not in a fragment yet, overwritten ones included."""
        return self._buffer.n + (0 if self._frozen is None else self._frozen.n)

    def _freeze(self):
        """Put a new buffer over what was written; False when nothing was. REQUIRES: the lock, and nothing frozen."""
        cdef Buffer empty = Buffer(self._layout)
        if self._buffer.n == 0:
            return False
        self._frozen = self._buffer
        self._buffer = empty
        return True

    def _install(self, Snapshot snapshot, bint flushed):
        """Go on from another snapshot; `flushed`: one that holds what was frozen. REQUIRES: the lock."""
        _before, _frozen = self._snapshot, self._frozen             # others may run while they are freed: afterwards
        self._snapshot = snapshot
        if flushed:
            self._frozen = None

    def _let_go(self):
        """Closed: neither a snapshot nor anything written any more. REQUIRES: the lock."""
        cdef Buffer empty = Buffer(self._layout)
        _before, _buffer, _frozen = self._snapshot, self._buffer, self._frozen
        self._snapshot = None
        self._failure = self._frozen = None
        self._buffer = empty

    @cython.binding(False)
    @cython.embedsignature(True)
    def __len__(self):
        """How many keys there are, exactly. One fragment and nothing buffered: at once; else a merge of all coordinates.

        Raises as `get` does.
        """
        cdef Snapshot snapshot = self._require_snapshot()
        cdef bint written = self._buffer.n or self._frozen is not None
        if snapshot.n == 0 and not written:
            return 0
        if snapshot.n == 1 and not written and self._layout.expires < 0:
            fragment = snapshot.fragments[0]
            return fragment.cells - fragment.tombstones
        return self._merge().count()

    def __bool__(self):
        """Whether there is a key. Raises as `get` does."""
        return self._merge().any()

    @cython.binding(False)
    @cython.embedsignature(True)
    def __iter__(self):
        """An iterator over the keys, in ascending order of their digests, of the state as it is now. Raises as `get` does."""
        return self._iterate(KEYS)

    def _iterate(self, int what):
        """An iterator over keys (0), values (1) or items (2), in ascending order of digests, of the state as it is now."""
        return iterate_cells(self._merge(), () if what == KEYS else self._columns, what)

    def scan(self, attrs: Iterable[str] | None = None, rows: int = 65536, low: int | bytes | None = None,
             high: int | bytes | None = None) -> Scan:
        """All rows of the store as it is now, or those of a range of digests, with their keys, in ascending order of digests.

        Parameters
        ----------
        attrs : iterable of str, optional
            The attributes wanted; all unless given.
        rows : int
            Most rows of a batch, at least 1; fewer where a column would exceed 64 MiB, and 16,777,216 at most.
        low : int or bytes, optional
            The first digest of the range: the 16 bytes that it is, or an int of 0 to 2**128, c0 * 2**64 + c1 of the coordinates
            that it makes. ``scan(low=i * 2**128 // n, high=(i + 1) * 2**128 // n)`` is part i of n, about as large as the others.
        high : int or bytes, optional
            The first digest that is beyond it; none unless given.

        Returns
        -------
        Scan
            An iterable of `Batch`, and a stream of Arrow; nothing is read before.

        Raises
        ------
        WrongTypeError, InvalidValueError
            For arguments that are refused, and unknown attributes.
        ClosedError
            When the store is closed.
        CorruptionError, SnapshotGone, OSError
            While it is iterated: as of `get`.
        """
        if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)):
            raise WrongTypeError(f"rows is an int, not {type(rows).__name__}")
        if rows < 1:
            raise InvalidValueError(f"rows is at least 1, not {shown(rows)}")
        columns = self._chosen(attrs)
        first = 0 if low is None else _bound("low", low)
        beyond = None if high is None else _bound("high", high)
        return new_scan(self._require_snapshot(), self._buffers(), columns, min(int(rows), MOST_ROWS), self._now(), self._frames,
                        first, beyond)

    def _key_scan(self, KeyFilter filter):
        """The search for keys in the state as it is now; for all of them, of whatever type, when there is no filter."""
        return new_key_scan(self._require_snapshot(), self._buffers(), filter, self._now())


# A cimported class is no name of the module, where the annotations of read() and scan() are looked up.
globals().update(Batch=Batch, Scan=Scan)

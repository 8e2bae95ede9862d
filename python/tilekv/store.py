"""The dict-like store: `tilekv.open` and `Store` (docs/design.md 2.1)."""

from __future__ import annotations

import datetime as dt
import errno
import os
import threading
import warnings
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from contextlib import closing, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar

import numpy as np

from tilekv import consolidation, vacuuming
from tilekv.arguments import NO_VALUE, is_one_of, truth, whole
from tilekv.commit import StreamedCell
from tilekv.config import Config
from tilekv.engine import DEFAULT_SCHEMA, Engine, open_engine
from tilekv.equality import EqualItems, EqualValues, equal_items
from tilekv.errors import (
    InvalidValueError,
    KeyNotFoundError,
    OutOfRangeError,
    ReadOnlyError,
    WrongTypeError,
    shown,
)
from tilekv.expiry import expires_at, moment, moments, seen_at
from tilekv.flusher import Flusher
from tilekv.keeper import Keeper
from tilekv.kvcore.batch.key_scan import FoundKeys, KeyScan
from tilekv.kvcore.batch.scan import Scan
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.values.key_filter import KeyFilter
from tilekv.kvcore.values.keys import key_bytes
from tilekv.kvcore.values.values import Column
from tilekv.names import FragmentName
from tilekv.probe import Probe, probe
from tilekv.progress import Progress, reporter
from tilekv.schema import Schema
from tilekv.storage import check_writable, open_storage
from tilekv.storage.streams import PART_BYTES, Readable, checked_parts, opened_source
from tilekv.tools.info import Info, describe
from tilekv.upkeeping import Upkeep, Upkept
from tilekv.valuefile import open_stored
from tilekv.workers import Workers

if TYPE_CHECKING:
    from io import BufferedReader

    from tilekv.tools.problem import Problem

T = TypeVar("T")

MODES: Final = ("r", "a", "x", "w")
_KEYS, _VALUES, _ITEMS = range(3)  # what Handle._iterate gives


class Store(Flusher, MutableMapping[Any, Any]):
    """A persistent dict: keys of many types, values of one or more typed attributes.

    Made by `tilekv.open`. A store with one attribute gives bare values, one with several gives dicts. Writes go
    to a buffer; `flush` makes it one fragment on disk, whole or not at all; leaving `with` and `close` flush.
    The handle is a snapshot: it sees its own writes, and those of others after `reopen`. Any number of
    threads may use it.

    A value is what the dtype of its attribute says: bytes, str, int, float, numpy.float32, bool, numpy.datetime64 or
    numpy.timedelta64; with `shape` a read-only numpy.ndarray of that shape and dtype, with `var` a one-dimensional one. None
    where the attribute is nullable.
    """

    def __init__(
        self,
        uri: str,
        mode: str,
        engine: Engine,
        timestamp: int | None,
        config: Config,
        storage_options: Mapping[str, object] | None = None,
    ) -> None:
        if not isinstance(engine, Engine):
            raise WrongTypeError("a Store is made by tilekv.open")
        self._uri = uri
        self._mode = mode
        self._engine = engine
        self._timestamp = timestamp
        self._config = config
        self._storage_options = storage_options
        self._attach(
            engine.layout,
            columns_of(engine.schema),
            mode != "r",
            engine.config.buffer_bytes,
            engine.config.usable_threads,
            seen_at(timestamp),
            Frames(engine.schema),
        )
        self._keeper = Keeper() if self._keeps() else None
        self._install(self._look(), False)

    def _keeps(self) -> bool:
        """Whether its flushes keep the store."""
        return self._mode != "r" and self._engine.config.upkeep != "off"

    def _flushed(self) -> None:
        if self._keeper is not None:
            self._keeper.flushed(self)

    def _with_flushed(self, name: FragmentName) -> Snapshot:
        if self._keeper is None:
            return super()._with_flushed(name)
        return self._engine.newest(self._open_snapshot(), name)

    def _follow(self) -> None:
        """Move the snapshot to what an upkeep has made."""
        with self._lock:
            if self._snapshot is not None and not self._closing:
                self._install(self._look(self._snapshot), False)

    def _look(self, known: Snapshot | None = None) -> Snapshot:
        """The fragments that are there now, or were at `timestamp`."""
        return self._engine.opener.snapshot(self._timestamp, known)

    # --- what it is ---

    @property
    def uri(self) -> str:
        """Where the store is."""
        return self._uri

    @property
    def mode(self) -> str:
        """The mode that it was opened with."""
        return self._mode

    @property
    def schema(self) -> Schema:
        """Its attributes and how they are stored."""
        return self._engine.schema

    @property
    def timestamp(self) -> int | None:
        """The moment that is shown, in ms since 1970; None for the newest state."""
        return self._timestamp

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._snapshot is None

    @property
    def fragments(self) -> tuple[Fragment, ...]:
        """The fragments of this snapshot, newest first.

        Each has a ``name``; ``cells``, and ``tombstones``, how many of them are deletes; ``t1`` and ``t2``, the first and last
        moment of its writes in ms since 1970; and ``stored_bytes``, the size of its files.
        """
        return self._open_snapshot().fragments

    def info(self) -> Info:
        """What the store holds, and what of its upkeep is left to be done by hand.

        With several fragments their coordinates are merged to tell live cells from dead ones; no value is read.
        """
        snapshot = self._open_snapshot()
        failure = self._keeper and self._keeper.failure
        unflushed = self._unflushed()
        return describe(self._uri, self._engine, snapshot, unflushed, self._timestamp, failure)

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        names = ", ".join(attr.name for attr in self.schema.attrs)
        return f"<tilekv.Store {self._uri!r} mode={self._mode!r} attrs=[{names}]{state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: attributes, sizes, and a table of the first rows, with pictures where values are such."""
        from tilekv.notebook import store_html

        return store_html(self)

    # --- its life ---

    def sync(self) -> None:
        """`flush`, by the name that `shelve` and `dbm` have for it; in mode "r" there is nothing to do."""
        if self._writable:
            self.flush()
        else:
            self._open_snapshot()

    def reopen(self) -> None:
        """Move the snapshot to the newest state: what other writers have flushed is seen from now on.

        What is buffered stays buffered. With `timestamp=` the state of that moment is looked up again.
        """
        self._open_snapshot()
        with self._lock:
            snapshot = self._open_snapshot()
            self._engine.check_identity()
            if not self._busy:
                # Or what an attempt has written would be seen twice, once as newer than it is.
                self._settle(False)
                snapshot = self._open_snapshot()
            self._install(self._look(snapshot), False)

    def close(self, *, discard: bool = False) -> None:
        """Flush and let go of the files; again is harmless. When flushing fails the handle stays open and keeps its buffer.

        What was handed out stays whole: batches, and iterators to their end, which keep the files that they need.

        Parameters
        ----------
        discard : bool
            Give up what is buffered instead: nothing is written, so that a handle whose store can no longer be written to can be
            closed. The end of ``with`` is harmless then.
        """
        truth("discard", discard)
        if self._inherited():
            self._after_fork()
        self._join()
        with self._alone():
            self._close(discard)

    def _close(self, discard: bool) -> None:
        with self._lock:
            if self.closed:
                return
            self._check_idle()
            if not discard:
                self._raise_failure()
            self._busy = self._closing = True
            try:
                if self._writable and not discard:
                    self._flush_all()
                self._let_go()
            finally:
                self._busy = self._closing = False

    def __enter__(self) -> Self:
        """Itself; ClosedError when it is closed."""
        self._open_snapshot()
        return self

    def __exit__(self, *exception: object) -> None:
        """`close`, after an exception too: what was written before it is flushed. Raises as `close` does."""
        self.close()

    def __del__(self) -> None:
        # A handle whose construction failed has no buffer, and a forked child does not own its parent's.
        if getattr(self, "_engine", None) is None or self.closed or self._inherited():
            return
        if self._unflushed():
            try:
                warnings.warn(f"{self!r} was never closed: flushing", ResourceWarning, 2, self)
            finally:  # whatever is made of warnings; what fails here, the interpreter prints
                self._failure = None  # nobody is there to flush again: close does
                self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A handle travels as what opens it again; with unflushed writes it does not travel."""
        self._open_snapshot()
        if self._unflushed():
            raise InvalidValueError(
                "a store with unflushed writes cannot be pickled: flush it first"
            )
        if self._engine.key is not None:
            raise InvalidValueError(
                "a store that was opened with a key cannot be pickled: the key would be in it"
            )
        mode = "r" if self._mode == "r" else "a"
        newer = self._engine.ignore_newer
        opening = self._uri, mode, self._timestamp, self._config.as_dict(), newer
        return _reopened, (*opening, self._storage_options)

    def __copy__(self) -> NoReturn:
        raise WrongTypeError(
            "a store handle is not copied: reopen() moves it to the newest state, tilekv.open makes another, and pickle "
            "takes one to another process"
        )

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def consolidate(self, *, vacuum: bool = False, progress: Progress = None) -> None:
        """Flush, merge all fragments of the store into one, and move the snapshot to it.

        Parameters
        ----------
        vacuum : bool
            Remove what was merged at once, and with it the past; see `vacuum`.
        progress : bool or callable, optional
            True for a line on stderr, or a callable that is told (cells done, cells in all).

        Raises
        ------
        StoreBusyError
            When another process or thread consolidates or vacuums this store; nothing was merged then.
        CorruptionError
            When a fragment is damaged; nothing has changed then.
        """
        truth("vacuum", vacuum)
        with self._alone():
            self.flush()
            consolidation.consolidate(self._engine, progress)
            if vacuum:
                vacuuming.vacuum(self._engine, progress)
            self.reopen()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Without the thread that keeps the store."""
        if self._keeper is not None:
            self._keeper.stop()
        try:
            yield
        finally:
            if self._keeper is not None:
                self._keeper.go_on()

    def upkeep(self, *, dry_run: bool = False, progress: Progress = None) -> Upkept:
        """Flush, merge small fragments that lie beside one another in time, remove what history no longer needs, and move the
        snapshot to that.

        Unlike `consolidate` it merges what pays: each entry is written again about once whenever the store has become eight times
        as large. Handles that flush do the same by themselves, up to merges of 64 to 256 MiB (``kv.upkeep``).

        Parameters
        ----------
        dry_run : bool
            Do nothing; the result says with what it would begin.
        progress : bool or callable, optional
            True for a line on stderr a merge, or a callable that is told (cells done, cells in all).

        Returns
        -------
        Upkept
            What was done; `str` makes a sentence of it.

        Raises
        ------
        CorruptionError
            When a fragment is damaged; what was done before stays.
        """
        self._open_snapshot()
        if truth("dry_run", dry_run):
            return Upkeep(self._engine).foresee()
        with self._alone():
            self.flush()
            done = Upkeep(self._engine).run(None, reporter(progress, "merging"))
            self.reopen()
        return done

    def vacuum(
        self,
        *,
        history: float | dt.timedelta | Literal["all"] = 0,
        progress: Progress = None,
    ) -> None:
        """Remove the fragments that merges have superseded, and what crashed writers have left behind.

        `timestamp=` can no longer show the moments that they held. Handles that see them keep them.

        Parameters
        ----------
        history : float, datetime.timedelta or "all"
            Keep what was superseded in these last seconds; unless it is 0, the store keeps so much from now on (``kv.history``).
        progress : bool or callable, optional
            True for a line on stderr, or a callable that is told (fragments done, fragments in all).

        Raises
        ------
        StoreBusyError
            When another process makes the store's first record at this moment; nothing was removed then.
        CorruptionError
            When a fragment that stays cannot be opened; nothing was removed then.
        """
        self._open_snapshot()
        if not self._writable:
            raise ReadOnlyError(
                "this store is open for reading only: open it with mode 'a' to vacuum it"
            )
        kept = vacuuming.history_ms(history)
        vacuuming.vacuum(self._engine, progress, kept)

    def verify(self) -> list[Problem]:
        """Check every chunk, every digest against its key, and the order of all cells.

        Returns
        -------
        list of Problem
            All that is wrong with the fragments of this snapshot; empty when they are sound. `tilekv.verify` checks the
            rest of the store too, and stores that do not open.
        """
        from tilekv.tools.verify import verify_store

        return verify_store(self.fragments)

    # --- parts of a value ---

    def open_value(self, key: Any, attr: str | None = None) -> BufferedReader:
        """The bytes of a value as a file to read from: buffered and seekable, like one that was opened with mode "rb".

        It reads the value as it was then, whatever is written, flushed or merged meanwhile, and after the handle was closed. Of a
        large value only what is asked for is read.

        Parameters
        ----------
        key : object
        attr : str, optional
            The attribute, of bytes or of text, whose bytes are its UTF-8; needed when there are several.

        Raises
        ------
        KeyNotFoundError
            When the key is not there.
        InvalidValueError
            When the value is a null; and all that `get_range` raises, which reading the file raises too.
        """
        value = self._stored(key, attr)
        if value is None:
            raise InvalidValueError("the value is null: there are no bytes to read")
        return open_stored(value)

    def put_stream(
        self,
        key: Any,
        source: Readable | str | os.PathLike[str],
        size: int | None = None,
        **attrs: Any,
    ) -> None:
        """Set a key to what comes from a file or a stream, however large.

        It goes straight into a fragment of its own, in some MiB of memory.

        What is buffered is flushed first, so that nothing older is newer, and all of it is durable when this returns. While the
        stream comes others use the handle. After an error of the stream nothing of it is there.

        Parameters
        ----------
        key : object
        source : binary file, str or os.PathLike
            Whatever has ``read(n)``, which is read to its end; or the path of a file.
        size : int, optional
            The bytes that have to come, no more and no fewer.
        **attrs : object
            Values of the other attributes; all but one, of bytes, which the stream is for.

        Raises
        ------
        InvalidValueError
            When the stream has not the `size` given, or cannot be waited for.
        WrongTypeError, OutOfRangeError
            For a key and values that are refused, and a stream of text.
        ReadOnlyError, ClosedError, NotDurableError, StoreReplacedError, OSError
            As of `flush`; what the stream raises is raised as it is.
        """
        names = [attr.name for attr in self.schema.attrs]
        unknown = [name for name in attrs if name not in names]
        left = [name for name in names if name not in attrs]
        if unknown or len(left) != 1:
            raise InvalidValueError(
                f"put_stream takes all attributes but one, which the stream is for; the store has {', '.join(map(repr, names))}"
            )
        length = None if size is None else whole("size", size)
        # Before anything is read: what is refused leaves the stream as it is.
        row, slot = self._streamed(key, left[0], attrs)
        with opened_source(source) as file:
            parts = checked_parts(file, length)
            first = next(parts, b"")
            second = next(parts, b"") if len(first) == PART_BYTES else b""
            if not second:
                values = {**attrs, left[0]: first}
                self._put_streamed(self._sorted_row(key, values if len(names) > 1 else first))
                return
            self._put_streamed(StreamedCell(row, slot, chain((first, second), parts), length))

    # --- keys ---

    def scan_keys(
        self,
        *,
        prefix: str | bytes | None = None,
        glob: str | bytes | None = None,
        start: str | bytes | None = None,
        stop: str | bytes | None = None,
        limit: int | None = None,
        sorted: bool = False,
    ) -> list[Any]:
        """The text and bytes keys that all of what is given asks for, as a list; keys of other types are left out.

        All keys of the store are looked at, tens of millions a second: there is no index of them, and for those that do not
        match no object is made. What is buffered counts; what is deleted or expired does not.

        Parameters
        ----------
        prefix : str or bytes, optional
            What the keys begin with. A str asks for text keys, bytes for bytes keys; so do the following, which are of one type.
        glob : str or bytes, optional
            A pattern of the whole key, as of `fnmatch.fnmatchcase`: ``*`` matches ``/`` too, and case counts.
        start : str or bytes, optional
            The least key, in the order of bytes. That of text, in UTF-8, is the order of Python's str.
        stop : str or bytes, optional
            The least key that is beyond the range.
        limit : int, optional
            The most keys: the first ones of the order.
        sorted : bool
            Ascending, text before bytes; else in ascending order of the keys' digests.

        Raises
        ------
        WrongTypeError, InvalidValueError
            For arguments that are refused.
        ClosedError, CorruptionError, SnapshotGone, OSError
            As of `get`.
        """
        asked = KeyFilter(prefix, glob, start, stop)
        most = None if limit is None else whole("limit", limit)
        if most is not None and most < 0:
            raise InvalidValueError(f"limit is at least 0, not {shown(limit)}")
        ordered = truth("sorted", sorted)
        search = self._key_scan(asked)
        found: list[FoundKeys] = []
        with closing(self._each_part(search, search.part)) as parts:
            for part in parts:
                found.append(part)
                if most is not None and not ordered and sum(map(len, found)) >= most:
                    break
        return search.keys(found, most, ordered)

    def _each_part(self, search: KeyScan, work: Callable[[int], T]) -> Generator[T]:
        """What `work` makes of the number of each part of a search, in their order, by several threads."""
        if search.parts == 1:  # a part of the time of a search in ten thousand keys
            yield work(0)
            return
        with Workers(self._engine.config.usable_threads) as workers:
            yield from workers.map_in_order(work, range(search.parts))

    # --- frames ---

    def _rows(self, keys: Any, attrs: Iterable[str] | None, missing: str) -> Any:
        return self.scan(attrs) if keys is None else self.read(keys, attrs, missing)

    def to_arrow(
        self, keys: Any = None, attrs: Iterable[str] | None = None, missing: str = "raise"
    ) -> Any:
        """Rows as a pyarrow Table; of a store that was made of a frame, with that frame's columns and types.

        Parameters
        ----------
        keys : iterable of keys, optional
            The rows wanted, in this order, as of `read`. All of them unless given, in ascending order of the keys' digests.
        attrs : iterable of str, optional
            The attributes wanted; all unless given.
        missing : {"raise", "mask"}
            What becomes of keys that are not there: an error, or nulls.

        Raises
        ------
        MissingPackageError
            When pyarrow is not installed.
        InvalidValueError
            When the keys are of several types, which are no column.
        KeyNotFoundError, WrongTypeError, ClosedError, CorruptionError, SnapshotGone, OSError
            As of `read` and `scan`.
        """
        return self._frames.make("arrow", self._rows(keys, attrs, missing))

    def to_pandas(
        self, keys: Any = None, attrs: Iterable[str] | None = None, missing: str = "raise"
    ) -> Any:
        """Rows as a pandas DataFrame; of a store that was made of a frame, with that frame's columns, index and types.

        Integers and bools of which one is null are of pandas' nullable types, which keep them exact. Arguments and errors are
        those of `to_arrow`; it takes pandas and pyarrow.
        """
        return self._frames.make("pandas", self._rows(keys, attrs, missing))

    def to_polars(
        self, keys: Any = None, attrs: Iterable[str] | None = None, missing: str = "raise"
    ) -> Any:
        """Rows as a polars DataFrame; of a store that was made of a frame, with that frame's columns and types.

        Arguments and errors are those of `to_arrow`; it takes polars, and not pyarrow.
        """
        return self._frames.make("polars", self._rows(keys, attrs, missing))

    def to_dataset(self) -> Any:
        """All rows, as they are now, as a pyarrow Dataset: who asks it for some columns has these read, and no others.

        For DuckDB, which asks by the name of its variable, `polars.scan_pyarrow_dataset`, and pyarrow. Its filters look at every
        row: keys that are known come by `read`. MissingPackageError when pyarrow is not installed.
        """
        from tilekv.frames.dataset import dataset_of

        moment = self.scan()
        columns = {column.name: column for column in self._columns}

        def scan(attrs: Iterable[str]) -> Scan:
            return moment._of(tuple(columns[name] for name in attrs))

        return dataset_of(self.schema, scan)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        keys: Any = None,
        attrs: Iterable[str] | None = None,
        *,
        progress: Progress = None,
        **options: Any,
    ) -> None:
        """Write rows into a Parquet file, a batch at a time; it appears when it is whole, and replaces one that is there.

        Parameters
        ----------
        path : str or os.PathLike
        keys, attrs : optional
            As of `to_arrow`.
        progress : bool or callable, optional
            True for a line on stderr, or a callable that is told (rows done, rows in all).
        **options
            Of pyarrow.parquet.ParquetWriter, such as ``compression="snappy"``; zstd unless given.

        Raises
        ------
        OSError
            When the file cannot be written.
        MissingPackageError, InvalidValueError, KeyNotFoundError, CorruptionError, SnapshotGone
            As of `to_arrow`; InvalidValueError also for options and columns that pyarrow refuses.
        """
        from tilekv.frames.saving import write_parquet

        rows = self._rows(keys, attrs, "raise")
        total = len(self) if keys is None else len(rows)
        write_parquet(self.schema, rows, total, path, progress, options)

    def to_csv(
        self,
        path: str | os.PathLike[str],
        keys: Any = None,
        attrs: Iterable[str] | None = None,
        *,
        progress: Progress = None,
        **options: Any,
    ) -> None:
        """Write rows into a CSV file, as `to_parquet` does. options: of pyarrow.csv.WriteOptions, such as ``delimiter=";"``.

        A CSV file holds no arrays and no types: arrays are refused.
        """
        from tilekv.frames.saving import write_csv

        rows = self._rows(keys, attrs, "raise")
        total = len(self) if keys is None else len(rows)
        write_csv(self.schema, rows, total, path, progress, options)

    def __arrow_c_schema__(self) -> object:
        """The type of the rows, a struct, as an Arrow PyCapsule: that of a `scan`."""
        return self.scan().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """All rows as an Arrow PyCapsule, those of a `scan`: pyarrow.table(db), duckdb.sql("from db")."""
        return self.scan().__arrow_c_stream__()

    # --- entries that expire ---

    def _moments(self, expire: object, rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return moments(expire, rows, self._clock())

    def expires(self, key: Any) -> dt.datetime | None:
        """When a key will be as if deleted, as a datetime in UTC; None for never.

        Raises
        ------
        KeyNotFoundError
            When it is not there, or has expired.
        """
        return expires_at(self._expires(key))

    def touch(self, key: Any, expire: Any = None) -> None:
        """Give a key that is there another moment of expiry: its newest value is read, after `reopen`, and set again.

        Another writer's value that comes between the two is lost.

        Parameters
        ----------
        key : object
        expire : float, datetime.timedelta, datetime.datetime, numpy.timedelta64 or numpy.datetime64, optional
            As of `set`; None: it does not expire any more.

        Raises
        ------
        KeyNotFoundError
            When it is not there, or has expired.
        """
        self.reopen()
        value = self[key]
        self.set(self._named(key), value, expire)

    def apply(
        self,
        puts: Any = (),
        deletes: Iterable[Any] = (),
        expires: Mapping[Any, Any] | None = None,
    ) -> None:
        """Set, delete and expire in one step: a flush writes all of it or nothing, and no other thread sees a part of it.

        Parameters
        ----------
        puts : mapping or iterable of pairs
            Keys and values, as of `put_many`.
        deletes : iterable of keys
            Deleted after all else; missing ones are fine.
        expires : mapping
            Moments by key, as of `set`: of keys in `puts`, and of others that are there, whose values are read first, after
            `reopen`, as by `touch`.

        Raises
        ------
        KeyNotFoundError
            For a key of `expires` that is neither in `puts` nor there. Nothing was done, as after every other error.
        """
        if expires is not None and not isinstance(expires, Mapping):
            raise WrongTypeError(
                f"expires is a mapping of keys to moments, not {type(expires).__name__}"
            )
        now = self._clock()
        wanted = [
            (key, self._bytes_of(key), moment(expire, now))
            for key, expire in ({} if expires is None else expires).items()
        ]
        if isinstance(puts, Iterator):
            puts = list(puts)
        # By the keys' bytes: 1 and 1.0 are two keys. What is no pair is refused below.
        given: dict[tuple[int, bytes], Any] = {}
        if wanted and isinstance(puts, Iterable):
            for pair in puts.items() if isinstance(puts, Mapping) else puts:
                if isinstance(pair, (tuple, list)) and len(pair) == 2:
                    given[self._bytes_of(pair[0])] = pair[1]
        if any(name not in given for _, name, _ in wanted):
            self.reopen()
        keys = [key if name in given else self._named(key) for key, name, _ in wanted]
        values = [given[name] if name in given else self[key] for key, name, _ in wanted]
        words = [word for _, _, word in wanted]
        self._apply(puts, keys, values, np.array(words, np.int64), deletes)

    def _bytes_of(self, key: Any) -> tuple[int, bytes]:
        return key_bytes(key, self._layout.numbers)

    def _named(self, key: Any) -> Any:
        """The key that a look-up of this one has found."""
        return key if self._layout.numbers else self._meant(key)

    # --- the rest of a mapping, over the batch calls ---

    def update(self, other: Any = (), /, **items: Any) -> None:
        """Set all items of a mapping or of pairs, and the keyword arguments as str keys."""
        if hasattr(other, "keys") and not isinstance(other, Mapping):
            other = {key: other[key] for key in other.keys()}  # noqa: SIM118 - all that is promised
        self.put_many(other)
        if items:
            self.put_many(items)

    def __ior__(self, other: Any) -> Self:
        """``db |= other`` is ``db.update(other)``."""
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        """Whether a mapping has the same keys, type and all, with equal values."""
        return equal_items(self, other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as for dict

    def clear(self) -> None:
        """Delete every key."""
        self.delete_many(self._iterate(_KEYS))

    def pop(self, key: Any, default: Any = NO_VALUE) -> Any:
        """Delete a key and return its value; `default` when it is not there, KeyNotFoundError without one."""
        try:
            value = self[key]
        except KeyError:
            if default is NO_VALUE:
                raise
            return default
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Delete a key and return it with its value; KeyNotFoundError when there is none."""
        for key, value in self.items():
            del self[key]
            return key, value
        raise KeyNotFoundError("popitem(): the store is empty")

    def values(self) -> ValuesView:
        """A view of the values, in ascending order of the keys' digests."""
        return ValuesView(self)

    def items(self) -> ItemsView:
        """A view of the (key, value) pairs, in ascending order of the keys' digests."""
        return ItemsView(self)

    def _after_fork(self) -> None:
        """In a forked child: leave what belongs to the parent, its buffer too, and open anew.

        The parent's snapshot stays referenced for good: its locks may have been held by a thread that does not exist here.
        """
        with _renewing:
            if not self._inherited():
                return  # another thread of the child was faster, and may have written since
            _INHERITED.append((self._snapshot, self._engine))
            closed = self.closed
            self._attempt = self._thread = None
            chores = () if self._keeper is None else self._keeper.chores
            self._keeper = Keeper(chores) if self._keeps() else None
            self._unsynced = False
            old = self._engine
            self._engine = Engine(probe(old.storage), self._config, old.key, old.ignore_newer)
            self._start_over(None if closed else self._look())


_INHERITED: list[object] = []
_renewing = threading.Lock()


def _renew() -> None:
    global _renewing
    _renewing = threading.Lock()


os.register_at_fork(after_in_child=_renew)


class Frames:
    """Makes frames of the rows of a store: for its batches, which may outlive the handle."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.key = schema.key_name

    def make(self, kind: str, rows: Any) -> Any:
        """The rows as a frame of "arrow", "pandas" or "polars", or as "html" for a notebook."""
        if kind == "html":
            from tilekv.notebook import batch_html

            return batch_html(rows)
        from tilekv.frames import giving

        return giving.MAKERS[kind](self._schema, rows)


class ValuesView(EqualValues):
    """The values of a store, read some at a time."""

    _mapping: Store

    def __iter__(self) -> Iterator[Any]:
        """Iterate in ascending order of the keys' digests, over the state as it is now."""
        return self._mapping._iterate(_VALUES)


class ItemsView(EqualItems):
    """The items of a store, read some at a time."""

    _mapping: Store

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Iterate in ascending order of the keys' digests, over the state as it is now."""
        return self._mapping._iterate(_ITEMS)


def open(
    uri: str | os.PathLike[str],
    mode: Literal["r", "a", "x", "w"] = "r",
    *,
    schema: Schema | None = None,
    timestamp: int | dt.datetime | np.datetime64 | None = None,
    config: Mapping[str, object] | Config | None = None,
    key: bytes | str | None = None,
    ignore_newer: bool = False,
    expires: bool = False,
    storage_options: Mapping[str, object] | None = None,
) -> Store:
    """Open a store: one of tilekv's, or, to read it, a key-value store of TileDB 1.3 to 1.7.

    Parameters
    ----------
    uri : str or os.PathLike
        A folder, ``file:///...``, ``memory://name``, or ``s3://bucket/prefix``, ``gs://...``, ``az://...``.
    mode : {"r", "a", "x", "w"}
        Read; read and write, created if missing; create, fail if there; create, replacing a store that is there.
    schema : Schema, optional
        Of a store that is created: one bytes attribute, `value`, unless given. Of one that is there: must be equal.
    timestamp : int, datetime.datetime or numpy.datetime64, optional
        Show the store as it was then, inclusive; an int is ms since 1970, a naive datetime local time. Mode "r" only.
    config : mapping, optional
        Options by dotted key, such as ``{"kv.cache_bytes": "64 MiB"}``; see `Config`.
    key : bytes or str, optional
        The 32 bytes that open a store which TileDB 1.x encrypted; a str stands for its UTF-8.
    ignore_newer : bool
        Show the store without what TileDB 2 has added to it in its own newer format, which tilekv does not read and else refuses;
        what TileDB 2 has merged and removed is always refused. Mode "r" only.
    expires : bool
        Entries may have a moment after which they are as if deleted (`Store.set`): of a store that is created without `schema`,
        that it keeps them; of another, that it must.
    storage_options : mapping, optional
        Of a store on object storage: where that is, who asks, how long and how often. Without them, those of TileDB's that are in
        `config`. What is not given is taken from the environment. A pickled handle has them in it.

    Raises
    ------
    StoreNotFoundError, StoreExistsError, FormatError, CorruptionError
        When there is no store, one too many, one of another program, or a damaged one.
    ReadOnlyError
        For mode "a" and a store of TileDB 1.x: `convert` it. For all modes but "r" on a web server.
    InvalidValueError, WrongTypeError
        For arguments that are refused.
    MissingPackageError
        When a store of TileDB 1.x, or on object storage, needs a package that is not installed.
    """
    options, moment = _checked(mode, schema, timestamp, config, ignore_newer)
    default = Schema(DEFAULT_SCHEMA.attrs, expires=truth("expires", expires))
    if expires and schema is not None and not schema.expires:  # before a store is made, or replaced
        raise InvalidValueError("expires=True, but the schema given keeps no moments of expiry")
    if storage_options is None:
        storage_options = options.storage_options(uri)
    storage = open_storage(uri, options.sync, storage_options, cached=True)
    if mode != "r":
        check_writable(storage)
    found = probe(storage)
    engine = open_engine(found, mode, schema, options, key, ignore_newer, default)
    if expires and not engine.schema.expires:
        raise InvalidValueError(f"{found.storage.uri} keeps no moments of expiry").advised(
            "convert(expires=True) makes a store that does",
            "convert --expires makes a store that does",
        )
    return Store(found.storage.uri, mode, engine, moment, options, storage_options)


def open_probed(
    found: Probe,
    mode: Literal["r", "a"],
    timestamp: Any = None,
    config: Config | None = None,
    key: bytes | str | None = None,
) -> Store:
    """As `open`, of what was looked at already."""
    options, moment = _checked(mode, None, timestamp, config, False)
    engine = open_engine(found, mode, None, options, key, False)
    uri = found.storage.uri
    return Store(uri, mode, engine, moment, options, options.storage_options(uri))


def _checked(
    mode: object, schema: object, timestamp: Any, config: Any, ignore_newer: object
) -> tuple[Config, int | None]:
    """The options and the moment that arguments of `open` mean."""
    if not is_one_of(mode, MODES):
        raise InvalidValueError(f"mode is one of {', '.join(MODES)}, not {shown(mode)}")
    if schema is not None and not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    if timestamp is not None and mode != "r":
        raise InvalidValueError("timestamp goes with mode 'r': the past cannot be written")
    if truth("ignore_newer", ignore_newer) and mode != "r":
        raise InvalidValueError(
            "ignore_newer goes with mode 'r': what is written would hide what TileDB 2 has added"
        )
    moment = None if timestamp is None else _milliseconds(timestamp)
    return Config.of(config), moment


def _reopened(
    uri: str,
    mode: Any,
    timestamp: int | None,
    config: dict[str, object],
    ignore_newer: bool,
    storage_options: Mapping[str, object] | None = None,
) -> Store | Unopened:
    try:
        return open(
            uri,
            mode,
            timestamp=timestamp,
            config=config,
            ignore_newer=ignore_newer,
            storage_options=storage_options,
        )
    except OSError as error:
        if error.errno != errno.EDEADLK:
            raise
        return Unopened(error)


class Unopened:
    """What a handle is unpickled as in a process that can make no requests, since it was forked: each use raises that error.

    A worker that fails while it unpickles its task ends, and `multiprocessing.Pool` waits for what it was to give for ever.
    """

    def __init__(self, error: OSError) -> None:
        self._error = error

    def _raise(self, *_: object, **__: object) -> NoReturn:
        raise self._error

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._raise

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = __enter__ = _raise

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""


def _milliseconds(moment: int | dt.datetime | np.datetime64) -> int:
    if isinstance(moment, dt.datetime):
        if moment != moment:  # pandas' NaT
            raise InvalidValueError("timestamp is not a time")
        return (_aware(moment) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(
            milliseconds=1
        )
    if isinstance(moment, np.datetime64):
        if np.isnat(moment):
            raise InvalidValueError("timestamp is not a time")
        try:
            found = moment.astype("datetime64[ms]")
        except OverflowError:  # NumPy 2.5; earlier ones wrap around
            found = np.datetime64("NaT", "ms")
        if found.astype("datetime64[Y]") != moment.astype("datetime64[Y]"):
            raise OutOfRangeError(
                f"timestamp is a moment that 64 bits of ms can tell, not {moment!r}"
            )
        return int(found.astype(np.int64))
    if isinstance(moment, bool) or not isinstance(moment, (int, np.integer)):
        raise WrongTypeError(
            f"timestamp is an int of ms, a datetime or a datetime64, not {type(moment).__name__}"
        )
    return int(moment)


def _aware(moment: dt.datetime) -> dt.datetime:
    """The moment with its zone: local time unless it has one. Python cannot find that of the first and last day there are."""
    if moment.utcoffset() is not None:
        return moment
    try:
        return dt.datetime.astimezone(moment)  # pandas' own asks for a zone
    except (ValueError, OverflowError):
        cycle = dt.timedelta(days=146_097)  # 400 years, after which dates come again
        like = moment + cycle if moment.year == dt.MINYEAR else moment - cycle
        return moment.replace(tzinfo=dt.datetime.astimezone(like).tzinfo)


def columns_of(schema: Schema) -> tuple[Column, ...]:
    """How the attributes' cells become Python objects."""
    columns = []
    valid = len(schema.attrs)
    for field, attr in enumerate(schema.attrs, start=1):
        valid += attr.nullable
        plain = attr.type_name in ("bytes", "str")
        shape = None if attr.var else attr.shape or ()
        dtype = None if plain else np.dtype(attr.type_name).newbyteorder("<")
        null = valid if attr.nullable else 0
        zone = None if schema._frame is None else schema._frame.zone(attr.name)
        columns.append(Column(attr.name, field, attr.datatype, dtype, shape, null, zone))
    return tuple(columns)

"""Stores and Ray Data: what its workers write into a store and read from one (docs/cluster.md).

dataset.write_datasink(tilekv.ray.datasink("s3://bucket/trips.kv", key="trip"))
dataset = ray.data.read_datasource(tilekv.ray.datasource("s3://bucket/trips.kv"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tilekv.config import Config
from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.frames.giving import package, reader
from tilekv.frames.loading import ROWS, check_key_name, schema_of
from tilekv.schema import Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools.jobs import Job, begin_job, check_mode, commit_job, withdraw_job, write_part
from tilekv.tools.pinned import Pinned

__all__ = ["datasink", "datasource"]

Uri = str | os.PathLike[str]

_INSTALL: Final = "'ray[data]'"


def datasource(
    uri: Uri,
    attrs: Iterable[str] | None = None,
    *,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Any:
    """What `ray.data.read_datasource` reads a store from: ranges of the keys' digests, of about the same size.

    All of them show the store as it is now, whatever others write and merge: what was merged is kept for a day (``kv.history``).

    Parameters
    ----------
    uri : str or os.PathLike
        Where every worker, and this process, reaches the store.
    attrs : iterable of str, optional
        The attributes wanted; all unless given.
    config, storage_options : mapping, optional
        As of `tilekv.open`, for every process.

    Returns
    -------
    ray.data.Datasource
        Of the columns of the frame that the store was made of, or of a column `key` and the attributes.

    Raises
    ------
    StoreNotFoundError, FormatError, CorruptionError
        As `tilekv.open`.
    InvalidValueError
        When there is no such attribute; when the keys are of several types, in the task that meets them.
    MissingPackageError
        When Ray is not installed.
    """
    base = package("ray.data", "datasource()", _INSTALL).Datasource
    with open_store(uri, config=config, storage_options=storage_options) as store:
        names = None if attrs is None else list(attrs)
        store.scan(names)  # says what is wrong with them
        return type("StoreDatasource", (_Source, base), {})(Pinned.of(store), names)


def datasink(
    uri: Uri,
    *,
    key: str,
    columns: Sequence[str] | None = None,
    schema: Schema | None = None,
    mode: str = "error",
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Any:
    """What `Dataset.write_datasink` writes a dataset into: all of it appears at once, when every task is done, or nothing does.

    Parameters
    ----------
    uri : str or os.PathLike
        Where every worker, and this process, reaches the store.
    key : str
        The column that the keys are. Of the entries of one key those of the last task count.
    columns : sequence of str, optional
        The columns that are stored beside the key; all unless given.
    schema : Schema, optional
        Of a store that is made: unless given that of the dataset's Arrow types, of which all may be null.
    mode : {"error", "append", "overwrite"}
        What becomes of a store that is there: an error; it gets the entries, too; the new one takes its place with the commit.
    config, storage_options : mapping, optional
        As of `tilekv.open`, for every process.

    Returns
    -------
    ray.data.Datasink
        For one write. Its errors, such as StoreExistsError, are met by `write_datasink`.

    Raises
    ------
    InvalidValueError, WrongTypeError
        For arguments that are refused.
    MissingPackageError
        When Ray is not installed.
    """
    check_key_name(key)
    check_mode(mode)
    if schema is not None and not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    base = package("ray.data", "datasink()", _INSTALL).Datasink

    def begin(found: Schema | None) -> Job:
        return begin_job(uri, mode, schema or found, config, storage_options)

    return type("StoreDatasink", (_Sink, base), {})(begin, key, columns)


class _Source:
    """What a datasource of a store does in its own way."""

    def __init__(self, pinned: Pinned, attrs: list[str] | None) -> None:
        super().__init__()
        self._pinned = pinned
        self._attrs = attrs

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known: values are stored compressed."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[Any]:
        """One for each range."""
        task = package("ray.data", "datasource()", _INSTALL).ReadTask
        metadata = package("ray.data.block", "datasource()", _INSTALL).BlockMetadata
        ranges = self._pinned.ranges(max(parallelism, 1))
        size = self._pinned.stored_bytes // len(ranges)
        about = metadata(num_rows=None, size_bytes=size, input_files=None, exec_stats=None)
        return [
            task(
                partial(_read, self._pinned, self._attrs, *bounds),
                about,
                per_task_row_limit=per_task_row_limit,
            )
            for bounds in ranges
        ]


def _read(pinned: Pinned, attrs: list[str] | None, low: int, high: int) -> Iterator[Any]:
    """A task: a range, a table at a time."""
    table = package("pyarrow", "datasource()").Table
    with pinned.handle() as store:
        rows = reader(store.schema, store.scan(attrs, low=low, high=high))
        empty = True
        for batch in rows:
            empty = False
            yield table.from_batches([batch])
        if empty:
            yield rows.schema.empty_table()


class _Sink:
    """What a datasink of a store does in its own way. `begin` takes the schema that the dataset tells."""

    def __init__(
        self, begin: Callable[[Schema | None], Job], key: str, columns: Sequence[str] | None
    ) -> None:
        self._begin = begin
        self._key = key
        self._columns = None if columns is None else list(columns)
        self._job: Job | None = None
        self._tried = False

    def on_write_start(self, schema: Any = None) -> None:
        """Begin the job, before its tasks are sent."""
        found = None
        if schema is not None:
            found = schema_of(self._chosen(schema.empty_table()), self._key, nullable=True)
        self._job = self._begin(found)

    def write(self, blocks: Iterable[Any], ctx: Any) -> list[str]:
        """A task: the names of what it has written, which nobody sees."""
        assert self._job is not None
        accessor = package("ray.data.block", "datasink()", _INSTALL).BlockAccessor

        def fill(store: Store) -> None:
            for block in blocks:
                table = self._chosen(accessor.for_block(block).to_arrow())
                for start in range(0, table.num_rows, ROWS):
                    store.put_many(table.slice(start, ROWS), key=self._key)

        return write_part(self._job, ctx.task_idx, fill)

    def on_write_complete(self, write_result: Any) -> None:
        """Commit; of a dataset without blocks there is no job."""
        job, self._tried = self._job or self._begin(None), True
        commit_job(job, [name for names in write_result.write_returns for name in names])

    def on_write_failed(self, error: Exception) -> None:
        """Give up what was written, unless the commit was tried."""
        if self._job is not None and not self._tried:
            withdraw_job(self._job)

    def _chosen(self, table: Any) -> Any:
        if self._columns is None:
            return table
        missing = [name for name in (self._key, *self._columns) if name not in table.column_names]
        if missing:
            raise InvalidValueError(f"the dataset has no column {missing[0]!r}")
        return table.select([self._key, *(name for name in self._columns if name != self._key)])

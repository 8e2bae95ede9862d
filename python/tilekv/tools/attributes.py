"""An attribute more for a store that is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilekv.arguments import NO_VALUE
from tilekv.errors import InvalidValueError, KeyNotFoundError, StoreBusyError, WrongTypeError
from tilekv.kvcore.batch.results import Batch, VarColumn
from tilekv.progress import Progress, reporter
from tilekv.schema import Attr, Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools.atomic_build import whole_store


def append_attr(
    uri: str | os.PathLike[str],
    attr: Attr,
    value: Any = NO_VALUE,
    *,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> None:
    """Give a store an attribute more, behind those that it has: all rows are copied to a new store, which then takes its place.

    It needs the room for both meanwhile. What is there stays until the new one is whole, and every reader keeps what it sees.
    Others must not write meanwhile: what they have flushed by the end is noticed, and what is flushed later than that is an error
    of theirs, StoreReplacedError. Keys, values, nulls and moments of expiry are kept, and the past (``timestamp=``) is not.

    Parameters
    ----------
    uri : str or os.PathLike
        A store of tilekv's.
    attr : Attr
    value : object
        What every row has of it: null unless given, of an attribute that may be null.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (rows done, rows in all).
    storage_options : mapping, optional
        As of `open`.

    Raises
    ------
    StoreBusyError
        When somebody has written to the store meanwhile.
    WrongTypeError, InvalidValueError, OutOfRangeError
        For an attribute that the schema cannot have, a value that it cannot have, and none where it needs one.
    StoreNotFoundError, CorruptionError, ReadOnlyError
        As of `open`. Nothing has changed then, nor after any other error.
    """
    if not isinstance(attr, Attr):
        raise WrongTypeError(f"attr is a tilekv.Attr, not {type(attr).__name__}")
    if value is NO_VALUE and not attr.nullable:
        raise InvalidValueError(
            f"attribute {attr.name!r} is not nullable: say which value= the rows that are there have of it"
        )
    filling = None if value is NO_VALUE else value
    report = reporter(progress, "copying")
    # Not mode "a", which would make one.
    open_store(uri, storage_options=storage_options).close()
    with open_store(uri, "a", storage_options=storage_options) as source:
        old = source.schema
        schema = Schema(
            [*old.attrs, attr],
            old.digest,
            old.capacity,
            old.offsets_filters,
            old.key_filters,
            old.expires,
        )._of_frame(old._frame)
        names = source._open_snapshot().names

        def unchanged() -> None:
            source.reopen()
            if source._open_snapshot().names != names:
                raise StoreBusyError(
                    f"others have written to {source.uri} while it was copied: nothing was changed; once they are done, try again"
                )

        total = len(source)
        done = 0
        with whole_store(uri, schema, source._layout.numbers, unchanged, storage_options) as target:
            for batch in source.scan():
                (_copy_moments if old.expires else _copy)(source, target, batch, attr.name, filling)
                done += len(batch)
                if done < total:
                    report(done, total)
    report(done, done)


def _copy(source: Store, target: Store, batch: Batch, name: str, value: Any) -> None:
    columns = {column.name: _column(batch, column.name) for column in batch.columns}
    target.put_many(batch.keys, **columns, **{name: [value] * len(batch)})


def _column(batch: Batch, name: str) -> Any:
    """A column as put_many takes it, with its nulls."""
    values = batch[name]
    valid = batch.valid.get(name)
    if isinstance(values, VarColumn):
        return values.to_list()
    if valid is None:
        return values
    return np.ma.masked_array(
        values, np.broadcast_to(~valid.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    )


def _copy_moments(source: Store, target: Store, batch: Batch, name: str, value: Any) -> None:
    keys = batch.keys
    attrs = [attr.name for attr in source.schema.attrs]
    rows = []
    moments = []
    for key, row in zip(keys, source.get_many(keys, NO_VALUE), strict=True):
        if row is NO_VALUE:  # it has expired meanwhile
            continue
        rows.append((key, {**({attrs[0]: row} if len(attrs) == 1 else row), name: value}))
        moments.append(_moment(source, key))
    target._apply(
        (), [key for key, _ in rows], [row for _, row in rows], np.array(moments, np.int64), ()
    )


def _moment(source: Store, key: Any) -> int:
    """When an entry expires, in ms: the first moment there is when it has since the copy began."""
    try:
        return source._expires(key)
    except KeyNotFoundError:
        return 1

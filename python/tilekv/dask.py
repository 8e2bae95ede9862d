"""Stores and dask: frames, bags and delayed objects written by many workers, and read by many (docs/cluster.md).

Workers reach the store by its URI: a folder that all of them have, or a bucket. `pip install "tilekv[dask]"`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from tilekv.arguments import is_one_of, truth
from tilekv.config import Config
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.frames.giving import package
from tilekv.frames.loading import ROWS, check_key_name, schema_of_source, source_of
from tilekv.progress import Progress
from tilekv.schema import Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools import parallel
from tilekv.tools.jobs import (
    Job,
    begin_job,
    check_fits,
    check_mode,
    commit_job,
    withdraw_job,
    write_part,
)
from tilekv.tools.pinned import Pinned

__all__ = ["bag_from_store", "consolidate", "from_store", "map_many", "to_store"]

Uri = str | os.PathLike[str]

_INSTALL: Final = "'tilekv[dask]'"
COMMITS: Final = ("driver", "each")
_OPENED: Final[dict[str, Any]] = {"error": "x", "append": "a", "overwrite": "w"}  # by mode


# --- writing ------------------------------------------------------------------------------------------------------------


def to_store(
    data: Any,
    uri: Uri,
    *,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    schema: Schema | None = None,
    mode: str = "error",
    commit: str = "driver",
    compute: bool = True,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
    compute_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Write a dask collection into a store, each partition by the worker that has it.

    Parameters
    ----------
    data : dask.dataframe.DataFrame, dask.bag.Bag, dask.delayed.Delayed, or a list of Delayed
        A frame; or pairs of a key and a value, where several attributes are a dict. A Delayed is a frame of pandas or an iterable
        of pairs. Of the entries of one key those of the last partition count.
    uri : str or os.PathLike
        Where every worker, and this process, reaches the store.
    key : str, optional
        The column of a frame that the keys are; its index unless given.
    columns : sequence of str, optional
        The columns that are stored beside the key; all unless given.
    schema : Schema, optional
        Of a store that is made: unless given that of the frame's meta, in which whatever can be missing is nullable and columns
        of objects are text. Of pairs and delayed objects one attribute of bytes.
    mode : {"error", "append", "overwrite"}
        What becomes of a store that is there: an error; it gets the entries, too; the new one takes its place with the commit.
    commit : {"driver", "each"}
        "driver": all that was written appears at once, when every partition has been, or nothing does. A task that is done twice
        counts once. It counts as written when the job began, and has a day for it.
        "each": partitions appear as they are done. A task that is done twice writes twice; what a job that fails has written
        stays, and a store that is overwritten is gone from the beginning.
    compute : bool
        False gives a Delayed that does all of it, the commit in a task. What one that fails leaves behind goes with a vacuum
        after a day.
    config, storage_options : mapping, optional
        As of `tilekv.open`, for every process.
    compute_kwargs : mapping, optional
        What `dask.compute` is given, such as ``{"scheduler": "threads"}``.

    Returns
    -------
    dask.delayed.Delayed or None
        None when it was computed.

    Raises
    ------
    StoreExistsError
        When there is a store and the mode is "error", or something else.
    InvalidValueError, WrongTypeError
        For arguments that are refused, and entries that do not fit into the schema.
    MissingPackageError
        When dask is not installed.
    """
    check_mode(mode)
    if not is_one_of(commit, COMMITS):
        raise InvalidValueError(f"commit is one of {', '.join(COMMITS)}, not {shown(commit)}")
    if schema is not None and not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    if key is not None:
        check_key_name(key)
    truth("compute", compute)
    dask = package("dask", "to_store()", _INSTALL)
    entries = _Entries(key, None if columns is None else tuple(columns))
    partitions, found = _partitions(data, entries)
    request = _Request(
        os.fspath(uri), mode, commit, schema or found, dict(Config.of(config)), storage_options
    )
    token = os.urandom(4).hex()

    def written(target: Any) -> list[Any]:
        write = dask.delayed(_write, pure=False)
        return [
            write(target, i, part, entries, dask_key_name=(f"to-store-{token}", i))
            for i, part in enumerate(partitions)
        ]

    if not compute:
        target = dask.delayed(_begin, pure=False)(request, dask_key_name=f"begin-store-{token}")
        finish = dask.delayed(_finish, pure=False)
        return finish(target, written(target), dask_key_name=f"commit-store-{token}")
    begun = _begin(request)
    try:
        names = _computed(dask, written(begun), compute_kwargs or {})
    except BaseException:
        if isinstance(begun, Job):
            withdraw_job(begun)
        raise
    _finish(begun, names)
    return None


class _Request(NamedTuple):
    """What `to_store` was asked for."""

    uri: str
    mode: str
    commit: str
    schema: Schema | None
    config: Mapping[str, object]
    storage_options: Mapping[str, object] | None

    def open(self, mode: Any) -> Store:
        made = None if mode == "a" else self.schema
        return open_store(
            self.uri,
            mode,
            schema=made,
            config=self.config,
            storage_options=self.storage_options,
        )


class _Entries(NamedTuple):
    """What of a partition goes into a store."""

    key: str | None  # the column of the keys; None: the index
    columns: tuple[str, ...] | None  # the others; None: all

    def put(self, store: Store, part: Any) -> None:
        """A frame of pandas, or pairs."""
        if hasattr(part, "iloc") and hasattr(part, "columns"):
            self._put_frame(store, part)
        else:
            _put_pairs(store, part)

    def _put_frame(self, store: Store, frame: Any) -> None:
        named = {str(name): frame[name] for name in frame.columns}
        levels = {
            str(n): frame.index.get_level_values(n) for n in frame.index.names if n is not None
        }
        if self.key is None:
            key, keys = _index_name(frame), frame.index
        else:
            key, keys = self.key, _column(self.key, named, levels)
        attrs = [attr.name for attr in store.schema.attrs]
        if self.columns is None:
            unknown = [name for name in named if name != key and name not in attrs]
            if unknown:
                raise InvalidValueError(
                    f"the store has no attribute {unknown[0]!r}: columns= names what is stored"
                )
        columns = {name: _plain(_column(name, named, levels)) for name in attrs}
        for start in range(0, len(frame), ROWS):
            rows = slice(start, start + ROWS)
            table = {name: column[rows] for name, column in columns.items()}
            store.put_many({**table, key: keys[rows]}, key=key)


def _column(name: str, named: Mapping[str, Any], levels: Mapping[str, Any]) -> Any:
    if name not in named and name not in levels:
        raise InvalidValueError(
            f"a partition has no column {name!r}; it has {', '.join(map(repr, named))}"
        )
    return named.get(name, levels.get(name))


def _plain(column: Any) -> Any:
    """Categories of which there is none have no type that says what they are of."""
    dtype = column.dtype
    if hasattr(dtype, "categories") and not len(dtype.categories):
        return column.astype(object)
    return column


def _put_pairs(store: Store, pairs: Iterable[Any]) -> None:
    attrs = store.schema.attrs
    rest = iter(pairs)
    while some := list(islice(rest, ROWS)):
        try:
            keys, values = zip(*some, strict=True)
        except (TypeError, ValueError):
            raise WrongTypeError("a partition is pairs of a key and a value") from None
        if len(attrs) == 1:
            store.put_many(keys, values)
        else:
            store.update(zip(keys, values, strict=True))


def _begin(request: _Request) -> Job | _Request:
    """Make what the partitions are written into: see _write."""
    if request.commit == "each":
        with request.open(_OPENED[request.mode]) as store:
            check_fits(request.schema, store.schema)
        return request
    return begin_job(
        request.uri, request.mode, request.schema, request.config, request.storage_options
    )


def _write(target: Job | _Request, number: int, part: Any, entries: _Entries) -> list[str]:
    """A task: write a partition; the names of what the commit is to show."""
    if isinstance(target, Job):
        return write_part(target, number, lambda store: entries.put(store, part))
    with target.open("a") as store:
        try:
            entries.put(store, part)
        except BaseException:
            store.close(discard=True)
            raise
    return []


def _computed(dask: Any, tasks: list[Any], options: Mapping[str, Any]) -> list[list[str]]:
    """What the tasks give, in any order.

    From a cluster each result is taken as it comes. One that waited for the others would be lost with its worker, and so would
    all that this has written.
    """
    get = dask.base.get_scheduler(collections=tasks, scheduler=options.get("scheduler"))
    client: Any = getattr(get, "__self__", None)
    if not hasattr(client, "compute"):
        return list(dask.compute(*tasks, **options))
    distributed = package("distributed", "to_store()", _INSTALL)
    others = {name: value for name, value in options.items() if name != "scheduler"}
    futures = client.compute(tasks, **others)
    results = []
    try:
        completed = distributed.as_completed(futures, with_results=True)
        while futures:
            future, names = next(completed)
            results.append(names)
            futures.remove(future)
    finally:
        client.cancel(futures)
    return results


def _finish(target: Job | _Request, written: Iterable[list[str]]) -> None:
    if isinstance(target, Job):
        commit_job(target, [name for names in written for name in names])


# --- what collections are -------------------------------------------------------------------------------------------------


def _partitions(data: Any, entries: _Entries) -> tuple[list[Any], Schema | None]:
    """The delayed partitions of a collection, and the schema that its meta tells."""
    delayed = package("dask.delayed", "to_store()", _INSTALL)
    if isinstance(data, delayed.Delayed):
        data = [data]
    if isinstance(data, (list, tuple)):
        if not all(isinstance(part, delayed.Delayed) for part in data):
            raise WrongTypeError("a list given to to_store() is of delayed objects")
        return list(data), None
    if not hasattr(data, "to_delayed") or hasattr(data, "dtype"):
        raise WrongTypeError(
            f"what is stored is a frame or a bag of dask, or delayed objects, not {type(data).__name__}"
        )
    meta = getattr(data, "_meta", None)
    if meta is None:  # a bag
        return list(data.to_delayed()), None
    return list(data.to_delayed()), _schema_of(meta, entries)


def _schema_of(meta: Any, entries: _Entries) -> Schema:
    """The schema of a frame of which only the types are known."""
    utils = package("dask.dataframe.utils", "to_store()", _INSTALL)
    key, columns = entries
    if columns is not None:
        missing = [name for name in columns if name not in meta.columns]
        if missing:
            raise InvalidValueError(f"the frame has no column {missing[0]!r}")
        kept = [*columns, *([key] if key in meta.columns and key not in columns else [])]
        meta = meta[kept]
        if key is not None and key in meta.columns:
            meta = meta.reset_index(drop=True)
    example = utils.meta_nonempty(meta)
    if key in example.columns and example.index.name is not None:
        # Of a range pyarrow makes no column, and partitions of such an index need not be ranges.
        example.index = example.index.repeat(1)
    source = source_of(example, key)
    names = [each["name"] for each in source.columns if each["name"] != source.key]
    source.nulls = {name: _may_be_missing(example, name) for name in names}
    source.categories = {
        name: values for name, values in source.categories.items() if _knows_categories(meta, name)
    }
    return schema_of_source(source)._of_frame(source.frame())


def _may_be_missing(frame: Any, name: str) -> bool:
    """Whether a column of this type can have nulls: all but NumPy's own integers and bools."""
    column = frame[name] if name in frame.columns else frame.index.get_level_values(name)
    return getattr(column.dtype, "kind", "O") not in "iub" or hasattr(column.dtype, "na_value")


def _knows_categories(meta: Any, name: str) -> bool:
    utils = package("dask.dataframe.utils", "to_store()", _INSTALL)
    return name in meta.columns and bool(utils.has_known_categories(meta[name]))


def _index_name(frame: Any) -> str:
    """What pyarrow calls an index without a name, too."""
    name = frame.index.name
    return "__index_level_0__" if name is None else str(name)


# --- reading ------------------------------------------------------------------------------------------------------------


def from_store(
    uri: Uri,
    attrs: Iterable[str] | None = None,
    npartitions: int | None = None,
    *,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Any:
    """A store as a frame of dask, whose partitions are ranges of the keys' digests: about as large as one another, in no order
    that means something.

    All partitions show the store as it is now, whatever others write and merge: what was merged is kept for a day
    (``kv.history``). A column that nobody asks for is not read.

    Parameters
    ----------
    uri : str or os.PathLike
    attrs : iterable of str, optional
        The attributes wanted; all unless given.
    npartitions : int, optional
        1 to 2^20; by default one for each 128 MiB of the store's files.
    config, storage_options : mapping, optional
        As of `tilekv.open`, for every process.

    Returns
    -------
    dask.dataframe.DataFrame
        With the columns and the index of the frame that the store was made of, or a column `key`. Integers and bools that are
        nullable have pandas' nullable dtypes.

    Raises
    ------
    StoreNotFoundError, FormatError, CorruptionError
        As `tilekv.open`.
    InvalidValueError
        When the keys are of several types, which are no column, here or in the task that meets them.
    """
    frames = package("dask.dataframe", "from_store()", _INSTALL)
    utils = package("dask.dataframe.utils", "from_store()", _INSTALL)
    with open_store(uri, config=config, storage_options=storage_options) as store:
        pinned, wanted = Pinned.of(store), _attrs(store, attrs)
        meta = _meta(store, wanted)
    # dask would make text of every column of objects: of bytes and of arrays. What is text has the dtype of text.
    with package("dask", "from_store()", _INSTALL).config.set({"dataframe.convert-string": False}):
        return frames.from_map(
            _read_frame,
            pinned.ranges(npartitions),
            meta=utils.clear_known_categories(meta),
            label="from-store",
            enforce_metadata=False,
            pinned=pinned,
            attrs=wanted,
            dtypes=dict(meta.dtypes),
        )


def bag_from_store(
    uri: Uri,
    attrs: Iterable[str] | None = None,
    npartitions: int | None = None,
    *,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Any:
    """A store as a bag of pairs of a key and a value, keys of any types; the rest is as of `from_store`.

    The value is a dict where the store has several attributes, or `attrs` was given.
    """
    dask = package("dask", "bag_from_store()", _INSTALL)
    bags = package("dask.bag", "bag_from_store()", _INSTALL)
    with open_store(uri, config=config, storage_options=storage_options) as store:
        pinned, names = Pinned.of(store), _attrs(store, attrs)
    bare = attrs is None and len(names) == 1
    read = dask.delayed(_read_pairs, pure=False)
    token = os.urandom(4).hex()
    return bags.from_delayed(
        [
            read(bounds, pinned, names, bare, dask_key_name=(f"from-store-{token}", i))
            for i, bounds in enumerate(pinned.ranges(npartitions))
        ]
    )


def map_many(
    keys: Any,
    uri: Uri,
    attrs: Iterable[str] | None = None,
    default: Any = None,
    *,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Any:
    """Look up a bag of keys: the bag of their values, in the same order; each partition is one batch.

    Parameters
    ----------
    keys : dask.bag.Bag
    attrs : iterable of str, optional
        The attributes wanted, as of `Store.get_many`.
    default : object
        The value of a key that is not there.
    uri, config, storage_options
        As of `from_store`; all partitions see the store as it is now.
    """
    bags = package("dask.bag", "map_many()", _INSTALL)
    if not isinstance(keys, bags.Bag):
        raise WrongTypeError(f"keys is a bag of dask, not {type(keys).__name__}")
    with open_store(uri, config=config, storage_options=storage_options) as store:
        pinned = Pinned.of(store)
    names = None if attrs is None else list(attrs)
    return keys.map_partitions(_get_many, pinned=pinned, attrs=names, default=default)


def _attrs(store: Store, attrs: Iterable[str] | None) -> list[str]:
    """Names of attributes, checked."""
    names = [attr.name for attr in store.schema.attrs] if attrs is None else list(attrs)
    store.scan(names)  # says what is wrong with them
    return names


def _meta(store: Store, attrs: list[str]) -> Any:
    """An empty frame with the types of all partitions."""
    first = next(iter(store.scan(attrs, rows=1)), None)
    rows = store.scan(attrs) if first is None else first
    meta = store._frames.make("pandas", rows).iloc[:0]
    for attr in store.schema.attrs:
        if attr.name in meta.columns and attr.nullable:
            dtype = meta[attr.name].dtype
            if dtype.kind == "b":
                meta[attr.name] = meta[attr.name].astype("boolean")
            elif dtype.kind in "iu" and not hasattr(dtype, "na_value"):
                meta[attr.name] = meta[attr.name].astype(
                    dtype.name.replace("i", "I").replace("u", "U")
                )
    return meta


def _read_frame(
    bounds: tuple[int, int],
    pinned: Pinned,
    attrs: list[str],
    dtypes: Mapping[str, Any],
    columns: Sequence[str] | None = None,
) -> Any:
    """A task: a partition; `columns`: those that are used."""
    wanted = attrs if columns is None else [name for name in attrs if name in columns]
    with pinned.handle() as store:
        frame = store._frames.make("pandas", store.scan(wanted, low=bounds[0], high=bounds[1]))
    changed = {
        name: dtype
        for name, dtype in dtypes.items()
        if name in frame.columns and frame[name].dtype != dtype and not hasattr(dtype, "categories")
    }
    frame = frame.astype(changed) if changed else frame
    return frame if columns is None else frame[list(columns)]


def _read_pairs(
    bounds: tuple[int, int], pinned: Pinned, attrs: list[str], bare: bool
) -> list[tuple[Any, Any]]:
    """A task: a partition."""
    pairs: list[tuple[Any, Any]] = []
    with pinned.handle() as store:
        for batch in store.scan([], low=bounds[0], high=bounds[1]):
            keys = batch.keys
            values = store.get_many(keys) if bare else store.get_many(keys, attrs=attrs)
            pairs += zip(keys, values, strict=True)
    return pairs


def _get_many(
    keys: Iterable[Any], pinned: Pinned, attrs: list[str] | None, default: Any
) -> list[Any]:
    """A task: a batch."""
    with pinned.handle() as store:
        return store.get_many(list(keys), default, attrs)


# --- upkeep -------------------------------------------------------------------------------------------------------------


def consolidate(
    uri: Uri,
    *,
    client: Any = None,
    parts: int | None = None,
    progress: Progress = None,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> bool:
    """`tilekv.consolidate` by the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client, optional
        The current one unless given.
    parts, progress, config, storage_options
        As of `tilekv.consolidate`, which says what is returned and raised, too.
    """
    distributed = package("distributed", "consolidate()", _INSTALL)
    executor = (client or distributed.get_client()).get_executor()
    return parallel.consolidate(
        uri,
        executor=executor,
        parts=parts,
        progress=progress,
        config=config,
        storage_options=storage_options,
    )

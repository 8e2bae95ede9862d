"""The schema of a frame, and stores made of frames."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tilekv.arguments import truth
from tilekv.config import Config
from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.frames.fields import check_key, form_of
from tilekv.frames.giving import package
from tilekv.frametypes import FrameTypes, Tree
from tilekv.kvcore.values.arrow_schema import arrow_tree
from tilekv.progress import Progress, reporter
from tilekv.schema import Attr, Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools.atomic_build import whole_store

Uri = str | os.PathLike[str]
Frame = Any  # of pandas, polars or Arrow

ROWS: Final = 65536  # that are handed to the store in one call
_MOST_CATEGORIES: Final = 10_000  # that are remembered of a column
_NULLABLE: Final = 2  # ARROW_FLAG_NULLABLE


@dataclass
class Source:
    """A frame as what a store is made of.

    Attributes
    ----------
    key : str
        The column of the keys.
    columns : list of Tree
        All of them.
    parts : callable
        Iterates over tables of `put_many`, of some rows each, with how many these are.
    rows : int or None
        How many there are, where that is known before.
    nulls : dict
        Which columns have a null, where that is known: else what the types say counts.
    """

    key: str
    columns: list[Tree]
    parts: Callable[[], Iterator[tuple[Any, int]]]
    rows: int | None = None
    nulls: Mapping[str, bool] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    categories: dict[str, list[Any]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def frame(self) -> FrameTypes:
        """What the store remembers of it."""
        members = {
            "key": self.key,
            "columns": [_stripped(tree) for tree in self.columns],
            "metadata": self.metadata,
            "categories": {
                name: values for name, values in self.categories.items() if _is_json(values)
            },
            "dtypes": self.dtypes,
        }
        found = FrameTypes.of({name: part for name, part in members.items() if part})
        assert found is not None
        return found


def _stripped(tree: Tree) -> Tree:
    """Without the words for messages."""
    found = {name: part for name, part in tree.items() if name != "type"}
    if "children" in found:
        found["children"] = [_stripped(child) for child in found["children"]]
    if "dictionary" in found:
        found["dictionary"] = _stripped(found["dictionary"])
    return found


def _is_json(values: list[Any]) -> bool:
    """Whether these can be remembered."""
    if len(values) > _MOST_CATEGORIES:
        return False
    return all(type(value) in (str, int, bool) for value in values)


# --- what frames there are ----------------------------------------------------------------------------------------------


def check_key_name(key: object) -> None:
    """WrongTypeError when it is no name of a column."""
    if not isinstance(key, str):
        raise WrongTypeError(f"key is the name of a column, not {shown(key)}")


def source_of(frame: Frame, key: str | None) -> Source:
    """A frame of any library as a Source; WrongTypeError, InvalidValueError for what is none, and for the key."""
    if key is not None:
        check_key_name(key)
    if isinstance(frame, type):
        raise WrongTypeError(f"a frame is wanted, not the class {frame.__name__}")
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return _of_pandas(pandas, frame, key)
    if key is None:
        raise WrongTypeError("key= names the column that the keys are")
    if polars is not None and isinstance(frame, (polars.DataFrame, polars.LazyFrame)):
        return _of_polars(frame.lazy().collect(), key)
    return _of_arrow(frame, key)


def _key_tree(columns: Iterable[Tree], key: str) -> Tree:
    names = []
    for tree in columns:
        names.append(tree["name"])
        if tree["name"] == key:
            return tree
    raise InvalidValueError(
        f"the frame has no column {key!r}; it has {', '.join(map(repr, names))}"
    )


def _of_polars(frame: Any, key: str) -> Source:
    tree = arrow_tree(frame.clear())
    counts = frame.null_count().row(0)

    def parts() -> Iterator[tuple[Any, int]]:
        for part in frame.iter_slices(ROWS):
            yield part, len(part)

    return Source(
        key,
        tree.get("children", []),
        parts,
        len(frame),
        {name: count > 0 for name, count in zip(frame.columns, counts, strict=True)},
    )


def _of_arrow(table: Any, key: str) -> Source:
    pa = package("pyarrow", "from_arrow()")
    if isinstance(table, (pa.RecordBatch, pa.Table)):
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        return _of_table(pa, whole, key)
    rows = None
    if hasattr(table, "scanner") and hasattr(table, "count_rows"):
        dataset = table
        schema, rows = dataset.schema, dataset.count_rows()

        def batches() -> Iterable[Any]:
            found: Iterable[Any] = dataset.to_batches()
            return found
    else:
        if hasattr(table, "to_reader"):
            table = table.to_reader()
        if isinstance(table, type) or not (
            hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__")
        ):
            raise WrongTypeError(
                f"a frame is of pandas, polars or Arrow, or has __arrow_c_stream__, not {type(table).__name__}"
            )
        if hasattr(table, "__arrow_c_array__") and not hasattr(table, "__arrow_c_stream__"):
            return _of_arrow(_as_table(pa.record_batch, table), key)
        stream = table
        if not isinstance(stream, pa.RecordBatchReader):
            stream = _as_table(pa.RecordBatchReader.from_stream, table)
        schema = stream.schema

        def batches() -> Iterable[Any]:
            found: Iterable[Any] = stream
            return found

    def parts() -> Iterator[tuple[Any, int]]:
        for batch in batches():
            for start in range(0, batch.num_rows, ROWS):
                part = batch.slice(start, ROWS)
                yield part, part.num_rows

    tree = arrow_tree(schema)
    return Source(key, tree.get("children", []), parts, rows, {}, tree.get("metadata", {}))


def _as_table(make: Callable[[Any], Any], given: Any) -> Any:
    try:
        return make(given)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own are these too
        raise WrongTypeError(f"{type(given).__name__} is no table of columns: {error}") from error


def _of_table(pa: Any, table: Any, key: str) -> Source:
    def parts() -> Iterator[tuple[Any, int]]:
        for batch in table.to_batches(max_chunksize=ROWS):
            yield batch, batch.num_rows

    tree = arrow_tree(table.schema)
    categories = {}
    for column in table.schema:
        if pa.types.is_dictionary(column.type) and table.num_rows:
            listed = table[column.name].unify_dictionaries().chunk(0).dictionary
            if len(listed) <= _MOST_CATEGORIES:
                categories[column.name] = listed.to_pylist()
    return Source(
        key,
        tree.get("children", []),
        parts,
        table.num_rows,
        {name: table[name].null_count > 0 for name in table.column_names if _once(table, name)},
        tree.get("metadata", {}),
        categories,
    )


def _once(table: Any, name: str) -> bool:
    return bool(table.column_names.count(name) == 1)


def _of_pandas(pd: Any, frame: Any, key: str | None) -> Source:
    pa = package("pyarrow", "from_pandas()")
    names = list(map(str, frame.columns))
    index = frame.index
    if len(set(names)) != len(names):
        raise InvalidValueError(f"the frame has columns of one name: {', '.join(map(repr, names))}")
    by_index = key is None or (key not in names and key in index.names)
    if by_index and index.nlevels > 1:
        raise InvalidValueError(
            "the frame's index has several levels, and a key is one value: name a column with key=, or make one of the levels"
        )
    if not by_index and index.names == [None]:
        frame = frame.reset_index(drop=True)  # what a filter has left of the numbers of rows
    try:
        schema = pa.Schema.from_pandas(frame, preserve_index=True if by_index else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        wrong = next((name for name, one in _series(frame) if not _is_of_one_type(pa, one)), None)
        raise WrongTypeError(
            f"column {wrong!r} is no column of one type: {error.args[0]}; make it one, such as by astype(str)"
        ) from error
    tree = arrow_tree(schema)
    columns = tree.get("children", [])
    if by_index:
        key = columns[-1]["name"]
    assert key is not None
    kept = {each["name"] for each in columns}
    series = dict(_series(frame))
    for name in frame.index.names:
        if name is not None and str(name) in kept and str(name) not in series:
            series[str(name)] = frame.index.get_level_values(name)
    if by_index:
        series[key] = frame.index
    if len(series) < len(columns):
        raise InvalidValueError(
            "the frame's index has a level without a name, or one that a column has: name it, or reset_index(drop=True)"
        )

    def parts() -> Iterator[tuple[Any, int]]:
        for start in range(0, len(frame), ROWS):
            end = min(start + ROWS, len(frame))
            yield {name: column[start:end] for name, column in series.items()}, end - start

    categories = {}
    dtypes = {}
    for name, column in series.items():
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            categories[name] = dtype.categories.tolist()
        elif isinstance(dtype, pd.StringDtype):
            kind = "string" if dtype.na_value is pd.NA else "str"
            dtypes[name] = f"{kind} {dtype.storage}"
        elif isinstance(dtype, pd.ArrowDtype):
            dtypes[name] = "arrow"
        elif dtype == np.dtype("O"):
            dtypes[name] = "object"
    return Source(
        key,
        columns,
        parts,
        len(frame),
        {name: bool(column.isna().any()) for name, column in series.items()},
        tree.get("metadata", {}),
        categories,
        dtypes,
    )


def _series(frame: Any) -> Iterator[tuple[str, Any]]:
    for i, name in enumerate(frame.columns):
        yield str(name), frame.iloc[:, i]


def _is_of_one_type(pa: Any, series: Any) -> bool:
    try:
        pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return False
    return True


# --- schemas ------------------------------------------------------------------------------------------------------------


def schema_of(frame: Frame, key: str | None = None, *, nullable: bool | None = None) -> Schema:
    """Return the schema that holds a frame: what `from_arrow`, `from_pandas` and `from_polars` make a store of.

    Parameters
    ----------
    frame : pandas.DataFrame, polars.DataFrame, pyarrow.Table, or what has ``__arrow_c_stream__``
    key : str, optional
        The column that the keys are; of a pandas frame its index unless given.
    nullable : bool, optional
        Whether attributes may be null: all of them, or none. Unless given those that have a null, and of a stream, of which that
        is not known before it is read, those whose type says so.

    Returns
    -------
    Schema
        With an attribute for every other column: dictionaries and categories as what they stand for, lists of numbers as `var`,
        those of a fixed length as `shape`, times in their unit. It knows the frame's columns and types, and so does a store that
        is made with it. `Schema.replace` changes attributes.

    Raises
    ------
    WrongTypeError
        When a column cannot be held; the message names it and says what to do.
    InvalidValueError
        When the column of keys is missing, and for names that no attribute can have.
    MissingPackageError
        When pyarrow is not installed, which all frames but those of polars take.
    """
    return schema_of_source(source_of(frame, key), nullable)


def schema_of_source(source: Source, nullable: bool | None = None) -> Schema:
    """The same of a Source; raises so."""
    if nullable is not None:
        truth("nullable", nullable)
    _check_keys(source)
    attrs = []
    for tree in source.columns:
        name = tree["name"]
        if name == source.key:
            continue
        dtype, shape, var = form_of(tree)
        null = nullable
        if null is None:
            null = source.nulls.get(name, bool(tree.get("flags", 0) & _NULLABLE))
        attrs.append(Attr(name, dtype, shape, var, nullable=null))
    if not attrs:
        raise InvalidValueError(
            f"the frame has no column but {source.key!r}, the keys: a store needs one for the values"
        )
    return Schema(attrs)._of_frame(source.frame())


def _check_keys(source: Source) -> None:
    """InvalidValueError, WrongTypeError when the column of keys is missing, has nulls, or values that cannot be keys."""
    check_key(_key_tree(source.columns, source.key))
    if source.nulls.get(source.key):
        raise InvalidValueError(
            f"column {source.key!r} has nulls, and a key is never null: leave their rows out, or choose another column"
        )


# --- stores -------------------------------------------------------------------------------------------------------------


def make_store(
    uri: Uri,
    source: Source,
    schema: Schema | None,
    config: Mapping[str, object] | Config | None,
    progress: Progress,
    storage_options: Mapping[str, object] | None,
) -> Store:
    """A store of a Source, which appears when it is whole; open for writing."""
    options = Config.of(config)
    if schema is None:
        schema = schema_of_source(source)
    elif not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    else:
        _check_keys(source)
    schema = schema._of_frame(source.frame())
    report = reporter(progress, "loading")
    done = 0
    with whole_store(uri, schema, True, None, storage_options, options) as target:
        for part, rows in source.parts():
            target.put_many(part, key=source.key)
            done += rows
            if source.rows is not None and done < source.rows:
                report(done, source.rows)
        target.flush()
        kept = len(target)
        if kept != done:
            raise InvalidValueError(
                f"{done - kept:,} of {done:,} rows have a key, of column {source.key!r}, that another row has: choose another "
                "column, or keep one row of each key"
            )
    report(done, done)
    return open_store(uri, "a", config=options, storage_options=storage_options)


def from_arrow(
    uri: Uri,
    table: Frame,
    key: str,
    *,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> Store:
    """Make a store of a table of Arrow's: a pyarrow Table, a RecordBatchReader, a Dataset, or whatever has
    ``__arrow_c_stream__``, as relations of DuckDB do. Streams and Datasets are read in batches.

    Parameters
    ----------
    uri : str or os.PathLike
        Nothing may be there. The store appears when it is whole: until then it has a hidden name beside its place.
    table : pyarrow.Table, or what has ``__arrow_c_stream__``
    key : str
        The column that the keys are. No two rows may have one key.
    schema : Schema, optional
        What `schema_of` gives unless given.
    config, storage_options : mapping, optional
        As of `open`.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (rows done, rows in all).

    Returns
    -------
    Store
        Open for writing. `Store.to_arrow` gives the same rows, with the same columns and types.

    Raises
    ------
    StoreExistsError
        When there is something at `uri`.
    WrongTypeError, InvalidValueError, OutOfRangeError
        As of `schema_of` and `Store.put_many`, and when two rows have one key. Nothing is left at `uri`.
    MissingPackageError
        When pyarrow is not installed.
    """
    return make_store(uri, source_of(table, key), schema, config, progress, storage_options)


def from_pandas(
    uri: Uri,
    frame: Frame,
    key: str | None = None,
    *,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> Store:
    """Make a store of a pandas DataFrame, whose keys are a column, or else its index.

    An index that has no name is left out where a column is the key. `Store.to_pandas` gives the same rows, with the same
    columns, index and types. Arguments and errors are those of `from_arrow`.
    """
    pd = package("pandas", "from_pandas()")
    if not isinstance(frame, pd.DataFrame):
        raise WrongTypeError(f"from_pandas takes a pandas DataFrame, not {type(frame).__name__}")
    return make_store(uri, source_of(frame, key), schema, config, progress, storage_options)


def from_polars(
    uri: Uri,
    frame: Frame,
    key: str,
    *,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> Store:
    """Make a store of a polars DataFrame, or of a LazyFrame, which is collected.

    `Store.to_polars` gives the same rows, with the same columns and types. Arguments and errors are those of `from_arrow`; it
    does not take pyarrow.
    """
    pl = package("polars", "from_polars()")
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        raise WrongTypeError(f"from_polars takes a polars DataFrame, not {type(frame).__name__}")
    return make_store(uri, source_of(frame, key), schema, config, progress, storage_options)

"""Stores made of files, by pyarrow's own readers, a batch at a time: whatever size they have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from tilekv.config import Config
from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.frames.giving import local_path, package
from tilekv.frames.loading import ROWS, Source, Uri, check_key_name, make_store
from tilekv.kvcore.values.arrow_schema import arrow_tree
from tilekv.progress import Progress
from tilekv.schema import Schema
from tilekv.store import Store

Path = str | os.PathLike[str]


def from_parquet(
    uri: Uri,
    path: Path,
    key: str,
    *,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
) -> Store:
    """Make a store of a Parquet file, which is read in batches.

    Which columns have nulls is taken from the file's statistics. What pandas or polars noted in the file comes back with
    `Store.to_pandas` and `Store.to_polars`. Of a folder of files pass ``pyarrow.dataset.dataset(folder)`` to `from_arrow`.

    Parameters
    ----------
    uri : str or os.PathLike
        Nothing may be there. The store appears when it is whole.
    path : str or os.PathLike
    key : str
        The column that the keys are. No two rows may have one key.
    schema, config, progress, storage_options : optional
        As of `from_arrow`.

    Raises
    ------
    OSError
        When the file cannot be read.
    StoreExistsError, WrongTypeError, InvalidValueError, OutOfRangeError, MissingPackageError
        As of `from_arrow`. Nothing is left at `uri`.
    """
    pa = package("pyarrow", "from_parquet()")
    parquet = package("pyarrow.parquet", "from_parquet()")
    place = local_path(path)
    check_key_name(key)
    try:
        return _of_parquet(parquet, uri, place, key, schema, config, progress, storage_options)
    except pa.ArrowInvalid as error:
        raise InvalidValueError(f"{place}: {error}") from error


def _of_parquet(
    parquet: Any,
    uri: Uri,
    place: str,
    key: str,
    schema: Any,
    config: Any,
    progress: Progress,
    storage_options: Mapping[str, object] | None,
) -> Store:
    with parquet.ParquetFile(place) as file:
        tree = arrow_tree(file.schema_arrow)
        source = Source(
            key,
            tree.get("children", []),
            lambda: _parts(file.iter_batches(ROWS)),
            file.metadata.num_rows,
            _nulls(file.metadata),
            tree.get("metadata", {}),
        )
        return make_store(uri, source, schema, config, progress, storage_options)


def _parts(batches: Any) -> Iterator[tuple[Any, int]]:
    for batch in batches:
        yield batch, batch.num_rows


def _nulls(metadata: Any) -> dict[str, bool]:
    """Which columns have a null, of those whose statistics tell it of every row group."""
    found: dict[str, bool] = {}
    unknown = set()
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            name = column.path_in_schema
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count:
                unknown.add(name)
            else:
                found[name] = found.get(name, False) or statistics.null_count > 0
    return {name: null for name, null in found.items() if name not in unknown}


def from_csv(
    uri: Uri,
    path: Path,
    key: str,
    *,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, object] | None = None,
    **options: Any,
) -> Store:
    """Make a store of a CSV file, which is read in batches.

    Types are those that pyarrow finds in the first megabyte, unless there is a schema: a CSV file has none. An empty cell is a
    null, and one of two quotes an empty text; no word is a null.

    Parameters
    ----------
    uri : str or os.PathLike
        Nothing may be there. The store appears when it is whole.
    path : str or os.PathLike
        With the names of the columns in its first row.
    key : str
        The column that the keys are. No two rows may have one key.
    schema : Schema, optional
        The types of the columns but the key's.
    config, progress, storage_options : optional
        As of `from_arrow`.
    **options
        Of pyarrow.csv.ParseOptions, such as ``delimiter=";"``.

    Raises
    ------
    OSError
        When the file cannot be read.
    StoreExistsError, WrongTypeError, InvalidValueError, OutOfRangeError, MissingPackageError
        As of `from_arrow`, and when a cell is not of its column's type. Nothing is left at `uri`.
    """
    pa = package("pyarrow", "from_csv()")
    csv = package("pyarrow.csv", "from_csv()")
    place = local_path(path)
    check_key_name(key)
    if schema is not None and not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    kinds = {} if schema is None else {attr.name: _kind(pa, attr) for attr in schema.attrs}
    converting = csv.ConvertOptions(
        column_types=kinds,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        parsing = csv.ParseOptions(**options)
    except (TypeError, ValueError) as error:
        reason = str(error).replace("__init__() ", "")
        raise InvalidValueError(f"no options of a CSV file: {reason}") from error
    try:
        with csv.open_csv(place, parse_options=parsing, convert_options=converting) as file:
            tree = arrow_tree(file.schema)
            source = Source(key, tree.get("children", []), lambda: _parts(file), None)
            return make_store(uri, source, schema, config, progress, storage_options)
    except pa.ArrowInvalid as error:
        raise InvalidValueError(
            f"{place}: {error}; schema= says of which type a column is"
        ) from error


def _kind(pa: Any, attr: Any) -> Any:
    if attr.type_name in ("str", "bytes"):
        return pa.string() if attr.type_name == "str" else pa.binary()
    return pa.from_numpy_dtype(attr.dtype)

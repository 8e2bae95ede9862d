"""Stores made of files, by pyarrow's own readers, a batch at a time: whatever size they have."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tilekv.config import Config
from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.frames.giving import local_path, package, reason
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
    with _reading(pa, place):
        file = parquet.ParquetFile(place)
    with file:
        with _reading(pa, place):
            tree = arrow_tree(file.schema_arrow)
            nulls = _nulls(file.metadata)
        source = Source(
            key,
            tree.get("children", []),
            lambda: _parts(file.iter_batches(ROWS), _reading(pa, place)),
            file.metadata.num_rows,
            nulls,
            tree.get("metadata", {}),
        )
        return make_store(uri, source, schema, config, progress, storage_options)


@contextmanager
def _reading(pa: Any, place: str, advice: str = "") -> Iterator[None]:
    """Errors of pyarrow as ours: of a folder, and of what the file has, pyarrow raises an OSError that has no errno."""
    files = package("pyarrow.fs", "a file of rows")
    if files.LocalFileSystem().get_file_info(place).type == files.FileType.Directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place)
    try:
        yield
    except pa.ArrowInvalid as error:
        raise InvalidValueError(f"{place}: {error}{advice}") from error
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{place}: {error}") from error
    except OSError as error:
        if error.errno:
            raise
        raise InvalidValueError(f"{place}: {error}") from error


def _parts(batches: Any, reading: AbstractContextManager[None]) -> Iterator[tuple[Any, int]]:
    with reading:
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
        raise InvalidValueError(f"no options of a CSV file: {reason(error)}") from error
    advice = "; schema= says of which type a column is"
    with _reading(pa, place, advice):
        file = csv.open_csv(place, parse_options=parsing, convert_options=converting)
    with file:
        tree = arrow_tree(file.schema)
        source = Source(
            key, tree.get("children", []), lambda: _parts(file, _reading(pa, place, advice)), None
        )
        return make_store(uri, source, schema, config, progress, storage_options)


def _kind(pa: Any, attr: Any) -> Any:
    if attr.type_name in ("str", "bytes"):
        return pa.string() if attr.type_name == "str" else pa.binary()
    return pa.from_numpy_dtype(attr.dtype)

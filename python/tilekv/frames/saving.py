"""Rows of a store into files, by pyarrow's own writers, a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tilekv.errors import InvalidValueError
from tilekv.frames.giving import local_path, package, reader, reason
from tilekv.progress import Progress, reporter
from tilekv.schema import Schema

Path = str | os.PathLike[str]


def write_parquet(
    schema: Schema, rows: Any, total: int, path: Path, progress: Progress, options: dict[str, Any]
) -> None:
    """As a Parquet file, which appears when it is whole. options: of pyarrow's ParquetWriter."""
    parquet = package("pyarrow.parquet", "to_parquet()")

    def writer(place: str, kinds: Any) -> Any:
        return parquet.ParquetWriter(place, kinds, **{"compression": "zstd", **options})

    _write(schema, rows, total, path, progress, writer)


def write_csv(
    schema: Schema, rows: Any, total: int, path: Path, progress: Progress, options: dict[str, Any]
) -> None:
    """As a CSV file, which appears when it is whole. options: of pyarrow's WriteOptions."""
    csv = package("pyarrow.csv", "to_csv()")

    def writer(place: str, kinds: Any) -> Any:
        return csv.CSVWriter(place, kinds, write_options=csv.WriteOptions(**options))

    _write(schema, rows, total, path, progress, writer)


def _write(
    schema: Schema,
    rows: Any,
    total: int,
    path: Path,
    progress: Progress,
    writer: Callable[[str, Any], Any],
) -> None:
    pa = package("pyarrow", "a file of rows")
    fs = package("pyarrow.fs", "a file of rows").LocalFileSystem()
    report = reporter(progress, "writing")
    batches = reader(schema, rows)
    place = local_path(path)
    part = f"{place}.part"
    done = 0
    try:
        try:
            opened = writer(part, batches.schema)
        except (TypeError, ValueError, NotImplementedError) as error:  # for options, and columns
            raise InvalidValueError(f"{place} cannot be written: {reason(error)}") from error
        with opened as out:
            for batch in batches:
                out.write_batch(batch)
                done += batch.num_rows
                if done < total:
                    report(done, total)
        fs.move(part, place)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InvalidValueError(f"{place} cannot be written: {error}") from error
    finally:
        if fs.get_file_info(part).is_file:
            fs.delete_file(part)
    report(done, done)

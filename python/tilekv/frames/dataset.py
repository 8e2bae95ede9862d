"""A store as a pyarrow Dataset: who asks one for some columns has these read, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilekv.frames.giving import package, reader
from tilekv.schema import Schema

MakeScan = Callable[[list[str]], Any]  # of some attributes


class StoreRows:
    """What a Dataset of a store does in its own way; the rest is pyarrow's, over `scanner`."""

    def __init__(self, schema: Schema, scan: MakeScan) -> None:
        """Not pyarrow's: it would want a dataset of Arrow's own."""
        self._store_schema = schema
        self._scan = scan
        self._names = [attr.name for attr in schema.attrs]
        self._whole = reader(schema, scan(self._names)).schema

    @property
    def schema(self) -> Any:
        """What columns there are."""
        return self._whole

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """A Scanner over some columns of the rows that the filter holds of."""
        datasets = package("pyarrow.dataset", "to_dataset()")
        wanted = self._names
        if isinstance(columns, list):
            asked = {*columns, *_columns_of(filter, self._whole)}
            wanted = [name for name in self._names if name in asked]
        rows = reader(self._store_schema, self._scan(wanted))
        if columns is None:
            columns = rows.schema.names
        return datasets.Scanner.from_batches(rows, columns=columns, filter=filter, **options)


def dataset_of(schema: Schema, scan: MakeScan) -> Any:
    """A pyarrow Dataset of the rows of a store."""
    base = package("pyarrow.dataset", "to_dataset()").Dataset
    return type("StoreDataset", (StoreRows, base), {})(schema, scan)


def _columns_of(condition: Any, schema: Any) -> set[str]:
    """Those without which a condition means nothing: an expression does not tell its fields."""
    found: set[str] = set()
    if condition is None:
        return found
    pa = package("pyarrow", "to_dataset()")
    scanner = package("pyarrow.dataset", "to_dataset()").Scanner
    for name in schema.names:
        rest = pa.schema([field for field in schema if field.name != name])
        try:
            scanner.from_batches(rest.empty_table().to_reader(), filter=condition).to_table()
        except (pa.ArrowInvalid, KeyError):
            found.add(name)
    return found

"""Rows of a store as frames: of the columns and types of the frame that it was made of, or of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final

from tilekv.errors import InvalidValueError, MissingPackageError, WrongTypeError
from tilekv.frames.fields import EXTENSION, TENSOR, Form, form_of
from tilekv.frametypes import FrameTypes, Tree
from tilekv.kvcore.batch.scan import Scan
from tilekv.kvcore.values.arrow_schema import ArrowTree
from tilekv.schema import Attr, Schema

# A pyarrow Table, a DataFrame of pandas or of polars, which are imported when one is asked for; a Batch or a Scan.
Table = Any
Frame = Any
Rows = Any


def package(name: str, what: str, install: str = "") -> Any:
    """A package that tilekv does not depend on; MissingPackageError, which says `what` takes it, and what to `install` if that is
    called otherwise, when it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise MissingPackageError(f"{what} takes {top}: pip install {install or top}") from error


def reason(error: Exception) -> str:
    """What a constructor of pyarrow says of its arguments, without its own name."""
    return re.sub(r"__c?init__\(\) ", "", str(error))


@contextmanager
def _own_errors(rows: Rows) -> Iterator[None]:
    """An error that reading meets, such as damage, comes through a stream of Arrow as one of the reader's own: it is met again,
    and raised as what it is."""
    try:
        yield
    except Exception:
        if isinstance(rows, Scan):
            for _ in rows:
                pass
        raise


def local_path(path: object) -> str:
    """A path of a file as pyarrow takes it; WrongTypeError, InvalidValueError for what is none."""
    found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(found, str):
        raise WrongTypeError(f"a file's path is a str or an os.PathLike, not {type(path).__name__}")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(
            f"{found!r} is no path that pyarrow takes: it is not UTF-8"
        ) from None
    if "://" in found or "\0" in found:
        raise InvalidValueError(f"{found!r} is no path of a file")
    return found


def kept_columns(schema: Schema) -> list[Tree]:
    """The columns that are given back in the frame's types: of an attribute that has another type now, what it has counts."""
    if schema._frame is None:
        return []
    attrs = {attr.name: attr for attr in schema.attrs}
    kept = []
    for tree in schema._frame.columns:
        attr = attrs.get(tree["name"])
        if tree["name"] == schema._frame.key or (attr and form_of(tree) == _form(attr)):
            kept.append(tree)
    return kept


def _form(attr: Attr) -> Form:
    text = attr.type_name in ("bytes", "str")
    return Form(attr.type_name, attr.shape, attr.var and not text)


def _check_key(schema: Schema, names: list[str]) -> None:
    """A frame without its keys would not be that of its rows. Where there is a column of them, it is the first."""
    if not {"key", "__key", schema.key_name} & set(names[:1]):
        raise InvalidValueError(
            "the keys are of several types, or of one that Arrow has no array of, so that they are no column: scan() gives "
            "batches of columns with their keys"
        )


# --- Arrow --------------------------------------------------------------------------------------------------------------


def to_arrow(schema: Schema, rows: Rows) -> Table:
    """As a pyarrow Table."""
    pa = package("pyarrow", "to_arrow()")
    with _own_errors(rows):
        table = pa.RecordBatchReader.from_stream(rows).read_all()
    _check_key(schema, table.column_names)
    frame = schema._frame
    if frame is None:
        return table
    return _fitted(pa, table, kept_columns(schema), frame, True)


def reader(schema: Schema, rows: Rows) -> Any:
    """As a pyarrow RecordBatchReader, a batch at a time."""
    pa = package("pyarrow", "a reader of record batches")
    with _own_errors(rows):
        stream = pa.RecordBatchReader.from_stream(rows)
    _check_key(schema, stream.schema.names)
    frame = schema._frame

    def batches() -> Iterator[Any]:
        while True:
            with _own_errors(rows):
                batch = next(stream, None)
            if batch is None:
                return
            yield batch

    if frame is None:
        return pa.RecordBatchReader.from_batches(stream.schema, batches())
    kept = [_wide(tree) for tree in kept_columns(schema)]
    fitted = _fitted(pa, stream.schema.empty_table(), kept, frame, False).schema

    def fitting() -> Iterator[Any]:
        for batch in batches():
            table = pa.Table.from_batches([batch])
            yield from _fitted(pa, table, kept, frame, False).to_batches()

    return pa.RecordBatchReader.from_batches(fitted, fitting())


def _wide(tree: Tree) -> Tree:
    """A dictionary with an index that has room for whatever a later batch may bring."""
    narrow = "dictionary" in tree and tree["format"] in "cCsS"
    return {**tree, "format": "i"} if narrow else tree


def _fitted(pa: Any, table: Table, kept: list[Tree], frame: FrameTypes, leniently: bool) -> Table:
    """The table with the frame's columns first, in their order and types. leniently: a column that does not fit stays as it is:
    a key may have come that the frame's type has no room for."""
    wanted = pa.schema(
        ArrowTree(
            {
                "name": "",
                "format": "+s",
                "children": kept,
                "metadata": frame.members.get("metadata", {}),
            }
        )
    )
    names = set(table.column_names)
    columns = {}
    for field in wanted:
        if field.name not in names:
            continue
        column = table[field.name]
        try:
            column = _cast(
                pa, column, field.type, frame.members.get("categories", {}).get(field.name)
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if not leniently:
                raise
        else:
            # The frame may have said that there are no nulls; others have come since.
            nullable = field.nullable or column.null_count > 0
            columns[field.with_type(column.type).with_nullable(nullable)] = column
            continue
        columns[table.field(field.name)] = column
    given = {field.name for field in columns}
    for field in table.schema:
        if field.name not in given:
            columns[field] = table[field.name]
    fields = pa.schema(list(columns), metadata=wanted.metadata)
    return pa.table(list(columns.values()), schema=fields)


def _cast(pa: Any, column: Any, kind: Any, categories: list[Any] | None) -> Any:
    """A ChunkedArray of the values in another type."""
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return _encoded(pa, column, kind, categories or [])
    if pa.types.is_run_end_encoded(kind):
        pc = package("pyarrow.compute", "to_arrow()")

        values = column.cast(kind.value_type)
        chunks = [
            pc.run_end_encode(chunk, run_end_type=kind.run_end_type) for chunk in values.chunks
        ]
        return pa.chunked_array(chunks, kind)
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == TENSOR:
            chunks = [_flat(pa, chunk, kind.storage_type) for chunk in column.chunks]
            column = pa.chunked_array(chunks, kind.storage_type)
        stored = column.cast(kind.storage_type)
        chunks = [pa.ExtensionArray.from_storage(kind, chunk) for chunk in stored.chunks]
        return pa.chunked_array(chunks, kind)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        like = pa.list_ if pa.types.is_list_view(kind) else pa.large_list
        chunks = [_as_view(pa, chunk, kind) for chunk in column.cast(like(kind.value_field)).chunks]
        return pa.chunked_array(chunks, kind)
    return column.cast(kind)


def _as_view(pa: Any, array: Any, kind: Any) -> Any:
    """Lists as list views, which pyarrow does not cast to."""
    made = pa.ListViewArray if pa.types.is_list_view(kind) else pa.LargeListViewArray
    offsets = array.offsets
    sizes = pa.array(offsets.to_numpy()[1:] - offsets.to_numpy()[:-1], offsets.type)
    return made.from_arrays(offsets[:-1], sizes, array.values, type=kind, mask=array.is_null())


def _flat(pa: Any, array: Any, kind: Any) -> Any:
    """Lists of lists of fixed lengths as lists of all their numbers."""
    missing = array.is_null()
    size = 1
    while pa.types.is_fixed_size_list(array.type):
        size *= array.type.list_size
        first = array.offset * array.type.list_size
        array = array.values.slice(first, len(array) * array.type.list_size)
    return pa.FixedSizeListArray.from_arrays(array, type=kind, mask=missing)


def _encoded(pa: Any, column: Any, kind: Any, categories: list[Any]) -> Any:
    """As a dictionary that begins with these categories, in their order; behind them what else has come."""
    pc = package("pyarrow.compute", "to_arrow()")

    values = column
    if pa.types.is_string_view(kind.value_type) or pa.types.is_binary_view(kind.value_type):
        plain = pa.large_string() if pa.types.is_string_view(kind.value_type) else pa.large_binary()
    else:
        plain = kind.value_type
    values = column.cast(plain)
    known = pa.array(categories, plain)
    there = pc.unique(values).drop_null()
    if isinstance(there, pa.ChunkedArray):
        there = there.combine_chunks()
    new = there.filter(pc.invert(pc.is_in(there, known))) if len(known) else there
    known = pa.concat_arrays([known, new.sort()]) if len(new) else known
    index = kind.index_type
    with suppress(pa.ArrowInvalid):
        pa.array([max(len(known) - 1, 0)], index)
        chunks = [
            pa.DictionaryArray.from_arrays(
                pc.index_in(chunk, known).cast(index),
                known.cast(kind.value_type),
                ordered=kind.ordered,
            )
            for chunk in values.chunks
        ]
        return pa.chunked_array(chunks, kind)
    chunks = [
        pa.DictionaryArray.from_arrays(
            pc.index_in(chunk, known), known.cast(kind.value_type), ordered=kind.ordered
        )
        for chunk in values.chunks
    ]
    return pa.chunked_array(chunks)


# --- pandas -------------------------------------------------------------------------------------------------------------


def to_pandas(schema: Schema, rows: Rows) -> Frame:
    """As a pandas DataFrame."""
    pd = package("pandas", "to_pandas()")
    pa = package("pyarrow", "to_pandas()")
    table = to_arrow(schema, rows)
    # Over runs and list views of no rows pyarrow 26 ends the process. pandas has the same objects of what they stand for.
    for i, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            kind = pa.large_list(kind.value_field)
        if kind is not field.type:
            column = _plain(pa, table[field.name], kind)
            table = table.set_column(i, field.with_type(kind), column)
    frame = table.to_pandas()
    dtypes = {} if schema._frame is None else schema._frame.members.get("dtypes", {})
    labels = dict(zip(map(str, frame.columns), frame.columns, strict=True))
    for field in table.schema:
        label = labels.get(field.name)
        if field.name not in labels:  # it is the index
            continue
        made = _restored(pd, pa, table[field.name], frame[label], dtypes.get(field.name))
        if made is not None:
            frame[label] = made.set_axis(frame.index) if hasattr(made, "set_axis") else made
    return frame


def _plain(pa: Any, column: Any, kind: Any) -> Any:
    """Runs and list views as what they stand for, in one chunk at least."""
    pc = package("pyarrow.compute", "to_arrow()")

    runs = pa.types.is_run_end_encoded(column.type)
    chunks = [pc.run_end_decode(one) if runs else one.cast(kind) for one in column.chunks]
    return pa.chunked_array(chunks or [pa.array([], kind)], kind)


def _restored(pd: Any, pa: Any, column: Any, series: Any, dtype: str | None) -> Any:
    """A column in the type that pandas had, where Arrow's and the notes do not tell it; None where they have."""
    if dtype == "arrow":
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    if dtype == "object":
        return series.astype(object).where(series.notna(), None)
    if dtype is not None:
        kind, _, storage = dtype.partition(" ")
        wanted = pd.StringDtype(storage, na_value=pd.NA if kind == "string" else float("nan"))
        return (
            None
            if series.dtype == wanted and series.dtype.storage == storage
            else series.astype(wanted)
        )
    if column.null_count and not hasattr(series.dtype, "na_value"):
        # Floats for integers of which one is missing would round them.
        if pa.types.is_integer(column.type):
            signed, bits = pa.types.is_signed_integer(column.type), column.type.bit_width
            wide = pd.api.types.pandas_dtype(f"{'' if signed else 'U'}Int{bits}")
            return pd.Series(wide.__from_arrow__(column))
        if pa.types.is_boolean(column.type):
            return pd.Series(pd.BooleanDtype().__from_arrow__(column))
    return None


# --- polars -------------------------------------------------------------------------------------------------------------


def to_polars(schema: Schema, rows: Rows) -> Frame:
    """As a polars DataFrame."""
    pl = package("polars", "to_polars()")
    with _own_errors(rows):
        frame = pl.DataFrame(rows)
    _check_key(schema, frame.columns)
    if schema._frame is None:
        return frame
    kept = [_polars_tree(tree) for tree in kept_columns(schema)]
    wanted = pl.DataFrame(ArrowTree({"name": "", "format": "+s", "children": kept})).schema
    columns = []
    for name, dtype in wanted.items():
        if name in frame.columns:
            column = frame[name]
            with suppress(pl.exceptions.PolarsError):  # what an Enum does not have stays text
                column = column.cast(dtype)
            columns.append(column)
    columns += [frame[name] for name in frame.columns if name not in wanted]
    return pl.DataFrame(columns)


def _polars_tree(tree: Tree) -> Tree:
    """A type that polars has: runs as what they stand for, extensions as what they are stored as, lists for views of them."""
    found = {**tree, "metadata": tree.get("metadata", {})}
    if tree["format"] == "+r":
        found = {**tree["children"][1], "name": tree["name"], "metadata": {}}
    if found["format"] in ("+vl", "+vL"):
        found["format"] = "+" + found["format"][2:]
    if EXTENSION in found["metadata"]:
        found["metadata"] = {}
    return found


MAKERS: Final[dict[str, Callable[[Schema, Rows], Frame]]] = {
    "arrow": to_arrow,
    "pandas": to_pandas,
    "polars": to_polars,
}

"""What every kind of source gives: rows, and the schema of the store that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError, shown
from tilekv.schema import Attr, Schema

Row = tuple[Any, Any, int]  # key, value, and the moment of its expiry in ms, or NEVER
Loads = Callable[[bytes], Any]


class Request(NamedTuple):
    """What the caller has said of a source.

    Attributes
    ----------
    table, key : str or None
        Which of several tables or databases, and which column has the keys.
    loads : callable or None
        What makes values of pickles.
    storage_options : mapping or None
        Of a store on object storage.
    """

    table: str | None = None
    key: str | None = None
    loads: Loads | None = None
    storage_options: Mapping[str, object] | None = None


class Stream(NamedTuple):
    """A value that is not in memory.

    Attributes
    ----------
    file : binary file
        It can be read from, and sought in.
    size : int
        In bytes.
    """

    file: Any
    size: int


@dataclass
class Source:
    """An open source.

    Attributes
    ----------
    rows : iterator of Row
    total : int
        How much there is, in the unit of `done`.
    schema : Schema or None
        None: what the first value is tells it.
    expires : bool
        Whether rows have moments of expiry.
    done : callable, optional
        How far it is; unless given, that are the rows which came.
    """

    rows: Iterator[Row]
    total: int
    schema: Schema | None = None
    expires: bool = False
    done: Callable[[], int] | None = None


def bytes_schema() -> Schema:
    """One attribute of bytes."""
    return Schema([Attr("value", bytes)])


def schema_of_value(key: object, value: Any) -> Schema:
    """One attribute for a value; for a dict one of each of its members, any of which may be null.

    Raises
    ------
    WrongTypeError
        When no attribute holds such a value.
    """
    if not isinstance(value, Mapping):
        return (
            bytes_schema()
            if isinstance(value, Stream)
            else Schema([_attr(key, "value", value, False)])
        )
    if not value or not all(isinstance(name, str) for name in value):
        raise WrongTypeError(
            f"the value of key {shown(key)} is a dict whose keys name no attributes"
        )
    return Schema([_attr(key, name, each, True) for name, each in value.items()])


def _attr(key: object, name: str, value: object, nullable: bool) -> Attr:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim:
        return Attr(name, value.dtype.name, value.shape, nullable=nullable)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Attr(name, bytes, nullable=nullable)
    for kind in (str, bool, int, float):  # a bool is an int to Python
        if isinstance(value, kind):
            return Attr(name, kind, nullable=nullable)
    if isinstance(value, np.generic) and value.dtype.kind in "biufmM":
        return Attr(name, value.dtype.name, nullable=nullable)
    raise WrongTypeError(
        f"the value of key {shown(key)} has a {type(value).__name__}, which no attribute holds: loads= may be a function "
        "that makes bytes, text, numbers, arrays, or a dict of these, of it"
    )


def pickled(key: object) -> InvalidValueError:
    """The error for a value that is a pickle, when nobody has allowed to load such."""
    return InvalidValueError(f"the value of key {shown(key)} is a pickle").advised(
        "loads=pickle.loads loads it, and runs whatever is in it",
        "--pickle loads it, and runs whatever is in it",
    )

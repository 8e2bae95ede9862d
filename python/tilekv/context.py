"""What TileDB's two faces share: the context, which handles begin with, and finding and opening what is there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from tilekv.config import Config
from tilekv.datatypes import DATATYPES
from tilekv.errors import (
    ClosedError,
    InvalidValueError,
    StoreNotFoundError,
    StoreReplacedError,
    TileKVError,
    WrongTypeError,
)
from tilekv.names import DESCRIPTOR, KV_SCHEMA
from tilekv.schema import Attr, Schema
from tilekv.storage import open_storage
from tilekv.store import Store
from tilekv.store import open as open_store

TileDBError = TileKVError  # by the name that TileDB's users catch

Uri = str | os.PathLike[str]


class Ctx:
    """TileDB's context: the options of the handles that are made with it. In the C++ face it is called Context.

    Parameters
    ----------
    config : Config or mapping, optional
        Options by dotted key, ours or TileDB's; see `Config`.

    Raises
    ------
    InvalidValueError, WrongTypeError
        For options that are refused; an unknown key is told the nearest one.
    """

    def __init__(self, config: Config | Mapping[str, object] | None = None) -> None:
        self._config = Config.of(config)

    @property
    def config(self) -> Config:
        """The options."""
        return self._config

    def __repr__(self) -> str:
        changed = dict(self._config.as_dict().items() - Config().as_dict().items())
        return f"Ctx({changed or ''})"


Context = Ctx


def take_ctx(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Ctx, tuple[Any, ...]]:
    """The context of a call that has it first, as ``ctx=`` or not at all, and the other positional arguments."""
    if args and isinstance(args[0], Ctx):
        if "ctx" in kwargs:
            raise WrongTypeError("the context is given twice: first and as ctx=")
        return args[0], args[1:]
    ctx = kwargs.pop("ctx", None)
    return Ctx() if ctx is None else checked_ctx(ctx), args


def checked_ctx(ctx: object) -> Ctx:
    """`ctx`, if it is a context."""
    if not isinstance(ctx, Ctx):
        raise WrongTypeError(f"a context is a tilekv.Ctx, not {type(ctx).__name__}")
    return ctx


@overload
def object_type(uri: Uri, *, ctx: Ctx | None = None) -> str | None: ...
@overload
def object_type(ctx: Ctx, uri: Uri, /) -> str | None: ...
def object_type(*args: Any, **kwargs: Any) -> str | None:
    """Tell what is at a URI: "kv" for a key-value store, tilekv's or TileDB's, None for anything else or nothing.

    ``object_type(uri)`` or, as TileDB-Py had it first, ``object_type(ctx, uri)``.
    """
    _, args = take_ctx(args, kwargs)
    return _object_type(*args, **kwargs)


def _object_type(uri: Uri) -> str | None:
    storage = open_storage(uri)
    try:
        if not storage.exists():
            return None
    except NotADirectoryError:
        return None
    files = storage.list().files
    return "kv" if DESCRIPTOR in files or KV_SCHEMA in files else None


def open_existing(
    ctx: Ctx, uri: Uri, mode: Literal["r", "a"], key: bytes | str | None, timestamp: Any
) -> Store:
    """Open a store that is there: mode "a" creates none, as `tilekv.open` would."""
    if object_type(uri) is None:
        raise StoreNotFoundError(
            f"there is no key-value store at {os.fspath(uri)}: create one first, with a schema"
        )
    return open_store(uri, mode, timestamp=timestamp, config=ctx.config, key=key)


def moved(store: Store, ctx: Ctx, timestamp: Any) -> Store:
    """A handle at another moment, None for the newest state: `store` itself where that can move."""
    if store.closed:
        raise ClosedError("this store is closed")
    if store.timestamp is None and timestamp is None:
        store.reopen()
        return store
    mode: Literal["r", "a"] = "r" if store.mode == "r" else "a"
    fresh = open_existing(ctx, store.uri, mode, store._engine.key, timestamp)
    if fresh.schema != store.schema:
        raise StoreReplacedError(f"{store.uri} was replaced by another store since it was opened")
    return fresh


def find_attr(attrs: Sequence[Attr], which: object) -> Attr:
    """The attribute with a name or an index."""
    names = [attr.name for attr in attrs]
    if isinstance(which, bool) or not isinstance(which, (int, str)):
        raise WrongTypeError(f"an attribute is asked for by name or index, not {which!r}")
    if isinstance(which, str) and which in names:
        return attrs[names.index(which)]
    if isinstance(which, int) and 0 <= which < len(attrs):
        return attrs[which]
    raise InvalidValueError(f"there is no attribute {which!r}; those that are there: {names}")


def describe(schema: Schema) -> str:
    """A schema as lines of text, as TileDB dumps it."""
    lines = [f"- Digest: {schema.digest}", f"- Capacity: {schema.capacity}"]
    for attr in schema.attrs:
        count = "var" if attr.var else str(attr.shape or 1)
        lines += [
            "### Attribute ###",
            f"- Name: {attr.name}",
            f"- Type: {DATATYPES[attr.datatype].name}",
            f"- Cell val num: {count}",
            f"- Filters: {', '.join(map(repr, attr.filters)) or 'none'}",
        ]
    return "\n".join(lines)

"""What TileDB's two faces share: finding and opening what is there, and the life of a handle."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, Self

from tilekv.config import Config
from tilekv.errors import (
    ClosedError,
    InvalidValueError,
    StoreNotFoundError,
    StoreReplacedError,
    WrongTypeError,
    shown,
)
from tilekv.legacy.schema import is_encrypted_schema
from tilekv.names import KV_SCHEMA, FragmentName
from tilekv.probe import Kind, Probe, probe
from tilekv.schema import Attr, Schema
from tilekv.storage import open_storage
from tilekv.store import Store, open_probed
from tilekv.tiledb.context import (
    TILEDB_AES_256_GCM,
    TILEDB_NO_ENCRYPTION,
    Ctx,
    EncryptionType,
    Uri,
)
from tilekv.tiledb.objects import kind_of


class Face(ABC):
    """What both handles have: the life of the `Store` that does their work."""

    @property
    @abstractmethod
    def store(self) -> Store:
        """The `Store` that does the work."""

    def flush(self) -> None:
        """Write what is buffered as one fragment; it is durable when this returns."""
        self.store.flush()

    def close(self, *, discard: bool = False) -> None:
        """Flush and let go of the files; again is harmless. When flushing fails it stays open.

        Parameters
        ----------
        discard : bool
            Give up what is buffered instead: nothing is written.
        """
        self.store.close(discard=discard)

    def __enter__(self) -> Self:
        """Itself; ClosedError when it is closed."""
        self.store.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """`close`, after an exception too: what was written before it is flushed."""
        self.close()

    def __copy__(self) -> NoReturn:
        self.store.__copy__()

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.store.__copy__()


def open_existing(
    ctx: Ctx,
    uri: Uri,
    mode: Literal["r", "a"] | None,
    key: bytes | str | None = None,
    timestamp: Any = None,
) -> Store:
    """Open a store that is there: mode "a" creates none, as `tilekv.open` would.

    None is "a" for what can be written: "r" with a key or timestamp, and for a store of TileDB 1.x.
    """
    options = ctx.config()
    if options.upkeep == "auto":  # TileDB merges nothing by itself
        options["kv.upkeep"] = "off"
    found = _probed(uri, options)
    if found is None:
        raise StoreNotFoundError(
            f"there is no key-value store at {os.fspath(uri)}: create one first, with a schema"
        )
    if mode is None:
        reading = key is not None or timestamp is not None or found.kind is Kind.OLD
        mode = "r" if reading else "a"
    return open_probed(found, mode, timestamp, options, key)


def encryption_of(uri: Uri, ctx: Ctx) -> EncryptionType:
    """How a store is encrypted: those of TileDB 1.4 to 1.6 may be."""
    found = _probed(uri, ctx.config())
    if found is None:
        raise StoreNotFoundError(f"there is no key-value store at {os.fspath(uri)}")
    if found.damage:
        raise found.damage
    if found.kind is Kind.OLD and is_encrypted_schema(found.storage.read(KV_SCHEMA), KV_SCHEMA):
        return TILEDB_AES_256_GCM
    return TILEDB_NO_ENCRYPTION


def _probed(uri: Uri, options: Config) -> Probe | None:
    """What is at a URI; None when it is no key-value store."""
    try:
        found = probe(open_storage(uri, options.sync, options.storage_options(uri)))
    except NotADirectoryError:
        return None
    return found if kind_of(found.listing) == "kv" else None


def moment_of(store: Store) -> int:
    """The moment that a handle shows, in ms since 1970: that of its last look at the store unless another was asked for."""
    if store.timestamp is not None:
        return store.timestamp
    newest = (
        FragmentName.parse(store._snapshot.names[0])
        if store._snapshot and store._snapshot.names
        else None
    )
    # What it has flushed since belongs to what it shows.
    return max(store._engine.opener.looked, newest.t2 if newest else 0)


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


def checked_schema(schema: object) -> Schema:
    """`schema`, if it is one."""
    if not isinstance(schema, Schema):
        raise WrongTypeError(f"schema is a tilekv.Schema, not {type(schema).__name__}")
    return schema


def find_attr(attrs: Sequence[Attr], which: object) -> Attr:
    """The attribute with a name or an index."""
    names = [attr.name for attr in attrs]
    if isinstance(which, bool) or not isinstance(which, (int, str)):
        raise WrongTypeError(f"an attribute is asked for by name or index, not {shown(which)}")
    if isinstance(which, str) and which in names:
        return attrs[names.index(which)]
    if isinstance(which, int) and 0 <= which < len(attrs):
        return attrs[which]
    raise InvalidValueError(f"there is no attribute {shown(which)}; those that are there: {names}")


def describe(schema: Schema) -> str:
    """A schema as lines of text, as TileDB dumps it."""
    lines = [f"- Digest: {schema.digest}", f"- Capacity: {schema.capacity}"]
    for attr in schema.attrs:
        lines += attr.described()
    return "\n".join(lines)

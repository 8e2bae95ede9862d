"""What TileDB's two faces share: finding and opening what is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from tilekv.engine import is_old
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
from tilekv.schema import Attr, Schema
from tilekv.storage import open_storage
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tiledb.context import (
    TILEDB_AES_256_GCM,
    TILEDB_NO_ENCRYPTION,
    Ctx,
    EncryptionType,
    Uri,
)
from tilekv.tiledb.objects import object_type


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
    if object_type(uri=uri) != "kv":
        raise StoreNotFoundError(
            f"there is no key-value store at {os.fspath(uri)}: create one first, with a schema"
        )
    if mode is None:
        reading = key is not None or timestamp is not None or is_old(open_storage(uri))
        mode = "r" if reading else "a"
    return open_store(uri, mode, timestamp=timestamp, config=ctx.config(), key=key)


def encryption_of(uri: Uri) -> EncryptionType:
    """How a store is encrypted: those of TileDB 1.4 to 1.6 may be."""
    if object_type(uri=uri) != "kv":
        raise StoreNotFoundError(f"there is no key-value store at {os.fspath(uri)}")
    storage = open_storage(uri)
    encrypted = is_old(storage) and is_encrypted_schema(storage.read(KV_SCHEMA), KV_SCHEMA)
    return TILEDB_AES_256_GCM if encrypted else TILEDB_NO_ENCRYPTION


def moment_of(store: Store) -> int:
    """The moment that a handle shows, in ms since 1970: that of its last look at the store unless another was asked for."""
    if store.timestamp is not None:
        return store.timestamp
    newest = FragmentName.parse(store._view.names[0]) if store._view and store._view.names else None
    # What it has flushed since belongs to what it shows.
    return max(store._looked, newest.t2 if newest else 0)


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

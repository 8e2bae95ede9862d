"""A store of zarr 3 whose keys and values are those of a `tilekv.Store` (docs/zarr.md). It takes zarr."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Literal, TypeVar

from tilekv.errors import KeyNotFoundError, MissingPackageError, WrongTypeError
from tilekv.store import Store
from tilekv.store import open as open_store

try:
    from zarr.abc.store import (
        ByteRequest,
        OffsetByteRequest,
        RangeByteRequest,
        SuffixByteRequest,
    )
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
except ImportError as error:
    raise MissingPackageError("tilekv.zarr takes zarr 3: pip install 'zarr>=3.1'") from error

T = TypeVar("T")
Names = tuple[str, ...]  # inside the class, `list` is a method


class TilekvStore(ZarrStore):  # type: ignore[misc]  # zarr is not looked into here
    """Arrays and groups of zarr in a store of bytes: a chunk is a value, and a folder what keys have in common.

    What is written is buffered, as `tilekv.Store` does: it is durable, and seen by others, after `flush`, `close`, the end of
    ``with``, or pickling. A copy that comes by pickle, as workers of dask get one, flushes whatever it sets.

    Parameters
    ----------
    store : str, os.PathLike or tilekv.Store
        Where it is, as `tilekv.open` takes it: opened when it is first used, created unless `read_only`, and closed by `close`.
        Or an open handle, which stays its owner's: `close` flushes it.
    read_only : bool
        Refuse to write.
    flush_each : bool
        Flush whatever is set or deleted at once, each time a fragment: for chunks of some MiB from many processes.
    **options
        Of `tilekv.open`, such as ``storage_options`` and ``config``.

    Raises
    ------
    WrongTypeError
        When it is opened and is no store of one bytes attribute.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        *,
        read_only: bool = False,
        flush_each: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(read_only=read_only)
        self._owned = not isinstance(store, Store)
        self._handle: Store | None = _checked(store) if isinstance(store, Store) else None
        self._uri: str = store.uri if isinstance(store, Store) else os.fspath(store)
        self._options = options
        self._flush_each = flush_each
        self._opening = threading.Lock()
        self._listed: dict[str, Names] = {}
        self._listed_of: object = None

    @property
    def db(self) -> Store:
        """The open `tilekv.Store`; its `reopen` shows what others have flushed."""
        with self._opening:
            if self._handle is None:
                mode: Literal["r", "a"] = "r" if self.read_only else "a"
                self._handle = _checked(open_store(self._uri, mode, **self._options))
                self._uri = self._handle.uri
            return self._handle

    async def _open(self) -> None:
        await super()._open()
        await self._away(lambda: self.db)

    def flush(self) -> None:
        """Make durable, and visible to others, what was written."""
        if self._handle is not None:
            self._handle.sync()

    def close(self) -> None:
        """Flush, and close what this has opened. What is used again is opened again."""
        if self._handle is not None and not self._handle.closed:
            if self._owned:
                self._handle.close()
                self._handle = None
            else:
                self._handle.sync()
        super().close()

    def with_read_only(self, read_only: bool = False) -> TilekvStore:
        """A store of the same keys, by the same handle unless that cannot write what this one may."""
        if self.read_only and not read_only and self.db.mode == "r":
            return type(self)(
                self._uri, read_only=False, flush_each=self._flush_each, **self._options
            )
        return type(self)(self.db, read_only=read_only, flush_each=self._flush_each)

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels as what opens it again, flushed."""
        self.flush()
        return _travelled, (type(self), self.db, self.read_only, self._is_open)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same store, with the same right to write."""
        return (
            isinstance(other, TilekvStore)
            and self.db.uri == other.db.uri
            and self.read_only == other.read_only
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TilekvStore({self._uri!r})"

    async def _away(self, call: Callable[[], T]) -> T:
        """In a thread where it may wait for a network. From memory or a disk a value is there sooner than a thread."""
        if "://" in self._uri and not self._uri.startswith(("memory://", "file://")):
            return await asyncio.to_thread(call)
        return call()

    # --- without a loop ---

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The value of a key, or a part of it, for which no more is read than it needs; None when it is not there."""
        value = self._part(key, byte_range)
        return None if value is None else _buffer(value, prototype)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Set a key."""
        self._check_writable()
        self._set([(key, value)])

    def delete_sync(self, key: str) -> None:
        """Delete a key; one that is not there is fine."""
        self._check_writable()
        if key in self.db:
            self.db.delete_many([key])
            self._written()

    def _part(self, key: str, part: ByteRequest | None) -> bytes | None:
        match part:
            case None:
                found: bytes | None = self.db.get(key)
                return found
            case RangeByteRequest(start=start, end=end):
                bounds = (start, end)
            case OffsetByteRequest(offset=offset):
                bounds = (offset, None)
            case SuffixByteRequest(suffix=suffix):
                bounds = (-suffix, None) if suffix else (0, 0)
            case _:
                raise WrongTypeError(f"Unexpected byte_range, got {part!r}.")
        try:
            return self.db.get_range(key, *bounds)
        except KeyNotFoundError:
            return None

    def _set(self, values: Iterable[tuple[str, Buffer]]) -> None:
        self.db.put_many([(key, _bytes_of(value)) for key, value in values])
        self._written()

    def _written(self) -> None:
        if self._flush_each:
            self.db.flush()

    # --- with one ---

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As `get_sync`."""
        return await self._away(
            lambda: self.get_sync(key, prototype=prototype, byte_range=byte_range)
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The values, or parts of values, of many keys; whole values are read together."""
        asked = list(key_ranges)

        def read() -> list[bytes | None]:
            whole = [key for key, part in asked if part is None]
            values = iter(self.db.get_many(whole))
            return [next(values) if part is None else self._part(key, part) for key, part in asked]

        found = await self._away(read)
        return [None if value is None else _buffer(value, prototype) for value in found]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncIterator[tuple[str, Buffer | None]]:
        asked = list(requests)
        if asked:
            found = await self.get_partial_values(
                asked[0][1], [(key, part) for key, _, part in asked]
            )
            for (key, _, _), value in zip(asked, found, strict=True):
                yield key, value

    async def set(self, key: str, value: Buffer) -> None:
        """As `set_sync`."""
        await self._away(lambda: self.set_sync(key, value))

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()
        given = list(values)
        await self._away(lambda: self._set(given))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Set a key that is not there, as far as this handle sees."""
        self._check_writable()
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """As `delete_sync`."""
        await self._away(lambda: self.delete_sync(key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys of a folder."""
        self._check_writable()

        def delete() -> None:
            self.db.delete_many(self.db.scan_keys(prefix=_folder(prefix)))
            self._written()

        await self._away(delete)

    async def clear(self) -> None:
        """Delete all keys."""
        await self.delete_dir("")

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        return await self._away(lambda: key in self.db)

    async def getsize(self, key: str) -> int:
        """The bytes of a value; FileNotFoundError when there is none. It is not read."""
        try:
            value = await self._away(lambda: self.db._stored(key, None))
        except KeyNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from None
        return 0 if value is None else value.size

    # --- listing: all keys are looked at, and of those that match a list is made ---

    async def is_empty(self, prefix: str) -> bool:
        """Whether there is no key in a folder."""
        return not await self._away(lambda: self.db.scan_keys(prefix=_folder(prefix), limit=1))

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin so."""
        for key in await self._away(lambda: self.db.scan_keys(prefix=prefix)):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names in a folder: of keys, and of folders below it."""
        for name in await self._away(lambda: self._names(_folder(prefix))):
            yield name

    def _names(self, folder: str) -> Names:
        """What is in a folder. It is known until the handle has another snapshot, or something was written; or may expire."""
        db = self.db
        # A snapshot is told by its identity; writes make the other number larger, and a flush makes another snapshot.
        state = (db._open_snapshot(), db._unflushed())
        if state != self._listed_of or db.schema.expires:
            self._listed, self._listed_of = {}, state
        known = self._listed
        if folder not in known:
            begin = len(folder)
            keys = db.scan_keys(prefix=folder)
            known[folder] = tuple(dict.fromkeys(key[begin:].partition("/")[0] for key in keys))
        return known[folder]


def _travelled(made: type[TilekvStore], db: Store, read_only: bool, is_open: bool) -> TilekvStore:
    store = made(db, read_only=read_only, flush_each=True)
    store._owned = True
    store._is_open = is_open
    return store


def _checked(db: Store) -> Store:
    attrs = db.schema.attrs
    if len(attrs) > 1 or attrs[0].type_name != "bytes" or attrs[0].nullable:
        raise WrongTypeError(f"chunks are the values of one bytes attribute; {db.uri} has {attrs}")
    return db


def _folder(prefix: str) -> str:
    stripped = prefix.rstrip("/")
    return f"{stripped}/" if stripped else ""


def _buffer(value: bytes, prototype: BufferPrototype | None) -> Buffer:
    return (prototype or default_buffer_prototype()).buffer.from_bytes(value)


def _bytes_of(value: Buffer) -> bytes:
    if not isinstance(value, Buffer):
        raise WrongTypeError(f"a value is a Buffer of zarr, not {type(value).__name__}")
    data: bytes = value.to_bytes()
    return data

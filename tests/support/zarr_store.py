"""A store of zarr whose keys and values are in a `tilekv.Store`: what zarr's own tests of stores are run on."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

import tilekv

Asked = tuple[str, ByteRequest | None]


class ZarrStore(Store):
    """Over an open store of one bytes attribute, which stays its caller's: closing this one leaves it open."""

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, db: tilekv.Store, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self.db = db

    def with_read_only(self, read_only: bool = False) -> "ZarrStore":
        return ZarrStore(self.db, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ZarrStore)
            and self.db.uri == other.db.uri
            and self.read_only == other.read_only
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ZarrStore({self.db!r})"

    # --- what zarr calls without a loop, and with one ---

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = self.db.get(key)
        if value is None:
            return None
        part = value[_part(byte_range, len(value))]
        return (prototype or default_buffer_prototype()).buffer.from_bytes(part)

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self.db[key] = value.to_bytes()

    def delete_sync(self, key: str) -> None:
        self._check_writable()
        self.db.pop(key, None)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[Asked]
    ) -> list[Buffer | None]:
        return [
            self.get_sync(key, prototype=prototype, byte_range=part) for key, part in key_ranges
        ]

    async def set(self, key: str, value: Buffer) -> None:
        self.set_sync(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self.db.setdefault(key, value.to_bytes())

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()
        self.db.put_many((key, value.to_bytes()) for key, value in values)

    async def delete(self, key: str) -> None:
        self.delete_sync(key)

    async def exists(self, key: str) -> bool:
        return key in self.db

    # --- listing ---

    async def list(self) -> AsyncIterator[str]:
        for key in self.db:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self.db:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = prefix.rstrip("/") + "/" if prefix else ""
        names = {key[len(start) :].split("/")[0] for key in self.db if key.startswith(start)}
        for name in names:
            yield name


def _part(asked: Any, size: int) -> slice:
    match asked:
        case None:
            return slice(None)
        case RangeByteRequest(start=start, end=end):
            return slice(start, end)
        case OffsetByteRequest(offset=offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix=suffix):
            return slice(max(size - suffix, 0), None)
    raise TypeError(f"Unexpected byte_range, got {asked!r}")

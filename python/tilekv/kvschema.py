"""The schema of TileDB's Python face: `KVSchema` (DESIGN.md 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO, overload

from tilekv.context import Ctx, Uri, describe, find_attr, open_existing, take_ctx
from tilekv.errors import InvalidValueError
from tilekv.schema import Attr, Schema


class KVSchema:
    """The attributes of a KV. Compared by value.

    ``KVSchema(attrs=..., capacity=..., ctx=...)``; TileDB's first Python had ``ctx`` in front.

    Parameters
    ----------
    domain : None
        A key-value store has none to choose; TileDB's signature has a place for it.
    attrs : iterable of Attr
        At least one.
    capacity : int, optional
        Cells of a tile.
    ctx : Ctx, optional

    Raises
    ------
    WrongTypeError, InvalidValueError
        For arguments that are refused.
    """

    @overload
    def __init__(
        self,
        domain: None = None,
        attrs: Iterable[Attr] = (),
        capacity: int | None = None,
        *,
        ctx: Ctx | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        ctx: Ctx,
        domain: None = None,
        attrs: Iterable[Attr] = (),
        capacity: int | None = None,
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _, args = take_ctx(args, kwargs)
        self._schema = _schema_of(*args, **kwargs)

    @overload
    @classmethod
    def load(
        cls, uri: Uri, key: bytes | str | None = None, *, ctx: Ctx | None = None
    ) -> KVSchema: ...
    @overload
    @classmethod
    def load(cls, ctx: Ctx, uri: Uri, key: bytes | str | None = None) -> KVSchema: ...
    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> KVSchema:
        """Return the schema of a store that is there; StoreNotFoundError when none is.

        `key` opens one that TileDB 1.x encrypted, as in `KV`.
        """
        ctx, args = take_ctx(args, kwargs)
        return cls.of(_stored_schema(ctx, *args, **kwargs))

    @classmethod
    def of(cls, schema: Schema) -> KVSchema:
        """Return the face of a `Schema`."""
        made = cls.__new__(cls)
        made._schema = schema
        return made

    @property
    def schema(self) -> Schema:
        """The `Schema` behind it."""
        return self._schema

    @property
    def capacity(self) -> int:
        """Cells of a tile."""
        return self._schema.capacity

    @property
    def nattr(self) -> int:
        """The number of attributes."""
        return len(self._schema.attrs)

    def attr(self, which: int | str) -> Attr:
        """Return an attribute by index or name; InvalidValueError when there is none."""
        return find_attr(self._schema.attrs, which)

    def dump(self, file: TextIO | None = None) -> None:
        """Print the schema to `file`, stdout unless given."""
        print(describe(self._schema), file=file)

    def __eq__(self, other: object) -> bool:
        return self._schema == other._schema if isinstance(other, KVSchema) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._schema)

    def __repr__(self) -> str:
        return f"KVSchema(attrs={list(self._schema.attrs)}, capacity={self.capacity})"


def _schema_of(
    domain: None = None, attrs: Iterable[Attr] = (), capacity: int | None = None
) -> Schema:
    if domain is not None:
        raise InvalidValueError("a key-value store has no domain to choose: leave domain out")
    return Schema(attrs) if capacity is None else Schema(attrs, capacity=capacity)


def _stored_schema(ctx: Ctx, uri: Uri, key: bytes | str | None = None) -> Schema:
    with open_existing(ctx, uri, "r", key, None) as store:
        return store.schema

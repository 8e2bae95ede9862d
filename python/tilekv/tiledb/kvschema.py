"""The schema of TileDB's Python face: `KVSchema` (docs/design.md 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from tilekv.arguments import print_to
from tilekv.errors import InvalidValueError
from tilekv.schema import Attr, Schema
from tilekv.tiledb.context import Ctx, Uri, chosen_ctx, takes_ctx
from tilekv.tiledb.faces import checked_schema, describe, find_attr, open_existing


class KVSchema:
    """The attributes of a KV. Compared by value.

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

    @takes_ctx
    def __init__(
        self,
        domain: None = None,
        attrs: Iterable[Attr] = (),
        capacity: int | None = None,
        ctx: Ctx | None = None,
    ) -> None:
        chosen_ctx(ctx)
        if domain is not None:
            raise InvalidValueError("a key-value store has no domain to choose: leave domain out")
        self._schema = Schema(attrs) if capacity is None else Schema(attrs, capacity=capacity)

    @classmethod
    @takes_ctx
    def load(cls, uri: Uri, key: bytes | str | None = None, ctx: Ctx | None = None) -> KVSchema:
        """Return the schema of a store that is there; StoreNotFoundError when none is.

        `key` opens one that TileDB 1.x encrypted, as in `KV`.
        """
        with open_existing(chosen_ctx(ctx), uri, "r", key) as store:
            return cls.of(store.schema)

    @classmethod
    def of(cls, schema: Schema) -> KVSchema:
        """Return the face of a `Schema`."""
        made = cls.__new__(cls)
        made._schema = checked_schema(schema)
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
        print_to(file, describe(self._schema))

    def __eq__(self, other: object) -> bool:
        """Whether another KVSchema is the same."""
        return self._schema == other._schema if isinstance(other, KVSchema) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._schema)

    def __repr__(self) -> str:
        return f"KVSchema(attrs={list(self._schema.attrs)}, capacity={self.capacity})"

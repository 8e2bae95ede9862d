"""The schema of TileDB's C++ face: `Attribute` and `MapSchema` (docs/design.md 2.3)."""

from __future__ import annotations

from typing import Any, Self, TextIO

import numpy.typing as npt

from tilekv.arguments import is_one_of, print_to, whole
from tilekv.errors import WrongTypeError, shown
from tilekv.schema import Attr, Filters, Schema, Shape
from tilekv.tiledb.context import Ctx, Uri, checked_ctx, takes_encryption
from tilekv.tiledb.faces import checked_schema, describe, find_attr, open_existing


class Attribute:
    """Where TileDB's C++ makes attributes: ``Attribute.create``. What it makes is an `Attr`."""

    @staticmethod
    def create(
        ctx: Ctx,
        name: str,
        dtype: npt.DTypeLike,
        filters: Filters = None,
        *,
        shape: Shape = None,
        var: bool = False,
    ) -> Attr:
        """Make an attribute; ``int`` means int64 and ``float`` float64. See `Attr` for the rest."""
        checked_ctx(ctx)
        return Attr(name, dtype, shape=shape, var=var, filters=filters)


class MapSchema:
    """The attributes of a map, one by one: ``MapSchema(ctx)``, then `add_attribute`, then `Map.create`.

    Parameters
    ----------
    ctx : Ctx
    uri : str or os.PathLike, optional
        Begin with the schema of the map that is there.
    key : bytes or str, optional
        What opens it, as in `Map`.

    Raises
    ------
    StoreNotFoundError
        When there is no map at `uri`.
    """

    @takes_encryption
    def __init__(self, ctx: Ctx, uri: Uri | None = None, *, key: bytes | str | None = None) -> None:
        self._ctx = checked_ctx(ctx)
        self._attrs: list[Attr] = []
        self._options: dict[str, Any] = {}  # of Schema, beside attrs
        if uri is not None:
            with open_existing(ctx, uri, "r", key) as store:
                self._take(store.schema)

    @classmethod
    def of(cls, ctx: Ctx, schema: Schema) -> MapSchema:
        """Return the face of a `Schema`."""
        made = cls(ctx)
        made._take(checked_schema(schema))
        return made

    def _take(self, schema: Schema) -> None:
        self._attrs = list(schema.attrs)
        self._options = {
            "digest": schema.digest,
            "capacity": schema.capacity,
            "offsets_filters": schema.offsets_filters,
            "key_filters": schema.key_filters,
        }

    @property
    def schema(self) -> Schema:
        """The `Schema` that it describes now; InvalidValueError when that is none, as without attributes."""
        return Schema(self._attrs, **self._options)

    def check(self) -> None:
        """Raise InvalidValueError when no map can have this schema: the message says why."""
        _ = self.schema

    def context(self) -> Ctx:
        """Return the context that it was made with."""
        return self._ctx

    def add_attribute(self, attr: Attr) -> Self:
        """Add an attribute, and return the schema."""
        return self.add_attributes(attr)

    def add_attributes(self, *attrs: Attr) -> Self:
        """Add attributes, and return the schema."""
        for attr in attrs:
            if not isinstance(attr, Attr):
                raise WrongTypeError(
                    f"an attribute is made by Attribute.create, not {type(attr).__name__}"
                )
        self._attrs += attrs
        return self

    def attributes(self) -> dict[str, Attr]:
        """Return the attributes by name."""
        return {attr.name: attr for attr in self._attrs}

    def attribute_num(self) -> int:
        """Return the number of attributes."""
        return len(self._attrs)

    def attribute(self, which: int | str) -> Attr:
        """Return an attribute by index or name; InvalidValueError when there is none."""
        return find_attr(self._attrs, which)

    def has_attribute(self, name: str) -> bool:
        """Tell whether there is an attribute of this name."""
        return is_one_of(name, self.attributes())

    def set_capacity(self, capacity: int) -> Self:
        """Set the number of cells of a tile, and return the schema."""
        self._options["capacity"] = whole("capacity", capacity)
        return self

    def capacity(self) -> int:
        """Return the number of cells of a tile."""
        default: int = Schema([Attr("any", bytes)]).capacity
        chosen: int = self._options.get("capacity", default)
        return chosen

    def dump(self, file: TextIO | None = None) -> None:
        """Print the schema to `file`, stdout unless given."""
        print_to(file, str(self))

    def __str__(self) -> str:
        return describe(self.schema)

    def __repr__(self) -> str:
        return f"<tilekv.MapSchema attrs={self._attrs} capacity={shown(self.capacity())}>"

"""TileDB's C++ face: `Map` and `MapIter` (docs/design.md 2.3). It translates words; a `Store` does the work."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self

import numpy as np

from tilekv.arguments import is_one_of, truth, whole
from tilekv.config import Config
from tilekv.errors import InvalidValueError, TileKVError, WrongTypeError, shown
from tilekv.schema import Attr, Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tiledb.context import (
    Ctx,
    EncryptionType,
    Uri,
    checked_ctx,
    chosen_ctx,
    takes_ctx,
    takes_encryption,
)
from tilekv.tiledb.faces import Face, encryption_of, find_attr, moment_of, moved, open_existing
from tilekv.tiledb.mapitem import MapItem, Rows, key_as
from tilekv.tiledb.mapschema import MapSchema


class QueryType(enum.IntEnum):
    """What a map is opened for: TILEDB_READ or TILEDB_WRITE, which reads as well."""

    READ = 0
    WRITE = 1


TILEDB_READ: Final = QueryType.READ
TILEDB_WRITE: Final = QueryType.WRITE


class Map(Face):
    """A key-value store as TileDB's C++ had it: ``m[key][attribute]`` reads, and writes.

    The map must exist: `Map.create` makes one. Writes are buffered until `flush`, `close` or the end of a ``with``.

    Parameters
    ----------
    ctx : Ctx
        Whose options to use; the C++ face calls it Context.
    uri : str or os.PathLike
    query_type : QueryType, optional
        TILEDB_READ reads only; TILEDB_WRITE reads and writes. Without one it is TILEDB_WRITE, but TILEDB_READ with a
        timestamp, attributes or a key, and for a map of TileDB 1.x. A list of names in its place is `attributes`, as in
        TileDB 1.3.
    timestamp : int, datetime.datetime or numpy.datetime64, optional
        Show the map as it was then, inclusive; an int is ms since 1970. With TILEDB_READ only.
    attributes : iterable of str
        Show only these, and read only.
    key : bytes or str, optional
        The 32 bytes that open a map which TileDB 1.x encrypted, with TILEDB_READ; a str stands for its UTF-8. TileDB's three
        arguments are taken after `query_type` as well: TILEDB_AES_256_GCM, the key, and its length.

    Raises
    ------
    StoreNotFoundError
        When there is no map.
    FormatError, CorruptionError
        When it is of another program, or damaged.
    ReadOnlyError
        For a map of TileDB 1.x and TILEDB_WRITE: tilekv does not write to it.
    InvalidValueError, WrongTypeError
        For arguments that are refused.
    MissingPackageError
        When a map of TileDB 1.x needs a package that is not installed.
    """

    @takes_encryption
    def __init__(
        self,
        ctx: Ctx,
        uri: Uri,
        query_type: int | Sequence[str] | None = None,
        timestamp: Any = None,
        *,
        attributes: Iterable[str] = (),
        key: bytes | str | None = None,
    ) -> None:
        self._ctx = checked_ctx(ctx)
        self._rows = Rows(*_opened(ctx, uri, query_type, timestamp, attributes, key))

    @staticmethod
    @takes_ctx
    @takes_encryption
    def create(
        uri: Uri,
        schema: MapSchema | Mapping[Any, Any],
        attribute: str | None = None,
        key: None = None,
        ctx: Ctx | None = None,
    ) -> None:
        """Make a map: an empty one with a schema, or one of a single attribute with the items of a mapping.

        Parameters
        ----------
        uri : str or os.PathLike
        schema : MapSchema or mapping
        attribute : str, optional
            The name of a mapping's attribute. It has the type of the values, which must be all the same.
        key : None
            An encryption key in TileDB. tilekv does not encrypt.
        ctx : Ctx, optional
            Of a mapping; a schema has one.

        Raises
        ------
        StoreExistsError
            When there is a map, or anything else, at the URI: nothing is overwritten.
        InvalidValueError, WrongTypeError
            For a schema or values that no map can have.
        """
        if key is not None:
            raise InvalidValueError("a map cannot be created with a key: tilekv does not encrypt")
        if isinstance(schema, MapSchema):
            options = schema.context().config()
            open_store(uri, "x", schema=schema.schema, config=options).close()
            return
        items: object = schema
        if not isinstance(items, Mapping) or attribute is None:
            raise WrongTypeError(
                "schema is a tilekv.MapSchema, or a mapping with the name of its attribute, not "
                + type(schema).__name__
            )
        _create_with_items(chosen_ctx(ctx), uri, items, attribute)

    @staticmethod
    def encryption_type(ctx: Ctx, uri: Uri) -> EncryptionType:
        """Tell how a map is encrypted; StoreNotFoundError when there is none."""
        return encryption_of(uri, checked_ctx(ctx))

    @staticmethod
    def create_item(ctx: Ctx, key: Any) -> MapItem:
        """Make an item that belongs to no map yet; `add_item` writes it."""
        checked_ctx(ctx)
        return MapItem(key)

    @staticmethod
    @takes_encryption
    def consolidate(
        ctx: Ctx,
        uri: Uri,
        config: Config | Mapping[str, object] | None = None,
        *,
        key: None = None,
    ) -> None:
        """Merge all fragments of the map into one, and remove those.

        Handles that are open keep what they show, and see the result after `reopen`. As in TileDB 1.x the past is
        gone then; `Store.consolidate` keeps it.

        Parameters
        ----------
        config : Config or mapping, optional
            Options of this consolidation, in place of those of the context.
        key : None
            An encryption key in TileDB. What is encrypted is not written to here.

        Raises
        ------
        StoreNotFoundError
            When there is no map.
        StoreBusyError
            When another consolidation is under way.
        """
        checked_ctx(ctx)
        with open_existing(ctx if config is None else Ctx(config), uri, "a", key) as store:
            store.consolidate(vacuum=True)

    # --- what it is ---

    @property
    def store(self) -> Store:
        """The `Store` that does the work: batches, columns, deletes."""
        return self._rows.store

    def schema(self) -> MapSchema:
        """Return the schema; changing what is returned does not change the map's."""
        return MapSchema.of(self._ctx, self.store.schema)

    def context(self) -> Ctx:
        """Return the context that it was opened with."""
        return self._ctx

    def uri(self) -> str:
        """Return where the map is."""
        return self.store.uri

    def timestamp(self) -> int:
        """Return the moment that is shown, in ms since 1970: of opening or reopening, unless another was asked for."""
        return moment_of(self.store)

    def is_open(self) -> bool:
        """Tell whether it is open."""
        return not self.store.closed

    def is_dirty(self) -> bool:
        """Tell whether there are writes that are not flushed yet."""
        return not self.store.closed and self.store._unflushed() > 0

    def __repr__(self) -> str:
        state = "" if self.is_open() else " closed"
        return f"<tilekv.Map {self.uri()!r} attributes={list(self._rows.names)}{state}>"

    # --- its life ---

    @takes_encryption
    def open(
        self,
        query_type: int | Sequence[str] | None = None,
        timestamp: Any = None,
        *,
        attributes: Iterable[str] = (),
        key: bytes | str | None = None,
    ) -> None:
        """Open the map again after `close`, with the parameters of `Map`; TileKVError when it is open."""
        if self.is_open():
            raise TileKVError(f"the map {self.uri()} is already open: close it first")
        self._rows.use(*_opened(self._ctx, self.uri(), query_type, timestamp, attributes, key))

    def reopen(self) -> None:
        """Show the newest state: what others have flushed since. What is buffered stays buffered."""
        self._rows.store = moved(self.store, self._ctx, None)

    def reopen_at(self, timestamp: Any) -> None:
        """Show the state at a moment; with TILEDB_READ only."""
        self._rows.store = moved(self.store, self._ctx, timestamp)

    def set_max_buffered_items(self, n: int) -> None:
        """Let a write flush first when `n` writes are buffered, at least 1.

        Without it the buffer flushes itself by its bytes (``kv.buffer_bytes``), which makes fewer fragments.
        """
        items = whole("the number of items", n)
        if items < 1:
            raise InvalidValueError(f"a buffer has room for at least 1 item, not {shown(items)}")
        self._rows.max_buffered = items

    # --- keys and items ---

    def has_key(self, key: Any) -> bool:
        """Tell whether a key is there, buffered or flushed."""
        return key in self.store

    def __contains__(self, key: Any) -> bool:
        """Whether a key is there, as `has_key`."""
        return key in self.store

    def get_item(self, key: Any) -> MapItem:
        """Return the item of a key, looked up now; when the key is not there its ``good()`` is False."""
        row = self._rows.get(key)
        return MapItem._of(self._rows, key, row or {}, row is not None)

    def __getitem__(self, key: Any) -> MapItem:
        """Return an item that looks its key up, or writes it, when one of its attributes is used."""
        return MapItem._of(self._rows, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the value of a key: bare for one attribute, a dict or a tuple in schema order for several."""
        self._rows.put_value(key, value)

    def add_item(self, item: MapItem) -> Self:
        """Write an item, and return the map. InvalidValueError when an attribute is missing or unknown."""
        if not isinstance(item, MapItem):
            raise WrongTypeError(f"an item is made by Map.create_item, not {type(item).__name__}")
        self._rows.put(item.key(), item.values())
        return self

    def __iter__(self) -> Iterator[MapItem]:
        """Iterate over the items of the map as it is now, as `MapIter` does."""
        return iter(MapIter(self))


class MapIter:
    """A cursor over the items of a map as it is now, its buffer included, in ascending order of the keys' digests.

    It stands on the first item at once: use ``it.key()``, ``it["a1"]`` and ``it.advance()`` until ``it == MapIter(m, True)``, or
    ``for item in it``.

    Parameters
    ----------
    map : Map
    end : bool
        Stand behind the last item, to compare with.
    """

    def __init__(self, map: Map, end: bool = False) -> None:
        if not isinstance(map, Map):
            raise WrongTypeError(f"MapIter takes a Map, not {type(map).__name__}")
        self._rows = map._rows
        self._type: type | None = None
        self._pairs: Iterator[tuple[Any, dict[str, Any]]] = iter(())
        self._item: MapItem | None = None
        if not truth("end", end):
            self.reset()

    def reset(self) -> None:
        """Go to the first item of the map as it is now."""
        self._pairs = self._rows.items()
        self.advance()

    def advance(self) -> Self:
        """Go to the next item, or behind the last one, and return the iterator."""
        self._item = None
        for key, row in self._pairs:
            if self._type is None or key_as(key, self._type) is not None:
                self._item = MapItem._of(self._rows, key, row)
                break
        return self

    def limit_key_type(self, type: type) -> None:
        """Pass over keys of other types, from the next `advance` or `reset` on; see `MapItem.key` for types."""
        key_as("", type)  # raises for what is no type
        self._type = type

    def all_keys(self) -> None:
        """Pass over nothing, from the next `advance` or `reset` on."""
        self._type = None

    def done(self) -> bool:
        """Tell whether it stands behind the last item."""
        return self._item is None

    @property
    def item(self) -> MapItem:
        """The item that it stands on; InvalidValueError behind the last one."""
        if self._item is None:
            raise InvalidValueError("the iterator is behind the last item")
        return self._item

    def key(self, type: type | None = None) -> Any:
        """Return the key of the item that it stands on; see `MapItem.key`."""
        return self.item.key(type)

    def __getitem__(self, attr: str | Sequence[str]) -> Any:
        """Return values of the item that it stands on; see `MapItem.get`."""
        return self.item[attr]

    def __eq__(self, other: object) -> bool:
        """Whether both stand on an item, or both behind the last one: only the end is worth comparing with."""
        return self.done() == other.done() if isinstance(other, MapIter) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it moves

    def __iter__(self) -> Iterator[MapItem]:
        """Give the item that it stands on, go to the next one, and so to the end."""
        while self._item is not None:
            item = self._item
            self.advance()
            yield item


def _opened(
    ctx: Ctx,
    uri: Uri,
    query_type: int | Sequence[str] | None,
    timestamp: Any,
    attributes: Iterable[str],
    key: bytes | str | None,
) -> tuple[Store, tuple[str, ...]]:
    """The store, and the names of the attributes to show."""
    if isinstance(query_type, (list, tuple)):
        attributes, query_type = query_type, None
    if isinstance(attributes, str) or not isinstance(attributes, Iterable):
        raise WrongTypeError(f"attributes is a list of names, not {type(attributes).__name__}")
    chosen = tuple(attributes)
    if query_type is not None and not is_one_of(query_type, (TILEDB_READ, TILEDB_WRITE)):
        raise InvalidValueError(
            f"a map is opened with TILEDB_READ or TILEDB_WRITE, not {shown(query_type)}"
        )
    if chosen and query_type == TILEDB_WRITE:
        raise InvalidValueError("a map with attributes= is read only: open it with TILEDB_READ")
    mode: Literal["r", "a"] | None = "a" if query_type == TILEDB_WRITE else None
    if chosen or query_type == TILEDB_READ:
        mode = "r"
    store = open_existing(ctx, uri, mode, key, timestamp)
    names = [find_attr(store.schema.attrs, name).name for name in chosen]
    return store, tuple(names or [attr.name for attr in store.schema.attrs])


def _create_with_items(ctx: Ctx, uri: Uri, items: Mapping[Any, Any], attribute: str) -> None:
    kinds = {type(value) for value in items.values()}
    if len(kinds) != 1:
        raise WrongTypeError(
            "the values of the mapping tell the type of the attribute, so there must be some, all of one type, not "
            + (" and ".join(sorted(kind.__name__ for kind in kinds)) or "none")
        )
    first = next(iter(items.values()))
    var = isinstance(first, np.ndarray)
    attr = Attr(
        attribute,
        first.dtype if isinstance(first, (np.ndarray, np.generic)) else type(first),
        var=var,
    )
    with open_store(uri, "x", schema=Schema([attr]), config=ctx.config()) as store:
        store.put_many(items)

"""TileDB's Python face: `KV` (docs/design.md 2.2). It translates words; a `Store` does the work."""

from __future__ import annotations

import builtins
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal

from tilekv.arguments import NO_VALUE, is_one_of
from tilekv.config import Config
from tilekv.equality import EqualItems, EqualValues, equal_items
from tilekv.errors import InvalidValueError, KeyNotFoundError, ReadOnlyError, WrongTypeError, shown
from tilekv.kvcore.values.keys import key_not_found
from tilekv.schema import Attr
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tiledb.context import Ctx, Uri, chosen_ctx, takes_ctx
from tilekv.tiledb.encoding import TextValues
from tilekv.tiledb.faces import Face, find_attr, moment_of, moved, open_existing
from tilekv.tiledb.kvschema import KVSchema

_MODES: Final[dict[str, Literal["r", "a"]]] = {"r": "r", "a": "a", "w": "a"}


class KV(Face):
    """A key-value store as TileDB-Py had it: iteration gives (key, value) pairs, and bytes attributes are text.

    The store must exist: `KV.create` makes one. Writes are buffered until `flush`, `close` or the end of a ``with``.

    Parameters
    ----------
    uri : str or os.PathLike
    mode : {"a", "r", "w"}, optional
        Read and write; read. "w" is an old name of "a": it neither creates nor truncates. Without a mode it is "a", but "r"
        with a key or a timestamp, and for a store of TileDB 1.x.
    key : bytes or str, optional
        The 32 bytes that open a store which TileDB 1.x encrypted; a str stands for its UTF-8. Mode "r" only.
    timestamp : int, datetime.datetime or numpy.datetime64, optional
        Show the store as it was then, inclusive; an int is ms since 1970. Mode "r" only.
    ctx : Ctx, optional
        Whose options to use.
    encoding : str or None
        Values of bytes attributes are str in this encoding; with None they are bytes. Values of str
        attributes are always str.
    attrs : iterable of str
        Names that the store must have. All attributes are shown, as TileDB-Py 0.2 did whatever it was given.

    Raises
    ------
    StoreNotFoundError
        When there is no store.
    FormatError, CorruptionError
        When it is of another program, or damaged.
    ReadOnlyError
        For a store of TileDB 1.x and mode "a" or "w": tilekv does not write to it.
    InvalidValueError, WrongTypeError
        For arguments that are refused.
    MissingPackageError
        When a store of TileDB 1.x needs a package that is not installed.
    """

    @takes_ctx
    def __init__(
        self,
        uri: Uri,
        mode: str | None = None,
        key: bytes | str | None = None,
        timestamp: Any = None,
        ctx: Ctx | None = None,
        *,
        encoding: str | None = "utf-8",
        attrs: Iterable[str] = (),
    ) -> None:
        if mode is not None and not is_one_of(mode, _MODES):
            raise InvalidValueError(f"mode is 'a', 'r' or 'w', which means 'a', not {shown(mode)}")
        self._ctx = chosen_ctx(ctx)
        known = None if mode is None else _MODES[mode]
        self._store = open_existing(self._ctx, uri, known, key, timestamp)
        self._text = TextValues(self._store.schema.attrs, encoding)
        for name in attrs:
            self.attr(name)

    @staticmethod
    @takes_ctx
    def create(uri: Uri, schema: KVSchema, key: None = None, ctx: Ctx | None = None) -> None:
        """Make an empty store.

        Parameters
        ----------
        uri : str or os.PathLike
        schema : KVSchema
        key : None
            An encryption key in TileDB. tilekv does not encrypt.
        ctx : Ctx, optional

        Raises
        ------
        StoreExistsError
            When there is a store, or anything else, at the URI: nothing is overwritten.
        """
        if not isinstance(schema, KVSchema):
            raise WrongTypeError(f"schema is a tilekv.KVSchema, not {type(schema).__name__}")
        if key is not None:
            raise InvalidValueError("a KV cannot be created with a key: tilekv does not encrypt")
        open_store(uri, "x", schema=schema.schema, config=chosen_ctx(ctx).config()).close()

    # --- what it is ---

    @property
    def store(self) -> Store:
        """The `Store` that does the work: batches, columns, snapshots."""
        return self._store

    @property
    def uri(self) -> str:
        """Where the store is."""
        return self._store.uri

    @property
    def mode(self) -> str:
        """How it is open: "a" or "r"."""
        return self._store.mode

    @property
    def isopen(self) -> bool:
        """Whether `close` was not called yet."""
        return not self._store.closed

    @property
    def timestamp(self) -> int:
        """The moment that is shown, in ms since 1970: of opening or reopening, unless another was asked for."""
        return moment_of(self._store)

    @property
    def schema(self) -> KVSchema:
        """Its attributes."""
        return KVSchema.of(self._store.schema)

    @property
    def nattr(self) -> int:
        """The number of attributes."""
        return len(self._store.schema.attrs)

    def attr(self, which: int | str) -> Attr:
        """Return an attribute by index or name; InvalidValueError when there is none."""
        return find_attr(self._store.schema.attrs, which)

    def __repr__(self) -> str:
        state = "" if self.isopen else " closed"
        names = ", ".join(attr.name for attr in self._store.schema.attrs)
        return f"<tilekv.KV {self.uri!r} mode={self.mode!r} attrs=[{names}]{state}>"

    # --- its life ---

    def reopen(self, timestamp: Any = None) -> None:
        """Show the newest state, or in mode "r" the state at `timestamp`. What is buffered stays buffered."""
        self._store = moved(self._store, self._ctx, timestamp)

    def consolidate(
        self, config: Config | Mapping[str, object] | None = None, key: None = None
    ) -> None:
        """Flush, merge all fragments into one, remove those, and show the result.

        As in TileDB 1.x the past is gone then; ``store.consolidate()`` keeps it.

        Parameters
        ----------
        config : Config or mapping, optional
            Options of this consolidation, in place of those of the context.
        key : None
            An encryption key in TileDB. What is encrypted is not written to here.

        Raises
        ------
        ReadOnlyError
            In mode "r".
        StoreBusyError
            When another consolidation is under way.
        """
        if self.mode == "r":
            raise ReadOnlyError("this KV is open for reading only: consolidate it in mode 'a'")
        self.flush()
        ctx = self._ctx if config is None else Ctx(config)
        with open_existing(ctx, self.uri, "a", key) as other:
            other.consolidate(vacuum=True)
        self._store.reopen()

    # --- keys and values ---

    def __getitem__(self, key: Any) -> Any:
        """Return the value of a key: bare for one attribute, else a dict; KeyNotFoundError when it is not there."""
        return self._text.load(self._store[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the value of a key: bare for one attribute, else a dict, or a tuple in the order of the schema."""
        self._store[key] = self._text.save(value)

    def __delitem__(self, key: Any) -> None:
        """Delete a key; KeyNotFoundError when it is not there."""
        del self._store[key]

    def __contains__(self, key: Any) -> bool:
        """Whether a key is there."""
        return key in self._store

    def __len__(self) -> int:
        """How many keys there are, exactly."""
        return len(self._store)

    def __bool__(self) -> bool:
        """Whether there is a key."""
        return bool(self._store)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over (key, value) pairs, in ascending order of digests, of the state as it is now."""
        # No generator: threads may share an iterator.
        return map(self._loaded, self._store.items())

    def _loaded(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return pair[0], self._text.load(pair[1])

    def __eq__(self, other: object) -> bool:
        """Whether a KV or a mapping has the same keys, type and all, with equal values."""
        return equal_items(self, other) if isinstance(other, (KV, Mapping)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as for dict

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default` when it is not there."""
        value = self._store.get(key, NO_VALUE)
        return default if value is NO_VALUE else self._text.load(value)

    def pop(self, key: Any, default: Any = NO_VALUE) -> Any:
        """Delete a key and return its value; `default` when it is not there, KeyNotFoundError without one."""
        value = self.get(key, NO_VALUE)
        if value is not NO_VALUE:
            del self[key]
            return value
        if default is NO_VALUE:
            raise key_not_found(key, self._store._layout.numbers)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Delete a key and return it with its value; KeyNotFoundError when there is none."""
        for key, value in self:
            del self[key]
            return key, value
        raise KeyNotFoundError("popitem(): the KV is empty")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key; when it is not there, set it to `default` first."""
        value = self.get(key, NO_VALUE)
        if value is NO_VALUE:
            self[key] = value = default
        return value

    def clear(self) -> None:
        """Delete every key."""
        self._store.clear()

    def keys(self) -> KeysView[Any]:
        """Return a view of the keys."""
        return self._store.keys()

    def values(self) -> ValuesView[Any]:
        """Return a view of the values."""
        return _Values(self)

    def items(self) -> ItemsView[Any, Any]:
        """Return a view of the (key, value) pairs."""
        return _Items(self)

    def update(self, other: Any = (), /, **items: Any) -> None:
        """Set all items of a mapping or of pairs, and the keyword arguments as str keys; all of them or none."""
        if not isinstance(other, KV) and hasattr(other, "keys"):
            other = [(key, other[key]) for key in other.keys()]  # noqa: SIM118 - all that is promised
        if not isinstance(other, Iterable):
            raise WrongTypeError(f"update takes a mapping or pairs, not {type(other).__name__}")
        self._store.put_many(map(self._saved, chain(other, items.items())))

    def _saved(self, pair: Any) -> Any:
        """A pair as the store takes it. What is no pair is left to the store, which says so."""
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            return pair
        return pair[0], self._text.save(pair[1])

    def dict(self) -> builtins.dict[Any, Any]:
        """Return all items as a dict."""
        try:
            return dict(iter(self))  # of pairs: dict(self) would look up every key
        except TypeError:
            message = "a key of this store is an array, which no dict can have: use items()"
            raise WrongTypeError(message) from None


class _Values(EqualValues):
    _mapping: KV

    def __iter__(self) -> Iterator[Any]:
        return map(itemgetter(1), self._mapping)


class _Items(EqualItems):
    _mapping: KV

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping)

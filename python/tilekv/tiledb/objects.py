"""What lies at URIs, by TileDB's words: key-value stores, and the groups that hold them (docs/design.md 2.2, 2.3)."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from typing import Final

from tilekv.arguments import is_one_of
from tilekv.errors import (
    InvalidValueError,
    StoreExistsError,
    StoreNotFoundError,
    WrongTypeError,
    shown,
)
from tilekv.names import DESCRIPTOR, KV_SCHEMA
from tilekv.probe import listed_root
from tilekv.storage import Listing, Storage, move_storage, open_storage, remove_storage
from tilekv.tiledb.context import Ctx, Uri, checked_ctx, chosen_ctx, takes_ctx

_GROUP: Final = "__tiledb_group.tdb"  # the file that makes a folder a group in TileDB 1.x
Visit = Callable[[str, str], object]


@takes_ctx
def object_type(uri: Uri, ctx: Ctx | None = None) -> str | None:
    """Tell what is at a URI: "kv" for a key-value store, tilekv's or TileDB's, "group" for a group, None for all else."""
    chosen_ctx(ctx)
    return _kind(open_storage(uri))


def _kind(storage: Storage) -> str | None:
    try:
        listing = listed_root(storage)
    except NotADirectoryError:
        return None
    return None if listing is None else kind_of(listing)


def kind_of(listing: Listing) -> str | None:
    """What has this listing, as `object_type` has it."""
    if DESCRIPTOR in listing.files or KV_SCHEMA in listing.files:
        return "kv"
    return "group" if _GROUP in listing.files else None


@takes_ctx
def group_create(uri: Uri, ctx: Ctx | None = None) -> str:
    """Make a group, a folder that holds stores and groups, and return where it is; StoreExistsError when something is there."""
    chosen_ctx(ctx)
    storage = open_storage(uri)
    if not storage.create({_GROUP: b""}, replace=False):
        raise StoreExistsError(f"there is something at {storage.uri} already: name a new place")
    return storage.uri


def create_group(ctx: Ctx, uri: Uri) -> None:
    """Make a group, by the C++ name of `group_create`."""
    group_create(uri, checked_ctx(ctx))


@takes_ctx
def remove(uri: Uri, ctx: Ctx | None = None) -> None:
    """Remove a key-value store, or a group with all that is in it.

    Raises
    ------
    StoreNotFoundError
        When neither is there.
    InvalidValueError
        When there is anything in a group, or in a group within, that is neither store nor group: nothing is removed then.
    """
    chosen_ctx(ctx)
    storage = _there(uri)
    for folder, kind in _below(storage):
        if kind is None:
            raise InvalidValueError(
                f"{folder} is no key-value store and no group: it is not removed"
            )
    remove_storage(storage)


@takes_ctx
def move(old_uri: Uri, new_uri: Uri, ctx: Ctx | None = None) -> None:
    """Move a key-value store or a group to a new place; StoreExistsError when something is there."""
    chosen_ctx(ctx)
    old, new = _there(old_uri), open_storage(new_uri)
    if not move_storage(old, new):
        raise StoreExistsError(f"there is something at {new.uri} already: name a new place")


@takes_ctx
def ls(path: Uri, func: Visit, ctx: Ctx | None = None) -> None:
    """Call ``func(uri, kind)`` for every key-value store ("kv") and group ("group") in a folder.

    A StopIteration that it raises ends the listing.
    """
    chosen_ctx(ctx)
    _visit(func, _children(open_storage(path)))


@takes_ctx
def walk(path: Uri, func: Visit, order: str = "preorder", ctx: Ctx | None = None) -> None:
    """Call ``func(uri, kind)`` as `ls` does, for what is in groups too: after the group, or with "postorder" before it."""
    chosen_ctx(ctx)
    if not is_one_of(order, ("preorder", "postorder")):
        raise InvalidValueError(f"order is 'preorder' or 'postorder', not {shown(order)}")
    _visit(func, _walked(open_storage(path), order == "preorder"))


def _visit(func: Visit, found: Iterator[tuple[str, str | None]]) -> None:
    for uri, kind in found:
        if kind is None:
            continue
        try:
            func(uri, kind)
        except StopIteration:
            return


def _there(uri: Uri) -> Storage:
    storage = open_storage(uri)
    if _kind(storage) is None:
        raise StoreNotFoundError(f"there is no key-value store and no group at {os.fspath(uri)}")
    return storage


def _children(storage: Storage) -> Iterator[tuple[str, str | None]]:
    """The folders in a folder, each with its kind."""
    listing = listed_root(storage)
    if listing is None:
        raise StoreNotFoundError(f"there is nothing at {storage.uri}")
    for folder in listing.folders:
        uri = f"{storage.uri.rstrip('/')}/{folder}"
        yield uri, _kind(open_storage(uri))


def _walked(storage: Storage, preorder: bool) -> Iterator[tuple[str, str | None]]:
    """The folders in a folder and in the groups below."""
    for uri, kind in _children(storage):
        if preorder:
            yield uri, kind
        if kind == "group":
            yield from _walked(open_storage(uri), preorder)
        if not preorder:
            yield uri, kind


def _below(storage: Storage) -> Iterator[tuple[str, str | None]]:
    """All that is in a group and in the groups below, files too; nothing for a store."""
    if _kind(storage) != "group":
        return
    for file in storage.list().files:
        if file != _GROUP:
            yield f"{storage.uri}/{file}", None
    for uri, kind in _children(storage):
        yield uri, kind
        yield from _below(open_storage(uri))


class WalkOrder(enum.IntEnum):
    """When a walk shows a group: TILEDB_PREORDER, before what is in it, or TILEDB_POSTORDER."""

    PREORDER = 0
    POSTORDER = 1


TILEDB_PREORDER: Final = WalkOrder.PREORDER
TILEDB_POSTORDER: Final = WalkOrder.POSTORDER


class Object:
    """What is at a URI: ``Object.object(ctx, uri).type()``."""

    class Type(enum.Enum):
        """Kinds of things, by TileDB's numbers: a group, a key-value store, or anything else and nothing."""

        Group = 1
        Invalid = 2
        KeyValue = 3

    def __init__(self, type: Type, uri: str) -> None:
        self._type = type
        self._uri = uri

    @staticmethod
    def object(ctx: Ctx, uri: Uri) -> Object:
        """Look at a URI."""
        return Object(_TYPES[object_type(uri, checked_ctx(ctx))], str(uri))

    @staticmethod
    def remove(ctx: Ctx, uri: Uri) -> None:
        """Remove a store or group; see `tilekv.remove`."""
        remove(uri, checked_ctx(ctx))

    @staticmethod
    def move(ctx: Ctx, old_uri: Uri, new_uri: Uri) -> None:
        """Move a store or group; see `tilekv.move`."""
        move(old_uri, new_uri, checked_ctx(ctx))

    def type(self) -> Type:
        """Return its kind."""
        return self._type

    def uri(self) -> str:
        """Return where it is."""
        return self._uri

    def to_str(self) -> str:
        """Return its kind and where it is, as a line of text."""
        return f'Obj<{self._type.name.upper()} "{self._uri}">'

    __str__ = to_str


_TYPES: Final = {
    "group": Object.Type.Group,
    "kv": Object.Type.KeyValue,
    None: Object.Type.Invalid,
}


class ObjectIter:
    """The key-value stores and groups in a folder, each as an `Object`: ``for found in ObjectIter(ctx, root)``.

    Parameters
    ----------
    ctx : Ctx
    root : str or os.PathLike
    """

    def __init__(self, ctx: Ctx, root: Uri = ".") -> None:
        checked_ctx(ctx)
        self._root = root
        self._order: WalkOrder | None = None
        self._wanted = {"group", "kv"}

    def set_iter_policy(self, group: bool, array: bool, kv: bool) -> None:
        """Choose what is shown; arrays never are."""
        if not all(isinstance(each, bool) for each in (group, array, kv)):
            raise WrongTypeError("group, array and kv are bools")
        self._wanted = {name for name, each in (("group", group), ("kv", kv)) if each}

    def set_recursive(self, walk_order: WalkOrder = TILEDB_PREORDER) -> None:
        """Show what is in groups too."""
        if not is_one_of(walk_order, (TILEDB_PREORDER, TILEDB_POSTORDER)):
            raise InvalidValueError(
                f"a walk is TILEDB_PREORDER or TILEDB_POSTORDER, not {shown(walk_order)}"
            )
        self._order = walk_order

    def set_non_recursive(self) -> None:
        """Show what is in the folder itself, as at first."""
        self._order = None

    def __iter__(self) -> Iterator[Object]:
        """Look into the folder now, and iterate over what is there."""
        storage = open_storage(self._root)
        found = (
            _children(storage)
            if self._order is None
            else _walked(storage, self._order == TILEDB_PREORDER)
        )
        return iter([Object(_TYPES[kind], uri) for uri, kind in found if kind in self._wanted])

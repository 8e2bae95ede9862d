"""What lies at URIs, by TileDB's words: key-value stores, and the groups that hold them (docs/design.md 2.2, 2.3)."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping
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
from tilekv.storage import (
    Listing,
    Storage,
    in_bucket,
    move_storage,
    open_storage,
    outline,
    remove_storage,
)
from tilekv.tiledb.context import Ctx, Uri, checked_ctx, chosen_ctx, takes_ctx

_GROUP: Final = "__tiledb_group.tdb"  # the file that makes a folder a group in TileDB 1.x
Visit = Callable[[str, str], object]
Options = Mapping[str, object] | None


@takes_ctx
def object_type(uri: Uri, ctx: Ctx | None = None, *, storage_options: Options = None) -> str | None:
    """Tell what is at a URI: "kv" for a key-value store, tilekv's or TileDB's, "group" for a group, None for all else.

    `storage_options`: of object storage, see `open`.
    """
    return _kind(_Finder(ctx, storage_options).at(uri))


class _Finder:
    """Finds what is at URIs, for a call that was given a context and storage options."""

    def __init__(self, ctx: Ctx | None, options: Options = None) -> None:
        self._config = chosen_ctx(ctx).config()
        self._options = options

    def at(self, uri: Uri) -> Storage:
        """The storage of a URI."""
        options = self._options
        if options is None:
            options = self._config.storage_options(uri)
        return open_storage(uri, options=options)

    def there(self, uri: Uri) -> Storage:
        """That of a store or a group; StoreNotFoundError when neither is there."""
        storage = self.at(uri)
        if _kind(storage) is None:
            raise StoreNotFoundError(
                f"there is no key-value store and no group at {os.fspath(uri)}"
            )
        return storage

    def children(self, storage: Storage) -> Iterator[tuple[str, str | None]]:
        """The folders in a folder, each with its kind."""
        listing = listed_root(storage, outline)
        if listing is None:
            raise StoreNotFoundError(f"there is nothing at {storage.uri}")
        for folder in listing.folders:
            uri = f"{storage.uri.rstrip('/')}/{folder}"
            yield uri, _kind(self.at(uri))

    def walked(self, storage: Storage, preorder: bool) -> Iterator[tuple[str, str | None]]:
        """The folders in a folder and in the groups below."""
        for uri, kind in self.children(storage):
            if preorder:
                yield uri, kind
            if kind == "group":
                yield from self.walked(self.at(uri), preorder)
            if not preorder:
                yield uri, kind

    def below(self, storage: Storage) -> Iterator[tuple[str, str | None]]:
        """All that is in a group and in the groups below, files too; nothing for a store. What is in a group comes before it."""
        if _kind(storage) != "group":
            return
        for file in outline(storage).files:
            if file != _GROUP:
                yield f"{storage.uri}/{file}", None
        for uri, kind in self.children(storage):
            yield from self.below(self.at(uri))
            yield uri, kind

    def check_below(self, storage: Storage) -> None:
        """InvalidValueError when there is anything in a group that is neither store nor group."""
        for place, kind in self.below(storage):
            if kind is None:
                raise InvalidValueError(
                    f"{place} is no key-value store and no group: nothing is done"
                )


def _kind(storage: Storage) -> str | None:
    try:
        listing = listed_root(storage, outline)
    except NotADirectoryError:
        return None
    return None if listing is None else kind_of(listing)


def kind_of(listing: Listing) -> str | None:
    """What has this listing, as `object_type` has it."""
    if DESCRIPTOR in listing.files or KV_SCHEMA in listing.files:
        return "kv"
    return "group" if _GROUP in listing.files else None


@takes_ctx
def group_create(uri: Uri, ctx: Ctx | None = None, *, storage_options: Options = None) -> str:
    """Make a group, a folder that holds stores and groups, and return where it is; StoreExistsError when something is there."""
    storage = _Finder(ctx, storage_options).at(uri)
    if not storage.create({_GROUP: b""}, replace=False):
        raise StoreExistsError(f"there is something at {storage.uri} already: name a new place")
    return storage.uri


def create_group(ctx: Ctx, uri: Uri) -> None:
    """Make a group, by the C++ name of `group_create`."""
    group_create(uri, checked_ctx(ctx))


@takes_ctx
def remove(uri: Uri, ctx: Ctx | None = None, *, storage_options: Options = None) -> None:
    """Remove a key-value store, or a group with all that is in it.

    All of it goes at once; on object storage one store after the other.

    Raises
    ------
    StoreNotFoundError
        When neither is there.
    InvalidValueError
        When there is anything in a group, or in a group within, that is neither store nor group: nothing is removed then.
    StoreBusyError
        On object storage, when another program makes, moves or removes what is there.
    """
    finder = _Finder(ctx, storage_options)
    storage = finder.there(uri)
    finder.check_below(storage)
    if in_bucket(storage):
        for within, _ in [*finder.below(storage)]:
            remove_storage(finder.at(within))
    remove_storage(storage)


@takes_ctx
def move(
    old_uri: Uri, new_uri: Uri, ctx: Ctx | None = None, *, storage_options: Options = None
) -> None:
    """Move a key-value store or a group to a new place.

    On object storage the new place is in the same bucket, to which the server copies all files; meanwhile nobody can write to the
    store. A group moves store by store there.

    Raises
    ------
    StoreExistsError
        When something is at the new place.
    StoreNotFoundError
        When neither store nor group is at the old one.
    InvalidValueError
        From a bucket to another one, from a disk to a bucket, and the like: `backup` copies a store.
    StoreBusyError
        On object storage, when another program makes, moves or removes what is there.
    """
    finder = _Finder(ctx, storage_options)
    old, new = finder.there(old_uri), finder.at(new_uri)
    if in_bucket(old) and in_bucket(new):
        finder.check_below(old)
        _move_in_bucket(finder, old, new)
    elif not move_storage(old, new):
        raise _taken(new)


def _move_in_bucket(finder: _Finder, old: Storage, new: Storage) -> None:
    if _kind(old) == "kv":
        if not move_storage(old, new):
            raise _taken(new)
        return
    if f"{new.uri}/".startswith(f"{old.uri}/"):
        raise InvalidValueError(f"{new.uri} is in {old.uri}")
    if not new.create({_GROUP: b""}, replace=False):
        raise _taken(new)
    for uri, _ in [*finder.children(old)]:
        name = uri.rpartition("/")[2]
        _move_in_bucket(finder, finder.at(uri), finder.at(f"{new.uri}/{name}"))
    remove_storage(old)


def _taken(new: Storage) -> StoreExistsError:
    return StoreExistsError(f"there is something at {new.uri} already: name a new place")


@takes_ctx
def ls(path: Uri, func: Visit, ctx: Ctx | None = None, *, storage_options: Options = None) -> None:
    """Call ``func(uri, kind)`` for every key-value store ("kv") and group ("group") in a folder.

    A StopIteration that it raises ends the listing.
    """
    finder = _Finder(ctx, storage_options)
    _visit(func, finder.children(finder.at(path)))


@takes_ctx
def walk(
    path: Uri,
    func: Visit,
    order: str = "preorder",
    ctx: Ctx | None = None,
    *,
    storage_options: Options = None,
) -> None:
    """Call ``func(uri, kind)`` as `ls` does, for what is in groups too: after the group, or with "postorder" before it."""
    finder = _Finder(ctx, storage_options)
    if not is_one_of(order, ("preorder", "postorder")):
        raise InvalidValueError(f"order is 'preorder' or 'postorder', not {shown(order)}")
    _visit(func, finder.walked(finder.at(path), order == "preorder"))


def _visit(func: Visit, found: Iterator[tuple[str, str | None]]) -> None:
    for uri, kind in found:
        if kind is None:
            continue
        try:
            func(uri, kind)
        except StopIteration:
            return


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
        self._finder = _Finder(checked_ctx(ctx))
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
        finder = self._finder
        storage = finder.at(self._root)
        found = (
            finder.children(storage)
            if self._order is None
            else finder.walked(storage, self._order == TILEDB_PREORDER)
        )
        return iter([Object(_TYPES[kind], uri) for uri, kind in found if kind in self._wanted])

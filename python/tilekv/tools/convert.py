"""A tilekv store made of one that TileDB 1.x wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from tilekv.arguments import truth
from tilekv.errors import KeyNotFoundError
from tilekv.expiry import put_expiring
from tilekv.progress import Progress, reporter
from tilekv.schema import Schema
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools.atomic_build import whole_store

_AT_ONCE: Final = 128  # items: enough to spread the cost of a call, few enough for large values


def convert(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    key: bytes | str | None = None,
    progress: Progress = None,
    expires: bool = False,
    *,
    storage_options: Mapping[str, object] | None = None,
) -> int:
    """Copy every entry of a key-value store of TileDB 1.3 to 1.7 into a new tilekv store.

    Keys and values keep their types; the old store is only read. The new one has tilekv's own digest and filters, and appears
    when it is whole: until then it has a hidden name beside its place.

    Parameters
    ----------
    old, new : str or os.PathLike
        URIs; nothing may be at `new`.
    key : bytes or str, optional
        Of an encrypted store. The new store is not encrypted.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (entries done, entries in all).
    expires : bool
        Whether entries of the new store may have a moment after which they are as if deleted, as those of a store that has such.
    storage_options : mapping, optional
        As of `open`.

    Returns
    -------
    int
        The number of entries.

    Raises
    ------
    StoreExistsError
        When there is something at `new`.
    StoreNotFoundError, FormatError, CorruptionError, InvalidValueError, MissingPackageError
        When the old store cannot be read. Nothing is left at `new`.
    """
    truth("expires", expires)
    with (
        open_store(old, key=key, storage_options=storage_options) as source,
        whole_store(
            new,
            Schema(source.schema.attrs, expires=expires or source.schema.expires)._of_frame(
                source.schema._frame
            ),
            numbers=False,
            storage_options=storage_options,
        ) as target,
    ):
        return _copy(source, target, reporter(progress, "converting"))


def _copy(source: Store, target: Store, report: Callable[[int, int], object]) -> int:
    """All entries, a few at a time; how many they were."""
    total = len(source)
    done = 0
    items = iter(source.items())
    while batch := list(islice(items, _AT_ONCE)):
        if source.schema.expires:
            put_expiring(target, batch, [_moment(source, key) for key, _ in batch])
        else:
            target.put_many(batch)
        done += len(batch)
        report(min(done, total - 1), total)
    report(done, total)
    return done


def _moment(source: Store, key: Any) -> int:
    """When an entry expires, in ms: the first moment there is when it has since the copy began."""
    try:
        return source._expires(key)
    except KeyNotFoundError:
        return 1

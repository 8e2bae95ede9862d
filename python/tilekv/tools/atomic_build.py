"""A new store that appears when it is whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tilekv.config import Config
from tilekv.engine import create
from tilekv.errors import StoreExistsError
from tilekv.probe import probe
from tilekv.schema import Schema
from tilekv.storage import Storage, open_storage
from tilekv.store import Store, open_probed


@contextmanager
def whole_store(
    uri: str | os.PathLike[str],
    schema: Schema,
    numbers: bool,
    replacing: Callable[[], object] | None = None,
    storage_options: Mapping[str, object] | None = None,
    config: Config | None = None,
) -> Iterator[Store]:
    """A store to fill, under a hidden name beside `uri`; at the end of `with` it is flushed and takes its place.

    numbers: whether equal numbers are one key of it. config: of the handle that fills it, which has no upkeep. After an exception
    nothing is left of it. StoreExistsError when there is something at `uri`, before or by then; unless it is `replacing` the
    store there, which is called at the last moment, and whose error keeps that store.
    """
    place = open_storage(uri, options=storage_options)
    if replacing is None and not place.is_empty():
        raise _taken(place)
    build = place.build()
    try:
        made = create(
            probe(open_storage(build.uri, options=storage_options)), schema, numbers=numbers
        )
        assert made is not None  # the name is random
        options = {**(config or Config()).as_dict(), "kv.upkeep": "off"}
        target = open_probed(made, "a", config=Config.of(options))
        try:
            yield target
            target.close()
        finally:
            target.close(discard=True)
        if replacing is not None:
            replacing()
        if not build.commit(replace=replacing is not None):
            raise _taken(place)
    finally:
        build.abandon()


def _taken(place: Storage) -> StoreExistsError:
    return StoreExistsError(f"there is something at {place.uri} already: name a new place")

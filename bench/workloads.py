"""The workloads: what is done with a store, and in what the result is given.

Every one is a function of a Place. Reads are done twice and the second time counts, so that caches are as warm as they get;
what is written is durable when the clock stops.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.alone import peak, write_at_once
from bench.data import attributes as fields
from bench.place import Place
from bench.rivals import NotOffered

SMALL_CACHE = 8 << 20


@dataclass(frozen=True)
class Workload:
    """`what` says what one operation is. `unit` is /s (more is better), or s, B or B/key (less is better)."""

    run: Callable[[Place], float]
    unit: str
    what: str

    @property
    def more_is_better(self) -> bool:
        """Whether the figure is a rate."""
        return self.unit == "/s"


def load(place: Place) -> float:
    return len(place.data.keys) / place.load()


def get(place: Place) -> float:
    return _second(place, place.opened().get, place.asked)


def get_small_cache(place: Place) -> float:
    return _second(place, place.opened(SMALL_CACHE).get, place.asked)


def miss(place: Place) -> float:
    return _second(place, place.opened().miss, place.data.absent[: place.rival.lookups])


def get_many(place: Place) -> float:
    store, asked = place.opened(), place.data.asked
    found = store.get_many(asked)
    values = [one[1] if isinstance(one, tuple) else one for one in found]
    table = dict(zip(place.data.keys, place.data.values, strict=True))
    assert values == [table[key] for key in asked], "what was found is not what was loaded"
    del found, values, table
    return len(asked) / place.timed(store.get_many, asked)


def read(place: Place) -> float:
    store, asked = place.opened(), place.data.asked
    table = dict(zip(place.data.keys, place.data.values, strict=True))
    assert store.read(asked) == sum(len(table[key]) for key in asked)
    return len(asked) / place.timed(store.read, asked)


def items(place: Place) -> float:
    return _all(place, place.opened().items)


def values(place: Place) -> float:
    return _all(place, place.opened().values)


def scan(place: Place) -> float:
    return _all(place, place.opened().scan)


def attributes(place: Place) -> float:
    if place.source.kind != "packages":
        raise NotOffered("only Debian's packages have attributes")
    name, asked = "rows", place.data.asked
    columns = fields(place.data.values)
    if place.rival.in_memory:
        place.spoil()  # it has one store
    if name not in place.built or place.rival.in_memory:
        place.rival.remove(place.folder / name)
        place.rival.load_rows(place.folder / name, place.data.keys, columns)
        place.built.add(name)
    wanted = ["Version", "Installed-Size"]
    table = dict(zip(place.data.keys, zip(*map(columns.get, wanted), strict=True), strict=True))
    with place.other(name) as store:
        rows = zip(*store.read_rows(asked, wanted), strict=True)
        assert list(rows) == [table[key] for key in asked], "what was read is not what was loaded"
        return len(asked) / place.timed(store.read_rows, asked, wanted)


def open_(place: Place) -> float:
    path, store = place.loaded(), place.rival
    if store.in_memory:
        raise NotOffered(f"{store.name} has nothing to open")
    return _opening(place, partial(store.open, path), lambda _: store.close())


def open_large(place: Place) -> float:
    """Of a store with one int32 attribute: what opening reads depends on the cells, not on what they hold."""
    import numpy as np

    import tilekv

    if place.rival.name != "tilekv":
        raise NotOffered("tilekv alone: how its own time grows")
    times = []
    schema = tilekv.Schema([tilekv.Attr("a", "int32")])
    for name, count in (("empty", 0), ("large", place.options.open_keys)):
        path = place.folder / name
        if name not in place.built:
            with tilekv.open(path, "x", schema=schema, config={"kv.buffer_bytes": "8 GiB"}) as db:
                db.put_many(np.arange(count), a=np.zeros(count, "int32"))
            place.built.add(name)
        times.append(_opening(place, partial(tilekv.open, path), tilekv.Store.close))
    return times[1] - times[0]


def overwrite(place: Place) -> float:
    path, data = place.loaded(), place.data
    new = data.values[-len(data.asked) :]
    place.spoil()
    return len(data.asked) / place.timed(place.rival.write, path, data.asked, new)


def delete(place: Place) -> float:
    path, asked = place.loaded(), place.data.asked
    place.spoil()
    return len(asked) / place.timed(place.rival.delete, path, asked)


def get_parts(count: int) -> Callable[[Place], float]:
    def run(place: Place) -> float:
        name = f"parts{count}"
        if name not in place.built:
            place.rival.load_parts(place.folder / name, place.parts(count))
            place.built.add(name)
        with place.other(name) as store:
            return _second(place, store.get, place.asked)

    return run


def consolidate(place: Place) -> float:
    path = _ten_parts(place)
    return len(place.data.keys) / place.timed(place.rival.consolidate, path)


def consolidate_memory(place: Place) -> float:
    path = _ten_parts(place)
    return peak(place.rival.name, place.source, path, "consolidate", 1)


def load_memory(place: Place) -> float:
    path = place.folder / "alone"
    try:
        return peak(place.rival.name, place.source, path, "load", 1)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def get_memory(place: Place) -> float:
    if place.rival.in_memory:
        raise NotOffered(f"{place.rival.name} holds everything in memory: see load_memory")
    count = len(place.data.asked)
    return peak(place.rival.name, place.source, place.loaded(), "get", count)


def writers(count: int) -> Callable[[Place], float]:
    def run(place: Place) -> float:
        store, data, path = place.rival, place.data, place.folder / "written"
        store.many_writers()
        store.remove(path)
        store.load(path, data.keys[:1], data.values[:1])
        return len(data.keys) / write_at_once(store, place.source, path, count)

    return run


def disk(place: Place) -> float:
    return place.rival.disk_bytes(place.loaded()) / len(place.data.keys)


def _second(place: Place, work: Callable[[list[bytes]], object], keys: list[bytes]) -> float:
    work(keys)
    return len(keys) / place.timed(work, keys)


def _all(place: Place, work: Callable[[], int]) -> float:
    assert work() == len(place.data.keys)
    return len(place.data.keys) / place.timed(work)


def _opening(place: Place, begin: Callable[[], Any], end: Callable[[Any], object]) -> float:
    """Median seconds of opening; slow ones are tried less often."""
    times: list[float] = []
    while len(times) < 3 or (len(times) < 101 and sum(times) < 1):
        start = place.clock()
        opened = begin()
        times.append(place.clock() - start)
        end(opened)
    return statistics.median(times)


def _ten_parts(place: Place) -> Path:
    place.closed()
    path = place.folder / "consolidated"
    place.rival.remove(path)
    place.rival.load_parts(path, place.parts(10))
    return path


WORKLOADS = {
    "load": Workload(load, "/s", "keys written in one batch, durable at the end"),
    "get": Workload(get, "/s", "one key at a time, random order, all present, hot"),
    "miss": Workload(miss, "/s", "one key at a time, absent, between the others"),
    "get_many": Workload(get_many, "/s", "the same keys at once, or in the best batches"),
    "read": Workload(read, "/s", "the same keys at once, into columns"),
    "items": Workload(items, "/s", "all items, one Python pair each"),
    "values": Workload(values, "/s", "all values, one Python object each"),
    "scan": Workload(scan, "/s", "all items in columns"),
    "attributes": Workload(attributes, "/s", "2 of 12 attributes of the same keys, as columns"),
    "get_8MB": Workload(get_small_cache, "/s", "as get, with a cache of 8 MiB and larger data"),
    "open": Workload(open_, "s", "open the store"),
    "open_large": Workload(open_large, "s", "open many keys in one fragment, less opening none"),
    "disk": Workload(disk, "B/key", "bytes on disk a key"),
    "overwrite": Workload(overwrite, "/s", "present keys written again, durable at the end"),
    "delete": Workload(delete, "/s", "present keys deleted, durable at the end"),
    "get_10": Workload(get_parts(10), "/s", "as get, over 10 fragments"),
    "get_100": Workload(get_parts(100), "/s", "as get, over 100 fragments"),
    "consolidate": Workload(consolidate, "/s", "keys of 10 fragments merged into one"),
    "one_writer": Workload(writers(1), "/s", "keys written by one process with one thread"),
    "two_writers": Workload(writers(2), "/s", "the same by two processes at once"),
    "load_memory": Workload(
        load_memory, "B", "peak of memory while loading, the data itself not counted"
    ),
    "get_memory": Workload(get_memory, "B", "peak of memory of opening and get"),
    "consolidate_memory": Workload(consolidate_memory, "B", "peak of memory while merging"),
}
BASIC = ("load", "get", "miss", "get_many", "read", "items", "scan", "disk")

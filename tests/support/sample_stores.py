"""Stores that cover what the format can hold, and what they must be read back as, by whatever program.

A Sample is a schema and what is written in each flush. Expectations are bytes: keys as (datatype code, bytes), values as a dict
of bytes by attribute, all of it worked out here and not by tilekv.
"""

from __future__ import annotations

import hashlib
import json
import random
import string
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tilekv
from tilekv import (
    Attr,
    BitWidthReductionFilter,
    FilterList,
    LZ4Filter,
    NoOpFilter,
    Schema,
    ZstdFilter,
)
from tilekv.engine import create
from tilekv.probe import probe
from tilekv.storage import open_storage

DELETED = object()
KeyBytes = tuple[int, bytes]
Row = dict[str, bytes]
Flush = list[tuple[Any, Any]]  # (key, a value for each attribute as a tuple, or DELETED)

UNITS = {"Y": 18, "M": 19, "W": 20, "D": 21, "h": 22, "m": 23, "s": 24, "ms": 25, "us": 26}
UNITS |= {"ns": 27, "ps": 28, "fs": 29, "as": 30}
CODES = {"int32": 0, "int64": 1, "float32": 2, "float64": 3, "int8": 5, "uint8": 6, "int16": 7}
CODES |= {"uint16": 8, "uint32": 9, "uint64": 10, "bool": 41}
CODES |= {f"datetime64[{unit}]": code for unit, code in UNITS.items()}
CODES |= {f"timedelta64[{unit}]": code + 9 for unit, code in UNITS.items() if code >= 22}
INTEGERS = [name for name in CODES if "int" in name]


@dataclass(frozen=True)
class Sample:
    """A store to be."""

    schema: Schema
    flushes: list[Flush]
    numbers: bool = True  # False: of exact types, as the first stores were

    def write(self, path: Path, before_flush: Callable[[int], None] = lambda _: None) -> None:
        create(probe(open_storage(path)), self.schema, numbers=self.numbers)
        with tilekv.open(path, "a") as db:
            for number, flush in enumerate(self.flushes):
                before_flush(number)
                for key, row in flush:
                    if row is DELETED:
                        db.delete_many([key])
                    else:
                        db[key] = row if len(self.schema.attrs) > 1 else row[0]
                db.flush()

    def rows(self) -> dict[KeyBytes, Row | None]:
        """What was written last for each key; None for a delete."""
        found: dict[KeyBytes, Row | None] = {}
        for flush in self.flushes:
            for key, row in flush:
                if row is DELETED:
                    found[key_of(key, self.numbers)] = None
                    continue
                cells = zip(self.schema.attrs, row, strict=True)
                found[key_of(key, self.numbers)] = {
                    attr.name: cell_of(attr, value) for attr, value in cells
                }
        return found

    def shown(self) -> dict[str, str]:
        """The type in which TileDB-Py shows each attribute."""
        return {attr.name: shown_of(attr) for attr in self.schema.attrs}


def key_of(key: Any, numbers: bool = True) -> KeyBytes:
    """The datatype and bytes of a key; in a store that is not of numbers a NumPy scalar keeps its type."""
    if isinstance(key, tilekv.Key):
        return key.type, key.data
    if numbers and isinstance(key, np.generic) and key.dtype.kind in "iuf":
        key = key.item()
    if isinstance(key, str):
        return 4, key.encode("utf-8", "surrogateescape")
    if isinstance(key, (np.generic, np.ndarray)):
        return CODES[key.dtype.name], key.astype(key.dtype.newbyteorder("<")).tobytes()
    if isinstance(key, float):
        return 3, struct.pack("<d", key)
    if isinstance(key, int):
        return (10, struct.pack("<Q", key)) if key >= 1 << 63 else (1, struct.pack("<q", key))
    return 40, bytes(key)


def cell_of(attr: Attr, value: Any) -> bytes:
    if attr.type_name == "bytes":
        return bytes(value)
    if attr.type_name == "str":
        return value.encode() if isinstance(value, str) else b""
    return np.asarray(value, attr.dtype.newbyteorder("<")).tobytes()


def shown_of(attr: Attr) -> str:
    name = attr.type_name
    if name in ("bytes", "str"):
        return name
    if attr.var:
        return f"array of {name}"
    n = int(np.prod(attr.shape or (1,)))
    if n == 1:
        return name
    if n == 2 and name in ("float32", "float64"):
        return f"complex{2 * int(name[5:])}"
    return f"{n} x {name}"


def digest(key: KeyBytes, name: str) -> bytes:
    """The 16 bytes that docs/format.md makes of a key."""
    data = struct.pack("<BQ", key[0], len(key[1])) + key[1]
    if name == "md5":
        return hashlib.md5(data, usedforsecurity=False).digest()
    return hashlib.blake2b(data, digest_size=16).digest()


def coords(key: KeyBytes, name: str) -> tuple[int, int]:
    """The two coordinates of a key; the greatest u64 is outside the domain."""
    c0, c1 = struct.unpack("<QQ", digest(key, name))
    return min(c0, 2**64 - 2), min(c1, 2**64 - 2)


def in_order(keys: Iterable[Any], name: str = "blake2b") -> list[Any]:
    """Keys in the order of their cells."""
    return sorted(keys, key=lambda key: (*coords(key_of(key), name), *key_of(key)))


# --- values ----------------------------------------------------------------------------------------


def some(rng: random.Random, name: str) -> Any:
    """A value of a type by name: its extremes as often as anything between."""
    if name == "bytes":
        return rng.choice([b"", b"\0", b"\0\0", b"a\0", rng.randbytes(rng.randrange(60))])
    if name == "str":
        letters = string.printable + "äßΩ中文🎉\0"
        return rng.choice(["", "\0", "é\0", "".join(rng.choices(letters, k=rng.randrange(40)))])
    dtype = np.dtype(name)
    if name == "bool":
        return rng.random() < 0.5
    if dtype.kind == "f":
        numbers = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).max, np.finfo(dtype).tiny]
        return dtype.type(rng.choice([*numbers, rng.gauss(0, 1e6)]))
    word = np.dtype("int64") if dtype.kind in "mM" else dtype
    low, high = int(np.iinfo(word).min), int(np.iinfo(word).max)
    number = rng.choice([low, high, 0, 1, high // 2, rng.randint(low, high), rng.randint(0, 100)])
    return np.array([number], word).view(dtype)[0]


def array(rng: random.Random, name: str, shape: tuple[int, ...]) -> Any:
    values = [some(rng, name) for _ in range(int(np.prod(shape)))]
    return np.array(values, np.dtype(name)).reshape(shape)


def rows_of(schema: Schema, keys: Iterable[Any], seed: int) -> Iterator[tuple[Any, Any]]:
    rng = random.Random(seed)
    for key in keys:
        row = []
        for attr in schema.attrs:
            if attr.type_name in ("bytes", "str") or (not attr.var and attr.shape is None):
                row.append(some(rng, attr.type_name))
            else:
                row.append(array(rng, attr.type_name, attr.shape or (rng.choice([0, 1, 2, 7]),)))
        yield key, tuple(row)


def one_flush(schema: Schema, keys: Iterable[Any], seed: int = 1) -> Sample:
    return Sample(schema, [list(rows_of(schema, keys, seed))])


# --- the samples -----------------------------------------------------------------------------------


def named(name: str) -> str:
    """An attribute's name for a type: the units M and m differ only in case."""
    return f"{name} {CODES[name]}"


def scalars() -> Sample:
    attrs = [Attr("bytes", bytes), Attr("str", str), *(Attr(named(name), name) for name in CODES)]
    return one_flush(Schema(attrs, capacity=16), range(70))


def shapes() -> Sample:
    attrs = [Attr(f"{named(name)} x {n}", name, shape=n) for name in CODES for n in (1, 2, 3)]
    attrs += [Attr("square", "uint8", shape=(3, 4)), Attr("image", "uint8", shape=(64, 64, 3))]
    return one_flush(Schema(attrs, capacity=8), range(20))


def arrays() -> Sample:
    attrs = [Attr(named(name), name, var=True) for name in CODES]
    return one_flush(Schema(attrs, capacity=16), range(70))


def keys() -> Sample:
    words = ["", "a", "1", "\0", "naïve", "中文", "\udc80\udcff", "x" * 1000]
    blobs = [b"", b"a", b"1", b"\0", b"\xff\xfe", bytes(1000)]
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 0.0, -0.0, 1.0, 1.5, float("inf")]
    rng = random.Random(7)
    typed = [some(rng, name) for name in CODES if name != "bool" for _ in range(3)]
    typed += [np.int32(0), np.uint8(0), np.float32(1), np.arange(3), np.ones(2, "float32")]
    typed += [np.array([], "int16"), np.array([5], "int32")]
    odd = [tilekv.Key(code, b"key") for code in (4, 11, 12, 40, 41)]
    return one_flush(Schema([Attr("v", bytes)], capacity=16), words + blobs + numbers + typed + odd)


def empty_values() -> Sample:
    attrs = [Attr("b", bytes), Attr("s", str), Attr("n", "int64", var=True)]
    empty = (b"", "", np.array([], "int64"))
    return Sample(Schema(attrs, capacity=8), [[(key, empty) for key in range(30)]])


def empty_tiles() -> Sample:
    """Tiles 1 and 3 have no bytes; tile 0 ends, tile 2 begins with cells of none, tile 4 has some only in the middle."""
    schema = Schema([Attr("b", bytes), Attr("n", "int32", var=True)], capacity=8)
    full = {*range(6), *range(19, 24), 35}
    flush: Flush = []
    for place, key in enumerate(in_order(f"k{i}" for i in range(38))):
        n = place % 3 + 1 if place in full else 0
        flush.append((key, (bytes(range(n)), np.arange(n, dtype="int32"))))
    return Sample(schema, [flush])


def one_cell() -> Sample:
    return Sample(Schema([Attr("v", bytes)]), [[("", (b"",))]])


def no_fragment() -> Sample:
    return Sample(Schema([Attr("v", bytes), Attr("n", "int32")]), [])


def overwrites(digest: str = "blake2b") -> Sample:
    """Four flushes of overlapping keys: overwritten, deleted, deleted and set again, deleted and never there."""
    schema = Schema(
        [Attr("b", bytes), Attr("n", "int32"), Attr("v", "float64", var=True)], digest, 16
    )
    flushes: list[Flush] = [
        list(rows_of(schema, range(100), 1)),
        [*rows_of(schema, range(50, 150), 2), *((key, DELETED) for key in range(20))],
        [*rows_of(schema, range(10, 15), 3), (70, DELETED), ("never", DELETED), (b"", DELETED)],
        [(np.int32(3), DELETED), (71, DELETED), *rows_of(schema, [70, "new"], 4)],
    ]
    return Sample(schema, flushes)


def only_tombstones() -> Sample:
    schema = Schema([Attr("b", bytes), Attr("n", "int32", shape=3)], capacity=4)
    return Sample(schema, [[(key, DELETED) for key in range(10)]])


def many_tiles(capacity: int, cells: int) -> Sample:
    schema = Schema([Attr("b", bytes), Attr("n", "uint32")], capacity=capacity)
    rng = random.Random(capacity)
    names = [f"key_{i}" for i in range(cells)]
    return Sample(
        schema, [[(key, (rng.randbytes(rng.randrange(30)), i)) for i, key in enumerate(names)]]
    )


def sizes(filters: FilterList) -> Sample:
    """From nothing to 3 MB in one tile, at the borders of what is cut into pieces, and another tile of small ones."""
    schema = Schema(
        [Attr("b", bytes, filters=filters), Attr("n", "int64", var=True, filters=filters)],
        capacity=32,
    )
    rng = random.Random(3)
    mib = 1 << 20
    lengths = [1, 3 * 10**6, 0, 4095, 4096, 4097, mib - 1, mib, mib + 1, 2 * mib, 1, 0, 3 * mib + 1]
    lengths += [100] * 30
    flush: Flush = []
    for place, key in enumerate(in_order(f"k{i}" for i in range(len(lengths)))):
        n = lengths[place]
        # Compressible, and different everywhere, at no price.
        data = (rng.randbytes(64) * (n // 64 + 1))[:n]
        wide = place in (2, 6)
        flush.append(
            (key, (data, np.arange(140_000 if wide else place % 4, dtype="int64") - place))
        )
    return Sample(schema, [flush])


def many_attributes() -> Sample:
    kinds = ["bytes", "str", "int32", "float64", "bool", "datetime64[us]", "uint8"]
    types = {"bytes": bytes, "str": str}
    attrs = [Attr(f"a{i}", types.get(kinds[i % 7], kinds[i % 7])) for i in range(200)]
    return one_flush(Schema(attrs, capacity=16), range(20))


def odd_names() -> Sample:
    names = [
        "with space",
        "naïve 中文",
        "dots.and.more.",
        "'quotes\"",
        "%2F",
        "x" * 240,
        "value.tdb",
        "-",
    ]
    return one_flush(Schema([Attr(name, bytes) for name in names]), range(5))


def collisions() -> Sample:
    """Pairs of keys of one MD5 beside others, with a tile's border between the keys of some pairs but not of all."""
    fixture = Path(__file__).parents[1] / "fixtures" / "md5_collisions.json"
    pairs = json.loads(fixture.read_text())
    assert {pair["key_type_code"] for pair in pairs} == {40}
    keys = [*(bytes.fromhex(key) for pair in pairs for key in pair["keys"]), *range(20)]
    places = [coords(key_of(key), "md5") for key in in_order(keys, "md5")]
    seconds = [i for i in range(1, len(places)) if places[i] == places[i - 1]]
    assert len(seconds) == len(pairs)
    across = {n: sum(i % n == 0 for i in seconds) for n in range(2, 12)}
    capacity = next(n for n in across if 0 < across[n] < len(pairs))
    schema = Schema([Attr("v", "int64"), Attr("b", bytes)], digest="md5", capacity=capacity)
    return Sample(schema, [[(key, (i, b"%d" % i)) for i, key in enumerate(keys)]])


FILTERS = {
    "none": FilterList(),
    "noop": FilterList(NoOpFilter()),
    "lz4": FilterList(LZ4Filter()),
    "zstd": FilterList(ZstdFilter(1)),
    "zstd19": FilterList(ZstdFilter(19)),
    "bits": FilterList(BitWidthReductionFilter()),
    "narrow bits": FilterList(BitWidthReductionFilter(window=8)),
    "bits zstd": FilterList([BitWidthReductionFilter(), ZstdFilter(3)]),
    "bits lz4": FilterList([BitWidthReductionFilter(), LZ4Filter()]),
    "noop bits noop zstd": FilterList(
        [NoOpFilter(), BitWidthReductionFilter(), NoOpFilter(), ZstdFilter(3)]
    ),
    "lz4 zstd": FilterList([LZ4Filter(), ZstdFilter(1)]),
    "zstd lz4": FilterList([ZstdFilter(1), LZ4Filter()]),
    "bits lz4 zstd": FilterList([BitWidthReductionFilter(), LZ4Filter(), ZstdFilter(1)]),
    "bits bits": FilterList([BitWidthReductionFilter(), BitWidthReductionFilter()]),
}


def filtered(filters: FilterList) -> Sample:
    """The same filters for keys, offsets and values of every kind that a filter may treat in a way of its own."""
    scalars = [
        "bytes",
        "str",
        *INTEGERS,
        "float32",
        "float64",
        "bool",
        "datetime64[ms]",
        "timedelta64[s]",
    ]
    types = {"bytes": bytes, "str": str}
    attrs = [Attr(name, types.get(name, name), filters=filters) for name in scalars]
    attrs += [Attr(f"var {name}", name, var=True, filters=filters) for name in scalars[2:]]
    attrs += [Attr(f"3 {name}", name, shape=3, filters=filters) for name in scalars[2:]]
    schema = Schema(attrs, capacity=64, offsets_filters=filters, key_filters=filters)
    return one_flush(schema, [*range(90), *(f"key_{i}" for i in range(60))])


def mixed_filters() -> Sample:
    f = FILTERS
    attrs = [Attr("b", bytes, filters=f["none"]), Attr("s", str, filters=f["lz4"])]
    attrs += [Attr("n", "uint16", filters=f["bits zstd"]), Attr("v", "int64", var=True)]
    schema = Schema(attrs, capacity=1024, offsets_filters=f["bits lz4"], key_filters=f["none"])
    return one_flush(schema, [f"key_{i}" for i in range(3000)])


SAMPLES: dict[str, Callable[[], Sample]] = {
    "scalars": scalars,
    "shapes": shapes,
    "arrays": arrays,
    "keys": keys,
    "empty values": empty_values,
    "empty tiles": empty_tiles,
    "one cell": one_cell,
    "no fragment": no_fragment,
    "overwrites": overwrites,
    "overwrites md5": lambda: overwrites("md5"),
    "only tombstones": only_tombstones,
    "tiles of 16": lambda: many_tiles(16, 2000),
    "tiles of 1024": lambda: many_tiles(1024, 5000),
    "tiles of 1": lambda: many_tiles(1, 120),
    "sizes zstd": lambda: sizes(FILTERS["zstd"]),
    "sizes lz4": lambda: sizes(FILTERS["lz4"]),
    "many attributes": many_attributes,
    "odd names": odd_names,
    "collisions": collisions,
    "mixed filters": mixed_filters,
    **{f"filters {name}": lambda f=f: filtered(f) for name, f in FILTERS.items()},  # type: ignore[misc]
}

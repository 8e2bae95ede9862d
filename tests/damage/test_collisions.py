"""A thousand keys of one digest, as an attacker of an MD5 store could make them: all of them stay, and cost no squares.

Nobody can make a thousand keys of one MD5 in a test, so a fragment is built whose coordinates are all the digest of one key. That
key is found among all the others, in every place of their order; the others are seen by whatever does not ask for a digest.
"""

from __future__ import annotations

import time
from io import BytesIO

import numpy as np
import pytest

import tilekv
from damage import Image, Place
from tilekv import Attr, FilterList, Schema
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.footer import trailer
from tilekv.kvcore.format.tile import encode
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates
from tilekv.kvcore.write.arrays import ArrayCells
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.names import FRAGMENT_METADATA, FragmentName, data_file

BLOB = 40


def crowd(
    place: Place, image: Image, keys: list[bytes], value: bytes, chosen: bytes, t: int
) -> Image:
    """The image with a fragment of these keys, sorted, at the digest of one of them."""
    place.show(image)
    with tilekv.open(place.uri) as db:
        layout, digest = db._layout, db.schema.digest
    keys = sorted(keys)
    ends = np.cumsum([0, *map(len, keys)]).astype(np.uint64)
    values = np.arange(len(keys) + 1, dtype=np.uint64) * len(value)
    c0, c1 = coordinates(DIGESTS[digest], [(BLOB, chosen)])[0]
    cells = ArrayCells(
        layout,
        np.full(len(keys), c0, np.uint64),
        np.full(len(keys), c1, np.uint64),
        [
            (ends, np.frombuffer(b"".join(keys), np.uint8)),
            (values, np.frombuffer(value * len(keys), np.uint8)),
            np.full(len(keys), BLOB, np.uint8),
        ],
    )
    builder, codecs, name = FragmentBuilder(layout), CodecPool(), FragmentName.new(t)
    files = {slot: BytesIO() for slot, _, _ in layout.files}
    for plan in builder.add(cells):
        for run in plan.runs(1 << 20):
            files[plan.slot].write(encode(layout, cells, plan, *run, codecs))
        builder.written(plan)
    unique = bytes.fromhex(name.uuid)
    made = image
    for slot, stem, is_bytes in layout.files:
        data = files[slot].getvalue() + trailer(unique, slot)
        made = made.with_file(f"{name}/{data_file(stem, is_bytes)}", data)
    return made.with_file(f"{name}/{FRAGMENT_METADATA}", builder.metadata(unique, t, t))


def empty(place: Place, capacity: int) -> Image:
    none = FilterList()
    schema = Schema([Attr("v", bytes, filters=none)], "md5", capacity, key_filters=none)
    tilekv.open(place.uri, "w", schema=schema).close()
    return place.image({}, {})


@pytest.mark.parametrize("capacity", [7, 64, 4096])
def test_thousand_keys_of_one_digest(place: Place, capacity: int) -> None:
    keys = [b"key %04d" % i for i in range(1000)]
    base = empty(place, capacity)
    for chosen in (keys[0], keys[1], keys[capacity % 1000], keys[499], keys[-1]):
        # Two fragments: the newer one has every second key again.
        image = crowd(place, base, keys, b"old", chosen, 1)
        image = crowd(place, image, keys[::2], b"new", chosen, 2)
        rows = dict.fromkeys(keys, b"old") | dict.fromkeys(keys[::2], b"new")
        place.show(image)
        with tilekv.open(place.uri, "a") as db:
            for _ in range(2):
                assert db[chosen] == rows[chosen]
                assert db.get_many([chosen, b"nobody"]) == [rows[chosen], None]
                assert dict(db.items()) == rows
                assert len(db) == 1000
                batches = list(db.scan(rows=300))
                found = zip(
                    (key for batch in batches for key in batch.keys),
                    (value for batch in batches for value in batch["v"].to_list()),
                    strict=True,
                )
                assert dict(found) == rows
                db.consolidate(vacuum=True)
            assert len(db.fragments) == 1
            del db[chosen]
            db.flush()
            assert chosen not in db
            assert len(db) == 999
        # Nine hundred and ninety-nine of them are where their digest is not: verify() is not deceived.
        assert "more cells of this tile" in " ".join(map(str, tilekv.verify(place.uri)))


def test_cost_of_many_keys_of_one_digest(place: Place) -> None:
    """Guards against a hang, of the processor since others may be at work: merging that takes the square of the keys would be
    minutes, finding one by looking at all would be seconds."""
    n = 200_000
    keys = [b"key %06d" % i for i in range(n)]
    image = crowd(place, empty(place, 1024), keys, b"old", keys[n // 2], 1)
    image = crowd(place, image, keys, b"new", keys[n // 2], 2)
    place.show(image)
    with tilekv.open(place.uri) as db:
        start = time.process_time()
        assert len(db) == n
        merged = time.process_time()
        for _ in range(10_000):
            assert db[keys[n // 2]] == b"new"
        found = time.process_time()
    assert merged - start < 10  # measured: 0.24
    assert found - merged < 1  # measured: 0.01

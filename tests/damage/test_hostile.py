"""A stranger's store: right checksums, and nothing true behind them. It is refused, and nothing else happens."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tilekv
from damage import TALLY, Image, Place
from hostile import CHUNKS, IDENTITY, PAYLOAD, SOURCES, Metadata, plain_chunk
from lists import vac_bytes
from tilekv import Attr, FilterList, Schema
from tilekv.descriptor import AttrEntry, Descriptor
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.schemafile import Field, write_schema

METADATA = "__fragment_metadata.tdb"
ROOM = 96 << 20  # most bytes that refusing may take
NONE = FilterList()
SCHEMA = Schema(
    [Attr("blob", bytes, filters=NONE)], capacity=8, offsets_filters=NONE, key_filters=NONE
)
FIELDS = 3  # __key, blob, __key_type


@pytest.fixture
def image(place: Place) -> Image:
    """Three tiles, several chunks to a tile of values, and a consolidation's sources."""
    with tilekv.open(place.uri, "w", schema=SCHEMA) as db:
        db.put_many([(i, b"%d" % i * 20000) for i in range(20)])
        db.flush()
        db[0] = b"again"
        db.consolidate(vacuum=True)
    return place.image({}, {})


def changed(image: Image, change: Callable[[Metadata], None]) -> Image:
    [folder] = image.folders()
    path = f"{folder}/{METADATA}"
    metadata = Metadata(image.files[path], FIELDS)
    change(metadata)
    return image.with_file(path, metadata.seal())


def refused(place: Place, image: Image) -> None:
    """Every way of reading raises CorruptionError or gives something, in little memory; one of them or verify() refuses it."""
    place.show(image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[object] = []

    def attempt(call: Callable[[], object]) -> None:
        try:
            call()
        except CorruptionError as error:
            found.append(error)

    try:
        db = tilekv.open(place.uri)
    except CorruptionError as error:
        found.append(error)
    else:
        for call in (
            lambda: db.get_many(range(20)),
            lambda: [db.get(i) for i in range(20)],
            lambda: list(db.items()),
            lambda: [batch["blob"].to_list() for batch in db.scan()],
            lambda: db.read(list(range(20)), missing="mask"),
            lambda: len(db),
        ):
            attempt(call)
        found += db.verify()
    attempt(lambda: tilekv.salvage(place.uri, "memory://hostile", stale="memory://hostile-stale"))
    for uri in ("memory://hostile", "memory://hostile-stale"):
        if tilekv.object_type(uri):
            tilekv.storage.memory._roots.pop(uri[9:], None)
    assert found
    assert tilekv.verify(place.uri)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM >> 10
    TALLY["lies told with right checksums"] += 1


def test_counts(image: Image, place: Place) -> None:
    """Near 2^32 and 2^64, wherever a number of something stands."""
    [folder] = image.folders()
    base = Metadata(image.files[f"{folder}/{METADATA}"], FIELDS)
    wide: list[int] = [base.footer + 38, base.footer + 46]  # tiles, cells of the last
    wide += [base.footer + 54 + 8 * i for i in range(2 * FIELDS)]  # sizes of files
    wide += [position + PAYLOAD for position in base.vectors]
    wide += [base.entry(vector, tile) for vector in range(FIELDS + 1) for tile in range(3)]
    wide += [base.entry(FIELDS + 1 + field, tile) for field in (0, 1) for tile in range(3)]
    wide += [base.entry(base.raw_sizes(field), tile) for field in (0, 1) for tile in range(3)]
    wide += [at + 32 for at in base.records(IDENTITY)] + [at + 40 for at in base.records(IDENTITY)]
    wide += [at + 8 for at in base.records(CHUNKS)]
    for at in wide:
        for value in (2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1):
            if value != base.u64(at):
                refused(place, changed(image, lambda m, at=at, value=value: m.put(at, value)))  # type: ignore[misc]


def test_chunk_directories(image: Image, place: Place) -> None:
    """Backwards, beyond the tile, shared by two tiles, and every word of it at its extremes."""
    [folder] = image.folders()
    base = Metadata(image.files[f"{folder}/{METADATA}"], FIELDS)
    [at] = base.records(CHUNKS)
    size = base.u32(at - 4)
    words = [base.u32(at + 4 * i) for i in range(size // 4)]
    first = words[4:8]
    assert first[0] == 0
    assert first[3] == words[2]
    for i in range(size // 4):
        for value in (0, 1, words[i] - 1, words[i] + 1, 2**31, 2**32 - 1):
            if 0 <= value != words[i] and i != 3 and not (i == 8 and len(first) % 2):
                refused(
                    place, changed(image, lambda m, i=i, value=value: m.put(at + 4 * i, value, 4))
                )  # type: ignore[misc]
    shared = [0, first[2], first[1], first[3]]  # tiles 0 and 2 have chunks in common
    refused(
        place,
        changed(
            image, lambda m: [m.put(at + 16 + 4 * i, n, 4) for i, n in enumerate(shared)] and None
        ),
    )


def test_positions_that_go_backwards(image: Image, place: Place) -> None:
    for vector in range(2 * FIELDS):

        def swap(m: Metadata, vector: int = vector) -> None:
            one, two = m.u64(m.entry(vector, 1)), m.u64(m.entry(vector, 2))
            m.put(m.entry(vector, 1), two)
            m.put(m.entry(vector, 2), one)

        if vector != 2 * FIELDS + 3:
            refused(place, changed(image, swap))


def test_cells_that_share_bytes(image: Image, place: Place) -> None:
    """Offsets 0, all, 0, all: 4 of 8 cells would be the whole tile each, in a larger tile half a million times its size."""
    [folder] = image.folders()
    path = f"{folder}/blob.tdb"
    data = bytearray(image.files[path])
    total = Metadata(image.files[f"{folder}/{METADATA}"], FIELDS)
    size = total.u64(total.entry(total.raw_sizes(1), 0))
    for offsets in (
        [0, size] * 4,
        [0, size, *[size - 1] * 6],
        [1] * 8,
        [0, *[2**64 - 1] * 7],
        [0, *[size + 1] * 7],
    ):
        data[8 : 8 + 16 + 64] = plain_chunk(struct.pack("<8Q", *offsets))
        refused(place, image.with_file(path, bytes(data)))


@pytest.mark.parametrize("raw", [2**31 - 1, 1 << 20, 4096])
def test_decompression_bomb(place: Place, raw: int) -> None:
    """A chunk that says 4 KiB, or 2 GiB, and expands to 64 MiB."""
    import zstandard

    schema = Schema([Attr("blob", bytes)], capacity=8)
    with tilekv.open(place.uri, "w", schema=schema) as db:
        db[1] = b"x" * 4000
    image = place.image({}, {})
    [folder] = image.folders()
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(64 << 20))
    meta = struct.pack("<IIII", 0, 1, raw, len(frame))
    chunk = struct.pack("<QIII", 1, raw, len(frame), len(meta)) + meta + frame
    path = f"{folder}/blob_var.tdb"
    metadata = Metadata(image.files[f"{folder}/{METADATA}"], FIELDS)
    metadata.put(metadata.footer + 54 + 8 * (FIELDS + 1 + 1), len(chunk))
    metadata.put(metadata.entry(metadata.raw_sizes(1), 0), raw)
    bomb = image.with_file(path, chunk + image.files[path][-20:])
    refused(place, bomb.with_file(f"{folder}/{METADATA}", metadata.seal()))


def test_sources_that_are_no_names(image: Image, place: Place) -> None:
    """They are names and nothing is opened by them; what is no text is refused."""
    [folder] = image.folders()
    base = Metadata(image.files[f"{folder}/{METADATA}"], FIELDS)
    [at] = base.records(SOURCES)
    for name in (b"\xff" * 20, b"\xc0\xaf" * 10):
        refused(
            place,
            changed(image, lambda m, name=name: m.data.__setitem__(slice(at + 4, at + 24), name)),
        )  # type: ignore[misc]
    for n in (0xFFFFFFFF, 1 << 20):
        refused(place, changed(image, lambda m, n=n: m.put(at, n, 4)))  # type: ignore[misc]
    place.show(
        changed(
            image, lambda m: m.data.__setitem__(slice(at + 4, at + 24), b"../../../etc/passwd\0")
        )
    )
    with tilekv.open(place.uri, timestamp=1) as db:
        assert len(db) == 0


# --- the root --------------------------------------------------------------------------------------


def fragments(place: Place, n: int) -> Image:
    with tilekv.open(place.uri, "w", schema=SCHEMA, config={"kv.upkeep": "off"}) as db:
        for i in range(n):
            db[i] = b"x"
            db.flush()
    return place.image({}, {})


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_lists_in_a_circle(place: Place, length: int) -> None:
    image = fragments(place, length)
    names = image.folders()
    for name, following in zip(names, names[1:] + names[:1], strict=True):
        image = image.with_file(f"{name}.vac", vac_bytes(name, [following]))
    place.show(image)
    for call in (tilekv.open, lambda uri: tilekv.salvage(uri, "memory://circle")):
        with pytest.raises(CorruptionError, match="circle"):
            call(place.uri)
    assert "circle" in tilekv.verify(place.uri)[0].message
    TALLY["lies told with right checksums"] += 1


@pytest.mark.parametrize("line", ["..", "../../../etc/passwd", "", "__kv_schema.tdb", "a/b"])
def test_lists_of_other_names(place: Place, line: str) -> None:
    image = fragments(place, 2)
    name = image.folders()[1]
    place.show(image.with_file(f"{name}.vac", vac_bytes(name, [image.folders()[0], line])))
    for mode in ("r", "a"):
        with pytest.raises(CorruptionError, match="not the name of a fragment"):
            tilekv.open(place.uri, mode)  # type: ignore[arg-type]
    TALLY["lies told with right checksums"] += 1


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../etc/x", "", "__key", "nul\0", "x" * 300])
def test_attributes_that_name_other_files(place: Place, name: str) -> None:
    fields = [*SCHEMA.fields]
    fields[1] = Field(name, *fields[1][1:])
    data = write_schema(fields, 8, SCHEMA.offsets_pipeline, SCHEMA.coords_pipeline)
    entries = (AttrEntry(name, "bytes", None),)
    descriptor = Descriptor("0" * 32, "blake2b", "0.1", entries, crc32c(data))
    files = {"__kv_schema.tdb": data, "__array_schema.tdb": data, "__lock.tdb": b""}
    place.show(Image(files | {"__tilekv.json": descriptor.to_bytes()}, {}, {}))
    for mode in ("r", "a"):
        with pytest.raises(CorruptionError):
            tilekv.open(place.uri, mode)  # type: ignore[arg-type]
    assert tilekv.verify(place.uri)
    TALLY["lies told with right checksums"] += 1


@pytest.mark.parametrize(
    ("shape", "values"), [([2**31], 2**31), ([2**40], 1), ([1] * 33, 1), ([2**16] * 4, 1)]
)
def test_shapes_of_any_size(place: Place, shape: list[int], values: int) -> None:
    fields = [*SCHEMA.fields]
    fields[1] = Field("n", 1, values, *fields[1][3:])
    data = write_schema(fields, 8, SCHEMA.offsets_pipeline, SCHEMA.coords_pipeline)
    descriptor = Descriptor(
        "0" * 32, "blake2b", "0.1", (AttrEntry("n", "int64", tuple(shape)),), crc32c(data)
    )
    files = {"__kv_schema.tdb": data, "__array_schema.tdb": data, "__lock.tdb": b""}
    place.show(Image(files | {"__tilekv.json": descriptor.to_bytes()}, {}, {}))
    with pytest.raises(CorruptionError):
        tilekv.open(place.uri)


def test_json_of_any_depth(place: Place) -> None:
    image = fragments(place, 1)
    for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 100_000, '{"format": 1e999}', "NaN"):
        place.show(image.with_file("__tilekv.json", text.encode()))
        with pytest.raises(CorruptionError):
            tilekv.open(place.uri)


CLAIMS = """
import os, resource, sys, tilekv
from tilekv.errors import CorruptionError
with tilekv.open(sys.argv[2]) as db:
    list(db.items()), tilekv.verify(sys.argv[2])  # what the first use brings along
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * os.sysconf("SC_PAGESIZE") + (int(sys.argv[3]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
db = tilekv.open(sys.argv[1])
try:
    print("read", db["k"])
except CorruptionError:
    print("refused")
print(len(db.verify()), len(tilekv.verify(sys.argv[1])), len(tilekv.salvage(sys.argv[1], "memory://s").problems))
"""


@pytest.mark.unsanitized
def test_cells_that_no_filter_makes_of_what_is_stored(tmp_path: Path) -> None:
    """A gigabyte, by the schema, in a chunk of a thousand bytes: refused before memory is asked for."""
    zeros = Schema([Attr("n", "uint8", shape=1 << 20, filters=tilekv.GzipFilter())], capacity=8)
    for store in ("sound", "hostile"):
        with tilekv.open(tmp_path / store, "x", schema=zeros) as db:
            db["k"] = np.zeros(1 << 20, "uint8")
    wide = Schema([Attr("n", "uint8", shape=1 << 30, filters=tilekv.GzipFilter())], capacity=8)
    hostile = tmp_path / "hostile"
    old = Descriptor.from_bytes((hostile / "__tilekv.json").read_bytes())
    for name in ("__kv_schema.tdb", "__array_schema.tdb"):
        (hostile / name).write_bytes(wide.to_file())
    (hostile / "__tilekv.json").write_bytes(wide.describe(old.id, old.version).to_bytes())
    done = subprocess.run(
        [sys.executable, "-P", "-c", CLAIMS, hostile, tmp_path / "sound", str(ROOM >> 20)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused", "1", "1", "1"]
    TALLY["lies told with right checksums"] += 1


# --- what a store can make a reader do -------------------------------------------------------------


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Of the root, of a fragment, of a file in it, of a list; a FIFO does not make a reader wait."""
    outside = tmp_path / "outside"
    with tilekv.open(outside, "x", schema=SCHEMA) as db:
        db[1] = b"secret"
    [fragment] = outside.glob("__*_*_*/")
    for victim in (
        "__kv_schema.tdb",
        "__tilekv.json",
        fragment.name,
        f"{fragment.name}/blob_var.tdb",
        f"{fragment.name}/{METADATA}",
    ):
        for kind in ("link", "fifo"):
            store = tmp_path / f"{kind}-{victim.replace('/', '-')}"
            subprocess.run(["cp", "-r", str(outside), str(store)], check=True)
            if (store / victim).is_dir():
                subprocess.run(["rm", "-r", str(store / victim)], check=True)
            else:
                (store / victim).unlink()
            if kind == "link":
                (store / victim).symlink_to(outside / victim)
            else:
                os.mkfifo(store / victim)
            try:
                with tilekv.open(store) as db:
                    assert db.get(1) is None  # a fragment that is a link is none
                    assert db.fragments == ()
            except CorruptionError:
                pass
            tilekv.verify(store)
            TALLY["links and pipes"] += 1


SCRIPT = """
import json, sys
import numpy, tilekv, tilekv.__main__
from tilekv.errors import TileKVError
WATCHED = ("exec", "compile", "import", "pickle", "os.system", "os.exec", "os.posix_spawn", "subprocess", "socket", "ctypes",
           "marshal", "code")
root, seen, on = sys.argv[1], [], False
def hook(event, args):
    if on and (event.startswith(WATCHED) or (event == "open" and not own(args))):
        seen.append([event, repr(args)[:200]])
def own(args):
    # Files in a folder of the store are opened by their name alone, beside the descriptor of the folder.
    return str(args[0]).startswith(root) or "/" not in str(args[0])
with tilekv.open(root) as db:   # what the first use of NumPy and codecs imports
    list(db.items()), [b["blob"].to_list() for b in db.scan()], db.verify()
sys.addaudithook(hook)
on = True
for key in (b"\\x80\\x04cos\\nsystem\\n", "__import__('os').system('true')"):
    with tilekv.open(root) as db:
        db.get(key), list(db.items()), [b["blob"].to_list() for b in db.scan()], db.verify(), db.info()
tilekv.verify(root)
on = False
print(json.dumps(seen))
"""


def test_nothing_is_executed_or_unpickled(tmp_path: Path) -> None:
    """Reading opens files of the store and does nothing else that Python would tell an auditor."""
    evil = [b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"import os", "__import__('os').system('true')"]
    with tilekv.open(tmp_path / "s", "x", schema=SCHEMA) as db:
        db.put_many([(key, b"\x80\x04cos\nsystem\n(S'true'\ntR.") for key in evil])
        db[tilekv.Key(17, evil[0])] = evil[1]  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []

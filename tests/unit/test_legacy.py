"""Old stores: what is shown of them, what is refused, and what damage does."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from old_stores import UTF8, OldStoreWriter
from samples import some
from tilekv.cursor import Cursor
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates
from tilekv.kvcore.testing import encode
from tilekv.legacy.schema import OldField, OldSchema
from tilekv.legacy.tiles import BYTES, Coding, decode_tile

ITEMS = [((4, b"one"), 1, b"first"), ((1, bytes(8)), -2, b""), ((4, b"x" * 40), 3, b"y" * 50)]
NONE = Coding(0)


def written(path: Path, version: int, capacity: int = 2) -> Path:
    OldStoreWriter(path, version, capacity).flush(ITEMS, 1000)
    return path


def field(name: str, datatype: int, values: int = 1) -> OldField:
    return OldField(name, datatype, values, NONE)


# --- what is shown ---


@pytest.mark.parametrize(
    ("datatype", "values", "attr"),
    [
        (0, 1, tilekv.Attr("a", "int32")),
        (2, 3, tilekv.Attr("a", "float32", shape=3)),
        (10, 0xFFFFFFFF, tilekv.Attr("a", "uint64", var=True)),
        (4, 0xFFFFFFFF, tilekv.Attr("a", bytes)),
        (4, 16, tilekv.Attr("a", bytes)),
        (11, 0xFFFFFFFF, tilekv.Attr("a", str)),
        (12, 0xFFFFFFFF, tilekv.Attr("a", str)),
        (14, 0xFFFFFFFF, tilekv.Attr("a", bytes)),
        (23, 1, tilekv.Attr("a", "datetime64[m]")),
    ],
)
def test_attributes(datatype: int, values: int, attr: tilekv.Attr) -> None:
    old = OldSchema(2, 10, NONE, NONE, (field("__key", 17), field("a", datatype, values)))
    assert old.shown("md5").attrs == (attr,)


@pytest.mark.parametrize(
    ("capacity", "shown"),
    [
        (1, 1),
        (10_000, 10_000),
        (65_536, 65_536),
        (1 << 20, 65_536),
        (10**7, 62_500),
        (2**61 - 1, 1),
    ],
)
def test_an_old_tile_is_whole_tiles(capacity: int, shown: int) -> None:
    old = OldSchema(2, capacity, NONE, NONE, (field("__key", 17), field("a", 0)))
    assert old.shown("md5").capacity == shown


@pytest.mark.parametrize("name", ["a/b", "..", "__private", "x" * 300])
def test_attributes_that_tilekv_cannot_have(name: str) -> None:
    with pytest.raises(tilekv.FormatError, match="what tilekv cannot"):
        OldSchema(2, 10, NONE, NONE, (field("__key", 17), field(name, 0))).shown("md5")


def test_an_attribute_without_a_name() -> None:
    old = OldSchema(2, 10, NONE, NONE, (field("__key", 17), field("__attr", 0)))
    assert old.shown("md5").attrs == (tilekv.Attr("", "int32"),)


def test_no_store_is_created_with_the_old_digest(tmp_path: Path) -> None:
    with (
        tilekv.open(written(tmp_path / "old", 3)) as db,
        pytest.raises(tilekv.InvalidValueError, match="blake2b"),
    ):
        tilekv.open(tmp_path / "new", "x", schema=db.schema)


def test_info_and_fragments(tmp_path: Path) -> None:
    with tilekv.open(written(tmp_path / "old", 2)) as db:
        info = db.info()
        assert (info.cells, info.live, info.digest, info.tombstones) == (3, 3, "md5-lp64", 0)
        assert [(one.t1, one.t2) for one in db.fragments] == [(1000, 1000)]


def test_no_advice_that_cannot_be_followed(tmp_path: Path) -> None:
    """An old store can be neither consolidated nor vacuumed."""
    writer = OldStoreWriter(tmp_path / "old", 3)
    for t in range(20):
        writer.flush(ITEMS, 1000 + t)
    with tilekv.open(tmp_path / "old") as db:
        info = db.info()
    assert (info.old, info.fragments) == (True, 20)
    assert info.advice.startswith("convert ")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    """TileDB took any bytes for text. The error names the attribute, and the bytes are to be had."""
    writer = OldStoreWriter(tmp_path / "old", 3, text=UTF8)
    writer.flush([((4, b"good"), 1, "é".encode()), ((4, b"bad"), 2, b"a\xff")], 1000)
    says = r"attribute 'text' is text, and a cell of it is not UTF-8 .*: read\(keys\)\['text'\]"
    with tilekv.open(tmp_path / "old") as db:
        assert db["good"]["text"] == "é"
        batch = db.read(["good", "bad"])
        assert batch["text"].data.tobytes() == "é".encode() + b"a\xff"
        assert batch["text"].offsets.tolist() == [0, 2, 4]
        refused: list[Callable[[], object]] = [
            lambda: db["bad"],
            lambda: db.get_many(["bad"]),
            lambda: list(db.values()),
            batch["text"].to_list,
            batch["text"].__arrow_c_array__,
            batch.__arrow_c_array__,
            batch.__arrow_c_stream__,
        ]
        for call in refused:
            with pytest.raises(tilekv.CorruptionError, match=says):
                call()
    with pytest.raises(tilekv.CorruptionError, match=says):
        tilekv.convert(tmp_path / "old", tmp_path / "new")
    pa = pytest.importorskip("pyarrow")
    with tilekv.open(tmp_path / "old") as db:
        assert pa.table(db.read(["good"]))["text"].to_pylist() == ["é"]
        with pytest.raises(OSError, match=says):
            pa.table(db.scan())


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    """All bytes of the column are UTF-8, and no cell is."""
    writer = OldStoreWriter(tmp_path / "old", 3, text=UTF8)
    writer.flush([((4, b"1"), 1, b"\xc3"), ((4, b"2"), 2, b"\xa9")], 1000)
    with tilekv.open(tmp_path / "old") as db:
        batch = db.read(["1", "2"])
        assert batch["text"].data.tobytes() == "é".encode()
        with pytest.raises(tilekv.CorruptionError, match="'text' is text"):
            batch.__arrow_c_stream__()


def test_of_colliding_keys_the_last_written_is_left(tmp_path: Path) -> None:
    """As in TileDB, which knows a cell by its coordinates alone."""
    one, other = b"key_4610", b"key_4614"  # a collision that TileDB 1.6.3 was seen to have
    kind = DIGESTS["md5-lp64"]
    assert len({*coordinates(kind, [(4, one), (4, other)])}) == 1
    writer = OldStoreWriter(tmp_path / "old", 2)
    writer.flush([((4, other), 1, b""), *ITEMS], 5)
    writer.flush([((4, one), 2, b"")], 6, f"__{'b' * 32}_6")
    with tilekv.open(writer.root) as db:
        assert one.decode() in db
        assert other.decode() not in db
        assert len(db) == 1 + len(ITEMS)
    with tilekv.open(writer.root, timestamp=5) as db:
        assert db[other.decode()]["number"] == 1


def test_fragments_of_two_systems(tmp_path: Path) -> None:
    writer = OldStoreWriter(tmp_path / "old", 2)
    writer.flush(ITEMS, 5)
    writer.digest = DIGESTS["md5"]
    writer.flush(ITEMS, 6, f"__{'b' * 32}_6")
    with pytest.raises(tilekv.FormatError, match="Windows"):
        tilekv.open(writer.root)


def test_handle_with_a_key_is_not_pickled(tmp_path: Path) -> None:
    with tilekv.open(written(tmp_path / "old", 2)) as db:
        db._engine.key = bytes(32)  # as that of an encrypted store has
        with pytest.raises(tilekv.InvalidValueError, match="cannot be pickled"):
            db.__reduce__()


def test_old_handles_travel(tmp_path: Path) -> None:
    with tilekv.open(written(tmp_path / "old", 2)) as db:
        make, args = db.__reduce__()
        with make(*args) as again:
            assert dict(again) == dict(db)


# --- what is refused ---


@pytest.mark.parametrize(
    ("version", "tiledb"),
    [(5, "2.0"), (7, "2.2"), (9, "2.3"), (12, "2.8"), (22, "2.25 or newer"), (40, "2.25 or newer")],
)
def test_newer_formats(version: int, tiledb: str, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    header = struct.pack("<IQQBQBI", version, 20, 20, 4, 1, 0, 8) + bytes(28)
    (old / "__array_schema.tdb").write_bytes(header)
    with pytest.raises(tilekv.FormatError, match=rf"format {version}: TileDB {tiledb} wrote"):
        tilekv.open(old)


def test_formats_that_keep_their_schemas_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "old" / "__schema"
    folder.mkdir(parents=True)
    header = struct.pack("<IQQBQBI", 22, 20, 20, 4, 1, 0, 8) + bytes(28)
    (folder / f"__1_1_{'a' * 32}").write_bytes(header)
    with pytest.raises(tilekv.FormatError, match=r"TileDB 2\.25 or newer"):
        tilekv.open(tmp_path / "old")
    (folder / f"__1_1_{'a' * 32}").unlink()
    with pytest.raises(tilekv.CorruptionError, match="__schema"):
        tilekv.open(tmp_path / "old")


def test_what_newer_tiledb_moved_away(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 3)
    (old / "__fragments").mkdir()
    (old / "__fragments" / "one").mkdir()
    with pytest.raises(tilekv.FormatError, match="TileDB 2 has added __fragments"):
        tilekv.open(old)


def test_an_array_is_no_store(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 3)
    schema = old / "__kv_schema.tdb"
    schema.write_bytes(schema.read_bytes().replace(b"__key\x11", b"__kex\x11"))
    with pytest.raises(tilekv.FormatError, match="not a key-value store"):
        tilekv.open(old)


def test_the_array_schema_will_do(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 4)
    (old / "__kv_schema.tdb").rename(old / "__array_schema.tdb")
    with tilekv.open(old) as db:
        assert len(db) == 3


def test_coordinates_that_are_not_the_keys(tmp_path: Path) -> None:
    old = tmp_path / "old"
    OldStoreWriter(old, 2, digest="blake2b").flush(ITEMS, 5)
    with pytest.raises(tilekv.CorruptionError, match="not those of the keys"):
        tilekv.open(old)


def test_a_missing_file(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 2)
    next(old.glob("*/number.tdb")).unlink()
    with pytest.raises(tilekv.CorruptionError, match=r"number\.tdb: it is missing"):
        tilekv.open(old)


def test_cells_out_of_order(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 1, capacity=1)
    coords = next(old.glob("*/__coords.tdb"))
    data = coords.read_bytes()
    size = len(data) // 3
    coords.write_bytes(data[:size] + data[2 * size :] + data[size : 2 * size])
    with pytest.raises(tilekv.CorruptionError, match="do not ascend"):
        tilekv.open(old)


# --- tiles ---


def test_a_tile_cannot_claim_what_it_does_not_hold() -> None:
    claims = struct.pack("<QIII", 1, 0xFFFFFFFF, 4, 0) + b"1234"
    plain = Coding.read(Cursor(struct.pack("<II", 65536, 0), "f"), 1)
    for size in (1 << 40, 0xFFFFFFFF, 3):
        with pytest.raises(tilekv.CorruptionError):
            decode_tile(Cursor(claims, "f"), plain, BYTES, size)
    with pytest.raises(tilekv.CorruptionError, match="cannot hold"):
        decode_tile(Cursor(claims, "f"), plain, BYTES, 1 << 40)


def test_places_are_the_files() -> None:
    with pytest.raises(tilekv.CorruptionError) as caught:
        decode_tile(Cursor(b"12345678", "f", 1000), Coding(2), BYTES, 10)
    assert caught.value.offset == 1008


def test_bytes_after_the_last_chunk_are_ignored() -> None:
    empty = struct.pack("<II", 65536, 0)
    stored = struct.pack("<Q", 1) + encode(empty, 1, False, False, b"abc") + b"more"
    coding = Coding.read(Cursor(empty, "f"), 2)
    assert decode_tile(Cursor(stored, "f"), coding, BYTES, 3) == b"abc"


def test_filters_of_later_formats() -> None:
    webp = struct.pack("<IIBI", 65536, 1, 18, 0)
    with pytest.raises(tilekv.FormatError, match=r"webp \(filter 18\)"):
        Coding.read(Cursor(webp, "f"), 3)


def test_compressors_of_version_0() -> None:
    with pytest.raises(tilekv.FormatError, match="Snappy"):
        Coding.read(Cursor(bytes((7, 0, 0, 0, 0)), "f"), 0)
    with pytest.raises(tilekv.CorruptionError, match="no compressor 13"):
        Coding.read(Cursor(bytes((13, 0, 0, 0, 0)), "f"), 0)


def test_a_damaged_blosc_buffer() -> None:
    blosc2 = pytest.importorskip("blosc2")
    raw = bytes(range(256)) * 16
    good = blosc2.compress(raw, typesize=8)

    def tile(buffer: bytes, size: int = len(raw)) -> bytes:
        stored = struct.pack("<QQQ", 1, size, len(buffer)) + buffer
        return decode_tile(Cursor(stored, "f"), Coding(4), BYTES, size)

    assert tile(good) == raw
    with pytest.raises(tilekv.CorruptionError, match="says otherwise"):
        tile(good, 10)
    for at in range(0, len(good), 3):
        broken = bytearray(good)
        broken[at] ^= 0xFF
        try:
            tile(bytes(broken))
        except tilekv.CorruptionError:
            pass


# --- damage ---


def read_all(path: Path) -> Any:
    try:
        with tilekv.open(path) as db:
            return db.verify(), list(db.items()), len(db)
    except tilekv.TileKVError as error:
        return error


@pytest.mark.parametrize("version", [0, 1, 3])
def test_any_byte_damaged(version: int, tmp_path: Path) -> None:
    """TileDB 1.x has no checksums: damage may show as another value, and never as a crash or an error of another kind."""
    old = written(tmp_path / "old", version)
    errors = 0
    for path in sorted(old.rglob("*.tdb")):
        data = path.read_bytes()
        for at in some(range(len(data)), 2):
            broken = bytearray(data)
            broken[at] ^= (0x01, 0x80, 0xFF)[at % 3]
            path.write_bytes(broken)
            errors += isinstance(read_all(old), tilekv.TileKVError)
        path.write_bytes(data)
    assert errors > 150
    assert not isinstance(read_all(old), tilekv.TileKVError)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_any_file_cut_short(version: int, tmp_path: Path) -> None:
    old = written(tmp_path / "old", version)
    for path in sorted(old.rglob("*.tdb")):
        data = path.read_bytes()
        if not data:
            continue  # the lock
        for size in {*range(0, len(data), 11), len(data) - 1}:
            path.write_bytes(data[:size])
            assert isinstance(read_all(old), tilekv.TileKVError), (path.name, size)
        path.write_bytes(data)


def test_a_lost_descriptor_is_no_old_store(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "new", "x") as db:
        db["key"] = b"value"
    (tmp_path / "new" / "__tilekv.json").unlink()
    for mode in ("r", "a"):
        with pytest.raises(tilekv.CorruptionError, match="missing"):
            tilekv.open(tmp_path / "new", mode)  # type: ignore[arg-type]
    shutil.rmtree(tmp_path / "new")

"""What the original TileDB wrote, read: every key with its type, every value, the order, and look-ups."""

import csv
import gzip
import json
import struct
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tilekv
from old_stores import OldStoreWriter
from tilekv.datatypes import DATATYPES

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/store.tar.gz"))
SECRET = b"0123456789abcdeF0123456789abcdeF"
CODES = {row.name: row.code for row in DATATYPES}
STRUCT = dict(zip((1, 0, 3, 2, 5, 6, 7, 8, 9, 10), "qidfbBhHIQ", strict=True))


class Old(NamedTuple):
    """An unpacked fixture."""

    name: str
    path: Path
    expected: dict[str, Any]

    @property
    def secret(self) -> bytes | None:
        """What opens it."""
        return SECRET if self.name == "i6_encrypted" else None

    def open(self) -> tilekv.Store:
        """Open it."""
        return tilekv.open(self.path, key=self.secret)

    @property
    def items(self) -> list[tuple[tilekv.Key, Any]]:
        """Its items in the order in which TileDB gives them."""
        attrs = self.expected["attributes"]
        found = sorted(self.expected["items"], key=lambda item: item["iter_index"])
        return [
            (
                tilekv.Key(CODES[item["key_type"]], bytes.fromhex(item["key_hex"])),
                {attr["name"]: value_of(attr, item["values"][attr["name"]]) for attr in attrs},
            )
            for item in found
        ]


def value_of(attr: dict[str, Any], stored: Any) -> Any:
    """A value of expected.json as tilekv gives it."""
    if attr["type"] == "CHAR":
        return stored.encode("latin-1")
    values = np.array(stored, DATATYPES[CODES[attr["type"]]].dtype)
    assert attr["cell_val_num"] == 1  # as in all fixtures
    return values[0].item() if values.dtype.kind == "i" else values[0]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Old]:
    done: dict[str, Old] = {}

    def unpack(name: str) -> Old:
        if name not in done:
            root = tmp_path_factory.mktemp("old")
            with tarfile.open(FIXTURES / name / "store.tar.gz") as archive:
                # Python 3.11.4 brought the filter, 3.12 warns without it; Debian 12 has 3.11.2.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(root)
            expected = json.loads(
                gzip.decompress((FIXTURES / name / "expected.json.gz").read_bytes())
            )
            done[name] = Old(name, root / name, expected)
        return done[name]

    return unpack


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, unpacked: Callable[[str], Old]) -> Old:
    return unpacked(request.param)


def identity(key: Any) -> tuple[int, bytes]:
    """The type and the bytes of a key, by the table of the data model and none of tilekv's code."""
    if isinstance(key, tilekv.Key):
        return key.type, key.data
    if isinstance(key, bytes):
        return CODES["BLOB"], key
    if isinstance(key, str):
        return CODES["CHAR"], key.encode("utf-8", "surrogateescape")
    if isinstance(key, (int, float)) and not isinstance(key, np.generic):
        code = CODES["INT64"] if isinstance(key, int) and key < 2**63 else CODES["UINT64"]
        code = CODES["FLOAT64"] if isinstance(key, float) else code
        return code, struct.pack("<" + STRUCT[code], key)
    names = {row.dtype: row.code for row in DATATYPES if row.dtype}
    return names[key.dtype.name], key.tobytes()


def as_dicts(db: tilekv.Store) -> Iterator[tuple[tuple[int, bytes], Any]]:
    attrs = db.schema.attrs
    for key, value in db.items():
        yield identity(key), value if len(attrs) > 1 else {attrs[0].name: value}


def test_reads_what_tiledb_read(old: Old) -> None:
    with old.open() as db:
        expected = [((key.type, key.data), value) for key, value in old.items]
        assert len(db) == len(expected) == old.expected["n_items"]
        assert list(as_dicts(db)) == expected
        assert db.verify() == []


def test_keys_are_found_by_their_digests(old: Old) -> None:
    with old.open() as db:
        keys = [key for key, _ in old.items]
        found = db.get_many(keys)
        assert found == [db[key] for key in keys] == list(db.values())
        assert not any(tilekv.Key(key.type, key.data + b"?") in db for key in keys)


def test_types_of_values_are_kept(old: Old) -> None:
    with old.open() as db:
        shown = {attr.name: attr.type_name for attr in db.schema.attrs}
    names = {"CHAR": "bytes", "INT32": "int32", "INT64": "int64", "FLOAT32": "float32"}
    assert shown == {attr["name"]: names[attr["type"]] for attr in old.expected["attributes"]}


def test_converted(old: Old, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    new = tmp_path / "new.kv"
    n = tilekv.convert(old.path, new, old.secret, progress=lambda *now: told.append(now))
    assert n == old.expected["n_items"]
    assert told[-1] == (n, n)
    with tilekv.open(new) as db:
        assert db.schema.digest == "blake2b"
        assert dict(as_dicts(db)) == {(key.type, key.data): value for key, value in old.items}
        assert len(db) == n
        assert db.verify() == []


@pytest.mark.parametrize("mode", ["a", "w", "x"])
def test_writing_is_refused(old: Old, mode: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in old.path.rglob("*")}
    with pytest.raises(tilekv.TileKVError, match=r"tilekv\.convert"):
        tilekv.open(old.path, mode)
    with old.open() as db, pytest.raises(tilekv.ReadOnlyError):
        db["key"] = {}
    assert {path: path.stat().st_mtime_ns for path in old.path.rglob("*")} == before


def test_collisions_are_as_tiledb_left_them(unpacked: Callable[[str], Old]) -> None:
    """TileDB returned for some keys what belongs to others: tilekv compares the stored key, and says that they are missing."""
    old = unpacked("f8_collisions")
    with old.open() as db, (FIXTURES / old.name / "gets.csv").open() as file:
        for row in csv.DictReader(file):
            if row["k_returned"] == row["key_written"]:
                value = {"n": int(row["n_returned"]), "k": row["k_returned"].encode()}
                assert db[row["key_written"]] == value
            else:
                assert row["key_written"] not in db


def test_encrypted_without_its_key(unpacked: Callable[[str], Old]) -> None:
    path = unpacked("i6_encrypted").path
    with pytest.raises(tilekv.InvalidValueError, match=r"encrypted with AES-256-GCM: .* key="):
        tilekv.open(path)
    with pytest.raises(tilekv.InvalidValueError, match="the key does not open this store"):
        tilekv.open(path, key=SECRET[::-1])
    with pytest.raises(tilekv.InvalidValueError, match="32 bytes, not 5"):
        tilekv.open(path, key="short")
    with pytest.raises(tilekv.WrongTypeError, match="bytes or a str"):
        tilekv.open(path, key=7)  # type: ignore[arg-type]
    with tilekv.open(path, key=SECRET.decode()) as db:
        assert len(db) == 300


def test_faces_take_the_key(unpacked: Callable[[str], Old]) -> None:
    """As TileDB-Py and the C++ of 1.4 did. Values are checked above, through the Store that both faces use."""
    old = unpacked("i6_encrypted")
    uri, ctx = str(old.path), tilekv.Ctx()
    with old.open() as db:
        attrs, items, moment = db.schema.attrs, dict(db), max(one.t2 for one in db.fragments)
    for kv in (
        tilekv.KV(uri, "r", SECRET, encoding=None),
        tilekv.KV(ctx, uri, mode="r", key=SECRET.decode(), encoding=None),
        tilekv.KV(uri, mode="r", key=SECRET, timestamp=moment, encoding=None),
    ):
        with kv:
            assert kv == items
            kv.reopen()
            assert len(kv) == len(items)
            kv.reopen(moment)
            assert (len(kv), kv.timestamp) == (len(items), moment)
            kv.reopen(1)
            assert len(kv) == 0
    assert tilekv.KVSchema.load(uri, SECRET) == tilekv.KVSchema.load(ctx, uri, key=SECRET)
    assert list(tilekv.MapSchema(ctx, uri, key=SECRET).attributes().values()) == list(attrs)
    with tilekv.Map(ctx, uri, tilekv.TILEDB_READ, key=SECRET) as m:
        assert {item.key(): dict(item.values()) for item in m} == items
        m.reopen_at(1)
        assert not list(m)
        m.close()
        m.open(tilekv.TILEDB_READ, key=SECRET)
        m.reopen()
        assert len(list(m)) == len(items)
    secret = (tilekv.TILEDB_AES_256_GCM, SECRET, len(SECRET))
    for call in (
        lambda: tilekv.Map(ctx, uri, tilekv.TILEDB_READ, *secret),
        lambda: tilekv.Map(ctx, uri, tilekv.TILEDB_READ, *secret, moment),
    ):
        with call() as m:
            assert len(list(m)) == len(items)
            m.close()
            m.open(tilekv.TILEDB_READ, *secret, 1)
            assert not list(m)
    assert tilekv.MapSchema(ctx, uri, *secret).attribute_num() == len(attrs)
    assert tilekv.Map.encryption_type(ctx, uri) is tilekv.TILEDB_AES_256_GCM
    plain = str(unpacked("g1_py_tutorial").path)
    assert tilekv.Map.encryption_type(ctx, plain) is tilekv.TILEDB_NO_ENCRYPTION
    missing: list[Callable[[], object]] = [
        lambda: tilekv.KV(uri, "r"),
        lambda: tilekv.KVSchema.load(uri),
        lambda: tilekv.Map(ctx, uri, tilekv.TILEDB_READ),
        lambda: tilekv.MapSchema(ctx, uri),
    ]
    for call in missing:
        with pytest.raises(tilekv.InvalidValueError, match=r"encrypted with AES-256-GCM: .* key="):
            call()


def test_faces_that_would_write_say_how_to_read(unpacked: Callable[[str], Old]) -> None:
    """Who is refused is told what to write instead; who names no mode reads."""
    uri, ctx = str(unpacked("g1_py_tutorial").path), tilekv.Ctx()
    refused: list[Callable[[], object]] = [
        lambda: tilekv.KV(ctx, uri, "w"),
        lambda: tilekv.Map(ctx, uri, tilekv.TILEDB_WRITE),
        lambda: tilekv.Map.consolidate(ctx, uri),
        lambda: tilekv.open(uri, "a"),
    ]
    for call in refused:
        says = r"mode='r' \(a Map with TILEDB_READ\), or .* tilekv\.convert\("
        with pytest.raises(tilekv.ReadOnlyError, match=says):
            call()
    with tilekv.KV(uri, mode="r") as kv, tilekv.Map(ctx, uri, tilekv.TILEDB_READ) as m:
        assert {item.key(str): item["a1"].decode() for item in m} == dict(kv.items())
        with tilekv.KV(uri) as other, tilekv.Map(ctx, uri) as third:
            assert (other.mode, other.dict()) == ("r", kv.dict())
            assert len(list(third)) == len(kv)
            third.close()
            third.open()
            assert len(list(third)) == len(kv)
            with pytest.raises(tilekv.ReadOnlyError):
                other["k"] = "v"


def test_key_for_what_is_not_encrypted(unpacked: Callable[[str], Old], tmp_path: Path) -> None:
    with pytest.raises(tilekv.InvalidValueError, match="not encrypted"):
        tilekv.open(unpacked("i1_tutorial").path, key=SECRET)
    with pytest.raises(tilekv.InvalidValueError, match="not encrypted"):
        tilekv.open(unpacked("f1_tutorial").path, key=SECRET)
    with pytest.raises(tilekv.InvalidValueError, match="not encrypted"):
        tilekv.open(tmp_path / "new", "a", key=SECRET)


@pytest.mark.parametrize("name", ["g1_py_tutorial", "i6_encrypted"])
def test_entries_expire_once_they_are_converted(
    name: str, unpacked: Callable[[str], Old], tmp_path: Path
) -> None:
    old = unpacked(name)
    with old.open() as db:
        keys = list(db)
        assert {db.expires(key) for key in keys} == {None}
        assert db.info().expired is None
        with pytest.raises(tilekv.ReadOnlyError):
            db.touch(keys[0], 5)
    with pytest.raises(tilekv.InvalidValueError, match="keeps no moments"):
        tilekv.open(old.path, key=old.secret, expires=True)
    assert tilekv.convert(old.path, tmp_path / "new", old.secret, expires=True) == len(keys)
    with tilekv.open(tmp_path / "new", "a", expires=True) as db:
        db.touch(keys[0], -1)
        db.touch(keys[1], 3600)
        assert list(db.get_many(keys[:2])) == [None, db[keys[1]]]
        assert set(map(repr, db)) == set(map(repr, keys[1:]))


@pytest.mark.parametrize(
    ("name", "package"), [("f6_compressors", "blosc2"), ("i6_encrypted", "cryptography")]
)
def test_optional_packages_are_named(
    name: str, package: str, unpacked: Callable[[str], Old], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [*sys.modules, package]:
        if module.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(tilekv.MissingPackageError, match=rf"{package}.*tilekv\[legacy\]"):
        unpacked(name).open()


ITEMS = [
    ((4, b"one"), 1, b"first"),
    ((1, (2).to_bytes(8, "little")), -2, b""),
    ((40, b"\x00\xff"), 3, b"third" * 30_000),
    ((4, b""), 4, b"no key"),
    ((0, (5).to_bytes(4, "little")), 5, b"5"),
]
SHOWN = {
    "one": {"number": 1, "text": b"first"},
    2: {"number": -2, "text": b""},
    b"\x00\xff": {"number": 3, "text": b"third" * 30_000},
    "": {"number": 4, "text": b"no key"},
    np.int32(5): {"number": 5, "text": b"5"},
}


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("zstd_coords", [False, True])
@pytest.mark.parametrize("digest", ["md5-lp64", "md5"])
@pytest.mark.parametrize("capacity", [1, 2, 10_000, 999_983])
def test_every_format(
    version: int, zstd_coords: bool, digest: str, capacity: int, tmp_path: Path
) -> None:
    """Versions 1 and 4, of which there is no fixture, are the same but for the coordinates of 1 and the number of 4."""
    writer = OldStoreWriter(
        tmp_path / "old", version, capacity, digest, zstd_coords and version > 0
    )
    writer.flush(ITEMS, 1000)
    with tilekv.open(tmp_path / "old") as db:
        assert dict(db) == SHOWN
        assert [type(key) for key in db if key == 5] == [np.int32]
        assert all(db[key] == value for key, value in SHOWN.items())
        assert db.schema.digest == digest
        assert db.verify() == []

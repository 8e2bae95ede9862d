"""What fails its checksum, perhaps damaged on its way, is asked for once more by the same call: then it is damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from tilekv.names import ARRAY_SCHEMA, DESCRIPTOR, FRAGMENT_METADATA, KV_SCHEMA
from tilekv.storage import objectclient
from tilekv.storage.objectlayout import RECORD

ATTRS = [tilekv.Attr("text", str), tilekv.Attr("n", "int64")]
ROWS = {i if i % 2 else f"{i}": {"text": f"{i}" * (i % 50), "n": i} for i in range(3000)}


def cells(batch: Any) -> list[list[Any]]:
    return [[*batch[attr.name]] for attr in ATTRS]


CALLS: dict[str, Callable[[tilekv.Store], Any]] = {
    "get": lambda db: [db[key] for key in (7, "1000")],
    "get_many": lambda db: db.get_many([*ROWS]),
    "read": lambda db: cells(db.read([*ROWS])),
    "items": lambda db: dict(db.items()),
    "scan": lambda db: [cells(batch) for batch in db.scan()],
    "keys": lambda db: [*db.keys()],
    "len": len,
    "verify": lambda db: db.verify(),
    "part": lambda db: db.get_range(49, 3, 9, attr="text"),
}
FILES = [
    "__coords.tdb",
    "__key.tdb",
    "__key_var.tdb",
    "__key_type.tdb",
    "text.tdb",
    "text_var.tdb",
    "n.tdb",
]


class Flips:
    """One bit of the next `times` answers that have to do with a file is another; in the midst, or in its last byte."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self.times, self.done, self.at_end = "", 0, 0, False
        for name in ("_got", "get_range"):
            monkeypatch.setattr(objectclient.Client, name, self.through(name))

    def through(self, name: str) -> Any:
        real = getattr(objectclient.Client, name)

        def call(client: Any, key: str, *rest: Any) -> Any:
            found = real(client, key, *rest)
            if f"/{self.file}" not in key or not self.times or found is None:
                return found
            self.times -= 1
            self.done += 1
            return (
                found._replace(data=self.bent(found.data)) if name == "_got" else self.bent(found)
            )

        return call

    def bent(self, data: bytes) -> bytes:
        at = len(data) - 1 if self.at_end else len(data) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def flip(self, file: str, times: int = 1, at_end: bool = False) -> None:
        self.file, self.times, self.done, self.at_end = file, times, 0, at_end


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch) -> Flips:
    return Flips(monkeypatch)


@pytest.fixture
def bucket(memory_bucket: str) -> Bucket:
    return Bucket(memory_bucket)


@pytest.fixture
def uri(bucket: Bucket) -> str:
    uri = bucket.new()
    with bucket.open(uri, "x", schema=tilekv.Schema(ATTRS), config=OFF) as db:
        db.put_many(ROWS)
    return uri


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_every_call_asks_once_more(
    bucket: Bucket, uri: str, flips: Flips, file: str, at_end: bool
) -> None:
    with bucket.open(uri) as db:
        want = {name: call(db) for name, call in CALLS.items()}
    bent = set()
    for name, call in CALLS.items():
        with bucket.open(uri) as db:
            flips.flip(file, at_end=at_end)
            assert call(db) == want[name], name
            if flips.done:
                bent.add(name)
            flips.flip(file, times=0)
    assert bent >= {"items", "verify"}


@pytest.mark.parametrize("file", FILES)
def test_what_comes_wrong_again_is_damage(
    bucket: Bucket, uri: str, flips: Flips, file: str
) -> None:
    """For that call: the next one asks again."""
    with bucket.open(uri) as db:
        flips.flip(file, times=-1)
        with pytest.raises(tilekv.CorruptionError, match=file):
            dict(db.items())
        assert flips.done == 2
        assert db.verify() != []
        flips.flip(file, times=0)
        assert dict(db.items()) == ROWS
        assert db.verify() == []


def test_and_past_the_cache(uri: str, flips: Flips, tmp_path: Path) -> None:
    """Which keeps what has come then."""
    for file in FILES:
        options = {"cache_dir": str(tmp_path / file)}
        for flipped in (1, 0):
            flips.flip(file)
            with tilekv.open(uri, storage_options=options) as db:
                assert dict(db.items()) == ROWS
            assert flips.done == flipped


@pytest.fixture
def unversioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose versions are no MD5s of what it has."""
    monkeypatch.setattr(objectclient._Digests, "fits", lambda *_: None)


@pytest.mark.parametrize("name", [DESCRIPTOR, RECORD, FRAGMENT_METADATA, KV_SCHEMA, ARRAY_SCHEMA])
def test_what_is_read_at_an_open(
    bucket: Bucket, tmp_path: Path, flips: Flips, unversioned: None, name: str
) -> None:
    uri = bucket.new()
    with tilekv.open(tmp_path / "store", "x", config=OFF) as db:
        for i in range(3):
            db["a"] = b"%d" % i
            db.flush()
        db.consolidate(vacuum=True)
        db["b"] = b"b"
    storage = bucket.storage(uri)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            storage.client.put(
                f"{storage.data}{path.relative_to(tmp_path / 'store')}", path.read_bytes()
            )
    for at_end in (False, True):
        flips.flip(name, at_end=at_end)
        assert bucket.items(uri) == {"a": b"2", "b": b"b"}
        assert flips.done == 1
    flips.flip(name, times=-1)
    with pytest.raises(tilekv.CorruptionError, match=name):
        bucket.items(uri)

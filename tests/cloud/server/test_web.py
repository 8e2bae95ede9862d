"""Stores on a web server: its manifest says what is there, and nobody writes."""

import http.server
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tilekv
from bucket_stores import OFF, Bucket
from tilekv.errors import CorruptionError, InvalidValueError, ReadOnlyError, StoreNotFoundError
from tilekv.tools.manifest import write_manifest

KEYS = {f"{i}": b"%d" % i * 30 for i in range(20_000)}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files by ranges, as web servers have them and Python's own has not; it writes down what it was asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    ranges = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        given = self.headers.get("Range")
        if given is None or not self.ranges:
            self.send_response(200)
        else:
            first, last = map(int, given.removeprefix("bytes=").split("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Web:
    """A web server of this process, and the folder that it shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.handler = type("Handler_", (Handler,), {"asked": self.asked})
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *each: self.handler(*each, directory=str(folder))
        )
        self.uri = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = Web(tmp_path)
    thread = threading.Thread(target=web.server.serve_forever, args=(0.02,))
    thread.start()
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store of three fragments, one of them merged, in a folder whose name is not one of a URL."""
    place = tmp_path / "visits of ä.kv"
    with tilekv.open(place, "x", config=OFF) as db:
        for part in range(3):
            db.put_many({key: value for key, value in KEYS.items() if int(key) % 3 == part})
            db.flush()
        db.consolidate()
        db["new"] = b"1"
        db.flush()
        del db["7"]
    return place


WANT = {key: value for key, value in KEYS.items() if key != "7"} | {"new": b"1"}
PATH = "visits%20of%20%C3%A4.kv"


def test_reading(web: Web, place: Path) -> None:
    assert write_manifest(place)[0] == 3
    uri = f"{web.uri}/{PATH}"
    with tilekv.open(uri) as db:
        assert db.uri == uri
        assert not [path for path in web.asked if "__fragment_metadata" in path]
        web.asked.clear()
        assert db["8"] == KEYS["8"]
        assert 0 < len(web.asked) <= 12
        assert db.get("7") is None
        assert dict(db.items()) == WANT
        assert db.get_many(["1", "none"]) == [KEYS["1"], None]
        assert db.verify() == []
        assert db.info().live == len(WANT)
        with pickle.loads(pickle.dumps(db)) as other:
            assert other["8"] == KEYS["8"]


def test_tools(web: Web, place: Path, tmp_path: Path) -> None:
    """Whatever only reads."""
    write_manifest(place)
    uri = f"{web.uri}/{PATH}"
    assert tilekv.verify(uri) == []
    assert tilekv.object_type(uri) == "kv"
    assert tilekv.backup(uri, tmp_path / "copy").fragments == 3
    assert tilekv.convert(uri, tmp_path / "converted") == len(WANT)
    assert tilekv.salvage(uri, tmp_path / "saved").copied == len(WANT)
    for name in ("copy", "converted", "saved"):
        with tilekv.open(tmp_path / name) as db:
            assert dict(db.items()) == WANT
    found = subprocess.run(
        [sys.executable, "-P", "-m", "tilekv", "get", uri, "8"], capture_output=True, check=True
    )
    assert found.stdout == KEYS["8"]


def test_nobody_writes(web: Web, place: Path, tmp_path: Path) -> None:
    write_manifest(place)
    uri = f"{web.uri}/{PATH}"
    before = sorted(tmp_path.rglob("*"))
    calls: list[Any] = [
        *(lambda mode=mode: tilekv.open(uri, mode) for mode in "axw"),
        lambda: tilekv.open(f"{web.uri}/new", "a"),
        lambda: tilekv.backup(place, f"{web.uri}/new"),
        lambda: tilekv.convert(place, f"{web.uri}/new"),
        lambda: tilekv.salvage(place, f"{web.uri}/new"),
        lambda: tilekv.append_attr(uri, tilekv.Attr("n", "int64"), 1),
        lambda: tilekv.from_arrow(f"{web.uri}/new", pa.table({"k": [1, 2], "n": [3, 4]}), "k"),
        lambda: tilekv.remove(uri),
        lambda: tilekv.move(uri, f"{web.uri}/new"),
        lambda: tilekv.move(place, f"{web.uri}/new"),
        lambda: tilekv.group_create(f"{web.uri}/new"),
        lambda: write_manifest(uri),
    ]
    for call in calls:
        with pytest.raises(ReadOnlyError, match="on a web server"):
            call()
    with tilekv.open(uri) as db, pytest.raises(ReadOnlyError):
        db["a"] = b"1"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_has_changed_is_seen_by_the_next_manifest(web: Web, place: Path) -> None:
    write_manifest(place)
    with tilekv.open(f"{web.uri}/{PATH}", config={"kv.cache_bytes": 0}) as db:
        with tilekv.open(place, "a", config=OFF) as writer:
            writer["more"] = b"2"
        db.reopen()
        assert db.get("more") is None
        write_manifest(place)
        db.reopen()
        assert db["more"] == b"2"
        with tilekv.open(place, "a", config=OFF) as writer:
            writer.consolidate(vacuum=True)
        with pytest.raises(tilekv.SnapshotGone):
            dict(db.items())
        write_manifest(place)
        db.reopen()
        assert dict(db.items()) == WANT | {"more": b"2"}
        with tilekv.open(place, "w") as new:
            new["other"] = b"3"
        write_manifest(place)
        with pytest.raises(tilekv.StoreReplacedError):
            db.reopen()
    with tilekv.open(f"{web.uri}/{PATH}") as db:
        assert dict(db.items()) == {"other": b"3"}


def test_what_is_no_store(web: Web, place: Path) -> None:
    with pytest.raises(OSError, match=r"python -m tilekv manifest"):
        tilekv.open(f"{web.uri}/{PATH}")
    with pytest.raises(StoreNotFoundError):
        tilekv.open(f"{web.uri}/nothing")
    write_manifest(place)
    manifest = place / ".tilekv" / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    with pytest.raises(CorruptionError, match="manifest"):
        tilekv.open(f"{web.uri}/{PATH}")
    for uri in ("http://u:secret@host/a", "http://host/a?b", "http://host/a%zz", "http:///a"):
        with pytest.raises(InvalidValueError) as caught:
            tilekv.open(uri)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidValueError, match="region"):
        tilekv.open(f"{web.uri}/{PATH}", storage_options={"region": "a"})


def test_a_server_that_does_no_ranges(web: Web, place: Path) -> None:
    write_manifest(place)
    web.handler.ranges = False
    with (
        tilekv.open(f"{web.uri}/{PATH}") as db,
        pytest.raises(OSError, match=r"cannot read.*does not do that"),
    ):
        db["8"]


def test_a_cache(web: Web, place: Path, tmp_path: Path) -> None:
    write_manifest(place)
    options = {"cache_dir": tmp_path / "cache"}
    for _ in range(2):
        web.asked.clear()
        with tilekv.open(f"{web.uri}/{PATH}", storage_options=options) as db:
            assert dict(db.items()) == WANT
    assert not [path for path in web.asked if path.endswith("_var.tdb")]


def test_a_manifest_of_a_store_in_a_bucket(bucket: Bucket) -> None:
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(3):
            db[f"{i}"] = b"%d" % i
            db.flush()
    assert write_manifest(uri, storage_options=bucket.options)[0] == 3
    assert bucket.items(uri) == {f"{i}": b"%d" % i for i in range(3)}
    assert tilekv.verify(uri, storage_options=bucket.options) == []
    tilekv.open("memory://shown", "x").close()
    with pytest.raises(InvalidValueError, match="in memory"):
        write_manifest("memory://shown")

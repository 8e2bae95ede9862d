"""Blocks kept on a disk: what comes from there is what was put there, whatever happens to the files."""

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.errors import CorruptionError, InvalidValueError, WrongTypeError
from tilekv.storage import blockcache, objectclient
from tilekv.storage.blockcache import BLOCK, LEAST, BlockCache, cache_of

KEYS = {f"{i}": b"%d" % i * 40 for i in range(5000)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "blocks"
    place.mkdir(0o700)
    return place


def put_one(folder: Path, data: bytes) -> tuple[BlockCache, Path]:
    """A cache that has one block, "a", and its file."""
    cache = BlockCache(str(folder), LEAST)
    cache.put("a", data)
    [path] = folder.iterdir()
    return cache, path


def test_what_was_put_is_found(folder: Path) -> None:
    cache = BlockCache(str(folder), LEAST)
    blocks = {f"{n}": os.urandom(n) for n in (1, 100, BLOCK)}
    for name, data in blocks.items():
        cache.put(name, data)
        cache.put(name, data)
    for name, data in blocks.items():
        assert cache.get(name, len(data)) == data
        assert BlockCache(str(folder), LEAST).get(name, len(data)) == data
    assert cache.get("none", 1) is None
    assert len([*folder.iterdir()]) == 3
    cache.forget(["1", "none"])
    assert cache.get("1", 1) is None


def test_every_byte_counts(folder: Path) -> None:
    """A bit of any byte another, or a file of any other length: it is not found, and is gone."""
    data = os.urandom(300)
    cache, path = put_one(folder, data)
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole[:n] for n in range(len(whole))]
    damaged += [whole + b"\0", bytes(len(whole))]
    for each in damaged:
        path.write_bytes(each)
        assert cache.get("a", len(data)) is None
        assert not path.exists()
    cache.put("a", data)
    assert cache.get("a", len(data) - 1) is None  # of a file that has another size


def test_files_that_change_places(folder: Path) -> None:
    cache, path = put_one(folder, b"1" * 100)
    cache.put("b", b"2" * 100)
    [other] = {*folder.iterdir()} - {path}
    other.replace(path)
    assert cache.get("a", 100) is None
    assert cache.get("b", 100) is None


def test_a_folder_in_the_place_of_a_file(folder: Path) -> None:
    cache, path = put_one(folder, b"1" * 100)
    path.unlink()
    path.mkdir()
    assert cache.get("a", 100) is None
    cache.put("a", b"1" * 100)
    assert cache.get("a", 100) is None


def room(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.iterdir())


def test_what_was_not_used_for_longest_goes(folder: Path) -> None:
    cache = BlockCache(str(folder), LEAST)
    data = os.urandom(BLOCK)
    for i in range(400):
        cache.put(f"{i}", data)
        assert cache.get("0", BLOCK) is not None
        if i % 20 == 0:
            assert room(folder) <= LEAST * 1.1
    assert room(folder) > LEAST * 0.8
    assert cache.get("100", BLOCK) is None
    assert cache.get("399", BLOCK) is not None


def test_a_full_disk_only_stops_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, path = put_one(folder, b"1" * 100)
    now = 1000.0
    monkeypatch.setattr(blockcache, "seconds", lambda: now)
    for write in (_full, _half):
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", write)
            cache.put("b", b"2" * 100)
        assert [*folder.iterdir()] == [path]
        cache.put("b", b"2" * 100)
        assert [*folder.iterdir()] == [path]  # it is not tried for every block
        assert cache.get("a", 100) == b"1" * 100
        now += 61
    cache.put("b", b"2" * 100)
    assert cache.get("b", 100) == b"2" * 100


def _full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "full")


def _half(fd: int, parts: Any) -> int:
    return os.write(fd, b"".join(parts)[:50])


def test_a_folder_that_is_gone_only_stops_it(folder: Path) -> None:
    cache, path = put_one(folder, b"1" * 100)
    path.unlink()
    folder.rmdir()
    assert cache.get("a", 100) is None
    cache.put("a", b"1" * 100)
    assert cache.get("a", 100) is None


def test_a_fork_while_a_thread_writes(tmp_path: Path) -> None:
    cache = cache_of({"cache_dir": tmp_path})
    with cache._lock:
        child = os.fork()
        if not child:
            signal.alarm(10)
            cache.put("a", b"data")
            os._exit(0 if cache.get("a", 4) == b"data" else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cache_bytes": LEAST}, InvalidValueError),
        ({"cache_dir": "x", "cache_bytes": LEAST - 1}, InvalidValueError),
        ({"cache_dir": "x", "cache_bytes": True}, WrongTypeError),
        ({"cache_dir": "x", "cache_bytes": "much"}, WrongTypeError),
        ({"cache_dir": 7}, WrongTypeError),
        ({"cache_dir": ""}, InvalidValueError),
        ({"cache_dir": None}, WrongTypeError),
    ],
)
def test_options_that_are_refused(memory_bucket: str, options: Any, error: Any) -> None:
    with pytest.raises(error, match="cache_"):
        tilekv.open(f"{memory_bucket}/store", storage_options=options)


def test_a_folder_that_others_can_write_to_is_refused(memory_bucket: str, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path, "cache_bytes": str(LEAST)}
    tilekv.open(f"{memory_bucket}/store", "x", storage_options=options).close()
    [made] = tmp_path.iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o750)
    with pytest.raises(InvalidValueError, match="others may change"):
        tilekv.open(f"{memory_bucket}/store", storage_options=options | {"cache_bytes": LEAST + 1})


# --- stores ----------------------------------------------------------------------------------------


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of what is asked for in parts, from now on."""
    asked: list[str] = []
    real = objectclient.Client.get_range

    def get_range(self: Any, key: str, offset: int, n: int) -> bytes:
        asked.append(key)
        return real(self, key, offset, n)

    monkeypatch.setattr(objectclient.Client, "get_range", get_range)
    return asked


@pytest.fixture
def opened(memory_bucket: str, tmp_path: Path) -> Callable[..., tilekv.Store]:
    """Opens a store of two fragments, of which one has large files, through a cache that starts empty."""
    uri = f"{memory_bucket}/store"
    with tilekv.open(uri, "x", config={"kv.upkeep": "off"}) as db:
        db.put_many(KEYS)
        db.flush()
        db["new"] = b"1"

    def open_(mode: Any = "r", **config: Any) -> tilekv.Store:
        given = {"kv.upkeep": "off", **config}
        return tilekv.open(uri, mode, config=given, storage_options={"cache_dir": tmp_path})

    return open_


def blocks_in(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / blockcache.FOLDER).iterdir())


def test_another_handle_asks_for_nothing(
    opened: Callable[..., tilekv.Store], requests: list[str], tmp_path: Path
) -> None:
    with opened() as db:
        assert db["7"] == KEYS["7"]
    assert requests
    requests.clear()
    with opened() as db:
        assert db["7"] == KEYS["7"]
        assert requests == []
        assert dict(db.items()) == KEYS | {"new": b"1"}
        assert db.get_many([*KEYS]) == [*KEYS.values()]
    requests.clear()
    with opened() as db:
        assert db.get_many([*KEYS]) == [*KEYS.values()]
        assert dict(db.items()) == KEYS | {"new": b"1"}
    assert requests == []
    kept = blocks_in(tmp_path)
    for path in kept[::2]:
        path.unlink()
    with opened() as db:
        assert dict(db.items()) == KEYS | {"new": b"1"}
    assert 0 < len(requests) < len(kept)


def test_damaged_blocks_are_asked_for_again(
    opened: Callable[..., tilekv.Store], requests: list[str], tmp_path: Path
) -> None:
    with opened() as db:
        assert dict(db.items()) == KEYS | {"new": b"1"}
    for damage in (lambda data: data[:-1], lambda data: b"", lambda data: bytes(len(data))):
        for path in blocks_in(tmp_path):
            path.write_bytes(damage(path.read_bytes()))
        requests.clear()
        with opened() as db:
            assert dict(db.items()) == KEYS | {"new": b"1"}
        assert requests


def test_what_came_damaged_is_not_kept(
    opened: Callable[..., tilekv.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit that was another on the way is an error, once: the next look-up asks again, with a cache and without."""
    real = objectclient.Client.get_range

    def flipped(self: Any, key: str, offset: int, n: int) -> bytes:
        data = bytearray(real(self, key, offset, n))
        if "__coords" in key:
            data = bytearray(byte ^ 1 for byte in data)
        return bytes(data)

    with opened() as db:
        with monkeypatch.context() as patch:
            patch.setattr(objectclient.Client, "get_range", flipped)
            with pytest.raises(CorruptionError, match="__coords"):
                dict(db.items())
        assert dict(db.items()) == KEYS | {"new": b"1"}
    with opened() as db:
        assert dict(db.items()) == KEYS | {"new": b"1"}


def test_what_is_kept_is_read_after_a_vacuum(
    opened: Callable[..., tilekv.Store], requests: list[str]
) -> None:
    with opened() as db:
        assert db["7"] == KEYS["7"]
    with opened() as db, tilekv.open(db.uri, "a", config={"kv.upkeep": "off"}) as writer:
        writer.consolidate(vacuum=True)  # which has not kept what it has read
        requests.clear()
        assert db["7"] == KEYS["7"]
        with pytest.raises(tilekv.SnapshotGone):
            dict(db.items())
        db.reopen()
        assert dict(db.items()) == KEYS | {"new": b"1"}


def test_tools_read_past_it(
    opened: Callable[..., tilekv.Store], tmp_path: Path, requests: list[str]
) -> None:
    """What checks or copies a store reads the store."""
    with opened() as db:
        assert len(dict(db.items())) == len(KEYS) + 1
        uri = db.uri
    options = {"cache_dir": tmp_path}
    requests.clear()
    assert tilekv.verify(uri, storage_options=options) == []
    assert requests
    requests.clear()
    tilekv.backup(uri, tmp_path / "copy", storage_options=options)
    assert requests

"""A cache that processes share: the second asks for no data, and four of them stay within what its folder may have."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bucket_stores import OFF, Bucket
from fault_proxy import FaultProxy
from tilekv.storage.blockcache import FOLDER, LEAST

WORKER = Path(__file__).with_name("cache_worker.py")
KEYS = {f"{i}": b"%d" % i * 20 for i in range(30_000)}


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-P", WORKER, *arguments])


def room(folder: Path) -> int:
    """What its files take of a disk."""
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            total += -(-path.stat().st_size // 4096) * 4096
    return total


def test_another_process_asks_for_no_data(
    bucket: Bucket, through: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for part in range(3):
            db.put_many({key: value for key, value in KEYS.items() if int(key) % 3 == part})
            db.flush()
    cached = Bucket(bucket.uri, through.options | {"cache_dir": str(tmp_path)})
    assert started("read", uri, json.dumps(cached.options)).wait(60) == 0
    proxy.counts()
    with cached.open(uri) as db:
        counts = proxy.counts()
        assert (counts["LIST"], counts["GET"]) == (2, 1)  # the descriptor
        for key in ("7", "29999"):
            assert db[key] == KEYS[key]
        assert dict(db.items()) == KEYS
        assert db.get("none") is None
        assert proxy.counts()["all"] == 0
    with bucket.open(uri, "a", config=OFF) as db:
        db["new"] = b"1"
    with cached.open(uri) as db:
        counts = proxy.counts()
        assert (counts["LIST"], counts["GET"]) == (2, 2)  # the metadata of what is new, too
        assert dict(db.items()) == KEYS | {"new": b"1"}
        assert proxy.counts()["all"] <= 6


def test_four_processes_stay_within_its_size(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(0o700)
    most = 0
    running = [started("fill", str(folder), f"{number}") for number in range(4)]
    while any(each.poll() is None for each in running):
        most = max(most, room(folder))
        time.sleep(0.01)
    assert [each.returncode for each in running] == [0] * 4
    assert LEAST * 0.5 < most <= LEAST * 1.1
    assert not [name for name in os.listdir(folder) if "." in name]

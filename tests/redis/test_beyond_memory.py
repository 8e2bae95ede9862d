"""Values that together are larger than the memory a server may have: they are written, read, merged and served again."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

import tilekv
from redis_process import Process, tilekv_server
from redis_server import Client, over_tcp

pytestmark = pytest.mark.skipif(
    not os.environ.get("TILEKV_NIGHTLY"), reason="2 GiB are written: nightly"
)

MEMORY = 256 << 20  # that is no file's
DATA = 2 << 30
SIZES = (1000, 10_000, 100_000, 1 << 20)
# Bytes that the server may ask for at all, of which it never touches all: stacks of threads among them.
LIMIT = 512 << 20


def memory(server: Process) -> int:
    """Bytes of a server's that are no file's."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found
    return int(found[1]) << 10


def value_of(key: int) -> bytes:
    pick = random.Random(key)
    return pick.randbytes(pick.choice(SIZES))


def look(ask: Client, server: Process, keys: list[int], pick: random.Random) -> int:
    """Random values, one by one and many at once; the most memory that was seen meanwhile."""
    most = 0
    for _ in range(200):
        some = pick.sample(keys, 20)
        assert ask("GET", f"k{some[0]}") == value_of(some[0])
        assert ask("MGET", *[f"k{key}" for key in some]) == [value_of(key) for key in some]
        most = max(most, memory(server))
    return most


def test_values_larger_than_memory(tmp_path: Path) -> None:
    budget = ("--buffer-bytes", "16mb", "--cache-bytes", "32mb")
    server = tilekv_server(tmp_path, *budget, data=LIMIT)
    pick = random.Random(1)
    written, most = 0, 0
    keys: list[int] = []
    with over_tcp(server.port) as ask:
        while written < DATA:
            key = len(keys)
            value = value_of(key)
            assert ask("SET", f"k{key}", value) == "OK"
            keys.append(key)
            written += len(value)
            if key % 100 == 0:
                most = max(most, memory(server))
        most = max(most, look(ask, server, keys, pick))
        gone = keys[::7]
        assert ask("DEL", *[f"k{key}" for key in gone]) == len(gone)
        assert ask("SAVE") == "OK"
        time.sleep(3)  # merges
        kept = sorted({*keys} - {*gone})
        most = max(most, look(ask, server, kept, pick))
        assert ask("DBSIZE") == len(kept)
    server.stop()
    server.start()
    with over_tcp(server.port) as ask:
        most = max(most, look(ask, server, kept, pick))
    server.stop()
    assert most < MEMORY
    assert tilekv.verify(tmp_path / "store.kv") == []
    print(f"{written >> 20} MiB of values, {most >> 20} MiB of memory")

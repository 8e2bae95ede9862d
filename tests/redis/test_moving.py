"""From Redis into a store and back, with what expires; and what a killed server loses."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

import tilekv
from redis_process import Process, tilekv_server
from redis_server import over_tcp
from tilekv.cli.command import main


def test_moving_in_and_back(
    theirs: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "moved.kv")
    with over_tcp(theirs.port) as ask:
        ask("FLUSHALL")
        ask("MSET", *[word for i in range(3000) for word in (f"k{i}", b"\0" * (i % 50))])
        ask("SET", b"\xff", "bytes")
        ask("SET", "café", "soon", "EX", 1000)
        ask("LPUSH", "list", 1)
        assert main(["import", f"redis://127.0.0.1:{theirs.port}/0", store, "--progress"]) == 1
        told = capsys.readouterr()
        assert "stored 3,002 keys" in told.out
        assert "1 of type list" in told.err
        with tilekv.open(store) as db:
            assert len(db) == 3002
            assert (db[b"\xff"], db["café"], db["k49"]) == (b"bytes", b"soon", b"\0" * 49)
            assert db.expires("k1") is None
            expires = db.expires("café")
            assert expires is not None
            assert 990 < expires.timestamp() - time.time() <= 1000
        assert main(["export", store, f"redis://127.0.0.1:{theirs.port}/1"]) == 0
        ask("SELECT", 1)
        assert ask("DBSIZE") == 3002
        assert (ask("GET", b"\xff"), ask("GET", "k49")) == (b"bytes", b"\0" * 49)
        assert 990 < ask("TTL", "café") <= 1000
    capsys.readouterr()
    assert main(["import", "rediss://localhost/0", store]) == 1
    assert "stunnel" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["everysec", "always"])
def test_what_a_killed_server_loses(tmp_path: Path, mode: str) -> None:
    """A writer counts up and notes when each number was acknowledged; the server is killed in between, again and again."""
    server = tilekv_server(tmp_path, "--appendfsync", mode)
    start = 0
    pick = random.Random(mode)
    for _ in range(20 if os.environ.get("TILEKV_NIGHTLY") else 3):
        acknowledged: list[tuple[float, int]] = []

        def write(
            server: Process = server,
            first: int = start,
            noted: list[tuple[float, int]] = acknowledged,
        ) -> None:
            try:
                with over_tcp(server.port) as ask:
                    for i in range(first, first + 10**6):
                        assert ask("SET", f"k{i}", i) == "OK"
                        noted.append((time.monotonic(), i))
            except (EOFError, OSError):
                pass

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep((2.3 if mode == "everysec" else 0.6) + pick.random() / 2)
        server.kill()
        killed = time.monotonic()
        thread.join()
        server.start()
        with over_tcp(server.port) as ask:
            there = [
                value is not None for value in ask("MGET", *[f"k{i}" for _, i in acknowledged])
            ]
        lost = [moment for (moment, _), found in zip(acknowledged, there, strict=True) if not found]
        assert there == sorted(there, reverse=True), (
            "what was written before others is not lost alone"
        )
        start = acknowledged[-1][1] + 1
        if mode == "always":
            assert lost == []
        else:
            # A second, and twice a flush, which on a busy machine may take half a second.
            assert all(killed - moment < 2.5 for moment in lost)
            assert len(lost) < len(acknowledged), "the first second was flushed"
    server.stop()
    assert tilekv.verify(tmp_path / "store.kv") == []

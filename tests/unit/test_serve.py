"""A served store: what clients see, what is on disk, and what a server refuses."""

import errno
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from redis_model import encoded
from redis_server import Client, serving
from tilekv.errors import InvalidValueError, StoreBusyError
from tilekv.serve import database as databases
from tilekv.serve import upkeep
from tilekv.serve.counting import KeyCount
from tilekv.serve.options import Options
from tilekv.serve.server import Server
from tilekv.storage.serving import resident_bytes

# What redis_exporter (exporter/exporter.go, the maps of gauges and counters, and exporter/info.go) makes metrics of, by section.
READ = {
    "server": "redis_version redis_mode os tcp_port run_id process_id uptime_in_seconds",
    "clients": "connected_clients blocked_clients maxclients pubsub_clients client_recent_max_input_buffer "
    "client_recent_max_output_buffer",
    "memory": "used_memory used_memory_rss used_memory_peak used_memory_dataset maxmemory maxmemory_policy "
    "mem_fragmentation_ratio mem_clients_normal",
    "persistence": "loading rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status "
    "rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec rdb_last_cow_size aof_enabled aof_rewrite_in_progress "
    "aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec aof_last_cow_size "
    "aof_last_bgrewrite_status aof_last_write_status",
    "stats": "total_connections_received total_commands_processed rejected_connections total_net_input_bytes "
    "total_net_output_bytes expired_keys evicted_keys keyspace_hits keyspace_misses pubsub_channels pubsub_patterns "
    "latest_fork_usec",
    "replication": "role connected_slaves master_replid master_repl_offset second_repl_offset repl_backlog_active "
    "repl_backlog_size repl_backlog_first_byte_offset repl_backlog_histlen",
    "cpu": "used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children",
}
TEXTS = {"redis_version", "redis_mode", "os", "run_id", "maxmemory_policy", "role", "master_replid"}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?|ok|err")
# It reads these, too, where they are: of an allocator, of Lua, of modules, of what evicts, and of replicas, which there are not.
LEFT_OUT = (
    "allocator_active allocator_allocated allocator_resident used_memory_lua used_memory_scripts mem_clients_slaves "
    "lazyfree_pending_objects active_defrag_running active_defrag_hits module_fork_in_progress slave_expires_tracked_keys "
    "sync_full migrate_cached_sockets"
)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done every second is done more often."""
    monkeypatch.setattr(upkeep, "EVERY_S", 0.1)
    monkeypatch.setattr(upkeep, "MERGE_S", 0.05)


def together(ask: Client, *commands: list[Any]) -> Any:
    """The replies of a transaction."""
    ask("MULTI")
    for words in commands:
        ask(*words)
    return ask("EXEC")


def eventually(holds: Callable[[], Any]) -> None:
    """What holds within a moment."""
    for _ in range(400):
        if holds():
            return
        time.sleep(0.025)
    pytest.fail("it does not come to hold")


def test_what_is_written_is_on_disk_after_the_end(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert ask("SET", "2024/cat.jpg", b"\xff\xd8") == "OK"
        assert ask("SET", b"\xff", "bytes") == "OK"
        assert ask("SET", "soon", 1, "EX", 100) == "OK"
        assert ask("PING") == "PONG"
    with tilekv.open(folder / "store.kv") as db:
        assert dict(db.items()) == {"2024/cat.jpg": b"\xff\xd8", b"\xff": b"bytes", "soon": b"1"}
        assert db.expires("soon") is not None
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert (ask("GET", "2024/cat.jpg"), ask("GET", b"\xff")) == (b"\xff\xd8", b"bytes")
        assert 90 < ask("TTL", "soon") <= 100


def test_what_is_written_is_flushed_within_a_second(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 1)
        with tilekv.open(folder / "store.kv") as db:

            def there() -> bool:
                db.reopen()
                return "a" in db

            eventually(there)


def test_always_is_flushed_before_it_is_answered(folder: Path) -> None:
    with (
        serving(folder, appendfsync="always") as server,
        Client(server.options.unixsocket) as ask,
    ):
        for i in range(3):
            assert (ask("SET", f"k{i}", i) if i < 2 else ask("INCR", "k2")) in ("OK", 1)
            with tilekv.open(folder / "store.kv") as db:
                assert f"k{i}" in db


def test_one_server_a_store(folder: Path) -> None:
    with (
        serving(folder),
        pytest.raises(StoreBusyError, match=f"another server .process {os.getpid()}"),
    ):
        Server(Options(store=str(folder / "store.kv"), port=0, unixsocket=str(folder / "t")))
    with serving(folder):
        pass


def test_a_mirror_follows(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 1)
        ask("SAVE")
        with (
            serving(folder, readonly=True, unixsocket=str(folder / "m")) as mirror,
            Client(mirror.options.unixsocket) as look,
        ):
            assert look("GET", "a") == b"1"
            assert look("SET", "a", 2).startswith("READONLY")
            ask("SET", "a", 2)
            eventually(lambda: look("GET", "a") == b"2")


def test_what_python_flushes_is_seen_and_aborts_what_watches(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert ask("WATCH", "other") == "OK"
        with tilekv.open(folder / "store.kv", "a") as db:
            db["a"] = b"from Python"
        eventually(lambda: ask("GET", "a") == b"from Python")
        ask("MULTI")
        ask("SET", "b", 1)
        assert ask("EXEC") is None


def test_a_full_disk_refuses_writes_until_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        store = server.database(0).store
        flush = store._engine.flush

        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(store._engine, "flush", full)
        ask("SET", "a", 1)
        assert ask("SAVE").startswith("ERR OSError")
        assert ask("SAVE").startswith("ERR OSError")
        assert ask("SET", "b", 1).startswith("MISCONF")
        assert ask("SETNX", "b", 1).startswith("MISCONF")
        ask("MULTI")
        assert ask("SET", "b", 1).startswith("MISCONF")
        assert ask("EXEC").startswith("EXECABORT")
        assert ask("GET", "a") == b"1"
        assert "rdb_last_bgsave_status:err" in ask("INFO", "persistence").decode()
        monkeypatch.setattr(store._engine, "flush", flush)
        eventually(lambda: ask("SET", "b", 1) == "OK")
        assert ask("GET", "a") == b"1"


def test_transactions_are_one_step(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        for words in (["MULTI"], ["SET", "a", 1], ["INCR", "a"], ["GET", "a"], ["LPUSHX", "a", 1]):
            ask(*words)
        assert ask("EXEC").startswith("EXECABORT")
        assert ask("GET", "a") is None
        for words in (["MULTI"], ["SET", "a", 1], ["INCR", "a"], ["GET", "a"], ["INCR", "b", "c"]):
            ask(*words)
        assert ask("EXEC").startswith("EXECABORT")
        for words in (
            ["MULTI"],
            ["SET", "a", 1],
            ["INCR", "a"],
            ["GET", "a"],
            ["SETRANGE", "a", -1, "x"],
        ):
            ask(*words)
        assert ask("EXEC") == ["OK", 2, b"2", "ERR offset is out of range"]
        with Client(server.options.unixsocket) as other:
            ask("WATCH", "a")
            other("SET", "a", 5)
            ask("MULTI")
            ask("SET", "a", 6)
            assert ask("EXEC") is None
        assert ask("GET", "a") == b"5"


def test_all_keys_within_a_transaction_are_as_it_has_changed_them(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        with tilekv.open(folder / "store.kv", "a") as db:
            db[5] = b"no client can name it"
        eventually(lambda: ask("DBSIZE") == 1)
        ask("MSET", "a", 1, "b", 2)
        all_keys = [["DBSIZE"], ["KEYS", "*"], ["SCAN", 0], ["RANDOMKEY"]]
        got = together(ask, ["SET", "c", 3], ["DEL", "a"], *all_keys)
        assert (got[2], sorted(got[3]), got[4][0]) == (3, [b"b", b"c"], b"0")
        assert sorted(got[4][1]) == [b"b", b"c"]
        assert got[5] in (b"b", b"c")
        got = together(
            ask,
            ["SET", "d", 1],
            ["FLUSHDB"],
            ["MGET", "b", "d"],
            ["GETRANGE", "b", 0, 5],
            ["TTL", "b"],
            ["EXISTS", "b"],
            *all_keys,
            ["SET", "b", "new"],
            *all_keys,
        )
        assert got[1:10] == ["OK", [None, None], b"", -2, 0, 0, [], [b"0", []], None]
        assert got[11:] == [1, [b"b"], [b"0", [b"b"]], b"b"]
        assert (ask("DBSIZE"), ask("GET", "b")) == (1, b"new")
        assert together(ask, ["FLUSHALL"], ["BGSAVE"], ["DBSIZE"])[::2] == ["OK", 0]
        assert ask("DBSIZE") == 0


def test_a_transaction_is_written_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in it: between two parts a flush could begin, and a crash could leave the first."""
    with serving(folder, appendfsync="no") as server, Client(server.options.unixsocket) as ask:
        ask("MSET", "a", 1, "b", 2)
        applied: list[int] = []
        commit = databases.Step.commit

        def counted(step: databases.Step, replace: Any) -> bool:
            done = commit(step, replace)
            applied.append(done)
            return done

        monkeypatch.setattr(databases.Step, "commit", counted)
        ask("MULTI")
        for words in (
            ["SET", "c", 3],
            ["KEYS", "*"],
            ["INCR", "c"],
            ["SCAN", 0],
            ["DBSIZE"],
            ["FLUSHDB"],
            ["SET", "c", 4],
            ["RANDOMKEY"],
            ["BGSAVE"],
            ["INCR", "c"],
        ):
            ask(*words)
        assert ask("EXEC")[-1] == 5
        assert sum(applied) == 1


def test_what_expires(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 1, "PX", 60)
        ask("WATCH", "a")
        eventually(lambda: ask("GET", "a") is None)
        assert (ask("TTL", "a"), ask("EXISTS", "a"), ask("KEYS", "*")) == (-2, 0, [])
        ask("MULTI")
        ask("SET", "b", 1)
        assert ask("EXEC") is None, "what was watched has expired"
        ask("SET", "a", 1)
        assert (ask("EXPIRE", "a", 100), ask("PERSIST", "a"), ask("TTL", "a")) == (1, 1, -1)
        assert (ask("EXPIRE", "a", -1), ask("EXISTS", "a")) == (1, 0)


def test_a_store_that_keeps_no_moments_says_what_makes_one(folder: Path) -> None:
    with tilekv.open(folder / "store.kv", "x") as db:
        db["a"] = b"1"
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert "convert --expires" in ask("SET", "a", 1, "EX", 10)
        assert "convert --expires" in ask("EXPIRE", "a", 10)
        assert (ask("SET", "a", 2), ask("GET", "a"), ask("TTL", "a")) == ("OK", b"2", -1)


def test_databases_are_stores_beside_it(folder: Path) -> None:
    with serving(folder, databases=3) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 0)
        assert ask("SELECT", 3) == "ERR DB index is out of range"
        assert ask("SELECT", 2) == "OK"
        assert ask("GET", "a") is None
        ask("SET", "a", 2)
        assert ask("MOVE", "a", 1) == 1
        assert (ask("GET", "a"), ask("SELECT", 1), ask("GET", "a")) == (None, "OK", b"2")
        assert ask("FLUSHALL") == "OK"
        assert (ask("DBSIZE"), ask("SELECT", 0), ask("DBSIZE")) == (0, "OK", 0)
    assert sorted(path.name for path in folder.glob("*.db*")) == ["store.kv.db1", "store.kv.db2"]


def test_scan_gives_every_key_once(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("MSET", *[word for i in range(1000) for word in (f"k{i}", i)])
        ask("SAVE")
        ask("MSET", *[word for i in range(1000, 1500) for word in (f"k{i}", i)])
        ask("DEL", *[f"k{i}" for i in range(100)])
        found: list[bytes] = []
        cursor = b"0"
        while True:
            cursor, some = ask("SCAN", cursor, "COUNT", 70)
            found += some
            if cursor == b"0":
                break
        assert sorted(found) == sorted(b"k%d" % i for i in range(100, 1500))
        assert int(cursor) < 2**53
        assert ask("DBSIZE") == 1400
        assert ask("SCAN", 0, "MATCH", "k14?", "COUNT", 10_000)[1].sort() is None
        assert len(ask("KEYS", "k14?")) == 10
        assert ask("RANDOMKEY") in found
        assert ask("SCAN", 2**50, "COUNT", 10) == [b"0", []]


def test_flushdb_of_a_large_store_is_one_delete(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "FEW_CELLS", 100)
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        for i in range(3):
            ask("MSET", *[word for j in range(1000) for word in (f"k{i}-{j}", j)])
            ask("SAVE")
        ask("SET", "buffered", 1)
        assert ask("DBSIZE") == 3001
        assert ask("FLUSHDB") == "OK"
        assert (ask("DBSIZE"), ask("GET", "k1-1"), ask("GET", "buffered")) == (0, None, None)
        assert sum(fragment.cells for fragment in server.database(0).store.fragments) == 1
        assert ask("SET", "k1-1", 2) == "OK"
        assert ask("GET", "k1-1") == b"2"
    assert tilekv.verify(folder / "store.kv") == []


def test_a_transaction_that_flushes_a_large_store_is_one_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes then takes the place of all that was there, or nothing has happened."""
    monkeypatch.setattr(databases, "FEW_CELLS", 100)
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("MSET", *[word for i in range(1000) for word in (f"k{i}", i)])
        ask("SAVE")
        steps = (["SET", "k1", "lost"], ["FLUSHDB"], ["SET", "k2", "b"], ["SETEX", "c", 100, "d"])
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OSError(28, "the disk is full")

            patch.setattr("tilekv.consolidation.clear", fail)
            with pytest.raises(AssertionError, match="the disk is full"):
                assert together(ask, *steps, ["DBSIZE"]) == []
            assert (ask("DBSIZE"), ask("GET", "k1")) == (1000, b"1")
        flushed = server.upkeep.flushes
        assert together(ask, *steps, ["DBSIZE"], ["GET", "k1"]) == ["OK"] * 4 + [2, None]
        assert (ask("DBSIZE"), ask("MGET", "k1", "k2", "c")) == (2, [None, b"b", b"d"])
        assert 0 < ask("TTL", "c") <= 100
        assert [fragment.cells for fragment in server.database(0).store.fragments] == [2]
        assert server.upkeep.flushes <= flushed + 2
        assert together(ask, ["FLUSHALL"], ["DBSIZE"]) == ["OK", 0]
    with tilekv.open(folder / "store.kv") as db:
        assert len(db) == 0
    assert tilekv.verify(folder / "store.kv") == []


def test_keys_are_counted_behind_the_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INFO says so until they are; from then on it is exact, whatever is written, flushed and merged."""
    monkeypatch.setattr(databases, "FEW_CELLS", 100)
    with tilekv.open(folder / "store.kv", "x", expires=True) as db:
        for part in range(3):
            db.put_many([f"k{part}-{i}" for i in range(500)] + ["all"], [b"v"] * 501)
            db.flush()
    go = threading.Event()
    count_all = KeyCount._count_all

    def slowly(self: KeyCount, snapshot: Any) -> None:
        assert go.wait(10)
        count_all(self, snapshot)

    monkeypatch.setattr(KeyCount, "_count_all", slowly)

    def told(ask: Client) -> tuple[int, str]:
        text = ask("INFO", "keyspace").decode()
        words = dict(each.split("=") for each in text.split("db0:")[1].strip().split(","))
        return int(words["keys"]), words["exact"]

    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert told(ask) == (1503, "no")
        assert ask("PING") == "PONG"
        go.set()
        assert ask("DBSIZE") == 1501
        monkeypatch.setattr(KeyCount, "_count_all", None)  # nobody counts all of them again
        n = 1501
        for turn in range(12):
            ask("MSET", "all", turn, f"new{turn}", turn)
            n += 1
            assert told(ask) == (n, "yes")
            assert ask("DEL", f"k1-{turn}", "nothing") == 1
            n -= 1
            ask("SAVE")
            assert ask("DBSIZE") == n
            if turn % 5 == 4:
                server.upkeep.merge_due()
        assert len(server.database(0).store.fragments) < 15
        assert told(ask) == (n, "yes")


def test_what_redis_exporter_reads(folder: Path) -> None:
    """Each field has a line of its own that it can parse: see READ."""
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 1)
        ask("GET", "a")
        ask("SAVE")
        lines = ask("INFO", "ALL").decode().split("\r\n")
    section = ""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.startswith("# "):
            section = line[2:].lower()
        elif line:
            name, value = line.split(":", 1)
            found.setdefault(section, {})[name] = value
    for section, names in READ.items():
        assert {*names.split()} <= found[section].keys(), section
        for name in names.split():
            assert NUMBER.fullmatch(found[section][name]) or name in TEXTS, name
    for name in LEFT_OUT.split():
        assert name not in {each for fields in found.values() for each in fields}, name
    for command in ("get", "set", "save", "info"):
        words = dict(
            each.split("=") for each in found["commandstats"][f"cmdstat_{command}"].split(",")
        )
        assert [*words][:3] == ["calls", "usec", "usec_per_call"]
        assert int(words["calls"]) == 1
        assert all(NUMBER.fullmatch(value) for value in words.values())
    words = dict(each.split("=") for each in found["keyspace"]["db0"].split(","))
    assert words.items() >= {"keys": "1", "expires": "0", "avg_ttl": "0"}.items()


def test_hashes_are_stores_of_several_attributes(folder: Path) -> None:
    schema = tilekv.Schema(
        [
            tilekv.Attr("name", "str"),
            tilekv.Attr("size", "int64"),
            tilekv.Attr("ratio", "float64", nullable=True),
        ],
        expires=True,
    )
    with tilekv.open(folder / "store.kv", "x", schema=schema) as db:
        db["a"] = {"name": "é", "size": 5, "ratio": None}
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert (ask("TYPE", "a"), ask("HGET", "a", "size"), ask("HGET", "a", "none")) == (
            "hash",
            b"5",
            None,
        )
        assert ask("HGETALL", "a") == [b"name", "é".encode(), b"size", b"5"]
        assert (ask("HSET", "a", "size", 7, "ratio", 0.5), ask("HMGET", "a", "ratio", "size")) == (
            1,
            [b"0.5", b"7"],
        )
        assert ask("GET", "a").startswith("WRONGTYPE")
        assert ask("HSET", "a", "size", "x") == "ERR the field 'size' is of int64"
        assert "have the fields name, size, ratio" in ask("HSET", "a", "other", 1)
        assert "takes all of its fields" in ask("HSET", "b", "size", 1)
        assert ask("HSET", "b", "size", 1, "name", "b") == 2
        assert (ask("HLEN", "b"), ask("HEXISTS", "b", "ratio"), ask("HSTRLEN", "b", "name")) == (
            2,
            0,
            1,
        )
        assert (ask("HDEL", "a", "ratio"), ask("HKEYS", "a"), ask("HVALS", "b")) == (
            1,
            [b"name", b"size"],
            [b"b", b"1"],
        )
        assert "cannot be missing" in ask("HDEL", "a", "size")
        assert (ask("EXPIRE", "a", 100), ask("TTL", "a"), ask("HGET", "a", "size")) == (
            1,
            100,
            b"7",
        )
        assert (ask("RENAME", "a", "c"), ask("DEL", "b"), ask("KEYS", "*")) == ("OK", 1, [b"c"])
    with tilekv.open(folder / "store.kv") as db:
        assert db["c"] == {"name": "é", "size": 7, "ratio": None}


def test_values_of_text_are_text(folder: Path) -> None:
    schema = tilekv.Schema([tilekv.Attr("text", "str")])
    tilekv.open(folder / "store.kv", "x", schema=schema).close()
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert ask("SET", "a", "é") == "OK"
        assert ask("SET", "a", b"\xff") == "ERR the values of this store are text: UTF-8"
        assert ask("MSET", "b", "x", "a", b"\xff").startswith("ERR")
        assert (ask("MGET", "a", "b"), ask("APPEND", "a", "f")) == (["é".encode(), None], 3)


# --- clients ---


def test_who_has_no_password_may_do_little(folder: Path) -> None:
    with serving(folder, password="secret") as server:
        place = server.options.unixsocket
        with Client(place) as ask:
            assert ask("GET", "a") == "NOAUTH Authentication required."
            assert ask("HELLO", 3).startswith("NOAUTH")
            assert ask("AUTH", "wrong").startswith("WRONGPASS")
            ask.send(b"*1\r\n$16385\r\n")
            assert ask.read() == "ERR Protocol error: unauthenticated bulk length"
        with Client(place) as ask:
            ask.send(b"*11\r\n")
            assert ask.read() == "ERR Protocol error: unauthenticated multibulk length"
        with Client(place) as ask:
            assert ask("HELLO", 3, "AUTH", "default", "secret")[b"proto"] == 3
            assert ask("SET", "a", "x" * 20_000) == "OK"
        with Client(place) as ask:
            assert (ask("AUTH", "secret"), ask("STRLEN", "a")) == ("OK", 20_000)


def test_subscribers_are_told(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        with Client(server.options.unixsocket) as listener:
            assert listener("SUBSCRIBE", "c", "d") == [b"subscribe", b"c", 1]
            assert listener.read() == [b"subscribe", b"d", 2]
            assert listener("PSUBSCRIBE", "c*") == [b"psubscribe", b"c*", 3]
            assert listener("GET", "a").startswith("ERR Can't execute 'get'")
            assert listener("PING") == [b"pong", b""]
            assert ask("PUBLISH", "c", "hello") == 2
            assert listener.read() == [b"message", b"c", b"hello"]
            assert listener.read() == [b"pmessage", b"c*", b"c", b"hello"]
            assert ask("PUBSUB", "NUMSUB", "c", "x") == [b"c", 1, b"x", 0]
        eventually(lambda: ask("PUBLISH", "c", "hello") == 0)


def test_scripts_of_locks_and_no_others(folder: Path) -> None:
    release = 'if redis.call("get",KEYS[1]) == ARGV[1] then\n return redis.call("del",KEYS[1])\nelse return 0 end'
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "lock", "me", "PX", 10_000)
        assert ask("EVAL", release, 1, "lock", "you") == 0
        digest = ask("SCRIPT", "LOAD", release)
        assert ask("SCRIPT", "EXISTS", digest, "0" * 40) == [1, 0]
        assert (ask("EVALSHA", digest, 1, "lock", "me"), ask("EXISTS", "lock")) == (1, 0)
        assert ask("EVALSHA", "0" * 40, 0).startswith("NOSCRIPT")
        assert "scripts are not served" in ask("EVAL", "return 1", 0)


def test_slowlog_has_what_took_long(folder: Path) -> None:
    with (
        serving(folder, slowlog_slower_than=0) as server,
        Client(server.options.unixsocket) as ask,
    ):
        ask("STRLEN", "a" * 200)
        entry = ask("SLOWLOG", "GET", 1)[0]
        assert entry[3] == [b"STRLEN", b"a" * 128 + b"... (72 more bytes)"]
        assert (ask("SLOWLOG", "LEN") > 0, ask("SLOWLOG", "RESET")) == (True, "OK")


def test_a_fault_of_a_command_is_an_error_and_no_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "a", 1)
        monkeypatch.setattr(type(server.database(0)), "scan", None)
        assert ask("SCAN", 0).startswith("ERR TypeError")
        assert ask("GET", "a") == b"1"


def test_half_a_request_and_an_end(folder: Path) -> None:
    with serving(folder) as server:
        with Client(server.options.unixsocket) as ask:
            ask.send(encoded([b"SET", b"a", b"1"]) + b"*2\r\n$3\r\nGET\r\n$1\r\n")
            ask.socket.shutdown(socket.SHUT_WR)
            assert ask.read() == "OK"
            with pytest.raises(EOFError):
                ask.read()
        eventually(lambda: not server.loop.connections)


@pytest.mark.unsanitized
def test_a_thousand_values_that_nobody_reads(folder: Path) -> None:
    value = os.urandom(1 << 20)
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("SET", "big", value)
        before = resident_bytes()
        requests = encoded([b"GET", b"big"]) * 1000
        with Client(server.options.unixsocket) as other:
            other.send(requests + encoded([b"ECHO", b"e" * 100_000]))
            assert ask("PING") == "PONG"
            assert resident_bytes() - before < 64 << 20
            assert all(other.read() == value for _ in range(50))


@pytest.mark.unsanitized
@pytest.mark.parametrize("stored", ["compressed", "as it is"])
def test_large_values_are_sent_from_where_they_are(folder: Path, stored: str) -> None:
    """And stay there for who has asked and does not read, whatever is written, merged and removed meanwhile."""
    filters = [tilekv.ZstdFilter()] if stored == "compressed" else []
    schema = tilekv.Schema([tilekv.Attr("value", bytes, filters=filters)], expires=True)
    pick = random.Random(5)
    values = [pick.randbytes(size) for size in (20_000, 70_000, 300_000, 1 << 20)]
    with tilekv.open(folder / "store.kv", "x", schema=schema) as db:
        db.put_many({f"k{i}": value for i, value in enumerate(values)})
    with serving(folder, cache_bytes=16 << 20) as server, Client(server.options.unixsocket) as ask:
        for _ in range(2):  # from files, then from the cache
            assert [ask("GET", f"k{i}") for i in range(4)] == values
        assert ask("MGET", *[f"k{i}" for i in range(4)]) == values
        with Client(server.options.unixsocket) as slow:
            slow.send(b"".join(encoded([b"GET", b"k%d" % i]) for i in range(4)) * 3)
            eventually(lambda: server.loop.batch.pending > 1 << 20)
            for turn in range(20):
                ask("MSET", *[word for i in range(4) for word in (f"k{i}", f"{turn}" * 9)])
                ask("SET", f"other{turn}", pick.randbytes(1 << 20))
                ask("SAVE")
                ask("GET", f"other{turn}")
            assert ask("FLUSHALL") == "OK"
            # What there was no room to answer at first is answered as it is now.
            got = [slow.read() for _ in range(12)]
            assert got[:4] == values
            assert all(each in (*values, None) for each in got)


def test_what_a_client_announces_costs_nothing(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        before = resident_bytes()
        hostile = [
            b"*2147483647\r\n",
            b"*1048576\r\n",
            b"*2\r\n$3\r\nGET\r\n$536870912\r\n",
            b"a" * 70_000,
        ]
        clients = []
        for data in hostile:
            client = Client(server.options.unixsocket)
            client.send(data)
            clients.append(client)
        assert ask("PING") == "PONG"
        assert resident_bytes() - before < 4 << 20
        for client in clients:
            client.close()


def test_a_bound_of_bytes_takes_what_expires_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CULL_S", 0.1)
    with (
        serving(folder, max_bytes=300_000) as server,
        Client(server.options.unixsocket) as ask,
    ):
        ask("SET", "lasting", os.urandom(1000))
        for i in range(600):
            ask("SET", f"k{i}", os.urandom(1000), "EX", 1000 + i)
        ask("SAVE")
        eventually(lambda: server.upkeep.stored_bytes() < 300_000)
        assert ask("EXISTS", "lasting", "k599") == 2
        assert ask("EXISTS", "k0", "k1", "k100") == 0
        assert ask("DBSIZE") > 100
        assert "evicted_keys:0" not in ask("INFO", "stats").decode()


def test_clients_that_read_nothing_are_closed_for_others(folder: Path) -> None:
    value = os.urandom(1 << 20)
    with (
        serving(folder, reply_memory=4 << 20) as server,
        Client(server.options.unixsocket) as ask,
    ):
        ask("SET", "big", value)
        idle = [Client(server.options.unixsocket) for _ in range(12)]
        for client in idle:
            client.send(encoded([b"GET", b"big"]) * 20)
        eventually(
            lambda: server.loop.batch.pending <= 4 << 20 and len(server.loop.connections) < 13
        )
        assert ask("GET", "big") == value
        for client in idle:
            client.close()
        eventually(lambda: len(server.loop.connections) == 1)
        assert server.loop.batch.pending == 0


def test_a_command_of_very_many_keys(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        words = [word for i in range(70_000) for word in (f"k{i}", i)]
        assert ask("MSET", *words) == "OK"
        assert ask("MGET", *words[::2]) == [b"%d" % i for i in range(70_000)]
        assert ask("DEL", *words[:70_000:2], "none", "k1") == 35_000
        assert (ask("EXISTS", *words[::2]), ask("DBSIZE")) == (35_000, 35_000)


def test_a_long_command_is_one_look_and_lets_others_go_on(folder: Path) -> None:
    """Others write all that it asks for, again and again, and tell its client something: it sees one moment, in one piece."""
    few = [f"few{i}" for i in range(50)]
    asked = [f"k{i}" for i in range(2000)] + few
    random.Random(1).shuffle(asked)
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        server.loop.batch.most_seconds = 0
        ask("MSET", *[word for key in asked for word in (key, "0")])
        ask("SAVE")
        assert ask("HELLO", 3)[b"proto"] == 3
        assert ask("SUBSCRIBE", "told") == [b"subscribe", b"told", 1]
        done = threading.Event()
        written = 0

        def write() -> None:
            nonlocal written
            with Client(server.options.unixsocket) as other:
                while not done.is_set():
                    written += 1
                    assert other("MSET", *[word for key in few for word in (key, written)]) == "OK"
                    assert other("PUBLISH", "told", written) == 1
                    if written % 20 == 0:
                        assert other("EXISTS", *asked) == len(asked)

        thread = threading.Thread(target=write)
        thread.start()
        within = last = told = 0
        for _ in range(8):
            begun = written
            ask.send(encoded([b"MGET", *map(str.encode, asked)]))
            while len(reply := ask.read()) == 3:
                told += 1
            within += written - begun
            (seen,) = {value for key, value in zip(asked, reply, strict=True) if key in few}
            assert last <= int(seen) <= written
            assert {value for key, value in zip(asked, reply, strict=True) if key not in few} == {
                b"0"
            }
            last = int(seen)
        done.set()
        thread.join()
        assert within > 8, "others were answered meanwhile"
        while told < written:
            assert ask.read()[0] == b"message"
            told += 1
        assert ask("PING") == "PONG"


def test_a_long_delete_is_one_step_and_lets_others_go_on(folder: Path) -> None:
    """Others write what it deletes, and flush: of what they write together it leaves all or nothing."""
    keys = [f"k{i}" for i in range(1000)]
    few = keys[::97]
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        server.loop.batch.most_seconds = 0
        ask("SET", "other", 1)
        ask("SAVE")
        done = threading.Event()
        seen: list[int] = []

        def write() -> None:
            with Client(server.options.unixsocket) as other:
                while not done.is_set():
                    assert other("MSET", *[word for key in few for word in (key, "1")]) == "OK"
                    seen.append(other("EXISTS", *few))
                    if len(seen) % 7 == 0:
                        assert other("SAVE") == "OK"

        thread = threading.Thread(target=write)
        thread.start()
        gone = []
        while len(seen) < 300:
            ask("SET", keys[0], "1")  # it finds this one, and some that come only while it looks
            gone.append(ask("DEL", *keys, *keys[:5]))
        done.set()
        thread.join()
        assert {*gone} <= {1, len(few)}
        assert {*seen} <= {0, 1, len(few)}
        ask("MSET", *[word for key in keys for word in (key, "1")])
        assert ask("DEL", *keys, *keys[:5], "none") == len(keys)
        assert ask("DBSIZE") == 1


def test_a_client_that_is_closed_during_its_long_command(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        server.loop.batch.most_seconds = 0
        value = os.urandom(100_000)
        ask("MSET", *[word for i in range(100) for word in (f"k{i}", value)])
        ask("SAVE")
        for _ in range(3):
            with Client(server.options.unixsocket) as other:
                number = other("CLIENT", "ID")
                other.send(encoded([b"MGET", *(b"k%d" % i for i in range(100))]))
                assert ask("CLIENT", "KILL", "ID", number) == 1
                with pytest.raises((EOFError, ConnectionError)):
                    other.read()
        assert ask("MGET", *[f"k{i}" for i in range(100)]) == [value] * 100


def test_systemd_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(folder / "notify"))
        told.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        with serving(folder):
            assert told.recv(100) == b"READY=1"
        assert told.recv(100) == b"STOPPING=1"


def test_a_hostile_client_holds_up_nobody(folder: Path) -> None:
    """While another sends all that it may, and asks for all keys by an evil pattern, PING takes at most some milliseconds."""
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        ask("MSET", *[word for i in range(2000) for word in ("a" * 200 + str(i), i)])
        with Client(server.options.unixsocket) as other:
            other.send(b"*2147483647\r\n")
            assert other.read().startswith("ERR Protocol error")
        with Client(server.options.unixsocket) as other:
            other.send(b"*1048576\r\n" + b"$1\r\na\r\n" * 100_000)
            took = []
            for _ in range(5):
                other.send(b"$1\r\na\r\n" * 50_000)
                begun = time.monotonic()
                assert ask("PING") == "PONG"
                took.append(time.monotonic() - begun)
            assert sorted(took)[2] < 0.05, took  # on a machine that others use, a few may be late
        begun = time.monotonic()
        assert ask("KEYS", "a*" * 50 + "b") == []
        assert time.monotonic() - begun < 20


# --- options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bind": ("0.0.0.0",)}, "asks for a password"),
        ({"appendfsync": "sometimes"}, "appendfsync is one of"),
        ({"history": "soon"}, "history is seconds"),
        ({"port": 0}, "nobody could connect"),
        ({"databases": 0}, "databases are"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Options(store="x", **options).check()


def test_options_of_text() -> None:
    options = Options()
    for name, text in (
        ("port", "7000"),
        ("bind", "127.0.0.1 ::1"),
        ("readonly", "yes"),
        ("max-bytes", "2gb"),
    ):
        options.set(name, text)
    assert (options.port, options.bind, options.readonly) == (7000, ("127.0.0.1", "::1"), True)
    assert options.max_bytes == 2 << 30
    for name, text in (("nosuch", "1"), ("port", "x"), ("readonly", "maybe"), ("tls-port", "6380")):
        with pytest.raises(InvalidValueError, match=r"stunnel|no option|number|yes or no"):
            options.set(name, text)


def test_numbers_of_fields(folder: Path) -> None:
    attrs = [("when", "datetime64[ms]"), ("yes", "bool")]
    schema = tilekv.Schema(
        [*[tilekv.Attr(*attr) for attr in attrs], tilekv.Attr("v", "float32", var=True)]
    )
    with tilekv.open(folder / "store.kv", "x", schema=schema) as db:
        db["a"] = (np.datetime64("2026-01-02T03:04:05.006"), True, np.array([1.5], np.float32))
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        row = ask("HGETALL", "a")
        assert row[1::2] == [b"2026-01-02T03:04:05.006", b"1", np.float32(1.5).tobytes()]
        assert ask("HSET", "b", *row) == 3
        assert ask("HGETALL", "b") == row

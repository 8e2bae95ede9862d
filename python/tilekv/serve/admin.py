"""The commands about the server."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Final

from tilekv.kvcore.serve.resp import ReplyError, Verbatim, matching
from tilekv.serve.clients import VERSION
from tilekv.serve.database import Database
from tilekv.serve.session import Host, Session, all_commands
from tilekv.serve.table import (
    COMMANDS,
    SUBCOMMANDS,
    SYNTAX,
    Command,
    Later,
    command,
    integer,
    subcommand,
)
from tilekv.storage.serving import peak_bytes, processor_seconds, resident_bytes
from tilekv.version import VERSION as TILEKV_VERSION

OVERHEAD: Final = 64  # bytes that MEMORY USAGE adds to key and value


# --- saving ---


def _saving(session: Session, reply: str) -> Any:
    """Flush, in the time that it takes; then the reply. Within EXEC, after it: all that it writes is one step."""
    server = session.server

    def work() -> str:
        server.upkeep.flush_all()
        return reply

    if session.executing:
        server.upkeep.flush_soon()
        return reply
    raise Later(work)


@command("save", 1, "admin noscript no_multi", group="server")
def save(session: Session, args: list[bytes]) -> Any:
    """Flush what was written, and wait for it."""
    return _saving(session, "OK")


@command("bgsave", -1, "admin noscript", group="server")
def bgsave(session: Session, args: list[bytes]) -> Any:
    """Flush what was written, and do not wait."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise ReplyError(SYNTAX)
    session.server.upkeep.flush_soon()
    return "Background saving started"


@command("bgrewriteaof", 1, "admin noscript", group="server")
def bgrewriteaof(session: Session, args: list[bytes]) -> Any:
    """BGSAVE by another name: there is no log."""
    session.server.upkeep.flush_soon()
    return "Background append only file rewriting started"


@command("lastsave", 1, "fast", group="server")
def lastsave(session: Session, args: list[bytes]) -> Any:
    """The second of the last flush."""
    return int(session.server.upkeep.saved_at)


@command("wait", 3, "noscript", group="generic")
def wait(session: Session, args: list[bytes]) -> Any:
    """0 replicas have it: there are none."""
    integer(args[1])
    if integer(args[2], "ERR timeout is not an integer or out of range") < 0:
        raise ReplyError("ERR timeout is negative")
    return 0


# --- what there is ---


@command("time", 1, "fast", group="server")
def time_(session: Session, args: list[bytes]) -> Any:
    """The clock's seconds and microseconds."""
    now = time.time_ns() // 1000
    return [b"%d" % (now // 10**6), b"%d" % (now % 10**6)]


@command("role", 1, "noscript fast", group="server")
def role(session: Session, args: list[bytes]) -> Any:
    """master; a mirror too, since it follows files and no server."""
    return [b"master", 0, []]


def _details(entry: Command) -> list[Any]:
    subs = [
        _details(sub)
        for (container, _), sub in SUBCOMMANDS.items()
        if container == entry.name.upper().encode()
    ]
    return [
        entry.name.encode(),
        entry.arity,
        sorted(entry.flags),
        entry.first,
        entry.last,
        entry.step,
        [f"@{entry.group}"],
        [],
        [],
        subs,
    ]


@command("command", -1, "", group="server")
def command_(session: Session, args: list[bytes]) -> Any:
    """About commands."""
    if len(args) == 1:
        return [_details(entry) for entry in COMMANDS.values()]
    return subcommand(session, args)


@command("command|count", 2, group="server")
def command_count(session: Session, args: list[bytes]) -> Any:
    """How many there are."""
    return len(COMMANDS)


@command("command|list", -2, group="server")
def command_list(session: Session, args: list[bytes]) -> Any:
    """Their names: FILTERBY PATTERN."""
    names = [entry.name.encode() for entry in all_commands()]
    words = [word.upper() for word in args[2:]]
    if not words:
        return names
    if words[:2] == [b"FILTERBY", b"PATTERN"] and len(words) == 3:
        return matching(args[4].lower(), names)
    raise ReplyError(SYNTAX)


def _named(name: bytes) -> Command | None:
    container, bar, rest = name.upper().partition(b"|")
    return SUBCOMMANDS.get((container, rest)) if bar else COMMANDS.get(container)


@command("command|info", -2, group="server")
def command_info(session: Session, args: list[bytes]) -> Any:
    """What they take."""
    entries = [_named(name) for name in args[2:]] if len(args) > 2 else list(COMMANDS.values())
    return [None if entry is None else _details(entry) for entry in entries]


@command("command|docs", -2, group="server")
def command_docs(session: Session, args: list[bytes]) -> Any:
    """What they do."""
    entries = [_named(name) for name in args[2:]] if len(args) > 2 else list(COMMANDS.values())
    return {
        entry.name.encode(): {
            b"summary": entry.summary.encode(),
            b"since": b"1.0.0",
            b"group": entry.group.encode(),
        }
        for entry in entries
        if entry is not None
    }


@command("command|getkeys", -3, group="server")
def command_getkeys(session: Session, args: list[bytes]) -> Any:
    """Which of a command's arguments are keys."""
    asked = args[2:]
    entry = COMMANDS.get(asked[0].upper())
    if entry is None:
        raise ReplyError("ERR Invalid command specified")
    if not entry.takes(len(asked)):
        raise ReplyError("ERR Invalid number of arguments specified for command")
    if asked[0].upper() in (b"EVAL", b"EVALSHA"):
        return asked[3 : 3 + integer(asked[2])]
    if not entry.first:
        raise ReplyError("ERR The command has no key arguments")
    last = entry.last if entry.last >= 0 else len(asked) + entry.last
    return asked[entry.first : last + 1 : entry.step]


@command("config", -2, "admin noscript", group="server")
def config(session: Session, args: list[bytes]) -> Any:
    """About options."""
    return subcommand(session, args)


def _config(server: Host) -> dict[bytes, bytes]:
    options = server.options
    found: dict[str, Any] = {
        "appendfsync": options.appendfsync,
        "appendonly": "yes",
        "bind": " ".join(options.bind),
        "databases": options.databases,
        "loglevel": options.loglevel,
        "maxclients": options.max_clients,
        "maxmemory": 0,
        "maxmemory-policy": "noeviction",
        "port": options.port,
        "proto-max-bulk-len": options.max_value,
        "save": "",
        "slowlog-log-slower-than": options.slowlog_slower_than,
        "slowlog-max-len": options.slowlog_max_len,
        "timeout": options.timeout,
        "unixsocket": options.unixsocket,
    }
    return {name.encode(): str(value).encode() for name, value in found.items()}


@command("config|get", -3, "admin noscript", group="server")
def config_get(session: Session, args: list[bytes]) -> Any:
    """Options that patterns match."""
    known = _config(session.server)
    return {
        name: known[name] for pattern in args[2:] for name in matching(pattern.lower(), list(known))
    }


@command("config|set", -4, "admin noscript", group="server")
def config_set(session: Session, args: list[bytes]) -> Any:
    """Refused: options are given at the start."""
    raise ReplyError("ERR CONFIG SET is not served: options are given at the start")


@command("config|resetstat", 2, "admin noscript", group="server")
def config_resetstat(session: Session, args: list[bytes]) -> Any:
    """Begin to count anew."""
    session.server.reset_counts()
    return "OK"


@command("object", -2, "readonly", (2, 2, 1), "generic")
def object_(session: Session, args: list[bytes]) -> Any:
    """About a value."""
    return subcommand(session, args)


@command("object|encoding", 3, "readonly", (2, 2, 1), "generic")
def object_encoding(session: Session, args: list[bytes]) -> Any:
    """raw for strings, listpack for hashes; null when it is not there."""
    if not session.step.has(args[2]):
        return None
    return b"raw" if session.database.strings else b"listpack"


@command("object|refcount", 3, "readonly", (2, 2, 1), "generic")
def object_refcount(session: Session, args: list[bytes]) -> Any:
    """1."""
    return 1 if session.step.has(args[2]) else None


@command("object|idletime", 3, "readonly", (2, 2, 1), "generic")
def object_idletime(session: Session, args: list[bytes]) -> Any:
    """0: nobody notes when a value was read."""
    return 0 if session.step.has(args[2]) else None


@command("memory", -2, "readonly", group="server")
def memory(session: Session, args: list[bytes]) -> Any:
    """About memory."""
    return subcommand(session, args)


@command("memory|usage", -3, "readonly", (2, 2, 1), "server")
def memory_usage(session: Session, args: list[bytes]) -> Any:
    """About how many bytes a key and its value have."""
    value = session.step.get(args[2])
    if value is None:
        return None
    size = len(value) if isinstance(value, bytes) else len(repr(value))
    return len(args[2]) + size + OVERHEAD


# --- SLOWLOG ---


@command("slowlog", -2, "admin", group="server")
def slowlog(session: Session, args: list[bytes]) -> Any:
    """The commands that took long."""
    return subcommand(session, args)


@command("slowlog|get", -2, "admin", group="server")
def slowlog_get(session: Session, args: list[bytes]) -> Any:
    """The newest of them."""
    count = integer(args[2]) if len(args) > 2 else 10
    if count < -1:
        raise ReplyError("ERR count should be greater than or equal to -1")
    found = list(session.server.slow_commands)
    return found if count == -1 else found[:count]


@command("slowlog|len", 2, "admin", group="server")
def slowlog_len(session: Session, args: list[bytes]) -> Any:
    """How many there are."""
    return len(session.server.slow_commands)


@command("slowlog|reset", 2, "admin", group="server")
def slowlog_reset(session: Session, args: list[bytes]) -> Any:
    """Forget them."""
    session.server.slow_commands.clear()
    return "OK"


# --- INFO ---

SECTIONS: Final = (
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "commandstats",
    "cluster",
    "keyspace",
)


@command("info", -1, "", group="server")
def info(session: Session, args: list[bytes]) -> Any:
    """What the server is and does."""
    asked = [word.decode("utf-8", "replace").lower() for word in args[1:]] or ["default"]
    plain = [name for name in SECTIONS if name != "commandstats"]
    wanted = {
        name
        for word in asked
        for name in (
            SECTIONS if word in ("all", "everything") else plain if word == "default" else (word,)
        )
    }
    server = session.server
    parts = [
        _titled(name, _section(server, name))
        for name in SECTIONS
        if name in wanted and name != "keyspace"
    ]
    if "keyspace" not in wanted:
        return Verbatim("\r\n".join(parts))
    databases = server.all_databases()

    def work() -> Verbatim:
        return Verbatim("\r\n".join([*parts, _titled("keyspace", _keyspace(server, databases))]))

    if session.executing or all(db.is_small() or not db.counter.is_ready() for db in databases):
        return work()
    raise Later(work)


def _titled(name: str, lines: dict[str, Any]) -> str:
    body = "".join(f"{key}:{value}\r\n" for key, value in lines.items())
    return f"# {name.capitalize()}\r\n{body}"


def _keyspace(server: Host, databases: list[Database]) -> dict[str, Any]:
    """How many keys there are; about how many, where that takes long, until a thread has counted them."""
    found = {}
    for db in databases:
        counter = db.counter
        exact = db.is_small() or (counter.is_ready() and not counter.is_old())
        if not exact:
            server.count_behind(db)
        if db.is_small():
            n = db.count()
        else:
            n = counter.exact(anew=False) if exact else counter.estimate()
        if n:
            told = "yes" if exact else "no"
            found[f"db{db.number}"] = f"keys={n},expires=0,avg_ttl=0,exact={told}"
    return found


def _section(server: Host, name: str) -> dict[str, Any]:
    options, loop, upkeep = server.options, server.loop, server.upkeep
    databases = server.all_databases()
    uptime = int(time.time() - server.begun)
    if name == "server":
        return {
            "redis_version": VERSION,
            "redis_mode": "standalone",
            "tilekv_version": TILEKV_VERSION,
            "os": platform.platform(),
            "arch_bits": 64,
            "multiplexing_api": "epoll",
            "process_id": os.getpid(),
            "run_id": server.run_id,
            "tcp_port": options.port,
            "server_time_usec": time.time_ns() // 1000,
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86_400,
            "executable": "python -m tilekv serve",
        }
    if name == "clients":
        sessions = server.sessions()
        return {
            "connected_clients": len(sessions),
            "maxclients": options.max_clients,
            "blocked_clients": sum(each.connection.waiting for each in sessions),
            "pubsub_clients": sum(bool(each.listens) for each in sessions),
            "client_recent_max_input_buffer": max(
                (s.connection.unanswered for s in sessions), default=0
            ),
            "client_recent_max_output_buffer": max(
                (s.connection.unsent for s in sessions), default=0
            ),
        }
    if name == "memory":
        resident = resident_bytes()
        return {
            "used_memory": resident,
            "used_memory_rss": resident,
            "used_memory_peak": peak_bytes(),
            "used_memory_dataset": sum(db.store._buffer.size for db in databases),
            "maxmemory": 0,
            "maxmemory_policy": "noeviction",
            "mem_fragmentation_ratio": "1.00",  # all that is resident is used
            "mem_clients_normal": loop.received + loop.batch.pending,
            "tilekv_buffer_bytes": options.buffer_bytes,
            "tilekv_cache_bytes": options.cache_bytes,
        }
    if name == "persistence":
        return {
            "loading": 0,
            "aof_enabled": 1,
            "aof_rewrite_in_progress": 0,
            "aof_last_write_status": "err" if upkeep.failing else "ok",
            "aof_last_bgrewrite_status": "ok",
            "rdb_bgsave_in_progress": int(upkeep.flushing),
            "rdb_changes_since_last_save": sum(db.store._unflushed() for db in databases),
            "rdb_last_save_time": int(upkeep.saved_at),
            "rdb_last_bgsave_status": "err" if upkeep.failing else "ok",
            "rdb_last_bgsave_time_sec": int(upkeep.flush_seconds),
            "rdb_current_bgsave_time_sec": upkeep.flushing_seconds(),
            "rdb_last_cow_size": 0,
            "aof_rewrite_scheduled": 0,
            "aof_last_rewrite_time_sec": -1,
            "aof_current_rewrite_time_sec": -1,
            "aof_last_cow_size": 0,
            "tilekv_flushes": upkeep.flushes,
            "tilekv_last_flush_ms": round(upkeep.flush_seconds * 1000, 1),
            "tilekv_may_be_lost_ms": upkeep.may_be_lost_ms(),
            "tilekv_fragments": sum(len(db.store._open_snapshot().names) for db in databases),
            "tilekv_stored_bytes": upkeep.stored_bytes(),
            "tilekv_upkeep_failure": upkeep.failure or "none",
        }
    if name == "stats":
        return {
            "total_connections_received": server.accepted,
            "total_commands_processed": loop.batch.commands,
            "instantaneous_ops_per_sec": server.rate,
            "total_net_input_bytes": loop.bytes_in,
            "total_net_output_bytes": loop.bytes_out,
            "rejected_connections": server.rejected,
            "expired_keys": 0,
            "evicted_keys": upkeep.culled,
            "keyspace_hits": sum(db.hits for db in databases),
            "keyspace_misses": sum(db.misses for db in databases),
            "latest_fork_usec": 0,
            "pubsub_channels": len(server.channels.by_channel),
            "pubsub_patterns": len(server.channels.by_pattern),
            "slowlog_len": len(server.slow_commands),
        }
    if name == "replication":
        return {
            "role": "master",
            "connected_slaves": 0,
            "master_replid": server.run_id,
            "master_repl_offset": 0,
            "second_repl_offset": -1,
            "repl_backlog_active": 0,
            "repl_backlog_size": 0,
            "repl_backlog_first_byte_offset": 0,
            "repl_backlog_histlen": 0,
        }
    if name == "cpu":
        system, user = processor_seconds()
        return {
            "used_cpu_sys": f"{system:.6f}",
            "used_cpu_user": f"{user:.6f}",
            "used_cpu_sys_children": "0.000000",
            "used_cpu_user_children": "0.000000",
        }
    if name == "commandstats":
        spent = {key: (n, server.seconds.get(key, 0.0)) for key, n in server.calls.items()}
        for key, (n, seconds) in loop.batch.counts().items():
            before, more = spent.get(key, (0, 0.0))
            spent[key] = before + n, seconds + more
        return {
            f"cmdstat_{key}": f"calls={n},usec={1e6 * seconds:.0f},usec_per_call={1e6 * seconds / n:.2f}"
            for key, (n, seconds) in sorted(spent.items())
        }
    return {"cluster_enabled": 0}  # cluster

"""The commands of connections: who a client is, what it listens to."""

from __future__ import annotations

import hmac
from typing import Any, Final

from tilekv.kvcore.serve.resp import Push, ReplyError, matching
from tilekv.serve.session import Session, Several
from tilekv.serve.table import SYNTAX, command, integer, subcommand

VERSION: Final = "7.0.15"  # of Redis, whose commands and replies these are


@command("ping", -1, "fast", group="connection")
def ping(session: Session, args: list[bytes]) -> Any:
    """PONG, or what was sent."""
    if len(args) > 2:
        raise ReplyError("ERR wrong number of arguments for 'ping' command")
    if session.listens and not session.resp3:
        return [b"pong", args[1] if len(args) > 1 else b""]
    return args[1] if len(args) > 1 else "PONG"


@command("echo", 2, "fast", group="connection")
def echo(session: Session, args: list[bytes]) -> Any:
    """What was sent."""
    return args[1]


@command("quit", -1, "noauth fast", group="connection")
def quit_(session: Session, args: list[bytes]) -> Any:
    """Close the connection."""
    session.connection.closing = True
    return "OK"


@command("reset", 1, "noauth fast", group="connection")
def reset(session: Session, args: list[bytes]) -> Any:
    """Be as a connection that has just come."""
    session.reset()
    return "RESET"


@command("select", 2, "fast", group="connection")
def select(session: Session, args: list[bytes]) -> Any:
    """Change to another database: another store beside this one."""
    session.number = session.checked_number(args[1])
    return "OK"


def _check_password(session: Session, user: bytes, password: bytes) -> None:
    wanted = session.server.password
    right = wanted is None or hmac.compare_digest(wanted, password)
    if user != b"default" or not right:
        session.server.log("warning", f"client {session.address} gave a wrong password")
        raise ReplyError("WRONGPASS invalid username-password pair or user is disabled.")
    session.known = True


@command("auth", -2, "noauth fast", group="connection")
def auth(session: Session, args: list[bytes]) -> Any:
    """Say who it is."""
    if len(args) > 3:
        raise ReplyError(SYNTAX)
    if len(args) == 2 and session.server.password is None:
        raise ReplyError(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
            "configuration is correct?"
        )
    _check_password(session, args[1] if len(args) == 3 else b"default", args[-1])
    return "OK"


@command("hello", -1, "noauth fast", group="connection")
def hello(session: Session, args: list[bytes]) -> Any:
    """Choose RESP2 or RESP3, with AUTH and SETNAME."""
    version = 3 if session.resp3 else 2
    name: bytes | None = None
    rest = iter(args[1:])
    first = next(rest, None)
    if first is not None:
        version = integer(first, "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise ReplyError("NOPROTO unsupported protocol version")
        for word in rest:
            option = word.upper()
            value = next(rest, None)
            second = next(rest, None) if option == b"AUTH" else b""
            if option not in (b"AUTH", b"SETNAME") or value is None or second is None:
                raise ReplyError(
                    f"ERR Syntax error in HELLO option '{word.decode('utf-8', 'replace')}'"
                )
            if option == b"AUTH":
                _check_password(session, value, second)
            else:
                _check_name(value)
                name = value
    if not session.known:
        raise ReplyError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
            "<pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
        )
    if name is not None:
        session.name = name
    session.resp3 = version == 3
    return {
        b"server": b"redis",
        b"version": VERSION.encode(),
        b"proto": version,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"slave" if session.server.options.readonly else b"master",
        b"modules": [],
    }


# --- CLIENT ---


def _check_name(name: bytes) -> None:
    if any(not 33 <= byte <= 126 for byte in name):
        raise ReplyError("ERR Client names cannot contain spaces, newlines or special characters.")


def _line(session: Session) -> str:
    flags = "x" if session.queue is not None else "P" if session.listens else "N"
    connection, server = session.connection, session.server
    idle = max(int(server.now() - connection.active), 0)
    return (
        f"id={session.id} addr={session.address} laddr={server.local_address} fd={connection.socket.fileno()} "
        f"name={session.name.decode()} age={int(server.time() - session.begun)} idle={idle} flags={flags} db={session.number} "
        f"sub={len(session.channels)} psub={len(session.patterns)} ssub=0 "
        f"multi={-1 if session.queue is None else len(session.queue)} qbuf={connection.unanswered} qbuf-free=0 argv-mem=0 "
        f"multi-mem={session.queued_bytes} rbs=16384 rbp=0 obl=0 oll=0 omem={connection.unsent} tot-mem={connection.unsent} "
        f"events=r cmd={session.last} user=default redir=-1 resp={3 if session.resp3 else 2} "
        f"lib-name={session.library[0].decode()} lib-ver={session.library[1].decode()}"
    )


@command("client", -2, "", group="connection")
def client(session: Session, args: list[bytes]) -> Any:
    """About connections."""
    return subcommand(session, args)


@command("client|id", 2, group="connection")
def client_id(session: Session, args: list[bytes]) -> Any:
    """The number of this connection."""
    return session.id


@command("client|getname", 2, group="connection")
def client_getname(session: Session, args: list[bytes]) -> Any:
    """The name of this connection."""
    return session.name or None


@command("client|setname", 3, group="connection")
def client_setname(session: Session, args: list[bytes]) -> Any:
    """Name this connection."""
    _check_name(args[2])
    session.name = args[2]
    return "OK"


@command("client|setinfo", 4, group="connection")
def client_setinfo(session: Session, args: list[bytes]) -> Any:
    """Name the client's library, and its version."""
    what = args[2].upper()
    if any(not 33 <= byte <= 126 for byte in args[3]):
        raise ReplyError(
            f"ERR {args[2].decode('utf-8', 'replace')} cannot contain spaces, newlines or special characters."
        )
    if what == b"LIB-NAME":
        session.library = (args[3], session.library[1])
    elif what == b"LIB-VER":
        session.library = (session.library[0], args[3])
    else:
        raise ReplyError(f"ERR Unrecognized option '{args[2].decode('utf-8', 'replace')}'")
    return "OK"


@command("client|info", 2, group="connection")
def client_info(session: Session, args: list[bytes]) -> Any:
    """A line about this connection."""
    return (_line(session) + "\n").encode()


@command("client|list", -2, group="connection")
def client_list(session: Session, args: list[bytes]) -> Any:
    """A line about each connection: TYPE normal or pubsub, or ID and numbers."""
    found = session.server.sessions()
    words = [word.upper() for word in args[2:]]
    if words[:1] == [b"TYPE"] and len(words) == 2:
        if words[1] not in (b"NORMAL", b"PUBSUB", b"MASTER", b"REPLICA", b"SLAVE"):
            raise ReplyError(f"ERR Unknown client type '{args[3].decode('utf-8', 'replace')}'")
        found = [each for each in found if words[1] == (b"PUBSUB" if each.listens else b"NORMAL")]
    elif words[:1] == [b"ID"] and len(words) > 1:
        wanted = {integer(word, "ERR Invalid client ID", 1) for word in args[3:]}
        found = [each for each in found if each.id in wanted]
    elif words:
        raise ReplyError(SYNTAX)
    return "".join(_line(each) + "\n" for each in found).encode()


@command("client|kill", -3, group="connection")
def client_kill(session: Session, args: list[bytes]) -> Any:
    """Close connections: ADDR, LADDR, ID, TYPE, USER, SKIPME."""
    sessions = session.server.sessions()
    if len(args) == 3:
        found = [each for each in sessions if each.address.encode() == args[2]]
        if not found:
            raise ReplyError("ERR No such client")
        session.server.kill(found, session)
        return "OK"
    if len(args) % 2:
        raise ReplyError(SYNTAX)
    skip = True
    for word, value in zip(args[2::2], args[3::2], strict=True):
        option, text = word.upper(), value.decode("utf-8", "replace")
        if option == b"ID":
            number = integer(value, "ERR client-id should be greater than 0", 1)
            sessions = [each for each in sessions if each.id == number]
        elif option == b"ADDR":
            sessions = [each for each in sessions if each.address == text]
        elif option == b"LADDR":
            sessions = [each for each in sessions if session.server.local_address == text]
        elif option == b"USER":
            if text != "default":
                raise ReplyError(f"ERR No such user '{text}'")
        elif option == b"TYPE":
            if text.lower() not in ("normal", "pubsub", "master", "replica", "slave"):
                raise ReplyError(f"ERR Unknown client type '{text}'")
            pubsub = text.lower() == "pubsub"
            sessions = [
                each
                for each in sessions
                if text.lower() in ("normal", "pubsub") and bool(each.listens) == pubsub
            ]
        elif option == b"SKIPME" and value.upper() in (b"YES", b"NO"):
            skip = value.upper() == b"YES"
        else:
            raise ReplyError(SYNTAX)
    found = [each for each in sessions if each is not session or not skip]
    session.server.kill(found, session)
    return len(found)


@command("client|reply", 3, group="connection")
def client_reply(session: Session, args: list[bytes]) -> Any:
    """Have replies sent (ON), not sent (OFF), or not that to the next command (SKIP)."""
    mode = args[2].upper()
    if mode not in (b"ON", b"OFF", b"SKIP"):
        raise ReplyError(SYNTAX)
    if mode != b"SKIP" or session.replies == "on":
        session.replies = mode.decode().lower()
    return "OK"


@command("client|getredir", 2, group="connection")
def client_getredir(session: Session, args: list[bytes]) -> Any:
    """-1: nothing is tracked."""
    return -1


@command("client|unblock", -3, group="connection")
def client_unblock(session: Session, args: list[bytes]) -> Any:
    """0: nobody is blocked."""
    integer(args[2])
    return 0


@command("client|no-evict", 3, group="connection")
def client_no_evict(session: Session, args: list[bytes]) -> Any:
    """Taken, and without effect."""
    return _switch(args)


@command("client|no-touch", 3, group="connection")
def client_no_touch(session: Session, args: list[bytes]) -> Any:
    """Taken, and without effect."""
    return _switch(args)


def _switch(args: list[bytes]) -> str:
    if args[2].upper() not in (b"ON", b"OFF"):
        raise ReplyError(SYNTAX)
    return "OK"


# --- publish and subscribe ---


def _counted(session: Session, kind: str) -> int:
    """What is told of how much it listens to: shards are counted by themselves."""
    return len(session.shards) if kind == "s" else session.listens - len(session.shards)


def _listen(session: Session, kind: str, names: list[bytes]) -> Any:
    replies = Several()
    for name in names:
        session.server.channels.join(session, kind, name)
        replies.append(Push([f"{kind}subscribe".encode(), name, _counted(session, kind)]))
    return replies


def _leave(session: Session, kind: str, names: list[bytes]) -> Any:
    replies = Several()
    word = f"{kind}unsubscribe".encode()
    for name in names or list(session.server.channels.of(session, kind)[0]):
        session.server.channels.leave(session, kind, name)
        replies.append(Push([word, name, _counted(session, kind)]))
    if not replies:
        replies.append(Push([word, None, _counted(session, kind)]))
    return replies


@command("subscribe", -2, "pubsub noscript", group="pubsub")
def subscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to channels."""
    return _listen(session, "", args[1:])


@command("psubscribe", -2, "pubsub noscript", group="pubsub")
def psubscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to the channels that patterns match."""
    return _listen(session, "p", args[1:])


@command("ssubscribe", -2, "pubsub noscript", group="pubsub")
def ssubscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to channels of shards: there is one."""
    return _listen(session, "s", args[1:])


@command("unsubscribe", -1, "pubsub noscript", group="pubsub")
def unsubscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to channels no more."""
    return _leave(session, "", args[1:])


@command("punsubscribe", -1, "pubsub noscript", group="pubsub")
def punsubscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to patterns no more."""
    return _leave(session, "p", args[1:])


@command("sunsubscribe", -1, "pubsub noscript", group="pubsub")
def sunsubscribe(session: Session, args: list[bytes]) -> Any:
    """Listen to channels of shards no more."""
    return _leave(session, "s", args[1:])


@command("publish", 3, "pubsub fast", group="pubsub")
def publish(session: Session, args: list[bytes]) -> Any:
    """Tell those who listen to a channel."""
    return session.server.channels.publish(args[1], args[2])


@command("spublish", 3, "pubsub fast", group="pubsub")
def spublish(session: Session, args: list[bytes]) -> Any:
    """Tell those who listen to a channel of a shard."""
    return session.server.channels.publish_shard(args[1], args[2])


@command("pubsub", -2, "pubsub", group="pubsub")
def pubsub(session: Session, args: list[bytes]) -> Any:
    """About channels."""
    return subcommand(session, args)


@command("pubsub|channels", -2, "pubsub", group="pubsub")
def pubsub_channels(session: Session, args: list[bytes]) -> Any:
    """The channels that somebody listens to."""
    names = list(session.server.channels.by_channel)
    return matching(args[2], names) if len(args) > 2 else names


@command("pubsub|numsub", -2, "pubsub", group="pubsub")
def pubsub_numsub(session: Session, args: list[bytes]) -> Any:
    """How many listen to channels."""
    found = session.server.channels.by_channel
    return [each for name in args[2:] for each in (name, len(found.get(name, ())))]


@command("pubsub|numpat", 2, "pubsub", group="pubsub")
def pubsub_numpat(session: Session, args: list[bytes]) -> Any:
    """How many patterns somebody listens to."""
    return len(session.server.channels.by_pattern)


@command("pubsub|shardchannels", -2, "pubsub", group="pubsub")
def pubsub_shardchannels(session: Session, args: list[bytes]) -> Any:
    """The channels of shards that somebody listens to."""
    names = list(session.server.channels.by_shard)
    return matching(args[2], names) if len(args) > 2 else names


@command("pubsub|shardnumsub", -2, "pubsub", group="pubsub")
def pubsub_shardnumsub(session: Session, args: list[bytes]) -> Any:
    """How many listen to channels of shards."""
    found = session.server.channels.by_shard
    return [each for name in args[2:] for each in (name, len(found.get(name, ())))]

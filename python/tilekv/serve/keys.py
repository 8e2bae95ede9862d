"""The commands of keys, of whatever type, and of their expiry."""

from __future__ import annotations

from random import getrandbits
from typing import Any, Final

from tilekv.expiry import NEVER
from tilekv.kvcore.serve.resp import ReplyError, matching
from tilekv.serve.session import Session
from tilekv.serve.table import MOST, SYNTAX, Later, command, integer

ONE: Final = (1, 1, 1)
TWO: Final = (1, 2, 1)
ALL: Final = (1, -1, 1)
MOST_COUNT: Final = 100_000  # keys that one SCAN looks at


@command("del", -2, "write", ALL, "generic")
def del_(session: Session, args: list[bytes]) -> Any:
    """Delete keys; how many were there."""
    step = session.step
    gone = 0
    for key in args[1:]:
        if step.has(key):
            step.delete(key)
            gone += 1
    return gone


@command("unlink", -2, "write fast", ALL, "generic")
def unlink(session: Session, args: list[bytes]) -> Any:
    """DEL by another name."""
    return del_(session, args)


@command("exists", -2, "readonly fast", ALL, "generic")
def exists(session: Session, args: list[bytes]) -> Any:
    """How many of the keys are there."""
    return sum(session.step.has(key) for key in args[1:])


@command("touch", -2, "readonly fast", ALL, "generic")
def touch(session: Session, args: list[bytes]) -> Any:
    """How many of the keys are there."""
    return exists(session, args)


@command("type", 2, "readonly fast", ONE, "generic")
def type_(session: Session, args: list[bytes]) -> Any:
    """string or hash, by the store's attributes; none when the key is not there."""
    if not session.step.has(args[1]):
        return "none"
    return "string" if session.database.strings else "hash"


@command("rename", 3, "write", TWO, "generic")
def rename(session: Session, args: list[bytes]) -> Any:
    """Give a key another name."""
    step = session.step
    value, moment = step.get(args[1]), step.moment(args[1])
    if value is None or moment is None:
        raise ReplyError("ERR no such key")
    if args[1] != args[2]:
        step.delete(args[1])
        step.put(args[2], value, moment)
    return "OK"


@command("renamenx", 3, "write fast", TWO, "generic")
def renamenx(session: Session, args: list[bytes]) -> Any:
    """Give a key a name that no other has."""
    if not session.step.has(args[1]):
        raise ReplyError("ERR no such key")
    if session.step.has(args[2]):
        return 0
    rename(session, args)
    return 1


@command("copy", -3, "write denyoom", TWO, "generic")
def copy(session: Session, args: list[bytes]) -> Any:
    """Copy a value, with DB and REPLACE."""
    number, replace = session.number, False
    rest = iter(args[3:])
    for word in rest:
        if word.upper() == b"REPLACE":
            replace = True
        elif word.upper() == b"DB" and (text := next(rest, None)) is not None:
            number = session.checked_number(text)
        else:
            raise ReplyError(SYNTAX)
    step, other = session.step, session.step_of(number)
    if number == session.number and args[1] == args[2]:
        raise ReplyError("ERR source and destination objects are the same")
    value, moment = step.get(args[1]), step.moment(args[1])
    if value is None or moment is None or (other.has(args[2]) and not replace):
        return 0
    if other.database.strings != step.database.strings:
        raise ReplyError("ERR the two databases do not hold values of one type")
    other.put(args[2], value, moment)
    return 1


@command("move", 3, "write fast", ONE, "generic")
def move(session: Session, args: list[bytes]) -> Any:
    """Move a key to another database."""
    number = session.checked_number(args[2])
    if number == session.number:
        raise ReplyError("ERR source and destination objects are the same")
    if not copy(session, [b"COPY", args[1], args[1], b"DB", args[2]]):
        return 0
    session.step.delete(args[1])
    return 1


# --- all keys ---


def at_once_or_later(session: Session, work: Any) -> Any:
    """What looks at all keys: now, of a small store or within EXEC; else in a thread, while others go on."""
    if session.executing or session.database.is_small():
        return work()
    raise Later(work)


@command("randomkey", 1, "readonly", group="generic")
def randomkey(session: Session, args: list[bytes]) -> Any:
    """Some key."""
    return session.step.random_key(getrandbits(128))


@command("dbsize", 1, "readonly fast", group="server")
def dbsize(session: Session, args: list[bytes]) -> Any:
    """How many keys there are: they are counted."""
    return at_once_or_later(session, session.step.count)


@command("keys", 2, "readonly", group="generic")
def keys(session: Session, args: list[bytes]) -> Any:
    """All keys that a pattern matches."""
    step, pattern = session.step, args[1]

    def work() -> list[bytes]:
        found = step.keys()
        return found if pattern == b"*" else matching(pattern, found)

    return at_once_or_later(session, work)


@command("scan", -2, "readonly", group="generic")
def scan(session: Session, args: list[bytes]) -> Any:
    """Some keys from a cursor on, with MATCH COUNT TYPE."""
    cursor = integer(args[1], "ERR invalid cursor", 0)
    count, pattern, kind = 10, b"*", b""
    rest = iter(args[2:])
    for word in rest:
        option, text = word.upper(), next(rest, None)
        if text is None:
            raise ReplyError(SYNTAX)
        if option == b"COUNT":
            count = integer(text)
            if count < 1:
                raise ReplyError(SYNTAX)
        elif option == b"MATCH":
            pattern = text
        elif option == b"TYPE":
            kind = text.lower()
        else:
            raise ReplyError(SYNTAX)
    after, found = session.step.scan(cursor, min(count, MOST_COUNT))
    if pattern != b"*":
        found = matching(pattern, found)
    if kind and kind != (b"string" if session.database.strings else b"hash"):
        found = []
    return [b"%d" % after, found]


@command("flushdb", -1, "write", group="server")
def flushdb(session: Session, args: list[bytes]) -> Any:
    """Delete every key of the database: SYNC and ASYNC are the same."""
    _check_flush(args)
    return session.clear([session.database])


@command("flushall", -1, "write", group="server")
def flushall(session: Session, args: list[bytes]) -> Any:
    """Delete every key of all databases."""
    _check_flush(args)
    return session.clear(session.server.all_databases())


def _check_flush(args: list[bytes]) -> None:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"SYNC", b"ASYNC")):
        raise ReplyError(SYNTAX)


# --- expiry ---


def _expire(session: Session, args: list[bytes], unit: int, relative: bool) -> int:
    name = args[0].decode().lower()
    given = {word.upper() for word in args[3:]}
    for word in args[3:]:
        if word.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise ReplyError(f"ERR Unsupported option {word.decode('utf-8', 'replace')}")
    if b"NX" in given and len(given) > 1:
        raise ReplyError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= given:
        raise ReplyError("ERR GT and LT options at the same time are not compatible")
    number = integer(args[2])
    step = session.step
    moment = number * unit + (step.now if relative else 0)
    if abs(number) > MOST // unit or not -MOST <= moment <= MOST:
        raise ReplyError(f"ERR invalid expire time in '{name}' command")
    step.database.follow()
    old = step.moment(args[1])
    if old is None:
        return 0
    if (
        (b"NX" in given and old != NEVER)
        or (b"XX" in given and old == NEVER)
        or (b"GT" in given and moment <= old)
        or (b"LT" in given and moment >= old)
    ):
        return 0
    if moment <= step.now:
        step.delete(args[1])
    else:
        step.put(args[1], step.get(args[1]), moment)
    return 1


@command("expire", -3, "write fast", ONE, "generic")
def expire(session: Session, args: list[bytes]) -> Any:
    """Have a key expire in some seconds: NX XX GT LT. Its value is written again."""
    return _expire(session, args, 1000, True)


@command("pexpire", -3, "write fast", ONE, "generic")
def pexpire(session: Session, args: list[bytes]) -> Any:
    """Have a key expire in some milliseconds."""
    return _expire(session, args, 1, True)


@command("expireat", -3, "write fast", ONE, "generic")
def expireat(session: Session, args: list[bytes]) -> Any:
    """Have a key expire at a second."""
    return _expire(session, args, 1000, False)


@command("pexpireat", -3, "write fast", ONE, "generic")
def pexpireat(session: Session, args: list[bytes]) -> Any:
    """Have a key expire at a millisecond."""
    return _expire(session, args, 1, False)


@command("persist", 2, "write fast", ONE, "generic")
def persist(session: Session, args: list[bytes]) -> Any:
    """Have a key not expire any more. Its value is written again."""
    step = session.step
    step.database.follow()
    if step.moment(args[1]) in (None, NEVER):
        return 0
    step.put(args[1], step.get(args[1]))
    return 1


def _left(session: Session, key: bytes, relative: bool, unit: int) -> int:
    moment = session.step.moment(key)
    if moment is None:
        return -2
    if moment == NEVER:
        return -1
    left = max(moment - session.step.now, 0) if relative else moment
    return (left + unit // 2) // unit


@command("ttl", 2, "readonly fast", ONE, "generic")
def ttl(session: Session, args: list[bytes]) -> Any:
    """The seconds until a key expires; -1: it does not, -2: it is not there."""
    return _left(session, args[1], True, 1000)


@command("pttl", 2, "readonly fast", ONE, "generic")
def pttl(session: Session, args: list[bytes]) -> Any:
    """The milliseconds until a key expires."""
    return _left(session, args[1], True, 1)


@command("expiretime", 2, "readonly fast", ONE, "generic")
def expiretime(session: Session, args: list[bytes]) -> Any:
    """The second at which a key expires."""
    return _left(session, args[1], False, 1000)


@command("pexpiretime", 2, "readonly fast", ONE, "generic")
def pexpiretime(session: Session, args: list[bytes]) -> Any:
    """The millisecond at which a key expires."""
    return _left(session, args[1], False, 1)

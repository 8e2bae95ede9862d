"""The commands of strings."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tilekv.expiry import NEVER
from tilekv.kvcore.serve.resp import ReplyError
from tilekv.serve.database import Step
from tilekv.serve.session import Session
from tilekv.serve.table import (
    LEAST,
    MOST,
    SYNTAX,
    UNITS,
    command,
    integer,
    long_double,
    moment_of,
)

ONE: Final = (1, 1, 1)
ALL: Final = (1, -1, 1)
PAIRS: Final = (1, -1, 2)


@command("get", 2, "readonly fast", ONE, "string")
def get(session: Session, args: list[bytes]) -> Any:
    """The value of a key."""
    return session.step.string(args[1])


@command("set", -3, "write denyoom", ONE, "string")
def set_(session: Session, args: list[bytes]) -> Any:
    """Set a key, with EX PX EXAT PXAT NX XX KEEPTTL GET."""
    step = session.step
    unit: bytes | None = None
    amount = b""
    given: set[bytes] = set()
    rest = iter(args[3:])
    for word in rest:
        option = word.upper()
        if option in UNITS:
            if unit not in (None, option) or b"KEEPTTL" in given:
                raise ReplyError(SYNTAX)
            unit, amount = option, next(rest, b"")
            if not amount:
                raise ReplyError(SYNTAX)
        elif option in (b"NX", b"XX", b"KEEPTTL", b"GET"):
            given.add(option)
        else:
            raise ReplyError(SYNTAX)
    if {b"NX", b"XX"} <= given or (b"KEEPTTL" in given and unit is not None):
        raise ReplyError(SYNTAX)
    step.require_strings()
    moment = NEVER if unit is None else moment_of(unit, amount, step.now, "set")
    old = step.string(args[1]) if given else None
    reply: Any = old if b"GET" in given else "OK"
    if (b"NX" in given and old is not None) or (b"XX" in given and old is None):
        return old if b"GET" in given else None
    if b"KEEPTTL" in given and old is not None:
        moment = step.moment(args[1]) or NEVER
    step.put(args[1], args[2], moment)
    return reply


@command("setnx", 3, "write denyoom fast", ONE, "string")
def setnx(session: Session, args: list[bytes]) -> Any:
    """Set a key that is not there."""
    step = session.step
    step.require_strings()
    if step.has(args[1]):
        return 0
    step.put(args[1], args[2])
    return 1


@command("setex", 4, "write denyoom", ONE, "string")
def setex(session: Session, args: list[bytes]) -> Any:
    """Set a key for some seconds."""
    return _set_for(session, args, b"EX", "setex")


@command("psetex", 4, "write denyoom", ONE, "string")
def psetex(session: Session, args: list[bytes]) -> Any:
    """Set a key for some milliseconds."""
    return _set_for(session, args, b"PX", "psetex")


def _set_for(session: Session, args: list[bytes], unit: bytes, name: str) -> str:
    step = session.step
    step.require_strings()
    step.put(args[1], args[3], moment_of(unit, args[2], step.now, name))
    return "OK"


@command("getset", 3, "write denyoom fast", ONE, "string")
def getset(session: Session, args: list[bytes]) -> Any:
    """Set a key, and give its old value."""
    old = session.step.string(args[1])
    session.step.put(args[1], args[2])
    return old


@command("getdel", 2, "write fast", ONE, "string")
def getdel(session: Session, args: list[bytes]) -> Any:
    """The value of a key, which is deleted."""
    old = session.step.string(args[1])
    if old is not None:
        session.step.delete(args[1])
    return old


@command("getex", -2, "write fast", ONE, "string")
def getex(session: Session, args: list[bytes]) -> Any:
    """The value of a key, which gets another moment of expiry: EX PX EXAT PXAT PERSIST."""
    step = session.step
    moment: int | None = None
    options = [word.upper() for word in args[2:]]
    if options == [b"PERSIST"]:
        moment = NEVER
    elif options and (len(options) != 2 or options[0] not in UNITS):
        raise ReplyError(SYNTAX)
    if options:
        step.database.follow()
    value = step.string(args[1])
    if value is None:
        return None
    if len(options) == 2:
        moment = moment_of(options[0], args[3], step.now, "getex")
    if moment is not None and moment != step.moment(args[1]):
        step.put(args[1], value, moment)
    return value


@command("mget", -2, "readonly fast", ALL, "string")
def mget(session: Session, args: list[bytes]) -> Any:
    """The values of keys."""
    return session.step.strings(args[1:])


@command("mset", -3, "write denyoom", PAIRS, "string")
def mset(session: Session, args: list[bytes]) -> Any:
    """Set keys, all at once."""
    if len(args) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'mset' command")
    session.step.require_strings()
    for key, value in zip(args[1::2], args[2::2], strict=True):
        session.step.put(key, value)
    return "OK"


@command("msetnx", -3, "write denyoom", PAIRS, "string")
def msetnx(session: Session, args: list[bytes]) -> Any:
    """Set keys, all at once, if none of them is there."""
    if len(args) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'msetnx' command")
    if any(session.step.has(key) for key in args[1::2]):
        return 0
    mset(session, args)
    return 1


@command("strlen", 2, "readonly fast", ONE, "string")
def strlen(session: Session, args: list[bytes]) -> Any:
    """The bytes of a value."""
    return len(session.step.string(args[1]) or b"")


def _changed(step: Step, key: bytes, value: bytes) -> None:
    """Set a key again, until the moment that it has."""
    step.put(key, value, step.moment(key) or NEVER)


@command("append", 3, "write denyoom fast", ONE, "string")
def append(session: Session, args: list[bytes]) -> Any:
    """Put bytes behind a value."""
    step = session.step
    step.database.follow()
    value = (step.string(args[1]) or b"") + args[2]
    session.check_size(len(value))
    _changed(step, args[1], value)
    return len(value)


@command("getrange", 4, "readonly", ONE, "string")
def getrange(session: Session, args: list[bytes]) -> Any:
    """Bytes of a value, from one to another."""
    start, stop = integer(args[2]), integer(args[3])
    step = session.step
    step.require_strings()
    n = len(step.string(args[1]) or b"") if step.pending or min(start, stop) < 0 else None
    if n is not None:
        if start < 0 and stop < 0 and start > stop:
            return b""
        start = max(start + n, 0) if start < 0 else start
        stop = max(stop + n, 0) if stop < 0 else stop
    if start > stop:
        return b""
    return session.part(args[1], start, stop + 1)


@command("substr", 4, "readonly", ONE, "string")
def substr(session: Session, args: list[bytes]) -> Any:
    """GETRANGE by its old name."""
    return getrange(session, args)


@command("setrange", 4, "write denyoom", ONE, "string")
def setrange(session: Session, args: list[bytes]) -> Any:
    """Put bytes into a value, from one of them on."""
    offset = integer(args[2])
    if offset < 0:
        raise ReplyError("ERR offset is out of range")
    step = session.step
    step.database.follow()
    value = step.string(args[1])
    if not args[3]:
        return len(value or b"")
    session.check_size(offset + len(args[3]))
    old = value or b""
    new = old[:offset].ljust(offset, b"\0") + args[3] + old[offset + len(args[3]) :]
    _changed(step, args[1], new)
    return len(new)


def _add(session: Session, key: bytes, amount: int) -> int:
    step = session.step
    step.database.follow()
    value = step.string(key)
    number = integer(value if value is not None else b"0") + amount
    if not LEAST <= number <= MOST:
        raise ReplyError("ERR increment or decrement would overflow")
    _changed(step, key, b"%d" % number)
    return number


@command("incr", 2, "write denyoom fast", ONE, "string")
def incr(session: Session, args: list[bytes]) -> Any:
    """Add one to a number."""
    return _add(session, args[1], 1)


@command("decr", 2, "write denyoom fast", ONE, "string")
def decr(session: Session, args: list[bytes]) -> Any:
    """Take one from a number."""
    return _add(session, args[1], -1)


@command("incrby", 3, "write denyoom fast", ONE, "string")
def incrby(session: Session, args: list[bytes]) -> Any:
    """Add to a number."""
    return _add(session, args[1], integer(args[2]))


@command("decrby", 3, "write denyoom fast", ONE, "string")
def decrby(session: Session, args: list[bytes]) -> Any:
    """Take from a number."""
    amount = integer(args[2])
    if amount == LEAST:
        raise ReplyError("ERR decrement would overflow")
    return _add(session, args[1], -amount)


@command("incrbyfloat", 3, "write denyoom fast", ONE, "string")
def incrbyfloat(session: Session, args: list[bytes]) -> Any:
    """Add to a number that need not be whole."""
    step = session.step
    step.database.follow()
    old = step.string(args[1])
    # As Redis counts: in long doubles, shown with 17 digits behind the point.
    total = long_double(b"0" if old is None else old) + long_double(args[2])
    if not np.isfinite(total):
        raise ReplyError("ERR increment would produce NaN or Infinity")
    text = np.format_float_positional(total, precision=17, unique=False, trim="-")
    value = b"0" if text == "-0" else text.encode()
    _changed(step, args[1], value)
    return value

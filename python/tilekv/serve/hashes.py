"""The commands of hashes: the values of a store of several attributes, each of which is a field."""

from __future__ import annotations

from typing import Any, Final

from tilekv.expiry import NEVER
from tilekv.kvcore.serve.resp import ReplyError
from tilekv.serve.database import WRONG_TYPE, field_text, field_value
from tilekv.serve.session import Session
from tilekv.serve.table import command

ONE: Final = (1, 1, 1)


def _row(session: Session, key: bytes) -> dict[bytes, bytes]:
    """The fields of a key that are no nulls, in the order of the schema."""
    if session.database.strings:
        if session.step.has(key):
            raise ReplyError(WRONG_TYPE)
        return {}
    row = session.step.get(key)
    if row is None:
        return {}
    return {name.encode(): field_text(value) for name, value in row.items() if value is not None}


@command("hget", 3, "readonly fast", ONE, "hash")
def hget(session: Session, args: list[bytes]) -> Any:
    """A field of a hash."""
    return _row(session, args[1]).get(args[2])


@command("hmget", -3, "readonly fast", ONE, "hash")
def hmget(session: Session, args: list[bytes]) -> Any:
    """Fields of a hash."""
    row = _row(session, args[1])
    return [row.get(name) for name in args[2:]]


@command("hgetall", 2, "readonly", ONE, "hash")
def hgetall(session: Session, args: list[bytes]) -> Any:
    """All fields of a hash."""
    return _row(session, args[1])


@command("hkeys", 2, "readonly", ONE, "hash")
def hkeys(session: Session, args: list[bytes]) -> Any:
    """The names of a hash's fields."""
    return list(_row(session, args[1]))


@command("hvals", 2, "readonly", ONE, "hash")
def hvals(session: Session, args: list[bytes]) -> Any:
    """The values of a hash's fields."""
    return list(_row(session, args[1]).values())


@command("hlen", 2, "readonly fast", ONE, "hash")
def hlen(session: Session, args: list[bytes]) -> Any:
    """How many fields a hash has."""
    return len(_row(session, args[1]))


@command("hexists", 3, "readonly fast", ONE, "hash")
def hexists(session: Session, args: list[bytes]) -> Any:
    """Whether a hash has a field."""
    return int(args[2] in _row(session, args[1]))


@command("hstrlen", 3, "readonly fast", ONE, "hash")
def hstrlen(session: Session, args: list[bytes]) -> Any:
    """The bytes of a field."""
    return len(_row(session, args[1]).get(args[2], b""))


def _set(session: Session, args: list[bytes]) -> int:
    """Set some fields of a hash that is there, or all of a new one; how many it had not before."""
    if len(args) % 2:
        name = args[0].decode().lower()
        raise ReplyError(f"ERR wrong number of arguments for '{name}' command")
    step, attrs = session.step, session.database.attrs
    if session.database.strings:
        raise ReplyError(
            WRONG_TYPE
            if step.has(args[1])
            else "ERR the values of this store are strings: a store of several attributes has hashes"
        )
    step.database.follow()
    by_name = {attr.name.encode(): attr for attr in attrs}
    old = step.get(args[1])
    row = {} if old is None else dict(old)
    added = 0
    for field, text in zip(args[2::2], args[3::2], strict=True):
        if field not in by_name:
            known = ", ".join(attr.name for attr in attrs)
            raise ReplyError(
                f"ERR the hashes of this store have the fields {known}, and no '{field.decode('utf-8', 'replace')}'"
            )
        attr = by_name[field]
        added += row.get(attr.name) is None
        row[attr.name] = field_value(attr, text)
    for attr in attrs:
        if attr.name not in row:
            if not attr.nullable:
                raise ReplyError(
                    f"ERR a new hash takes all of its fields, and '{attr.name}' is missing"
                )
            row[attr.name] = None
    step.put(args[1], row, step.moment(args[1]) or NEVER)
    return added


@command("hset", -4, "write denyoom fast", ONE, "hash")
def hset(session: Session, args: list[bytes]) -> Any:
    """Set fields of a hash: all of a new one, some of one that is there."""
    return _set(session, args)


@command("hmset", -4, "write denyoom fast", ONE, "hash")
def hmset(session: Session, args: list[bytes]) -> Any:
    """HSET by its old name."""
    _set(session, args)
    return "OK"


@command("hdel", -3, "write fast", ONE, "hash")
def hdel(session: Session, args: list[bytes]) -> Any:
    """Make fields null, where their attributes may be; the hash stays."""
    step = session.step
    present = _row(session, args[1])
    gone = {name for name in args[2:] if name in present}
    if not gone:
        return 0
    row = dict(step.get(args[1]))
    for attr in session.database.attrs:
        if attr.name.encode() in gone:
            if not attr.nullable:
                raise ReplyError(f"ERR the field '{attr.name}' cannot be missing: delete the key")
            row[attr.name] = None
    step.put(args[1], row, step.moment(args[1]) or NEVER)
    return len(gone)

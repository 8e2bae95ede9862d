"""The scripts of locks: there is no Lua, but those few that libraries lock and count with are known by their words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from tilekv.expiry import NEVER
from tilekv.kvcore.serve.resp import ReplyError
from tilekv.serve.session import Session
from tilekv.serve.strings import incrby, set_
from tilekv.serve.table import command, integer, subcommand

Script = Callable[[Session, list[bytes], list[bytes]], Any]

MOST_LOADED: Final = 1000
OTHERS: Final = "ERR scripts are not served, but for those by which redis-py, aiocache and django-redis hold locks and count"


def _holds(session: Session, keys: list[bytes], args: list[bytes]) -> bool:
    """Whether the lock is there, and its owner's."""
    return session.step.string(keys[0]) == args[0]


def release(session: Session, keys: list[bytes], args: list[bytes]) -> int:
    """Delete a lock that is its owner's."""
    if not _holds(session, keys, args):
        return 0
    session.step.delete(keys[0])
    return 1


def extend(session: Session, keys: list[bytes], args: list[bytes]) -> int:
    """Give a lock more time, or other."""
    step = session.step
    moment = step.moment(keys[0])
    if not _holds(session, keys, args) or moment is None or moment == NEVER:
        return 0
    begin = moment if args[2:3] == [b"0"] else step.now
    step.put(keys[0], args[0], begin + integer(args[1]))
    return 1


def reacquire(session: Session, keys: list[bytes], args: list[bytes]) -> int:
    """Give a lock its time anew."""
    if not _holds(session, keys, args):
        return 0
    session.step.put(keys[0], args[0], session.step.now + integer(args[1]))
    return 1


def add(session: Session, keys: list[bytes], args: list[bytes]) -> int:
    """Add to a counter."""
    number: int = incrby(session, [b"INCRBY", keys[0], args[0]])
    return number


def add_to_one_that_is_there(session: Session, keys: list[bytes], args: list[bytes]) -> Any:
    """Add to a counter, if it is there: django-redis."""
    return add(session, keys, args) if session.step.has(keys[0]) else None


def compare_and_set(session: Session, keys: list[bytes], args: list[bytes]) -> Any:
    """Set a key to the first argument if it is the second: aiocache."""
    if session.step.string(keys[0]) != args[1]:
        return 0
    return set_(session, [b"SET", keys[0], args[0], *(args[2:4] if len(args) == 4 else ())])


# With how many arguments each takes at least.
SCRIPTS: Final[tuple[tuple[str, int, Script], ...]] = (
    (
        """
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then return 0 end
        redis.call('del', KEYS[1])
        return 1
        """,
        1,
        release,
    ),
    (
        """
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then return 0 end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then expiration = 0 end
        if expiration < 0 then return 0 end
        local newttl = ARGV[2]
        if ARGV[3] == "0" then newttl = ARGV[2] + expiration end
        redis.call('pexpire', KEYS[1], newttl)
        return 1
        """,
        3,
        extend,
    ),
    (
        """
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then return 0 end
        redis.call('pexpire', KEYS[1], ARGV[2])
        return 1
        """,
        2,
        reacquire,
    ),
    (
        """
        if redis.call('get', KEYS[1]) == ARGV[2] then
            if #ARGV == 4 then return redis.call('set', KEYS[1], ARGV[1], ARGV[3], ARGV[4])
            else return redis.call('set', KEYS[1], ARGV[1]) end
        else return 0 end
        """,
        2,
        compare_and_set,
    ),
    ("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, add),
    (
        """
        local exists = redis.call('EXISTS', KEYS[1])
        if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1])
        else return false end
        """,
        1,
        add_to_one_that_is_there,
    ),
    (
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
        1,
        release,
    ),
    (
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end",
        2,
        reacquire,
    ),
)


def words_of(script: str) -> tuple[str, ...]:
    """A script's words: what it says, however it is written."""
    plain = re.sub(r"--[^\n]*", " ", script).replace('"', "'")
    return tuple(re.findall(r"'[^']*'|[\w.]+|[^\s;\w]", plain))


KNOWN: Final = {words_of(text): (least, run) for text, least, run in SCRIPTS}


def script_of(text: bytes) -> tuple[int, Script]:
    """What a script means; ReplyError for those that are not known."""
    found = KNOWN.get(words_of(text.decode("utf-8", "replace")))
    if found is None:
        raise ReplyError(OTHERS)
    return found


def _loaded(session: Session, text: bytes) -> tuple[int, Script]:
    found = script_of(text)
    if len(session.server.scripts) >= MOST_LOADED:
        session.server.scripts.clear()  # whoever is told NOSCRIPT loads it again
    session.server.scripts[hashlib.sha1(text).hexdigest().encode()] = found
    return found


def _run(session: Session, script: tuple[int, Script], args: list[bytes]) -> Any:
    n = integer(args[2])
    if n > len(args) - 3:
        raise ReplyError("ERR Number of keys can't be greater than number of args")
    if n < 0:
        raise ReplyError("ERR Number of keys can't be negative")
    least, run = script
    keys, rest = args[3 : 3 + n], args[3 + n :]
    if n < 1 or len(rest) < least:
        raise ReplyError(f"ERR the script takes a key and {least} arguments")
    return run(session, keys, rest)


@command("eval", -3, "write noscript movablekeys", group="scripting")
def eval_(session: Session, args: list[bytes]) -> Any:
    """Run a script, if it is one of those of locks."""
    return _run(session, _loaded(session, args[1]), args)


@command("evalsha", -3, "write noscript movablekeys", group="scripting")
def evalsha(session: Session, args: list[bytes]) -> Any:
    """Run a script that was loaded."""
    script = session.server.scripts.get(args[1].lower())
    if script is None:
        raise ReplyError("NOSCRIPT No matching script. Please use EVAL.")
    return _run(session, script, args)


@command("script", -2, "noscript", group="scripting")
def script(session: Session, args: list[bytes]) -> Any:
    """About scripts."""
    return subcommand(session, args)


@command("script|load", 3, "noscript", group="scripting")
def script_load(session: Session, args: list[bytes]) -> Any:
    """Load a script, if it is one of those of locks."""
    _loaded(session, args[2])
    return hashlib.sha1(args[2]).hexdigest().encode()


@command("script|exists", -3, "noscript", group="scripting")
def script_exists(session: Session, args: list[bytes]) -> Any:
    """Whether scripts were loaded."""
    return [int(name.lower() in session.server.scripts) for name in args[2:]]


@command("script|flush", -2, "noscript", group="scripting")
def script_flush(session: Session, args: list[bytes]) -> Any:
    """Forget what was loaded."""
    if len(args) > 3 or (len(args) == 3 and args[2].upper() not in (b"SYNC", b"ASYNC")):
        raise ReplyError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    session.server.scripts.clear()
    return "OK"

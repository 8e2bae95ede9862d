"""The table of commands: who runs each, how many arguments it takes, and what COMMAND says of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from tilekv.expiry import LAST, NEVER
from tilekv.kvcore.serve.resp import ReplyError

Run = Callable[[Any, list[bytes]], Any]  # of a Session and a command's words, its name first
Entered = TypeVar("Entered", bound=Run)

SYNTAX: Final = "ERR syntax error"
NOT_INTEGER: Final = "ERR value is not an integer or out of range"
NOT_FLOAT: Final = "ERR value is not a valid float"
LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1


class Later(Exception):
    """What a command raises whose work takes long: it is done in a thread, and gives the reply."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work


class Command(NamedTuple):
    """A command.

    Attributes
    ----------
    name : str
        In small letters; a subcommand's is `container|name`.
    arity : int
        Arguments with the name; at least as many as its negative.
    flags : frozenset of str
    first, last, step : int
        Which arguments are keys.
    group : str
    summary : str
    """

    name: str
    arity: int
    flags: frozenset[str]
    first: int
    last: int
    step: int
    group: str
    summary: str
    run: Run

    @property
    def writes(self) -> bool:
        """Whether it may change the store."""
        return "write" in self.flags

    def takes(self, n: int) -> bool:
        """Whether it takes so many arguments, its name included."""
        return n == self.arity if self.arity >= 0 else n >= -self.arity


COMMANDS: Final[dict[bytes, Command]] = {}
# By container and name: CLIENT ID is (b"CLIENT", b"ID").
SUBCOMMANDS: Final[dict[tuple[bytes, bytes], Command]] = {}
CONTAINERS: Final[set[bytes]] = set()


def command(
    name: str,
    arity: int,
    flags: str = "",
    keys: tuple[int, int, int] = (0, 0, 0),
    group: str = "server",
) -> Callable[[Entered], Entered]:
    """Enter a function into the table; the first line of its docstring says what it does."""

    def enter(run: Entered) -> Entered:
        summary = (run.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        entry = Command(name, arity, frozenset(flags.split()), *keys, group, summary, run)
        container, bar, rest = name.upper().encode().partition(b"|")
        if bar:
            SUBCOMMANDS[container, rest] = entry
            CONTAINERS.add(container)
        else:
            COMMANDS[container] = entry
        return run

    return enter


def subcommand(session: Any, args: list[bytes]) -> Any:
    """Run what args[1] names of the container args[0]."""
    return chosen(args[0].upper(), args).run(session, args)


def chosen(container: bytes, args: list[bytes]) -> Command:
    """What args[1] names of a container; ReplyError when it is nothing, or takes other arguments."""
    name = args[1].upper()
    entry = SUBCOMMANDS.get((container, name))
    if entry is None:
        text = args[1].decode("utf-8", "replace")[:128]
        raise ReplyError(f"ERR unknown subcommand '{text}'. Try {container.decode()} HELP.")
    if not entry.takes(len(args)):
        raise ReplyError(f"ERR wrong number of arguments for '{entry.name}' command")
    return entry


# --- arguments ---


def integer(text: bytes, message: str = NOT_INTEGER, least: int = LEAST, most: int = MOST) -> int:
    """A whole number, as Redis reads them."""
    digits = text[1:] if text[:1] == b"-" else text
    plain = digits.isdigit() and digits.isascii() and len(digits) < 20
    if not plain or (digits[:1] == b"0" and text != b"0"):
        raise ReplyError(message)
    number = int(text)
    if not least <= number <= most:
        raise ReplyError(message)
    return number


def long_double(text: bytes) -> np.longdouble:
    """A number as Redis reads it, by C's strtold into a long double: NaN, what is too large or too near to 0 are none."""
    try:
        if not text or text != text.strip() or b"\0" in text:
            raise ValueError
        with warnings.catch_warnings():
            # NumPy only warns of an overflow.
            warnings.simplefilter("error", RuntimeWarning)
            number = np.longdouble(text.decode())
    except (ValueError, RuntimeWarning):
        raise ReplyError(NOT_FLOAT) from None
    if number != number or (not number and re.search(rb"[1-9]", re.split(b"[eEpP]", text)[0])):
        raise ReplyError(NOT_FLOAT)
    return number


UNITS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}


def moment_of(unit: bytes, text: bytes, now: int, name: str) -> int:
    """The moment that an option of SET and its kin means: it must lie behind 1970, as theirs do."""
    factor, relative = UNITS[unit]
    number = integer(text)
    invalid = f"ERR invalid expire time in '{name}' command"
    if number <= 0 or number > MOST // factor:
        raise ReplyError(invalid)
    moment = number * factor + (now if relative else 0)
    if moment > MOST:
        raise ReplyError(invalid)
    return min(moment, LAST)


def lasting(moment: int) -> bool:
    """Whether it never comes."""
    return moment == NEVER

"""The options of a server, on the command line and in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final

from tilekv.errors import InvalidValueError, shown

LEVELS: Final = ("debug", "verbose", "notice", "warning")
FSYNCS: Final = ("everysec", "always", "no")
_UNITS: Final = {
    "": 1,
    "k": 1000,
    "kb": 1 << 10,
    "m": 10**6,
    "mb": 1 << 20,
    "g": 10**9,
    "gb": 1 << 30,
}
TLS: Final = """TLS is for a proxy before this server, such as stunnel; in its configuration:
    [tilekv]
    accept = 6380
    connect = 127.0.0.1:6379
    cert = server.pem
clients then connect to rediss://HOST:6380"""


@dataclass
class Options:
    """How a store is served.

    Attributes
    ----------
    store : str
    port : int
        0: no TCP.
    bind : tuple of str
        Addresses. Others than those of this machine take a password.
    unixsocket : str
        A path; empty: none.
    password : str or None
        Of whoever connects.
    databases : int
        How many SELECT knows: each is a store, STORE, STORE.db1, ..., made at its first write.
    appendfsync : str
        everysec: what was written is flushed within a second; always: before it is answered; no: by size and time.
    readonly : bool
        A mirror of what others write.
    history : str
        For how many seconds merges leave what they have superseded; "all", or "store" for what the store says.
    max_bytes : int
        Of each store on disk: with more, what would expire next is deleted; 0: no bound.
    max_value : int
        Bytes of one value.
    max_clients : int
    max_unread : int
        Bytes that wait for a client that listens and does not read.
    query_memory : int
        Bytes of all that has come and is not answered.
    reply_memory : int
        Bytes that are answered and not read, of all clients together, beyond which commands wait.
    buffer_bytes, cache_bytes : int
        As of `kv.buffer_bytes` and `kv.cache_bytes`.
    timeout : int
        Seconds after which a client that asks nothing is closed; 0: never.
    loglevel : str
    slowlog_slower_than : int
        Microseconds from which on a command is kept in SLOWLOG; -1: none is.
    slowlog_max_len : int
    """

    store: str = ""
    port: int = 6379
    bind: tuple[str, ...] = ("127.0.0.1", "::1")
    unixsocket: str = ""
    password: str | None = field(default=None, repr=False)
    databases: int = 16
    appendfsync: str = "everysec"
    readonly: bool = False
    history: str = "60"
    max_bytes: int = 0
    max_value: int = 512 << 20
    max_clients: int = 1000
    max_unread: int = 32 << 20
    query_memory: int = 1 << 30
    reply_memory: int = 128 << 20
    buffer_bytes: int = 64 << 20
    cache_bytes: int = 256 << 20
    timeout: int = 0
    loglevel: str = "notice"
    slowlog_slower_than: int = 10_000
    slowlog_max_len: int = 128

    def set(self, name: str, text: str) -> None:
        """Set an option from its text, by its name on the command line; InvalidValueError for what is none."""
        attribute = name.replace("-", "_")
        if name in ("tls-port", "tls-cert-file", "tls-cluster"):
            raise InvalidValueError(TLS)
        known = {one.name: one for one in fields(self) if one.name not in ("store", "password")}
        if attribute not in known:
            raise InvalidValueError(f"there is no option {name}: see python -m tilekv serve --help")
        self._assign(attribute, text)

    def _assign(self, name: str, text: str) -> None:
        now = getattr(self, name)
        value: Any = text
        if isinstance(now, bool):
            if text not in ("yes", "no"):
                raise InvalidValueError(f"{name} is yes or no, not {shown(text)}")
            value = text == "yes"
        elif isinstance(now, int):
            value = size_of(text, name)
        elif isinstance(now, tuple):
            value = tuple(text.split())
        setattr(self, name, value)

    def check(self) -> None:
        """InvalidValueError when they do not fit together."""
        if self.appendfsync not in FSYNCS:
            raise InvalidValueError(f"appendfsync is one of {', '.join(FSYNCS)}")
        if self.loglevel not in LEVELS:
            raise InvalidValueError(f"loglevel is one of {', '.join(LEVELS)}")
        if self.history not in ("all", "store") and not self.history.isdigit():
            raise InvalidValueError("history is seconds, all, or store")
        if not 1 <= self.databases <= 1000:
            raise InvalidValueError("databases are 1 to 1000")
        if not 0 <= self.port < 65536:
            raise InvalidValueError("a port is 0 to 65535")
        if not self.port and not self.unixsocket:
            raise InvalidValueError("nobody could connect: give a port or a unixsocket")
        far = [address for address in self.bind if not is_local(address)]
        if far and self.port and not self.password:
            raise InvalidValueError(
                f"who listens on {far[0]} asks for a password: give --password-file, or TILEKV_PASSWORD in the environment"
            )


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address."""
    return address in ("localhost", "::1") or address.startswith("127.")


def size_of(text: str, name: str) -> int:
    """A whole number, or one of bytes with a unit as Redis has them: 64mb, 1gb."""
    found = re.fullmatch(r"(-?\d+)([kmg]b?)?", text.lower())
    if found is None:
        raise InvalidValueError(f"{name.replace('_', '-')} is a whole number, not {shown(text)}")
    return int(found[1]) * _UNITS[found[2] or ""]


def lines_of(text: str) -> Iterator[tuple[str, str]]:
    """The options of a file: a name and its value a line, # before what is none."""
    for number, line in enumerate(text.splitlines(), 1):
        plain = line.strip()
        if not plain or plain.startswith("#"):
            continue
        name, _, value = plain.partition(" ")
        if not value.strip():
            raise InvalidValueError(f"line {number} has a name and no value: {shown(plain)}")
        yield name, value.strip().strip('"')

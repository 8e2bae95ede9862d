"""Moving in from Redis, and back: what `import redis://...` and `export ... redis://...` do."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from tilekv.cli.options import Opening
from tilekv.cli.text import counted
from tilekv.errors import InvalidValueError, TileKVError
from tilekv.expiry import NEVER, put_expiring
from tilekv.serve.database import key_of, shown_key
from tilekv.serve.options import TLS
from tilekv.store import Store

SCHEMES: Final = ("redis", "rediss", "unix")
PASSWORD: Final = "TILEKV_PASSWORD"
KEYS_AT_ONCE: Final = 1000
BYTES_AT_ONCE: Final = 8 << 20  # of requests that are sent before replies are read
PLACES: Final = 1 << 16  # bytes that are read at a time
WAIT_S: Final = 60.0


def is_redis(place: str) -> bool:
    """Whether a place is a server, and no file."""
    return place.partition("://")[0] in SCHEMES and "://" in place


class Address(NamedTuple):
    """Where a server is, and what it asks for."""

    host: str  # empty: a path
    port: int
    path: str
    database: int
    user: str
    password: str


def address_of(url: str) -> Address:
    """redis://[[user]:password@]host[:port][/db], or unix://path[?db=n]; InvalidValueError for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
        words = parts.query.removeprefix("db=") if parts.scheme == "unix" else parts.path.strip("/")
        database = int(words or 0)
    except ValueError:
        raise InvalidValueError("a server is redis://host:port/db") from None
    if parts.scheme == "rediss":
        raise InvalidValueError(f"tilekv speaks no TLS. {TLS}")
    password = unquote(parts.password or "") or os.environ.get(PASSWORD, "")
    if parts.scheme == "unix":
        return Address("", 0, parts.netloc + parts.path, database, "", password)
    return Address(
        parts.hostname or "localhost", port, "", database, parts.username or "", password
    )


class RedisConnection:
    """A connection to a server: requests are sent together, and their replies read in turn."""

    def __init__(self, address: Address) -> None:
        if address.host:
            self._socket = socket.create_connection((address.host, address.port), WAIT_S)
        else:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(WAIT_S)
            self._socket.connect(address.path)
        self._file = self._socket.makefile("rb", PLACES)
        if address.password:
            user = [address.user.encode()] if address.user else []
            self.ask([[b"AUTH", *user, address.password.encode()]])
        if address.database:
            self.ask([[b"SELECT", b"%d" % address.database]])

    def close(self) -> None:
        """End it."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, requests: Sequence[Sequence[bytes]], checked: bool = True) -> list[Any]:
        """The replies to requests; an error is one of them, or raised when they are checked."""
        replies: list[Any] = []
        size, first = 0, 0
        for end, request in enumerate(requests, 1):
            size += sum(map(len, request))
            if size < BYTES_AT_ONCE and end < len(requests) and end - first < KEYS_AT_ONCE:
                continue
            data = b"".join(map(_request, requests[first:end]))
            self._socket.sendall(data)
            replies += [self._reply() for _ in range(first, end)]
            size, first = 0, end
        wrong = [reply for reply in replies if isinstance(reply, OSError)]
        if wrong and checked:
            raise wrong[0]
        return replies

    def _reply(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        mark, rest = line[:1], line[1:-2]
        if mark == b"$":
            size = int(rest)
            return None if size < 0 else self._file.read(size + 2)[:size]
        if mark == b"*":
            return [self._reply() for _ in range(max(int(rest), 0))]
        if mark == b":":
            return int(rest)
        if mark == b"-":
            return OSError(f"the server says: {rest.decode('utf-8', 'replace')}")
        return rest


def _request(words: Sequence[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)


def import_redis(url: str, uri: str, shown: bool, opening: Opening) -> int:
    """Store every string of a database of Redis under its key, with the moment at which it expires.

    Returns
    -------
    int
        The exit code: 1 when keys of other types were left out.
    """
    with (
        RedisConnection(address_of(url)) as server,
        opening.to_write(uri, expires=True) as db,
    ):
        if len(db.schema.attrs) > 1 or db.schema.attrs[0].type_name != "bytes":
            raise InvalidValueError(f"{uri} is no store of one attribute of bytes")
        (total,) = server.ask([[b"DBSIZE"]])
        done = stored = 0
        others: dict[str, int] = {}
        for keys in _scan(server):
            done += len(keys)
            found, missed = _strings(server, keys)
            for kind in missed:
                others[kind] = others.get(kind, 0) + 1
            put_expiring(db, [entry[:2] for entry in found], [entry[2] for entry in found])
            stored += len(found)
            if shown:
                print(f"\r{done:,} of {max(total, done):,} keys", end="", file=sys.stderr)
        if shown:
            print(file=sys.stderr)
        db.flush()
    print(f"stored {counted(stored, 'key')}")
    if others:
        left = ", ".join(f"{n:,} of type {kind}" for kind, n in sorted(others.items()))
        print(f"tilekv: left out, since a store holds strings: {left}", file=sys.stderr)
    return 1 if others else 0


def _scan(server: RedisConnection) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        ((cursor, keys),) = server.ask([[b"SCAN", cursor, b"COUNT", b"%d" % KEYS_AT_ONCE]])
        yield keys
        if cursor == b"0":
            return


def _strings(
    server: RedisConnection, keys: list[bytes]
) -> tuple[list[tuple[Any, bytes, int]], list[str]]:
    """Keys with their values and moments; and the types of those that are no strings."""
    asked = [request for key in keys for request in ([b"GET", key], [b"PTTL", key])]
    replies = server.ask(asked, checked=False)
    now = time.time_ns() // 1_000_000
    found: list[tuple[Any, bytes, int]] = []
    others = []
    for key, value, left in zip(keys, replies[::2], replies[1::2], strict=True):
        if isinstance(value, OSError):
            (kind,) = server.ask([[b"TYPE", key]])
            others.append(kind.decode())
        elif value is not None and isinstance(left, int) and left != -2:
            found.append((key_of(key), value, NEVER if left < 0 else now + left))
    return found, others


def export_redis(uri: str, url: str, attr: str | None, shown: bool, opening: Opening) -> int:
    """Set every entry of a store, of a bytes or text attribute, in a database of Redis, with the moment at which it expires.

    Returns
    -------
    int
        The exit code: 1 when there were keys that are neither text nor bytes.
    """
    with RedisConnection(address_of(url)) as server, opening.to_read(uri) as db:
        names = [one.name for one in db.schema.attrs]
        name = attr if attr is not None else names[0]
        if attr is None and len(names) > 1:
            raise InvalidValueError(f"choose one attribute with --attr: {', '.join(names)}")
        if name not in names:
            raise InvalidValueError(f"there is no attribute {name}: {', '.join(names)}")
        if next(one for one in db.schema.attrs if one.name == name).type_name not in (
            "bytes",
            "str",
        ):
            raise InvalidValueError(f"attribute {name} is neither bytes nor text")
        total, done, left = len(db), 0, 0
        requests: list[list[bytes]] = []
        for key, value in db.items():
            done += 1
            request = _set(db, key, value if len(names) == 1 else value[name])
            if request is None:
                left += 1
                continue
            requests.append(request)
            if len(requests) == KEYS_AT_ONCE:
                server.ask(requests)
                requests = []
                if shown:
                    print(f"\r{done:,} of {max(total, done):,} keys", end="", file=sys.stderr)
        server.ask(requests)
        if shown:
            print(file=sys.stderr)
    print(f"set {counted(done - left, 'key')}")
    if left:
        print(
            f"tilekv: left out {counted(left, 'key')}: neither text nor bytes that are no text, or null",
            file=sys.stderr,
        )
    return 1 if left else 0


def _set(db: Store, key: Any, value: Any) -> list[bytes] | None:
    """The request that sets it; None for what no client of Redis can name."""
    word = shown_key(key)
    if word is None or value is None:
        return None
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    moment = NEVER
    with suppress(TileKVError):  # it has expired since
        moment = db._expires(key)
    return [b"SET", word, data, *([] if moment == NEVER else [b"PXAT", b"%d" % moment])]

"""Redis in a few lines: what strings, counters, transactions and WATCH do, for a server to be compared with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

Words = list[bytes]


@dataclass
class Client:
    """What the model knows of a client."""

    queue: list[Words] | None = None
    watched: set[bytes] = field(default_factory=set)
    broken: bool = False


class Model:
    """A database, and its clients."""

    def __repr__(self) -> str:
        return repr((sorted(self.data.items()), self.clients))

    def __init__(self, clients: int) -> None:
        self.data: dict[bytes, bytes] = {}
        self.clients = [Client() for _ in range(clients)]

    def run(self, number: int, words: Words) -> Any:
        """One command of a client; its reply: bytes, int, list, None, or a str for a status or an error."""
        client = self.clients[number]
        name = words[0]
        if client.queue is not None and name not in (b"EXEC", b"DISCARD"):
            client.queue.append(words)
            return "QUEUED"
        if name == b"MULTI":
            client.queue = []
            return "OK"
        if name == b"WATCH":
            client.watched.update(words[1:])
            return "OK"
        if name == b"EXEC":
            queue, client.queue = client.queue, None
            broken = client.broken
            client.watched, client.broken = set(), False
            if queue is None:
                return "ERR EXEC without MULTI"
            return None if broken else [self._do(each) for each in queue]
        return self._do(words)

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.data.pop(key, None)
        else:
            self.data[key] = value
        for client in self.clients:
            client.broken |= key in client.watched

    def _do(self, words: Words) -> Any:
        name, args = words[0], words[1:]
        if name == b"GET":
            return self.data.get(args[0])
        if name == b"MGET":
            return [self.data.get(key) for key in args]
        if name == b"EXISTS":
            return sum(key in self.data for key in args)
        if name == b"DEL":
            gone = [key for key in dict.fromkeys(args) if key in self.data]
            for key in gone:
                self._put(key, None)
            return len(gone)
        if name == b"INCR":
            try:
                number = int(self.data.get(args[0], b"0")) + 1
            except ValueError:
                return "ERR value is not an integer or out of range"
            self._put(args[0], b"%d" % number)
            return number
        if name in (b"SET", b"MSET") or not any(key in self.data for key in args[::2]):
            for key, value in zip(args[::2], args[1::2], strict=True):
                self._put(key, value)
            return 1 if name == b"MSETNX" else "OK"
        return 0

    def orders(
        self, asked: list[tuple[int, list[Words]]]
    ) -> Iterator[tuple[Model, dict[int, list[Any]]]]:
        """What clients may be answered that ask at one moment: whole clients one after another, in every order."""
        for order in permutations(asked):
            model = copy.deepcopy(self)
            yield (
                model,
                {
                    number: [model.run(number, words) for words in commands]
                    for number, commands in order
                },
            )


def encoded(words: Words) -> bytes:
    """A request."""
    parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), parts)


class Replies:
    """Reads replies of RESP2 and RESP3 from bytes as they come."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are whole now."""
        self.data += data
        found = []
        while True:
            try:
                reply, at = _reply(self.data, 0)
            except IndexError:
                return found
            found.append(reply)
            self.data = self.data[at:]


def _reply(data: bytes, at: int) -> tuple[Any, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise IndexError
    mark, rest, at = data[at : at + 1], data[at + 1 : end], end + 2
    if mark in b"$=":
        n = int(rest)
        if n < 0:
            return None, at
        if len(data) < at + n + 2:
            raise IndexError
        return data[at : at + n], at + n + 2
    if mark in b"*>%~":
        n = int(rest) * (2 if mark == b"%" else 1)
        if n < 0:
            return None, at
        items = []
        for _ in range(n):
            item, at = _reply(data, at)
            items.append(item)
        if mark == b"%":
            return dict(zip(items[::2], items[1::2], strict=True)), at
        return items, at
    if mark == b":":
        return int(rest), at
    if mark == b"_":
        return None, at
    if mark in b"+-":
        return rest.decode(), at
    raise AssertionError(f"no reply: {data[:40]!r}")

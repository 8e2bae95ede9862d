"""A server of this process, on a socket in a folder, and a client that speaks to it in bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from redis_model import Replies, encoded
from tilekv.kvcore.serve.batch import Connection
from tilekv.serve.options import Options
from tilekv.serve.server import Server
from tilekv.serve.session import Session


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Server]:
    """A server in a thread, of the store `folder/store.kv` unless another is given."""
    given = {
        "store": str(folder / "store.kv"),
        "unixsocket": str(folder / "s"),
        "port": 0,
        **options,
    }
    server = Server(Options(**given))
    ready = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            server.run(ready.set)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


class Client:
    """A client of a server on a socket."""

    def __init__(self, place: str | socket.socket) -> None:
        if isinstance(place, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(place)
        else:
            self.socket = place
        self.socket.settimeout(20)
        self._replies = Replies()
        self._read: list[Any] = []

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def read(self) -> Any:
        """The next reply; EOFError when the server has closed."""
        while not self._read:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._read += self._replies.feed(data)
        return self._read.pop(0)

    def __call__(self, *words: Any) -> Any:
        """A command, and its reply."""
        self.send(
            encoded([word if isinstance(word, bytes) else str(word).encode() for word in words])
        )
        return self.read()

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def over_tcp(port: int) -> Client:
    """A client of a server on a port of this machine."""
    return Client(socket.create_connection(("127.0.0.1", port)))


class Stepped:
    """A server that runs only when it is told to, and clients whose bytes come when they are sent."""

    def __init__(self, folder: Path, clients: int, **options: Any) -> None:
        given = {
            "store": str(folder / "store.kv"),
            "unixsocket": str(folder / "s"),
            "port": 0,
            **options,
        }
        self.server = Server(Options(**given))
        self.ends: list[socket.socket] = []
        self.replies: list[Replies] = []
        for _ in range(clients):
            self.connect()

    def connect(self) -> int:
        """One client more; its number."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = Connection(theirs)
        connection.session = Session(self.server, connection, len(self.ends) + 1, "test:0")
        self.server.loop.attach(connection)
        self.ends.append(ours)
        self.replies.append(Replies())
        return len(self.ends) - 1

    def step(self) -> list[list[Any]]:
        """Have the server answer what has come; what each client has got."""
        self.server.loop.step(0)
        got: list[list[Any]] = []
        for end, replies in zip(self.ends, self.replies, strict=True):
            data = b""
            try:
                while part := end.recv(1 << 20):
                    data += part
            except (BlockingIOError, ConnectionError):
                pass
            got.append(replies.feed(data))
        return got

    def close(self) -> None:
        """End."""
        for end in self.ends:
            end.close()
        self.server.loop.step(0)
        self.server._close()

"""The server: its sockets, its clients, its databases, and what they share."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from tilekv.errors import InvalidValueError, TileKVError
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.serve.batch import Connection, Keyspace
from tilekv.kvcore.serve.loop import Loop
from tilekv.kvcore.serve.resp import ReplyError, encode
from tilekv.serve import admin, clients, hashes, keys, scripts, strings
from tilekv.serve.channels import Channels
from tilekv.serve.counting import Stopped
from tilekv.serve.database import Database, open_database
from tilekv.serve.options import Options
from tilekv.serve.session import Session
from tilekv.serve.table import COMMANDS
from tilekv.serve.upkeep import Upkeep
from tilekv.storage import open_storage
from tilekv.storage.local import LocalStorage
from tilekv.storage.serving import ServerLock, allow_files, bind_private, remove_socket

# Their commands are in the table once they are imported.
TABLES: Final = (admin, clients, hashes, keys, scripts, strings)
SWITCH_S: Final = 0.0005  # after which a thread behind lets the loop go on
BACKLOG: Final = 511
SHOWN_ARGUMENTS: Final = 32  # of a command in SLOWLOG
SHOWN_BYTES: Final = 128
UNREAD_S: Final = (
    1.0  # for which a client may read nothing while there is no room for others' replies
)
LATE_THREADS: Final = 2
LEVELS: Final = {
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
    "notice": logging.INFO,
    "warning": logging.WARNING,
}

logger = logging.getLogger("tilekv.serve")


class Server:
    """A server of one store and its databases. `run` serves until `stop`, or a signal."""

    def __init__(self, options: Options) -> None:
        """InvalidValueError, StoreBusyError and what opening the store raises."""
        options.check()
        if not hasattr(select, "epoll"):
            raise InvalidValueError("serve needs epoll, which Linux has alone")
        storage = open_storage(options.store)
        if not options.readonly and not isinstance(storage, LocalStorage):
            raise InvalidValueError(
                "a server writes to a store in a local folder: elsewhere it serves with --readonly"
            )
        self.options = options
        self.password = None if options.password is None else options.password.encode()
        self.begun = time.time()
        self.run_id = uuid.uuid4().hex
        self.channels = Channels()
        self.scripts: dict[bytes, Any] = {}
        self.slow_commands: deque[list[Any]] = deque(maxlen=max(options.slowlog_max_len, 0))
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.accepted = 0
        self.rejected = 0
        self.rate = 0
        self.cleared: tuple[Database, ...] = ()  # whose keys are being deleted
        self._slow_id = 0
        self._next_id = 0
        self._counted = (time.monotonic(), 0)
        self._databases: dict[int, Database] = {}
        self._locks: list[ServerLock] = []
        self._counting: list[threading.Thread] = []
        self._listeners: dict[int, socket.socket] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._late = ThreadPoolExecutor(LATE_THREADS, "tilekv serve late")
        self._inbox, self._outbox = socket.socketpair()
        self._inbox.setblocking(False)
        self._outbox.setblocking(False)
        self._epoll = select.epoll()
        self.loop = Loop(self, self._epoll.fileno())
        self.loop.synced = options.appendfsync == "always"
        self.loop.bulk = options.max_value
        self.loop.most_received = options.query_memory
        self.loop.batch.most_pending = options.reply_memory
        self.loop.batch.slower_than = options.slowlog_slower_than
        self.upkeep = Upkeep(self)
        self.local_address = "127.0.0.1:0"
        try:
            self.database(0)
            self._listen()
        except BaseException:
            self._close()
            raise

    # --- databases ---

    def uri_of(self, number: int) -> str:
        """Where a database is: beside the store."""
        base = self.options.store.rstrip("/")
        return base if number == 0 else f"{base}.db{number}"

    def opened(self, number: int) -> Database | None:
        """A database that is open."""
        return self._databases.get(number)

    def database(self, number: int) -> Database:
        """A database, which is opened, and made where there is none."""
        if number not in self._databases:
            config: dict[str, object] = {
                "kv.upkeep": "off",
                "kv.buffer_bytes": self.options.buffer_bytes,
                "kv.cache_bytes": self.options.cache_bytes,
            }
            uri = self.uri_of(number)
            database = open_database(number, uri, config, self.options.readonly)
            try:
                if not self.options.readonly:
                    storage = database.store._engine.storage
                    if not isinstance(storage, LocalStorage):
                        raise InvalidValueError(f"{uri} is not a local folder")
                    self._locks.append(ServerLock(storage))
                    self.upkeep.set_history(database)
                # Of millions of keys it takes a tenth of a second, for which the loop would answer nobody.
                database.store._engine.opener.index_behind = self._index_behind
                database.store._open_snapshot().behind = self._index_behind
                if not database.is_small():
                    self.count_behind(database)
            except BaseException:
                database.store.close(discard=True)
                raise
            self._databases = {**self._databases, number: database}
        return self._databases[number]

    def all_databases(self) -> list[Database]:
        """Those that are open."""
        return list(self._databases.values())

    def count_behind(self, database: Database) -> None:
        """Have a thread count the keys of a database, unless one does."""
        if database.counter.busy:
            return

        def run() -> None:
            try:
                database.counter.begin()
            except Stopped:
                pass
            except (TileKVError, OSError, MemoryError) as error:  # whoever asks meets it again
                logger.warning("%s: its keys are not counted: %s", database.store.uri, error)

        thread = threading.Thread(target=run, name="tilekv serve count", daemon=True)
        self._counting = [each for each in self._counting if each.is_alive()] + [thread]
        thread.start()

    # --- what the loop calls ---

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | None:
        """Run a command."""
        session: Session = connection.session
        return session.execute(args)

    def writes(self, name: bytes) -> bool:
        """Whether a command may change the store."""
        entry = COMMANDS.get(name.upper())
        return entry is not None and (entry.writes or entry.name == "exec")

    def failed(self, error: BaseException, fault: bool = False) -> bytes:
        """The reply to a command that has met an error; `fault`: one of ours."""
        shown = error if fault else None
        logger.warning("a command has failed: %s: %s", type(error).__name__, error, exc_info=shown)
        if isinstance(error, MemoryError):
            return b"-OOM there is no memory for it\r\n"
        return encode(ReplyError(f"ERR {type(error).__name__}: {error}"), False)

    def touched(self, space: Keyspace, key: bytes) -> None:
        """A key was written."""
        if isinstance(space, Database):
            space.touched(key)

    def slow(self, connection: Connection, args: list[bytes], microseconds: int) -> None:
        """A command has taken long."""
        session: Session = connection.session
        shown = [
            arg
            if len(arg) <= SHOWN_BYTES
            else arg[:SHOWN_BYTES] + b"... (%d more bytes)" % (len(arg) - SHOWN_BYTES)
            for arg in args[:SHOWN_ARGUMENTS]
        ]
        if len(args) > SHOWN_ARGUMENTS:
            shown[-1] = b"... (%d more arguments)" % (len(args) - SHOWN_ARGUMENTS + 1)
        entry = [
            self._slow_id,
            int(time.time()),
            microseconds,
            shown,
            session.address.encode(),
            session.name,
        ]
        self._slow_id += 1
        self.slow_commands.appendleft(entry)

    def commit(self) -> bool:
        """Flush what was written, before it is answered; False when that has failed."""
        for database in self.all_databases():
            if database.store._unflushed():
                try:
                    self.upkeep.flush(database)
                except (TileKVError, OSError, MemoryError):
                    return False
        return True

    def readable(self, fd: int) -> None:
        """Somebody connects, or a thread has something for the loop."""
        if fd == self._inbox.fileno():
            with suppress(BlockingIOError):
                while self._inbox.recv(4096):
                    pass
            while self._calls:
                self._calls.popleft()()
        elif fd in self._listeners:
            self._accept(self._listeners[fd])

    def told(self, message: str) -> None:
        """What the loop has to say."""
        logger.warning("%s", message)

    def lost(self, connection: Connection) -> None:
        """A client has gone."""
        session: Session = connection.session
        session.gone()

    def tick(self) -> None:
        """Now and then."""
        self.unstall()
        self.loop.shed(UNREAD_S)
        now = time.monotonic()
        then, commands = self._counted
        if now - then >= 1:
            self.rate = round((self.loop.batch.commands - commands) / (now - then))
            self._counted = (now, self.loop.batch.commands)
            if self.options.timeout:
                idle = [
                    c
                    for c in self.loop.connections.values()
                    if now - c.active > self.options.timeout and not c.session.listens
                ]
                for connection in idle:
                    self.loop.close(connection)

    # --- what threads and sessions call ---

    def soon(self, call: Callable[[], object]) -> None:
        """Have the loop call something. From any thread."""
        self._calls.append(call)
        with suppress(BlockingIOError):
            self._outbox.send(b"x")

    def unstall(self) -> None:
        """See whether writes have to wait, and let go those that need not any more."""
        waiting = False
        for database in self.all_databases():
            database.stalled = database in self.cleared or self.upkeep.waits(database)
            waiting |= database.stalled
        if not waiting:
            self.loop.take_writes()

    def later(self, session: Session, work: Callable[[], Any]) -> None:
        """Do what takes long in a thread; what it gives is the reply."""

        def done(reply: Any) -> None:
            connection = session.connection
            connection.waiting = False
            text = reply if isinstance(reply, bytes) else session.encoded(reply)
            if text is not None:
                connection.write(text)
            self.loop.resume(connection)

        def run() -> None:
            try:
                reply = work()
                reply = session.encoded(reply)
                reply = b"" if reply is None else reply
            except ReplyError as error:
                reply = encode(error, False)
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                reply = self.failed(error)
            self.soon(lambda: done(reply))

        self._late.submit(run)

    def _index_behind(self, snapshot: Snapshot) -> None:
        with suppress(RuntimeError):  # the server ends
            self._late.submit(snapshot.make_index)

    def sessions(self) -> list[Session]:
        """All clients, the oldest first."""
        found = [connection.session for connection in self.loop.connections.values()]
        return sorted(found, key=lambda session: session.id)

    def kill(self, sessions: Iterable[Session], by: Session) -> None:
        """Close clients; whoever asks for it is answered first."""
        for session in sessions:
            if session is by:
                session.connection.closing = True
            else:
                self.loop.close(session.connection)

    def reset_counts(self) -> None:
        """CONFIG RESETSTAT."""
        self.calls.clear()
        self.seconds.clear()
        for database in self.all_databases():
            database.hits = database.misses = 0
        self.accepted = self.rejected = 0
        self.loop.batch.reset()
        self._counted = (time.monotonic(), 0)

    def log(self, level: str, message: str) -> None:
        """A line of the log."""
        logger.log(LEVELS[level], "%s", message)

    def now(self) -> float:
        """The clock that connections are timed by."""
        return time.monotonic()

    def time(self) -> float:
        """The clock on the wall."""
        return time.time()

    # --- sockets ---

    def _listen(self) -> None:
        options = self.options
        for address in options.bind if options.port else ():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, options.port))
            except OSError as error:
                listener.close()
                if address == "::1" and len(options.bind) > 1:
                    continue  # not every machine has it
                raise OSError(error.errno, error.strerror, f"{address}:{options.port}") from error
            self._watch(listener)
        if options.unixsocket:
            self._watch(bind_private(options.unixsocket))
        if options.port and options.bind:
            self.local_address = f"{options.bind[0]}:{options.port}"

    def _watch(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listeners[listener.fileno()] = listener
        self.loop.watch(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                client, address = listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                logger.warning("nobody can connect: %s", error)
                return
            self.accepted += 1
            client.setblocking(False)
            if len(self.loop.connections) >= self.options.max_clients:
                self.rejected += 1
                with suppress(OSError):
                    client.send(b"-ERR max number of clients reached\r\n")
                client.close()
                continue
            if listener.family == socket.AF_UNIX:
                shown = f"{self.options.unixsocket}:0"
            else:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                host = f"[{address[0]}]" if ":" in address[0] else address[0]
                shown = f"{host}:{address[1]}"
            connection = Connection(client)
            self._next_id += 1
            connection.session = Session(self, connection, self._next_id, shown)
            self.loop.attach(connection)

    # --- its life ---

    def stop(self) -> None:
        """Have `run` end, from any thread or a signal's handler."""
        self.loop.stopped = True
        self.soon(lambda: None)

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until `stop`: then flush, and let the store go. Raises what the last flush has met."""
        switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        allow_files(self.options.max_clients + 512)
        self.loop.watch(self._inbox.fileno())
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, frame: self.stop())
        self.upkeep.start()
        try:
            logger.info("serving %s on %s", self.options.store, self.local_address)
            notify("READY=1")
            ready()
            self.loop.run()
            notify("STOPPING=1")
        finally:
            sys.setswitchinterval(switch)
            self._close()

    def _close(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        if self._listeners and self.options.unixsocket:
            remove_socket(self.options.unixsocket)
        self._listeners = {}
        for connection in list(self.loop.connections.values()):
            self.loop.close(connection)
        for database in self.all_databases():
            database.counter.stop()
        for thread in self._counting:
            thread.join()
        self._late.shutdown()
        self.upkeep.stop()
        failure: BaseException | None = None
        for database in self.all_databases():
            try:
                database.store.close()
            except (TileKVError, OSError, MemoryError) as error:
                logger.error("%s: what was written last is lost: %s", database.store.uri, error)
                failure = error
                database.store.close(discard=True)
        for lock in self._locks:
            lock.release()
        self._databases = {}
        self._epoll.close()
        self._inbox.close()
        self._outbox.close()
        if failure is not None:
            raise failure


def notify(state: str) -> None:
    """Tell systemd, where it has asked for it."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(state.encode(), "\0" + place[1:] if place.startswith("@") else place)

"""What the server knows of one client: who it is, its database, its transaction, what it watches and what it listens to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from tilekv.errors import TileKVError
from tilekv.expiry import NEVER
from tilekv.kvcore.serve.batch import Connection
from tilekv.kvcore.serve.loop import Loop
from tilekv.kvcore.serve.resp import NO_ARRAY, Push, ReplyError, encode
from tilekv.serve.channels import Channels
from tilekv.serve.database import Database, Step, key_of
from tilekv.serve.options import Options
from tilekv.serve.table import (
    COMMANDS,
    CONTAINERS,
    SUBCOMMANDS,
    Command,
    Later,
    chosen,
    command,
    integer,
)
from tilekv.serve.upkeep import Upkeep

NO_ONE: Final = (b"AUTH", b"HELLO", b"QUIT", b"RESET")  # before the client has said who it is
IN_MULTI: Final = (b"EXEC", b"DISCARD", b"MULTI", b"WATCH", b"QUIT", b"RESET")
# What a client that listens may still ask, before RESP3.
LISTENING: Final = (
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"PSUBSCRIBE",
    b"PUNSUBSCRIBE",
    b"SSUBSCRIBE",
    b"SUNSUBSCRIBE",
    b"PING",
    b"QUIT",
    b"RESET",
)
PART: Final = 4096  # elements of a reply that are encoded at a time
MOST_QUEUED: Final = 64 << 20  # bytes of a transaction
# What a client may send before it has said who it is.
FEW: Final = (10, 16 << 10, 16 << 10)
MANY: Final = (1 << 20, 64 << 10)


class Host(Protocol):
    """What sessions and commands need of their server: a `Server`."""

    options: Options
    password: bytes | None
    begun: float
    run_id: str
    local_address: str
    loop: Loop
    upkeep: Upkeep
    channels: Channels
    scripts: dict[bytes, Any]
    slow_commands: deque[list[Any]]
    calls: dict[str, int]
    seconds: dict[str, float]
    cleared: tuple[Database, ...]
    accepted: int
    rejected: int
    rate: int

    def opened(self, number: int) -> Database | None:
        """A database that is open."""

    def database(self, number: int) -> Database:
        """A database, which is opened."""

    def all_databases(self) -> list[Database]:
        """Those that are open."""

    def count_behind(self, database: Database) -> None:
        """Have a thread count the keys of a database."""

    def sessions(self) -> list[Session]:
        """All clients."""

    def kill(self, sessions: Iterable[Session], by: Session) -> None:
        """Close clients."""

    def reset_counts(self) -> None:
        """Begin to count anew."""

    def failed(self, error: BaseException, fault: bool = False) -> bytes:
        """The reply to a command that has met an error."""

    def soon(self, call: Callable[[], object]) -> None:
        """Have the loop call something."""

    def later(self, session: Session, work: Callable[[], Any]) -> None:
        """Do something in a thread."""

    def unstall(self) -> None:
        """See whether writes have to wait."""

    def log(self, level: str, message: str) -> None:
        """A line of the log."""

    def now(self) -> float:
        """The clock that connections are timed by."""

    def time(self) -> float:
        """The clock on the wall."""


class Several(list[Any]):
    """Replies to one command, one after the other."""


class Session:
    """One client."""

    def __init__(self, server: Host, connection: Connection, number: int, address: str) -> None:
        self.server = server
        self.connection = connection
        self.id = number
        self.address = address
        self.begun = time.time()
        self.name = b""
        self.library = (b"", b"")
        self.last = "NULL"
        self.replies = "on"  # on, off, skip, skipping
        self.resp3 = False
        self.known = server.password is None
        self.queue: list[tuple[Command, list[bytes]]] | None = None
        self.queued_bytes = 0
        self.spoiled = False  # a command of the transaction was refused
        self.executing = False
        self.broken = False  # something that is watched has changed
        self.watching: dict[tuple[int, bytes], int] = {}
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.shards: dict[bytes, None] = {}
        self.number = 0
        self._steps: dict[int, Step] = {}
        self.update()

    # --- the database ---

    @property
    def database(self) -> Database:
        """The one that was selected."""
        return self.server.database(self.number)

    @property
    def step(self) -> Step:
        """What the command reads and writes of its database."""
        return self.step_of(self.number)

    def step_of(self, number: int) -> Step:
        """The same of another database."""
        if number not in self._steps:
            self._steps[number] = Step(self.server.database(number))
        return self._steps[number]

    def checked_number(self, text: bytes) -> int:
        """The number of a database."""
        number = integer(text)
        if not 0 <= number < self.server.options.databases:
            raise ReplyError("ERR DB index is out of range")
        return number

    def flush_step(self) -> None:
        """Write what the command, or the transaction, has changed so far: what follows changes the store itself."""
        for step in self._steps.values():
            if step.commit(self.server.upkeep.clear):
                self.server.loop.batch.note_write(self.connection)

    def check_size(self, n: int) -> None:
        """An error for a value that would be too long."""
        if n > self.server.options.max_value:
            raise ReplyError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")

    def part(self, key: bytes, start: int, stop: int) -> bytes:
        """Some bytes of a string."""
        step = self.step
        if step.pending:
            return (step.string(key) or b"")[start:stop]
        if not step.has(key):
            return b""
        return self.database.store.get_range(key_of(key), start, stop) or b""

    def clear(self, databases: Iterable[Database]) -> Any:
        """Delete every key of some databases."""
        large = []
        for database in databases:
            step = self.step_of(database.number)
            for key in list(database.watched):
                if step.has(key):
                    database.touched(key)
            if database.is_small() or self.executing:
                step.clear()
            else:
                large.append(database)
        if not large:
            return "OK"
        self.flush_step()
        # Until all is gone nothing is written to them.
        self.server.cleared += tuple(large)
        self.server.unstall()

        def done() -> None:
            self.server.cleared = tuple(d for d in self.server.cleared if d not in large)
            self.server.unstall()

        def work() -> str:
            try:
                for database in large:
                    self.server.upkeep.clear(database)
            finally:
                self.server.soon(done)
            return "OK"

        raise Later(work)

    # --- one command ---

    def update(self) -> None:
        """Tell the connection what its state means for the commands that need no Python."""
        connection = self.connection
        connection.resp3 = self.resp3
        database = self.server.opened(self.number)
        connection.keyspace = database
        connection.fast = (
            self.known
            and database is not None
            and database.strings
            and self.queue is None
            and self.replies == "on"
            and (self.resp3 or not self.listens)
        )
        options = self.server.options
        if self.known:
            connection.limit(MANY[0], options.max_value, MANY[1], True)
        else:
            connection.limit(*FEW, False)

    @property
    def listens(self) -> int:
        """How many channels and patterns it listens to."""
        return len(self.channels) + len(self.patterns) + len(self.shards)

    def execute(self, args: list[bytes]) -> bytes | None:
        """Run a command; its reply in bytes, None when there is none yet, or none at all."""
        try:
            reply = self._dispatch(args)
        except ReplyError as error:
            self._steps = {}
            reply = error
        except Later as later:
            self.connection.waiting = True
            self.server.later(self, later.work)
            self.update()
            return None
        except (TileKVError, OSError, MemoryError) as error:
            self._steps = {}
            self.update()
            return self.server.failed(error)
        except Exception as error:  # noqa: BLE001 - one command must not end the server
            self._steps = {}
            self.update()
            return self.server.failed(error, fault=True)
        self.update()
        return self.encoded(reply)

    def encoded(self, reply: Any) -> bytes | None:
        """A reply in bytes, unless the client wants none."""
        if self.replies != "on":
            if self.replies == "skip":
                self.replies = "skipping"
                return None
            if self.replies == "skipping":
                self.replies = "on"
                self.update()
            return None
        if isinstance(reply, Several):
            return b"".join(encode(each, self.resp3) for each in reply)
        if type(reply) is list and len(reply) > PART:
            # A thread may do it: between two parts the loop goes on.
            parts = [
                encode(reply[first : first + PART], self.resp3).partition(b"\r\n")[2]
                for first in range(0, len(reply), PART)
            ]
            return b"".join([b"*%d\r\n" % len(reply), *parts])
        return encode(reply, self.resp3)

    def _dispatch(self, args: list[bytes]) -> Any:
        name = args[0].upper()
        entry = COMMANDS.get(name)
        try:
            entry = self._checked(entry, name, args)
        except ReplyError:
            if self.queue is not None:
                self.spoiled = True
            raise
        if self.queue is not None and name not in IN_MULTI:
            self.queued_bytes += sum(map(len, args)) + 64 * len(args)
            if self.queued_bytes > MOST_QUEUED:
                self.spoiled = True
                raise ReplyError(f"ERR a transaction has at most {MOST_QUEUED >> 20} MB")
            self.queue.append((entry, args))
            return "QUEUED"
        self.last = entry.name
        begun = time.perf_counter()
        try:
            reply = entry.run(self, args)
            self._commit()
        finally:
            spent = self.server.seconds
            spent[entry.name] = spent.get(entry.name, 0.0) + time.perf_counter() - begun
        return reply

    def _commit(self) -> None:
        steps, self._steps = self._steps, {}
        for step in steps.values():
            if step.commit(self.server.upkeep.clear):
                self.server.loop.batch.note_write(self.connection)

    def _checked(self, entry: Command | None, name: bytes, args: list[bytes]) -> Command:
        """The command, if the client may have it now."""
        if entry is None:
            shown = args[0].decode("utf-8", "backslashreplace")[:128]
            rest = "".join(f"'{a.decode('utf-8', 'backslashreplace')[:128]}' " for a in args[1:4])
            raise ReplyError(f"ERR unknown command '{shown}', with args beginning with: {rest}")
        if not entry.takes(len(args)):
            raise ReplyError(f"ERR wrong number of arguments for '{entry.name}' command")
        if len(args) > 1 and name in CONTAINERS:
            chosen(name, args)
        if not self.known and name not in NO_ONE:
            raise ReplyError("NOAUTH Authentication required.")
        self.server.calls[entry.name] = self.server.calls.get(entry.name, 0) + 1
        if self.queue is not None and "no_multi" in entry.flags:
            raise ReplyError("ERR Command not allowed inside a transaction")
        if self.listens and not self.resp3 and name not in LISTENING:
            raise ReplyError(
                f"ERR Can't execute '{entry.name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
                "allowed in this context"
            )
        if entry.writes:
            self._check_writable()
        return entry

    def _check_writable(self) -> None:
        if self.server.options.readonly:
            raise ReplyError("READONLY You can't write against a read only replica.")
        refusal = self.database.refusal
        if refusal is not None:
            raise ReplyError(refusal.decode())

    # --- transactions ---

    def begin(self) -> Any:
        """MULTI."""
        if self.queue is not None:
            raise ReplyError("ERR MULTI calls can not be nested")
        self.queue = []
        self.queued_bytes = 0
        self.spoiled = False
        return "OK"

    def end(self) -> list[tuple[Command, list[bytes]]]:
        """The transaction is over."""
        queue, self.queue = self.queue or [], None
        self.queued_bytes = 0
        return queue

    def watch(self, keys: list[bytes]) -> Any:
        """WATCH: EXEC does nothing once one of the keys was written."""
        if self.queue is not None:
            raise ReplyError("ERR WATCH inside MULTI is not allowed")
        for key in keys:
            if (self.number, key) not in self.watching:
                self.watching[self.number, key] = self.step.moment(key) or NEVER
                self.database.watched.setdefault(key, set()).add(self)
        return "OK"

    def unwatch(self) -> None:
        """Watch nothing any more."""
        for number, key in self.watching:
            database = self.server.opened(number)
            if database is not None and key in database.watched:
                database.watched[key].discard(self)
                if not database.watched[key]:
                    del database.watched[key]
        self.watching.clear()
        self.broken = False

    def run_transaction(self) -> Any:
        """EXEC: all that was queued, and its writes in one step."""
        if self.queue is None:
            raise ReplyError("ERR EXEC without MULTI")
        spoiled = self.spoiled
        queue = self.end()
        now = time.time_ns() // 1_000_000
        broken = self.broken or any(moment <= now for moment in self.watching.values())
        self.unwatch()
        if spoiled:
            raise ReplyError("EXECABORT Transaction discarded because of previous errors.")
        if broken:
            return NO_ARRAY
        if any(entry.writes for entry, _ in queue):
            try:
                self._check_writable()
            except ReplyError as error:
                raise ReplyError(f"EXECABORT Transaction discarded because of: {error}") from None
        replies: list[Any] = []
        self.executing = True
        try:
            for entry, args in queue:
                try:
                    reply = entry.run(self, args)
                except Later as later:
                    reply = later.work()
                except ReplyError as error:
                    reply = error
                except Exception as error:  # noqa: BLE001 - as in execute()
                    known = isinstance(error, (TileKVError, OSError, MemoryError))
                    reply = ReplyError(self.server.failed(error, fault=not known)[1:-2].decode())
                replies += reply if isinstance(reply, Several) else [reply]
        finally:
            self.executing = False
        return replies

    # --- what it is told ---

    def tell(self, message: list[Any]) -> None:
        """Send what it has not asked for."""
        if self.connection.unsent > self.server.options.max_unread:
            self.connection.closing = True
            self.server.log("warning", f"client {self.id} does not read what it listens to: closed")
        else:
            self.connection.write(encode(Push(message), self.resp3))
        self.server.loop.resume(self.connection)

    def reset(self) -> None:
        """As it was when it came."""
        self.end()
        self.unwatch()
        self.server.channels.leave_all(self)
        self.resp3 = False
        self.number = 0
        self.name = b""
        self.replies = "on"
        self.known = self.server.password is None

    def gone(self) -> None:
        """The client has gone."""
        self.unwatch()
        self.server.channels.leave_all(self)


def all_commands() -> list[Command]:
    """The table, and what stands under its containers."""
    return [*COMMANDS.values(), *SUBCOMMANDS.values()]


@command("multi", 1, "noscript fast", group="transactions")
def multi(session: Session, args: list[bytes]) -> Any:
    """Begin a transaction."""
    return session.begin()


@command("exec", 1, "noscript", group="transactions")
def exec_(session: Session, args: list[bytes]) -> Any:
    """Run a transaction: its writes are one step, for others and for a crash."""
    return session.run_transaction()


@command("discard", 1, "noscript fast", group="transactions")
def discard(session: Session, args: list[bytes]) -> Any:
    """Forget a transaction."""
    if session.queue is None:
        raise ReplyError("ERR DISCARD without MULTI")
    session.end()
    session.unwatch()
    return "OK"


@command("watch", -2, "noscript fast", (1, -1, 1), "transactions")
def watch(session: Session, args: list[bytes]) -> Any:
    """Have EXEC do nothing once one of the keys was written."""
    return session.watch(args[1:])


@command("unwatch", 1, "noscript fast", group="transactions")
def unwatch(session: Session, args: list[bytes]) -> Any:
    """Watch nothing any more."""
    session.unwatch()
    return "OK"

"""A store as one of a server's databases: keys and values as clients have them, and what one command reads and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from tilekv.config import Config
from tilekv.errors import KeyNotFoundError, TileKVError
from tilekv.expiry import LAST, NEVER
from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.hashing.digest import DIGESTS, coordinates
from tilekv.kvcore.serve.batch import Keyspace
from tilekv.kvcore.serve.resp import ReplyError
from tilekv.kvcore.values.keys import key_bytes
from tilekv.record import parsed
from tilekv.schema import Attr
from tilekv.serve.counting import KeyCount
from tilekv.store import Store
from tilekv.store import open as open_store

LOOK_AGAIN_S: Final = (
    0.01  # between two looks at what others have flushed, by commands that read, change and write
)
CURSOR_BITS: Final = 48  # of a digest that a cursor of SCAN has: clients keep 53 or 63 bits
FEW_CELLS: Final = 100_000  # that are looked at while other clients wait
NO_MOMENTS: Final = (
    "ERR this store keeps no moments of expiry; python -m tilekv convert --expires OLD NEW makes one "
    "that does"
)
WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"


def key_of(key: bytes) -> str | bytes:
    """The key of a store that a client's is: text if it is UTF-8, bytes if not."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def shown_key(key: Any) -> bytes | None:
    """A store's key as a client has it; None for those that no client can name."""
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError:  # text that is no UTF-8: they would ask for bytes
            return None
    if isinstance(key, bytes) and isinstance(key_of(key), bytes):
        return key
    return None


class Database(Keyspace):
    """One store, with a handle that the server's threads share.

    Attributes
    ----------
    number : int
        By which SELECT knows it.
    store : Store
    counter : KeyCount
    """

    def __init__(self, store: Store, number: int) -> None:
        self.number = number
        self.store = store
        self.attrs: tuple[Attr, ...] = tuple(store.schema.attrs)
        self.counter = KeyCount(store)
        self._known = {*store._open_snapshot().names}
        self._looked = 0.0

    # --- others that write ---

    def follow(self) -> None:
        """Look what others have flushed, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        if not self.store._lock.acquire(blocking=False):
            return  # a flush is under way: clients do not wait for it
        try:
            with suppress(TileKVError, OSError):  # upkeep meets it too, and says so
                if self.has_changed():
                    self.refresh()
        finally:
            self.store._lock.release()

    def has_changed(self) -> bool:
        """Whether there are other fragments than the handle sees."""
        engine = self.store._engine
        there = {str(name) for name in parsed(engine.storage.list().folders)}
        seen = {*self.store._open_snapshot().names}
        return there != seen or engine.storage.record_seq() != engine.opener.seq

    def refresh(self) -> bool:
        """Move the handle to the newest state; True when that has brought what others have written: who watches a key of it is
        told so."""
        with self.store._lock:  # else a flush may come between, and seem to be another's
            self._known.update(self.store._open_snapshot().names)
            self.store.reopen()
            snapshot = self.store._open_snapshot()
        names = {*snapshot.names}
        foreign = False
        for fragment in snapshot.fragments if not names <= self._known else ():
            if fragment.name in self._known:
                continue
            if not fragment.sources or not {*fragment.sources} <= self._known:
                foreign = True
        if len(self._known) > 4 * len(names) + 4096:
            self._known = names
        self._known |= names
        if foreign:
            self.touch_all()
        return foreign

    def touch_all(self) -> None:
        """All that is watched has changed, as far as anybody knows."""
        for watchers in list(self.watched.values()):
            for session in watchers:
                session.broken = True

    def touched(self, key: bytes) -> None:
        """A key was written."""
        for session in self.watched.get(key, ()):
            session.broken = True

    # --- all keys ---

    def is_small(self) -> bool:
        """Whether all keys can be looked at while other clients wait."""
        cells: int = sum(fragment.cells for fragment in self.store.fragments)
        return cells + self.store._unflushed() <= FEW_CELLS

    def count(self) -> int:
        """How many keys there are. Of a large store it may take long, as long as it has not been counted."""
        return len(self.store) if self.is_small() else self.counter.exact()

    def keys(self) -> list[bytes]:
        """All keys that a client can name."""
        return [key for key in map(shown_key, self.store.scan_keys()) if key is not None]

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Some keys from a cursor on, in the order of digests, and the next cursor; 0 is the beginning, and the end."""
        rows = count + 1
        low = cursor - 1 if cursor else 0
        if low >> CURSOR_BITS:
            return 0, []
        while True:
            batch = next(iter(self.store.scan([], rows=rows, low=low << (128 - CURSOR_BITS))), None)
            keys = [] if batch is None else batch.keys
            if len(keys) < rows:
                return 0, [key for key in map(shown_key, keys) if key is not None]
            layout = self.store._layout
            kind = DIGESTS[self.store.schema.digest]
            digests = coordinates(kind, [key_bytes(key, layout.numbers) for key in keys])
            prefixes = [c0 >> (64 - CURSOR_BITS) for c0, _ in digests]
            if prefixes[0] < prefixes[-1]:
                shown = [
                    shown_key(key)
                    for key, prefix in zip(keys, prefixes, strict=True)
                    if prefix < prefixes[-1]
                ]
                return prefixes[-1] + 1, [key for key in shown if key is not None]
            rows *= 2

    def random_key(self, number: int) -> bytes | None:
        """The first key from a random digest on."""
        for low in (number, 0):
            for batch in self.store.scan([], rows=64, low=low):
                for key in map(shown_key, batch.keys):
                    if key is not None:
                        return key
        return None


class Step:
    """What one command, or all of an EXEC, reads and writes: it sees its own writes, and `commit` does them in one step."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = database.store
        self.changes: dict[bytes, tuple[Any, int] | None] = {}
        self.cleared = False  # before these changes every key was deleted
        self.now = self.store._clock() or time.time_ns() // 1_000_000

    @property
    def pending(self) -> bool:
        """Whether anything was changed that is not in the store."""
        return self.cleared or bool(self.changes)

    # --- reading ---

    def get(self, key: bytes) -> Any:
        """The value of a key: bytes, or a dict where the store has several attributes; None when it is not there."""
        if key in self.changes:
            change = self.changes[key]
            return None if change is None else change[0]
        if self.cleared:
            return None
        found = self.store.get(key_of(key), self)
        if found is self:
            return None
        return self._out(found)

    def string(self, key: bytes) -> bytes | None:
        """The value of a key that is a string."""
        self.require_strings()
        value: bytes | None = self.get(key)
        return value

    def require_strings(self) -> None:
        """WRONGTYPE unless values are strings."""
        if not self.database.strings:
            raise ReplyError(WRONG_TYPE)

    def strings(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys that are strings."""
        self.require_strings()
        if self.pending:
            return [self.get(key) for key in keys]
        found = self.store.get_many([key_of(key) for key in keys])
        return [None if value is None else self._out(value) for value in found]

    def has(self, key: bytes) -> bool:
        """Whether a key is there."""
        if key in self.changes:
            return self.changes[key] is not None
        return self._is_stored(key)

    def _is_stored(self, key: bytes) -> bool:
        return not self.cleared and key_of(key) in self.store

    def moment(self, key: bytes) -> int | None:
        """When a key expires, in ms since 1970: NEVER for most; None when it is not there."""
        if key in self.changes:
            change = self.changes[key]
            return None if change is None else change[1]
        if self.cleared:
            return None
        try:
            return self.store._expires(key_of(key))
        except KeyNotFoundError:
            return None

    def count(self) -> int:
        """How many keys there are."""
        count = 0 if self.cleared else self.database.count()
        for key, change in self.changes.items():
            count += (change is not None) - self._is_stored(key)
        return count

    def keys(self) -> list[bytes]:
        """All keys that a client can name."""
        stored = [] if self.cleared else self.database.keys()
        if not self.changes:
            return stored
        put = [key for key, change in self.changes.items() if change is not None]
        return [key for key in stored if key not in self.changes] + put

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Some keys from a cursor on, as `Database.scan`; new ones come first of all."""
        after, found = (0, []) if self.cleared else self.database.scan(cursor, count)
        if self.changes:
            found = [key for key in found if self.changes.get(key, ()) is not None]
        if cursor == 0:
            put = [key for key, change in self.changes.items() if change is not None]
            found += [key for key in put if not self._is_stored(key)]
        return after, found

    def random_key(self, number: int) -> bytes | None:
        """A key, by a random number of 128 bits."""
        if not self.pending:
            return self.database.random_key(number)
        keys = self.keys()
        return keys[number % len(keys)] if keys else None

    def _out(self, value: Any) -> Any:
        if not self.database.strings:
            return value if isinstance(value, dict) else {self.database.attrs[0].name: value}
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value

    # --- writing ---

    def put(self, key: bytes, value: Any, moment: int = NEVER) -> None:
        """Set a key. What has expired by now is gone at once."""
        if moment != NEVER:
            if not self.database.expires:
                raise ReplyError(NO_MOMENTS)
            moment = min(moment, LAST)
            if moment <= self.now:
                self.delete(key)
                return
        if self.database.text:
            try:
                value.decode()
            except UnicodeDecodeError:
                raise ReplyError("ERR the values of this store are text: UTF-8") from None
        self.changes[key] = (value, moment)

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self.changes[key] = None

    def clear(self) -> None:
        """Delete every key."""
        self.changes = {}
        self.cleared = True

    def commit(self, replace: Callable[[Database, CellSource | None, int], object]) -> bool:
        """Write what was changed, in one step; False when nothing was. `replace`: see `Upkeep.clear`."""
        if not self.pending:
            return False
        database, store = self.database, self.store
        keys: list[Any] = []
        values: list[Any] = []
        words: list[int] = []
        deletes: list[Any] = []
        for key, change in self.changes.items():
            if change is None:
                deletes.append(key_of(key))
                continue
            value, moment = change
            keys.append(key_of(key))
            values.append(self._in(value))
            words.append(moment)
        moments = np.array(words, np.int64)
        replaced = self.cleared and not database.is_small()
        if self.cleared and not replaced:
            put = {*keys}
            deletes = [key for key in store if key not in put]
        self.cleared = False
        if not keys and not deletes and not replaced:
            return False
        if replaced:
            cells = store._sorted_rows(keys, values, moments) if keys else None
            replace(database, cells, max(len(keys), 1))
        elif database.expires:
            store._apply((), keys, values, moments, deletes)
        else:
            puts = dict(zip(keys, values, strict=True))
            store._apply(puts, [], [], np.empty(0, np.int64), deletes)
        if not replaced:
            database.written()
        if database.watched:
            for key in self.changes:
                database.touched(key)
        self.changes = {}
        return True

    def _in(self, value: Any) -> Any:
        if self.database.text:
            return value.decode()
        if not self.database.strings and len(self.database.attrs) == 1:
            return value[self.database.attrs[0].name]
        return value


def field_text(value: Any) -> bytes:
    """A value of an attribute as a field of a hash: numbers in decimal, times as ISO 8601 has them, arrays as their bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bool, np.bool_)):
        return b"1" if value else b"0"
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return str(value).encode()


def field_value(attr: Attr, text: bytes) -> Any:
    """What a field's text stands for; ReplyError when it is none of the attribute's values."""
    kind = np.dtype(attr.type_name).kind if attr.type_name not in ("bytes", "str") else ""
    try:
        if attr.type_name == "bytes":
            return text
        if attr.type_name == "str":
            return text.decode()
        if attr.shape or attr.var:
            return np.frombuffer(text, attr.type_name).reshape(attr.shape or (-1,))
        if kind in "iu":
            return int(text)
        if kind == "f":
            return float(text)
        if kind == "b" and text in (b"0", b"1"):
            return text == b"1"
        if kind in "mM":
            return np.dtype(attr.type_name).type(text.decode())
    except (ValueError, UnicodeDecodeError):
        pass
    raise ReplyError(f"ERR the field '{attr.name}' is of {attr.type_name}")


def open_database(
    number: int, uri: str, config: Config | dict[str, object], read_only: bool
) -> Database:
    """Open a store for a server, or make one whose entries may expire."""
    if read_only:
        store = open_store(uri, "r", config=config)
    else:
        try:
            store = open_store(uri, "a", config=config, expires=True)
        except TileKVError:
            store = open_store(uri, "a", config=config)
    database = Database(store, number)
    database.read_only = read_only
    return database

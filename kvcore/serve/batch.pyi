from typing import Any, Self, final

from typing_extensions import disjoint_base

from tilekv.kvcore.handle import Handle

@disjoint_base
class Keyspace:
    handle: Handle
    strings: bool
    text: bool
    expires: bool
    read_only: bool
    refusal: bytes | None
    stalled: bool
    watched: dict[bytes, Any]
    dirty_since: float
    writes: int
    hits: int
    misses: int
    def __new__(cls, handle: Handle, *_: Any) -> Self: ...
    def written(self) -> None: ...

@final
class Connection:
    socket: Any
    session: Any
    keyspace: Keyspace | None
    fast: bool
    resp3: bool
    waiting: bool
    closing: bool
    held: bool
    parked: bool
    active: float
    progress: float
    def __new__(cls, socket: Any, session: Any = None) -> Connection: ...
    def limit(self, arguments: int, bulk: int, line: int, known: bool) -> None: ...
    def write(self, reply: bytes) -> None: ...
    @property
    def unsent(self) -> int: ...
    @property
    def unanswered(self) -> int: ...
    @property
    def lost(self) -> bool: ...

@final
class HeldValue: ...

@final
class Batch:
    commands: int
    slower_than: int
    most_pending: int
    most_seconds: float
    pending: int
    def __new__(cls, server: Any) -> Batch: ...
    def note_write(self, connection: Connection) -> None: ...
    def reset(self) -> None: ...
    def counts(self) -> dict[str, tuple[int, float]]: ...

def serves(handle: Handle) -> bool: ...

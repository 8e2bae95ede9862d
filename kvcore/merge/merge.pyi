from typing import final

from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.write.sorted_buffer import SortedBuffer

@final
class Merge:
    def __new__(
        cls,
        snapshot: Snapshot,
        buffers: tuple[SortedBuffer, ...] = (),
        tombstones: bool = False,
        now: int = 0,
        low: int = 0,
        high: int | None = None,
    ) -> Merge: ...
    @property
    def consumed(self) -> int: ...
    def stop(self) -> None: ...
    def count(self) -> int: ...
    def live(self) -> list[int]: ...
    def any(self) -> bool: ...

from collections.abc import Callable, Iterator
from typing import Protocol, final

from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.write.memtable import Buffer

class _Workers(Protocol):  # of tilekv.workers
    @property
    def most(self) -> int: ...
    def map_all(self, work: Callable[[int], None], items: range, /) -> Iterator[None]: ...

@final
class SortedBuffer(CellSource): ...

def sort_buffer(buffer: Buffer, workers: _Workers | None = None) -> SortedBuffer: ...

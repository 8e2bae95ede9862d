from collections.abc import Callable, Iterator
from typing import Protocol, final

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource

class _Workers(Protocol):  # of tilekv.workers
    @property
    def most(self) -> int: ...
    def map_all(self, work: Callable[[int], None], items: range, /) -> Iterator[None]: ...

@final
class Buffer:
    layout: Layout
    n: int
    size: int
    def __new__(cls, layout: Layout) -> Buffer: ...

@final
class SortedBuffer(CellSource): ...

def sort_buffer(buffer: Buffer, workers: _Workers | None = None) -> SortedBuffer: ...

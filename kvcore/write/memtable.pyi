from collections.abc import Callable, Iterable
from typing import final

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource

@final
class Buffer:
    layout: Layout
    n: int
    size: int
    def __new__(cls, layout: Layout) -> Buffer: ...
    def since(self, n: int) -> Buffer: ...

@final
class SortedBuffer(CellSource):
    def __new__(
        cls,
        buffer: Buffer,
        shares: int = 1,
        run: Callable[[Callable[[int], None], range], Iterable[None]] = ...,
    ) -> SortedBuffer: ...

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias, final, overload

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, ChunkPlan

_File: TypeAlias = tuple[int, str, bool]  # of Layout.files

class _Workers(Protocol):  # of tilekv.workers
    def map_all(
        self, work: Callable[[_File], ChunkPlan], items: list[_File], /
    ) -> Iterable[ChunkPlan]: ...

@final
class FragmentBuilder:
    layout: Layout
    cells: int
    tombstones: int
    def __new__(
        cls, layout: Layout, cells: int = 0, low: int = 0, width: int = 0
    ) -> FragmentBuilder: ...
    @overload
    def add(self, source: CellSource, workers: None = None) -> list[ChunkPlan]: ...
    @overload
    def add(self, source: CellSource, workers: _Workers) -> Iterable[ChunkPlan]: ...
    def written(self, plan: ChunkPlan) -> None: ...
    def metadata(
        self,
        uuid: bytes,
        t1: int,
        t2: int,
        sources: Iterable[str] = (),
        bound: bool = True,
        expired: int = 0,
        filtered: bool = True,
        first_output: str = "",
    ) -> bytes: ...

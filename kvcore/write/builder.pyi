from collections.abc import Callable, Iterable
from typing import TypeAlias, final, overload

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, ChunkPlan

_File: TypeAlias = tuple[int, str, bool]  # of Layout.files

@final
class FragmentBuilder:
    layout: Layout
    cells: int
    tombstones: int
    def __new__(cls, layout: Layout) -> FragmentBuilder: ...
    @overload
    def add(self, source: CellSource, run: None = None) -> list[ChunkPlan]: ...
    @overload
    def add(
        self,
        source: CellSource,
        run: Callable[[Callable[[_File], ChunkPlan], list[_File]], Iterable[ChunkPlan]],
    ) -> Iterable[ChunkPlan]: ...
    def written(self, cuts: ChunkPlan) -> None: ...
    def metadata(
        self, uuid: bytes, t1: int, t2: int, sources: Iterable[str] = (), bound: bool = True
    ) -> bytes: ...

from collections.abc import Callable, Iterable
from typing import TypeAlias, final, overload

from tilekv.kvcore.layout import Layout
from tilekv.kvcore.tile import CellSource, Cuts

_File: TypeAlias = tuple[int, str, bool]  # of Layout.files

@final
class FragmentBuilder:
    layout: Layout
    cells: int
    tombstones: int
    def __new__(cls, layout: Layout) -> FragmentBuilder: ...
    @overload
    def add(self, source: CellSource, run: None = None) -> list[Cuts]: ...
    @overload
    def add(
        self,
        source: CellSource,
        run: Callable[[Callable[[_File], Cuts], list[_File]], Iterable[Cuts]],
    ) -> Iterable[Cuts]: ...
    def written(self, cuts: Cuts) -> None: ...
    @staticmethod
    def trailer(uuid: bytes, slot: int) -> bytes: ...
    def metadata(
        self, uuid: bytes, t1: int, t2: int, sources: Iterable[str] = (), bound: bool = True
    ) -> bytes: ...

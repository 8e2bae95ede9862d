from collections.abc import Iterable
from typing import final

from tilekv.kvcore.layout import Layout
from tilekv.kvcore.tile import CellSource, Cuts

@final
class FragmentBuilder:
    layout: Layout
    cells: int
    tombstones: int
    def __new__(cls, layout: Layout) -> FragmentBuilder: ...
    def add(self, source: CellSource) -> list[Cuts]: ...
    def written(self, cuts: Cuts) -> None: ...
    @staticmethod
    def trailer(uuid: bytes, slot: int) -> bytes: ...
    def metadata(
        self, uuid: bytes, t1: int, t2: int, sources: Iterable[str] = (), bound: bool = True
    ) -> bytes: ...

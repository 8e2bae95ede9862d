from typing import final

from tilekv.kvcore.merge import Merge
from tilekv.kvcore.tile import CellSource

@final
class MergedCells(CellSource):
    def __new__(cls, merge: Merge, room: int) -> MergedCells: ...
    def begins_after(self, other: MergedCells) -> bool: ...
    def __len__(self) -> int: ...

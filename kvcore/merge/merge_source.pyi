from typing import final

from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.merge.merge import Merge

@final
class MergedCells(CellSource):
    def __new__(cls, merge: Merge, room: int) -> MergedCells: ...
    def begins_after(self, other: MergedCells) -> bool: ...
    def __len__(self) -> int: ...

from typing import final

from .buffer import SortedBuffer
from .search import View

@final
class Merge:
    def __new__(
        cls, view: View, buffer: SortedBuffer, tombstones: bool = False
    ) -> Merge: ...
    def count(self) -> int: ...
    def any(self) -> bool: ...

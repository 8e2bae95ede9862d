from typing import final

from tilekv.kvcore.buffer import SortedBuffer
from tilekv.kvcore.search import View

@final
class Merge:
    def __new__(cls, view: View, buffer: SortedBuffer, tombstones: bool = False) -> Merge: ...
    def count(self) -> int: ...
    def any(self) -> bool: ...

from typing_extensions import Buffer

from .codec import CodecPool
from .layout import Layout

class CellSource: ...

class Cuts:
    slot: int
    def runs(self, size: int) -> list[tuple[int, int]]: ...

class Encoded(Buffer):
    def __len__(self) -> int: ...

def encode(
    layout: Layout, source: CellSource, cuts: Cuts, first: int, last: int, codecs: CodecPool
) -> Encoded: ...

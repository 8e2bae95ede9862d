from typing_extensions import Buffer

from tilekv.kvcore.codec import CodecPool
from tilekv.kvcore.layout import Layout

class CellSource: ...

class Cuts:
    slot: int
    def runs(self, size: int) -> list[tuple[int, int]]: ...

class Encoded(Buffer):
    def __len__(self) -> int: ...

def encode(
    layout: Layout, source: CellSource, cuts: Cuts, first: int, last: int, codecs: CodecPool
) -> Encoded: ...

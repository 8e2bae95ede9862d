from typing import final

from typing_extensions import disjoint_base

from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout

@disjoint_base
class CellSource:
    def __len__(self) -> int: ...

@final
class ChunkPlan:
    slot: int
    def runs(self, size: int) -> list[tuple[int, int]]: ...

@final
class Encoded:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

def encode(
    layout: Layout, source: CellSource, plan: ChunkPlan, first: int, last: int, codecs: CodecPool
) -> Encoded: ...

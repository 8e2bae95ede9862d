from typing import final

from typing_extensions import disjoint_base

from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout

LONG_CELL: int
LONG_CELL_CHUNK: int

@disjoint_base
class CellSource:
    def __len__(self) -> int: ...

@final
class ChunkPlan:
    slot: int
    def extend(self, other: ChunkPlan) -> None: ...
    def count(self) -> bytes: ...
    def runs(self, size: int) -> list[tuple[int, int]]: ...

@final
class StreamedBytes(CellSource):
    plan: ChunkPlan
    def __new__(cls, slot: int, start: int, data: bytes, chunks: int = 1) -> StreamedBytes: ...
    def encode(self, layout: Layout, codecs: CodecPool) -> Encoded: ...

@final
class Encoded:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

def encode(
    layout: Layout, source: CellSource, plan: ChunkPlan, first: int, last: int, codecs: CodecPool
) -> Encoded: ...

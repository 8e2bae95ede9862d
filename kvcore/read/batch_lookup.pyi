from typing import final

from typing_extensions import disjoint_base

from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.values.input_cells import Cells
from tilekv.kvcore.write.memtable import Buffer

@disjoint_base
class Continuation: ...

@final
class Lookup:
    def __new__(cls, snapshot: Snapshot, buffer: Buffer, room: int, defer: bool) -> Lookup: ...

@final
class LookupPipeline:
    def __new__(
        cls, snapshot: Snapshot, buffer: Buffer, pieces: list[Cells], defer: bool, threaded: bool
    ) -> LookupPipeline: ...

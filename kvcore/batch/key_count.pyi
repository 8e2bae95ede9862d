from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.kvcore.write.sorted_buffer import SortedBuffer

def count_change(
    base: Snapshot, then: int, young: Snapshot, buffers: tuple[SortedBuffer, ...]
) -> int: ...

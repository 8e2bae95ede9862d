from collections.abc import Iterable, Iterator
from typing import Any, final

from tilekv.kvcore.batch.results import Batch
from tilekv.kvcore.merge.merge import Merge

@final
class MergeCursor:
    def __new__(cls, merge: Merge, room: int, most: int) -> MergeCursor: ...

@final
class CellIterator(Iterator[Any]):
    def __iter__(self) -> CellIterator: ...
    def __next__(self) -> Any: ...

@final
class Scan(Iterable[Batch]):
    def __iter__(self) -> Iterator[Batch]: ...
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...

from typing import final

from tilekv.kvcore.read.batch_lookup import Continuation
from tilekv.kvcore.values.values import Column

@final
class PartColumns(Continuation):
    def __new__(cls, builders: list[ColumnBuilder]) -> PartColumns: ...

@final
class ColumnBuilder:
    def __new__(cls, column: Column, n: int) -> ColumnBuilder: ...

from typing import final

from tilekv.kvcore.values.column import Column

@final
class Resident:
    def __new__(cls, columns: tuple[Column, ...], bare: bool) -> Resident: ...

@final
class ColumnBuilder:
    def __new__(cls, column: Column, n: int) -> ColumnBuilder: ...

from typing import final

from tilekv.kvcore.values import Column

@final
class Resident:
    def __new__(cls, columns: tuple[Column, ...]) -> Resident: ...

@final
class Landing:
    def __new__(cls, column: Column, n: int) -> Landing: ...

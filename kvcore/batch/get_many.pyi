from typing import final

from tilekv.kvcore.values.values import Column

@final
class Resident:
    def __new__(cls, columns: tuple[Column, ...], bare: bool) -> Resident: ...

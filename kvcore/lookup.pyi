from typing import final

from tilekv.kvcore.buffer import Buffer
from tilekv.kvcore.cells import Cells
from tilekv.kvcore.search import View

@final
class Lookup:
    def __new__(cls, view: View, buffer: Buffer, room: int, defer: bool) -> Lookup: ...

@final
class Parts:
    def __new__(
        cls, view: View, buffer: Buffer, pieces: list[Cells], defer: bool, threaded: bool
    ) -> Parts: ...

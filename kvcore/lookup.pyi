from typing import final

from tilekv.kvcore.buffer import Buffer
from tilekv.kvcore.search import View

@final
class Lookup:
    def __new__(cls, view: View, buffer: Buffer, room: int) -> Lookup: ...

@final
class Resident: ...
